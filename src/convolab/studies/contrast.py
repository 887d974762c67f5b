"""What a study asks: contrasts of its arms, and the largest differences that do not matter."""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from convolab.core.errors import require
from convolab.core.types import Frozen, PositiveFloat
from convolab.studies.metrics import Metric
from convolab.studies.trend import WeightedArms, middle_and_ends

MAX_NAME_LENGTH = 200
Name = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"^[^/\\\n\t]+$")]


class Contrast(Frozen):
    """A question: is `arm` better than `baseline`, by `metric`? How does that depend on something else? Is there an optimum?

    Attributes:
        arm: the arm in question.
        baseline: the arm that it is compared with.
        metric: what decides, see `Metric.parse`.
        margin: the largest difference that does not matter, in the metric's unit (an accuracy's is a fraction); by default
            the study's.
        subject: what the arm has and the baseline has not, as the comments name it: "batch norm".
        interaction: another arm and its baseline: by how much does the first pair's difference exceed this pair's?
        trend: the key of the section's grid, instead of an arm and a baseline: are values in the middle better than those at
            the ends, and where is the optimum?

    >>> Contrast(arm="deep, with", baseline="deep", interaction=("with", "without")).label
    '(deep, with − deep) − (with − without)'
    """

    arm: Name
    baseline: Name
    metric: str = "best_validation_accuracy"
    margin: PositiveFloat | None = None
    subject: Annotated[str, StringConstraints(max_length=MAX_NAME_LENGTH, pattern=r"^[^\n\t]*$")] = ""
    interaction: tuple[Name, Name] | None = None
    trend: str = ""

    @model_validator(mode="before")
    @classmethod
    def name_sides(cls, values: object) -> object:
        """The sides of a trend have names of their own."""
        if not isinstance(values, Mapping) or not values.get("trend"):
            return values
        short_key = str(values["trend"]).rpartition(".")[2]
        sides = {"arm": f"middle of {short_key}", "baseline": f"ends of {short_key}"}
        for name, words in sides.items():
            require(
                values.get(name, words) == words, f"a contrast with a trend compares no single arms: leave out {name}"
            )
        require(not values.get("interaction"), "a contrast is a trend or an interaction: give one of them")
        return {**values, **sides}

    @property
    def parsed_metric(self) -> Metric:
        return Metric.parse(self.metric)

    @property
    def is_plain(self) -> bool:
        """Whether it compares one arm with another."""
        return not self.interaction and not self.trend

    @property
    def label(self) -> str:
        """What is subtracted from what."""
        difference = f"{self.arm} − {self.baseline}"
        if self.interaction:
            return f"({difference}) − ({self.interaction[0]} − {self.interaction[1]})"
        return difference

    @property
    def named_arms(self) -> tuple[str, ...]:
        """The arms that it names; none for a trend."""
        return () if self.trend else (self.arm, self.baseline, *(self.interaction or ()))

    def sides(self, positions: Mapping[str, float]) -> tuple[WeightedArms, WeightedArms]:
        """What is compared with what: weighted sums of arms, of which the second is subtracted from the first.

        Args:
            positions: for a trend, where each arm stands on the axis of its key.
        """
        if self.trend:
            return middle_and_ends(positions)
        if self.interaction:
            arm, baseline = self.interaction
            return ((1.0, self.arm), (-1.0, self.baseline)), ((1.0, arm), (-1.0, baseline))
        return ((1.0, self.arm),), ((1.0, self.baseline),)


def relative_spread(sides: tuple[WeightedArms, WeightedArms]) -> float:
    """How much the difference of two weighted sums of runs spreads, where that of two runs spreads by 1.

    >>> weights = Contrast(arm="a", baseline="b", interaction=("c", "d")).sides({})
    >>> relative_spread(weights) == math.sqrt(2)
    True
    """
    weights: dict[str, float] = {}
    for sign, side in zip((1, -1), sides, strict=True):
        for weight, name in side:
            weights[name] = weights.get(name, 0.0) + sign * weight
    return math.sqrt(sum(weight**2 for weight in weights.values()) / 2)


class Margins(Frozen):
    """The largest differences that do not matter: arms that are shown to differ by less are equivalent.

    >>> Margins(accuracy=0.005).of(Contrast(arm="a", baseline="b"))
    0.005
    """

    accuracy: Annotated[PositiveFloat, Field(lt=1)] = 0.01  # a fraction: one percentage point
    loss: PositiveFloat = 0.02  # nats

    def of(self, contrast: Contrast) -> float | None:
        """The margin of a contrast, in the unit of its metric; None for a metric that has none."""
        if contrast.margin is not None:
            return contrast.margin
        return {"%": self.accuracy, "nats": self.loss}.get(contrast.parsed_metric.unit)
