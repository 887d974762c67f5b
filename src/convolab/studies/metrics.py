"""What a contrast can be about: one number of a run's history, by name."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from convolab.core.errors import LabError, require, suggest
from convolab.training.trainer import EpochMetrics

QUANTITIES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
METRIC_KINDS = ("final", "best", "epochs_until", "seconds_until")


@dataclass(frozen=True)
class Metric:
    """One number of a run.

    final_QUANTITY             after the last epoch
    best_QUANTITY              the best of all epochs
    final_gap                  training accuracy less validation accuracy after the last epoch
    epochs_until_QUANTITY:X    epochs until it reaches X; all its epochs count for a run that never does
    seconds_until_QUANTITY:X   the same in seconds of training

    QUANTITY is one of QUANTITIES: losses in nats, accuracies in [0, 1].
    """

    kind: Literal["final", "best", "epochs_until", "seconds_until"]
    quantity: str  # of QUANTITIES, or "gap"
    threshold: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Metric":
        """The metric of that name. Raises LabError for a name that is none.

        >>> Metric.parse("epochs_until_validation_accuracy:0.6")
        Metric(kind='epochs_until', quantity='validation_accuracy', level=0.6)
        >>> Metric.parse("final_train_loss").title
        'final training loss'
        """
        name, colon, threshold_text = text.partition(":")
        kind = next((kind for kind in METRIC_KINDS if name.startswith(f"{kind}_")), None)
        quantity = name.removeprefix(f"{kind}_")
        is_time_to_threshold = kind in ("epochs_until", "seconds_until")
        if not (kind and (quantity in QUANTITIES or name == "final_gap")):
            known = [f"{kind}_{quantity}" for kind in METRIC_KINDS for quantity in QUANTITIES] + ["final_gap"]
            raise LabError(f"unknown metric '{text}': {suggest(name, known)}")
        require(
            bool(colon) == is_time_to_threshold,
            f"metric '{text}': "
            + ("give the level, as in " + name + ":0.6" if is_time_to_threshold else "it takes no level"),
        )
        if not is_time_to_threshold:
            return cls(kind, quantity)
        try:
            value = float(threshold_text)
        except ValueError as error:
            raise LabError(f"metric '{text}': '{threshold_text}' is not a number") from error
        require(math.isfinite(value) and value > 0, f"metric '{text}': give a level above 0")
        require("accuracy" not in quantity or value <= 1, f"metric '{text}': an accuracy is a fraction, at most 1")
        return cls(kind, quantity, value)

    def __str__(self) -> str:
        return f"{self.kind}_{self.quantity}" + ("" if self.threshold is None else f":{self.threshold:.12g}")

    @property
    def needs_validation(self) -> bool:
        return "validation" in self.quantity or self.quantity == "gap"

    @property
    def quantity_higher_is_better(self) -> bool:
        """Whether the quantity gets better by rising."""
        return "accuracy" in self.quantity

    @property
    def higher_is_better(self) -> bool:
        """Whether more of this number is better."""
        return self.quantity_higher_is_better and self.threshold is None

    @property
    def unit(self) -> str:
        """Of a value as shown: % (of a fraction), nats, epochs or s."""
        if self.threshold is not None:
            return "epochs" if self.kind == "epochs_until" else "s"
        return "nats" if "loss" in self.quantity else "%"

    @property
    def title(self) -> str:
        """In words."""
        return (
            f"{self.kind} {self.quantity_title}"
            if self.threshold is None
            else f"{self.kind.split('_')[0]} until {self.target_phrase}"
        )

    @property
    def quantity_title(self) -> str:
        """The quantity alone, in words."""
        if self.quantity == "gap":
            return "gap between training and validation accuracy"
        return self.quantity.replace("train_", "training ").replace("_", " ")

    @property
    def target_phrase(self) -> str:
        """What an `until` metric waits for, in words."""
        return f"a {self.quantity_title} of " + (
            f"{100 * self.threshold:g} %" if self.quantity_higher_is_better else f"{self.threshold:g} nats"
        )

    def curve(self, history: Sequence[EpochMetrics]) -> list[float]:
        """The quantity after each epoch: for an `until` metric that whose level it waits for."""
        if self.quantity == "gap":
            return [epoch.train_accuracy - epoch.validation_accuracy for epoch in history]
        return [getattr(epoch, self.quantity) for epoch in history]

    def reached(self, history: Sequence[EpochMetrics]) -> bool:
        """Whether an `until` metric's level was reached; the others always are."""
        return self.threshold is None or any(self._reaches_threshold(epoch) for epoch in history)

    def compute(self, history: Sequence[EpochMetrics]) -> float:
        """The number, of a history that is not empty: fractions, nats, epochs or seconds."""
        if self.threshold is None:
            values = self.curve(history)
            return values[-1] if self.kind == "final" else (max if self.quantity_higher_is_better else min)(values)
        count = next((i + 1 for i, epoch in enumerate(history) if self._reaches_threshold(epoch)), len(history))
        return float(count) if self.kind == "epochs_until" else sum(epoch.train_seconds for epoch in history[:count])

    def censoring_time(self, histories: Iterable[Sequence[EpochMetrics]]) -> float:
        """Up to where an `until` metric's numbers can be compared: what the shortest run that did not get there counts.

        Infinite where all of them got there, and for the other metrics.
        """
        return min((self.compute(history) for history in histories if not self.reached(history)), default=math.inf)

    def quantization_step(self, histories: Iterable[Sequence[EpochMetrics]]) -> float:
        """The step in which the number comes: an epoch, an epoch's seconds, the quantity's grain; 0 if there is none."""
        if self.kind == "epochs_until":
            return 1.0
        if self.kind == "final" or self.kind == "best":
            return self.quantity_quantization_step(histories)
        seconds = [epoch.train_seconds for history in histories for epoch in history]
        return sum(seconds) / len(seconds) if seconds else 0.0

    def quantity_quantization_step(self, histories: Iterable[Sequence[EpochMetrics]]) -> float:
        """The step in which the quantity comes: 0 for a loss; for an accuracy one picture's share of all.

        How many pictures there were is in no history, but every accuracy is a whole number of their shares: the largest common
        step of all that were seen is a picture's, or a few pictures' where few were seen. Of a gap it is the validation
        accuracy's, which is the coarser.
        """
        if "loss" in self.quantity:
            return 0.0
        quantity = "validation_accuracy" if self.quantity == "gap" else self.quantity
        observed = {getattr(epoch, quantity) for history in histories for epoch in history}
        return common_step(observed) if len(observed) > 1 else 0.0

    def _reaches_threshold(self, epoch: EpochMetrics) -> bool:
        value = getattr(epoch, self.quantity)
        return value >= self.threshold if self.quantity_higher_is_better else value <= self.threshold


def common_step(values: Iterable[float], tolerance: float = 1e-6) -> float:
    """The largest number of which all values are whole multiples, by Euclid's algorithm; 0 if it is below `finest`.

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
