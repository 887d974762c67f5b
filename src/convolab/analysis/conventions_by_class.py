"""thop and ptflops, which know certain classes of modules; and the table of all conventions.

The rules are those of thop 0.1.1 and of ptflops 0.7.5 with its default backend.
"""

import dis
import sys
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from convolab.analysis.conventions import Convention, Fvcore, Reckoning, Timm, Torchinfo
from convolab.core.errors import LabError, require, suggest


class ByClass(Convention):
    """A tool that knows certain classes of modules, exactly those and no subclass of them, and counts nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.in_known = 0

    def rule(self, module: nn.Module) -> Callable | None:
        raise NotImplementedError

    def counted(self, module: nn.Module, within: Sequence[nn.Module]) -> bool:
        return True

    def module(
        self, module: nn.Module, inputs: Any, output: Any, macs: int, within: Sequence[nn.Module], *, calls_others: bool
    ) -> None:
        require(
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
    **dict.fromkeys(
        [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d], thop_conv
    ),
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
    while frame.f_globals.get("__name__") in (
        __name__,
        "convolab.analysis.tracer",
        "jaxtyping._decorator",
    ):  # the last: in the tests
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
        raise LabError(
            "--convention ptflops cannot count an attention layer that is not given query, key and value by position"
        )
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
    **dict.fromkeys(
        [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d], ptflops_conv
    ),
    **dict.fromkeys([nn.ReLU, nn.PReLU, nn.ELU, nn.LeakyReLU, nn.ReLU6, nn.GELU, nn.Upsample], elements_out),
    **dict.fromkeys(
        [
            *(
                getattr(nn, f"{kind}Pool{d}d")
                for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg")
                for d in (1, 2, 3)
            ),
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
    require(name in CONVENTIONS, f"unknown convention '{name}': {suggest(name, CONVENTIONS)}")
    return CONVENTIONS[name]()
