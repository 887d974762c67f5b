from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

from convolab.core.errors import LabError
from convolab.core.stats import (
    equivalence_p,
    holm,
    mean_interval,
    paired_t_test,
    pairs_to_decide,
    selection_bias,
    wilson_interval,
)

CASES = [(70, 100), (0, 10), (10, 10), (1, 3), (9_235, 10_000), (50, 101)]


@pytest.mark.parametrize(("correct", "count"), CASES)
@pytest.mark.parametrize("confidence", [0.68, 0.95, 0.99])
def test_wilson_interval_is_wilsons_formula(correct: int, count: int, confidence: float) -> None:
    z, p = NormalDist().inv_cdf((1 + confidence) / 2), correct / count
    center = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    assert wilson_interval(correct, count, confidence) == pytest.approx((center - half, center + half), abs=1e-12)


@pytest.mark.parametrize(("correct", "count"), CASES)
def test_wilson_interval_has_the_proportions_that_the_score_test_does_not_reject(correct: int, count: int) -> None:
    proportions = np.linspace(0, 1, 1_000_001)
    z = NormalDist().inv_cdf(0.975)
    not_rejected = proportions[
        np.abs(correct / count - proportions) <= z * np.sqrt(proportions * (1 - proportions) / count)
    ]
    assert wilson_interval(correct, count) == pytest.approx((not_rejected[0], not_rejected[-1]), abs=2e-6)


