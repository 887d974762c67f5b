"""Rules of operations that go element by element, move elements, or combine them along dimensions; `field_rules` has the others.

A rule takes the operation's arguments and its output, and gives the sight of the output.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor

from convolab.analysis.receptive_field.interval_map import interval_map_from_list
from convolab.analysis.receptive_field.propagation import (
    AxisField,
    RFRule,
    RFState,
    UnsupportedOpError,
    broadcast_rf_state,
    first_tensor,
    get_rf_state,
    map_axes,
    reduce_dims,
    union_rf_states,
)


def pointwise_rule(args, kwargs, out) -> RFState:
    out = first_tensor(out)
    values = [*args, *kwargs.values()]
    values += [v for value in values if isinstance(value, (list, tuple)) for v in value]
    return union_rf_states([broadcast_rf_state(value, out.ndim) for value in values if isinstance(value, Tensor)])


def identity_rule(args, kwargs, out) -> RFState:
    return get_rf_state(args[0])


pointwise_rule.elementwise = identity_rule.elementwise = True


def glu_rule(args, kwargs, out) -> RFState:
    """glu: one half of the channels times the other."""
    dim = (args[1] if len(args) > 1 else -1) % args[0].ndim
    if any(axis_field.dim == dim for axis_field in get_rf_state(args[0])):
        raise UnsupportedOpError("glu along an axis")
    return get_rf_state(args[0])


def constant_rule(args, kwargs, out) -> RFState:
    return None


def reshape_rule(args, kwargs, out) -> RFState:
    return tuple(reshape_axis(axis_field, args[0].shape, out.shape) for axis_field in get_rf_state(args[0]))


def reshape_axis(axis_field: AxisField, old_shape: Sequence[int], new_shape: Sequence[int]) -> AxisField:
    """Where an axis lies after a reshape: its cells change once every `inner` elements in row-major order, whatever the shape."""
    if axis_field.dim is None:
        return axis_field
    inner = prod(old_shape[axis_field.dim + 1 :]) * axis_field.inner
    for dim in range(len(new_shape) - 1, -1, -1):
        below = prod(new_shape[dim + 1 :])
        if inner % below == 0 and below * new_shape[dim] % (inner * axis_field.num_cells) == 0:
            return axis_field._replace(dim=dim, inner=inner // below)
    raise UnsupportedOpError("a reshape that spreads an axis over two dimensions")


def permute_rule(args, kwargs, out) -> RFState:
    ndim = args[0].ndim
    order = [dim % ndim for dim in args[1]]
    return map_axes(get_rf_state(args[0]), lambda place: place._replace(dim=order.index(place.dim)))


def transpose_rule(args, kwargs, out) -> RFState:
    ndim = args[0].ndim
    a, b = (dim % ndim for dim in args[1:3]) if len(args) > 2 else (0, ndim - 1)
    swap = {a: b, b: a}
    return map_axes(get_rf_state(args[0]), lambda place: place._replace(dim=swap.get(place.dim, place.dim)))


def expand_rule(args, kwargs, out) -> RFState:
    return broadcast_rf_state(args[0], out.ndim)


def select_rule(args, kwargs, out) -> RFState:
    dim, index = args[1] % args[0].ndim, args[2] % args[0].shape[args[1]]
    return select_index(args[0], dim, index)


def select_index(value: Tensor, dim: int, index: int) -> RFState:
    """One index of a dimension, which is gone afterwards."""

    def change(axis_field: AxisField) -> AxisField:
        if axis_field.dim == dim:
            return axis_field.collapse(axis_field.interval_at(index))
        return axis_field._replace(dim=axis_field.dim - (axis_field.dim > dim))

    return map_axes(get_rf_state(value), change)


def slice_rule(args, kwargs, out) -> RFState:
    _, dim, start, _, step = (*args, *(None, 0, None, None, 1)[len(args) :])
    dim, length = (dim or 0) % args[0].ndim, args[0].shape[dim or 0]
    start = min(max((start or 0) + (length if (start or 0) < 0 else 0), 0), length)
    return slice_dim(args[0], dim, start, step or 1, out.shape[dim])


def slice_dim(value: Tensor, dim: int, start: int, step: int, length: int) -> RFState:
    """Indices start, start + step, ... of a dimension."""

    def change(axis_field: AxisField) -> AxisField:
        if axis_field.dim != dim or length == value.shape[dim]:
            return axis_field
        if axis_field.inner != 1 or axis_field.num_cells != value.shape[dim]:
            raise UnsupportedOpError("a slice across merged axes")
        if length == 1:
            return axis_field.collapse(axis_field.intervals[start])
        return axis_field._replace(
            intervals=axis_field.intervals.convolve(1, step, -start, num_cells=length), num_cells=length
        )

    return map_axes(get_rf_state(value), change)


def split_rule(args, kwargs, out) -> list[RFState]:
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % args[0].ndim
    starts = [0]
    for piece in out:
        starts.append(starts[-1] + piece.shape[dim])
    return [slice_dim(args[0], dim, start, 1, end - start) for start, end in pairwise(starts)]


def unbind_rule(args, kwargs, out) -> list[RFState]:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % args[0].ndim
    return [select_index(args[0], dim, index) for index in range(len(out))]


def concat_rule(args, kwargs, out) -> RFState:
    tensors, dim = [t for t in args[0] if t.numel()], (args[1] if len(args) > 1 else 0) % out.ndim
    rf_states = [get_rf_state(t) for t in tensors]
    if not any(axis_field.dim == dim for sight in rf_states if sight for axis_field in sight):
        return union_rf_states(rf_states)
    template = next(rf_state for rf_state in rf_states if rf_state)
    return tuple(
        concat_axis(
            [(sight[axis] if sight else None, t.shape[dim]) for sight, t in zip(rf_states, tensors, strict=True)],
            place,
            dim,
        )
        for axis, place in enumerate(template)
    )


def concat_axis(
    axis_fields_and_lengths: Sequence[tuple[AxisField | None, int]], template: AxisField, dim: int
) -> AxisField:
    """Places put one behind the other along a dimension, each so many indices long."""
    if not any(place and place.dim == dim for place, _ in axis_fields_and_lengths):
        return union_rf_states([(place,) if place else None for place, _ in axis_fields_and_lengths])[0]
    if any(axis_field and axis_field.dim not in (dim, None) for axis_field, _ in axis_fields_and_lengths):
        raise UnsupportedOpError("a concatenation of maps that lie along different dimensions")
    intervals = interval_map_from_list(
        place.interval_at(index) if place else None
        for place, length in axis_fields_and_lengths
        for index in range(length)
    )
    has_global_path = all(place is None or place.has_global_path for place, _ in axis_fields_and_lengths)
    return template._replace(
        intervals=intervals, dim=dim, inner=1, num_cells=len(intervals.first), has_global_path=has_global_path
    )


def stack_rule(args, kwargs, out) -> RFState:
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    rf_states = [get_rf_state(t) for t in args[0]]
    return union_rf_states(
        [s and map_axes(s, lambda place: place._replace(dim=place.dim + (place.dim >= dim))) for s in rf_states]
    )


def flip_rule(args, kwargs, out) -> RFState:
    dims = [dim % out.ndim for dim in args[1]]
    return map_axes(
        get_rf_state(args[0]), lambda place: permute_cells(place, dims, lambda cell: place.num_cells - 1 - cell)
    )


def roll_rule(args, kwargs, out) -> RFState:
    shifts = dict(zip([dim % out.ndim for dim in args[2]] if len(args) > 2 else [], args[1], strict=False))
    if not shifts:
        raise UnsupportedOpError("roll of all elements")
    return map_axes(
        get_rf_state(args[0]),
        lambda place: permute_cells(place, shifts, lambda cell: (cell - shifts[place.dim]) % place.num_cells),
    )


def permute_cells(axis_field: AxisField, dims: Iterable[int], source_cell: Callable[[int], int]) -> AxisField:
    """The cells along a dimension in another order."""
    if axis_field.dim not in dims:
        return axis_field
    if axis_field.inner != 1:
        raise UnsupportedOpError("merged axes put in another order")
    return axis_field._replace(
        intervals=interval_map_from_list(
            axis_field.intervals[source_cell(cell)] for cell in range(axis_field.num_cells)
        )
    )


# Elements combined along dimensions


def reduce_rule(args, kwargs, out) -> RFState:
    """mean, sum, amax, var, ...: (input, dims, keepdim)."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    ndim = args[0].ndim
    reduced_dims = (
        list(range(ndim))
        if dims is None or dims == []
        else [d % ndim for d in ([dims] if isinstance(dims, int) else dims)]
    )
    keeps_dims = first_tensor(out).ndim == ndim

    def change(axis_field: AxisField) -> AxisField:
        axis_field = reduce_dims(axis_field, reduced_dims, keeps_dims=False)
        return (
            axis_field
            if axis_field.dim is None or keeps_dims
            else axis_field._replace(dim=axis_field.dim - sum(d < axis_field.dim for d in reduced_dims))
        )

    return map_axes(get_rf_state(args[0]), change)


