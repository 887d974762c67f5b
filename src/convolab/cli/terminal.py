"""What moves on a terminal: bars, tables, and the person's Ctrl-C. In a pipe there are plain lines and no bars."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from convolab.core.text import format_percent  # noqa: F401

if TYPE_CHECKING:
    from convolab.training.trainer import EpochMetrics, Trainer


class TrainingBar:
    """A bar for the epoch under way and a line for each that is done, on standard error."""

    def __init__(self, epochs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.epochs = epochs
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self.progress_bar = Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        self.task_id = None

    def __enter__(self) -> "TrainingBar":
        self.progress_bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress_bar.stop()

    def on_step(self, trainer: "Trainer") -> None:
        if self.progress_bar.disable:
            return
        state, steps = trainer.progress, trainer.steps_per_epoch
        if self.task_id is None:
            self.task_id = self.progress_bar.add_task("", total=steps * self.epochs, rate="")
        rate = f"loss {state.loss_sum / state.num_images:.4f}  {state.num_images / state.seconds:,.0f} images/s"
        self.progress_bar.update(
            self.task_id,
            completed=state.epoch * steps + state.step,
            description=f"epoch {state.epoch + 1}/{self.epochs}",
            rate=rate,
        )

    def on_epoch(self, metrics: "EpochMetrics") -> None:
        validation = (
            ""
            if metrics.validation_accuracy is None
            else f"  validation loss {metrics.validation_loss:.4f}, accuracy {100 * metrics.validation_accuracy:.2f} %"
        )
        line_text = f"epoch {metrics.epoch}/{self.epochs}  training loss {metrics.train_loss:.4f}, accuracy {100 * metrics.train_accuracy:.2f} %{validation}  {metrics.train_seconds:.1f} s, {metrics.images_per_second:,.0f} images/s"
        self.progress_bar.console.print(line_text, highlight=False, soft_wrap=True)


class InterruptHandler:
    """The first Ctrl-C (or TERM) ends the training after the step, saved; a second one ends the program at once."""

    def __init__(self, when: str = "after this step") -> None:
        self.stop_point = when
        self.requested = False

    def __enter__(self) -> "InterruptHandler":
        self.previous_handlers = {
            number: signal.signal(number, self.handle_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def handle_signal(self, signal_number: int, frame: Any) -> None:
        if self.requested:
            signal.signal(signal_number, signal.SIG_DFL)
            signal.raise_signal(signal_number)
        self.requested = True
        print(f"convolab: stopping {self.stop_point}; once more to end at once", file=sys.stderr)

    def stop_requested(self) -> bool:
        return self.requested


@contextmanager
def loading_bar(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar of bytes or pictures on a terminal, made when there is something to show; None in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[int | None, Any] = {}  # one for each file, told apart by its size

        def advance(done: int, total: int | None) -> None:
            if total not in tasks:
                tasks[total] = bar.add_task(name, total=total)
            bar.update(tasks[total], completed=done)

        yield advance


@contextmanager
def status_spinner(activity: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, on a terminal; call it with each next step. Nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status(activity) as status:
        yield lambda step: status.update(f"{activity}: {step}")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn on a terminal, tabs between the cells in a pipe."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in (headings, *rows)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rich_table = Table(*headings, box=box.SIMPLE_HEAD)
    for row in rows:
        rich_table.add_row(*row)
    Console().print(rich_table)


def print_note(note: str) -> None:
    """A remark beside the result."""
    print(f"convolab: {note}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
