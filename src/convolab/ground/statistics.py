"""Intervals that go with every number."""

from dataclasses import dataclass


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
class Paired:
    """A paired comparison: the differences' mean with its t-interval, and how sure it is that they are not 0 on average."""

    difference: Interval
    p: float  # two-sided, of the paired t-test
    effect: float  # the mean difference in standard deviations of the differences, corrected for few pairs (Hedges' g)
    smallest: float  # the smallest difference that so many pairs of this spread would show with 80 % probability
