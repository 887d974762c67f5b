"""The totals of other tools, by their own rules, and what makes them differ from ours.

Each observer hears of every module and function of one pass and notes only where its tool counts otherwise. The rules are those
of the tools' sources: fvcore 0.1.5, torchinfo 1.8.0, thop 0.1.1, ptflops 0.7.5 with its default backend; timm's are of its
published GMACs.
"""

import dis
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from convolab.ground.errors import LabError, nearest, need


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

    def module(self, module: nn.Module, inputs: Any, output: Any, macs: int, within: Sequence[nn.Module], *, calls_others: bool) -> None:
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
    COUNTED = {*(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)), "linear", "matmul", "bmm", "mm", "addmm"}

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
                self.differs["attention's matrix products, where they are fused: not counted"] -= fused_attention(args, kwargs)
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
    line = next(line for line in np.einsum_path(equation, *shapes, optimize="optimal")[1].split("\n") if "optimized flop" in line.lower())
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

    def module(self, module: nn.Module, inputs: Any, output: Any, macs: int, within: Sequence[nn.Module], *, calls_others: bool) -> None:
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


class ByClass(Convention):
    """A tool that knows certain classes of modules, exactly those and no subclass of them, and counts nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.in_known = 0

    def rule(self, module: nn.Module) -> Callable | None:
        raise NotImplementedError

    def counted(self, module: nn.Module, within: Sequence[nn.Module]) -> bool:
        return True

    def module(self, module: nn.Module, inputs: Any, output: Any, macs: int, within: Sequence[nn.Module], *, calls_others: bool) -> None:
        need(
            not isinstance(module, (nn.RNNBase, nn.RNNCellBase)),
            f"--convention {self.name} has rules of its own for recurrent layers, which are not reproduced: leave it out",
        )
        rule = self.rule(module)
        if rule and self.counted(module, within):
            if not calls_others:
                self.in_known += macs
            theirs = rule(module, inputs, output)
            self.differs[f"{type(module).__name__}"] += theirs - (0 if calls_others else macs)

    def reckoning(self, ours: int) -> Reckoning:
        self.differs["functions, and layers of other classes: not counted"] -= ours - self.in_known
        return super().reckoning(ours)


class Thop(ByClass):
    """thop's profile: convolutions at output positions, no bias; 2 or 4 an element of a norm; pooling and softmax too."""

    name = "thop"

    def rule(self, module: nn.Module) -> Callable | None:
        return THOP.get(type(module))


