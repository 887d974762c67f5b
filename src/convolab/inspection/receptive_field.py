"""Where one cell of a feature map looks: its receptive field, the effective one, and what the network makes of either.

The receptive field is every pixel that the cell can depend on, by the layers' arithmetic. The effective one is where its
gradient is (Luo et al. 2016, arXiv:1701.04128): often much smaller, and different for each image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from convolab.analysis.meta import tensors_in
from convolab.analysis.summary import summarize_network
from convolab.core.errors import LabError, require, suggest
from convolab.core.types import python_values
from convolab.data.image_io import read_image, resize_image
from convolab.inspection.result import Box, Finding, Panel
from convolab.inspection.types import SinglePixels, UInt8Image
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits, frozen_eval, inference_view, top_classes

ENERGY_SHARE = 0.95  # of the gradient's energy, along each axis, that lies in the effective field
TOP_CLASSES = 3
PixelBox = tuple[int, int, int, int]  # left, top, right, bottom: from the border of the first pixel to that of the last


@dataclass(frozen=True)
class CellLayer:
    """A layer whose output has cells in rows and columns: cell i sees the pixels from start + i * stride on."""

    name: str  # the module's path in the network
    call_index: int  # 1 for its first call
    cells: tuple[int, int]
    size: tuple[int, int]
    start: tuple[int, int]
    stride: tuple[float, float]

    def nearest_cell(self, pixel: tuple[int, int]) -> tuple[int, int]:
        """The cell whose field's center is nearest to a pixel.

        >>> CellLayer("conv", 1, (4, 4), (3, 3), (-1, -1), (2.0, 2.0)).nearest_cell((5, 0))
        (2, 0)
        """
        row, column = (
            min(max(round((at - start - (size - 1) / 2) / stride), 0), cells - 1)
            for at, start, size, stride, cells in zip(
                pixel, self.start, self.size, self.stride, self.cells, strict=True
            )
        )
        return row, column

    def field(self, cell: tuple[int, int]) -> PixelBox:
        """The receptive field of a cell; it may reach beyond the image, where padding is."""
        top, left = (round(start + i * stride) for i, start, stride in zip(cell, self.start, self.stride, strict=True))
        return left, top, left + self.size[1], top + self.size[0]


_layers: WeakKeyDictionary[ImageClassifier, list[CellLayer]] = WeakKeyDictionary()  # tracing takes a second


def inspect_receptive_field(
    net: ImageClassifier,
    image: UInt8Image | Path | str,
    pixel: Sequence[int],
    *,
    layer: str | None = None,
    image_name: str | None = None,
) -> Finding:
    """The receptive field of the cell at a pixel, the effective one, and the network's classes for either patch alone.

    Several threads may look at one network at the same time, as long as nobody changes its weights. The effective field
    is the box that holds, along each axis, the middle 95 % of the energy of the gradient of half the
    squared length of the cell's values. A patch alone is cut out and resized to the network's input, whole: one that ends
    at the image's border may be stretched.

    Args:
        net: the network, which stays as it is.
        image: uint8 [C, H, W], or what `read_image` takes.
        pixel: row and column in the network's input: of its receptive fields the one centered nearest is taken.
        layer: the path of a layer in the network; by default the last one with several cells.
        image_name: what the summary calls the image.

    Returns:
        A `Finding` whose arrays are `pixels` [C, H, W] in [0, 1] and `energy` [H, W], the squared gradient; its metrics
        hold the boxes as left, top, right, bottom in pixels of the network's input.

    Raises LabError for a pixel outside the input, an unknown layer, and a network without cells.

    >>> from convolab.models.pretrained import pretrained
    >>> finding = inspect_receptive_field(pretrained("efficientnet_lite0"), "chelsea", (60, 100), layer="blocks.0.0.bn2")
    >>> finding.metrics["cell"], finding.metrics["theoretical"]["box"]
    ([30, 50], [98, 58, 105, 65])
    """
    layers = cell_layers(net)
    chosen = find_layer(layers, layer)
    height, width = net.input_size
    pixel = python_values(pixel)
    is_inside = len(pixel) == 2 and all(isinstance(n, int) for n in pixel)
    is_inside = is_inside and 0 <= pixel[0] < height and 0 <= pixel[1] < width
    require(is_inside, f"pixel {list(pixel)}: give a row below {height} and a column below {width}")
    name = image_name or (Path(image).stem if not isinstance(image, Tensor) else "the image")
    net = inference_view(net)
    pixels = net.preprocess(image if isinstance(image, Tensor) else read_image(image))
    row, column = cell = chosen.nearest_cell((pixel[0], pixel[1]))
    energy = gradient_energy(net, pixels, chosen, cell)
    network_image = (255 * pixels[0]).round().to(torch.uint8)
    theoretical = clip_box(chosen.field(cell), height, width)
    effective = energy_box(energy)
    boxes = {"theoretical": theoretical, "effective": effective}
    patches = {kind: describe_patch(net, network_image, box, name) for kind, box in boxes.items() if box}
    metrics: dict[str, Any] = {
        "image": name,
        "layer": chosen.name,
        "layers": [known.name for known in layers],
        "cells": list(chosen.cells),
        "cell": [row, column],
        "field": list(chosen.field(cell)),  # also where it reaches beyond the image
        **{kind: patches.get(kind) for kind in boxes},
    }
    return Finding(
        "receptive_field",
        summary=(
            f"{name}: cell {row}, {column} of {chosen.cells[0]} x {chosen.cells[1]} of {chosen.name}",
            *(f"{kind} receptive field {box_text(patch['box'])}: {top_text(patch)}" for kind, patch in patches.items()),
        ),
        metrics=metrics,
        arrays={"pixels": pixels[0], "energy": energy},
        panels=(field_panels(network_image, energy, boxes, patches),),
        warnings=() if effective else ("the cell does not depend on this image: its gradient is 0",),
    )


def cell_layers(net: ImageClassifier) -> list[CellLayer]:
    """The layers whose outputs have cells in rows and columns, in the order they are called. Raises LabError for none."""
    if net not in _layers:
        network = inference_view(net).network  # while a network is traced no other thread may use it
        modules = dict(network.named_modules())
        _layers[net] = [
            CellLayer(
                call.name,
                call.call_index,
                (call.output_shape[2], call.output_shape[3]),
                (field.size[0], field.size[1]),
                (field.start[0], field.start[1]),
                (float(field.stride[0]), float(field.stride[1])),
            )
            for call in summarize_network(network, (net.channels, *net.input_size)).layers
            if (field := call.receptive_field) is not None
            and len(call.output_shape) == 4
            and type(modules.get(call.name)).__name__ == call.kind
            and len(field.start) == 2
            and field.start[0] is not None
            and field.start[1] is not None
            and field.stride[0]
            and field.stride[1]
        ]
    require(_layers[net], "no layer of this network has cells in rows and columns whose receptive field is known")
    return _layers[net]


def find_layer(layers: Sequence[CellLayer], name: str | None) -> CellLayer:
    """The layer of a name, its last call; the last one for None. Raises LabError, with the nearest, for an unknown one."""
    for layer in reversed(layers):
        if name in (None, layer.name):
            return layer
    raise LabError(
        f"this network has no layer '{name}' with cells: {suggest(str(name), [layer.name for layer in layers])}"
    )


def gradient_energy(
    net: ImageClassifier, pixels: SinglePixels, layer: CellLayer, cell: tuple[int, int]
) -> Float[Tensor, "h w"]:
    """The squared gradient, summed over channels, of half the squared length of a cell's values."""
    outputs: list[Tensor] = []

    def keep_output(module: nn.Module, inputs: object, output: object) -> None:
        outputs.append(tensors_in(output)[0].clone())  # what comes next may write over it

    hook = net.network.get_submodule(layer.name).register_forward_hook(keep_output)
    try:
        with frozen_eval(net), torch.enable_grad():
            x = pixels.to(net.scale).clone().requires_grad_()
            net.forward_unchecked(x)
            values = outputs[layer.call_index - 1][0, :, cell[0], cell[1]]
            require(
                values.requires_grad, f"{layer.name} keeps no gradient: choose another layer, or compute it with one"
            )
            (gradient,) = torch.autograd.grad(values.square().sum() / 2, x)
    finally:
        hook.remove()
    require(gradient.isfinite().all(), f"the gradient of {layer.name} is not finite: choose another layer")
    return gradient[0].double().square().sum(0)


