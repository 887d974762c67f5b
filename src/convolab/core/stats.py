"""Intervals that go with every number, and tests that go with every comparison."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from convolab.core.errors import require

ALPHA = 0.05  # of a two-sided test: how often it may see a difference where there is none
POWER = 0.8  # how often a difference should be seen that is there


def wilson_interval(correct: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share, e.g. of pictures classified correctly (Wilson 1927, JASA 22).

    >>> low, high = wilson_interval(70, 100)
    >>> round(low, 4), round(high, 4)
    (0.6042, 0.7811)
    """
    from scipy.stats import binomtest  # scipy.stats takes 0.5 s to import, and most commands draw no interval

    interval = binomtest(correct, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class PairedTest:
    """A paired comparison: the differences' mean with its t-interval, and how sure it is that they are not 0 on average."""

    difference: Interval
    p: float  # two-sided, of the paired t-test
    hedges_g: (
        float  # the mean difference in standard deviations of the differences, corrected for few pairs (Hedges' g)
    )
    minimum_detectable_effect: (
        float  # the smallest difference that so many pairs of this spread would show with 80 % probability
    )


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of some values with Student's t-interval; of one value no width is known, and the interval has none.

    Raises LabError if there is no value.

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
    """Compare values that belong together in pairs, such as two arms' with the same seeds: `first` less `second`.

    The t-test of the differences (Student 1908, Biometrika 6), which is exact if they are normal, however few they are.

    `resolution` is the step in which the values come, such as 1 for whole epochs. Rounding to it has a standard deviation of
    1/sqrt(12) steps, so the difference of two such values is never taken to spread less than sqrt(2/12) steps: else three
    pairs that happen to differ by the same whole number would be infinitely sure. Where there is neither resolution nor
    spread nothing can be judged: None, as for fewer than two pairs.

    `tests` is the number of comparisons that share the 5 %; `smallest` is what one must be, alone among them, to be seen.
    The effect is the exact one of Hedges 1981 (J. Educ. Stat. 6), which is 0 for two pairs: they tell nothing about it.

    >>> answer = paired([0.74, 0.71, 0.75], [0.70, 0.69, 0.70])
    >>> round(answer.difference.mean, 4), round(answer.p, 3), round(answer.smallest, 3)
    (0.0367, 0.053, 0.05)
    >>> paired([4.0, 5.0, 4.0], [2.0, 3.0, 2.0]) is None, round(paired([4.0, 5.0, 4.0], [2.0, 3.0, 2.0], resolution=1.0).p, 4)
    (True, 0.0136)
    """
    require(len(first) == len(second), f"{len(first)} and {len(second)} values make no pairs: give the same number")
    if len(first) < 2:
        return None
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, std = mean_std(differences)
    if std < 1e-9 * max(
        abs(value) for value in (*first, *second)
    ):  # equal differences, but for the rounding of their floats
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
    )


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1 in the denominator); one value spreads by 0."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1))


def t_interval(mean: float, std: float, count: int, confidence: float) -> Interval:
    half_width = t_ppf((1 + confidence) / 2, count - 1) * std / math.sqrt(count) if count > 1 else 0.0
    return Interval(mean, mean - half_width, mean + half_width, count)


@cache
def t_ppf(probability: float, df: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))


def two_sided_p(t: float, df: int) -> float:
    """How often |t| is at least this large by chance alone."""
    from scipy.special import stdtr  # scipy.stats.t.sf is the same function at fifty times the time a call

    return float(2 * stdtr(df, -abs(t)))


@cache
def hedges_correction(df: int) -> float:
    """By what to multiply a standardised difference, which is too large on average when there are few values."""
    from scipy.special import gammaln

    return float(math.exp(gammaln(df / 2) - gammaln((df - 1) / 2)) / math.sqrt(df / 2))


@cache
def detectable_noncentrality(df: int, alpha: float) -> float:
    """How many standard errors the true mean must be from 0 for a two-sided t-test to reject with 80 % probability.

    The other side's rejections, fewer than one in a million there, are left out.
    """
    from scipy.optimize import brentq
    from scipy.stats import nct

    critical = t_ppf(1 - alpha / 2, df)
    return float(brentq(lambda shift: nct.sf(critical, df, shift) - POWER, 0, 3 * critical + 5))


def mcnemar(only_first: int, only_second: int) -> float:
    """How often so uneven counts come by chance alone: of pairs that differ, in how many the first and the second succeeds.

    McNemar's test (1947, Psychometrika 12) in its exact form, two-sided; 1 where no pair differs.

    >>> mcnemar(5, 0), mcnemar(0, 0)
    (0.0625, 1.0)
    """
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several: to take those up to 0.05 errs anywhere among them at most 5 times in 100.

    Holm's step-down method (1979, Scand. J. Stat. 6), valid however the tests depend on each other.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def selection_bias(accuracies: Sequence[float], num_images: int, *, num_resamples: int = 4000, seed: int = 0) -> float:
    """By how much the best of several accuracies, each measured on `count` pictures, is expected to lie above its own truth.

    Parametric bootstrap: every accuracy is taken as a truth, numbers of correct pictures are drawn around it binomially, and
    the best of each draw is set against its truth. But the accuracies taken as truths are spread by chance already, and the
    draws by chance once more: the best stands out by errors sqrt(2) times as large, of which only the drawn half shows. Where
    the runs are truly equally good, the case of the largest inflation, this is short by sqrt(2), hence the factor. With it the
    figure is right on average for equal runs, and an upper estimate for others.

    It takes the errors as independent. Runs of one seed share their validation pictures, and pictures hard for one are hard
    for the others: the truth is then less. It knows nothing of each run's own choice of its best epoch, which flatters too.

    >>> inflation([0.7], 1000), inflation([0.9, 0.1], 1000) < 0.001
    (0.0, True)
    >>> round(inflation([0.7, 0.715, 0.685, 0.7], 1000), 3)
    0.015
    """
    import torch

    from convolab.core.rng import make_generator

    require(accuracies and num_images > 0, "no accuracies, or of no pictures: there is no best to judge")
    if len(accuracies) == 1:
        return 0.0
    truths = torch.tensor(accuracies, dtype=torch.float64).expand(num_resamples, -1).contiguous()  # [draws, runs]
    resampled = (
        torch.binomial(torch.full_like(truths, num_images), truths, generator=make_generator(seed, "inflation"))
        / num_images
    )
    errors = resampled - resampled.mean(
        0
    )  # from the draws' own mean, so that a run that always wins is flattered by exactly nothing
    best = resampled.argmax(1, keepdim=True)
    return max(0.0, math.sqrt(2) * float(errors.gather(1, best).mean()))
