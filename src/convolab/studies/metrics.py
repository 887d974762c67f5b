"""What a contrast can be about: one number of a run's history, by name."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from convolab.core.errors import LabError, require, suggest
from convolab.core.stats import Interval
from convolab.training.history import EpochMetrics

MetricKind = Literal["final", "best", "epochs_to", "seconds_to"]
QUANTITIES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_metric")
METRIC_KINDS: tuple[MetricKind, ...] = get_args(MetricKind)
RENAMED_KINDS = {"epochs_until_": "epochs_to_", "seconds_until_": "seconds_to_"}  # first edition -> now


@dataclass(frozen=True)
class Metric:
    """One number of a run.

    final_QUANTITY          after the last epoch
    best_QUANTITY           the best of all epochs
    final_gap               training accuracy minus validation accuracy after the last epoch
    epochs_to_QUANTITY:X    epochs until it reaches X; all its epochs count for a run that never does
    seconds_to_QUANTITY:X   the same in seconds of training

    QUANTITY is one of QUANTITIES: losses in nats, accuracies in [0, 1]; validation_metric is the recipe's own, of which
    more is better.
    """

    kind: MetricKind
    quantity: str  # one of QUANTITIES, or "gap"
    threshold: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Metric":
        """The metric of that name. Raises LabError for an unknown name.

        >>> Metric.parse("epochs_to_validation_accuracy:0.6")
        Metric(kind='epochs_to', quantity='validation_accuracy', threshold=0.6)
        >>> Metric.parse("final_train_loss").title
        'final training loss'
        """
        for old, new in RENAMED_KINDS.items():
            require(not text.startswith(old), f"metric '{text}' is now called '{text.replace(old, new, 1)}'")
        name, colon, threshold_text = text.partition(":")
        kind: MetricKind | None = next((kind for kind in METRIC_KINDS if name.startswith(f"{kind}_")), None)
        quantity = name.removeprefix(f"{kind}_")
        if kind is None or not (quantity in QUANTITIES or name == "final_gap"):
            known = [f"{prefix}_{known_quantity}" for prefix in METRIC_KINDS for known_quantity in QUANTITIES]
            raise LabError(f"unknown metric '{text}': {suggest(name, [*known, 'final_gap'])}")
        if kind in ("final", "best"):
            require(not colon, f"metric '{text}': it takes no threshold")
            return cls(kind, quantity)
        require(colon, f"metric '{text}': give the threshold, as in {name}:0.6")
        try:
            threshold = float(threshold_text)
        except ValueError as error:
            raise LabError(f"metric '{text}': '{threshold_text}' is not a number") from error
        require(math.isfinite(threshold) and threshold > 0, f"metric '{text}': the threshold must be above 0")
        require("accuracy" not in quantity or threshold <= 1, f"metric '{text}': an accuracy is a fraction, at most 1")
        return cls(kind, quantity, threshold)

    def __str__(self) -> str:
        return f"{self.kind}_{self.quantity}" + ("" if self.threshold is None else f":{self.threshold:.12g}")

    @property
    def needs_validation(self) -> bool:
        """Whether a run without validation images has no such number."""
        return "validation" in self.quantity or self.quantity == "gap"

    def is_measured(self, history: Sequence[EpochMetrics]) -> bool:
        """Whether a history that is not empty has such numbers: without validation images it has only training's."""
        return getattr(history[0], "validation_accuracy" if self.quantity == "gap" else self.quantity) is not None

    @property
    def quantity_higher_is_better(self) -> bool:
        """Whether more of the quantity is better."""
        return "accuracy" in self.quantity or self.quantity == "validation_metric"

    @property
    def higher_is_better(self) -> bool:
        """Whether more of this number is better."""
        return self.quantity_higher_is_better and self.threshold is None

    @property
    def unit(self) -> str:
        """The unit of a value as it is displayed: % (of a fraction), nats, epochs, s, or the metric's own "score"."""
        if self.threshold is not None:
            return "epochs" if self.kind == "epochs_to" else "s"
        if self.quantity == "validation_metric":
            return "score"
        return "nats" if "loss" in self.quantity else "%"

    @property
    def title(self) -> str:
        """The metric in words.

        >>> Metric.parse("seconds_to_train_accuracy:0.9").title
        'seconds to a training accuracy of 90 %'
        """
        if self.threshold is None:
            return f"{self.kind} {self.quantity_title}"
        return f"{self.kind.removesuffix('_to')} to {self.target_phrase}"

    @property
    def quantity_title(self) -> str:
        """The quantity alone, in words."""
        if self.quantity == "gap":
            return "generalization gap (training minus validation accuracy)"
        return self.quantity.replace("train_", "training ").replace("_", " ")

    @property
    def target_phrase(self) -> str:
        """The threshold in words; empty for a metric without one."""
        if self.threshold is None:
            return ""
        unit = {"%": " %", "nats": " nats"}.get(Metric("final", self.quantity).unit, "")
        value = f"{(100 if unit == ' %' else 1) * self.threshold:g}{unit}"
        return f"a {self.quantity_title} of {value}"

    def possible(self, interval: Interval) -> Interval:
        """The part of a mean's interval that the number can have: an accuracy is from 0 to 1, a loss or a time not below 0."""
        if self.quantity in ("gap", "validation_metric"):
            return interval
        highest = 1.0 if self.unit == "%" else math.inf
        return replace(interval, low=max(0.0, interval.low), high=min(highest, interval.high))

    def curve(self, history: Sequence[EpochMetrics]) -> list[float]:
        """The quantity after each epoch. A metric that needs validation takes histories that have it."""
        if self.quantity == "gap":
            validation = quantity_values(history, "validation_accuracy")
            return [a - b for a, b in zip(quantity_values(history, "train_accuracy"), validation, strict=True)]
        return quantity_values(history, self.quantity)

    def compute(self, history: Sequence[EpochMetrics]) -> float:
        """The number, of a history that is not empty: a fraction, nats, epochs or seconds."""
        values = self.curve(history)
        if self.threshold is None:
            return values[-1] if self.kind == "final" else (max if self.quantity_higher_is_better else min)(values)
        epoch = next((i for i, value in enumerate(values, 1) if self._reaches_threshold(value)), len(values))
        return float(epoch) if self.kind == "epochs_to" else sum(e.train_seconds for e in history[:epoch])

    def reached(self, history: Sequence[EpochMetrics]) -> bool:
        """Whether the threshold was reached; True for a metric without one."""
        return self.threshold is None or any(map(self._reaches_threshold, self.curve(history)))

    def _reaches_threshold(self, value: float) -> bool:
        if self.threshold is None:
            return True
        return value >= self.threshold if self.quantity_higher_is_better else value <= self.threshold

    def censoring_time(self, histories: Iterable[Sequence[EpochMetrics]]) -> float:
        """Up to where times to a threshold can be compared: the length of the shortest run that never reached it.

        Infinite where all runs reached it, and for metrics without a threshold.
        """
        return min((self.compute(history) for history in histories if not self.reached(history)), default=math.inf)

    def quantization_step(self, histories: Iterable[Sequence[EpochMetrics]]) -> float:
        """The step in which the number comes: an epoch, an epoch's seconds, the quantity's step, or 0 for none."""
        if self.kind == "epochs_to":
            return 1.0
        if self.kind != "seconds_to":
            return self.quantity_quantization_step(histories)
        seconds = [epoch.train_seconds for history in histories for epoch in history]
        return sum(seconds) / len(seconds) if seconds else 0.0

    def quantity_quantization_step(self, histories: Iterable[Sequence[EpochMetrics]]) -> float:
        """The step in which the quantity comes: 0 for a loss; for an accuracy the fraction that one image makes.

        No history says how many images there were, but every accuracy is a whole number of them: the largest common
        step of all observed accuracies is one image's fraction, or a few images' where few values were observed.
        For the gap it is the validation accuracy's step, which is the coarser one.
        """
        if "loss" in self.quantity or self.quantity == "validation_metric":
            return 0.0
        quantity = "validation_accuracy" if self.quantity == "gap" else self.quantity
        observed = {value for history in histories for value in quantity_values(history, quantity)}
        return common_step(observed) if len(observed) > 1 else 0.0


def quantity_values(history: Sequence[EpochMetrics], quantity: str) -> list[float]:
    """One of QUANTITIES after each epoch."""
    return [getattr(epoch, quantity) for epoch in history]


def common_step(values: Iterable[float], tolerance: float = 1e-6) -> float:
    """The largest number of which all values are whole multiples, by Euclid's algorithm; 0 if it is near `tolerance`.

    >>> round(1 / common_step([60 / 144, 61 / 144, 100 / 144]))
    144
    >>> common_step([0.5, 2**0.5])
    0.0
    """
    step = 0.0
    for value in values:
        while value > tolerance:  # the remainder is a little off 0 where it should be 0
            step, value = value, abs(math.remainder(step, value))
        if 0 < step < tolerance * 10:
            return 0.0
    return step
