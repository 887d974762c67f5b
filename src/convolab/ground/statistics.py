"""Intervals that go with every number."""


def wilson_interval(correct: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share, e.g. of pictures classified correctly (Wilson 1927, JASA 22).

    >>> low, high = wilson_interval(70, 100)
    >>> round(low, 4), round(high, 4)
    (0.6042, 0.7811)
    """
    from scipy.stats import binomtest  # scipy.stats takes 0.5 s to import, and most commands draw no interval

    interval = binomtest(correct, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
