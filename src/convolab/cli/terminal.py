"""What moves on a terminal: bars, tables, and the person's Ctrl-C. In a pipe there are plain lines and no bars."""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convolab.training.trainer import Epoch, Fit


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
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self.task = None

    def __enter__(self) -> "TrainingBar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def step(self, fit: "Fit") -> None:
        if self.bar.disable:
            return
        progress, steps = fit.progress, fit.steps_per_epoch
        if self.task is None:
            self.task = self.bar.add_task("", total=steps * self.epochs, rate="")
        rate = f"loss {progress.loss / progress.seen:.4f}  {progress.seen / progress.seconds:,.0f} images/s"
        self.bar.update(
            self.task,
            completed=progress.epoch * steps + progress.step,
            description=f"epoch {progress.epoch + 1}/{self.epochs}",
            rate=rate,
        )

    def epoch(self, line: "Epoch") -> None:
        validation = (
            ""
            if line.validation_accuracy is None
            else f"  validation loss {line.validation_loss:.4f}, accuracy {100 * line.validation_accuracy:.2f} %"
        )
        said = f"epoch {line.epoch}/{self.epochs}  training loss {line.train_loss:.4f}, accuracy {100 * line.train_accuracy:.2f} %{validation}  {line.seconds:.1f} s, {line.images_per_second:,.0f} images/s"
        self.bar.console.print(said, highlight=False, soft_wrap=True)


class Interrupts:
    """The first Ctrl-C (or TERM) ends the training after the step, saved; a second one ends the program at once."""

    def __init__(self, when: str = "after this step") -> None:
        self.when = when
        self.asked = False

    def __enter__(self) -> "Interrupts":
        self.before = {number: signal.signal(number, self.ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def ask(self, number: int, frame: Any) -> None:
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = True
        print(f"convolab: stopping {self.when}; once more to end at once", file=sys.stderr)

    def stop(self) -> bool:
        return self.asked


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar of bytes or pictures on a terminal, made when there is something to show; None in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[int | None, Any] = {}  # one for each file, told apart by its size

        def show(done: int, total: int | None) -> None:
            if total not in tasks:
                tasks[total] = bar.add_task(name, total=total)
            bar.update(tasks[total], completed=done)

        yield show


@contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, on a terminal; call it with each next step. Nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status(what) as status:
        yield lambda step: status.update(f"{what}: {step}")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn on a terminal, tabs between the cells in a pipe."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in (headings, *rows)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*headings, box=box.SIMPLE_HEAD)
    for row in rows:
        drawn.add_row(*row)
    Console().print(drawn)


def percent(share: float | None) -> str:
    """A share as a person reads it.

    >>> percent(0.5), percent(None)
    ('50.00 %', '-')
    """
    return "-" if share is None else f"{100 * share:.2f} %"


def say(note: str) -> None:
    """A remark beside the result."""
    print(f"convolab: {note}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
