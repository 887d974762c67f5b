"""Calibration, beside a plain computation of its own, and how often its interval and level are right."""

import numpy as np
import pytest
import torch

from convolab.core.stats import wilson_interval
from convolab.training.calibration import measure_calibration


def plain_ece(confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15) -> float:
    """Guo et al. 2017, section 2: bins ((m - 1) / M, m / M], weighted by their images."""
    error = 0.0
    for m in range(1, num_bins + 1):
        inside = (confidences > (m - 1) / num_bins) & (confidences <= m / num_bins)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    return error


def drawn(seed: int, count: int, over: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidences from 0.1 to 1, and images that are right `over` times as often."""
    generator = torch.Generator().manual_seed(seed)
    confidences = torch.rand(count, generator=generator, dtype=torch.float64).sqrt() * 0.9 + 0.1
    return confidences, torch.rand(count, generator=generator) < over * confidences


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_calibration_error_is_that_of_the_definition(seed: int) -> None:
    confidences, correct = drawn(seed, 300, 0.8)
    calibration = measure_calibration(confidences, correct)
    assert calibration.ece == pytest.approx(plain_ece(confidences.numpy(), correct.numpy()), abs=1e-12)
    assert sum(part.count for part in calibration.bins) == 300
    for part in calibration.bins:
        inside = (confidences > part.low) & (confidences <= part.high)
        assert part.count == int(inside.sum())
        assert part.accuracy == pytest.approx(float(correct[inside].double().mean()))
        assert part.interval == wilson_interval(int(correct[inside].sum()), part.count)


@pytest.mark.slow
def test_a_confidence_on_the_edge_of_two_bins_is_in_the_lower_one() -> None:
    calibration = measure_calibration(torch.tensor([1 / 15, 1.0], dtype=torch.float64), torch.tensor([True, True]))
    assert [(part.low, part.count) for part in calibration.bins] == [(0.0, 1), (14 / 15, 1)]


@pytest.mark.slow
def test_the_same_images_give_the_same_interval() -> None:
    assert measure_calibration(*drawn(0, 100)) == measure_calibration(*drawn(0, 100))


@pytest.mark.long
def test_the_level_of_chance_is_passed_once_in_twenty_by_a_calibrated_network_and_the_interval_covers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("convolab.training.calibration.NUM_RESAMPLES", 200)
    calibrated = [measure_calibration(*drawn(seed, 500)) for seed in range(100)]
    # 100 draws at 5 %: more than 13 have a probability below 1 in 1,000
    assert sum(c.ece > c.chance_level for c in calibrated) <= 13
    true_ece = 0.07  # a tenth of the mean confidence, 0.1 + 0.9 * 2 / 3
    over = [measure_calibration(*drawn(seed, 500, 0.9)) for seed in range(100)]
    assert sum(c.interval[0] <= true_ece <= c.interval[1] for c in over) >= 90
    assert sum(c.ece > c.chance_level for c in over) >= 70


@pytest.mark.slow
def test_where_all_images_are_as_sure_the_interval_and_the_level_are_those_of_a_proportion() -> None:
    confidences = torch.full((400,), 0.9, dtype=torch.float64)
    calibration = measure_calibration(confidences, torch.arange(400) < 240)
    half_width = 1.96 * (0.6 * 0.4 / 400) ** 0.5  # no wider than needed: the error of one bin is that of its accuracy
    assert calibration.interval == pytest.approx((0.3 - half_width, 0.3 + half_width), abs=0.1 * half_width)
    assert calibration.chance_level == pytest.approx(1.96 * (0.9 * 0.1 / 400) ** 0.5, rel=0.1)


@pytest.mark.slow
def test_a_calibrated_network_passes_the_level_about_once_in_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convolab.training.calibration.NUM_RESAMPLES", 40)
    calibrated = [measure_calibration(*drawn(seed, 100)) for seed in range(200)]
    # 200 draws at 5 %: fewer than 2 and more than 22 have probabilities below 1 in 1,000
    assert 2 <= sum(c.ece > c.chance_level for c in calibrated) <= 22
