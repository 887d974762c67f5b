"""Rules of operations that go element by element, move elements, or combine them along dimensions; `field_rules` has the others.

A rule takes the operation's arguments and its output, and gives the sight of the output.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor

from convolab.analysis.receptive_field.interval_map import listed
from convolab.analysis.receptive_field.propagation import (
    NotFollowed,
    Place,
    Rule,
    Sight,
    broadcast,
    every,
    first_tensor,
    join_all,
    mixed,
    sight_of,
)


def pointwise(args, kwargs, out) -> Sight:
    out = first_tensor(out)
    values = [*args, *kwargs.values()]
    values += [v for value in values if isinstance(value, (list, tuple)) for v in value]
    return join_all([broadcast(value, out.ndim) for value in values if isinstance(value, Tensor)])


def same(args, kwargs, out) -> Sight:
    return sight_of(args[0])


pointwise.elementwise = same.elementwise = True


def gated(args, kwargs, out) -> Sight:
    """glu: one half of the channels times the other."""
    dim = (args[1] if len(args) > 1 else -1) % args[0].ndim
    if any(place.dim == dim for place in sight_of(args[0])):
        raise NotFollowed("glu along an axis")
    return sight_of(args[0])


def nothing(args, kwargs, out) -> Sight:
    return None


def reshaped(args, kwargs, out) -> Sight:
    return tuple(placed_anew(place, args[0].shape, out.shape) for place in sight_of(args[0]))


def placed_anew(place: Place, old: Sequence[int], new: Sequence[int]) -> Place:
    """Where an axis lies after a reshape: its cells change once every `inner` elements in row-major order, whatever the shape."""
    if place.dim is None:
        return place
    inner = prod(old[place.dim + 1 :]) * place.inner
    for dim in range(len(new) - 1, -1, -1):
        below = prod(new[dim + 1 :])
        if inner % below == 0 and below * new[dim] % (inner * place.cells) == 0:
            return place._replace(dim=dim, inner=inner // below)
    raise NotFollowed("a reshape that spreads an axis over two dimensions")


def permuted(args, kwargs, out) -> Sight:
    ndim = args[0].ndim
    order = [dim % ndim for dim in args[1]]
    return every(sight_of(args[0]), lambda place: place._replace(dim=order.index(place.dim)))


def transposed(args, kwargs, out) -> Sight:
    ndim = args[0].ndim
    a, b = (dim % ndim for dim in args[1:3]) if len(args) > 2 else (0, ndim - 1)
    swap = {a: b, b: a}
    return every(sight_of(args[0]), lambda place: place._replace(dim=swap.get(place.dim, place.dim)))


def expanded(args, kwargs, out) -> Sight:
    return broadcast(args[0], out.ndim)


def selected(args, kwargs, out) -> Sight:
    dim, index = args[1] % args[0].ndim, args[2] % args[0].shape[args[1]]
    return taken(args[0], dim, index)


def taken(value: Tensor, dim: int, index: int) -> Sight:
    """One index of a dimension, which is gone afterwards."""

    def change(place: Place) -> Place:
        if place.dim == dim:
            return place.alone(place.at(index))
        return place._replace(dim=place.dim - (place.dim > dim))

    return every(sight_of(value), change)


def sliced(args, kwargs, out) -> Sight:
    _, dim, start, _, step = (*args, *(None, 0, None, None, 1)[len(args) :])
    dim, length = (dim or 0) % args[0].ndim, args[0].shape[dim or 0]
    start = min(max((start or 0) + (length if (start or 0) < 0 else 0), 0), length)
    return part(args[0], dim, start, step or 1, out.shape[dim])


def part(value: Tensor, dim: int, start: int, step: int, length: int) -> Sight:
    """Indices start, start + step, ... of a dimension."""

    def change(place: Place) -> Place:
        if place.dim != dim or length == value.shape[dim]:
            return place
        if place.inner != 1 or place.cells != value.shape[dim]:
            raise NotFollowed("a slice across merged axes")
        if length == 1:
            return place.alone(place.windows[start])
        return place._replace(windows=place.windows.convolved(1, step, -start, cells=length), cells=length)

    return every(sight_of(value), change)


def pieces(args, kwargs, out) -> list[Sight]:
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % args[0].ndim
    starts = [0]
    for piece in out:
        starts.append(starts[-1] + piece.shape[dim])
    return [part(args[0], dim, start, 1, end - start) for start, end in pairwise(starts)]


def unbound(args, kwargs, out) -> list[Sight]:
    dim = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % args[0].ndim
    return [taken(args[0], dim, index) for index in range(len(out))]


def concatenated(args, kwargs, out) -> Sight:
    tensors, dim = [t for t in args[0] if t.numel()], (args[1] if len(args) > 1 else 0) % out.ndim
    sights = [sight_of(t) for t in tensors]
    if not any(place.dim == dim for sight in sights if sight for place in sight):
        return join_all(sights)
    template = next(sight for sight in sights if sight)
    return tuple(
        strung(
            [(sight[axis] if sight else None, t.shape[dim]) for sight, t in zip(sights, tensors, strict=True)],
            place,
            dim,
        )
        for axis, place in enumerate(template)
    )


def strung(several: Sequence[tuple[Place | None, int]], template: Place, dim: int) -> Place:
    """Places put one behind the other along a dimension, each so many indices long."""
    if not any(place and place.dim == dim for place, _ in several):
        return join_all([(place,) if place else None for place, _ in several])[0]
    if any(place and place.dim not in (dim, None) for place, _ in several):
        raise NotFollowed("a concatenation of maps that lie along different dimensions")
    windows = listed(place.at(index) if place else None for place, length in several for index in range(length))
    whole = all(place is None or place.whole for place, _ in several)
    return template._replace(windows=windows, dim=dim, inner=1, cells=len(windows.first), whole=whole)


def stacked(args, kwargs, out) -> Sight:
    dim = (args[1] if len(args) > 1 else 0) % out.ndim
    sights = [sight_of(t) for t in args[0]]
    return join_all([s and every(s, lambda place: place._replace(dim=place.dim + (place.dim >= dim))) for s in sights])


def flipped(args, kwargs, out) -> Sight:
    dims = [dim % out.ndim for dim in args[1]]
    return every(sight_of(args[0]), lambda place: reordered(place, dims, lambda cell: place.cells - 1 - cell))


def rolled(args, kwargs, out) -> Sight:
    shifts = dict(zip([dim % out.ndim for dim in args[2]] if len(args) > 2 else [], args[1], strict=False))
    if not shifts:
        raise NotFollowed("roll of all elements")
    return every(
        sight_of(args[0]), lambda place: reordered(place, shifts, lambda cell: (cell - shifts[place.dim]) % place.cells)
    )


def reordered(place: Place, dims: Iterable[int], origin: Callable[[int], int]) -> Place:
    """The cells along a dimension in another order."""
    if place.dim not in dims:
        return place
    if place.inner != 1:
        raise NotFollowed("merged axes put in another order")
    return place._replace(windows=listed(place.windows[origin(cell)] for cell in range(place.cells)))


# Elements combined along dimensions


def combined(args, kwargs, out) -> Sight:
    """mean, sum, amax, var, ...: (input, dims, keepdim)."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    ndim = args[0].ndim
    gone = (
        list(range(ndim))
        if dims is None or dims == []
        else [d % ndim for d in ([dims] if isinstance(dims, int) else dims)]
    )
    keeps = first_tensor(out).ndim == ndim

    def change(place: Place) -> Place:
        place = mixed(place, gone, kept=False)
        return place if place.dim is None or keeps else place._replace(dim=place.dim - sum(d < place.dim for d in gone))

    return every(sight_of(args[0]), change)


