"""Receptive fields, propagated operation by operation through the traced graph.

The rules of `rules` give the cells of its inputs from which an operation computes a cell of its output. Along which
dimension the cells of an image axis lie is followed through reshapes, transpositions and slices; an operation without
a rule, or one that spreads an axis over two dimensions, makes the receptive field unknown, with the reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from torch import Tensor

from convolab.analysis.op_call import OpCall
from convolab.analysis.receptive_field.interval_map import IntervalMap, PixelInterval, interval_hull


class AxisField(NamedTuple):
    """How a tensor's elements depend on one axis of the image.

    An element at index i of dimension `dim` belongs to cell `i // inner % num_cells` and depends on the interval of
    that cell; with `dim` None all elements depend on the interval of the only cell. `has_global_path`: besides, each
    depends on the whole axis through another path.
    """

    intervals: IntervalMap
    extent: int  # pixels of the image along the axis
    dim: int | None
    inner: int = 1
    num_cells: int = 1
    has_global_path: bool = False

    @property
    def is_global(self) -> bool:
        """Whether each element depends on the whole axis."""
        if self.has_global_path:
            return True
        cells = range(self.num_cells) if self.intervals.step is None else {0, self.num_cells - 1}
        return all(covers_axis(self.intervals[cell], self.extent) for cell in cells)

    def collapse(self, interval: PixelInterval | None) -> "AxisField":
        """The field of elements that all depend on one interval, along no dimension any more."""
        if interval is None:
            if not self.has_global_path:
                raise UnsupportedOpError("an output element that depends on no pixel")
            interval = (0, self.extent - 1)
        return self._replace(intervals=IntervalMap((interval[0],), (interval[1],), 0), dim=None, inner=1, num_cells=1)

    def interval_at(self, index: int) -> PixelInterval | None:
        """The interval of the elements at an index of `dim`."""
        return self.intervals[index // self.inner % self.num_cells]

    def list_repeats(self) -> "AxisField":
        """The same with a cell for each element, where a cell was repeated, as by `repeat_interleave`."""
        if self.inner == 1:
            return self
        num_cells = self.inner * self.num_cells
        intervals = self.intervals.compose(lambda cell: [cell // self.inner], Fraction(1, self.inner), num_cells)
        if intervals is None:
            raise UnsupportedOpError("an output element that depends on no pixel")
        return self._replace(intervals=intervals, inner=1, num_cells=num_cells)


@dataclass(frozen=True)
class UnknownRF:
    """The receptive field could not be computed from the graph, and why."""

    reason: str


AxisFields: TypeAlias = tuple[AxisField, ...]  # one per image axis
RFState: TypeAlias = AxisFields | UnknownRF | None  # None: the tensor does not depend on the image
RFRule: TypeAlias = Callable[[OpCall], AxisFields | None]  # the state of an operation's output
SplitRule: TypeAlias = Callable[[OpCall], list[AxisFields]]  # of each output, for an operation with several


@dataclass(frozen=True)
class Rule:
    """How an operation passes receptive fields on."""

    of_output: RFRule | SplitRule
    is_elementwise: bool = False  # output element i is computed from input elements i only


class UnsupportedOpError(Exception):
    """A rule cannot give the receptive field of an operation's output."""


def covers_axis(interval: PixelInterval | None, extent: int) -> bool:
    """Whether an interval holds all `extent` pixels of an image axis."""
    return interval is not None and interval[0] <= 0 and interval[1] >= extent - 1


def identity_rf(shape: Sequence[int]) -> AxisFields:
    """The state of the image itself, [N, C, ...axes], or of a plain vector [N, n], whose one axis is its elements."""
    first_spatial_dim = 2 if len(shape) > 2 else 1
    return tuple(
        AxisField(IntervalMap((0,), (0,), 1), shape[dim], dim if shape[dim] > 1 else None, 1, shape[dim])
        for dim in range(first_spatial_dim, len(shape))
    )


def get_rf_state(value: object) -> RFState:
    """The state of a tensor, which is stored on it as an attribute; None for anything else."""
    return getattr(value, "rf_state", None) if isinstance(value, Tensor) else None


def set_rf_state(tensor: Tensor, rf_state: RFState) -> None:
    vars(tensor)["rf_state"] = rf_state


def known_fields(value: object) -> AxisFields | None:
    """The fields of one input of an operation; None if it does not depend on the image.

    `propagate` applies a rule only where no input is unknown, so that a rule meets fields or None.
    """
    rf_state = get_rf_state(value)
    return None if isinstance(rf_state, UnknownRF) else rf_state


