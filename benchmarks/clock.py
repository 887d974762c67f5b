"""When the steps of one of our trainings end."""

import time

from convolab.training.callbacks import Callbacks


class Clock(Callbacks):
    """Keeps when each step ended, and stops the training after `last` of them; raise it to go on. None: never."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self.ends: list[float] = []  # seconds, one a step

    def on_step(self, trainer: object) -> None:
        self.ends.append(time.perf_counter())

    def should_stop(self) -> bool:
        return self.last is not None and len(self.ends) >= self.last
