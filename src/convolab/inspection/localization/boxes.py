"""From a map to boxes: its connected regions above a fraction of its largest value; and the IoU of two boxes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from convolab.data.annotations import BoundingBox
from convolab.inspection.result import map_invalid_reason


@dataclass(frozen=True)
class Region:
    """A connected part of a map above a threshold."""

    box: BoundingBox  # whole pixels, from the border of the first pixel to that of the last
    peak: float  # the map's largest value in it
    peak_position: tuple[int, int]  # row and column of the peak


def threshold_regions(heatmap: Float[Tensor, "h w"], threshold: float) -> list[Region]:
    """The connected parts of a map that reach `threshold` times its largest value, the strongest first.

    Pixels that touch by a corner are connected. A map that is constant, not finite or nowhere positive has none.

    >>> import torch
    >>> [region.box for region in threshold_regions(torch.tensor([[9.0, 8.0, 0.0, 5.0]]), 0.5)]
    [(0, 0, 2, 1), (3, 0, 4, 1)]
    """
    from scipy import ndimage  # 0.1 s to import, and most inspections have no boxes

    values = heatmap.numpy()
    top = float(values.max())
    if map_invalid_reason(heatmap) or top <= 0:
        return []
    labels = np.empty(values.shape, dtype=np.int32)
    ndimage.label(values >= threshold * top, structure=np.ones((3, 3)), output=labels)
    regions = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = np.where(labels[rows, columns] == label, values[rows, columns], -np.inf)
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        box = (columns.start, rows.start, columns.stop, rows.stop)
        regions.append(Region(box, float(inside.max()), (int(row) + rows.start, int(column) + columns.start)))
    return sorted(regions, key=lambda region: -region.peak)


def iou(a: BoundingBox, b: BoundingBox) -> float:
    """The intersection of two boxes over their union.

    >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return intersection / (areas - intersection) if intersection else 0.0
