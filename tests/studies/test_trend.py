"""The quadratic contrast over a grid, and the optimum of a parabola with its interval."""

import math

import numpy as np
import pytest

from convolab.studies.trend import axis_positions, fieller_interval, fit_optimum, middle_and_ends

RATES = [0.01, 0.03, 0.1, 0.3, 1.0]


def test_no_level_and_no_slope_changes_the_quadratic_contrast():
    positions = dict(zip("abcde", axis_positions(RATES)[0], strict=True))
    middle, ends = middle_and_ends(positions)
    assert sum(weight for weight, _ in middle) == pytest.approx(1)
    assert sum(weight for weight, _ in ends) == pytest.approx(1)
    weights = {name: weight for weight, name in ends} | {name: -weight for weight, name in middle}
    assert sum(weights[name] * x for name, x in positions.items()) == pytest.approx(0, abs=1e-9)
    assert sum(weights[name] * x**2 for name, x in positions.items()) > 0


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_optimum_is_that_of_numpys_parabola_through_the_means(higher_is_better: bool):
    rng = np.random.default_rng(0)
    x, is_log = axis_positions(RATES)
    sign = -1 if higher_is_better else 1
    values = np.array([[sign * (p - math.log(0.08)) ** 2 + 0.1 * rng.standard_normal() for p in x] for _ in range(4)])
    optimum = fit_optimum(x, values, is_log=is_log, higher_is_better=higher_is_better)
    assert optimum is not None
    c, b, a = np.polyfit(x, values.mean(0), 2)
    assert optimum.value == pytest.approx(math.exp(-b / (2 * c)))
    assert optimum.metric_value == pytest.approx(a - b * b / (4 * c))
    assert optimum.coefficients == pytest.approx((a, b, c))
    assert optimum.is_inside
    assert optimum.low is not None
    assert optimum.high is not None
    assert optimum.low < optimum.value < optimum.high


def test_the_parabola_is_fitted_to_the_best_mean_and_two_values_on_each_side():
    x = [float(i) for i in range(9)]
    cliff = [100.0, 50.0, 4.0, 1.0, 0.0, 1.0, 4.0, 50.0, 900.0]
    optimum = fit_optimum(x, np.array([cliff, cliff]), is_log=False, higher_is_better=False)
    assert optimum is not None
    assert optimum.value == pytest.approx(4)
    assert optimum.misfit == pytest.approx(0, abs=1e-9)
    assert optimum.span == (2, 6)


def test_an_optimum_beyond_the_values_is_not_inside_and_a_parabola_that_opens_the_other_way_has_none():
    x = [0.0, 1.0, 2.0, 3.0]
    falling = np.array([[(p - 5) ** 2 for p in x]] * 2)
    optimum = fit_optimum(x, falling, is_log=False, higher_is_better=False)
    assert optimum is not None
    assert not optimum.is_inside
    assert fit_optimum(x, falling, is_log=False, higher_is_better=True) is None


def test_of_one_seed_the_interval_has_no_ends():
    assert fieller_interval(np.array([1.0]), np.array([1.0])) == (None, None)


def test_means_that_lie_on_no_parabola_have_an_optimum_without_an_interval():
    rng = np.random.default_rng(0)
    x = np.arange(7.0)
    cliff = np.where(x < 4, 0.02, 0.5) * (x - 4) ** 2
    optimum = fit_optimum(list(x), cliff + 0.004 * rng.standard_normal((5, 7)), is_log=False, higher_is_better=False)
    assert optimum is not None
    assert not optimum.is_parabola
    assert (optimum.low, optimum.high) == (None, None)
    rng = np.random.default_rng(1)
    smooth = 0.1 * (x - 3.4) ** 2 + 0.004 * rng.standard_normal((5, 7))
    optimum = fit_optimum(list(x), smooth, is_log=False, higher_is_better=False)
    assert optimum is not None
    assert optimum.is_parabola
    assert optimum.low is not None


@pytest.mark.slow
def test_no_accuracies_that_come_in_steps_end_in_an_overflow():
    rng = np.random.default_rng(0)
    x, is_log = axis_positions([0.125, 0.25, 0.5, 1.0])
    for _ in range(3000):
        values = np.round((0.9 + 0.02 * rng.standard_normal((2, 4))) * 143) / 143
        optimum = fit_optimum(x, values, is_log=is_log, higher_is_better=True)
        assert optimum is None or 0 < optimum.value < math.inf


@pytest.mark.slow
def test_fiellers_interval_covers_the_optimum_in_95_of_100_studies():
    rng = np.random.default_rng(1)
    x, true, covered, studies = np.arange(5.0), 1.7, 0, 2000
    for _ in range(studies):
        values = (x - true) ** 2 + 0.5 * rng.standard_normal((4, 5)) + rng.standard_normal((4, 1))
        optimum = fit_optimum(list(x), values, is_log=False, higher_is_better=False)
        assert optimum is not None
        # Without ends the interval is everything.
        covered += optimum.low is None or optimum.high is None or optimum.low <= true <= optimum.high
    assert abs(covered / studies - 0.95) < 0.015
