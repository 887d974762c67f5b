"""Metrics of localization for maps with a known result."""

import pytest
import torch
from torch import Tensor

from convolab.inspection.localization.metrics import (
    BOX_THRESHOLDS,
    POINTING_TOLERANCE,
    energy_pointing_game,
    ious_by_threshold,
    pointing_game_hit,
)


def heatmap_with_peak(row: int, column: int) -> Tensor:
    heatmap = torch.zeros(100, 100)
    heatmap[row, column] = 1.0
    return heatmap


@pytest.mark.parametrize(
    ("row", "column", "hit"),
    [
        (30, 30, True),
        (20, 40, True),
        (50, 64, True),
        (50, 65, False),
        (60, 60, True),
        (62, 62, False),
        (15, 35, True),
        (4, 35, False),
    ],
)
def test_a_point_counts_in_the_box_or_within_15_pixels_of_it(row: int, column: int, hit: bool) -> None:
    assert pointing_game_hit(heatmap_with_peak(row, column), [(20, 20, 50, 51)]) is hit
    assert POINTING_TOLERANCE == 15


def test_a_small_image_has_a_small_tolerance() -> None:
    assert pointing_game_hit(heatmap_with_peak(50, 53), [(20, 20, 50, 51)], 5.0)
    assert not pointing_game_hit(heatmap_with_peak(50, 56), [(20, 20, 50, 51)], 5.0)


@pytest.mark.parametrize("heatmap", [torch.zeros(9, 9), torch.full((9, 9), 5.0), torch.full((9, 9), float("nan"))])
def test_a_map_without_information_is_a_miss_even_if_its_first_pixel_is_in_the_box(heatmap: Tensor) -> None:
    assert not pointing_game_hit(heatmap, [(0, 0, 9, 9)])
    assert energy_pointing_game(heatmap, [(0, 0, 9, 9)]) == 0
    assert set(ious_by_threshold(heatmap, [(0, 0, 9, 9)])) == {0}


def test_energy_is_the_fraction_of_positive_values_inside_and_overlapping_boxes_count_once() -> None:
    heatmap = torch.full((10, 10), -1.0)
    heatmap[:, :4] = 2.0
    assert energy_pointing_game(heatmap, [(0, 0, 2, 10)]) == pytest.approx(0.5)
    assert energy_pointing_game(heatmap, [(0, 0, 2, 10), (1, 0, 2, 10)]) == pytest.approx(0.5)
    assert energy_pointing_game(heatmap, [(0, 0, 9, 10)]) == pytest.approx(1)


def test_iou_is_of_the_strongest_region_with_the_best_of_the_boxes_at_every_threshold() -> None:
    heatmap = torch.zeros(40, 40)
    heatmap[0:10, 0:10] = 1.0
    heatmap[0:20, 20:40] = 0.55
    ious = dict(zip(BOX_THRESHOLDS, ious_by_threshold(heatmap, [(0, 0, 10, 10), (20, 0, 40, 20)]), strict=True))
    assert ious[0.6] == 1
    assert ious_by_threshold(heatmap, [(20, 0, 40, 20)])[BOX_THRESHOLDS.index(0.3)] == 0


def test_a_box_that_begins_outside_the_image_has_the_energy_of_its_part_inside() -> None:
    heatmap = torch.rand(60, 80)
    inside = energy_pointing_game(heatmap, [(0, 40, 30, 60)])
    assert 0 < inside == energy_pointing_game(heatmap, [(-5, 40, 30, 75)])
