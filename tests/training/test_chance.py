"""Whether a network clearly beats chance, by what its run recorded."""

import pytest

from convolab.core.stats import wilson_interval
from convolab.training.chance import chance_caution
from convolab.training.history import EpochMetrics
from convolab.training.run_records import EvaluationRecord


def epoch(validation: float | None, train: float = 0.9) -> EpochMetrics:
    return EpochMetrics(1, 1.0, train, None if validation is None else 1.0, validation)


def test_record(confusion: list[list[int]]) -> EvaluationRecord:
    count, correct = sum(map(sum, confusion)), sum(row[i] for i, row in enumerate(confusion))
    interval, per_class = list(wilson_interval(correct, count)), {"a": None, "b": None}
    return EvaluationRecord(correct / count, interval, correct, count, 1.0, per_class, confusion, 1, "")


test_record.__test__ = False


@pytest.mark.parametrize(
    ("best", "test", "classes", "is_cautious"),
    [
        (epoch(0.12), None, 10, True),
        (epoch(0.18), None, 10, False),
        (epoch(0.54), None, 2, True),
        (epoch(0.60), None, 2, False),
        (epoch(0.05), None, 100, False),
        (epoch(None, 0.11), None, 10, True),
        (epoch(None, 0.95), None, 10, False),
        (None, None, 10, False),
        (epoch(0.9), test_record([[90, 0], [10, 0]]), 2, True),  # always the largest class
        (epoch(0.9), test_record([[900, 0], [10, 90]]), 2, False),
        (epoch(0.9), test_record([[3, 2], [2, 3]]), 2, True),  # too few images to say
    ],
)
def test_a_network_near_chance_is_warned_of_and_no_other(best, test, classes: int, is_cautious: bool) -> None:
    assert bool(chance_caution(best, test, classes)) == is_cautious
