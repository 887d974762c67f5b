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

from convolab.analysis.receptive_field.interval_map import Windows, merged


class Place(NamedTuple):
    """How a tensor's elements see one axis of the picture.

    An element at index i of dimension `dim` belongs to cell `i // inner % cells` and sees that cell's window; with `dim` None
    all elements see the window of the only cell. `whole`: beside that, each sees the whole axis through another path.
    """

    windows: Windows
    extent: int  # pixels of the picture along the axis
    dim: int | None
    inner: int = 1
    cells: int = 1
    whole: bool = False

    @property
    def complete(self) -> bool:
        """Whether each element sees the whole axis."""
        if self.whole or self.windows.step is None:
            return self.whole or all(covers(self.windows[cell], self.extent) for cell in range(self.cells))
        return all(covers(self.windows[cell], self.extent) for cell in {0, self.cells - 1})

    def alone(self, window: tuple[int, int] | None) -> "Place":
        """No longer spread: every element sees this window."""
        if window is None:
            if not self.whole:
                raise NotFollowed("an element that sees nothing")
            window = (0, self.extent - 1)
        return self._replace(windows=Windows((window[0],), (window[1],), 0), dim=None, inner=1, cells=1)

    def at(self, index: int) -> tuple[int, int] | None:
        """The window of the elements at an index of `dim`."""
        return self.windows[index // self.inner % self.cells]


@dataclass(frozen=True)
class Lost:
    """What the elements see could not be followed."""

    why: str


Sight = tuple[Place, ...] | Lost | None  # a place an axis of the picture; None: the picture plays no part
Rule = Callable[..., Sight | list[Sight]]  # (args, kwargs, output) of the operation -> the sight of its output


class NotFollowed(Exception):
    """A rule cannot say what the elements see."""


def covers(window: tuple[int, int] | None, extent: int) -> bool:
    return window is not None and window[0] <= 0 and window[1] >= extent - 1


def at_the_input(shape: Sequence[int]) -> Sight:
    """The sight of the picture itself, [N, C, ...axes], or of a plain vector [N, n], whose one axis are its elements."""
    first = 2 if len(shape) > 2 else 1
    return tuple(
        Place(Windows((0,), (0,), 1), shape[dim], dim if shape[dim] > 1 else None, 1, shape[dim])
        for dim in range(first, len(shape))
    )


def sight_of(value: Any) -> Sight:
    return getattr(value, "sight", None) if isinstance(value, Tensor) else None


def follow(
    rule: Rule | None, name: str, args: Sequence[Any], kwargs: dict[str, Any], inputs: Sequence[Tensor], out: Any
) -> Any:
    """The sight of an operation's output (a list of them where it has several)."""
    seen = [sight for sight in map(sight_of, inputs) if sight is not None]
    if not seen:
        return None
    lost = [sight for sight in seen if type(sight) is Lost]
    if lost:  # a layer that goes element by element has the sight, lost or not, of the one before
        alike = getattr(rule, "elementwise", False) and all(sight is lost[0] for sight in seen)
        return lost[0] if alike else Lost(lost[0].why)
    try:
        if rule is None:
            raise NotFollowed(name)
        return rule(args, kwargs, out)
    except NotFollowed as reason:
        if all(place.complete for sight in seen for place in sight):  # however mixed: all elements see all there is
            return tuple(place._replace(dim=None, inner=1, cells=1, whole=True) for place in seen[0])
        return Lost(str(reason))


# From place to place


def every(places: tuple[Place, ...], change: Callable[[Place], Place]) -> tuple[Place, ...]:
    return tuple(place if place.dim is None else change(place) for place in places)


def mixed(place: Place, dims: Sequence[int], kept: bool) -> Place:
    """Elements combined along dimensions: a mean, a matrix product, a softmax (where the dimensions are `kept`)."""
    if place.dim is None or place.dim not in dims:
        return place
    window = place.windows.spanned(place.cells)
    if kept and (place.whole or covers(window, place.extent)):
        return place._replace(whole=True)
    return place.alone(window)


def joined(a: Place, b: Place) -> Place:
    """What an element sees that is computed from one of each."""
    if a == b:
        return a
    whole = a.whole or b.whole
    if a.dim is None and b.dim is None:
        return a.alone(merged(a.windows[0], b.windows[0]))._replace(whole=whole)
    if a.dim is None:
        a, b = b, a
    if b.dim is None:
        if b.complete:
            return a._replace(whole=True)
        windows = a.windows.joined(Windows(b.windows.first, b.windows.last, 0), a.cells)
        return a._replace(windows=windows, whole=whole)
    if (a.dim, a.inner, a.cells) == (b.dim, b.inner, b.cells):
        return a._replace(windows=a.windows.joined(b.windows, a.cells), whole=whole)
    # An outer product, such as of queries and keys: the element sees all that its row's does and, at least once summed, b's span.
    if covers(b.windows.spanned(b.cells), b.extent):
        return a._replace(whole=True)
    raise NotFollowed("two places of the picture meet in one element")


def join_all(sights: Sequence[tuple[Place, ...] | None]) -> tuple[Place, ...] | None:
    known = [sight for sight in sights if sight is not None]
    if not known:
        return None
    result = known[0]
    for sight in known[1:]:
        if sight is not result:
            result = tuple(map(joined, result, sight))
    return result


def broadcast(value: Any, ndim: int) -> tuple[Place, ...] | None:
    """A tensor's sight, its dimensions counted as those of a tensor of `ndim` that it is broadcast to."""
    sight = sight_of(value)
    if sight is None or value.ndim == ndim:
        return sight
    return every(sight, lambda place: place._replace(dim=place.dim + ndim - value.ndim))


def first_tensor(out: Any) -> Tensor:
    return out if isinstance(out, Tensor) else next(o for o in out if isinstance(o, Tensor))


@dataclass(frozen=True)
class Field:
    """The receptive field of a layer's cells, a value an axis of the picture, in input pixels.

    Cell i sees from `start + i * stride` to `start + i * stride + size - 1`; its centre is `centre + i * stride`. Pixels
    outside the picture are padding. `stride` is None where there is one cell. `whole`: every cell sees the whole axis.
    """

    size: tuple[int, ...]
    stride: tuple[int | float | None, ...]
    start: tuple[int | None, ...]
    whole: tuple[bool, ...]
    measured: bool = False

    @property
    def centre(self) -> tuple[float | None, ...]:
        """The middle of the first cell's field."""
        return tuple(
            None if start is None else start + (size - 1) / 2 for start, size in zip(self.start, self.size, strict=True)
        )


def field_of(sight: Sight) -> Field | str | None:
    """The field that a sight amounts to; the reason where it was lost."""
    if sight is None or type(sight) is Lost:
        return sight and sight.why
    return Field(
        tuple(place.windows.size for place in sight),
        tuple(number(place.windows.stride) if place.dim is not None else None for place in sight),
        tuple((place.at(0) or (None,))[0] for place in sight),
        tuple(place.complete for place in sight),
    )


def number(value: Fraction | None) -> int | float | None:
    return None if value is None else value.numerator if value.denominator == 1 else float(value)
