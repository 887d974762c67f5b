"""Receptive-field rules of operations that slide a window: convolution, pooling, padding, upsampling."""

from collections.abc import Callable, Sequence
from fractions import Fraction

from convolab.analysis.op_call import OpCall
from convolab.analysis.receptive_field.interval_map import IntervalMap, adaptive_pool_taps, interpolation_taps
from convolab.analysis.receptive_field.propagation import (
    AxisField,
    AxisFields,
    RFRule,
    UnsupportedOpError,
    main_fields,
    map_axes,
    reduce_dims,
)

WindowTransform = Callable[[IntervalMap, int, int], IntervalMap | None]  # (intervals, axis, num_cells) -> intervals


def slide_window(call: OpCall, transform: WindowTransform, mixes_channels: bool = True) -> AxisFields:
    """Apply `transform` to the axes along the last dimensions of [N, C, ...axes], and combine the channels."""
    value = call.tensor()
    out = call.out

    def slide(axis_field: AxisField, dim: int) -> AxisField:
        if dim == 1 and mixes_channels:
            return reduce_dims(axis_field, [1], keeps_cells=False)
        if dim < 2:
            return axis_field
        if axis_field.inner != 1 or axis_field.num_cells != value.shape[dim]:
            raise UnsupportedOpError("a sliding window across merged axes")
        num_cells = out.shape[dim]
        intervals = transform(axis_field.intervals, dim - 2, num_cells)
        if intervals is None:
            raise UnsupportedOpError("a feature map with cells that depend on no pixel")
        if num_cells == 1:
            return axis_field.collapse(intervals[0])
        return axis_field._replace(intervals=intervals, num_cells=num_cells)

    return map_axes(main_fields(value), slide)


def axis_value(values: Sequence[int], axis: int) -> int:
    """The value of an axis, from a list that has one for each or a single one for all."""
    return values[axis % len(values)]


def convolution_rule(call: OpCall) -> AxisFields:
    """convolution: (input, weight, bias, stride, padding, dilation, transposed, output padding, groups)."""
    weight = call.tensor(1)
    stride = call.integers(3)
    padding = call.integers(4)
    dilation = call.integers(5)
    if call.integer(8) > 1 and any(axis_field.dim == 1 for axis_field in main_fields(call.tensor())):
        raise UnsupportedOpError("a grouped convolution over a spatial axis as channels")

    def transform(intervals: IntervalMap, axis: int, num_cells: int) -> IntervalMap | None:
        convolve = intervals.conv_transpose if call.value(6) else intervals.convolve
        return convolve(
            weight.shape[2 + axis],
            axis_value(stride, axis),
            axis_value(padding, axis),
            dilation=axis_value(dilation, axis),
            num_cells=num_cells,
        )

    return slide_window(call, transform)


def pooling_rule(has_dilation: bool) -> RFRule:
    """(input, kernel, stride, padding, dilation or ceil_mode, ...) over the last dimensions."""

    def rule(call: OpCall) -> AxisFields:
        kernel = call.integers(1)
        stride = call.integers(2) or kernel
        padding = call.integers(3) or [0]
        dilation = (call.integers(4) if has_dilation else []) or [1]
        if call.tensor().ndim != 2 + len(kernel):
            raise UnsupportedOpError("pooling of a feature map without a batch dimension")

        def transform(intervals: IntervalMap, axis: int, num_cells: int) -> IntervalMap | None:
            return intervals.convolve(
                axis_value(kernel, axis),
                axis_value(stride, axis),
                axis_value(padding, axis),
                axis_value(dilation, axis),
                num_cells=num_cells,
            )

        return slide_window(call, transform, mixes_channels=False)

    return rule


def adaptive_pooling_rule(call: OpCall) -> AxisFields:
    value = call.tensor()

    def transform(intervals: IntervalMap, axis: int, num_cells: int) -> IntervalMap | None:
        in_size = value.shape[2 + axis]
        if in_size % num_cells == 0:
            return intervals.convolve(in_size // num_cells, in_size // num_cells, num_cells=num_cells)
        taps = adaptive_pool_taps(in_size, num_cells)
        return IntervalMap.from_list(intervals.cells_hull(taps(cell)) for cell in range(num_cells))

    return slide_window(call, transform, mixes_channels=False)


def pad_rule(call: OpCall) -> AxisFields:
    """Padding moves the cells; what it adds beyond the border counts as the continuation of the map."""
    value = call.tensor()
    pad = call.integers(1)
    pad_before = {value.ndim - 1 - i: pad[2 * i] for i in range(len(pad) // 2)}

    def transform(axis_field: AxisField, dim: int) -> AxisField:
        num_cells = call.out.shape[dim]
        if num_cells == value.shape[dim] and not pad_before.get(dim):
            return axis_field
        is_regular = axis_field.inner == 1 and axis_field.num_cells == value.shape[dim]
        if not is_regular or axis_field.intervals.step is None:
            raise UnsupportedOpError("padding across merged or irregular cells")
        intervals = axis_field.intervals.convolve(1, 1, pad_before[dim], num_cells=num_cells)
        if intervals is None:
            raise UnsupportedOpError("a feature map with cells that depend on no pixel")
        return axis_field._replace(intervals=intervals, num_cells=num_cells)

    return map_axes(main_fields(value), transform)


def upsampling_rule(mode: str) -> RFRule:
    """(input, output size, align_corners, scales...), without align_corners for the nearest modes."""

    def rule(call: OpCall) -> AxisFields:
        value = call.tensor()
        has_corners = mode in ("linear", "cubic")
        align_corners = has_corners and call.value(2) is True
        scales = call.args[3 if has_corners else 2 :]

        def transform(intervals: IntervalMap, axis: int, num_cells: int) -> IntervalMap | None:
            in_size = value.shape[2 + axis]
            if mode == "nearest" and num_cells % in_size == 0:
                return intervals.compose(lambda o: [o * in_size // num_cells], Fraction(in_size, num_cells), num_cells)
            if align_corners and mode == "cubic":
                raise UnsupportedOpError("bicubic interpolation with align_corners")
            scale = scales[axis] if len(scales) > axis else None
            taps = interpolation_taps(
                in_size,
                num_cells,
                "linear-corners" if align_corners else mode,
                scale if isinstance(scale, float) else None,
            )
            return IntervalMap.from_list(intervals.cells_hull(taps(cell)) for cell in range(num_cells))

        return slide_window(call, transform, mixes_channels=False)

    return rule


def pixel_shuffle_rule(call: OpCall) -> AxisFields:
    factor = call.integer(1)
    return slide_window(
        call, lambda intervals, _, num_cells: intervals.compose(lambda o: [o // factor], Fraction(1, factor), num_cells)
    )


def pixel_unshuffle_rule(call: OpCall) -> AxisFields:
    factor = call.integer(1)
    return slide_window(call, lambda intervals, _, num_cells: intervals.convolve(factor, factor, num_cells=num_cells))
