"""Learning-rate schedules that are not convolab's: any class of torch.optim.lr_scheduler, and a person's own.

The rates are a function of the time and of the epochs before it: they are computed again on a stand-in optimizer, so a
resumed run has the same ones without anything being saved.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from pydantic import model_validator
from torch import nn

from convolab.core.errors import require
from convolab.core.types import NonNegativeFloat, UnitInterval, ValidationContext, stored_sections
from convolab.models.own_code import is_own_code, own_code_errors
from convolab.training.history import EpochMetrics
from convolab.training.parts import OtherPart, PartKind, as_arguments

IS_A_FUNCTION = "it takes a function, which a recipe cannot hold: write yours as file.py:name"
TAKES_SCHEDULERS = "it takes other schedulers, which a recipe cannot hold: write yours as file.py:name"
SCHEDULES = PartKind(
    section="schedule",
    module="torch.optim.lr_scheduler",
    base="LRScheduler",
    given=("optimizer",),
    refused={
        "LambdaLR": IS_A_FUNCTION,
        "MultiplicativeLR": IS_A_FUNCTION,
        "SequentialLR": TAKES_SCHEDULERS,
        "ChainedScheduler": TAKES_SCHEDULERS,
    },
)
TIME = ("epoch", "total_epochs")  # what a schedule that is a function is called with
OWN_KEYS = ("name", "warmup", "warmup_start", "per")
WARMUP_START = 0.01  # as in torchvision's reference trainings
WARMUP_FROM_ZERO = "warmup from zero"  # in a validation's context: the values are a file's that convolab wrote

CHECKED_STEPS = 50_000  # of a class, before anything is trained: about a second

RateFunction = Callable[[int, int, Sequence[EpochMetrics]], float]  # of epochs done, steps done, and those epochs


class OtherSchedule(OtherPart):
    """A class of torch.optim.lr_scheduler by its name, such as `ExponentialLR`, or `file.py:name`, with its own options.

    One of a person's own is such a class, or a function of `(epoch, total_epochs)`, the time in epochs, that returns a
    factor on the learning rate. A class's momentum is left out: it changes the learning rate alone.

    >>> OtherSchedule(name="ExponentialLR", gamma=0.9).rates(0.1, 100, 10)(2, 0, [])
    0.08100000000000002
    """

    warmup: NonNegativeFloat = 0.0  # epochs in which the rate grows linearly to the schedule's
    warmup_start: UnitInterval | None = (
        None  # the first step's factor; None: 0, as in runs from before this key existed
    )
    per: Literal["epoch", "step"] = "epoch"  # how often a class's `step` is called

    @model_validator(mode="before")
    @classmethod
    def fill_options(cls, values: object, info: ValidationContext) -> object:
        """Fill in every option; a stored recipe has them all, and no code of a person's own is run."""
        if not isinstance(values, Mapping) or (is_own_code(values["name"]) and "schedule" in stored_sections(info)):
            return values
        values = cast("Mapping[str, Any]", fill_warmup_start(values, info))
        name = SCHEDULES.short_name(values["name"])
        given = TIME if inspect.isfunction(SCHEDULES.find(name)) else SCHEDULES.given
        options = {key: value for key, value in values.items() if key not in OWN_KEYS}
        own = {key: values[key] for key in OWN_KEYS[1:] if key in values}
        return {"name": name, **own, **SCHEDULES.fill_options(name, options, given)}

    def rates(self, base_lr: float, steps_per_epoch: int, total_epochs: int) -> RateFunction:
        """The learning rate at each time. Raises LabError, in one line, if the schedule cannot be made."""
        function = SCHEDULES.find(self.name, self._code)
        is_plateau = False
        if inspect.isfunction(function):
            options = as_arguments(self.options)

            def schedule_rate(epoch: int, step: int, history: Sequence[EpochMetrics]) -> float:
                time = epoch + step / steps_per_epoch
                with own_code_errors(f"the schedule '{self.name}' failed in epoch {epoch + 1}"):
                    factor = function(time, total_epochs, **options)
                with own_code_errors(f"the schedule '{self.name}' gives no number in epoch {epoch + 1}"):
                    return base_lr * float(factor)

        else:
            scheduler_rates = SchedulerRates(self._make_scheduler, base_lr)
            is_plateau = scheduler_rates.is_plateau
            require(
                not is_plateau or self.per == "epoch",
                f"{self.name} looks at the loss of whole epochs: leave schedule.per at 'epoch'",
            )

            def schedule_rate(epoch: int, step: int, history: Sequence[EpochMetrics]) -> float:
                calls = epoch if self.per == "epoch" else epoch * steps_per_epoch + step
                return scheduler_rates.after(calls, history)

        def rate(epoch: int, step: int, history: Sequence[EpochMetrics]) -> float:
            value = schedule_rate(epoch, step, history)
            require(
                math.isfinite(value) and value >= 0,
                f"the schedule '{self.name}' gives a learning rate of {value:g} in epoch {epoch + 1}: it must be 0 or more",
            )
            return value * warmup_factor(epoch + step / steps_per_epoch, self.warmup, self.warmup_start)

        rate(0, 0, [])  # what is wrong with it is known before anything is trained
        if not is_plateau:  # whose rates depend on losses that are not known yet
            last_epoch = total_epochs - 1
            if not inspect.isfunction(function):
                steps_per_call = steps_per_epoch if self.per == "step" else 1
                last_epoch = min(last_epoch, CHECKED_STEPS // steps_per_call)
            rate(last_epoch, steps_per_epoch - 1, [])
        return rate

    def _make_scheduler(self, base_lr: float) -> Any:  # noqa: ANN401 (whatever a person's code returns)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base_lr, momentum=0.9)
        scheduler = SCHEDULES.build(self.name, self._code, [optimizer], self.options)
        require(
            isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler),
            f"the schedule '{self.name}' gives {type(scheduler).__name__}: it must be a torch.optim.lr_scheduler.LRScheduler",
        )
        return scheduler