def normalization_rule(normalized_dims: Callable[..., Sequence[int]]) -> RFRule:
    """An operation that keeps the shape and combines the elements along some dimensions: softmax, layer and group norm."""

    def rule(args, kwargs, out) -> RFState:
        dims = normalized_dims(args)
        return map_axes(get_rf_state(args[0]), lambda place: reduce_dims(place, dims, keeps_dims=True))

    return rule


def batch_norm_rule(args, kwargs, out) -> RFState:
    uses_running_statistics = len(args) > 5 and args[5] is False
    if uses_running_statistics:
        return get_rf_state(args[0])
    return normalization_rule(lambda args: [d for d in range(args[0].ndim) if d != 1])(args, kwargs, out)


def matmul_rule(args, kwargs, out) -> RFState:
    """mm and bmm, [..., n, k] x [..., k, m]; addmm and baddbmm with something added."""
    a, b = args[-2:] if len(args) >= 2 else (None, None)
    k_of_a, k_of_b = out.ndim - 1, out.ndim - 2
    parts = []
    for value, reduced_dim in ((a, k_of_a), (b, k_of_b)):
        rf_state = get_rf_state(value)
        parts.append(
            rf_state
            and map_axes(rf_state, lambda place, gone=reduced_dim: reduce_dims(place, [gone], keeps_dims=False))
        )
    if len(args) == 3:
        parts.append(broadcast_rf_state(args[0], out.ndim))
    return union_rf_states(parts)


def attention_rule(args, kwargs, out) -> RFState:
    """softmax(q k^T) v over the last but one dimension of each."""
    q, k, v = (get_rf_state(t) for t in args[:3])
    sequence_dim = first_tensor(out).ndim - 2
    parts = [q] + [
        s and map_axes(s, lambda place: reduce_dims(place, [sequence_dim], keeps_dims=False)) for s in (k, v)
    ]
    return union_rf_states(parts)
