"""Receptive-field rules of operations that go element by element, move elements, or combine them along dimensions."""

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor

from convolab.analysis.op_call import OpCall
from convolab.analysis.receptive_field.interval_map import IntervalMap
from convolab.analysis.receptive_field.propagation import (
    AxisField,
    AxisFields,
    RFRule,
    UnsupportedOpError,
    broadcast_fields,
    known_fields,
    main_fields,
    map_axes,
    reduce_dims,
    union_axis_fields,
    union_fields,
)

# Element by element


def pointwise_rule(call: OpCall) -> AxisFields | None:
    values = [*call.args, *call.kwargs.values()]
    values += [item for value in values if isinstance(value, (list, tuple)) for item in value]
    return union_fields([broadcast_fields(value, call.out.ndim) for value in values if isinstance(value, Tensor)])


def identity_rule(call: OpCall) -> AxisFields | None:
    return known_fields(call.args[0])


def constant_rule(call: OpCall) -> None:
    return None


def glu_rule(call: OpCall) -> AxisFields:
    """glu: one half of the channels times the other."""
    dim = call.integer(1, "dim", -1) % call.tensor().ndim
    fields = main_fields(call.tensor())
    if any(axis_field.dim == dim for axis_field in fields):
        raise UnsupportedOpError("glu along a spatial axis")
    return fields


# Elements moved


def reshape_rule(call: OpCall) -> AxisFields:
    value = call.tensor()
    fields = map_axes(
        main_fields(value), lambda axis_field, dim: reshape_axis(axis_field, dim, value.shape, call.out.shape)
    )
    dims = [axis_field.dim for axis_field in fields]
    return tuple(
        axis_field.list_repeats()
        if axis_field.dim is not None
        and dims.count(axis_field.dim) == 1  # else the dimension is that of a flattened tensor
        and axis_field.inner * axis_field.num_cells == call.out.shape[axis_field.dim]
        else axis_field
        for axis_field in fields
    )


