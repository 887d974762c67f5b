"""Training callbacks from functions."""

from collections.abc import Callable
from typing import Any

from convolab.training.callbacks import Callbacks
from convolab.training.history import EpochMetrics
from convolab.training.trainer import Trainer


def do_nothing(_: Any) -> None:
    pass


class FunctionCallbacks(Callbacks):
    """Callbacks given as functions; those left out do nothing."""

    def __init__(
        self,
        on_step: Callable[[Trainer], Any] = do_nothing,
        on_epoch: Callable[[EpochMetrics], Any] = do_nothing,
        on_message: Callable[[str], Any] = do_nothing,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.on_step = on_step
        self.on_epoch = on_epoch
        self.on_message = on_message
        self.should_stop = stop


def stop_after(steps: int) -> Callbacks:
    """Callbacks that stop a training after this many steps; `should_stop` is called before each."""
    step_numbers = iter(range(10**6))
    return FunctionCallbacks(stop=lambda: next(step_numbers) >= steps)
