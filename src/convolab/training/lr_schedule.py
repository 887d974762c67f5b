"""Learning-rate schedules: each a factor on the optimizer's learning rate, as a pure function of the time in epochs."""

import math
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from convolab.core.types import (
    Frozen,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    UnitInterval,
    ValidationContext,
)
from convolab.training.torch_schedule import (
    SCHEDULES,
    OtherSchedule,
    RateFunction,
    fill_warmup_start,
    warmup_factor,
)


class ScheduleBase(Frozen):
    """What every schedule has: for the first `warmup` epochs its factor grows linearly from `warmup_start`, step by step."""

    warmup: NonNegativeFloat = 0.0  # epochs
    warmup_start: UnitInterval | None = (
        None  # the first step's factor; None: 0, as in runs from before this key existed
    )

    @model_validator(mode="before")
    @classmethod
    def fill_warmup_start(cls, values: object, info: ValidationContext) -> object:
        return fill_warmup_start(values, info)

    def factor(self, epoch: float, total_epochs: int) -> float:
        """What to multiply the learning rate by.

        Args:
            epoch: the time since the start, in epochs; 1.5 is half-way through the second epoch.
            total_epochs: the length of the whole training.
        """
        return self.multiplier(epoch, total_epochs) * warmup_factor(epoch, self.warmup, self.warmup_start)

    def rates(self, base_lr: float, steps_per_epoch: int, total_epochs: int) -> RateFunction:
        """The learning rate at each time: after so many epochs, and steps of the next one."""
        return lambda epoch, step, history: base_lr * self.factor(epoch + step / steps_per_epoch, total_epochs)

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        """The factor without warm-up."""
        raise NotImplementedError


class ConstantLR(ScheduleBase):
    """A constant learning rate."""

    name: Literal["constant"] = "constant"

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        return 1.0


class StepLR(ScheduleBase):
    """Multiply the learning rate by `gamma` every `step_size` epochs.

    >>> [StepLR(step_size=2).factor(epoch, 6) for epoch in (0.0, 1.9, 2.0, 4.0)]
    [1.0, 1.0, 0.1, 0.010000000000000002]
    """

    name: Literal["step"] = "step"
    step_size: PositiveInt = 5  # epochs between two steps
    gamma: UnitInterval = 0.1  # factor at each step; 1 leaves the rate alone

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        return self.gamma ** (math.floor(epoch) // self.step_size)


class CosineLR(ScheduleBase):
    """Fall from the full learning rate to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    name: Literal["cosine"] = "cosine"

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        return (1 + math.cos(math.pi * min(epoch / total_epochs, 1.0))) / 2


class LinearDecayLR(ScheduleBase):
    """Fall from the full learning rate to 0 along a straight line, step by step.

    >>> [LinearDecayLR().factor(epoch, 4) for epoch in (0.0, 1.0, 3.5)]
    [1.0, 0.75, 0.125]
    """

    name: Literal["linear"] = "linear"

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        return 1 - min(epoch / total_epochs, 1.0)


class OneCycleLR(ScheduleBase):
    """Rise from 1/25 of the learning rate to all of it, then fall to 1/250,000, each along half a cosine.

    Smith & Topin 2018, arXiv:1708.07120.
    """

    name: Literal["one_cycle"] = "one_cycle"
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3  # fraction of the epochs until the peak learning rate
    div_factor: PositiveFloat = 25.0  # the first rate is the peak divided by this
    final_div_factor: PositiveFloat = 1e4  # the last rate is the first one divided by this

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        initial = 1 / self.div_factor
        final = 1 / self.div_factor / self.final_div_factor
        peak_epoch = self.pct_start * total_epochs
        if epoch < peak_epoch:
            return cosine_interpolation(initial, 1.0, epoch / peak_epoch)
        return cosine_interpolation(1.0, final, min((epoch - peak_epoch) / (total_epochs - peak_epoch), 1.0))


def cosine_interpolation(start: float, end: float, fraction: float) -> float:
    """Interpolate from `start` to `end` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


Schedule = Annotated[
    Annotated[ConstantLR, Tag("constant")]
    | Annotated[StepLR, Tag("step")]
    | Annotated[CosineLR, Tag("cosine")]
    | Annotated[LinearDecayLR, Tag("linear")]
    | Annotated[OneCycleLR, Tag("one_cycle")]
    | Annotated[OtherSchedule, Tag("other")],
    Discriminator(SCHEDULES.tag),
]
