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

from convolab.core.errors import need
from convolab.data import image_io
from convolab.inspection.localization import sliding_window
from convolab.inspection.localization.alignment import Kind, Placement, displacement, place
from convolab.inspection.localization.boxes import Corners, regions
from convolab.inspection.localization.dense import Dense, Over, dense
from convolab.inspection.localization.input_scale import Scale, find_scales
from convolab.inspection.result import Box, Finding, Panel
from convolab.models.classifier import PixelNet, undisturbed

PLACEMENT: Kind = "effective"
THRESHOLD = 0.3  # of the map's largest value, what belongs to a thing: docs/localisation.md says how it was chosen
MOST = 5  # boxes of a class that are told and drawn
KEPT = 50  # strongest boxes of a class that are looked into: a network lost in a large picture sees thousands
MAX_CANVAS = 2_000_000  # pixels of the picture that responses are laid on


@dataclass(frozen=True)
class Answer:
    """What a network says of a picture at one scale."""

    dense: Dense
    over: Over
    scale: str
    size: tuple[int, int]  # of the picture as the network saw it
    features: Float[Tensor, "1 channels rows columns"]
    logits: Float[Tensor, "classes"]  # of the whole picture: the mean over cells, or over windows

    @cached_property
    def everything(self) -> Float[Tensor, "classes rows columns"]:
        """What every cell, or window, says for every class."""
        return self.dense.answers(self.features, None, self.over)[0]

    def response(self, target: int) -> Float[Tensor, "rows columns"]:
        """What every cell, or window, says for a class, raw."""
        return self.dense.answers(self.features, [target], self.over)[0, 0]

    def placement(self, kind: Kind, cells: tuple[int, int]) -> Placement:
        """Where the cells lie on the picture that the network saw."""
        return place(self.dense, kind, self.size, cells, self.over)

    def laid(self, target: int, kind: Kind, size: tuple[int, int]) -> Float[Tensor, "h w"]:
        """The response at every pixel of the picture, brought to another size."""
        response = self.response(target)
        factor = tuple(want / have for want, have in zip(size, self.size, strict=True))
        return self.placement(kind, tuple(response.shape)).scaled(factor).lay(response, size)

    def confidence(self, target: int, kind: Kind, corners: Corners, size: tuple[int, int]) -> float:
        """The class's probability if the head averages nothing but the cells within a box on the picture of another size.

        Of windows it is the best one's whose middle lies in the box. A box between cells has the nearest one.
        """
        answers = self.everything
        factor = tuple(want / have for want, have in zip(size, self.size, strict=True))
        laid = self.placement(kind, tuple(answers.shape[1:])).scaled(factor)
        chosen = []
        for axis, (low, high) in enumerate(((corners[1], corners[3]), (corners[0], corners[2]))):
            middles = laid.start[axis] + torch.arange(answers.shape[1 + axis]) * laid.stride[axis]
            inside = ((middles >= low) & (middles <= high - 1)).nonzero().flatten()
            chosen.append(inside if len(inside) else (middles - (low + high - 1) / 2).abs().argmin()[None])
        within = answers[:, chosen[0]][:, :, chosen[1]].flatten(1)  # [classes, cells]
        if self.over == "windows":
            return float(within.softmax(0)[target].max())
        return float((within.mean(1) + self.dense.head.bias).softmax(0)[target])


def answer(everywhere: Dense, photo: UInt8[Tensor, "c h w"], scale: Scale, over: Over) -> Answer:
    """Let a network look at a whole picture at a scale. Raises LabError for a size that is too small or too large for it."""
    pixels = scale.seen_by(everywhere.net, photo)
    with torch.no_grad(), undisturbed(everywhere.net):
        features = everywhere.features(pixels).contiguous()
        logits = everywhere.head(features)[0] if over == "cells" else everywhere.windows(features).mean((2, 3))[0]
    return Answer(everywhere, over, str(scale), tuple(pixels.shape[2:]), features, logits)


@dataclass(frozen=True)
class Thing:
    """A box that was found, in the photo's pixels."""

    corners: Corners
    confidence: float  # the class's probability, see `Answer.confidence`
    peak: float  # of the response in it
    place: tuple[int, int]  # row and column of the peak

    def values(self) -> dict[str, Any]:
        return {
            "box": list(self.corners),
            "confidence": self.confidence,
            "peak": self.peak,
            "row": self.place[0],
            "column": self.place[1],
        }


