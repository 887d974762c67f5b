"""A study as it goes on: a live table on a terminal, a line a trial in a pipe."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from convolab.cli.terminal import percent
from convolab.core.text import duration

if TYPE_CHECKING:
    from convolab.studies.executor import Job, News
    from convolab.studies.study import Study, Trial

ENDS = ("finished", "diverged", "stopped", "failed")


class StudyTable:
    """Listens to an engine, and shows what is under way, how fast, what is left and the best so far, on standard error."""

    def __init__(self, study: "Study") -> None:
        from rich.console import Console
        from rich.live import Live

        self.trials: dict[str, Trial] = {}
        for trial in study.trials:
            self.trials.setdefault(trial.recipe.key, trial)
        self.costs: dict[str, float] = {}
        self.shares: dict[str, float] = {}  # of each job that was begun
        self.before: dict[str, float] = {}  # the share that an earlier process had done
        self.working: dict[str, News] = {}
        self.done, self.began, self.best = 0, time.monotonic(), (0.0, "")
        console = Console(stderr=True)
        self.live = (
            Live(console=console, refresh_per_second=2, transient=True, get_renderable=self.drawn)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> "StudyTable":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def plan(self, jobs: list["Job"], done: int) -> None:
        """What there is to do, and how many runs were done before."""
        self.costs, self.done, self.began = {job.recipe.key: job.cost for job in jobs}, done, time.monotonic()
        if done:
            self.say(f"{done} of {done + len(jobs)} runs are there already")
        if self.live and jobs:
            self.live.start()

    def hear(self, news: "News") -> None:
        """One word of the engine."""
        trial = self.trials[news.key]
        if news.epoch and (news.epoch.validation_accuracy or 0) > self.best[0]:
            self.best = (news.epoch.validation_accuracy, self.name(trial))
        if news.kind in ("under way", "epoch"):
            self.working[news.key] = news
            self.before.setdefault(news.key, news.share if news.share > 0.5 and news.kind == "under way" else 0.0)
            self.shares[news.key] = news.share
        elif news.kind == "tried again":
            self.working.pop(news.key, None)
            self.say(f"{self.name(trial)}: {news.reason}; tried once more")
        elif news.kind in ENDS:
            last = self.working.pop(news.key, None)
            if news.kind != "stopped":
                self.done += 1
                self.shares[news.key] = 1.0
            accuracy = last.epoch.validation_accuracy if last and last.epoch else None
            said = (
                f", validation accuracy {percent(accuracy)}" if accuracy is not None and news.kind == "finished" else ""
            )
            self.say(
                f"{self.done}/{len(self.trials)}  {self.name(trial)}: {news.kind}{said}"
                + (f" ({news.reason})" if news.reason else "")
            )

    def name(self, trial: "Trial") -> str:
        return f"{trial.section}, {trial.arm}, seed {trial.seed}"

    def left(self) -> float | None:
        """Seconds until all is done, by the cost of what was done since the start."""
        spent = sum(self.costs[key] * (share - self.before.get(key, 0.0)) for key, share in self.shares.items())
        rest = sum(cost * (1 - self.shares.get(key, 0.0)) for key, cost in self.costs.items())
        seconds = time.monotonic() - self.began
        return seconds * rest / spent if spent > 0 and seconds > 2 else None

    def say(self, line: str) -> None:
        if self.live:
            self.live.console.print(line, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def drawn(self) -> object:
        """The table as it stands."""
        from rich import box
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        left, rate = self.left(), sum(news.rate for news in self.working.values())
        best = f"; best validation accuracy {percent(self.best[0])} ({self.best[1]})" if self.best[1] else ""
        title = (
            f"{self.done} of {len(self.trials)} runs done, {rate:,.0f} images/s"
            + (f", about {duration(left)} left" if left else "")
            + best
        )
        table = Table(
            "trial",
            "done",
            "images/s",
            "validation",
            box=box.SIMPLE_HEAD,
            title=title,
            title_justify="left",
            title_style="",
        )
        for key, news in list(self.working.items()):
            accuracy = percent(news.epoch.validation_accuracy) if news.epoch else ""
            table.add_row(
                self.name(self.trials[key]), ProgressBar(1.0, news.share, width=20), f"{news.rate:,.0f}", accuracy
            )
        return table
