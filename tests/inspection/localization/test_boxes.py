"""From maps to boxes."""

import pytest
import torch

from convolab.inspection.localization.boxes import iou, threshold_regions


def blob(*places: tuple[int, int, int, int, float]) -> torch.Tensor:
    heat = torch.zeros(40, 60)
    for left, top, right, bottom, value in places:
        heat[top:bottom, left:right] = value
    return heat


def test_every_region_above_the_threshold_is_boxed_exactly_the_strongest_first() -> None:
    found = threshold_regions(blob((2, 3, 10, 8, 4.0), (20, 10, 50, 40, 10.0), (0, 20, 5, 25, 1.9)), 0.2)
    assert [region.box for region in found] == [(20, 10, 50, 40), (2, 3, 10, 8)]
    assert [region.peak for region in found] == [10.0, 4.0]
    assert found[1].peak_position == (3, 2)


def test_regions_that_touch_by_a_corner_are_one() -> None:
    assert len(threshold_regions(blob((0, 0, 10, 10, 1.0), (10, 10, 20, 20, 1.0)), 0.5)) == 1
    assert len(threshold_regions(blob((0, 0, 10, 10, 1.0), (11, 11, 20, 20, 1.0)), 0.5)) == 2


@pytest.mark.parametrize(
    "heat", [torch.zeros(4, 4), torch.full((4, 4), 3.0), torch.full((4, 4), float("nan")), -torch.rand(4, 4) - 1]
)
def test_a_map_without_information_has_no_box(heat: torch.Tensor) -> None:
    assert threshold_regions(heat, 0.5) == []


def test_a_peak_is_that_of_its_own_region_also_where_boxes_overlap() -> None:
    heat = blob((0, 0, 30, 2, 5.0), (0, 0, 2, 30, 5.0))  # an L, whose box holds the other region
    heat[20:25, 10:15] = 9.0
    strongest, other = threshold_regions(heat, 0.3)
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
