"""How well one map fits the boxes of an object: pointing game, energy in the box, intersection over union.

Pointing game: Zhang et al. 2016 (arXiv:1608.00507). Energy: Wang et al. 2020 (arXiv:1910.01279).
"""

from collections.abc import Sequence

import torch

from convolab.data.annotations import BoundingBox
from convolab.inspection.localization.boxes import iou, threshold_regions
from convolab.inspection.result import map_invalid_reason
from convolab.inspection.types import Heatmap

POINTING_TOLERANCE = 15.0  # pixels that a point may lie beside the box on a photo (of about 500 x 400), as in the paper
BOX_THRESHOLDS = tuple(round(0.1 * i, 1) for i in range(1, 10))
IOU_LEVELS = (0.3, 0.5, 0.7)


def pointing_game_hit(heatmap: Heatmap, boxes: Sequence[BoundingBox], tolerance: float = POINTING_TOLERANCE) -> bool:
    """Whether a map's largest value lies in a box, or within `tolerance` pixels of one.

    A map that is constant or not finite never hits.

    >>> heatmap = torch.zeros(50, 50)
    >>> heatmap[10, 30] = 1.0
    >>> pointing_game_hit(heatmap, [(0, 0, 16, 50)]), pointing_game_hit(heatmap, [(0, 0, 10, 50)])
    (True, False)
    """
    if map_invalid_reason(heatmap):
        return False
    row, column = divmod(int(heatmap.argmax()), heatmap.shape[1])
    distances = []
    for left, top, right, bottom in boxes:
        across = max(left - column, column - (right - 1), 0)
        down = max(top - row, row - (bottom - 1), 0)
        distances.append((across * across + down * down) ** 0.5)
    return min(distances) <= tolerance


def energy_pointing_game(heatmap: Heatmap, boxes: Sequence[BoundingBox]) -> float:
    """The fraction of a map's positive values that lies in the boxes; 0 for a map without any.

    >>> energy_pointing_game(torch.tensor([[3.0, 1.0, -5.0]]), [(0, 0, 1, 1)])
    0.75
    """
    if map_invalid_reason(heatmap):
        return 0.0
    inside = torch.zeros_like(heatmap, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        inside[max(0, round(top)) : max(0, round(bottom)), max(0, round(left)) : max(0, round(right))] = True
    positive = heatmap.clamp(min=0).double()
    total = float(positive.sum())
    return float(positive[inside].sum()) / total if total > 0 else 0.0


def ious_by_threshold(heatmap: Heatmap, boxes: Sequence[BoundingBox]) -> tuple[float, ...]:
    """For each of BOX_THRESHOLDS, the best IoU of the box around the map's strongest region; 0 without a region."""
    ious = []
    for threshold in BOX_THRESHOLDS:
        strongest = threshold_regions(heatmap, threshold)[:1]
        ious.append(max((iou(region.box, box) for region in strongest for box in boxes), default=0.0))
    return tuple(ious)
