"""Receptive fields measured: where the gradient of one cell is not zero, all weights being positive."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convolab.analysis.receptive_field.propagation import Field
from convolab.analysis.tracer import Call, Trace, Tracer
from convolab.core.rng import generator


def measure(network: nn.Module, shape: Sequence[int], traced: Trace, numbers: Sequence[int]) -> dict[int, Field]:
    """The fields of the calls with these numbers in a trace, each of the cell in the middle of its output.

    A copy of the network runs in float64 with positive weights, its maxima replaced by means and its kinks smoothed, so that
    no path is shut; the network itself is only read. `start` is that of the first cell where the stride could be measured
    too, and else None. At the border of the picture a field is cut off.
    """
    probe = Probe(positive(network), set(numbers))
    picture = torch.rand(1, *shape, generator=generator("measure"), dtype=torch.float64) + 0.5
    probe.run(picture.requires_grad_())
    found: dict[int, Field] = {}
    same: dict[int, Field] = {}  # calls with one sight have one field
    for number in numbers:
        sight, output = id(traced.calls[number].sight), probe.outputs.get(number)
        if sight not in same and output is not None and output.requires_grad:
            same[sight] = field_by_gradient(output, picture)
        if sight in same:
            found[number] = same[sight]
    return found


def field_by_gradient(output: Tensor, picture: Tensor) -> Field:
    """The field of the middle element of `output`; its stride from the next cell's, if cells lie as in the picture."""
    middle = [n // 2 for n in output.shape]
    first = 2 if picture.ndim > 2 else 1
    box = seen_by(output, middle, picture)
    size, strides, starts, whole = [], [], [], []
    for axis, (low, high) in enumerate(box):
        dim, extent = first + axis, picture.shape[first + axis]
        size.append(high - low + 1)
        whole.append(low == 0 and high == extent - 1)
        stride = None
        if output.ndim == picture.ndim and output.shape[dim] > 1 and not (low == 0 or high == extent - 1):
            step = 1 if middle[dim] + 1 < output.shape[dim] else -1
            beside = seen_by(output, [m + step * (d == dim) for d, m in enumerate(middle)], picture)[axis]
            if beside[0] > 0 and beside[1] < extent - 1 and beside[0] != low:
                stride = (beside[0] - low) * step
        strides.append(stride)
        starts.append(None if stride is None else low - stride * middle[dim])
    return Field(tuple(size), tuple(strides), tuple(starts), tuple(whole), measured=True)


def seen_by(output: Tensor, element: Sequence[int], picture: Tensor) -> list[tuple[int, int]]:
    """The first and last pixel, along each axis of the picture, on which an element of the output depends."""
    (gradient,) = torch.autograd.grad(output[tuple(element)], picture, retain_graph=True)
    first = 2 if picture.ndim > 2 else 1
    box = []
    for dim in range(first, picture.ndim):
        others = [d for d in range(picture.ndim) if d != dim]
        hit = (
            (gradient != 0).any(dim=others[0])
            if len(others) == 1
            else (gradient != 0).movedim(dim, 0).flatten(1).any(1)
        )
        where = hit.nonzero().flatten()
        box.append((int(where[0]), int(where[-1])) if len(where) else (0, -1))
    return box


def positive(network: nn.Module) -> nn.Module:
    """A copy of the network in float64 with positive weights that keep the size of what passes through."""
    network = copy.deepcopy(network).double().eval()
    for number, (name, weight) in enumerate(network.named_parameters()):
        weight.requires_grad_(False)
        if weight.ndim < 2:
            weight.zero_() if name.endswith("bias") else weight.uniform_(
                0.5, 1.5, generator=generator("measure", number)
            )
        else:
            weight.uniform_(0.5, 1.5, generator=generator("measure", number)).div_(max(weight[0].numel(), 1))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.running_mean.zero_()
            module.running_var.fill_(1)
    return network


class Probe(Tracer):
    """A tracer of a run with values that smooths functions and keeps some calls' outputs."""

    def __init__(self, network: nn.Module, wanted: set[int]) -> None:
        super().__init__(network, None, real=True)
        self.wanted, self.outputs = wanted, {}

    def function(self, func: Callable, args: Any, kwargs: dict[str, Any]) -> Any:
        return super().function(SMOOTH.get(func, func), args, kwargs)

    def close(self, call: Call, output: Any) -> None:
        super().close(call, output)
        self.current = call  # or copying would be a call of its own
        # A copy, because what comes next may write over the output.
        call.result = [call.result[0].clone()] if call.result and call.result[0].is_floating_point() else []
        self.current = None

    def finish(self) -> Trace:
        self.outputs = {n: self.calls[n].result[0] for n in self.wanted if n < len(self.calls) and self.calls[n].result}
        return super().finish()


def softened(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return F.softplus(value)


def mean_pool(pool: Callable) -> Callable:
    def pooled(
        value: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        if dilation in (1, (1, 1), (1,), (1, 1, 1)):
            return pool(value, kernel_size, stride, padding, kwargs.get("ceil_mode", False))
        kernel, stride, padding, dilation = (
            (v, v) if isinstance(v, int) else v for v in (kernel_size, stride or kernel_size, padding, dilation)
        )
        weight = torch.full((value.shape[1], 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=value.dtype)
        return F.conv2d(value, weight, None, stride, padding, dilation, groups=value.shape[1])

    return pooled


def adaptive_mean(pool: Callable) -> Callable:
    return lambda value, size, *args, **kwargs: pool(value, size)


def mean_of(value: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor:
    return value.mean() if dim is None else value.mean(dim, keepdim)


SMOOTH: dict[Any, Callable] = {
    **dict.fromkeys(
        [
            F.relu,
            torch.relu,
            torch.relu_,
            Tensor.relu,
            Tensor.relu_,
            F.relu6,
            F.hardtanh,
            F.hardswish,
            F.hardsigmoid,
            Tensor.clamp,
            torch.clamp,
        ],
        softened,
    ),
    F.max_pool1d: mean_pool(F.avg_pool1d),
    F.max_pool2d: mean_pool(F.avg_pool2d),
    F.max_pool3d: mean_pool(F.avg_pool3d),
    F.adaptive_max_pool1d: adaptive_mean(F.adaptive_avg_pool1d),
    F.adaptive_max_pool2d: adaptive_mean(F.adaptive_avg_pool2d),
    F.adaptive_max_pool3d: adaptive_mean(F.adaptive_avg_pool3d),
    **dict.fromkeys([torch.amax, Tensor.amax], mean_of),
}
