"""Where in a large picture a thing is, by a network that was trained on small ones: the response of its last feature map.

The map before average pooling says for each of its cells how much it speaks for a class (Zhou et al. 2016, arXiv:1512.04150), on
pictures of any size and at several scales; `placement` says where on the picture a cell lies.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.data import image_io
from convolab.inspection.localization import sliding_window
from convolab.inspection.localization.alignment import Alignment, AlignmentKind, align_cells, erf_offset
from convolab.inspection.localization.boxes import PixelBox, threshold_regions
from convolab.inspection.localization.dense import FullyConvolutional, Granularity, make_fully_convolutional
from convolab.inspection.localization.input_scale import InputScale, parse_scales
from convolab.inspection.result import Box, Finding, Panel
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import frozen_eval, top_classes

DEFAULT_ALIGNMENT: AlignmentKind = "effective"
DEFAULT_BOX_THRESHOLD = (
    0.3  # of the map's largest value, what belongs to a thing: docs/localisation.md says how it was chosen
)
MAX_SHOWN = 5  # boxes of a class that are told and drawn
MAX_BOXES = 50  # strongest boxes of a class that are looked into: a network lost in a large picture sees thousands
MAX_CANVAS_PIXELS = 2_000_000  # pixels of the picture that responses are laid on


@dataclass(frozen=True)
class ScaleResult:
    """What a network says of a picture at one scale."""

    fcn: FullyConvolutional
    granularity: Granularity
    scale: str
    input_size: tuple[int, int]  # of the picture as the network saw it
    features: Float[Tensor, "1 channels rows columns"]
    logits: Float[Tensor, "classes"]  # of the whole picture: the mean over cells, or over windows

    @cached_property
    def class_maps(self) -> Float[Tensor, "classes rows columns"]:
        """What every cell, or window, says for every class."""
        return self.fcn.logits_map(self.features, None, self.granularity)[0]

    def response(self, target: int) -> Float[Tensor, "rows columns"]:
        """What every cell, or window, says for a class, raw."""
        return self.fcn.logits_map(self.features, [target], self.granularity)[0, 0]

    def alignment(self, kind: AlignmentKind, cells: tuple[int, int]) -> Alignment:
        """Where the cells lie on the picture that the network saw."""
        return align_cells(self.fcn, kind, self.input_size, cells, self.granularity)

    def upsampled_response(self, target: int, kind: AlignmentKind, size: tuple[int, int]) -> Float[Tensor, "h w"]:
        """The response at every pixel of the picture, brought to another size."""
        response = self.response(target)
        scale_factor = tuple(want / have for want, have in zip(size, self.input_size, strict=True))
        return self.alignment(kind, tuple(response.shape)).scaled(scale_factor).upsample_to_image(response, size)

    def box_confidence(self, target: int, kind: AlignmentKind, box: PixelBox, size: tuple[int, int]) -> float:
        """The class's probability if the head averages nothing but the cells within a box on the picture of another size.

        Of windows it is the best one's whose middle lies in the box. A box between cells has the nearest one.
        """
        class_maps = self.class_maps
        factor = tuple(want / have for want, have in zip(size, self.input_size, strict=True))
        alignment = self.alignment(kind, tuple(class_maps.shape[1:])).scaled(factor)
        cells_in_box = []
        for axis, (low, high) in enumerate(((box[1], box[3]), (box[0], box[2]))):
            cell_centers = alignment.start[axis] + torch.arange(class_maps.shape[1 + axis]) * alignment.stride[axis]
            inside = ((cell_centers >= low) & (cell_centers <= high - 1)).nonzero().flatten()
            cells_in_box.append(inside if len(inside) else (cell_centers - (low + high - 1) / 2).abs().argmin()[None])
        box_logits = class_maps[:, cells_in_box[0]][:, :, cells_in_box[1]].flatten(1)  # [classes, cells]
        if self.granularity == "windows":
            return float(box_logits.softmax(0)[target].max())
        return float((box_logits.mean(1) + self.fcn.head.bias).softmax(0)[target])


def run_at_scale(
    fcn: FullyConvolutional, image: UInt8[Tensor, "c h w"], scale: InputScale, granularity: Granularity
) -> ScaleResult:
    """Let a network look at a whole picture at a scale. Raises LabError for a size that is too small or too large for it."""
    pixels = scale.prepare_input(fcn.net, image)
    with torch.no_grad(), frozen_eval(fcn.net):
        features = fcn.forward_features(pixels).contiguous()
        logits = fcn.head(features)[0] if granularity == "cells" else fcn.window_logits(features).mean((2, 3))[0]
    return ScaleResult(fcn, granularity, str(scale), tuple(pixels.shape[2:]), features, logits)


@dataclass(frozen=True)
class Detection:
    """A box that was found, in the photo's pixels."""

    box: PixelBox
    confidence: float  # the class's probability, see `Answer.confidence`
    peak: float  # of the response in it
    peak_position: tuple[int, int]  # row and column of the peak

    def to_dict(self) -> dict[str, Any]:
        return {
            "box": list(self.box),
            "confidence": self.confidence,
            "peak": self.peak,
            "row": self.peak_position[0],
            "column": self.peak_position[1],
        }


