"""Learning-rate schedules: each a factor on the optimiser's rate, as a pure function of the time in epochs."""

import math
from typing import Annotated, Literal

from pydantic import Field

from convolab.core.types import Frozen, NonNegativeFloat, PositiveFloat, PositiveInt, UnitInterval


class Warmup(Frozen):
    """What every schedule has: for the first `warmup` epochs its factor grows linearly from 0, a step at a time."""

    warmup: NonNegativeFloat = 0.0  # epochs

    def factor(self, time: float, epochs: int) -> float:
        """What to multiply the learning rate by at `time`, in epochs since the start of `epochs`."""
        return self.shape(time, epochs) * (min(1.0, time / self.warmup) if self.warmup > 0 else 1.0)

    def shape(self, time: float, epochs: int) -> float:
        """The factor without warm-up."""
        raise NotImplementedError


class Constant(Warmup):
    """The rate as it is."""

    name: Literal["constant"] = "constant"

    def shape(self, time: float, epochs: int) -> float:
        return 1.0


class Step(Warmup):
    """Multiply the learning rate by `gamma` every `period` epochs."""

    name: Literal["step"] = "step"
    period: PositiveInt = 5  # epochs between two steps
    gamma: UnitInterval = 0.1  # factor at each step; 1 leaves the rate alone

    def shape(self, time: float, epochs: int) -> float:
        return self.gamma ** (math.floor(time) // self.period)


class Cosine(Warmup):
    """Fall from the full rate to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    name: Literal["cosine"] = "cosine"

    def shape(self, time: float, epochs: int) -> float:
        return (1 + math.cos(math.pi * min(time / epochs, 1.0))) / 2


class OneCycle(Warmup):
    """Rise from 1/25 of the rate along half a cosine, then fall to 1/250,000 of it (Smith & Topin 2018, arXiv:1708.07120)."""

    name: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3  # share of the epochs until the full rate
    start: PositiveFloat = 25.0  # the first rate is the full one divided by this
    end: PositiveFloat = 1e4  # the last rate is the first one divided by this

    def shape(self, time: float, epochs: int) -> float:
        first, last, top = 1 / self.start, 1 / self.start / self.end, self.rise * epochs
        if time < top:
            return between(first, 1.0, time / top)
        return between(1.0, last, min((time - top) / (epochs - top), 1.0))


def between(a: float, b: float, share: float) -> float:
    """From `a` to `b` along half a cosine."""
    return b + (a - b) * (1 + math.cos(math.pi * share)) / 2


Schedule = Annotated[Constant | Step | Cosine | OneCycle, Field(discriminator="name")]
