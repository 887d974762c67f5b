"""From the responses at several scales to the boxes of a class, in the pixels of the original image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.data import image_io
from convolab.data.annotations import BoundingBox
from convolab.inspection.localization.alignment import AlignmentKind
from convolab.inspection.localization.boxes import threshold_regions
from convolab.inspection.localization.input_scale import InputScale
from convolab.inspection.localization.response import ScaleResult
from convolab.inspection.result import map_invalid_reason

MAX_BOXES = 50  # strongest boxes of a class that are kept: a network lost in a large image finds thousands
MAX_CANVAS_PIXELS = 2_000_000  # pixels of the image that responses are upsampled to


@dataclass(frozen=True)
class Canvas:
    """The image that responses are upsampled to and drawn on: the original one, or a smaller copy of a large one."""

    image: UInt8[Tensor, "c h w"]
    original_size: tuple[int, int]  # height and width, in pixels

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]

    @property
    def scale_to_original(self) -> tuple[float, float]:
        """Pixels of the original for each of the canvas: vertically, horizontally."""
        return self.original_size[0] / self.size[0], self.original_size[1] / self.size[1]

    def to_original_box(self, box: BoundingBox) -> BoundingBox:
        """A box on the canvas, in whole pixels of the original."""
        left, top, right, bottom = box
        down, across = self.scale_to_original
        height, width = self.original_size
        return (
            round(left * across),
            round(top * down),
            min(round(right * across), width),
            min(round(bottom * down), height),
        )


class DetectionMetrics(TypedDict):
    """A detection, as JSON holds it."""

    box: list[float | int]
    confidence: float
    peak: float
    row: int
    column: int


@dataclass(frozen=True)
class Detection:
    """A box that was found, in the pixels of the original image."""

    box: BoundingBox
    confidence: float  # the class's probability in the box, see `ScaleResult.box_confidence`
    peak: float  # the largest response in it
    peak_position: tuple[int, int]  # row and column of the peak

    def to_dict(self) -> DetectionMetrics:
        row, column = self.peak_position
        return {"box": list(self.box), "confidence": self.confidence, "peak": self.peak, "row": row, "column": column}


@dataclass(frozen=True)
class ClassDetections:
    """What was found of one class."""

    target: int  # the class's index
    label: str
    heatmap: Float[Tensor, "h w"]  # the mean response over the scales, on the canvas
    num_boxes: int  # how many there are
    original_size: tuple[int, int]  # height and width of the image, in pixels
    detections: tuple[Detection, ...]  # the strongest of them, at most MAX_BOXES

    @property
    def largest_coverage(self) -> float:
        """The largest fraction of the image that one of the boxes covers; 0 without a box."""
        height, width = self.original_size
        areas = [(right - left) * (bottom - top) for left, top, right, bottom in (d.box for d in self.detections)]
        return max(areas, default=0) / (height * width)

    @property
    def invalid_reason(self) -> str:
        """Why the heatmap carries no information; empty if it does."""
        return map_invalid_reason(self.heatmap)


def make_canvas(image: UInt8[Tensor, "c h w"]) -> Canvas:
    """The image, made smaller if it has more than MAX_CANVAS_PIXELS."""
    size = image.shape[1], image.shape[2]
    factor = math.sqrt(MAX_CANVAS_PIXELS / (size[0] * size[1]))
    if factor >= 1:
        return Canvas(image, size)
    return Canvas(image_io.resize_image(image, InputScale(factor).scaled_size(size), 3), size)


def detect_class(
    scale_results: Sequence[ScaleResult], canvas: Canvas, target: int, alignment: AlignmentKind, threshold: float
) -> ClassDetections:
    """The boxes of one class: the regions where the mean response over all scales reaches a threshold.

    Args:
        scale_results: the network's responses to the image, one or more.
        canvas: the image that they are upsampled to.
        target: the class's index.
        alignment: how cells map to pixels.
        threshold: a fraction of the largest value of the mean response.

    Raises LabError for a response that is not finite.
    """
    responses = [result.upsampled_response(target, alignment, canvas.size) for result in scale_results]
    heatmap = torch.stack(responses).mean(0)
    label = scale_results[0].fcn.net.classes[target]
    require(heatmap.isfinite().all(), f"the response for {label} is not finite: it gives no box; name another class")
    regions = threshold_regions(heatmap, threshold)
    down, across = canvas.scale_to_original
    detections = tuple(
        Detection(
            canvas.to_original_box(region.box),
            max(result.box_confidence(target, alignment, region.box, canvas.size) for result in scale_results),
            region.peak,
            (int((region.peak_position[0] + 0.5) * down), int((region.peak_position[1] + 0.5) * across)),
        )
        for region in regions[:MAX_BOXES]
    )
    return ClassDetections(target, label, heatmap, len(regions), canvas.original_size, detections)