def locate(
    net: ImageClassifier,
    image: UInt8[Tensor, "c h w"] | Path | str,
    *,
    targets: Sequence[str | int] = (),
    top: int = 1,
    scales: str = "1",
    alignment: AlignmentKind = DEFAULT_ALIGNMENT,
    threshold: float = DEFAULT_BOX_THRESHOLD,
    granularity: Granularity | None = None,
    sliding_window_check: bool = False,
    image_name: str | None = None,
    on_progress: Callable[[str], None] = lambda what: None,
) -> Finding:
    """Where in a picture of any size a network sees some classes: a response for each, and boxes.

    `photo` is bytes, or what `open_photo` opens; it is seen at its own resolution or at other `scales` (see `find_scales`),
    whose responses are averaged. `targets` are classes as `PixelNet.find_class` takes them; without any, the `top` ones of the
    whole picture. A box is a connected part of the response above `threshold` times its largest value. `over` says whether the
    response is of single cells or of windows of the network's own size: cells, if the network averages its last map. With
    `check` the dense map is held against windows cut out one by one.

    Raises LabError for an unknown class or scale, a picture too small or too large, and a network without a last feature map
    that is averaged or flattened and then classified by one linear layer.

    >>> from convolab.models.pretrained import pretrained
    >>> finding = locate(pretrained("efficientnet_lite0"), "motorcycle_left", targets=["moped"], placement="stretched")
    >>> finding.numbers["classes"]["moped"]["things"][0]["box"]
    [127, 62, 695, 461]
    """
    require(
        0 < threshold <= 1, f"the threshold is {threshold:g}: give a share of the largest value, above 0 and at most 1"
    )
    require(top >= 1, f"the top {top} classes: give at least 1")
    target_indices = [net.find_class(target) for target in targets]
    parsed_scales = parse_scales(scales)
    fcn = make_fully_convolutional(net)
    granularity = granularity or fcn.default_granularity
    image_name = image_name or (Path(image).stem if not isinstance(image, Tensor) else "the picture")
    image = image if isinstance(image, Tensor) else image_io.read_image(image)
    scale_results = []
    for scale in parsed_scales:
        on_progress(f"looking at scale {scale}")
        scale_results.append(run_at_scale(fcn, image, scale, granularity))
    if alignment == "effective":
        on_progress("measuring where the network looks (once a network)")
        erf_offset(fcn)
    if not target_indices:
        mean_probabilities = torch.stack([a.logits.softmax(0) for a in scale_results]).mean(0)
        target_indices = [top_class.index for top_class in top_classes(net.classes, mean_probabilities, top)]
    shrink = min(1.0, math.sqrt(MAX_CANVAS_PIXELS / (image.shape[1] * image.shape[2])))
    canvas = (
        image
        if shrink == 1
        else image_io.resize_image(image, InputScale(shrink).scaled_size(tuple(image.shape[1:])), 3)
    )
    finding = build_locate_finding(
        scale_results, canvas, tuple(image.shape[1:]), target_indices, alignment, threshold, image_name
    )
    return (
        with_sliding_window_check(finding, fcn, image, parsed_scales, on_progress) if sliding_window_check else finding
    )


def with_sliding_window_check(
    finding: Finding,
    fcn: FullyConvolutional,
    image: UInt8[Tensor, "c h w"],
    scales: Sequence[InputScale],
    on_progress: Callable[[str], None],
) -> Finding:
    """The finding with what the sliding window says at each scale, where the picture holds a window."""
    checks, lines = {}, []
    for scale in scales:
        pixels = scale.prepare_input(fcn.net, image)
        comparison = sliding_window.compare_with_sliding_window(fcn, pixels, on_progress)
        checks[str(scale)] = comparison.to_dict()
        lines.append(f"scale {scale}, {sliding_window.describe_sliding_window(comparison)}")
    return replace(finding, summary=(*finding.summary, *lines), metrics=finding.metrics | {"sliding": checks})


