"""Boxes around the regions of a heatmap."""

import pytest
import torch

from convolab.inspection.localization.boxes import iou, threshold_regions


def heatmap_with(*rectangles: tuple[int, int, int, int, float]) -> torch.Tensor:
    heatmap = torch.zeros(40, 60)
    for left, top, right, bottom, value in rectangles:
        heatmap[top:bottom, left:right] = value
    return heatmap


def test_every_region_above_the_threshold_has_a_tight_box_the_strongest_first() -> None:
    regions = threshold_regions(heatmap_with((2, 3, 10, 8, 4.0), (20, 10, 50, 40, 10.0), (0, 20, 5, 25, 1.9)), 0.2)
    assert [region.box for region in regions] == [(20, 10, 50, 40), (2, 3, 10, 8)]
    assert [region.peak for region in regions] == [10.0, 4.0]
    assert regions[1].peak_position == (3, 2)


def test_regions_that_touch_by_a_corner_are_one() -> None:
    assert len(threshold_regions(heatmap_with((0, 0, 10, 10, 1.0), (10, 10, 20, 20, 1.0)), 0.5)) == 1
    assert len(threshold_regions(heatmap_with((0, 0, 10, 10, 1.0), (11, 11, 20, 20, 1.0)), 0.5)) == 2


@pytest.mark.parametrize(
    "heatmap", [torch.zeros(4, 4), torch.full((4, 4), 3.0), torch.full((4, 4), float("nan")), -torch.rand(4, 4) - 1]
)
def test_a_map_without_information_has_no_box(heatmap: torch.Tensor) -> None:
    assert threshold_regions(heatmap, 0.5) == []


def test_a_peak_is_that_of_its_own_region_even_if_boxes_overlap() -> None:
    heatmap = heatmap_with((0, 0, 30, 2, 5.0), (0, 0, 2, 30, 5.0))  # an L, whose box contains the other region
    heatmap[20:25, 10:15] = 9.0
    strongest, other = threshold_regions(heatmap, 0.3)
    assert strongest.box == (10, 20, 15, 25)
    assert (other.box, other.peak) == ((0, 0, 30, 30), 5.0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 4, 4), (0, 0, 4, 4), 1),
        ((0, 0, 4, 4), (4, 0, 8, 4), 0),
        ((0, 0, 4, 4), (9, 9, 10, 10), 0),
        ((0, 0, 4, 4), (0, 0, 2, 4), 0.5),
    ],
)
def test_iou_is_intersection_over_union(a: tuple, b: tuple, expected: float) -> None:
    assert iou(a, b) == expected
    assert iou(b, a) == expected
