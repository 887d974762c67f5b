"""Progress bars, tables and Ctrl-C handling for the terminal. In a pipe there are plain lines and no bars."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

    from convolab.training.trainer import EpochMetrics, Trainer


class TrainingBar:
    """A bar for the current epoch and a line for each completed one, on standard error; the callbacks of a training."""

    def __init__(self, epochs: int, interrupts: "InterruptHandler") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.epochs = epochs
        self.should_stop = interrupts.stop_requested
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self.progress_bar = Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        self.task_id: TaskID | None = None

    def __enter__(self) -> "TrainingBar":
        self.progress_bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress_bar.stop()

    def on_step(self, trainer: "Trainer") -> None:
        if self.progress_bar.disable:
            return
        state = trainer.progress
        steps = trainer.steps_per_epoch
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
        train = f"training loss {metrics.train_loss:.4f}, accuracy {100 * metrics.train_accuracy:.2f} %"
        speed = f"{metrics.train_seconds:.1f} s, {metrics.images_per_second:,.0f} images/s"
        validation = ""
        if metrics.validation_accuracy is not None and metrics.validation_loss is not None:
            accuracy = 100 * metrics.validation_accuracy
            validation = f"  validation loss {metrics.validation_loss:.4f}, accuracy {accuracy:.2f} %"
        line = f"epoch {metrics.epoch}/{self.epochs}  {train}{validation}  {speed}"
        self.progress_bar.console.print(line, highlight=False, soft_wrap=True)

    def on_message(self, message: str) -> None:
        print_note(message)


class InterruptHandler:
    """The first Ctrl-C (or TERM) asks for a stop at `stop_point`; a second one ends the program immediately."""

    def __init__(self, stop_point: str = "after this step") -> None:
        self.stop_point = stop_point
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

    def handle_signal(self, signal_number: int, frame: FrameType | None) -> None:
        if self.requested:
            signal.signal(signal_number, signal.SIG_DFL)
            signal.raise_signal(signal_number)
        self.requested = True
        print(f"convolab: stopping {self.stop_point}; press again to quit immediately", file=sys.stderr)

    def stop_requested(self) -> bool:
        return self.requested


@contextmanager
def loading_bar(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A progress bar of bytes or images on a terminal, created on the first report; None in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[int | None, TaskID] = {}  # one for each file, by its size

        def advance(done: int, total: int | None) -> None:
            if total not in tasks:
                tasks[total] = bar.add_task(name, total=total)
            bar.update(tasks[total], completed=done)

        yield advance


@contextmanager
def status_spinner(activity: str) -> Iterator[Callable[[str], None]]:
    """A status line on a terminal; call it with the name of each next step. Silent in a pipe."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status(activity) as status:
        yield lambda step: status.update(f"{activity}: {step}")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn on a terminal, with tabs between the cells in a pipe."""
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
    """Print a note to standard error."""
    print(f"convolab: {note}", file=sys.stderr)


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(value, indent=2))
