"""Null maps: rank correlation, random maps with the same spectrum, edges."""

import numpy as np
import pytest
import torch
from scipy.ndimage import sobel
from scipy.stats import spearmanr
from support.heatmaps import random_heatmap

from convolab.inspection.explain import null_maps


def test_the_correlation_is_that_of_spearman_of_absolute_values_also_with_ties() -> None:
    for first, second in (
        (random_heatmap(0), random_heatmap(1)),
        (random_heatmap(0).clamp(min=0), random_heatmap(0).round()),
        (random_heatmap(2), -random_heatmap(2)),
    ):
        expected = spearmanr(first.abs().flatten(), second.abs().flatten()).statistic
        assert null_maps.rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)


def test_a_constant_and_a_nonfinite_map_have_no_correlation() -> None:
    for invalid in (torch.zeros(8, 9), random_heatmap().fill_(float("nan"))):
        assert null_maps.rank_correlation(random_heatmap(), invalid) is None


def test_smoother_maps_have_higher_correlations_by_chance() -> None:
    rough, smooth = (
        random_heatmap(0, 32, 32),
        torch.nn.functional.interpolate(random_heatmap(0, 4, 4)[None, None], (32, 32), mode="bilinear")[0, 0],
    )
    correlations = [
        max(abs(null_maps.rank_correlation(m, null_maps.phase_randomized(m, 0, i))) for i in range(20))
        for m in (rough, smooth)
    ]
    assert correlations[1] > 3 * correlations[0]
    spectrum = [
        torch.fft.rfft2(m.abs().double()).abs()[1:, 1:] for m in (smooth, null_maps.phase_randomized(smooth, 0, 3))
    ]
    assert null_maps.rank_correlation(*spectrum) > 0.95


def test_maps_in_bfloat16_which_numpy_does_not_have_are_correlated() -> None:
    first, second = random_heatmap(0).bfloat16(), random_heatmap(1).bfloat16()
    expected = spearmanr(first.float().abs().flatten(), second.float().abs().flatten()).statistic
    assert null_maps.rank_correlation(first, second) == pytest.approx(expected, abs=1e-12)


def test_edges_are_those_of_scipys_sobel_operator_averaged_to_the_size_of_a_map() -> None:
    pixels = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    gray = pixels[0].double().mean(0).numpy()
    expected = np.hypot(sobel(gray, axis=0, mode="nearest"), sobel(gray, axis=1, mode="nearest"))
    assert np.allclose(null_maps.sobel_edges(pixels, torch.zeros(20, 30)).numpy(), expected, atol=1e-5)
    averaged = expected.reshape(5, 4, 6, 5).mean((1, 3))
    assert np.allclose(null_maps.sobel_edges(pixels, torch.zeros(5, 6)).numpy(), averaged, atol=1e-5)
