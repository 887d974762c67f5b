"""Colors and axes of a study's charts."""

from convolab.plots.study_scales import arm_styles, axis_range, swept_numeric_key
from convolab.plots.style import COLORS
from convolab.studies.metrics import Metric
from convolab.studies.section import Section

LOSS = Metric("final", "train_loss")
ACCURACY = Metric("final", "validation_accuracy")


def test_a_wide_band_does_not_extend_the_axis_so_far_that_curves_cannot_be_distinguished() -> None:
    span = axis_range([1.0, 2.0], [(-30.0, 40.0)], LOSS)
    assert (span.low, span.high, span.clips_intervals) == (0.75, 2.25, True)
    assert not axis_range([1.0, 2.0], [(0.9, 2.1)], LOSS).clips_intervals
    log = axis_range([0.01, 1.0], [(-3.0, 5.0)], LOSS)
    assert log.log
    assert 0.001 < log.low < 0.01
    assert 1 < log.high < 10
    assert log.scale().to_dict()["clamp"]  # below 0 there is no logarithm: it would break the band


def test_an_axis_of_equal_values_has_a_range_and_accuracies_stay_within_0_and_100() -> None:
    span = axis_range([0.5], [(0.5, 0.5)], LOSS)
    assert span.low < 0.5 < span.high
    assert axis_range([50.0, 100.0], [(40.0, 120.0)], ACCURACY).high <= 101
    assert 100 < axis_range([100.0, 100.0], [(100.0, 100.0)], ACCURACY).high < 100.05  # no tick beyond 100 %
    assert axis_range([0.0, 1.0], [(0.0, 1.0)], LOSS).low < 0  # a loss of 0 is on the axis, and on a linear one
    span = axis_range([0.0, 0.0], [(0.0, 0.0)], LOSS)
    assert span.low < span.high


def test_only_a_grid_of_a_single_numeric_key_has_a_numeric_axis() -> None:
    assert swept_numeric_key(Section(grid={"schedule.gamma": (0.1, 0.5, 0.9)})) == "schedule.gamma"
    assert swept_numeric_key(Section(grid={"model.batch_norm": (True, False)})) is None
    assert swept_numeric_key(Section(grid={"optimizer.lr": (0.1, 0.2, 0.3), "training.epochs": (1, 2)})) is None
    assert swept_numeric_key(Section(grid={"schedule.name": ("step", "cosine", "constant")})) is None


def test_few_arms_have_distinct_colors_and_dashes_and_many_have_a_color_ramp() -> None:
    few = arm_styles(Section(arms={f"arm {i}": {} for i in range(len(COLORS))}))
    assert len({color for color, _ in few.values()}) == len({tuple(dash) for _, dash in few.values()}) == len(COLORS)
    many = arm_styles(Section(arms={f"arm {i}": {} for i in range(33)}))
    assert len({color for color, _ in many.values()}) == 33


def test_a_grid_of_numbers_is_colored_by_size_and_not_by_order() -> None:
    rates = arm_styles(Section(grid={"optimizer.lr": (0.1, 0.3, 0.2)}))
    assert rates["lr=0.1"][0] == arm_styles(Section(grid={"optimizer.lr": (0.3, 0.1, 0.2)}))["lr=0.1"][0]