def energy_box(energy: Float[Tensor, "h w"]) -> PixelBox | None:
    """The box that holds the middle ENERGY_SHARE of an energy along each axis; None if there is no energy.

    >>> energy_box(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
    (1, 1, 3, 2)
    """
    if float(energy.sum()) <= 0:
        return None
    tail = (1 - ENERGY_SHARE) / 2
    bounds = []
    for axis in (1, 0):  # columns, rows
        shares = (energy.sum(1 - axis) / energy.sum()).cumsum(0)
        bounds.append((int((shares <= tail).sum()), min(int((shares < 1 - tail).sum()) + 1, len(shares))))
    (left, right), (top, bottom) = bounds
    return left, top, right, bottom


def clip_box(box: PixelBox, height: int, width: int) -> PixelBox | None:
    """The part of a box that is on the image; None if there is none.

    >>> clip_box((-3, 2, 4, 9), 5, 5), clip_box((7, 0, 9, 2), 5, 5)
    ((0, 2, 4, 5), None)
    """
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    return (left, top, right, bottom) if left < right and top < bottom else None


def cut_out(image: UInt8[Tensor, "c h w"], box: PixelBox) -> UInt8[Tensor, "c rows columns"]:
    left, top, right, bottom = box
    return image[:, top:bottom, left:right]


