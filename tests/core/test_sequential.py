"""The levels of a group-sequential paired t-test against other people's integrals, and against drawn samples."""

import numpy as np
import pytest
from scipy import stats

from convolab.core.errors import LabError
from convolab.core.sequential import (
    FIRST_LOOK,
    Estimate,
    cell_edges,
    look_levels,
    planned_looks,
    repeated_interval,
    spent_level,
    step_matrix,
    two_sided_level,
)


def test_a_look_comes_after_three_pairs_and_the_last_one_when_all_are_there():
    assert planned_looks(20) == (3, 4, 5, 6, 8, 10, 13, 16, 20)
    assert planned_looks(3) == (3,)
    assert planned_looks(19)[-2:] == (16, 19)


@pytest.mark.parametrize("max_pairs", [-1, 0, 2, 101])
def test_numbers_of_pairs_that_cannot_be_planned_are_refused_in_one_line(max_pairs: int):
    with pytest.raises(LabError, match="the first look is at 3, the last at 100"):
        planned_looks(max_pairs)


@pytest.mark.slow
def test_a_single_look_is_the_ordinary_t_test():
    assert look_levels((3,)) == pytest.approx((0.05,))
    assert look_levels((12,)) == pytest.approx((0.05,), rel=0.01)


@pytest.mark.slow
def test_the_steps_of_the_recursion_leave_students_t_distribution_as_it_is():
    edges = cell_edges()
    mass = np.diff(edges)
    for count in range(FIRST_LOOK, 20):
        mass = mass @ step_matrix(count)
        exact = [1 - two_sided_level(edge, count + 1) for edge in edges]
        assert np.abs(np.cumsum(mass) - exact[1:]).max() < 2e-3
    assert mass.sum() == pytest.approx(1)


def test_a_bound_has_the_p_value_that_scipys_t_test_gives():
    values = np.array([0.3, 0.1, 0.4, 0.15])
    bound = values.sum() / np.sqrt(4 * (values**2).sum())
    assert two_sided_level(bound, 4) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize("looks", [(50, 100), (32, 63, 100)])
@pytest.mark.long
def test_with_many_pairs_the_levels_are_those_of_the_normal_integrals(looks: tuple[int, ...]):
    """The chance to be beyond any bound, by scipy's multivariate normal integral, is what was to be spent by then."""
    levels = look_levels(looks)
    z = stats.norm.isf(np.array(levels) / 2)
    for k in range(1, len(looks) + 1):
        n = np.array(looks[:k])
        covariance = np.sqrt(np.minimum.outer(n, n) / np.maximum.outer(n, n))
        inside = stats.multivariate_normal(np.zeros(k), covariance, seed=0).cdf(z[:k], lower_limit=-z[:k])
        assert 1 - inside == pytest.approx(spent_level(looks[k - 1] / looks[-1]), abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.05 / 9])
def test_drawn_normal_samples_stop_as_often_as_is_spent_also_at_three_pairs(alpha: float):
    looks, studies = planned_looks(20), 100_000
    levels = look_levels(looks, alpha)
    draws = np.random.default_rng(5).standard_normal((studies, looks[-1]))
    stopped = np.zeros(studies, bool)
    for count, level in zip(looks, levels, strict=True):
        stopped |= stats.ttest_1samp(draws[:, :count], 0, axis=1).pvalue <= level
        spent = spent_level(count / looks[-1], alpha)
        assert stopped.mean() == pytest.approx(spent, abs=4 * np.sqrt(spent / studies))


@pytest.mark.slow
def test_a_finer_grid_changes_no_level_by_more_than_two_percent(monkeypatch: pytest.MonkeyPatch):
    coarse = [look_levels((3, 4, 5, 6, 8), alpha) for alpha in (0.05, 0.05 / 20)]
    step_matrix.cache_clear()
    monkeypatch.setattr("convolab.core.sequential.NUM_CELLS", 800)
    fine = [look_levels.__wrapped__((3, 4, 5, 6, 8), alpha) for alpha in (0.05, 0.05 / 20)]
    step_matrix.cache_clear()
    assert np.array(coarse) == pytest.approx(np.array(fine), rel=0.02)


def test_a_repeated_interval_is_a_t_interval_at_the_looks_own_level():
    interval = repeated_interval(Estimate(1.0, 0.5, 4), 0.01)
    assert (interval.low, interval.high) == pytest.approx(stats.t(3, 1.0, 0.5).interval(0.99))
    assert interval.count == 4
