"""Which pixels the cells of a feature map see, along one axis of the picture."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm

EMPTY_INTERVAL = (0, -1)  # the window of a cell that sees none of the picture


@dataclass(frozen=True, slots=True)
class IntervalMap:
    """Cell `q * len(first) + f` sees the pixels from `first[f] + q * step` to `last[f] + q * step`, both included.

    Most maps have one phase: `Windows((-3,), (3,), 2)` is what a 7-wide convolution with stride 2 and padding 3 sees. A
    transposed convolution of stride s has s phases. With `step` None the cells are listed one by one, there are none beyond
    them, and one that sees nothing has its last pixel before its first. Windows reach past the border, as padding does;
    nothing clips them.

    >>> image = Windows((0,), (0,), 1)
    >>> stem = image.convolved(kernel=7, stride=2, padding=3)
    >>> stem[0], stem[1], stem.convolved(kernel=3, stride=2, padding=1)
    ((-3, 3), (-1, 5), Windows(first=(-5,), last=(5,), step=4))
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    step: int | None

    def __getitem__(self, cell: int) -> tuple[int, int] | None:
        """What one cell sees; None if it is beyond a list, or sees nothing."""
        if self.step is None:
            return (
                (self.first[cell], self.last[cell])
                if 0 <= cell < len(self.first) and self.first[cell] <= self.last[cell]
                else None
            )
        shift, phase = divmod(cell, len(self.first))
        return self.first[phase] + shift * self.step, self.last[phase] + shift * self.step

    @property
    def size(self) -> int:
        """Pixels that a cell sees at most."""
        return max(b - a + 1 for a, b in zip(self.first, self.last, strict=True))

    @property
    def stride(self) -> Fraction | None:
        """Pixels from a cell to the next, on average where they differ; None for a single cell or cells out of order."""
        if self.step is not None:
            return Fraction(self.step, len(self.first)) if self.step else None
        centers = [a + b for a, b in zip(self.first, self.last, strict=True)]
        is_increasing = (
            len(centers) > 1
            and all(a < b for a, b in pairwise(centers))
            and EMPTY_INTERVAL not in zip(self.first, self.last, strict=True)
        )
        return Fraction(centers[-1] - centers[0], 2 * (len(centers) - 1)) if is_increasing else None

    def cells_hull(self, cells: Iterable[int]) -> tuple[int, int] | None:
        """The pixels from the first to the last that any of these cells sees; None if they see nothing."""
        return interval_hull(*map(self.__getitem__, cells))

    def hull(self, num_cells: int) -> tuple[int, int] | None:
        """The pixels from the first to the last that any of the first `cells` cells sees."""
        if self.step is not None and self.step >= 0 and len(self.first) == 1:
            return self.first[0], self.last[0] + (num_cells - 1) * self.step
        return self.cells_hull(range(num_cells))

    def compose(
        self, taps: Callable[[int], Iterable[int]], tap_stride: Fraction | int, num_cells: int
    ) -> "IntervalMap | None":
        """The windows of `cells` new cells, where cell o reads the cells `reads(o)`, which advance by `rate` from o to o + 1.

        None if some new cell would see nothing at all.
        """
        if self.step is None:
            return interval_map_from_list(self.cells_hull(taps(cell)) for cell in range(num_cells))
        advance = Fraction(tap_stride) / len(self.first)  # periods for each new cell
        intervals = [self.cells_hull(taps(cell)) for cell in range(advance.denominator)]
        if None in intervals:
            return None
        return canonical_interval_map(
            tuple(a for a, _ in intervals), tuple(b for _, b in intervals), self.step * advance.numerator
        )

    def convolve(
        self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, num_cells: int = 1
    ) -> "IntervalMap | None":
        """Behind a convolution or pooling; `padding` is what stands before the first cell."""
        kernel_extent = dilation * (kernel - 1)
        if (
            self.step is not None and len(self.first) == 1
        ):  # nearly always; the recurrence of Araujo et al. 2019, distill.pub
            start = self.first[0] - padding * self.step
            return IntervalMap((start,), (self.last[0] + (kernel_extent - padding) * self.step,), self.step * stride)
        return self.compose(
            lambda o: range(o * stride - padding, o * stride - padding + kernel_extent + 1, dilation), stride, num_cells
        )

    def conv_transpose(
        self, kernel: int, stride: int, padding: int, dilation: int, num_cells: int
    ) -> "IntervalMap | None":
        """Behind a transposed convolution: cell o reads every cell i with o + padding = i * stride + t * dilation, 0 <= t < kernel."""

        def taps(o: int) -> list[int]:
            offsets = (o + padding - t * dilation for t in range(kernel))
            return [offset // stride for offset in offsets if offset % stride == 0]

        return self.compose(taps, Fraction(1, stride), num_cells)

    def union(self, other: "IntervalMap", num_cells: int) -> "IntervalMap":
        """Cell by cell what either sees, for maps of as many cells that are added, multiplied or stacked."""
        if self == other:
            return self
        if None not in (self.step, other.step) and self.step * len(other.first) == other.step * len(self.first):
            phases = lcm(len(self.first), len(other.first))
            step = self.step * phases // len(self.first)
        else:
            phases, step = num_cells, None
        intervals = [interval_hull(self[cell], other[cell]) or EMPTY_INTERVAL for cell in range(phases)]
        return canonical_interval_map(tuple(a for a, _ in intervals), tuple(b for _, b in intervals), step)


def interval_map_from_list(intervals: Iterable[tuple[int, int] | None]) -> IntervalMap:
    """Windows cell by cell."""
    intervals = [interval or EMPTY_INTERVAL for interval in intervals]
    return IntervalMap(tuple(a for a, _ in intervals), tuple(b for _, b in intervals), None)


def interval_hull(*intervals: tuple[int, int] | None) -> tuple[int, int] | None:
    """From the first pixel of all windows to the last."""
    nonempty = [interval for interval in intervals if interval]
    return (min(a for a, _ in nonempty), max(b for _, b in nonempty)) if nonempty else None


def canonical_interval_map(first: tuple[int, ...], last: tuple[int, ...], step: int | None) -> IntervalMap:
    """The same windows with as few phases as they can be written with."""
    phases = len(first)
    if step is None or phases == 1:
        return IntervalMap(first, last, step)
    for divisor in range(1, phases):
        if phases % divisor or step * divisor % phases:
            continue
        shift = step * divisor // phases
        if all(
            bounds[i] == bounds[i % divisor] + i // divisor * shift for bounds in (first, last) for i in range(phases)
        ):
            return IntervalMap(first[:divisor], last[:divisor], shift)
    return IntervalMap(first, last, step)


def interpolation_taps(
    in_size: int, out_size: int, mode: str, scale: float | None = None
) -> Callable[[int], list[int]]:
    """The cells that interpolation from `cells` to `size` reads for cell o, those with weight 0 left out.

    `kind` is nearest, nearest-exact, linear, cubic (PyTorch's with align_corners=False), or linear-corners (with True).
    """
    ratio = Fraction(in_size, out_size) if not scale else 1 / Fraction(scale)

    def taps(o: int) -> list[int]:
        match mode:
            case "nearest":
                return [min(int(o * ratio), in_size - 1)]
            case "nearest-exact":
                return [min(int((o + Fraction(1, 2)) * ratio), in_size - 1)]
            case "linear-corners":
                position = Fraction(o * (in_size - 1), max(out_size - 1, 1))
            case _:
                position = (o + Fraction(1, 2)) * ratio - Fraction(1, 2)
        floor_cell, offset = divmod(position, 1)
        cells = (
            [floor_cell]
            if offset == 0
            else range(floor_cell - 1, floor_cell + 3)
            if mode == "cubic"
            else (floor_cell, floor_cell + 1)
        )
        return [min(max(int(cell), 0), in_size - 1) for cell in cells]

    return taps


def adaptive_pool_taps(in_size: int, out_size: int) -> Callable[[int], range]:
    """The cells that adaptive pooling from `cells` to `size` reads for cell o."""
    return lambda o: range(o * in_size // out_size, -(-(o + 1) * in_size // out_size))
