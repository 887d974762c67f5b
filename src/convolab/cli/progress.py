"""A study as it goes on: a live table on a terminal, a line a trial in a pipe."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from convolab.cli.terminal import format_percent
from convolab.core.text import format_duration

if TYPE_CHECKING:
    from convolab.studies.executor import Job, JobEvent
    from convolab.studies.study import Study, Trial

TERMINAL_EVENTS = ("finished", "diverged", "stopped", "failed")


class StudyProgress:
    """Listens to an engine, and shows what is under way, how fast, what is left and the best so far, on standard error."""

    def __init__(self, study: "Study") -> None:
        from rich.console import Console
        from rich.live import Live

        self.trials: dict[str, Trial] = {}
        for trial in study.trials:
            self.trials.setdefault(trial.recipe.key, trial)
        self.costs: dict[str, float] = {}
        self.fractions_done: dict[str, float] = {}  # of each job that was begun
        self.fractions_done_before: dict[str, float] = {}  # the share that an earlier process had done
        self.running: dict[str, JobEvent] = {}
        self.num_done, self.started_at, self.best = 0, time.monotonic(), (0.0, "")
        console = Console(stderr=True)
        self.live = (
            Live(console=console, refresh_per_second=2, transient=True, get_renderable=self.render_table)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> "StudyProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def on_plan(self, jobs: list["Job"], num_done: int) -> None:
        """What there is to do, and how many runs were done before."""
        self.costs, self.num_done, self.started_at = (
            {job.recipe.key: job.cost for job in jobs},
            num_done,
            time.monotonic(),
        )
        if num_done:
            self.print_line(f"{num_done} of {num_done + len(jobs)} runs are there already")
        if self.live and jobs:
            self.live.start()

    def on_event(self, event: "JobEvent") -> None:
        """One word of the engine."""
        trial = self.trials[event.key]
        if event.epoch and (event.epoch.validation_accuracy or 0) > self.best[0]:
            self.best = (event.epoch.validation_accuracy, self.trial_label(trial))
        if event.kind in ("under way", "epoch"):
            self.running[event.key] = event
            self.fractions_done_before.setdefault(
                event.key, event.fraction_done if event.fraction_done > 0.5 and event.kind == "under way" else 0.0
            )
            self.fractions_done[event.key] = event.fraction_done
        elif event.kind == "tried again":
            self.running.pop(event.key, None)
            self.print_line(f"{self.trial_label(trial)}: {event.reason}; tried once more")
        elif event.kind in TERMINAL_EVENTS:
            last_event = self.running.pop(event.key, None)
            if event.kind != "stopped":
                self.num_done += 1
                self.fractions_done[event.key] = 1.0
            accuracy = last_event.epoch.validation_accuracy if last_event and last_event.epoch else None
            accuracy_text = (
                f", validation accuracy {format_percent(accuracy)}"
                if accuracy is not None and event.kind == "finished"
                else ""
            )
            self.print_line(
                f"{self.num_done}/{len(self.trials)}  {self.trial_label(trial)}: {event.kind}{accuracy_text}"
                + (f" ({event.reason})" if event.reason else "")
            )

    def trial_label(self, trial: "Trial") -> str:
        return f"{trial.section}, {trial.arm}, seed {trial.seed}"

    def seconds_left(self) -> float | None:
        """Seconds until all is done, by the cost of what was done since the start."""
        cost_done = sum(
            self.costs[key] * (share - self.fractions_done_before.get(key, 0.0))
            for key, share in self.fractions_done.items()
        )
        cost_left = sum(cost * (1 - self.fractions_done.get(key, 0.0)) for key, cost in self.costs.items())
        seconds = time.monotonic() - self.started_at
        return seconds * cost_left / cost_done if cost_done > 0 and seconds > 2 else None

    def print_line(self, line: str) -> None:
        if self.live:
            self.live.console.print(line, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def render_table(self) -> object:
        """The table as it stands."""
        from rich import box
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        seconds_left, rate = self.seconds_left(), sum(news.images_per_second for news in self.running.values())
        best = f"; best validation accuracy {format_percent(self.best[0])} ({self.best[1]})" if self.best[1] else ""
        title = (
            f"{self.num_done} of {len(self.trials)} runs done, {rate:,.0f} images/s"
            + (f", about {format_duration(seconds_left)} left" if seconds_left else "")
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
        for key, news in list(self.running.items()):
            accuracy = format_percent(news.epoch.validation_accuracy) if news.epoch else ""
            table.add_row(
                self.trial_label(self.trials[key]),
                ProgressBar(1.0, news.fraction_done, width=20),
                f"{news.images_per_second:,.0f}",
                accuracy,
            )
        return table
