"""The response of a network to a whole image at one scale: a score for every class in every cell or window."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import LabError
from convolab.data.annotations import BoundingBox
from convolab.inspection.localization.alignment import (
    Alignment,
    AlignmentKind,
    resize_alignment,
    response_extent,
    rf_center_alignment,
)
from convolab.inspection.localization.dense import FullyConvolutional, Granularity
from convolab.inspection.localization.erf_offset import erf_offset
from convolab.inspection.localization.input_scale import InputScale
from convolab.inspection.types import UInt8Image
from convolab.models.inference import frozen_eval, require_finite_logits


@dataclass(frozen=True)
class ScaleResult:
    """What a network computes for an image at one scale."""

    fcn: FullyConvolutional
    granularity: Granularity
    scale: str
    input_size: tuple[int, int]  # height and width of the image as the network saw it
    features: Float[Tensor, "1 channels rows columns"]
    logits: Float[Tensor, "classes"]  # of the whole image: the mean over cells, or over windows

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Rows and columns of the response."""
        extent = response_extent(self.fcn, self.granularity)
        return self.features.shape[2] - extent[0] + 1, self.features.shape[3] - extent[1] + 1

    @cached_property
    def class_maps(self) -> Float[Tensor, "classes rows columns"]:
        """The response for every class."""
        return self.fcn.logits_map(self.features, None, self.granularity)[0]

    def response(self, target: int) -> Float[Tensor, "rows columns"]:
        """The raw response for a class: of each cell or window."""
        return self.fcn.logits_map(self.features, [target], self.granularity)[0, 0]

    def alignment(self, kind: AlignmentKind, size: tuple[int, int] | None = None) -> Alignment:
        """Where the cells lie on the image resized to `size`, by default on the image that the network saw.

        `erf` measures the effective receptive field, unless a file holds the measurement. Raises LabError where the
        receptive fields are needed and not known.
        """
        offset = erf_offset(self.fcn) if kind == "erf" else None
        reference = offset.reference if offset else kind  # an offset holds from its own reference alone
        align = rf_center_alignment if reference == "rf-center" else resize_alignment
        alignment = align(self.fcn, self.input_size, self.grid_shape, self.granularity)
        if alignment is None:
            others = "resize" if offset else "erf or resize"
            raise LabError(f"the receptive fields of this network are not known: choose the alignment {others}")
        if offset:
            alignment = alignment.shifted(offset.mean, "erf")
        if size is None:
            return alignment
        return alignment.scaled((size[0] / self.input_size[0], size[1] / self.input_size[1]))

    def upsampled_response(self, target: int, kind: AlignmentKind, size: tuple[int, int]) -> Float[Tensor, "h w"]:
        """The response at every pixel of the image resized to `size`."""
        return self.alignment(kind, size).upsample_to_image(self.response(target), size)

    def box_confidence(self, target: int, kind: AlignmentKind, box: BoundingBox, size: tuple[int, int]) -> float:
        """The class's probability when the head averages only the cells in a box on the image resized to `size`.

        For windows it is the largest probability of those whose center lies in the box. A box without a cell's center
        gets the nearest cell.
        """
        alignment = self.alignment(kind, size)
        left, top, right, bottom = box
        rows = indices_between(alignment.start[0], alignment.stride[0], self.grid_shape[0], top, bottom)
        columns = indices_between(alignment.start[1], alignment.stride[1], self.grid_shape[1], left, right)
        box_logits = self.class_maps[:, rows][:, :, columns].flatten(1)  # [classes, cells]
        if self.granularity == "window":
            return float(box_logits.softmax(0)[target].max())
        return float((box_logits.mean(1) + self.fcn.head.bias).softmax(0)[target])


def indices_between(start: float, stride: float, count: int, low: float | int, high: float | int) -> Tensor:
    """The cells of an axis whose centers lie in the pixels from `low` up to `high`; the nearest one if none does."""
    centers = start + torch.arange(count) * stride
    inside = ((centers >= low) & (centers <= high - 1)).nonzero().flatten()
    return inside if len(inside) else (centers - (low + high - 1) / 2).abs().argmin()[None]


def run_at_scale(
    fcn: FullyConvolutional, image: UInt8Image, scale: InputScale, granularity: Granularity
) -> ScaleResult:
    """Run a network on a whole image at a scale. Raises LabError for a size that is too small or too large for it, and
    for logits that are not finite.
    """
    pixels = scale.prepare_input(fcn.net, image)
    with torch.no_grad(), frozen_eval(fcn.net):
        features = fcn.forward_features(pixels).contiguous()
        logits = fcn.head(features)[0] if granularity == "cell" else fcn.window_logits(features).mean((2, 3))[0]
        require_finite_logits(features, f"the image at scale {scale}")
        require_finite_logits(logits, f"the image at scale {scale}")
    return ScaleResult(fcn, granularity, str(scale), (pixels.shape[2], pixels.shape[3]), features, logits)
