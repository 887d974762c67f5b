"""From which cells of its inputs each of PyTorch's operations computes a cell of its output.

Operations are named as below PyTorch's autograd, where few kinds are left; a rule takes the operation's arguments and output.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from convolab.analysis.receptive_field.interval_map import (
    IntervalMap,
    adaptive_pool_taps,
    interpolation_taps,
    interval_map_from_list,
)
from convolab.analysis.receptive_field.propagation import (
    AxisField,
    RFRule,
    RFState,
    UnsupportedOpError,
    first_tensor,
    get_rf_state,
    map_axes,
    reduce_dims,
)
from convolab.analysis.receptive_field.shape_rules import (
    attention_rule,
    batch_norm_rule,
    concat_rule,
    constant_rule,
    expand_rule,
    flip_rule,
    glu_rule,
    identity_rule,
    matmul_rule,
    normalization_rule,
    permute_rule,
    pointwise_rule,
    reduce_rule,
    reshape_rule,
    roll_rule,
    select_rule,
    slice_rule,
    split_rule,
    stack_rule,
    transpose_rule,
    unbind_rule,
)

# Windows that slide


def slide_window(
    value: Tensor,
    transform: Callable[[IntervalMap, int, int], IntervalMap | None],
    out: Tensor,
    mixes_channels: bool = True,
) -> RFState:
    """Apply `slide(windows, axis, cells)` to the places on the last dimensions, [N, C, ...axes]; combine the channels."""

    def change(axis_field: AxisField) -> AxisField:
        if axis_field.dim == 1 and mixes_channels:
            return reduce_dims(axis_field, [1], keeps_dims=False)
        if axis_field.dim < 2:
            return axis_field
        if axis_field.inner != 1 or axis_field.num_cells != value.shape[axis_field.dim]:
            raise UnsupportedOpError("a sliding window across merged axes")
        cells = out.shape[axis_field.dim]
        intervals = transform(axis_field.intervals, axis_field.dim - 2, cells)
        if intervals is None:
            raise UnsupportedOpError("a map with cells that see nothing")
        if cells == 1:
            return axis_field.collapse(intervals[0])
        return axis_field._replace(intervals=intervals, num_cells=cells)

    return map_axes(get_rf_state(value), change)


def axis_value(values: Sequence[int] | int, axis: int) -> int:
    return values if isinstance(values, int) else values[axis % len(values)]


def convolution_rule(args, kwargs, out) -> RFState:
    value, weight, _, stride, padding, dilation, is_transposed, _, groups = args
    if groups > 1 and any(axis_field.dim == 1 for axis_field in get_rf_state(value)):
        raise UnsupportedOpError("a grouped convolution with an axis for channels")

    def slide(intervals: IntervalMap, number: int, cells: int) -> IntervalMap | None:
        convolve = intervals.conv_transpose if is_transposed else intervals.convolve
        return convolve(
            weight.shape[2 + number],
            axis_value(stride, number),
            axis_value(padding, number),
            dilation=axis_value(dilation, number),
            num_cells=cells,
        )

    return slide_window(value, slide, out)


def pooling_rule(has_dilation: bool) -> RFRule:
    """(input, kernel, stride, padding, dilation or ceil_mode, ...) over the last dimensions."""

    def rule(args, kwargs, out) -> RFState:
        value, kernel, stride, padding, dilation = (*args[:5], *([], 0, 1)[max(len(args[:5]) - 2, 0) :])
        dilation = dilation if has_dilation else 1
        out = first_tensor(out)
        missing_dims = 2 + len(kernel) - value.ndim  # a map without a batch, [C, ...axes]
        if missing_dims:
            raise UnsupportedOpError("pooling of a map without a batch dimension")

        def slide(intervals: IntervalMap, number: int, cells: int) -> IntervalMap | None:
            return intervals.convolve(
                axis_value(kernel, number),
                axis_value(stride or kernel, number),
                axis_value(padding, number),
                axis_value(dilation, number),
                num_cells=cells,
            )

        return slide_window(value, slide, out, mixes_channels=False)

    return rule


def adaptive_pooling_rule(args, kwargs, out) -> RFState:
    value, out = args[0], first_tensor(out)

    def slide(intervals: IntervalMap, number: int, cells: int) -> IntervalMap | None:
        in_size = value.shape[2 + number]
        if in_size % cells == 0:
            return intervals.convolve(in_size // cells, in_size // cells, num_cells=cells)
        taps = adaptive_pool_taps(in_size, cells)
        return interval_map_from_list(intervals.cells_hull(taps(cell)) for cell in range(cells))

    return slide_window(value, slide, out, mixes_channels=False)


def pad_rule(args, kwargs, out) -> RFState:
    """Padding moves the cells; what stands beyond the border counts as the map's continuation."""
    value, pad = args[:2]
    pad_before = {value.ndim - 1 - i: pad[2 * i] for i in range(len(pad) // 2)}

    def change(axis_field: AxisField) -> AxisField:
        cells = out.shape[axis_field.dim]
        if cells == value.shape[axis_field.dim] and not pad_before.get(axis_field.dim):
            return axis_field
        if (
            axis_field.inner != 1
            or axis_field.num_cells != value.shape[axis_field.dim]
            or axis_field.intervals.step is None
        ):
            raise UnsupportedOpError("padding across merged or uneven cells")
        return axis_field._replace(
            intervals=axis_field.intervals.convolve(1, 1, pad_before[axis_field.dim], num_cells=cells), num_cells=cells
        )

    return map_axes(get_rf_state(value), change)


def upsampling_rule(mode: str) -> RFRule:
    def rule(args, kwargs, out) -> RFState:
        value, out = args[0], first_tensor(out)
        align_corners = mode in ("linear", "cubic") and len(args) > 2 and args[2] is True
        scales = args[3 if mode in ("linear", "cubic") else 2 :]

        def slide(intervals: IntervalMap, number: int, cells: int) -> IntervalMap | None:
            in_size = value.shape[2 + number]
            if mode == "nearest" and cells % in_size == 0:
                return intervals.compose(lambda o: [o * in_size // cells], Fraction(in_size, cells), cells)
            if align_corners and mode == "cubic":
                raise UnsupportedOpError("bicubic interpolation with align_corners")
            scale = scales[number] if len(scales) > number else None
            taps = interpolation_taps(in_size, cells, "linear-corners" if align_corners else mode, scale)
            return interval_map_from_list(intervals.cells_hull(taps(cell)) for cell in range(cells))

        return slide_window(value, slide, out, mixes_channels=False)

    return rule


def pixel_shuffle_rule(args, kwargs, out) -> RFState:
    value, factor = args[:2]
    return slide_window(
        value, lambda windows, _, cells: windows.compose(lambda o: [o // factor], Fraction(1, factor), cells), out
    )


def pixel_unshuffle_rule(args, kwargs, out) -> RFState:
    value, factor = args[:2]
    return slide_window(value, lambda windows, _, cells: windows.convolve(factor, factor, num_cells=cells), out)


RF_RULES: dict[str, RFRule] = {
    **dict.fromkeys(
        [
            "view",
            "_unsafe_view",
            "reshape",
            "_reshape_alias",
            "squeeze",
            "unsqueeze",
            "flatten",
            "unflatten",
            "view_as",
        ],
        reshape_rule,
    ),
    **dict.fromkeys(["alias", "detach", "contiguous", "clone", "_to_copy", "lift_fresh", "dropout"], identity_rule),
    **dict.fromkeys(
        [
            "zeros_like",
            "ones_like",
            "empty_like",
            "full_like",
            "rand_like",
            "randn_like",
            "new_zeros",
            "new_ones",
            "new_empty",
            "new_full",
        ],
        constant_rule,
    ),
    **dict.fromkeys(["zero_", "fill_", "new_empty_strided", "empty_strided"], constant_rule),
    **dict.fromkeys(["hardswish", "_prelu_kernel", "log_sigmoid_forward", "rrelu_with_noise"], pointwise_rule),
    "glu": glu_rule,
    "permute": permute_rule,
    **dict.fromkeys(("transpose", "t", "numpy_T"), transpose_rule),
    "expand": expand_rule,
    "select": select_rule,
    "slice": slice_rule,
    **dict.fromkeys(
        ["split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk"], split_rule
    ),
    "unbind": unbind_rule,
    "cat": concat_rule,
    "stack": stack_rule,
    "flip": flip_rule,
    "roll": roll_rule,
    **dict.fromkeys(
        [
            "mean",
            "sum",
            "amax",
            "amin",
            "max",
            "min",
            "var",
            "std",
            "var_mean",
            "std_mean",
            "logsumexp",
            "linalg_vector_norm",
            "norm",
            "any",
            "all",
        ],
        reduce_rule,
    ),
    **dict.fromkeys(
        ["_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax"],
        normalization_rule(lambda args: [args[1] % args[0].ndim]),
    ),
    "native_layer_norm": normalization_rule(lambda args: range(args[0].ndim - len(args[1]), args[0].ndim)),
    "_fused_rms_norm": normalization_rule(lambda args: range(args[0].ndim - len(args[1]), args[0].ndim)),
    "native_group_norm": normalization_rule(lambda args: range(1, args[0].ndim)),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), batch_norm_rule),
    **dict.fromkeys(["mm", "bmm", "addmm", "baddbmm"], matmul_rule),
    **dict.fromkeys(
        [
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
        ],
        attention_rule,
    ),
    "convolution": convolution_rule,
    **dict.fromkeys(
        [f"max_pool{d}d_with_indices" for d in (2, 3)] + ["max_pool2d", "max_pool3d", "max_pool1d"], pooling_rule(True)
    ),
    **dict.fromkeys([f"avg_pool{d}d" for d in (1, 2, 3)], pooling_rule(False)),
    **dict.fromkeys(
        ["_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"],
        adaptive_pooling_rule,
    ),
    **dict.fromkeys(
        ["constant_pad_nd", *(f"{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3))], pad_rule
    ),
    **dict.fromkeys([f"upsample_nearest{d}d" for d in (1, 2, 3)], upsampling_rule("nearest")),
    **dict.fromkeys([f"_upsample_nearest_exact{d}d" for d in (1, 2, 3)], upsampling_rule("nearest-exact")),
    **dict.fromkeys(["upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"], upsampling_rule("linear")),
    "upsample_bicubic2d": upsampling_rule("cubic"),
    "pixel_shuffle": pixel_shuffle_rule,
    "pixel_unshuffle": pixel_unshuffle_rule,
}


def find_rf_rule(func: torch._ops.OpOverload, name: str) -> RFRule | None:
    """The rule of an operation: its own, or the elementwise one for all that PyTorch tags so."""
    if name in RF_RULES:
        return RF_RULES[name]
    return pointwise_rule if torch.Tag.pointwise in func.tags else None