def describe_patch(
    net: ImageClassifier, network_image: UInt8[Tensor, "c h w"], box: PixelBox, name: str
) -> dict[str, Any]:
    """A box, and what the network predicts for what is in it, resized to its input."""
    patch = resize_image(cut_out(network_image, box), net.input_size, net.channels, interpolation=net.interpolation)
    logits = compute_logits(net, patch[None] / 255, image_name=f"a patch of {name}")[0]
    top = top_classes(net.classes, logits.double().softmax(0), TOP_CLASSES)
    return {"box": list(box), "top": [one.to_dict() for one in top]}


def box_text(box: Sequence[int]) -> str:
    """
    >>> box_text([0, 2, 4, 5])
    '0, 2 to 4, 5'
    """
    return f"{box[0]}, {box[1]} to {box[2]}, {box[3]}"


def top_text(patch: dict[str, Any]) -> str:
    return ", ".join(f"{one['class']} {100 * one['probability']:.1f} %" for one in patch["top"])


def field_panels(
    network_image: UInt8[Tensor, "c h w"],
    energy: Float[Tensor, "h w"],
    boxes: dict[str, PixelBox | None],
    patches: dict[str, dict[str, Any]],
) -> tuple[Panel, ...]:
    """Both fields on the network's input, the gradient's energy, and the patches alone."""
    drawn = tuple(Box(*box, label=kind) for kind, box in boxes.items() if box)
    return (
        Panel(title="Network input", image=network_image, boxes=drawn),
        Panel(title="Squared gradient of the cell", heatmap=energy.float(), colorbar_label="squared gradient"),
        *(
            Panel(title=f"{kind} patch", image=cut_out(network_image, box), caption=top_text(patches[kind]))
            for kind, box in boxes.items()
            if box
        ),
    )