def main_fields(value: object) -> AxisFields:
    """The fields of an operation's main input. Raises UnsupportedOpError if only another input depends on the image."""
    fields = known_fields(value)
    if fields is None:
        raise UnsupportedOpError("an operation whose parameters depend on the image and whose input does not")
    return fields


def propagate(rule: Rule | None, name: str, call: OpCall, inputs: Sequence[Tensor]) -> RFState | list[AxisFields]:
    """The state of an operation's output; a list with one for each output where the rule tells them apart."""
    known: list[AxisFields] = []
    unknown: list[UnknownRF] = []
    for tensor in inputs:
        rf_state = get_rf_state(tensor)
        if isinstance(rf_state, UnknownRF):
            unknown.append(rf_state)
        elif rf_state is not None:
            known.append(rf_state)
    if unknown:  # an elementwise layer shares the state object of the layer before, so that it is measured only once
        is_unchanged = rule is not None and rule.is_elementwise and not known
        same = all(rf_state is unknown[0] for rf_state in unknown)
        return unknown[0] if is_unchanged and same else UnknownRF(unknown[0].reason)
    if not known:
        return None
    try:
        if rule is None:
            raise UnsupportedOpError(name)
        return rule.of_output(call)
    except UnsupportedOpError as error:
        if all(axis_field.is_global for fields in known for axis_field in fields):
            # However the operation mixes them, all elements depend on the whole image.
            return tuple(
                axis_field._replace(dim=None, inner=1, num_cells=1, has_global_path=True) for axis_field in known[0]
            )
        return UnknownRF(str(error))


# Fields of the output from those of the inputs


def map_axes(fields: AxisFields, transform: Callable[[AxisField, int], AxisField]) -> AxisFields:
    """Apply `transform(axis_field, dim)` to the axes that lie along a dimension."""
    return tuple(
        axis_field if axis_field.dim is None else transform(axis_field, axis_field.dim) for axis_field in fields
    )


def reduce_dims(axis_field: AxisField, dims: Sequence[int], keeps_cells: bool) -> AxisField:
    """The field of elements that are combined along dimensions, as by a mean or a matrix product.

    `keeps_cells`: each element also keeps its own place, as in a softmax, whose output has the shape of its input.
    """
    if axis_field.dim is None or axis_field.dim not in dims:
        return axis_field
    interval = axis_field.intervals.hull(axis_field.num_cells)
    if keeps_cells and (axis_field.has_global_path or covers_axis(interval, axis_field.extent)):
        return axis_field._replace(has_global_path=True)
    return axis_field.collapse(interval)


def union_axis_fields(a: AxisField, b: AxisField) -> AxisField:
    """The field of an element that is computed from one element of each."""
    if a == b:
        return a
    has_global_path = a.has_global_path or b.has_global_path
    if a.dim is None and b.dim is None:
        return a.collapse(interval_hull(a.intervals[0], b.intervals[0]))._replace(has_global_path=has_global_path)
    if a.dim is None:
        a, b = b, a
    if b.dim is None:
        if b.is_global:
            return a._replace(has_global_path=True)
        intervals = a.intervals.union(IntervalMap(b.intervals.first, b.intervals.last, 0), a.num_cells)
        return a._replace(intervals=intervals, has_global_path=has_global_path)
    if (a.dim, a.inner, a.num_cells) == (b.dim, b.inner, b.num_cells):
        return a._replace(intervals=a.intervals.union(b.intervals, a.num_cells), has_global_path=has_global_path)
    # An outer product, such as of queries and keys: the element depends on all that its row depends on and, at least
    # once it is summed, on the hull of b.
    if covers_axis(b.intervals.hull(b.num_cells), b.extent):
        return a._replace(has_global_path=True)
    raise UnsupportedOpError("one element that combines two different image positions")


def union_fields(inputs: Sequence[AxisFields | None]) -> AxisFields | None:
    """The fields of elements that are computed from one element of each input."""
    known = [fields for fields in inputs if fields is not None]
    if not known:
        return None
    union = known[0]
    for fields in known[1:]:
        if fields is not union:
            union = tuple(map(union_axis_fields, union, fields))
    return union


def broadcast_fields(value: Tensor, ndim: int) -> AxisFields | None:
    """A tensor's fields, its dimensions counted as those of a tensor of `ndim` dimensions that it is broadcast to."""
    fields = known_fields(value)
    if fields is None or value.ndim == ndim:
        return fields
    return map_axes(fields, lambda axis_field, dim: axis_field._replace(dim=dim + ndim - value.ndim))
