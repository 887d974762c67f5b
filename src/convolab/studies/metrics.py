"""What a contrast can be about: one number of a run's history, by name."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from convolab.ground.errors import LabError, nearest, need
from convolab.training.loop import Epoch

QUANTITIES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
KINDS = ("final", "best", "epochs_until", "seconds_until")


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
    level: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Metric":
        """The metric of that name. Raises LabError for a name that is none.

        >>> Metric.parse("epochs_until_validation_accuracy:0.6")
        Metric(kind='epochs_until', quantity='validation_accuracy', level=0.6)
        >>> Metric.parse("final_train_loss").title
        'final training loss'
        """
        name, colon, level = text.partition(":")
        kind = next((kind for kind in KINDS if name.startswith(f"{kind}_")), None)
        quantity = name.removeprefix(f"{kind}_")
        until = kind in ("epochs_until", "seconds_until")
        known = [f"{kind}_{quantity}" for kind in KINDS for quantity in QUANTITIES] + ["final_gap"]
        need(kind and (quantity in QUANTITIES or name == "final_gap"), f"unknown metric '{text}': {nearest(name, known)}")
        need(bool(colon) == until, f"metric '{text}': " + ("give the level, as in " + name + ":0.6" if until else "it takes no level"))
        if not until:
            return cls(kind, quantity)
        try:
            value = float(level)
        except ValueError as error:
            raise LabError(f"metric '{text}': '{level}' is not a number") from error
        need(math.isfinite(value) and value > 0, f"metric '{text}': give a level above 0")
        need("accuracy" not in quantity or value <= 1, f"metric '{text}': an accuracy is a fraction, at most 1")
        return cls(kind, quantity, value)

    def __str__(self) -> str:
        return f"{self.kind}_{self.quantity}" + ("" if self.level is None else f":{self.level:g}")

    @property
    def needs_validation(self) -> bool:
        return "validation" in self.quantity or self.quantity == "gap"

    @property
    def rising(self) -> bool:
        """Whether the quantity gets better by rising."""
        return "accuracy" in self.quantity

    @property
    def higher_is_better(self) -> bool:
        """Whether more of this number is better."""
        return self.rising and self.level is None

    @property
    def unit(self) -> str:
        """Of a value as shown: % (of a fraction), nats, epochs or s."""
        if self.level is not None:
            return "epochs" if self.kind == "epochs_until" else "s"
        return "nats" if "loss" in self.quantity else "%"

    @property
    def title(self) -> str:
        """In words."""
        words = (
            "gap between training and validation accuracy"
            if self.quantity == "gap"
            else self.quantity.replace("train_", "training ").replace("_", " ")
        )
        if self.level is None:
            return f"{self.kind} {words}"
        level = f"{100 * self.level:g} %" if self.rising else f"{self.level:g} nats"
        return f"{self.kind.split('_')[0]} until a {words} of {level}"

    def reached(self, history: Sequence[Epoch]) -> bool:
        """Whether an `until` metric's level was reached; the others always are."""
        return self.level is None or any(self._there(epoch) for epoch in history)

    def of(self, history: Sequence[Epoch]) -> float:
        """The number, of a history that is not empty: fractions, nats, epochs or seconds."""
        if self.quantity == "gap":
            return history[-1].train_accuracy - history[-1].validation_accuracy
        if self.level is None:
            values = [getattr(epoch, self.quantity) for epoch in history]
            return values[-1] if self.kind == "final" else (max if self.rising else min)(values)
        count = next((i + 1 for i, epoch in enumerate(history) if self._there(epoch)), len(history))
        return float(count) if self.kind == "epochs_until" else sum(epoch.seconds for epoch in history[:count])

    def _there(self, epoch: Epoch) -> bool:
        value = getattr(epoch, self.quantity)
        return value >= self.level if self.rising else value <= self.level