def reshape_axis(axis_field: AxisField, dim: int, old_shape: Sequence[int], new_shape: Sequence[int]) -> AxisField:
    """Along which dimension an axis lies after a reshape.

    In row-major order its cells change once every `inner` elements, whatever the shape.
    """
    inner = prod(old_shape[dim + 1 :]) * axis_field.inner
    for new_dim in range(len(new_shape) - 1, -1, -1):
        below = prod(new_shape[new_dim + 1 :])
        if inner % below == 0 and below * new_shape[new_dim] % (inner * axis_field.num_cells) == 0:
            return axis_field._replace(dim=new_dim, inner=inner // below)
    raise UnsupportedOpError("a reshape that splits a spatial axis over two dimensions")


def permute_rule(call: OpCall) -> AxisFields:
    ndim = call.tensor().ndim
    order = [dim % ndim for dim in call.integers(1)]
    return map_axes(main_fields(call.tensor()), lambda axis_field, dim: axis_field._replace(dim=order.index(dim)))


def transpose_rule(call: OpCall) -> AxisFields:
    ndim = call.tensor().ndim
    a = call.integer(1, default=0) % ndim
    b = call.integer(2, default=-1) % ndim
    swap = {a: b, b: a}
    return map_axes(main_fields(call.tensor()), lambda axis_field, dim: axis_field._replace(dim=swap.get(dim, dim)))


def expand_rule(call: OpCall) -> AxisFields | None:
    return broadcast_fields(call.tensor(), call.out.ndim)


def select_rule(call: OpCall) -> AxisFields:
    value = call.tensor()
    dim = call.integer(1) % value.ndim
    return select_index(value, dim, call.integer(2) % value.shape[dim])


def select_index(value: Tensor, selected_dim: int, index: int) -> AxisFields:
    """One index of a dimension, which is gone afterwards."""

    def transform(axis_field: AxisField, dim: int) -> AxisField:
        if dim == selected_dim:
            return axis_field.collapse(axis_field.interval_at(index))
        return axis_field._replace(dim=dim - (dim > selected_dim))

    return map_axes(main_fields(value), transform)


def slice_rule(call: OpCall) -> AxisFields:
    """slice: (input, dim, start, end, step)."""
    value = call.tensor()
    dim = call.integer(1) % value.ndim
    length = value.shape[dim]
    start = call.integer(2)
    start = min(max(start + (length if start < 0 else 0), 0), length)
    return slice_dim(value, dim, start, call.integer(4, default=1), call.out.shape[dim])


def slice_dim(value: Tensor, sliced_dim: int, start: int, step: int, length: int) -> AxisFields:
    """Indices start, start + step, ... of a dimension, `length` of them."""

    def transform(axis_field: AxisField, dim: int) -> AxisField:
        if dim != sliced_dim or length == value.shape[dim]:
            return axis_field
        if axis_field.inner != 1 or axis_field.num_cells != value.shape[dim]:
            raise UnsupportedOpError("a slice across merged spatial axes")
        if length == 1:
            return axis_field.collapse(axis_field.intervals[start])
        intervals = axis_field.intervals.convolve(1, step, -start, num_cells=length)
        if intervals is None:
            raise UnsupportedOpError("a slice of a feature map with cells that depend on no pixel")
        return axis_field._replace(intervals=intervals, num_cells=length)

    return map_axes(main_fields(value), transform)


def split_rule(call: OpCall) -> list[AxisFields]:
    value = call.tensor()
    dim = call.integer(2, "dim") % value.ndim
    starts = [0]
    for piece in call.outputs():
        starts.append(starts[-1] + piece.shape[dim])
    return [slice_dim(value, dim, start, 1, end - start) for start, end in pairwise(starts)]


def unbind_rule(call: OpCall) -> list[AxisFields]:
    value = call.tensor()
    dim = call.integer(1, "dim") % value.ndim
    return [select_index(value, dim, index) for index in range(len(call.outputs()))]


def concat_rule(call: OpCall) -> AxisFields | None:
    tensors = [tensor for tensor in call.tensors() if tensor.numel()]
    dim = call.integer(1, "dim") % call.out.ndim
    inputs = [known_fields(tensor) for tensor in tensors]
    if not any(axis_field.dim == dim for fields in inputs if fields for axis_field in fields):
        return union_fields(inputs)
    template = next(fields for fields in inputs if fields)
    lengths = [tensor.shape[dim] for tensor in tensors]
    return tuple(
        concat_axis([fields[axis] if fields else None for fields in inputs], lengths, axis_field, dim)
        for axis, axis_field in enumerate(template)
    )


def concat_axis(pieces: Sequence[AxisField | None], lengths: Sequence[int], template: AxisField, dim: int) -> AxisField:
    """The field of pieces concatenated along a dimension; `lengths` are the pieces' numbers of indices."""
    known = [piece for piece in pieces if piece is not None]
    if not any(piece.dim == dim for piece in known):
        union = known[0]
        for piece in known[1:]:
            union = union_axis_fields(union, piece)
        return union
    if any(piece.dim not in (dim, None) for piece in known):
        raise UnsupportedOpError("a concatenation of feature maps with different dimension orders")
    intervals = IntervalMap.from_list(
        piece.interval_at(index) if piece else None
        for piece, length in zip(pieces, lengths, strict=True)
        for index in range(length)
    )
    return template._replace(
        intervals=intervals,
        dim=dim,
        inner=1,
        num_cells=len(intervals.first),
        has_global_path=all(piece.has_global_path for piece in known),
    )


def stack_rule(call: OpCall) -> AxisFields | None:
    new_dim = call.integer(1, "dim") % call.out.ndim
    shifted = []
    for tensor in call.tensors():
        fields = known_fields(tensor)
        shifted.append(
            fields and map_axes(fields, lambda axis_field, dim: axis_field._replace(dim=dim + (dim >= new_dim)))
        )
    return union_fields(shifted)


def flip_rule(call: OpCall) -> AxisFields:
    dims = [dim % call.out.ndim for dim in call.integers(1)]
    return map_axes(
        main_fields(call.tensor()),
        lambda axis_field, dim: permute_cells(axis_field, dim, dims, lambda cell: axis_field.num_cells - 1 - cell),
    )


def roll_rule(call: OpCall) -> AxisFields:
    dims = [dim % call.out.ndim for dim in call.integers(2, "dims")]
    shifts = dict(zip(dims, call.integers(1), strict=False))
    if not shifts:
        raise UnsupportedOpError("roll over the flattened tensor")
    return map_axes(
        main_fields(call.tensor()),
        lambda axis_field, dim: permute_cells(
            axis_field, dim, shifts, lambda cell: (cell - shifts[dim]) % axis_field.num_cells
        ),
    )


def permute_cells(
    axis_field: AxisField, dim: int, permuted_dims: Collection[int], source_cell: Callable[[int], int]
) -> AxisField:
    """The cells along a dimension in another order."""
    if dim not in permuted_dims:
        return axis_field
    if axis_field.inner != 1:
        raise UnsupportedOpError("a permutation within merged spatial axes")
    intervals = IntervalMap.from_list(axis_field.intervals[source_cell(cell)] for cell in range(axis_field.num_cells))
    return axis_field._replace(intervals=intervals)


# Elements combined along dimensions


def reduction_rule(dims_position: int) -> RFRule:
    """A reduction whose dimensions are the argument at a position; it reduces all of them where there is none.

    They are the second argument of mean, sum, amax, var, ... and the third of the vector norms, whose second is the
    order.
    """

    def rule(call: OpCall) -> AxisFields:
        value = call.tensor()
        dims = [dim % value.ndim for dim in call.integers(dims_position, "dim") or range(value.ndim)]
        keeps_dims = call.out.ndim == value.ndim

        def transform(axis_field: AxisField, dim: int) -> AxisField:
            axis_field = reduce_dims(axis_field, dims, keeps_cells=False)
            if axis_field.dim is None or keeps_dims:
                return axis_field
            return axis_field._replace(dim=dim - sum(reduced < dim for reduced in dims))

        return map_axes(main_fields(value), transform)

    return rule


def normalization_rule(normalized_dims: Callable[[OpCall], Sequence[int]]) -> RFRule:
    """Softmax, layer and group norm: they keep the shape and combine the elements along some dimensions."""

    def rule(call: OpCall) -> AxisFields:
        dims = normalized_dims(call)
        return map_axes(
            main_fields(call.tensor()), lambda axis_field, _: reduce_dims(axis_field, dims, keeps_cells=True)
        )

    return rule


def all_but_channels(call: OpCall) -> list[int]:
    return [dim for dim in range(call.tensor().ndim) if dim != 1]


def batch_norm_rule(call: OpCall) -> AxisFields:
    """Elementwise with running statistics; with those of the batch it combines all elements of a channel."""
    uses_running_statistics = call.value(5) is False
    if uses_running_statistics:
        return main_fields(call.tensor())
    return map_axes(
        main_fields(call.tensor()),
        lambda axis_field, _: reduce_dims(axis_field, all_but_channels(call), keeps_cells=True),
    )


def matmul_rule(call: OpCall) -> AxisFields | None:
    """mm and bmm, [..., n, k] x [..., k, m]; addmm and baddbmm with something added."""
    ndim = call.out.ndim
    parts = [
        sum_over(call.tensor(-2), ndim - 1),  # k of the first factor
        sum_over(call.tensor(-1), ndim - 2),  # k of the second
    ]
    if len(call.args) == 3:
        parts.append(broadcast_fields(call.tensor(0), ndim))
    return union_fields(parts)


def attention_rule(call: OpCall) -> AxisFields | None:
    """softmax(q k^T) v over the last but one dimension of each."""
    sequence_dim = call.out.ndim - 2
    return union_fields(
        [
            known_fields(call.tensor(0)),
            sum_over(call.tensor(1), sequence_dim),
            sum_over(call.tensor(2), sequence_dim),
        ]
    )


def sum_over(value: Tensor, dim: int) -> AxisFields | None:
    """The fields of a factor of a product that sums over one dimension."""
    fields = known_fields(value)
    return fields and map_axes(fields, lambda axis_field, _: reduce_dims(axis_field, [dim], keeps_cells=False))
