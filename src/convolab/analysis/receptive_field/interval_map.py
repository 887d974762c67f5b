"""The interval of pixels that each cell of a feature map depends on, along one image axis."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm

PixelInterval = tuple[int, int]  # first and last pixel, both included

EMPTY_INTERVAL: PixelInterval = (0, -1)  # of a cell that depends on no pixel


@dataclass(frozen=True, slots=True)
class IntervalMap:
    """The intervals of all cells: those of the first period, and the step from one period to the next.

    Cell `q * len(first) + f` depends on the pixels from `first[f] + q * step` to `last[f] + q * step`, both included.
    Most maps have one phase: `IntervalMap((-3,), (3,), 2)` is that of a 7-wide convolution with stride 2 and padding
    3. A transposed convolution of stride s has s phases. With `step` None the cells are listed one by one, there are
    none beyond them, and one that depends on no pixel has its last pixel before its first. Intervals reach past the
    border, as padding does; nothing clips them.

    >>> image = IntervalMap((0,), (0,), 1)
    >>> stem = image.convolve(kernel=7, stride=2, padding=3)
    >>> stem[0], stem[1], stem.convolve(kernel=3, stride=2, padding=1)
    ((-3, 3), (-1, 5), IntervalMap(first=(-5,), last=(5,), step=4))
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    step: int | None

    @classmethod
    def from_list(cls, intervals: Iterable[PixelInterval | None]) -> "IntervalMap":
        """The map of listed cells, one interval each; None for a cell that depends on no pixel."""
        listed = [interval or EMPTY_INTERVAL for interval in intervals]
        return cls(tuple(a for a, _ in listed), tuple(b for _, b in listed), None)

    @classmethod
    def canonical(cls, first: tuple[int, ...], last: tuple[int, ...], step: int | None) -> "IntervalMap":
        """The map with as few phases as it can be written with."""
        phases = len(first)
        if step is None or phases == 1:
            return cls(first, last, step)
        for divisor in range(1, phases):
            if phases % divisor or step * divisor % phases:
                continue
            shift = step * divisor // phases
            if all(
                bounds[i] == bounds[i % divisor] + i // divisor * shift
                for bounds in (first, last)
                for i in range(phases)
            ):
                return cls(first[:divisor], last[:divisor], shift)
        return cls(first, last, step)

    def __getitem__(self, cell: int) -> PixelInterval | None:
        """The interval of one cell; None if it is beyond a list, or depends on no pixel."""
        if self.step is None:
            is_listed = 0 <= cell < len(self.first) and self.first[cell] <= self.last[cell]
            return (self.first[cell], self.last[cell]) if is_listed else None
        shift, phase = divmod(cell, len(self.first))
        return self.first[phase] + shift * self.step, self.last[phase] + shift * self.step

    @property
    def size(self) -> int:
        """The pixels that a cell depends on, at most."""
        return max(b - a + 1 for a, b in zip(self.first, self.last, strict=True))

    @property
    def stride(self) -> Fraction | None:
        """Pixels from a cell to the next, on average; None for a single cell or cells out of order."""
        if self.step is not None:
            return Fraction(self.step, len(self.first)) if self.step else None
        centers = [a + b for a, b in zip(self.first, self.last, strict=True)]
        is_increasing = (
            len(centers) > 1
            and all(a < b for a, b in pairwise(centers))
            and EMPTY_INTERVAL not in zip(self.first, self.last, strict=True)
        )
        return Fraction(centers[-1] - centers[0], 2 * (len(centers) - 1)) if is_increasing else None

    def cells_hull(self, cells: Iterable[int]) -> PixelInterval | None:
        """From the first to the last pixel that any of these cells depends on; None if there is none."""
        return interval_hull(*map(self.__getitem__, cells))

    def hull(self, num_cells: int) -> PixelInterval | None:
        """From the first to the last pixel that any of the first `num_cells` cells depends on."""
        if self.step is not None and self.step >= 0 and len(self.first) == 1:
            return self.first[0], self.last[0] + (num_cells - 1) * self.step
        return self.cells_hull(range(num_cells))

    def compose(
        self, taps: Callable[[int], Iterable[int]], tap_stride: Fraction | int, num_cells: int
    ) -> "IntervalMap | None":
        """The map of `num_cells` new cells, where cell o reads the cells `taps(o)`.

        The taps advance by `tap_stride` cells from o to o + 1. None if some new cell would depend on no pixel at all.
        """
        if self.step is None:
            return IntervalMap.from_list(self.cells_hull(taps(cell)) for cell in range(num_cells))
        advance = Fraction(tap_stride) / len(self.first)  # periods for each new cell
        intervals = [
            interval
            for interval in (self.cells_hull(taps(cell)) for cell in range(advance.denominator))
            if interval is not None
        ]
        if len(intervals) < advance.denominator:
            return None
        return IntervalMap.canonical(
            tuple(a for a, _ in intervals), tuple(b for _, b in intervals), self.step * advance.numerator
        )

    def convolve(
        self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, num_cells: int = 1
    ) -> "IntervalMap | None":
        """After a convolution or pooling; `padding` is the number of cells added before the first one."""
        kernel_extent = dilation * (kernel - 1)
        if self.step is not None and len(self.first) == 1:
            # Nearly always: the recurrence of Araujo, Norris & Sim 2019 (distill.pub/2019/computing-receptive-fields).
            start = self.first[0] - padding * self.step
            return IntervalMap((start,), (self.last[0] + (kernel_extent - padding) * self.step,), self.step * stride)
        return self.compose(
            lambda o: range(o * stride - padding, o * stride - padding + kernel_extent + 1, dilation), stride, num_cells
        )

    def conv_transpose(
        self, kernel: int, stride: int, padding: int, dilation: int, num_cells: int
    ) -> "IntervalMap | None":
        """After a transposed convolution.

        Cell o reads every cell i with o + padding = i * stride + t * dilation for some 0 <= t < kernel.
        """

        def taps(o: int) -> list[int]:
            offsets = (o + padding - t * dilation for t in range(kernel))
            return [offset // stride for offset in offsets if offset % stride == 0]

        return self.compose(taps, Fraction(1, stride), num_cells)

    def union(self, other: "IntervalMap", num_cells: int) -> "IntervalMap":
        """Cell by cell the hull of both, for maps of equally many cells that are added, multiplied or stacked."""
        if self == other:
            return self
        if self.step is None or other.step is None or self.stride != other.stride:
            phases = num_cells
            step = None
        else:
            phases = lcm(len(self.first), len(other.first))
            step = self.step * phases // len(self.first)
        intervals = [interval_hull(self[cell], other[cell]) or EMPTY_INTERVAL for cell in range(phases)]
        return IntervalMap.canonical(tuple(a for a, _ in intervals), tuple(b for _, b in intervals), step)


def interval_hull(*intervals: PixelInterval | None) -> PixelInterval | None:
    """From the first pixel of all intervals to the last; None if all are empty."""
    nonempty = [interval for interval in intervals if interval]
    return (min(a for a, _ in nonempty), max(b for _, b in nonempty)) if nonempty else None


def interpolation_taps(
    in_size: int, out_size: int, mode: str, scale: float | None = None
) -> Callable[[int], list[int]]:
    """The cells that interpolation from `in_size` to `out_size` cells reads for cell o, without those of weight 0.

    `mode` is nearest, nearest-exact, linear, cubic (PyTorch's with align_corners=False), or linear-corners (with True).
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
        if offset == 0:
            cells = [floor_cell]
        elif mode == "cubic":
            cells = range(floor_cell - 1, floor_cell + 3)
        else:
            cells = [floor_cell, floor_cell + 1]
        return [min(max(cell, 0), in_size - 1) for cell in cells]

    return taps


def adaptive_pool_taps(in_size: int, out_size: int) -> Callable[[int], range]:
    """The cells that adaptive pooling from `in_size` to `out_size` cells reads for cell o."""
    return lambda o: range(o * in_size // out_size, -(-(o + 1) * in_size // out_size))
