"""What a person sees while a study runs: a table in a terminal, curves in a notebook, a line per trial in a pipe."""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from convolab.core.escape import escape_line, html_text
from convolab.core.rng import kept_python_generator
from convolab.core.streams import is_terminal, print_progress
from convolab.core.text import format_duration, format_percent
from convolab.reports.notebook import NotebookDisplay, bar_html, is_notebook

if TYPE_CHECKING:
    from rich.table import Table

    from convolab.studies.executor import Job, JobEvent
    from convolab.studies.study import Study, Trial


class StudyProgress:
    """Shows what an executor reports: running trials, speed, time left and the best accuracy, on standard error."""

    def __init__(self, study: "Study | None" = None) -> None:
        with kept_python_generator():
            from rich.console import Console
            from rich.live import Live

        self.trials: dict[str, Trial] = {}  # by recipe key
        if study:
            self.add_trials(study)
        self.costs: dict[str, float] = {}
        self.fractions_done: dict[str, float] = {}  # of each job that has started
        self.fractions_done_before: dict[str, float] = {}  # the fraction that an earlier process had done
        self.running: dict[str, JobEvent] = {}
        self.num_done = 0
        self.num_planned = len(self.trials)
        self.started_at = time.monotonic()
        self.best_accuracy = 0.0
        self.best_trial = ""
        self.live: Live | None = None
        if is_terminal():
            console = Console(stderr=True)
            self.live = Live(console=console, refresh_per_second=2, transient=True, get_renderable=self.render_table)

    def add_trials(self, study: "Study") -> None:
        """Know the trials of a study, which may have more of them than it had."""
        for trial in study.possible_trials:
            self.trials.setdefault(trial.recipe.key, trial)

    def __enter__(self) -> "StudyProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def on_plan(self, jobs: list["Job"], num_done: int) -> None:
        """The jobs to do, and how many runs were complete before."""
        is_first = not self.costs
        self.costs = {job.recipe.key: job.cost for job in jobs}
        self.fractions_done, self.fractions_done_before = {}, {}  # those of an earlier plan do not count here
        self.num_done = num_done
        self.num_planned = num_done + len(jobs)
        self.started_at = time.monotonic()
        if num_done and is_first:
            self.print_line(f"{num_done} of {num_done + len(jobs)} runs are already complete")
        if self.live and jobs:
            self.live.start()

    def on_search_plan(self, study: "Study", jobs: list["Job"], num_done: int) -> None:
        """As `on_plan`, for a search: its study may have more trials than before."""
        self.add_trials(study)
        self.on_plan(jobs, num_done)

    def on_event(self, event: "JobEvent") -> None:
        """Handle one event of the executor."""
        label = trial_label(self.trials[event.key])
        accuracy = event.epoch.validation_accuracy if event.epoch else None
        if accuracy is not None and accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            self.best_trial = label
        if event.kind in ("progress", "epoch"):
            self.running[event.key] = event
            resumed = event.fraction_done > 0.5 and event.kind == "progress"
            self.fractions_done_before.setdefault(event.key, event.fraction_done if resumed else 0.0)
            self.fractions_done[event.key] = event.fraction_done
        elif event.kind == "retrying":
            self.running.pop(event.key, None)
            self.print_line(f"{label}: {event.reason}; retrying")
        elif event.kind != "started":
            self.on_end(event, label)

    def on_end(self, event: "JobEvent", label: str) -> None:
        """A trial's line when it has ended."""
        last_event = self.running.pop(event.key, None)
        if event.kind != "stopped":
            self.num_done += 1
            self.fractions_done[event.key] = 1.0
        accuracy = last_event.epoch.validation_accuracy if last_event and last_event.epoch else None
        line = f"{self.num_done}/{self.num_planned}  {label}: {event.kind}"
        if accuracy is not None and event.kind in ("finished", "paused"):
            line += f", validation accuracy {format_percent(accuracy)}"
        line += f" ({event.reason})" if event.reason else ""
        if event.kind in ("failed", "diverged"):
            self.print_line(line)
        else:
            self.show_progress(line)

    def seconds_left(self) -> float | None:
        """Seconds until all is done, by the cost of what was done since the start; None in the first two seconds."""
        cost_done = sum(
            self.costs[key] * (fraction - self.fractions_done_before.get(key, 0.0))
            for key, fraction in list(self.fractions_done.items())
        )
        cost_left = sum(cost * (1 - self.fractions_done.get(key, 0.0)) for key, cost in self.costs.items())
        seconds = time.monotonic() - self.started_at
        return seconds * cost_left / cost_done if cost_done > 0 and seconds > 2 else None

    def show_progress(self, line: str) -> None:
        """Show a line that the next one of its kind may replace."""
        self.print_line(line)

    def print_line(self, line: str) -> None:
        if self.live:
            self.live.console.print(escape_line(line), highlight=False, soft_wrap=True, markup=False)
        else:
            print_progress(line)

    def status_line(self) -> str:
        """How far the study is, in a line."""
        speed = sum(event.images_per_second for event in list(self.running.values()))
        line = f"{self.num_done} of {self.num_planned} runs done, {speed:,.0f} images/s"
        if seconds_left := self.seconds_left():
            line += f", about {format_duration(seconds_left)} left"
        if self.best_trial:
            line += f"; best validation accuracy {format_percent(self.best_accuracy)} ({self.best_trial})"
        return escape_line(line)

    def render_table(self) -> "Table":
        """The table of running trials, below a line about all."""
        from rich import box
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        title = self.status_line()
        table = Table(
            "trial",
            "done",
            "images/s",
            "validation",
            box=box.SIMPLE_HEAD,
            title=Text(title),
            title_justify="left",
            title_style="",
        )
        for key, event in list(self.running.items()):
            table.add_row(
                Text(escape_line(trial_label(self.trials[key]))),
                ProgressBar(1.0, event.fraction_done, width=20),
                f"{event.images_per_second:,.0f}",
                format_percent(event.epoch.validation_accuracy) if event.epoch else "",
            )
        return table


