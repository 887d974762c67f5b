"""What a tensor's elements see of the picture, propagated operation by operation through the traced graph.

The rules of `field_rules` say from which cells of its inputs an operation computes a cell of its output. Where the cells of an
axis lie is known through reshapes, transpositions and slices; an operation without a rule, or one that spreads an axis over
two dimensions, loses the sight, and says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from torch import Tensor

from convolab.analysis.receptive_field.interval_map import IntervalMap, interval_hull


class AxisField(NamedTuple):
    """How a tensor's elements see one axis of the picture.

    An element at index i of dimension `dim` belongs to cell `i // inner % cells` and sees that cell's window; with `dim` None
    all elements see the window of the only cell. `whole`: beside that, each sees the whole axis through another path.
    """

    intervals: IntervalMap
    extent: int  # pixels of the picture along the axis
    dim: int | None
    inner: int = 1
    num_cells: int = 1
    has_global_path: bool = False

    @property
    def is_global(self) -> bool:
        """Whether each element sees the whole axis."""
        if self.has_global_path or self.intervals.step is None:
            return self.has_global_path or all(
                covers_axis(self.intervals[cell], self.extent) for cell in range(self.num_cells)
            )
        return all(covers_axis(self.intervals[cell], self.extent) for cell in {0, self.num_cells - 1})

    def collapse(self, interval: tuple[int, int] | None) -> "AxisField":
        """No longer spread: every element sees this window."""
        if interval is None:
            if not self.has_global_path:
                raise UnsupportedOpError("an element that sees nothing")
            interval = (0, self.extent - 1)
        return self._replace(intervals=IntervalMap((interval[0],), (interval[1],), 0), dim=None, inner=1, num_cells=1)

    def interval_at(self, index: int) -> tuple[int, int] | None:
        """The window of the elements at an index of `dim`."""
        return self.intervals[index // self.inner % self.num_cells]


@dataclass(frozen=True)
class UnknownRF:
    """What the elements see could not be followed."""

    reason: str


RFState = tuple[AxisField, ...] | UnknownRF | None  # a place an axis of the picture; None: the picture plays no part
RFRule = Callable[..., RFState | list[RFState]]  # (args, kwargs, output) of the operation -> the sight of its output


class UnsupportedOpError(Exception):
    """A rule cannot say what the elements see."""


def covers_axis(interval: tuple[int, int] | None, extent: int) -> bool:
    return interval is not None and interval[0] <= 0 and interval[1] >= extent - 1


def identity_rf(shape: Sequence[int]) -> RFState:
    """The sight of the picture itself, [N, C, ...axes], or of a plain vector [N, n], whose one axis are its elements."""
    first_spatial_dim = 2 if len(shape) > 2 else 1
    return tuple(
        AxisField(IntervalMap((0,), (0,), 1), shape[dim], dim if shape[dim] > 1 else None, 1, shape[dim])
        for dim in range(first_spatial_dim, len(shape))
    )


def get_rf_state(value: Any) -> RFState:
    return getattr(value, "sight", None) if isinstance(value, Tensor) else None


def propagate(
    rule: RFRule | None, name: str, args: Sequence[Any], kwargs: dict[str, Any], inputs: Sequence[Tensor], out: Any
) -> Any:
    """The sight of an operation's output (a list of them where it has several)."""
    rf_states = [rf_state for rf_state in map(get_rf_state, inputs) if rf_state is not None]
    if not rf_states:
        return None
    unknown = [sight for sight in rf_states if type(sight) is UnknownRF]
    if unknown:  # a layer that goes element by element has the sight, lost or not, of the one before
        is_unchanged = getattr(rule, "elementwise", False) and all(sight is unknown[0] for sight in rf_states)
        return unknown[0] if is_unchanged else UnknownRF(unknown[0].reason)
    try:
        if rule is None:
            raise UnsupportedOpError(name)
        return rule(args, kwargs, out)
    except UnsupportedOpError as reason:
        if all(
            axis_field.is_global for sight in rf_states for axis_field in sight
        ):  # however mixed: all elements see all there is
            return tuple(place._replace(dim=None, inner=1, num_cells=1, has_global_path=True) for place in rf_states[0])
        return UnknownRF(str(reason))


# From place to place


def map_axes(axis_fields: tuple[AxisField, ...], transform: Callable[[AxisField], AxisField]) -> tuple[AxisField, ...]:
    return tuple(axis_field if axis_field.dim is None else transform(axis_field) for axis_field in axis_fields)


def reduce_dims(axis_field: AxisField, dims: Sequence[int], keeps_dims: bool) -> AxisField:
    """Elements combined along dimensions: a mean, a matrix product, a softmax (where the dimensions are `kept`)."""
    if axis_field.dim is None or axis_field.dim not in dims:
        return axis_field
    interval = axis_field.intervals.hull(axis_field.num_cells)
    if keeps_dims and (axis_field.has_global_path or covers_axis(interval, axis_field.extent)):
        return axis_field._replace(has_global_path=True)
    return axis_field.collapse(interval)


def union_axis_fields(a: AxisField, b: AxisField) -> AxisField:
    """What an element sees that is computed from one of each."""
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
    # An outer product, such as of queries and keys: the element sees all that its row's does and, at least once summed, b's span.
    if covers_axis(b.intervals.hull(b.num_cells), b.extent):
        return a._replace(has_global_path=True)
    raise UnsupportedOpError("two places of the picture meet in one element")


def union_rf_states(rf_states: Sequence[tuple[AxisField, ...] | None]) -> tuple[AxisField, ...] | None:
    known = [sight for sight in rf_states if sight is not None]
    if not known:
        return None
    union = known[0]
    for rf_state in known[1:]:
        if rf_state is not union:
            union = tuple(map(union_axis_fields, union, rf_state))
    return union


def broadcast_rf_state(value: Any, ndim: int) -> tuple[AxisField, ...] | None:
    """A tensor's sight, its dimensions counted as those of a tensor of `ndim` that it is broadcast to."""
    rf_state = get_rf_state(value)
    if rf_state is None or value.ndim == ndim:
        return rf_state
    return map_axes(rf_state, lambda place: place._replace(dim=place.dim + ndim - value.ndim))


def first_tensor(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else next(o for o in out if isinstance(o, Tensor))


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a layer's cells, a value an axis of the picture, in input pixels.

    Cell i sees from `start + i * stride` to `start + i * stride + size - 1`; its centre is `centre + i * stride`. Pixels
    outside the picture are padding. `stride` is None where there is one cell. `whole`: every cell sees the whole axis.
    """

    size: tuple[int, ...]
    stride: tuple[int | float | None, ...]
    start: tuple[int | None, ...]
    is_global: tuple[bool, ...]
    measured: bool = False

    @property
    def center(self) -> tuple[float | None, ...]:
        """The middle of the first cell's field."""
        return tuple(
            None if start is None else start + (size - 1) / 2 for start, size in zip(self.start, self.size, strict=True)
        )


def to_receptive_field(rf_state: RFState) -> ReceptiveField | str | None:
    """The field that a sight amounts to; the reason where it was lost."""
    if rf_state is None or type(rf_state) is UnknownRF:
        return rf_state and rf_state.reason
    return ReceptiveField(
        tuple(axis_field.intervals.size for axis_field in rf_state),
        tuple(to_number(place.intervals.stride) if place.dim is not None else None for place in rf_state),
        tuple((place.interval_at(0) or (None,))[0] for place in rf_state),
        tuple(place.is_global for place in rf_state),
    )


def to_number(value: Fraction | None) -> int | float | None:
    return None if value is None else value.numerator if value.denominator == 1 else float(value)
