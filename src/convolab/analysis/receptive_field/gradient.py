"""Receptive fields by gradient: the pixels where the gradient of one cell is not zero, all weights being positive."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convolab.analysis.formulas import BATCH_NORMS
from convolab.analysis.receptive_field.interval_map import EMPTY_INTERVAL, PixelInterval
from convolab.analysis.receptive_field.result import ReceptiveField
from convolab.analysis.tracer import Function, LayerCall, Trace, Tracer
from convolab.core.rng import make_generator
from convolab.models.inference import copied_network


def measure_by_gradient(
    network: nn.Module, shape: Sequence[int], trace: Trace, call_indices: Sequence[int]
) -> dict[int, ReceptiveField]:
    """The receptive fields of the calls with these indices in a trace, each of the center cell of its output.

    A copy of the network runs in float64 with positive weights, with max replaced by mean and ReLU by softplus, so
    that no path is blocked; the network itself is not changed. `start` is that of the first cell where the stride
    could be measured too, and else None. At the border of the image a field is cut off. Raises LabError for a network
    that Python cannot copy.
    """
    tracer = SmoothTracer(all_positive_copy(network), set(call_indices))
    image = torch.rand(1, *shape, generator=make_generator("measure"), dtype=torch.float64) + 0.5
    tracer.run(image.requires_grad_())
    fields: dict[int, ReceptiveField] = {}
    field_by_rf_state: dict[int, ReceptiveField] = {}  # calls with one state have one field
    for index in call_indices:
        rf_state = id(trace.calls[index].rf_state)
        output = tracer.kept_outputs.get(index)
        if rf_state not in field_by_rf_state and output is not None and output.requires_grad:
            field_by_rf_state[rf_state] = gradient_receptive_field(output, image)
        if rf_state in field_by_rf_state:
            fields[index] = field_by_rf_state[rf_state]
    return fields


def gradient_receptive_field(output: Tensor, image: Tensor) -> ReceptiveField:
    """The field of the center element of `output`; its stride from other cells', if cells lie as in the image."""
    center_index = [n // 2 for n in output.shape]
    extents = nonzero_gradient_extent(output, center_index, image)
    strides: list[int | None] = []
    starts: list[int | None] = []
    is_global = []
    for axis, (low, high) in enumerate(extents):
        dim = first_image_dim(image) + axis
        stride = measure_stride(output, center_index, image, axis, (low, high)) if output.ndim == image.ndim else None
        strides.append(stride)
        starts.append(None if stride is None else low - stride * center_index[dim])
        is_global.append(low == 0 and high == image.shape[dim] - 1)
    return ReceptiveField(
        size=tuple(high - low + 1 for low, high in extents),
        stride=tuple(strides),
        start=tuple(starts),
        is_global=tuple(is_global),
        measured=True,
    )


def measure_stride(
    output: Tensor, center_index: Sequence[int], image: Tensor, axis: int, center_extent: PixelInterval
) -> int | None:
    """Pixels from a cell to the next along an image axis; None if it is not the same everywhere, or is not seen.

    The next cell gives the step. It holds where the cell before and the outermost cells whose fields would lie within
    the image are in their places too: after an upsampling two cells share a step, after adaptive pooling steps differ.
    """
    dim = first_image_dim(image) + axis
    center, num_cells, last_pixel = center_index[dim], output.shape[dim], image.shape[dim] - 1
    low, high = center_extent
    if num_cells == 1 or low == 0 or high == last_pixel:
        return None

    def extent_at(cell: int) -> PixelInterval:
        index = [*center_index[:dim], cell, *center_index[dim + 1 :]]
        return nonzero_gradient_extent(output, index, image)[axis]

    neighbor = center + 1 if center + 1 < num_cells else center - 1
    step = (extent_at(neighbor)[0] - low) * (neighbor - center)
    shifts = {cell: (cell - center) * step for cell in range(num_cells)}
    inner_cells = [cell for cell, shift in shifts.items() if low + shift > 0 and high + shift < last_pixel]
    if step == 0 or neighbor not in inner_cells:
        return None
    probes = {neighbor, center - 1, inner_cells[0], inner_cells[-1]} & set(inner_cells)
    is_even = all(extent_at(cell) == (low + shifts[cell], high + shifts[cell]) for cell in probes)
    return step if is_even else None


def first_image_dim(image: Tensor) -> int:
    """The dimension of the first image axis: after the channels of an image, after the batch of a plain vector."""
    return 2 if image.ndim > 2 else 1


def nonzero_gradient_extent(output: Tensor, index: Sequence[int], image: Tensor) -> list[PixelInterval]:
    """The first and last pixel, along each image axis, on which an element of the output depends."""
    (gradient,) = torch.autograd.grad(output[tuple(index)], image, retain_graph=True)
    extents = []
    for dim in range(first_image_dim(image), image.ndim):
        is_nonzero = (gradient != 0).movedim(dim, 0).flatten(1).any(1)
        positions = is_nonzero.nonzero().flatten()
        extents.append((int(positions[0]), int(positions[-1])) if len(positions) else EMPTY_INTERVAL)
    return extents


def all_positive_copy(network: nn.Module) -> nn.Module:
    """A copy of the network in float64 with positive weights, scaled so that activations keep their magnitude."""
    network = copied_network(network, "and is measured on a copy alone").double().eval()
    for index, (name, weight) in enumerate(network.named_parameters()):
        weight.requires_grad_(False)
        if weight.ndim < 2 and name.endswith("bias"):
            weight.zero_()
            continue
        weight.uniform_(0.5, 1.5, generator=make_generator("measure", index))
        if weight.ndim > 1:
            weight.div_(max(weight[0].numel(), 1))
    for module in network.modules():
        if isinstance(module, BATCH_NORMS) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.zero_()
            module.running_var.fill_(1)
    return network


class SmoothTracer(Tracer):
    """A tracer that runs with values, replaces functions by smooth ones, and keeps the outputs of some calls."""

    def __init__(self, network: nn.Module, kept_indices: set[int]) -> None:
        super().__init__(network, with_values=True)
        self.kept_indices = kept_indices
        self.kept_outputs: dict[int, Tensor] = {}

    def on_function(self, func: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        return super().on_function(SMOOTH_REPLACEMENTS.get(func, func), args, kwargs)

    def record_call(self, call: LayerCall, output: object) -> None:
        super().record_call(call, output)
        self.current_call = call  # or the clone would be recorded as another call
        # A copy, because what comes next may write over the output.
        call.output_tensors = [tensor.clone() for tensor in call.output_tensors[:1] if tensor.is_floating_point()]
        self.current_call = None

    def build_trace(self) -> Trace:
        self.kept_outputs = {
            index: self.calls[index].output_tensors[0]
            for index in self.kept_indices
            if index < len(self.calls) and self.calls[index].output_tensors
        }
        return super().build_trace()


IntOrInts = int | Sequence[int]


def smooth_activation(value: Tensor, *args: object, **kwargs: object) -> Tensor:
    """Softplus in place of an activation, whose own arguments are ignored."""
    return F.softplus(value)


def max_to_average_pool(average_pool: Callable[..., Tensor]) -> Function:
    """A function with the arguments of max pooling that averages; with dilation, as a depthwise convolution."""

    def pool(
        value: Tensor,
        kernel_size: IntOrInts,
        stride: IntOrInts | None = None,
        padding: IntOrInts = 0,
        dilation: IntOrInts = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        if dilation in (1, (1, 1), (1,), (1, 1, 1)):
            return average_pool(value, kernel_size, stride, padding, ceil_mode)
        kernel = as_pair(kernel_size)
        weight = torch.full((value.shape[1], 1, *kernel), 1 / (kernel[0] * kernel[1]), dtype=value.dtype)
        stride = as_pair(stride or kernel_size)
        return F.conv2d(value, weight, None, stride, as_pair(padding), as_pair(dilation), groups=value.shape[1])

    return pool


def as_pair(value: IntOrInts) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def max_to_adaptive_average_pool(average_pool: Callable[..., Tensor]) -> Function:
    """A function with the arguments of adaptive max pooling that averages."""
    return lambda value, size, *args, **kwargs: average_pool(value, size)


def amax_to_mean(
    value: Tensor, dim: int | tuple[int, ...] | None = None, keepdim: bool = False, **kwargs: object
) -> Tensor:
    return value.mean() if dim is None else torch.mean(value, dim, keepdim)


RELU_LIKE = (
    *(F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    *(F.relu6, F.hardtanh, F.hardswish, F.hardsigmoid, Tensor.clamp, torch.clamp),
)
SMOOTH_REPLACEMENTS: dict[Function, Function] = {
    **dict.fromkeys(RELU_LIKE, smooth_activation),
    F.max_pool1d: max_to_average_pool(F.avg_pool1d),
    F.max_pool2d: max_to_average_pool(F.avg_pool2d),
    F.max_pool3d: max_to_average_pool(F.avg_pool3d),
    F.adaptive_max_pool1d: max_to_adaptive_average_pool(F.adaptive_avg_pool1d),
    F.adaptive_max_pool2d: max_to_adaptive_average_pool(F.adaptive_avg_pool2d),
    F.adaptive_max_pool3d: max_to_adaptive_average_pool(F.adaptive_avg_pool3d),
    torch.amax: amax_to_mean,
    Tensor.amax: amax_to_mean,
}
