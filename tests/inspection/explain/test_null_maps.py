"""What maps are compared with: rank correlation, random maps of the same smoothness, edges."""

import pytest
import torch
from scipy.stats import spearmanr
from support.heatmaps import heat

from convolab.inspection.explain import null_maps


def test_the_correlation_is_spearmans_of_absolute_values_with_ties_too() -> None:
    for first, second in ((heat(0), heat(1)), (heat(0).clamp(min=0), heat(0).round()), (heat(2), -heat(2))):
        theirs = spearmanr(first.abs().flatten(), second.abs().flatten()).statistic
        assert null_maps.rank_correlation(first, second) == pytest.approx(theirs, abs=1e-12)


def test_a_constant_map_and_one_that_is_not_finite_have_no_correlation() -> None:
    for bad in (torch.zeros(8, 9), heat().fill_(float("nan"))):
        assert null_maps.rank_correlation(heat(), bad) is None


def test_maps_that_are_smoother_are_more_alike_by_chance() -> None:
    rough, smooth = (
        heat(0, 32, 32),
        torch.nn.functional.interpolate(heat(0, 4, 4)[None, None], (32, 32), mode="bilinear")[0, 0],
    )
    chance = [
        max(abs(null_maps.rank_correlation(m, null_maps.phase_randomized(m, 0, i))) for i in range(20))
        for m in (rough, smooth)
    ]
    assert chance[1] > 3 * chance[0]
    spectrum = [
        torch.fft.rfft2(m.abs().double()).abs()[1:, 1:] for m in (smooth, null_maps.phase_randomized(smooth, 0, 3))
    ]
    assert null_maps.rank_correlation(*spectrum) > 0.95
