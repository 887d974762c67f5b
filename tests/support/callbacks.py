"""Training callbacks made of functions."""

from collections.abc import Callable
from typing import Any

from convolab.training.trainer import Callbacks, EpochMetrics, Trainer


def nothing(_: Any) -> None:
    pass


class FunctionCallbacks(Callbacks):
    """Callbacks that are given as functions; those left out do nothing."""

    def __init__(
        self,
        on_step: Callable[[Trainer], Any] = nothing,
        on_epoch: Callable[[EpochMetrics], Any] = nothing,
        on_message: Callable[[str], Any] = nothing,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.on_step = on_step
        self.on_epoch = on_epoch
        self.on_message = on_message
        self.should_stop = stop


def stop_after(steps: int) -> Callbacks:
    """Callbacks that stop a training after this many steps; they are asked before each."""
    asked = iter(range(10**6))
    return FunctionCallbacks(stop=lambda: next(asked) >= steps)
