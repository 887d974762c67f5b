"""What a training calls while it runs: after each step and each epoch, and to ask whether to stop."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from convolab.core.display import show_training
from convolab.training.history import EpochMetrics, History

if TYPE_CHECKING:
    from convolab.training.trainer import Trainer


@runtime_checkable
class TrainingCallbacks(Protocol):
    """What a training calls while it runs. Subclass `Callbacks` to implement some of them only."""

    def on_step(self, trainer: "Trainer") -> None:
        """After each step; `trainer.progress` counts it."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """After each epoch; a `Run` has written it to the disk by then."""

    def on_message(self, message: str) -> None:
        """When there is something the user should know, such as a damaged state, in one line."""

    def should_stop(self) -> bool:
        """Before each step: True ends the training there, ready to be continued."""
        ...


class Callbacks:
    """Training callbacks that do nothing, to be overridden one by one.

    >>> class StopAtOnce(Callbacks):
    ...     def should_stop(self) -> bool:
    ...         return True
    """

    def on_step(self, trainer: "Trainer") -> None: ...

    def on_epoch(self, metrics: EpochMetrics) -> None: ...

    def on_message(self, message: str) -> None: ...

    def should_stop(self) -> bool:
        return False


NO_CALLBACKS = Callbacks()


def shown_callbacks(
    callbacks: TrainingCallbacks | None, epochs: int, history: History | None = None
) -> AbstractContextManager[TrainingCallbacks]:
    """The callbacks that are given; where there are none, what shows a training, which a Ctrl-C stops after a step."""
    return show_training(epochs, history) if callbacks is None else nullcontext(callbacks)