def locate(
    net: PixelNet,
    photo: UInt8[Tensor, "c h w"] | Path | str,
    *,
    targets: Sequence[str | int] = (),
    top: int = 1,
    scales: str = "1",
    placement: Kind = PLACEMENT,
    threshold: float = THRESHOLD,
    over: Over | None = None,
    check: bool = False,
    name: str | None = None,
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
    need(
        0 < threshold <= 1, f"the threshold is {threshold:g}: give a share of the largest value, above 0 and at most 1"
    )
    need(top >= 1, f"the top {top} classes: give at least 1")
    wanted = [net.find_class(target) for target in targets]
    chosen_scales = find_scales(scales)
    everywhere = dense(net)
    over = over or everywhere.over
    name = name or (Path(photo).stem if not isinstance(photo, Tensor) else "the picture")
    photo = photo if isinstance(photo, Tensor) else image_io.open_photo(photo)
    answers = []
    for scale in chosen_scales:
        on_progress(f"looking at scale {scale}")
        answers.append(answer(everywhere, photo, scale, over))
    if placement == "effective":
        on_progress("measuring where the network looks (once a network)")
        displacement(everywhere)
    if not wanted:
        wanted = (
            torch.stack([a.logits.softmax(0) for a in answers])
            .mean(0)
            .topk(min(top, len(net.classes)))
            .indices.tolist()
        )
    shrink = min(1.0, math.sqrt(MAX_CANVAS / (photo.shape[1] * photo.shape[2])))
    canvas = photo if shrink == 1 else image_io.resized(photo, Scale(shrink).size(tuple(photo.shape[1:])), 3)
    found = describe(answers, canvas, tuple(photo.shape[1:]), wanted, placement, threshold, name)
    return held_against_sliding(found, everywhere, photo, chosen_scales, on_progress) if check else found


def held_against_sliding(
    found: Finding,
    everywhere: Dense,
    photo: UInt8[Tensor, "c h w"],
    scales: Sequence[Scale],
    on_progress: Callable[[str], None],
) -> Finding:
    """The finding with what the sliding window says at each scale, where the picture holds a window."""
    checks, words = {}, []
    for scale in scales:
        pixels = scale.seen_by(everywhere.net, photo)
        compared = sliding_window.compare(everywhere, pixels, on_progress)
        checks[str(scale)] = compared.values()
        words.append(f"scale {scale}, {sliding_window.said(compared)}")
    return replace(found, words=(*found.words, *words), numbers=found.numbers | {"sliding": checks})


def describe(
    answers: Sequence[Answer],
    canvas: UInt8[Tensor, "c h w"],
    own: tuple[int, int],
    targets: Sequence[int],
    kind: Kind,
    threshold: float,
    name: str,
) -> Finding:
    """A finding of answers that are already made; `canvas` is the picture that they are laid on, `own` the photo's size."""
    net, first = answers[0].dense.net, answers[0]
    size = tuple(canvas.shape[1:])
    zoom = tuple(o / c for o, c in zip(own, size, strict=True))  # from the canvas to the photo
    words = [f"{name}, {own[1]} x {own[0]}: the whole picture is {', '.join(likeliest(net, first.logits))}"]
    words += [*(grid_said(a, kind) for a in answers), placement_said(first.dense, kind)]
    numbers, arrays, rows, warnings = {}, {"picture": canvas}, [], []
    for target in targets:
        label = net.classes[target]
        heat = torch.stack([a.laid(target, kind, size) for a in answers]).mean(0)
        fault = fault_of(heat)
        if fault:
            warnings.append(f"the response for {label} is {fault}: it says nothing")
        found = regions(heat, threshold)
        things = [
            Thing(
                in_photo(region.corners, zoom, own),
                max(a.confidence(target, kind, region.corners, size) for a in answers),
                region.peak,
                (int((region.place[0] + 0.5) * zoom[0]), int((region.place[1] + 0.5) * zoom[1])),
            )
            for region in found[:KEPT]
        ]
        words += [told(label, things, len(found), first, target)]
        maps = {f"{label} at {a.scale}": a.response(target) for a in answers}
        numbers[label] = {
            "index": target,
            "logit": float(first.logits[target]),
            "probability": float(first.logits.double().softmax(0)[target]),
            "boxes": len(found),
            "things": [thing.values() for thing in things],
            "responses": {a.scale: response_facts(a, target) for a in answers},
            "fault": fault,
        }
        arrays |= {f"heat {label}": heat, **{f"response {key}": value for key, value in maps.items()}}
        rows.append(panels(canvas, heat, label, things[:MOST], zoom, answers, target, kind))
    return Finding(
        "locate",
        tuple(words),
        {
            "picture": name,
            "size": list(own),
            "over": first.over,
            "placement": kind,
            "threshold": threshold,
            "scales": {a.scale: placed_facts(a, kind) for a in answers},
            "classes": numbers,
        },
        arrays,
        tuple(rows),
        tuple(warnings),
    )


def in_photo(corners: Corners, zoom: tuple[float, float], own: tuple[int, int]) -> Corners:
    """A box on the canvas, in the photo's pixels."""
    left, top, right, bottom = corners
    return (
        round(left * zoom[1]),
        round(top * zoom[0]),
        min(round(right * zoom[1]), own[1]),
        min(round(bottom * zoom[0]), own[0]),
    )


def likeliest(net: PixelNet, logits: Float[Tensor, "classes"], count: int = 3) -> list[str]:
    shares = logits.double().softmax(0)
    return [
        f"{net.classes[i]} {100 * float(shares[i]):.1f} %"
        for i in shares.topk(min(count, len(shares))).indices.tolist()
    ]


def fault_of(heat: Float[Tensor, "h w"]) -> str:
    """What makes a response worthless, in words."""
    if not heat.isfinite().all():
        return "not finite"
    return "constant" if float(heat.max()) == float(heat.min()) else ""


def cells_of(a: Answer) -> tuple[int, int]:
    return tuple(a.response(0).shape)


def placed_facts(a: Answer, kind: Kind) -> dict[str, Any]:
    """How large the network saw the picture, and where its cells were placed, in the pixels of that size."""
    laid = a.placement(kind, cells_of(a))
    facts = {"size": list(a.size), "cells": list(cells_of(a)), "start": list(laid.start), "stride": list(laid.stride)}
    if kind == "effective":
        moved = displacement(a.dense)
        facts["displacement"] = {
            "mean": list(moved.mean),
            "spread": list(moved.spread),
            "from": moved.reference,
            "radius": moved.radius,
        }
    return facts


def grid_said(a: Answer, kind: Kind) -> str:
    """The grid of an answer in words."""
    laid, (rows, columns) = a.placement(kind, cells_of(a)), cells_of(a)
    what = "cells" if a.over == "cells" else f"windows of {a.dense.net.size[1]} x {a.dense.net.size[0]}"
    step = f", {laid.stride[1]:.3g} x {laid.stride[0]:.3g} px apart" if rows * columns > 1 else ""
    return f"scale {a.scale}: seen at {a.size[1]} x {a.size[0]}, {columns} x {rows} {what}{step}"


def placement_said(dense: Dense, kind: Kind) -> str:
    """Where the cells were placed, in words."""
    if kind != "effective":
        return {"geometric": "placed by geometry", "stretched": "placed by stretching the map over the picture"}[kind]
    moved = displacement(dense)
    where = "the middle of their fields" if moved.reference == "geometric" else "where stretching puts them"
    return (
        f"placed where the network looks: {moved.mean[1]:+.1f} px across and {moved.mean[0]:+.1f} px down from {where} "
        f"(single cells differ by {moved.spread[1]:.1f} and {moved.spread[0]:.1f} px)"
    )


def response_facts(a: Answer, target: int) -> dict[str, float]:
    response = a.response(target)
    return {
        "min": float(response.min()),
        "max": float(response.max()),
        "mean": float(response.mean()),
        "bias": float(a.dense.head.bias[target]) if a.over == "cells" else 0.0,
    }


def told(label: str, things: Sequence[Thing], count: int, a: Answer, target: int) -> str:
    """What was found of a class, in words."""
    said = f"{label}, {100 * float(a.logits.double().softmax(0)[target]):.1f} % in the whole picture: "
    if not things:
        return said + "nowhere, its response is not above 0 anywhere"
    shown = [
        f"{t.corners[0]}, {t.corners[1]} to {t.corners[2]}, {t.corners[3]} ({100 * t.confidence:.1f} %)"
        for t in things[:MOST]
    ]
    more = f", and {count - MOST} weaker" if count > MOST else ""
    strongest = f"strongest at row {things[0].place[0]}, column {things[0].place[1]}"
    return said + f"{strongest}; {count} box{'es' * (count > 1)} (left, top to right, bottom): {'; '.join(shown)}{more}"


def panels(
    canvas: UInt8[Tensor, "c h w"],
    heat: Float[Tensor, "h w"],
    label: str,
    things: Sequence[Thing],
    zoom: tuple[float, float],
    answers: Sequence[Answer],
    target: int,
    kind: Kind,
) -> tuple[Panel, ...]:
    """The boxes on the picture, the response over it with the cells' borders, and the raw response."""
    boxes = []
    for thing in things:
        left, top, right, bottom = thing.corners
        said = f"{100 * thing.confidence:.0f} %"
        boxes.append(Box(left / zoom[1], top / zoom[0], right / zoom[1], bottom / zoom[0], said))
    a = answers[0]
    size, response = tuple(canvas.shape[1:]), a.response(target)
    factor = tuple(want / have for want, have in zip(size, a.size, strict=True))
    grid = a.placement(kind, tuple(response.shape)).scaled(factor).borders(tuple(response.shape))
    cells = "cells" if a.over == "cells" else "windows"
    said = (
        "the class's probability if the head sees the box alone"
        if a.over == "cells"
        else "the best window's probability"
    )
    unit = "logit" + (" (the mean + the bias is the picture's)" if a.over == "cells" else " of a window")
    return (
        Panel(
            f"{label}: found", canvas, boxes=tuple(boxes), caption=f"in the box: {said}" if boxes else "nothing found"
        ),
        Panel(
            "Response" if len(answers) == 1 else f"Response, mean of {len(answers)} scales",
            canvas,
            heat,
            signed=True,
            unit=unit,
            grid=grid,
            caption=f"lines: the {cells}' borders, {kind} placement",
        ),
        Panel(
            f"Raw, at scale {a.scale}",
            heat=response,
            signed=True,
            unit=unit,
            caption=f"{response.shape[1]} x {response.shape[0]} {cells}",
        ),
    )
