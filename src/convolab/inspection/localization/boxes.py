"""From a map to boxes: where it is above a share of its largest value, and how well that fits a thing's own box."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

PixelBox = tuple[int, int, int, int]  # left, top, right, bottom: from the border of the first pixel to that of the last


@dataclass(frozen=True)
class Region:
    """A connected part of a map above a threshold."""

    box: PixelBox
    peak: float  # the map's largest value in it
    peak_position: tuple[int, int]  # where that is: row, column


def threshold_regions(heatmap: Float[Tensor, "h w"], threshold: float) -> list[Region]:
    """The connected parts of a map that reach `threshold` times its largest value, the strongest first.

    Pixels that touch by a corner are connected. A map that is constant, not finite or nowhere positive has none.

    >>> import torch
    >>> [region.corners for region in regions(torch.tensor([[9.0, 8.0, 0.0, 5.0]]), 0.5)]
    [(0, 0, 2, 1), (3, 0, 4, 1)]
    """
    from scipy import ndimage  # 0.1 s to import, and most lenses have no boxes

    values = heatmap.numpy()
    top = float(values.max())
    if not np.isfinite(values).all() or top <= 0 or top == float(values.min()):
        return []
    labels, count = ndimage.label(values >= threshold * top, structure=np.ones((3, 3)))
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels, count), start=1):
        inside = np.where(labels[rows, columns] == number, values[rows, columns], -np.inf)
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        corners = (columns.start, rows.start, columns.stop, rows.stop)
        found.append(Region(corners, float(inside.max()), (int(row) + rows.start, int(column) + columns.start)))
    return sorted(found, key=lambda region: -region.peak)


def iou(a: Sequence[float | int], b: Sequence[float | int]) -> float:
    """The intersection of two boxes over their union.

    >>> overlap((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return intersection / (areas - intersection) if intersection else 0.0
