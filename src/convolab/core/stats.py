"""Confidence intervals for every number, and significance tests for every comparison.

The distributions are scipy.special's: scipy.stats has the same numbers and takes over a second to import.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from convolab.core.errors import require

ALPHA = 0.05  # significance level of two-sided tests: how often one may report a difference where there is none
POWER = 0.8  # how often a test should detect a true difference
MAX_PLANNED_PAIRS = 1_000  # beyond which a number of pairs is not worth planning


def wilson_interval(correct: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion, e.g. of images classified correctly (Wilson 1927, JASA 22).

    >>> low, high = wilson_interval(70, 100)
    >>> round(low, 4), round(high, 4)
    (0.6042, 0.7811)
    """
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    center = (correct + z**2 / 2) / (count + z**2)
    half_width = z * math.sqrt(correct * (count - correct) / count + z**2 / 4) / (count + z**2)
    # Rounding must not leave a bound of 0 or 1 just beside it.
    return 0.0 if correct == 0 else center - half_width, 1.0 if correct == count else center + half_width


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class PairedTest:
    """A paired comparison: the mean difference with its t-interval, and the evidence that it is not 0."""

    difference: Interval
    p: float  # two-sided, of the paired t-test
    hedges_g: float  # the mean difference in standard deviations of the differences, corrected for few pairs
    # the smallest true difference that this many pairs, with this standard deviation, detect with 80 % probability
    minimum_detectable_effect: float
    standard_error: float  # of the mean difference


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of some values with Student's t-interval.

    A single value has an interval of zero width, because its spread is unknown. Raises LabError if there is no value.

    >>> interval = mean_interval([1.0, 2.0, 3.0])
    >>> interval.mean, round(interval.low, 3), round(interval.high, 3)
    (2.0, -0.484, 4.484)
    """
    require(len(values) > 0, "no values: a mean needs at least one")
    mean, std = mean_std(values)
    return t_interval(mean, std, len(values), confidence)


def paired_t_test(
    first: Sequence[float], second: Sequence[float], quantization_step: float = 0.0, num_tests: int = 1
) -> PairedTest | None:
    """Compare values that belong in pairs, such as those of two arms with the same seeds: `first` minus `second`.

    The t-test of the differences (Student 1908, Biometrika 6), which is exact if they are normal, however few they are.
    Hedges' g is corrected exactly (Hedges 1981, J. Educ. Stat. 6); for two pairs, which say nothing of it, it is 0.

    Args:
        first: the values of one side.
        second: those of the other side, in the same order.
        quantization_step: the step in which the values come, such as 1 for whole epochs. Rounding to it has a standard
            deviation of 1/sqrt(12) steps, so the difference of two such values is never taken to spread less than
            sqrt(2/12) steps: otherwise three pairs that happen to differ by the same whole number would have p = 0.
        num_tests: the number of comparisons that share the 5 %. The minimum detectable effect is what one of them must
            be to be detected although the others are tested too.

    Returns:
        the comparison, or None where the test is not defined: for fewer than two pairs, and for differences that
        neither spread nor are quantized.

    Raises LabError if the lengths differ.

    >>> test = paired_t_test([0.74, 0.71, 0.75], [0.70, 0.69, 0.70])
    >>> round(test.difference.mean, 4), round(test.p, 3), round(test.minimum_detectable_effect, 3)
    (0.0367, 0.053, 0.05)
    >>> paired_t_test([4.0, 5.0, 4.0], [2.0, 3.0, 2.0]) is None
    True
    >>> round(paired_t_test([4.0, 5.0, 4.0], [2.0, 3.0, 2.0], quantization_step=1.0).p, 4)
    0.0136
    """
    require(
        len(first) == len(second),
        f"{len(first)} and {len(second)} values cannot be paired: give the same number of each",
    )
    if len(first) < 2:
        return None
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, std = mean_std(differences)
    if std < 1e-9 * max(abs(value) for value in (*first, *second)):  # equal differences, up to floating-point rounding
        std = 0.0
    std = max(std, quantization_step * math.sqrt(2 / 12))
    if std == 0:
        return None
    count = len(differences)
    standard_error = std / math.sqrt(count)
    return PairedTest(
        difference=t_interval(mean, std, count, 1 - ALPHA),
        p=two_sided_p(mean / standard_error, count - 1),
        hedges_g=hedges_correction(count - 1) * mean / std,
        minimum_detectable_effect=detectable_noncentrality(count - 1, ALPHA / num_tests) * standard_error,
        standard_error=standard_error,
    )


def equivalence_p(mean: float, standard_error: float, count: int, margin: float) -> float:
    """The p-value of two one-sided t-tests: how often pairs whose true difference is the margin or more look this close.

    Schuirmann 1987, J. Pharmacokinet. Biopharm. 15. Where it is at most 0.05, the true difference is shown to lie
    within the margin, as the 90 % interval does.

    Args:
        mean: of the differences of the pairs, with its standard error.
        count: of the pairs.
        margin: above 0, the largest difference that does not matter, in the unit of the values.

    >>> test = paired_t_test([0.740, 0.711, 0.752], [0.741, 0.710, 0.750])
    >>> pairs = test.difference.mean, test.standard_error, test.difference.count
    >>> round(equivalence_p(*pairs, 0.01), 4), round(equivalence_p(*pairs, 0.001), 2)
    (0.0044, 0.37)
    """
    from scipy.special import stdtr

    require(margin > 0, f"the margin is {margin:g}: give one above 0")
    return float(stdtr(count - 1, (abs(mean) - margin) / standard_error))


def pairs_to_decide(test: PairedTest, margin: float | None, num_tests: int = 1) -> int | None:
    """How many pairs would show a difference, or that it lies within the margin, with 80 % probability; None: over 1,000.

    It takes the true difference and its spread to be as in these pairs, of which few pairs know little.

    >>> pairs_to_decide(paired_t_test([0.740, 0.711, 0.752], [0.735, 0.712, 0.745]), margin=0.01)
    5
    """
    from scipy.special import stdtr

    mean, std = abs(test.difference.mean), test.standard_error * math.sqrt(test.difference.count)
    alpha, count = ALPHA / num_tests, max(3, test.difference.count + 1)
    while count <= MAX_PLANNED_PAIRS:
        df, root = count - 1, math.sqrt(count) / std
        if mean * root >= detectable_noncentrality(df, alpha):
            return count
        if margin is not None:
            critical = t_ppf(1 - alpha, df)
            sides = [float(stdtr(df, (margin + sign * mean) * root - critical)) for sign in (1, -1)]
            if sum(sides) - 1 >= POWER:
                return count
        count += max(1, count // 20)
    return None


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1 in the denominator); that of one value is 0."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1))


def t_interval(mean: float, std: float, count: int, confidence: float) -> Interval:
    """Student's t-interval of a mean, from the mean and the standard deviation of `count` values."""
    half_width = t_ppf((1 + confidence) / 2, count - 1) * std / math.sqrt(count) if count > 1 else 0.0
    return Interval(mean, mean - half_width, mean + half_width, count)


