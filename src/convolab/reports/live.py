"""What a person sees while a network trains: a bar and lines in a terminal, curves that grow in a notebook."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from convolab.core.escape import escape_line, html_text
from convolab.core.rng import kept_python_generator
from convolab.core.streams import is_terminal, print_progress
from convolab.core.text import format_duration
from convolab.reports.notebook import NotebookDisplay, bar_html, is_notebook
from convolab.training.history import EpochMetrics, History

if TYPE_CHECKING:
    from rich.progress import TaskID

    from convolab.training.trainer import Trainer

LARGE_LOSS = 10_000  # nats: from here on in powers of ten


def epoch_line(metrics: EpochMetrics, epochs: int) -> str:
    """An epoch in one line."""
    train = f"training loss {format_loss(metrics.train_loss)}, accuracy {100 * metrics.train_accuracy:.2f} %"
    seconds = metrics.train_seconds
    speed = f"{seconds:.{1 if seconds >= 1 else 2}f} s, {metrics.images_per_second:,.0f} images/s"
    validation = ""
    if metrics.validation_accuracy is not None and metrics.validation_loss is not None:
        accuracy = 100 * metrics.validation_accuracy
        validation = f"  validation loss {format_loss(metrics.validation_loss)}, accuracy {accuracy:.2f} %"
    return f"epoch {metrics.epoch}/{epochs}  {train}{validation}  {speed}"


def format_loss(nats: float) -> str:
    """A loss to four decimals, or in powers of ten where it has left all bounds.

    >>> format_loss(2.30259), format_loss(59746302281.3986)
    ('2.3026', '5.975e+10')
    """
    return f"{nats:.4f}" if nats < LARGE_LOSS else f"{nats:.3e}"


class InterruptHandler:
    """The first Ctrl-C (or TERM) asks for a stop at `stop_point`; a second one ends the program immediately.

    A notebook's stop button is a Ctrl-C; there a second one ends the cell. In a thread that gets no signals nothing is handled, nor is a TERM for which
    the program has a handler of its own.
    """

    def __init__(self, stop_point: str = "after this step") -> None:
        self.stop_point = stop_point
        self.requested = False

    def __enter__(self) -> "InterruptHandler":
        is_main = threading.current_thread() is threading.main_thread()
        term_is_free = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        numbers = (signal.SIGINT, *((signal.SIGTERM,) if term_is_free else ())) if is_main else ()
        self.previous_handlers = {number: signal.signal(number, self.handle_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def handle_signal(self, signal_number: int, frame: FrameType | None) -> None:
        if self.requested:
            handler = signal.SIG_DFL
            if is_notebook():  # whose kernel, and all that it holds, the default action would end
                handler = self.previous_handlers[signal.Signals(signal_number)]
                if handler == signal.SIG_IGN:  # what a program that a shell starts in the background inherits
                    handler = signal.default_int_handler
            signal.signal(signal_number, handler)
            signal.raise_signal(signal_number)
        self.requested = True
        print_progress(f"convolab: stopping {self.stop_point}; press again to quit immediately")

    def stop_requested(self) -> bool:
        return self.requested


class TrainingBar:
    """A bar for the current epoch and a line for each completed one, on standard error; the callbacks of a training."""

    def __init__(self, epochs: int, should_stop: Callable[[], bool]) -> None:
        with kept_python_generator():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.epochs = epochs
        self.should_stop = should_stop
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self.progress_bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_terminal())
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
        if self.task_id is None:
            self.task_id = self.progress_bar.add_task("", total=1.0, rate="")
        rate = (
            f"loss {format_loss(state.loss_sum / state.num_images)}  {state.num_images / state.seconds:,.0f} images/s"
        )
        self.progress_bar.update(
            self.task_id,
            completed=trainer.fraction_done,
            description=f"epoch {state.epoch + 1}/{self.epochs}",
            rate=rate,
        )

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self._print_line(epoch_line(metrics, self.epochs))

    def on_message(self, message: str) -> None:
        self._print_line(f"convolab: {message}")

    def _print_line(self, line: str) -> None:
        """A line above the bar, if there is one."""
        if self.progress_bar.disable:
            print_progress(line)
        else:
            self.progress_bar.console.print(escape_line(line), highlight=False, soft_wrap=True, markup=False)


class NotebookTraining:
    """A bar, and the curves so far, drawn in place in a notebook; the callbacks of a training."""

    def __init__(self, epochs: int, should_stop: Callable[[], bool], history: History | None = None) -> None:
        self.epochs = epochs
        self.should_stop = should_stop
        self.history = History(history or ())
        self.curves = ""
        self.messages: list[str] = []
        self.started_at = time.monotonic()
        self.fraction_done = self.fraction_at_start = len(self.history) / epochs
        self.display = NotebookDisplay(self.html())

    def __enter__(self) -> "NotebookTraining":
        return self

    def __exit__(self, *_: object) -> None:
        self.draw(with_curves=True)

    def on_step(self, trainer: "Trainer") -> None:
        self.fraction_done = trainer.fraction_done
        if self.display.may_draw():
            self.draw()

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.history.append(metrics)
        if self.display.may_draw_curves():
            self.draw(with_curves=True)

    def on_message(self, message: str) -> None:
        self.messages.append(message)
        self.draw()

    def draw(self, with_curves: bool = False) -> None:
        """Draw the bar again, and the curves if there is something new."""
        started = time.monotonic()
        if with_curves and self.history:
            from convolab.reports.result_view import figure_html
            from convolab.reports.views import HistoryView

            self.curves = figure_html(HistoryView(self.history).figure())
        self.display.draw(self.html(), started)

    def html(self) -> str:
        """The bar, its line, messages and curves."""
        seconds = time.monotonic() - self.started_at
        done_here = self.fraction_done - self.fraction_at_start
        left = seconds * (1 - self.fraction_done) / done_here if done_here > 0 and seconds > 1 else None
        line = epoch_line(self.history[-1], self.epochs) if self.history else f"epoch 1/{self.epochs}"
        time_left = f", about {format_duration(left)} left" if left and self.fraction_done < 1 else ""
        messages = "".join(f"<p>{html_text(message)}</p>" for message in self.messages)
        bar = f"<div>{bar_html(self.fraction_done)}<br><code>{html_text(line + time_left)}</code></div>"
        return bar + messages + self.curves


@contextmanager
def live_training(epochs: int, history: History | None = None) -> Iterator[TrainingBar | NotebookTraining]:
    """The callbacks of a training that a person watches; Ctrl-C, or a notebook's stop button, stops it after a step.

    They draw curves in a notebook and a bar in a terminal, and print lines in a pipe. `history` are the epochs that
    were done before.
    """
    with InterruptHandler() as interrupts:
        if is_notebook():
            shown: TrainingBar | NotebookTraining = NotebookTraining(epochs, interrupts.stop_requested, history)
        else:
            shown = TrainingBar(epochs, interrupts.stop_requested)
        with shown:
            yield shown
