import pytest

from convolab.core.stats import Interval
from convolab.core.text import format_p_value
from convolab.studies.formatting import (
    choose_decimals,
    format_difference_interval,
    format_mean,
    format_metric_difference,
)
from convolab.studies.metrics import Metric

ACCURACY = Metric.parse("best_validation_accuracy")


def test_p_values_show_on_which_side_of_5_percent_they_are() -> None:
    assert format_p_value(0.04996) == "p = 0.0500"
    assert format_p_value(0.0504) == "p = 0.0504"
    assert format_p_value(0.0009) == "p < 0.001"


def test_a_bound_that_is_not_0_is_not_shown_as_0() -> None:
    assert format_difference_interval(ACCURACY, Interval(0.02, 0.00004, 0.04, 3)) == "0.004 to 4.000"
    assert format_difference_interval(ACCURACY, Interval(-0.01, -0.03, 0.01, 3)) == "from 3.0 lower to 1.0 higher"


@pytest.mark.parametrize(
    ("metric", "interval", "shown"),
    [
        (ACCURACY, Interval(0.0001, -0.017, 0.017, 3), "from 1.7 percentage points lower to 1.7 higher"),
        (Metric.parse("final_train_loss"), Interval(0.0, -0.02, 0.02, 3), "from 0.020 nats lower to 0.020 higher"),
        (
            Metric.parse("epochs_to_train_accuracy:0.9"),
            Interval(0.0, -12.0, 12.0, 3),
            "from 12 epochs fewer to 12 more",
        ),
    ],
)
def test_the_interval_of_a_difference_that_rounds_to_0_names_its_unit(
    metric: Metric, interval: Interval, shown: str
) -> None:
    assert format_difference_interval(metric, interval) == shown


def test_decimals_show_the_smallest_width_with_two_digits_within_the_limits_of_the_unit() -> None:
    assert choose_decimals(ACCURACY, 0.2) == 0
    assert choose_decimals(ACCURACY, 0.2, 0.012) == 1
    assert choose_decimals(ACCURACY, 0.00001) == 2
    assert choose_decimals(ACCURACY) == 2
    assert choose_decimals(Metric.parse("final_train_loss"), 0.00001) == 6


def test_a_mean_of_one_run_has_no_interval() -> None:
    assert format_mean(ACCURACY, Interval(0.8, 0.8, 0.8, 1), 1) == "80.00 %"
    assert format_mean(ACCURACY, Interval(0.8, 0.78, 0.82, 3), 1) == "80.0 % (78.0 to 82.0)"


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("epochs_to_train_accuracy:1", 1.0, "1 epoch"),
        ("epochs_to_train_accuracy:1", 2.0, "2 epochs"),
        ("best_validation_accuracy", 0.01, "1 percentage point"),
        ("seconds_to_train_accuracy:1", 1.0, "1 s"),
    ],
)
def test_one_is_singular(metric: str, value: float, text: str) -> None:
    assert format_metric_difference(Metric.parse(metric), value, 0) == text