@cache
def t_ppf(probability: float, df: int) -> float:
    """The quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def two_sided_p(t: float, df: int) -> float:
    """The two-sided p-value of a t statistic: how often |t| is at least this large by chance alone."""
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(t)))


@cache
def hedges_correction(df: int) -> float:
    """The factor that corrects a standardized difference for its bias: from few values it is too large on average."""
    from scipy.special import gammaln

    return float(math.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / math.sqrt(df / 2))


@cache
def detectable_noncentrality(df: int, alpha: float) -> float:
    """How many standard errors the true mean must be from 0 for a two-sided t-test to reject with 80 % probability.

    Rejections in the opposite tail, fewer than one in a million there, are neglected.
    """
    from scipy.optimize import brentq
    from scipy.special import nctdtr

    critical = t_ppf(1 - alpha / 2, df)

    def missing_power(shift: float) -> float:
        return 1 - float(nctdtr(df, shift, critical)) - POWER

    return float(cast(float, brentq(missing_power, 0, 3 * critical + 5)))


def mcnemar(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's exact test: how often counts this uneven arise by chance.

    The counts are of pairs in which only the first, or only the second, succeeds (McNemar 1947, Psychometrika 12).
    Two-sided; 1 where no pair differs.

    >>> mcnemar(5, 0), mcnemar(0, 0)
    (0.0625, 1.0)
    """
    from scipy.special import bdtr

    count = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), count, 0.5))) if count else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple testing: to reject where they are at most 0.05 keeps the family-wise error at 5 %.

    Holm's step-down method (1979, Scand. J. Stat. 6), valid for any dependence between the tests.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def selection_bias(accuracies: Sequence[float], num_images: int, *, num_resamples: int = 4000, seed: int = 0) -> float:
    """Selection bias (winner's curse): by how much the best of several accuracies is expected to exceed its true value.

    Parametric bootstrap: each accuracy is taken as a true value, numbers of correct images are drawn around it
    binomially, and the best of each draw is compared with its true value. But the accuracies taken as true are spread
    by chance already, and the draws by chance once more: the best stands out by errors sqrt(2) times as large, of which
    the draws show only their own part. For runs that are equally good, the case of the largest bias, this is too small
    by a factor of sqrt(2), by which it is multiplied. So the estimate is right on average for equal runs, and an upper
    bound for others.

    It takes the errors to be independent. Runs of one seed share their validation images, and images that are hard for
    one are hard for the others: the bias is then smaller. Each run's choice of its best epoch, which adds to the bias,
    is not included.

    Args:
        accuracies: in [0, 1], of the runs among which the best is selected.
        num_images: how many images each was measured on.
        num_resamples: the number of bootstrap draws.
        seed: of the draws.

    Raises LabError if there are no accuracies or no images.

    >>> selection_bias([0.7], 1000), selection_bias([0.9, 0.1], 1000) < 0.001
    (0.0, True)
    >>> round(selection_bias([0.7, 0.715, 0.685, 0.7], 1000), 3)
    0.015
    """
    import torch

    from convolab.core.rng import make_generator

    require(accuracies and num_images > 0, "no accuracies, or accuracies of no images: give at least one of each")
    if len(accuracies) == 1:
        return 0.0
    truths = torch.tensor(accuracies, dtype=torch.float64).expand(num_resamples, -1).contiguous()  # [resamples, runs]
    counts = torch.full_like(truths, num_images)
    resampled = torch.binomial(counts, truths, generator=make_generator(seed, "inflation")) / num_images
    errors = resampled - resampled.mean(0)  # from the draws' own mean: a run that always wins has a bias of exactly 0
    best = resampled.argmax(1, keepdim=True)
    return max(0.0, math.sqrt(2) * float(errors.gather(1, best).mean()))