def build_locate_finding(
    scale_results: Sequence[ScaleResult],
    canvas: UInt8[Tensor, "c h w"],
    original_size: tuple[int, int],
    targets: Sequence[int],
    alignment: AlignmentKind,
    threshold: float,
    image_name: str,
) -> Finding:
    """A finding of answers that are already made; `canvas` is the picture that they are laid on, `own` the photo's size."""
    net, first = scale_results[0].fcn.net, scale_results[0]
    size = tuple(canvas.shape[1:])
    scale_to_original = tuple(o / c for o, c in zip(original_size, size, strict=True))  # from the canvas to the photo
    most_probable = top_classes(net.classes, first.logits.double().softmax(0), 3)
    summary = [
        f"{image_name}, {original_size[1]} x {original_size[0]}: the whole picture is {', '.join(map(str, most_probable))}"
    ]
    summary += [*(describe_grid(a, alignment) for a in scale_results), describe_alignment(first.fcn, alignment)]
    class_metrics, arrays, panel_rows, warnings = {}, {"picture": canvas}, [], []
    for target in targets:
        label = net.classes[target]
        heatmap = torch.stack([a.upsampled_response(target, alignment, size) for a in scale_results]).mean(0)
        invalid_reason = map_invalid_reason(heatmap)
        if invalid_reason:
            warnings.append(f"the response for {label} is {invalid_reason}: it says nothing")
        regions_found = threshold_regions(heatmap, threshold)
        detections = [
            Detection(
                to_original_box(region.box, scale_to_original, original_size),
                max(a.box_confidence(target, alignment, region.box, size) for a in scale_results),
                region.peak,
                (
                    int((region.peak_position[0] + 0.5) * scale_to_original[0]),
                    int((region.peak_position[1] + 0.5) * scale_to_original[1]),
                ),
            )
            for region in regions_found[:MAX_BOXES]
        ]
        summary += [describe_detections(label, detections, len(regions_found), first, target)]
        maps = {f"{label} at {a.scale}": a.response(target) for a in scale_results}
        class_metrics[label] = {
            "index": target,
            "logit": float(first.logits[target]),
            "probability": float(first.logits.double().softmax(0)[target]),
            "boxes": len(regions_found),
            "things": [thing.to_dict() for thing in detections],
            "responses": {a.scale: response_metrics(a, target) for a in scale_results},
            "fault": invalid_reason,
        }
        arrays |= {f"heat {label}": heatmap, **{f"response {key}": value for key, value in maps.items()}}
        panel_rows.append(
            detection_panels(
                canvas, heatmap, label, detections[:MAX_SHOWN], scale_to_original, scale_results, target, alignment
            )
        )
    return Finding(
        "locate",
        tuple(summary),
        {
            "picture": image_name,
            "size": list(original_size),
            "over": first.granularity,
            "placement": alignment,
            "threshold": threshold,
            "scales": {a.scale: alignment_metrics(a, alignment) for a in scale_results},
            "classes": class_metrics,
        },
        arrays,
        tuple(panel_rows),
        tuple(warnings),
    )


def to_original_box(box: PixelBox, scale_to_original: tuple[float, float], original_size: tuple[int, int]) -> PixelBox:
    """A box on the canvas, in the photo's pixels."""
    left, top, right, bottom = box
    return (
        round(left * scale_to_original[1]),
        round(top * scale_to_original[0]),
        min(round(right * scale_to_original[1]), original_size[1]),
        min(round(bottom * scale_to_original[0]), original_size[0]),
    )


def map_invalid_reason(heatmap: Float[Tensor, "h w"]) -> str:
    """What makes a response worthless, in words."""
    if not heatmap.isfinite().all():
        return "not finite"
    return "constant" if float(heatmap.max()) == float(heatmap.min()) else ""


def response_grid_shape(scale_result: ScaleResult) -> tuple[int, int]:
    return tuple(scale_result.response(0).shape)


def alignment_metrics(scale_result: ScaleResult, alignment_kind: AlignmentKind) -> dict[str, Any]:
    """How large the network saw the picture, and where its cells were placed, in the pixels of that size."""
    alignment = scale_result.alignment(alignment_kind, response_grid_shape(scale_result))
    metrics = {
        "size": list(scale_result.input_size),
        "cells": list(response_grid_shape(scale_result)),
        "start": list(alignment.start),
        "stride": list(alignment.stride),
    }
    if alignment_kind == "effective":
        offset = erf_offset(scale_result.fcn)
        metrics["displacement"] = {
            "mean": list(offset.mean),
            "spread": list(offset.std),
            "from": offset.reference,
            "radius": offset.rms_radius,
        }
    return metrics