class SchedulerRates:
    """The rates of a scheduler of torch's after each of its steps, computed once and in order."""

    def __init__(self, make: Callable[[float], Any], base_lr: float) -> None:
        self.scheduler = make(base_lr)
        self.is_plateau = isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        self.rates = [self._rate()]
        self.scheduler.optimizer.step()  # a scheduler's first step warns if there was none

    def after(self, calls: int, history: Sequence[EpochMetrics]) -> float:
        """The rate after so many calls of `step`; a plateau is one of the validation loss, or else the training loss."""
        if len(self.rates) > calls:
            return self.rates[calls]
        with (
            own_code_errors(f"the schedule {type(self.scheduler).__name__} failed in its step"),
            warnings.catch_warnings(action="ignore"),  # what it says of its own use is ours to know
        ):
            while len(self.rates) <= calls:
                if self.is_plateau:
                    epoch = history[len(self.rates) - 1]
                    loss = epoch.train_loss if epoch.validation_loss is None else epoch.validation_loss
                    self.scheduler.step(loss)
                else:
                    self.scheduler.step()
                self.rates.append(self._rate())
        return self.rates[calls]

    def _rate(self) -> float:
        return float(self.scheduler.optimizer.param_groups[0]["lr"])


def fill_warmup_start(values: object, info: ValidationContext) -> object:
    """A new schedule's values with the start of its warm-up, if it has one; a stored one without it began at 0."""
    if not isinstance(values, Mapping) or "schedule" in stored_sections(info):
        return values
    if not values.get("warmup"):
        return {key: value for key, value in values.items() if key != "warmup_start"}
    return values if WARMUP_FROM_ZERO in (info.context or {}) else {"warmup_start": WARMUP_START, **values}


def warmup_factor(epoch: float, warmup: float, start: float | None = None) -> float:
    """The factor of a linear warm-up at a time in epochs, from `start` to 1; as torch's LinearLR."""
    if epoch >= warmup:
        return 1.0
    fraction = epoch / warmup
    return start + (1 - start) * fraction if start else fraction
