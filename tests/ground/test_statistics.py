from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest

from convolab.ground.statistics import wilson_interval

CASES = [(70, 100), (0, 10), (10, 10), (1, 3), (9_235, 10_000), (50, 101)]


@pytest.mark.parametrize(("correct", "count"), CASES)
@pytest.mark.parametrize("confidence", [0.68, 0.95, 0.99])
def test_wilson_interval_is_wilsons_formula(correct: int, count: int, confidence: float) -> None:
    z, p = NormalDist().inv_cdf((1 + confidence) / 2), correct / count
    centre = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    assert wilson_interval(correct, count, confidence) == pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize(("correct", "count"), CASES)
def test_wilson_interval_holds_the_shares_whose_score_test_does_not_reject(correct: int, count: int) -> None:
    shares = np.linspace(0, 1, 1_000_001)
    z = NormalDist().inv_cdf(0.975)
    kept = shares[np.abs(correct / count - shares) <= z * np.sqrt(shares * (1 - shares) / count)]
    assert wilson_interval(correct, count) == pytest.approx((kept[0], kept[-1]), abs=2e-6)


def test_wilson_interval_covers_the_truth_as_often_as_it_says() -> None:
    counts = np.random.default_rng(0).binomial(100, 0.7, 20_000)
    intervals = {int(correct): wilson_interval(int(correct), 100) for correct in np.unique(counts)}
    covered = np.mean([intervals[correct][0] <= 0.7 <= intervals[correct][1] for correct in counts.tolist()])
    assert 0.93 < covered < 0.97