def describe_grid(scale_result: ScaleResult, alignment_kind: AlignmentKind) -> str:
    """The grid of an answer in words."""
    alignment, (rows, columns) = (
        scale_result.alignment(alignment_kind, response_grid_shape(scale_result)),
        response_grid_shape(scale_result),
    )
    cell_text = (
        "cells"
        if scale_result.granularity == "cells"
        else f"windows of {scale_result.fcn.net.input_size[1]} x {scale_result.fcn.net.input_size[0]}"
    )
    step = f", {alignment.stride[1]:.3g} x {alignment.stride[0]:.3g} px apart" if rows * columns > 1 else ""
    return f"scale {scale_result.scale}: seen at {scale_result.input_size[1]} x {scale_result.input_size[0]}, {columns} x {rows} {cell_text}{step}"


def describe_alignment(fcn: FullyConvolutional, alignment_kind: AlignmentKind) -> str:
    """Where the cells were placed, in words."""
    if alignment_kind != "effective":
        return {"geometric": "placed by geometry", "stretched": "placed by stretching the map over the picture"}[
            alignment_kind
        ]
    offset = erf_offset(fcn)
    reference_text = "the middle of their fields" if offset.reference == "geometric" else "where stretching puts them"
    return (
        f"placed where the network looks: {offset.mean[1]:+.1f} px across and {offset.mean[0]:+.1f} px down from {reference_text} "
        f"(single cells differ by {offset.std[1]:.1f} and {offset.std[0]:.1f} px)"
    )


def response_metrics(scale_result: ScaleResult, target: int) -> dict[str, float]:
    response = scale_result.response(target)
    return {
        "min": float(response.min()),
        "max": float(response.max()),
        "mean": float(response.mean()),
        "bias": float(scale_result.fcn.head.bias[target]) if scale_result.granularity == "cells" else 0.0,
    }


def describe_detections(
    label: str, detections: Sequence[Detection], count: int, scale_result: ScaleResult, target: int
) -> str:
    """What was found of a class, in words."""
    prefix = f"{label}, {100 * float(scale_result.logits.double().softmax(0)[target]):.1f} % in the whole picture: "
    if not detections:
        return prefix + "nowhere, its response is not above 0 anywhere"
    box_texts = [
        f"{t.box[0]}, {t.box[1]} to {t.box[2]}, {t.box[3]} ({100 * t.confidence:.1f} %)" for t in detections[:MAX_SHOWN]
    ]
    more_text = f", and {count - MAX_SHOWN} weaker" if count > MAX_SHOWN else ""
    strongest = f"strongest at row {detections[0].peak_position[0]}, column {detections[0].peak_position[1]}"
    return (
        prefix
        + f"{strongest}; {count} box{'es' * (count > 1)} (left, top to right, bottom): {'; '.join(box_texts)}{more_text}"
    )


def detection_panels(
    canvas: UInt8[Tensor, "c h w"],
    heatmap: Float[Tensor, "h w"],
    label: str,
    detections: Sequence[Detection],
    scale_to_original: tuple[float, float],
    scale_results: Sequence[ScaleResult],
    target: int,
    alignment_kind: AlignmentKind,
) -> tuple[Panel, ...]:
    """The boxes on the picture, the response over it with the cells' borders, and the raw response."""
    boxes = []
    for detection in detections:
        left, top, right, bottom = detection.box
        confidence_text = f"{100 * detection.confidence:.0f} %"
        boxes.append(
            Box(
                left / scale_to_original[1],
                top / scale_to_original[0],
                right / scale_to_original[1],
                bottom / scale_to_original[0],
                confidence_text,
            )
        )
    first_result = scale_results[0]
    size, response = tuple(canvas.shape[1:]), first_result.response(target)
    scale_factor = tuple(want / have for want, have in zip(size, first_result.input_size, strict=True))
    grid = (
        first_result.alignment(alignment_kind, tuple(response.shape))
        .scaled(scale_factor)
        .cell_borders(tuple(response.shape))
    )
    cells = "cells" if first_result.granularity == "cells" else "windows"
    confidence_text = (
        "the class's probability if the head sees the box alone"
        if first_result.granularity == "cells"
        else "the best window's probability"
    )
    unit = "logit" + (
        " (the mean + the bias is the picture's)" if first_result.granularity == "cells" else " of a window"
    )
    return (
        Panel(
            f"{label}: found",
            canvas,
            boxes=tuple(boxes),
            caption=f"in the box: {confidence_text}" if boxes else "nothing found",
        ),
        Panel(
            "Response" if len(scale_results) == 1 else f"Response, mean of {len(scale_results)} scales",
            canvas,
            heatmap,
            signed=True,
            colorbar_label=unit,
            grid=grid,
            caption=f"lines: the {cells}' borders, {alignment_kind} placement",
        ),
        Panel(
            f"Raw, at scale {first_result.scale}",
            heatmap=response,
            signed=True,
            colorbar_label=unit,
            caption=f"{response.shape[1]} x {response.shape[0]} {cells}",
        ),
    )
