"""A metric of a person's own, measured on the validation images after each epoch."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from pydantic import model_validator
from torch import Tensor

from convolab.core.errors import require
from convolab.core.rng import lent_generators
from convolab.core.types import ValidationContext, stored_sections
from convolab.models.own_code import own_code_errors
from convolab.training.history import MAX_METRIC
from convolab.training.parts import OtherPart, PartKind

VALIDATION_METRICS = PartKind(section="validation_metric", module="", base="", given=())
GIVEN = ("logits", "labels")  # what a metric is called with

MetricFunction = Callable[[Float[Tensor, "n classes"], Int64[Tensor, "n"]], float]


class ValidationMetric(OtherPart):
    """A metric of a person's own, `file.py:Name`, with its own options; more is better.

    A function is called with the logits [N, classes] and the labels [N] of all validation images, and its options; a
    class is made with its options, and then called with both. It returns one finite number.
    """

    @model_validator(mode="before")
    @classmethod
    def fill_options(cls, values: object, info: ValidationContext) -> object:
        """Fill in every option; a stored recipe has them all, and no code of a person's own is run."""
        if not isinstance(values, Mapping) or "validation_metric" in stored_sections(info):
            return values
        name = values.get("name")
        require(isinstance(name, str) and ":" in name, "validation_metric.name is your own metric: give file.py:Name")
        given = GIVEN if inspect.isfunction(VALIDATION_METRICS.find(str(name))) else ()
        options = {key: value for key, value in values.items() if key != "name"}
        return {"name": name, **VALIDATION_METRICS.fill_options(str(name), options, given)}

    def build(self, num_classes: int) -> MetricFunction:
        """The metric as a function. Raises LabError, in one line, if it cannot be made or gives no number; it is tried."""
        factory, what = VALIDATION_METRICS.find(self.name, self._code), f"the metric '{self.name}'"
        if inspect.isfunction(factory):
            function: Callable[[Tensor, Tensor], Any] = partial(factory, **self.options)
        else:
            function = VALIDATION_METRICS.build(self.name, self._code, [], self.options)
            require(callable(function), f"{what} gives {type(function).__name__}, which cannot be called")

        def measure(logits: Tensor, labels: Tensor) -> float:
            with own_code_errors(f"{what} failed"), lent_generators("cpu", 0):  # the same number for the same logits
                number = float(function(logits.clone(), labels.clone()))
            require(
                abs(number) <= MAX_METRIC, f"{what} gives {number}: it must give a finite number up to {MAX_METRIC:g}"
            )
            return number

        def metric(logits: Tensor, labels: Tensor) -> float:
            number, again = (measure(logits, labels) for _ in range(2))
            require(
                number == again,
                f"{what} gives {number:g} and then {again:g} for the same logits: let it keep nothing from call to call",
            )
            return number

        metric(torch.eye(num_classes), torch.arange(num_classes))
        return metric
