"""The finding of `locate`: its sentences, its numbers and the panels that draw it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NotRequired, TypedDict

from convolab.core.text import pluralize
from convolab.inspection.localization.alignment import AlignmentKind
from convolab.inspection.localization.dense import FullyConvolutional
from convolab.inspection.localization.detection import Canvas, ClassDetections, Detection, DetectionMetrics
from convolab.inspection.localization.erf_offset import erf_offset
from convolab.inspection.localization.response import ScaleResult
from convolab.inspection.result import Box, Finding, Panel
from convolab.models.inference import top_classes

NEARLY_ALL = 0.9  # of the image: a box that covers more of it is warned of
MAX_SHOWN = 5  # boxes of a class that are named and drawn


class ErfOffsetMetrics(TypedDict):
    """How far the cells were moved from their reference positions, in pixels: rows, columns."""

    mean: list[float]
    std: list[float]
    reference: str
    rms_radius: float


class ScaleMetrics(TypedDict):
    """The size at which the network saw the image, and where its cells lie in the pixels of that size."""

    size: list[int]
    cells: list[int]
    start: list[float]
    stride: list[float]
    erf_offset: NotRequired[ErfOffsetMetrics]  # of the alignment erf


class ResponseMetrics(TypedDict):
    """A raw response: behind an average, its mean and the bias add up to the logit."""

    min: float
    max: float
    mean: float
    bias: float


class ClassMetrics(TypedDict):
    """What was found of a class. Logit and probability are those of the whole image at the first scale."""

    index: int
    logit: float
    probability: float
    num_boxes: int
    detections: list[DetectionMetrics]
    responses: dict[str, ResponseMetrics]
    invalid_reason: str


def build_locate_finding(
    image_name: str,
    canvas: Canvas,
    scale_results: Sequence[ScaleResult],
    classes: Sequence[ClassDetections],
    alignment: AlignmentKind,
    threshold: float,
) -> Finding:
    """The finding of responses and boxes that were computed."""
    first = scale_results[0]
    height, width = canvas.original_size
    most_probable = top_classes(first.fcn.net.classes, first.logits.double().softmax(0), 3)
    arrays = {"image": canvas.image}
    for found in classes:
        arrays[f"heatmap {found.label}"] = found.heatmap
        arrays |= {f"response {found.label} at {r.scale}": r.response(found.target) for r in scale_results}
    return Finding(
        "locate",
        summary=(
            f"{image_name}, {width} x {height}: prediction for the whole image: {', '.join(map(str, most_probable))}",
            *(describe_grid(result, alignment) for result in scale_results),
            describe_alignment(first.fcn, alignment),
            *(describe_detections(found, first) for found in classes),
        ),
        metrics={
            "image": image_name,
            "size": [height, width],
            "granularity": first.granularity,
            "alignment": alignment,
            "threshold": threshold,
            "scales": {result.scale: scale_metrics(result, alignment) for result in scale_results},
            "classes": {found.label: class_metrics(found, scale_results) for found in classes},
        },
        arrays=arrays,
        panels=tuple(detection_panels(canvas, scale_results, found, alignment) for found in classes),
        warnings=(
            *filter(None, [first.fcn.net.caution]),
            *(warning for found in classes for warning in detection_warnings(found)),
        ),
    )


def detection_warnings(found: ClassDetections) -> list[str]:
    """What is wrong with the response or the boxes of a class."""
    warnings = []
    if found.invalid_reason:
        warnings.append(f"the response for {found.label} is {found.invalid_reason}: it carries no information")
    if found.largest_coverage >= NEARLY_ALL:
        warnings.append(
            f"a box of {found.label} covers {100 * found.largest_coverage:.0f} % of the image: "
            "it hardly says where the object is"
        )
    return warnings


def scale_metrics(result: ScaleResult, alignment_kind: AlignmentKind) -> ScaleMetrics:
    alignment = result.alignment(alignment_kind)
    metrics: ScaleMetrics = {
        "size": list(result.input_size),
        "cells": list(result.grid_shape),
        "start": list(alignment.start),
        "stride": list(alignment.stride),
    }
    if alignment_kind == "erf":
        metrics["erf_offset"] = erf_offset_metrics(result.fcn)
    return metrics


def erf_offset_metrics(fcn: FullyConvolutional) -> ErfOffsetMetrics:
    offset = erf_offset(fcn)
    return {
        "mean": list(offset.mean),
        "std": list(offset.std),
        "reference": offset.reference,
        "rms_radius": offset.rms_radius,
    }


def class_metrics(found: ClassDetections, scale_results: Sequence[ScaleResult]) -> ClassMetrics:
    logits = scale_results[0].logits
    return {
        "index": found.target,
        "logit": float(logits[found.target]),
        "probability": float(logits.double().softmax(0)[found.target]),
        "num_boxes": found.num_boxes,
        "detections": [detection.to_dict() for detection in found.detections],
        "responses": {result.scale: response_metrics(result, found.target) for result in scale_results},
        "invalid_reason": found.invalid_reason,
    }


def response_metrics(result: ScaleResult, target: int) -> ResponseMetrics:
    response = result.response(target)
    return {
        "min": float(response.min()),
        "max": float(response.max()),
        "mean": float(response.mean()),
        "bias": float(result.fcn.head.bias[target]) if result.granularity == "cell" else 0.0,
    }


def describe_grid(result: ScaleResult, alignment_kind: AlignmentKind) -> str:
    """The size of a response in words."""
    rows, columns = result.grid_shape
    stride = result.alignment(alignment_kind).stride
    input_height, input_width = result.fcn.net.input_size
    unit = "cells" if result.granularity == "cell" else f"windows of {input_width} x {input_height}"
    spacing = f", {stride[1]:.3g} x {stride[0]:.3g} px apart" if rows * columns > 1 else ""
    height, width = result.input_size
    return f"scale {result.scale}: seen at {width} x {height}, {columns} x {rows} {unit}{spacing}"


def describe_alignment(fcn: FullyConvolutional, alignment_kind: AlignmentKind) -> str:
    """How cells were mapped to pixels, in words."""
    if alignment_kind == "rf-center":
        return "aligned by receptive-field centers"
    if alignment_kind == "resize":
        return "aligned by resizing the map to the image"
    offset = erf_offset(fcn)
    reference = (
        "the centers of their receptive fields" if offset.reference == "rf-center" else "where resizing puts them"
    )
    down, across = offset.mean
    return (
        f"aligned by the effective receptive field: cells are drawn {abs(across):.1f} px {'left' if across < 0 else 'right'} and "
        f"{abs(down):.1f} px {'up' if down < 0 else 'down'} from {reference}, where they look on average "
        f"(standard deviation of single cells {offset.std[1]:.1f} and {offset.std[0]:.1f} px)"
    )


def describe_detections(found: ClassDetections, first: ScaleResult) -> str:
    """What was found of a class, in words."""
    probability = float(first.logits.double().softmax(0)[found.target])
    prefix = f"{found.label}, {100 * probability:.1f} % in the whole image: "
    if found.invalid_reason:
        return f"{prefix}not found: its response is {found.invalid_reason}, which says nothing of where"
    if not found.detections:
        return f"{prefix}not found: its response is nowhere above 0"
    row, column = found.detections[0].peak_position
    boxes = "; ".join(describe_box(detection) for detection in found.detections[:MAX_SHOWN])
    weaker = f", and {found.num_boxes - MAX_SHOWN} weaker" if found.num_boxes > MAX_SHOWN else ""
    count = f"{found.num_boxes} box{'es' if found.num_boxes > 1 else ''}"
    return f"{prefix}strongest at row {row}, column {column}; {count} (left, top to right, bottom): {boxes}{weaker}"


def describe_box(detection: Detection) -> str:
    left, top, right, bottom = detection.box
    return f"{left}, {top} to {right}, {bottom} (the class there {100 * detection.confidence:.1f} %)"


def detection_panels(
    canvas: Canvas, scale_results: Sequence[ScaleResult], found: ClassDetections, alignment_kind: AlignmentKind
) -> tuple[Panel, ...]:
    """The boxes on the image, the response over it with the cells' borders, and the raw response."""
    first = scale_results[0]
    of_cells = first.granularity == "cell"
    boxes = tuple(panel_box(canvas, detection) for detection in found.detections[:MAX_SHOWN])
    if boxes:
        boxes = (
            replace(boxes[0], label=f"{boxes[0].label} {'on this box alone' if of_cells else 'in its best window'}"),
            *boxes[1:],
        )
    confidence = "when the head averages only the cells in the box" if of_cells else "in the box's best window"
    unit = "logit (the mean + the bias is the image's)" if of_cells else "logit of a window"
    num_scales = len(scale_results)
    rows, columns = first.grid_shape
    pitch = describe_cell_pitch(first.alignment(alignment_kind).stride)
    original_pitch = describe_cell_pitch(first.alignment(alignment_kind, canvas.original_size).stride)
    height, width = first.input_size
    return (
        Panel(
            title=f"{found.label}: found",
            image=canvas.image,
            boxes=boxes,
            caption=f"percentage: the probability of {found.label} {confidence}" if boxes else "nothing found",
        ),
        Panel(
            title="Response" if num_scales == 1 else f"Response, mean of {pluralize(num_scales, 'scale')}",
            image=canvas.image,
            heatmap=found.heatmap,
            signed=True,
            colorbar_label=unit,
            grid=first.alignment(alignment_kind, canvas.size).cell_borders(first.grid_shape),
            caption=f"smooth: interpolated between the {first.granularity}s, alignment {alignment_kind}",
        ),
        Panel(
            title=f"Raw, at scale {first.scale}",
            heatmap=first.response(found.target),
            signed=True,
            colorbar_label=unit,
            caption=f"raw: {columns} x {rows} {first.granularity}s, each {pitch} px of what the network saw "
            f"({width} x {height}), {original_pitch} px of the image",
        ),
    )


def describe_cell_pitch(stride: tuple[float, float]) -> str:
    """How far cells are apart, across and down.

    >>> describe_cell_pitch((32.0, 31.25))
    '31.2 x 32'
    """
    down, across = stride
    return f"{across:.3g} x {down:.3g}"


def panel_box(canvas: Canvas, detection: Detection) -> Box:
    left, top, right, bottom = detection.box
    down, across = canvas.scale_to_original
    percent = 100 * detection.confidence
    label = f"{percent:.1f} %" if percent < 9.95 else f"{percent:.0f} %"
    return Box(left / across, top / down, right / across, bottom / down, label)