def along(dims_of: Callable[..., Sequence[int]]) -> Rule:
    """An operation that keeps the shape and combines the elements along some dimensions: softmax, layer and group norm."""

    def rule(args, kwargs, out) -> Sight:
        dims = dims_of(args)
        return every(sight_of(args[0]), lambda place: mixed(place, dims, kept=True))

    return rule


def batch_norm(args, kwargs, out) -> Sight:
    uses_running_statistics = len(args) > 5 and args[5] is False
    if uses_running_statistics:
        return sight_of(args[0])
    return along(lambda args: [d for d in range(args[0].ndim) if d != 1])(args, kwargs, out)


def multiplied(args, kwargs, out) -> Sight:
    """mm and bmm, [..., n, k] x [..., k, m]; addmm and baddbmm with something added."""
    a, b = args[-2:] if len(args) >= 2 else (None, None)
    k_of_a, k_of_b = out.ndim - 1, out.ndim - 2
    parts = []
    for value, gone in ((a, k_of_a), (b, k_of_b)):
        sight = sight_of(value)
        parts.append(sight and every(sight, lambda place, gone=gone: mixed(place, [gone], kept=False)))
    if len(args) == 3:
        parts.append(broadcast(args[0], out.ndim))
    return join_all(parts)


def attention(args, kwargs, out) -> Sight:
    """softmax(q k^T) v over the last but one dimension of each."""
    q, k, v = (sight_of(t) for t in args[:3])
    rows = first_tensor(out).ndim - 2
    parts = [q] + [s and every(s, lambda place: mixed(place, [rows], kept=False)) for s in (k, v)]
    return join_all(parts)
