"""Receptive fields measured: where the gradient of one cell is not zero, all weights being positive."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convolab.analysis.receptive_field.propagation import ReceptiveField
from convolab.analysis.tracer import LayerCall, Trace, Tracer
from convolab.core.rng import make_generator


def measure_by_gradient(
    network: nn.Module, shape: Sequence[int], trace_result: Trace, call_indices: Sequence[int]
) -> dict[int, ReceptiveField]:
    """The fields of the calls with these numbers in a trace, each of the cell in the middle of its output.

    A copy of the network runs in float64 with positive weights, its maxima replaced by means and its kinks smoothed, so that
    no path is shut; the network itself is only read. `start` is that of the first cell where the stride could be measured
    too, and else None. At the border of the picture a field is cut off.
    """
    tracer = SmoothTracer(all_positive_copy(network), set(call_indices))
    image = torch.rand(1, *shape, generator=make_generator("measure"), dtype=torch.float64) + 0.5
    tracer.run(image.requires_grad_())
    fields: dict[int, ReceptiveField] = {}
    field_by_rf_state: dict[int, ReceptiveField] = {}  # calls with one sight have one field
    for index in call_indices:
        rf_state, output = id(trace_result.calls[index].rf_state), tracer.kept_outputs.get(index)
        if rf_state not in field_by_rf_state and output is not None and output.requires_grad:
            field_by_rf_state[rf_state] = gradient_receptive_field(output, image)
        if rf_state in field_by_rf_state:
            fields[index] = field_by_rf_state[rf_state]
    return fields


def gradient_receptive_field(output: Tensor, image: Tensor) -> ReceptiveField:
    """The field of the middle element of `output`; its stride from the next cell's, if cells lie as in the picture."""
    center_index = [n // 2 for n in output.shape]
    first_spatial_dim = 2 if image.ndim > 2 else 1
    extents = nonzero_gradient_extent(output, center_index, image)
    size, strides, starts, is_global = [], [], [], []
    for axis, (low, high) in enumerate(extents):
        dim, extent = first_spatial_dim + axis, image.shape[first_spatial_dim + axis]
        size.append(high - low + 1)
        is_global.append(low == 0 and high == extent - 1)
        stride = None
        if output.ndim == image.ndim and output.shape[dim] > 1 and not (low == 0 or high == extent - 1):
            step = 1 if center_index[dim] + 1 < output.shape[dim] else -1
            neighbor = nonzero_gradient_extent(
                output, [m + step * (d == dim) for d, m in enumerate(center_index)], image
            )[axis]
            if neighbor[0] > 0 and neighbor[1] < extent - 1 and neighbor[0] != low:
                stride = (neighbor[0] - low) * step
        strides.append(stride)
        starts.append(None if stride is None else low - stride * center_index[dim])
    return ReceptiveField(tuple(size), tuple(strides), tuple(starts), tuple(is_global), measured=True)


def nonzero_gradient_extent(output: Tensor, index: Sequence[int], image: Tensor) -> list[tuple[int, int]]:
    """The first and last pixel, along each axis of the picture, on which an element of the output depends."""
    (gradient,) = torch.autograd.grad(output[tuple(index)], image, retain_graph=True)
    first_spatial_dim = 2 if image.ndim > 2 else 1
    extents = []
    for dim in range(first_spatial_dim, image.ndim):
        others = [d for d in range(image.ndim) if d != dim]
        is_nonzero = (
            (gradient != 0).any(dim=others[0])
            if len(others) == 1
            else (gradient != 0).movedim(dim, 0).flatten(1).any(1)
        )
        positions = is_nonzero.nonzero().flatten()
        extents.append((int(positions[0]), int(positions[-1])) if len(positions) else (0, -1))
    return extents


def all_positive_copy(network: nn.Module) -> nn.Module:
    """A copy of the network in float64 with positive weights that keep the size of what passes through."""
    network = copy.deepcopy(network).double().eval()
    for index, (name, weight) in enumerate(network.named_parameters()):
        weight.requires_grad_(False)
        if weight.ndim < 2:
            weight.zero_() if name.endswith("bias") else weight.uniform_(
                0.5, 1.5, generator=make_generator("measure", index)
            )
        else:
            weight.uniform_(0.5, 1.5, generator=make_generator("measure", index)).div_(max(weight[0].numel(), 1))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.running_mean.zero_()
            module.running_var.fill_(1)
    return network


class SmoothTracer(Tracer):
    """A tracer of a run with values that smooths functions and keeps some calls' outputs."""

    def __init__(self, network: nn.Module, kept_indices: set[int]) -> None:
        super().__init__(network, None, with_values=True)
        self.kept_indices, self.kept_outputs = kept_indices, {}

    def on_function(self, func: Callable, args: Any, kwargs: dict[str, Any]) -> Any:
        return super().on_function(SMOOTH_REPLACEMENTS.get(func, func), args, kwargs)

    def record_call(self, call: LayerCall, output: Any) -> None:
        super().record_call(call, output)
        self.current_call = call  # or copying would be a call of its own
        # A copy, because what comes next may write over the output.
        call.output_tensors = (
            [call.output_tensors[0].clone()]
            if call.output_tensors and call.output_tensors[0].is_floating_point()
            else []
        )
        self.current_call = None

    def build_trace(self) -> Trace:
        self.kept_outputs = {
            n: self.calls[n].output_tensors[0]
            for n in self.kept_indices
            if n < len(self.calls) and self.calls[n].output_tensors
        }
        return super().build_trace()


def smooth_activation(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return F.softplus(value)


def max_to_average_pool(average_pool: Callable) -> Callable:
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
            return average_pool(value, kernel_size, stride, padding, kwargs.get("ceil_mode", False))
        kernel, stride, padding, dilation = (
            (v, v) if isinstance(v, int) else v for v in (kernel_size, stride or kernel_size, padding, dilation)
        )
        weight = torch.full((value.shape[1], 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=value.dtype)
        return F.conv2d(value, weight, None, stride, padding, dilation, groups=value.shape[1])

    return pooled


def max_to_adaptive_average_pool(average_pool: Callable) -> Callable:
    return lambda value, size, *args, **kwargs: average_pool(value, size)


def amax_to_mean(value: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor:
    return value.mean() if dim is None else value.mean(dim, keepdim)


SMOOTH_REPLACEMENTS: dict[Any, Callable] = {
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
        smooth_activation,
    ),
    F.max_pool1d: max_to_average_pool(F.avg_pool1d),
    F.max_pool2d: max_to_average_pool(F.avg_pool2d),
    F.max_pool3d: max_to_average_pool(F.avg_pool3d),
    F.adaptive_max_pool1d: max_to_adaptive_average_pool(F.adaptive_avg_pool1d),
    F.adaptive_max_pool2d: max_to_adaptive_average_pool(F.adaptive_avg_pool2d),
    F.adaptive_max_pool3d: max_to_adaptive_average_pool(F.adaptive_avg_pool3d),
    **dict.fromkeys([torch.amax, Tensor.amax], amax_to_mean),
}
