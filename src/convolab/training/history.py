"""The epochs of a training: their metrics, and which of them is the best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from convolab.core.calls import NearestNames
from convolab.core.display import Displayable
from convolab.core.errors import require
from convolab.core.records import validate_record
from convolab.core.text import format_percent, pluralize
from convolab.core.types import Json

MAX_METRIC = 1e60  # statistics multiply four of them
# The numbers of an epoch, and from where to where they can lie. A person's own loss or metric may be below 0.
METRIC_RANGE = (-MAX_METRIC, MAX_METRIC)
POSSIBLE = {
    "epoch": (1, math.inf),
    "train_loss": METRIC_RANGE,
    "train_accuracy": (0, 1),
    "validation_loss": METRIC_RANGE,
    "validation_accuracy": (0, 1),
    "learning_rate": (-math.inf, math.inf),
    "train_seconds": (0, MAX_METRIC),
    "images_per_second": (0, MAX_METRIC),
    "validation_metric": METRIC_RANGE,
}


@dataclass(frozen=True)
class EpochMetrics(NearestNames):
    """The metrics of one epoch. Losses in nats, accuracies in [0, 1]; validation's are None without a validation set.

    A field that a file lacks, because another version of convolab wrote it, is NaN or None.
    """

    epoch: int  # counted from 1
    train_loss: float
    train_accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    learning_rate: float = math.nan  # at the epoch's last step
    train_seconds: float = math.nan  # of training, without the validation
    images_per_second: float = math.nan
    train_metrics: Literal["running", "eval_pass"] = "running"  # see Metrics
    validation_metric: float | None = None  # of a person's own, if the recipe names one

    def to_record(self) -> dict[str, int | float | str | None]:
        """What a file holds of the epoch; NaN, which JSON does not know, and a metric that there is not, are left out."""
        record = {name: value for name, value in asdict(self).items() if value == value}
        if self.validation_metric is None:
            del record["validation_metric"]
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Json], source: Path | str = "an epoch") -> "EpochMetrics":
        """The epoch in a record of a file; keys that it does not know are ignored.

        Raises LabError, naming the source, if it lacks the essential or a value has the wrong type or cannot be.

        >>> EpochMetrics.from_record({"epoch": 1, "train_loss": 2.3, "train_accuracy": 0.1, "mood": "good"}).train_loss
        2.3
        """
        epoch = validate_record(cls, record, source)
        for name, (lowest, highest) in POSSIBLE.items():
            value = record.get(name)
            if value is not None:
                is_number = isinstance(value, int | float) and not isinstance(value, bool)  # no text such as "NaN"
                is_possible = is_number and lowest <= value <= highest
                require(is_possible, f"{source} is damaged: {name} cannot be {str(value)[:40]!r}")
        return epoch


def best_epoch_of(history: Sequence[EpochMetrics]) -> EpochMetrics | None:
    """The epoch of the highest validation accuracy; None without any epoch, and without validation the last one.

    Of equals it is that of the lowest validation loss, else the first: on few images a network that has hardly begun may
    classify as many of them correctly as a later one, which is surer of them.

    >>> accuracies_and_losses = [(0.9, 0.5), (1.0, 0.8), (1.0, 0.1), (1.0, 0.1)]
    >>> epochs = [EpochMetrics(i, 0.1, 1.0, loss, accuracy) for i, (accuracy, loss) in enumerate(accuracies_and_losses, 1)]
    >>> best_epoch_of(epochs).epoch
    3
    """
    validated = [epoch for epoch in history if epoch.validation_accuracy is not None]
    if not validated:
        return history[-1] if history else None
    losses = {epoch.epoch: math.inf if epoch.validation_loss is None else epoch.validation_loss for epoch in validated}
    return max(validated, key=lambda epoch: (epoch.validation_accuracy or 0.0, -losses[epoch.epoch]))


def epochs_without_better(history: Sequence[EpochMetrics]) -> int:
    """How many epochs came after the first of the highest validation accuracy; an equal accuracy is not better.

    >>> epochs_without_better([EpochMetrics(i, 0.1, 1.0, 1 / i, a) for i, a in enumerate((0.5, 0.9, 0.9, 0.9), 1)])
    2
    """
    accuracies = [epoch.validation_accuracy or 0.0 for epoch in history]
    return len(accuracies) - 1 - accuracies.index(max(accuracies)) if accuracies else 0


class History(list[EpochMetrics], Displayable):
    """The epochs of a training in order; it draws itself as curves."""

    def __repr__(self) -> str:
        if not self:
            return "History(no epoch is done yet)"
        last = self[-1]
        validation = ""
        if last.validation_accuracy is not None:
            validation = f", validation {format_percent(last.validation_accuracy)}"
        training = f"training accuracy {format_percent(last.train_accuracy)}"
        return f"History({pluralize(len(self), 'epoch')}, at the end {training}{validation})"
