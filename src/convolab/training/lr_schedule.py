"""Learning-rate schedules: each a factor on the optimiser's rate, as a pure function of the time in epochs."""

import math
from typing import Annotated, Literal

from pydantic import Field

from convolab.core.types import Frozen, NonNegativeFloat, PositiveFloat, PositiveInt, UnitInterval


class ScheduleBase(Frozen):
    """What every schedule has: for the first `warmup` epochs its factor grows linearly from 0, a step at a time."""

    warmup: NonNegativeFloat = 0.0  # epochs

    def factor(self, epoch: float, total_epochs: int) -> float:
        """What to multiply the learning rate by at `time`, in epochs since the start of `epochs`."""
        return self.multiplier(epoch, total_epochs) * (min(1.0, epoch / self.warmup) if self.warmup > 0 else 1.0)

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        """The factor without warm-up."""
        raise NotImplementedError


class ConstantLR(ScheduleBase):
    """The rate as it is."""

    name: Literal["constant"] = "constant"

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        return 1.0


class StepLR(ScheduleBase):
    """Multiply the learning rate by `gamma` every `period` epochs."""

    name: Literal["step"] = "step"
    step_size: PositiveInt = 5  # epochs between two steps
    gamma: UnitInterval = 0.1  # factor at each step; 1 leaves the rate alone

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        return self.gamma ** (math.floor(epoch) // self.step_size)


class CosineLR(ScheduleBase):
    """Fall from the full rate to 0 along half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983)."""

    name: Literal["cosine"] = "cosine"

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        return (1 + math.cos(math.pi * min(epoch / total_epochs, 1.0))) / 2


class OneCycleLR(ScheduleBase):
    """Rise from 1/25 of the rate along half a cosine, then fall to 1/250,000 of it (Smith & Topin 2018, arXiv:1708.07120)."""

    name: Literal["one_cycle"] = "one_cycle"
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3  # share of the epochs until the full rate
    div_factor: PositiveFloat = 25.0  # the first rate is the full one divided by this
    final_div_factor: PositiveFloat = 1e4  # the last rate is the first one divided by this

    def multiplier(self, epoch: float, total_epochs: int) -> float:
        initial, final, peak_epoch = (
            1 / self.div_factor,
            1 / self.div_factor / self.final_div_factor,
            self.pct_start * total_epochs,
        )
        if epoch < peak_epoch:
            return cosine_interpolation(initial, 1.0, epoch / peak_epoch)
        return cosine_interpolation(1.0, final, min((epoch - peak_epoch) / (total_epochs - peak_epoch), 1.0))


def cosine_interpolation(start: float, end: float, fraction: float) -> float:
    """From `a` to `b` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


Schedule = Annotated[ConstantLR | StepLR | CosineLR | OneCycleLR, Field(discriminator="name")]
