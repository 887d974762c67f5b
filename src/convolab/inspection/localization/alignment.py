"""How the cells of a response map to the pixels of an image: by receptive-field centers, by resizing, or measured.

A receptive-field center is the middle of all pixels that a cell can depend on. A trained cell's effective receptive
field need not be centered there: with padding on one side, as TensorFlow pads, networks learn to be centered on the
image nevertheless. `erf_offset` measures the difference.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import LabError, require, suggest
from convolab.inspection.localization.dense import FullyConvolutional, Granularity

AlignmentKind = Literal["erf", "rf-center", "resize"]
ALIGNMENT_KINDS: tuple[AlignmentKind, ...] = get_args(AlignmentKind)
RETIRED_KINDS = {"effective": "erf", "geometric": "rf-center", "stretched": "resize"}  # words of the first edition


@dataclass(frozen=True)
class Alignment:
    """Cell (i, j) lies at start + (i, j) * stride: rows, columns, in pixels, whose centers are whole numbers."""

    kind: AlignmentKind
    start: tuple[float, float]
    stride: tuple[float, float]

    def upsample_to_image(self, response: Float[Tensor, "rows columns"], size: tuple[int, int]) -> Float[Tensor, "h w"]:
        """A response at every pixel of an image, linear between its cells and constant beyond them.

        >>> Alignment("rf-center", (0.0, 1.0), (1.0, 2.0)).upsample_to_image(torch.tensor([[0.0, 8.0]]), (1, 5))
        tensor([[0., 0., 4., 8., 8.]])
        """
        coordinates = []  # of rows, of columns: from -1 at the center of the first cell to 1 at that of the last
        for axis, cells in enumerate(response.shape):
            index = (torch.arange(size[axis], dtype=torch.float64) - self.start[axis]) / self.stride[axis]
            coordinates.append(2 * index / max(cells - 1, 1) - 1)
        grid = torch.stack([coordinates[1].expand(size[0], -1), coordinates[0][:, None].expand(-1, size[1])], dim=-1)
        upsampled = F.grid_sample(
            response[None, None].double(), grid[None], mode="bilinear", padding_mode="border", align_corners=True
        )
        return upsampled[0, 0].float()

    def scaled(self, factor: tuple[float, float]) -> "Alignment":
        """The same positions on an image `factor` times as large: the pixels' borders, not their centers, scale."""
        start = (self.start[0] + 0.5) * factor[0] - 0.5, (self.start[1] + 0.5) * factor[1] - 0.5
        return Alignment(self.kind, start, (self.stride[0] * factor[0], self.stride[1] * factor[1]))

    def shifted(self, offset: tuple[float, float], kind: AlignmentKind) -> "Alignment":
        """The cells moved by `offset` pixels."""
        return Alignment(kind, (self.start[0] + offset[0], self.start[1] + offset[1]), self.stride)

    def cell_borders(self, cells: tuple[int, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The lines between neighboring cells: rows, columns, as borders of pixels."""

        def borders(axis: int) -> tuple[float, ...]:
            return tuple(self.start[axis] + (i + 0.5) * self.stride[axis] + 0.5 for i in range(cells[axis] - 1))

        return borders(0), borders(1)


def parse_alignment(word: str) -> AlignmentKind:
    """The alignment that a word names. Raises LabError for an unknown one.

    >>> parse_alignment("erf")
    'erf'
    """
    require(word not in RETIRED_KINDS, f"alignment '{word}' is now called '{RETIRED_KINDS.get(word)}'")
    for kind in ALIGNMENT_KINDS:
        if word == kind:
            return kind
    raise LabError(f"unknown alignment '{word}': {suggest(word, ALIGNMENT_KINDS)}")


def resize_alignment(
    fcn: FullyConvolutional, size: tuple[int, int], cells: tuple[int, int], granularity: Granularity
) -> Alignment:
    """The last feature map resized to the whole image of `size`; `cells` are the rows and columns of the response."""
    extent = response_extent(fcn, granularity)
    stride = size[0] / (cells[0] + extent[0] - 1), size[1] / (cells[1] + extent[1] - 1)
    return Alignment("resize", (stride[0] * extent[0] / 2 - 0.5, stride[1] * extent[1] / 2 - 0.5), stride)


def rf_center_alignment(
    fcn: FullyConvolutional, size: tuple[int, int], cells: tuple[int, int], granularity: Granularity
) -> Alignment | None:
    """Cells, or windows of cells, at the center of all pixels they can depend on; None where that is not known."""
    extent = response_extent(fcn, granularity)
    grid = fcn.rf_grid(size, (cells[0] + extent[0] - 1, cells[1] + extent[1] - 1))
    if grid is None:
        return None
    (row_start, row_stride), (column_start, column_stride) = grid
    start = row_start + row_stride * (extent[0] - 1) / 2, column_start + column_stride * (extent[1] - 1) / 2
    return Alignment("rf-center", start, (row_stride, column_stride))


def response_extent(fcn: FullyConvolutional, granularity: Granularity) -> tuple[int, int]:
    """Rows and columns of the feature map that one value of the response comes from."""
    return fcn.window_shape if granularity == "window" else (1, 1)