def thop_conv(module: _ConvNd, inputs: Any, output: Tensor) -> int:
    return prod(output.shape) * (inputs[0].shape[1] // module.groups) * prod(module.weight.shape[2:])


def thop_norm(module: nn.Module, inputs: Any, output: Tensor) -> int:
    affine = getattr(module, "affine", False) or getattr(module, "elementwise_affine", False)
    return inputs[0].numel() * (4 if affine else 2)


def thop_adaptive(module: nn.Module, inputs: Any, output: Tensor) -> int:
    kernel = prod(a / b for a, b in zip(inputs[0].shape[2:], output.shape[2:], strict=True))
    return int((kernel + 1) * output.numel())


def thop_softmax(module: nn.Softmax, inputs: Any, output: Tensor) -> int:
    features = inputs[0].shape[module.dim]
    return inputs[0].numel() // features * (3 * features - 1)


def thop_upsample(module: nn.Upsample, inputs: Any, output: Tensor) -> int:
    return output.numel() * {"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}.get(module.mode, 0)


THOP: dict[type, Callable] = {
    **dict.fromkeys([nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d], thop_conv),
    **dict.fromkeys(
        [
            nn.BatchNorm1d,
            nn.BatchNorm2d,
            nn.BatchNorm3d,
            nn.SyncBatchNorm,
            nn.LayerNorm,
            nn.InstanceNorm1d,
            nn.InstanceNorm2d,
            nn.InstanceNorm3d,
        ],
        thop_norm,
    ),
    nn.PReLU: lambda module, inputs, output: inputs[0].numel(),
    nn.Softmax: thop_softmax,
    **dict.fromkeys([nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d], lambda module, inputs, output: output.numel()),
    **dict.fromkeys([nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d], thop_adaptive),
    nn.Linear: lambda module, inputs, output: module.in_features * output.numel(),
    **dict.fromkeys([nn.Upsample, nn.UpsamplingBilinear2d, nn.UpsamplingNearest2d], thop_upsample),
}


class Ptflops(ByClass):
    """ptflops' get_model_complexity_info: modules by class, and some functions too, also those that modules call."""

    name = "ptflops"

    def __init__(self) -> None:
        super().__init__()
        self.classes = PTFLOPS | attention_of_timm()

    def rule(self, module: nn.Module) -> Callable | None:
        return self.classes.get(type(module))

    def counted(self, module: nn.Module, within: Sequence[nn.Module]) -> bool:
        return not any(type(outer) in self.classes for outer in within)  # a module it knows hides those inside

    def function(self, func: Callable, args: Any, kwargs: dict[str, Any], output: Any, macs: int) -> None:
        name = getattr(func, "__name__", "")
        if func in PTFLOPS_FUNCTIONS:
            self.differs[f"F.{name}, 1 an input element, beside what the layer counts"] += args[0].numel()
        elif func is F.interpolate:
            self.differs["F.interpolate, 1 an output element, beside what the layer counts"] += output.numel()
        elif name in ("matmul", "mm", "bmm") and not by_operator():
            self.differs["matrix products called by name"] += prod(args[0].shape) * args[1].shape[-1]
        elif name in ("addmm", "baddbmm"):
            self.differs["matrix products called by name"] += prod(args[1].shape) * args[2].shape[-1] + args[0].numel()
        elif name in ("mul", "add") and not by_operator():
            self.differs["sums and products called by name, 1 an element"] += output.numel()
        elif name == "multi_head_attention_forward" and kwargs.get("need_weights", True):
            length, batch, width = args[0].shape
            products = 2 * length * batch * width * args[1].shape[0]
            softmax = batch * args[4] * length * args[1].shape[0]
            self.differs["attention's matrix products and softmax, beside what the layer counts"] += products + softmax


def by_operator() -> bool:
    """Whether Python called by an operator such as @ and not by a name, as the calling code tells."""
    frame = sys._getframe()
    while frame.f_globals.get("__name__") in (__name__, "convolab.nets.tracing", "jaxtyping._decorator"):  # the last: in the tests
        frame = frame.f_back
    return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith("BINARY")


def elements_in(module: nn.Module, inputs: Any, output: Any) -> int:
    return inputs[0].numel()


def elements_out(module: nn.Module, inputs: Any, output: Tensor) -> int:
    return output.numel()


def ptflops_conv(module: _ConvNd, inputs: Any, output: Tensor) -> int:
    positions = inputs[0] if isinstance(module, _ConvTransposeNd) else output
    kernel = prod(module.kernel_size) * module.in_channels * (module.out_channels // module.groups)
    return kernel * positions.shape[0] * prod(positions.shape[2:]) + (output.numel() if module.bias is not None else 0)


def ptflops_linear(module: nn.Linear, inputs: Any, output: Tensor) -> int:
    bias = output.shape[-1] if module.bias is not None else 0
    return (inputs[0].shape[-1] * output.shape[-1] + bias) * prod(inputs[0].shape[:-1])


def ptflops_norm(module: nn.Module, inputs: Any, output: Tensor) -> int:
    return inputs[0].numel() * (2 if getattr(module, "affine", False) else 1)


def ptflops_attention(module: nn.MultiheadAttention, inputs: Any, output: Any) -> int:
    if len(inputs) < 3:
        raise LabError("--convention ptflops cannot count an attention layer that is not given query, key and value by position")
    query, key, value = inputs[:3]
    length, batch = (1, 0) if module.batch_first else (0, 1)
    q, k, v = (t.shape[length] for t in (query, key, value))
    wide, width = query.shape[2], value.shape[2]
    total = q * wide + q * wide * wide + k * key.shape[2] ** 2 + v * width**2
    total += (q + k + v) * wide if module.in_proj_bias is not None else 0
    total += module.num_heads * (q * k * (wide // module.num_heads) + q * k + q * k * (width // module.num_heads))
    return (total + q * width * (width + 1)) * query.shape[batch]


def ptflops_timm_attention(module: Any, inputs: Any, output: Any) -> int:
    batch, tokens, _ = inputs[0].shape
    return batch * module.num_heads * (tokens * module.head_dim + tokens * tokens * (2 * module.head_dim + 1))


def attention_of_timm() -> dict[type, Callable]:
    try:
        from timm.models.vision_transformer import Attention
    except ImportError:
        return {}
    return {Attention: ptflops_timm_attention}


PTFLOPS: dict[type, Callable] = {
    **dict.fromkeys([nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d], ptflops_conv),
    **dict.fromkeys([nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6, nn.GELU, nn.Upsample], elements_out),
    **dict.fromkeys(
        [
            *(getattr(nn, f"{kind}Pool{d}d") for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg") for d in (1, 2, 3)),
        ],
        elements_in,
    ),
    **dict.fromkeys(
        [
            nn.BatchNorm1d,
            nn.BatchNorm2d,
            nn.BatchNorm3d,
            nn.InstanceNorm1d,
            nn.InstanceNorm2d,
            nn.InstanceNorm3d,
            nn.GroupNorm,
            nn.LayerNorm,
        ],
        ptflops_norm,
    ),
    nn.Linear: ptflops_linear,
    nn.MultiheadAttention: ptflops_attention,
}

PTFLOPS_FUNCTIONS = {
    F.relu,
    F.prelu,
    F.elu,
    F.relu6,
    F.gelu,
    F.silu,
    F.softmax,
    *(getattr(F, f"{kind}_pool{d}d") for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for d in (1, 2, 3)),
}

CONVENTIONS: dict[str, type[Convention]] = {kind.name: kind for kind in (Fvcore, Torchinfo, Thop, Ptflops, Timm)}


def observer(name: str) -> Convention:
    """The observer for a tool's convention. Raises LabError for an unknown one."""
    need(name in CONVENTIONS, f"unknown convention '{name}': {nearest(name, CONVENTIONS)}")
    return CONVENTIONS[name]()