class NotebookStudy(StudyProgress):
    """The same in a notebook: a bar, a line and every trial's accuracy so far, drawn in one place."""

    def __init__(self, study: "Study") -> None:
        super().__init__(study)
        self.live = None
        self.points: list[dict[str, object]] = []
        self.curves = ""
        self.last_line = ""
        self.messages: list[str] = []
        self.display = NotebookDisplay(self.html())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.draw(with_curves=True)

    def on_event(self, event: "JobEvent") -> None:
        super().on_event(event)
        if event.kind == "epoch" and event.epoch:
            accuracy = event.epoch.validation_accuracy
            accuracy = event.epoch.train_accuracy if accuracy is None else accuracy
            label = trial_label(self.trials[event.key])
            self.points.append({"trial": label, "epoch": event.epoch.epoch, "accuracy": 100 * accuracy})
        if self.display.may_draw_curves():
            self.draw(with_curves=True)
        elif self.display.may_draw():
            self.draw()

    def show_progress(self, line: str) -> None:
        self.last_line = line

    def print_line(self, line: str) -> None:
        self.messages.append(line)
        self.draw()

    def draw(self, with_curves: bool = False) -> None:
        """Draw the bar and its lines again, and the curves if they are asked for."""
        started = time.monotonic()
        if with_curves and self.points:
            from convolab.plots.figure import ChartFigure
            from convolab.plots.training import trials_chart
            from convolab.reports.result_view import figure_html

            self.curves = figure_html(ChartFigure(trials_chart(self.points)))
        self.display.draw(self.html(), started)

    def html(self) -> str:
        """The bar, its lines, the messages and the curves."""
        lines = "<br>".join(f"<code>{html_text(line)}</code>" for line in (self.status_line(), self.last_line) if line)
        messages = "".join(f"<p>{html_text(message)}</p>" for message in self.messages)
        return f"<div>{bar_html(self.num_done / max(self.num_planned, 1))}<br>{lines}</div>{messages}{self.curves}"


def live_study(study: "Study") -> StudyProgress:
    """What shows a study here: curves in a notebook, a table in a terminal, lines in a pipe."""
    return NotebookStudy(study) if is_notebook() else StudyProgress(study)


def trial_label(trial: "Trial") -> str:
    """A trial in a few words."""
    return f"{trial.section}, {trial.arm}, seed {trial.seed}"
