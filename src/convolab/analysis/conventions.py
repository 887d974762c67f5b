"""The totals of other tools, by their own rules, and what makes them differ from ours.

Each observer hears of every module and function of one pass and notes only where its tool counts otherwise. The rules are those
of the tools' sources: fvcore 0.1.5 and torchinfo 1.8.0 here; timm's are of its published GMACs; `conventions_by_class` has thop's
and ptflops'.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


@dataclass(frozen=True)
class Reckoning:
    """A network's total by another tool's convention."""

    convention: str
    macs: int
    differences: tuple[tuple[str, int], ...]  # what is counted otherwise, and by how much more

    def values(self) -> dict[str, Any]:
        return {"name": self.convention, "macs": self.macs, "differences": dict(self.differences)}


class Convention:
    """Ours: nothing differs. A subclass notes in `differs` what its tool counts more (or less)."""

    name = "convolab"

    def __init__(self) -> None:
        self.differs: Counter[str] = Counter()

    def module(
        self, module: nn.Module, inputs: Any, output: Any, macs: int, within: Sequence[nn.Module], *, calls_others: bool
    ) -> None:
        """A module was called, in which we counted `macs`; `within`: the modules around it."""

    def function(self, func: Callable, args: Any, kwargs: dict[str, Any], output: Any, macs: int) -> None:
        """A function of PyTorch was called, in which we counted `macs`."""

    def reckoning(self, ours: int) -> Reckoning:
        differences = tuple((what, more) for what, more in self.differs.items() if more)
        return Reckoning(self.name, ours + sum(more for _, more in differences), differences)


class Timm(Convention):
    """Published GMACs: two more for each element of a batch norm."""

    name = "timm"

    def function(self, func: Callable, args: Any, kwargs: dict[str, Any], output: Any, macs: int) -> None:
        if func is F.batch_norm:
            self.differs["batch norm, 2 an element"] += 2 * args[0].numel()


class Fvcore(Convention):
    """fvcore's FlopCountAnalysis: operations of the traced graph; one multiply-accumulate is called one flop."""

    name = "fvcore"
    COUNTED = {
        *(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)),
        "linear",
        "matmul",
        "bmm",
        "mm",
        "addmm",
    }

    def function(self, func: Callable, args: Any, kwargs: dict[str, Any], output: Any, macs: int) -> None:
        name = getattr(func, "__name__", "").strip("_")
        named = dict(zip(ARGUMENTS.get(name, ()), args, strict=False)) | kwargs
        match name:
            case "conv1d" | "conv2d" | "conv3d" if any(isinstance(value, str) for value in named.values()):
                self.differs["convolutions whose padding is a word: not counted"] -= macs
            case _ if name in self.COUNTED:
                pass
            case "batch_norm":
                training, affine = named.get("training", False), named.get("weight") is not None
                an_element = (5 if affine else 4) if training else (2 if affine else 1)
                self.differs[f"batch norm, {an_element} an element"] += an_element * args[0].numel()
            case "layer_norm" | "group_norm" | "instance_norm":
                an_element = 5 if named.get("weight") is not None else 4
                self.differs[f"{name.replace('_', ' ')}, {an_element} an element"] += an_element * args[0].numel()
            case "adaptive_avg_pool2d":
                self.differs["adaptive average pooling, 1 an input element"] += args[0].numel()
            case "interpolate" if output.ndim == 4 and named.get("mode", "nearest") in ("nearest", "bilinear"):
                an_element = 1 if named.get("mode", "nearest") == "nearest" else 4
                self.differs[f"interpolation, {an_element} an output element"] += an_element * output.numel()
            case "grid_sample":
                self.differs["grid sampling, 4 an output element"] += 4 * output.numel()
            case "einsum":
                self.differs["einsum, to four digits"] += einsum_by_path(args) - macs
            case "multi_head_attention_forward":
                self.differs["attention's matrix products, where they are fused: not counted"] -= fused_attention(
                    args, kwargs
                )
            case _ if macs:
                self.differs[f"{name}: not counted"] -= macs


ARGUMENTS = {
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias"),
    "group_norm": ("input", "num_groups", "weight", "bias"),
    "instance_norm": ("input", "running_mean", "running_var", "weight", "bias"),
    "interpolate": ("input", "size", "scale_factor", "mode"),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), ("input", "weight", "bias", "stride", "padding")),
}


def einsum_by_path(args: Any) -> int:
    """What fvcore reads from numpy's printed path: half its optimised flop count, rounded as printed."""
    import numpy as np

    equation = args[0].replace(" ", "")
    tensors = args[1] if isinstance(args[1], (list, tuple)) else args[1:]
    letters = {ord(x): 97 + i for i, x in enumerate(dict.fromkeys(c for c in equation if c.isalpha()))}
    if equation.translate(letters) in ("abc,abd->acd", "abc,adc->adb"):
        n, c, t = tensors[0].shape
        return n * c * t * tensors[1].shape[-1 if equation.translate(letters) == "abc,abd->acd" else 1]
    shapes = [np.broadcast_to(np.float32(0), t.shape) for t in tensors]
    line = next(
        line
        for line in np.einsum_path(equation, *shapes, optimize="optimal")[1].split("\n")
        if "optimized flop" in line.lower()
    )
    return int(float(line.split(":")[-1]) / 2)


def fused_attention(args: Any, kwargs: dict[str, Any]) -> int:
    """The matrix products of attention in F.multi_head_attention_forward that are one fused operation, without weights asked for."""
    query, key = args[:2]
    if kwargs.get("need_weights", True):
        return 0
    return 2 * prod(query.shape) * key.shape[0]  # [L, N, E] and [S, N, E]


class Torchinfo(Convention):
    """torchinfo's mult-adds: of modules without modules in them, by their parameters."""

    name = "torchinfo"

    def __init__(self) -> None:
        super().__init__()
        self.in_layers = 0

    def module(
        self, module: nn.Module, inputs: Any, output: Any, macs: int, within: Sequence[nn.Module], *, calls_others: bool
    ) -> None:
        if module._modules:
            return
        self.in_layers += macs
        size, kind = list(first_size(output)), type(module).__name__
        bias = 0
        theirs = 0
        for name, parameter in module.named_parameters():
            count = parameter.numel()
            if name in ("weight", "bias"):
                more = count * (prod(size[:1] + size[2:]) if "Conv" in kind else size[0])
            elif "weight" in name or "bias" in name:
                more = prod(size[:2]) * count
            else:
                more = 0
            theirs += more
            bias += more * (name == "bias" and isinstance(module, (nn.Linear, _ConvNd)))
        self.differs["biases"] += bias
        rest = theirs - bias - macs
        if isinstance(module, nn.Linear):
            self.differs["linear layers, at one position only"] += rest
        elif isinstance(module, _ConvTransposeNd):
            self.differs["transposed convolutions, at output positions"] += rest
        elif isinstance(module, _ConvNd):
            self.differs[f"{kind}, by its parameters"] += rest
        else:
            self.differs[f"{kind}, one for each parameter"] += rest

    def reckoning(self, ours: int) -> Reckoning:
        self.differs["functions, and modules that hold others: not counted"] -= ours - self.in_layers
        return super().reckoning(ours)


def first_size(output: Any) -> Sequence[int]:
    while not isinstance(output, Tensor):
        output = list(output.values())[-1] if isinstance(output, dict) else output[0]
    return output.shape