def test_wilson_interval_covers_the_true_proportion_with_its_confidence() -> None:
    counts = np.random.default_rng(0).binomial(100, 0.7, 20_000)
    intervals = {int(correct): wilson_interval(int(correct), 100) for correct in np.unique(counts)}
    covered = np.mean([intervals[correct][0] <= 0.7 <= intervals[correct][1] for correct in counts.tolist()])
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize("count", [2, 3, 5, 30])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_mean_interval_is_the_t_interval_of_scipy(count: int, confidence: float) -> None:
    values = np.random.default_rng(count).normal(3, 2, count)
    interval = mean_interval(values.tolist(), confidence)
    theirs = stats.t.interval(confidence, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((values.mean(), *theirs), rel=1e-9)
    assert interval.count == count


def test_one_value_has_an_interval_without_width_and_none_is_an_error() -> None:
    interval = mean_interval([0.7])
    assert (interval.mean, interval.low, interval.high, interval.count) == (0.7, 0.7, 0.7, 1)
    with pytest.raises(LabError, match="at least one"):
        mean_interval([])


@pytest.mark.parametrize("count", [2, 3, 5, 30])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.4])
def test_a_paired_comparison_is_the_paired_t_test_of_scipy(count: int, shift: float) -> None:
    rng = np.random.default_rng(count)
    second = rng.normal(0, 5, count)
    first = second + rng.normal(shift, 1, count)
    ours, theirs = paired_t_test(first.tolist(), second.tolist()), stats.ttest_rel(first, second)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    interval = theirs.confidence_interval(0.95)
    assert (ours.difference.low, ours.difference.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert ours.difference.mean == pytest.approx((first - second).mean(), rel=1e-9)
    assert ours.difference.count == count


@pytest.mark.slow
def test_hedges_g_is_unbiased_although_the_uncorrected_effect_is_too_large() -> None:
    rng, true_effect, count = np.random.default_rng(1), 0.8, 4
    samples = rng.normal(true_effect, 1, (20_000, count))
    plain = samples.mean(1) / samples.std(1, ddof=1)
    ours = [paired_t_test(sample, [0.0] * count).hedges_g for sample in samples.tolist()]
    assert plain.mean() > 1.3 * true_effect
    assert np.mean(ours) == pytest.approx(true_effect, abs=4 * np.std(ours) / sqrt(20_000))


def test_hedges_g_of_two_pairs_is_0() -> None:
    assert paired_t_test([3.0, 5.0], [1.0, 1.0]).hedges_g == 0


@pytest.mark.parametrize("count", [3, 5, 10, 50])
@pytest.mark.parametrize("tests", [1, 5])
def test_the_minimum_detectable_effect_has_80_percent_power_by_statsmodels(count: int, tests: int) -> None:
    values = np.random.default_rng(count).normal(0, 2, count)
    effect = paired_t_test(values.tolist(), [0.0] * count, num_tests=tests).minimum_detectable_effect
    power = TTestPower().power(effect_size=effect / values.std(ddof=1), nobs=count, alpha=0.05 / tests)
    assert power == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
def test_equivalence_is_tested_as_by_statsmodels(margin: float) -> None:
    first, second = np.random.default_rng(5).normal(0, 1, (2, 8)).tolist()
    theirs, _, _ = ttost_paired(np.array(first), np.array(second), -margin, margin)
    test = paired_t_test(first, second)
    ours = equivalence_p(test.difference.mean, test.standard_error, test.difference.count, margin)
    assert ours == pytest.approx(theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("true_difference", "margin"), [(1.0, None), (0.3, None), (0.0, 0.5), (0.1, 0.6)])
def test_the_planned_number_of_pairs_decides_four_times_in_five(true_difference: float, margin: float | None) -> None:
    values = np.random.default_rng(6).normal(0, 1, 10)
    values = (values - values.mean()) / values.std(ddof=1) + true_difference
    count = pairs_to_decide(paired_t_test(values.tolist(), [0.0] * 10), margin)
    assert count is not None
    samples = np.random.default_rng(7).normal(true_difference, 1, (4000, count))
    tests = [paired_t_test(sample, [0.0] * count) for sample in samples.tolist()]
    pairs = [(test.difference.mean, test.standard_error, count) for test in tests]
    p_values = [test.p for test in tests] if margin is None else [equivalence_p(*of, margin) for of in pairs]
    decided = np.mean([p <= 0.05 for p in p_values])
    assert decided == pytest.approx(0.82, abs=0.04 if count > 11 else 0.19)  # a step of the plan may overshoot


@pytest.mark.slow
def test_the_minimum_detectable_effect_is_detected_four_times_in_five() -> None:
    values = [-1.0, 0.0, 1.0]  # a standard deviation of exactly 1
    effect = paired_t_test(values, [0.0] * 3).minimum_detectable_effect
    samples = np.random.default_rng(2).normal(effect, 1, (20_000, 3))
    found = np.mean([paired_t_test(sample, [0.0] * 3).p <= 0.05 for sample in samples.tolist()])
    assert found == pytest.approx(0.8, abs=4 * sqrt(0.8 * 0.2 / 20_000))


def test_identical_differences_are_tested_with_the_error_of_quantization() -> None:
    ours = paired_t_test([4.0, 5.0, 4.0], [2.0, 3.0, 2.0], quantization_step=1.0)
    error = sqrt(2 / 12) / sqrt(3)
    assert ours.p == pytest.approx(2 * stats.t.sf(2 / error, 2))
    assert ours.difference.low == pytest.approx(2 - stats.t.ppf(0.975, 2) * error)
    assert (
        paired_t_test([3.0, 4.0, 3.0], [2.0, 3.0, 2.0], quantization_step=1.0).p > 0.05
    )  # a single step could be rounding
    same = paired_t_test([2.0, 3.0, 2.0], [2.0, 3.0, 2.0], quantization_step=1.0)
    assert (same.difference.mean, same.p) == (0, 1)
    assert same.minimum_detectable_effect > 0


def test_the_quantization_step_matters_only_if_values_vary_less_than_it() -> None:
    first, second = [4.0, 9.0, 6.0], [2.0, 3.0, 2.0]
    assert paired_t_test(first, second, quantization_step=1.0) == paired_t_test(first, second)


def test_rounding_to_whole_steps_gives_a_difference_the_assumed_standard_deviation() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.uniform(0, 1000, (2, 100_000))
    rounding_errors = (np.round(first) - np.round(second)) - (first - second)
    assert rounding_errors.std() == pytest.approx(sqrt(2 / 12), rel=0.01)


@pytest.mark.parametrize(
    ("first", "second"), [([0.9, 0.7, 0.4], [0.8, 0.6, 0.3]), ([0.5, 0.5], [0.5, 0.5]), ([0.0, 0.0], [0.0, 0.0])]
)
def test_without_variation_and_quantization_nothing_is_decided(first: list[float], second: list[float]) -> None:
    assert paired_t_test(first, second) is None  # 0.9 - 0.8 and 0.7 - 0.6 differ in their last bit only


def test_one_pair_is_not_a_comparison_and_unequal_lengths_are_an_error() -> None:
    assert paired_t_test([1.0], [2.0], quantization_step=1.0) is None
    assert paired_t_test([], []) is None
    with pytest.raises(LabError, match="2 and 1 values cannot be paired"):
        paired_t_test([1.0, 2.0], [1.0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "p_values", [[], [0.03], [0.01, 0.01, 0.01], [0.5, 0.001, 0.04, 0.04, 0.9], [1.0, 1.0], [0.0, 0.2]]
)
def test_holms_correction_is_that_of_statsmodels(p_values: list[float]) -> None:
    theirs = multipletests(p_values, method="holm")[1].tolist() if p_values else []
    assert holm(p_values) == pytest.approx(theirs)


@pytest.mark.slow
def test_holms_correction_of_many_random_p_values_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(4)
    for _ in range(8):
        p_values = (rng.random(rng.integers(1, 12)) ** 3).round(2).tolist()  # rounded: with ties
        assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def simulate_selection_bias(true_accuracies: list[float], num_images: int, studies: int) -> tuple[float, float, float]:
    """The true selection bias of the best of several runs, `selection_bias` on average, and the error of both."""
    rng = np.random.default_rng(5)
    observed = rng.binomial(num_images, true_accuracies, (studies, len(true_accuracies))) / num_images
    best_runs = observed.argmax(1)
    true_bias = observed.max(1) - np.array(true_accuracies)[best_runs]
    estimated = [
        selection_bias(row, num_images, num_resamples=200, seed=i) for i, row in enumerate(observed[:1500].tolist())
    ]
    return (
        true_bias.mean(),
        float(np.mean(estimated)),
        4 * (true_bias.std() / sqrt(studies) + float(np.std(estimated)) / sqrt(1500)),
    )


@pytest.mark.slow
def test_the_selection_bias_of_equal_runs_is_right_on_average() -> None:
    true_bias, estimated, error = simulate_selection_bias([0.7] * 8, 500, 20_000)
    assert true_bias > 0.02
    assert estimated == pytest.approx(true_bias, abs=error)


@pytest.mark.slow
@pytest.mark.parametrize("true_accuracies", [[0.7, 0.69, 0.68, 0.66, 0.6], [0.5, 0.9], [0.8, 0.8, 0.8, 0.1, 0.1]])
def test_the_estimated_selection_bias_of_unequal_runs_is_at_least_the_true_one(true_accuracies: list[float]) -> None:
    true_bias, estimated, error = simulate_selection_bias(true_accuracies, 500, 20_000)
    assert true_bias - error < estimated < 2 * true_bias + error


@pytest.mark.slow
def test_runs_that_share_their_images_have_a_smaller_selection_bias_than_estimated() -> None:
    rng, runs, num_images = np.random.default_rng(6), 6, 500
    common = rng.random((2000, 1, num_images))
    individual = rng.random((2000, runs, num_images))
    # The true accuracy of all runs is the same: P(mean of two uniforms < 0.65).
    observed = ((common + individual) / 2 < 0.65).mean(2)
    true_accuracy = 1 - 2 * 0.35**2
    estimated = np.mean([selection_bias(row, num_images, num_resamples=200) for row in observed[:500].tolist()])
    assert 0 < (observed.max(1) - true_accuracy).mean() < 0.9 * estimated


def test_the_selection_bias_is_the_same_each_time_and_0_for_a_single_run() -> None:
    assert selection_bias([0.7, 0.72], 100) == selection_bias([0.7, 0.72], 100) > 0
    assert selection_bias([0.7], 100) == 0
    assert selection_bias([1.0, 1.0], 100) == 0
    with pytest.raises(LabError, match="no accuracies"):
        selection_bias([], 100)
