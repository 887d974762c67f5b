"""Which pixels the cells of a feature map see, along one axis of the picture."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm

NOTHING = (0, -1)  # the window of a cell that sees none of the picture


@dataclass(frozen=True, slots=True)
class Windows:
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
        middles = [a + b for a, b in zip(self.first, self.last, strict=True)]
        rising = (
            len(middles) > 1
            and all(a < b for a, b in pairwise(middles))
            and NOTHING not in zip(self.first, self.last, strict=True)
        )
        return Fraction(middles[-1] - middles[0], 2 * (len(middles) - 1)) if rising else None

    def over(self, cells: Iterable[int]) -> tuple[int, int] | None:
        """The pixels from the first to the last that any of these cells sees; None if they see nothing."""
        return merged(*map(self.__getitem__, cells))

    def spanned(self, cells: int) -> tuple[int, int] | None:
        """The pixels from the first to the last that any of the first `cells` cells sees."""
        if self.step is not None and self.step >= 0 and len(self.first) == 1:
            return self.first[0], self.last[0] + (cells - 1) * self.step
        return self.over(range(cells))

    def through(self, reads: Callable[[int], Iterable[int]], rate: Fraction | int, cells: int) -> "Windows | None":
        """The windows of `cells` new cells, where cell o reads the cells `reads(o)`, which advance by `rate` from o to o + 1.

        None if some new cell would see nothing at all.
        """
        if self.step is None:
            return listed(self.over(reads(cell)) for cell in range(cells))
        advance = Fraction(rate) / len(self.first)  # periods for each new cell
        seen = [self.over(reads(cell)) for cell in range(advance.denominator)]
        if None in seen:
            return None
        return simplest(tuple(a for a, _ in seen), tuple(b for _, b in seen), self.step * advance.numerator)

    def convolved(
        self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, cells: int = 1
    ) -> "Windows | None":
        """Behind a convolution or pooling; `padding` is what stands before the first cell."""
        reach = dilation * (kernel - 1)
        if (
            self.step is not None and len(self.first) == 1
        ):  # nearly always; the recurrence of Araujo et al. 2019, distill.pub
            start = self.first[0] - padding * self.step
            return Windows((start,), (self.last[0] + (reach - padding) * self.step,), self.step * stride)
        return self.through(
            lambda o: range(o * stride - padding, o * stride - padding + reach + 1, dilation), stride, cells
        )

    def transposed(self, kernel: int, stride: int, padding: int, dilation: int, cells: int) -> "Windows | None":
        """Behind a transposed convolution: cell o reads every cell i with o + padding = i * stride + t * dilation, 0 <= t < kernel."""

        def reads(o: int) -> list[int]:
            taps = (o + padding - t * dilation for t in range(kernel))
            return [tap // stride for tap in taps if tap % stride == 0]

        return self.through(reads, Fraction(1, stride), cells)

    def joined(self, other: "Windows", cells: int) -> "Windows":
        """Cell by cell what either sees, for maps of as many cells that are added, multiplied or stacked."""
        if self == other:
            return self
        if None not in (self.step, other.step) and self.step * len(other.first) == other.step * len(self.first):
            phases = lcm(len(self.first), len(other.first))
            step = self.step * phases // len(self.first)
        else:
            phases, step = cells, None
        seen = [merged(self[cell], other[cell]) or NOTHING for cell in range(phases)]
        return simplest(tuple(a for a, _ in seen), tuple(b for _, b in seen), step)


def listed(seen: Iterable[tuple[int, int] | None]) -> Windows:
    """Windows cell by cell."""
    seen = [window or NOTHING for window in seen]
    return Windows(tuple(a for a, _ in seen), tuple(b for _, b in seen), None)


def merged(*windows: tuple[int, int] | None) -> tuple[int, int] | None:
    """From the first pixel of all windows to the last."""
    seen = [window for window in windows if window]
    return (min(a for a, _ in seen), max(b for _, b in seen)) if seen else None


def simplest(first: tuple[int, ...], last: tuple[int, ...], step: int | None) -> Windows:
    """The same windows with as few phases as they can be written with."""
    phases = len(first)
    if step is None or phases == 1:
        return Windows(first, last, step)
    for fewer in range(1, phases):
        if phases % fewer or step * fewer % phases:
            continue
        shift = step * fewer // phases
        if all(seen[i] == seen[i % fewer] + i // fewer * shift for seen in (first, last) for i in range(phases)):
            return Windows(first[:fewer], last[:fewer], shift)
    return Windows(first, last, step)


def enlarged(cells: int, size: int, kind: str, scale: float | None = None) -> Callable[[int], list[int]]:
    """The cells that interpolation from `cells` to `size` reads for cell o, those with weight 0 left out.

    `kind` is nearest, nearest-exact, linear, cubic (PyTorch's with align_corners=False), or linear-corners (with True).
    """
    ratio = Fraction(cells, size) if not scale else 1 / Fraction(scale)

    def reads(o: int) -> list[int]:
        match kind:
            case "nearest":
                return [min(int(o * ratio), cells - 1)]
            case "nearest-exact":
                return [min(int((o + Fraction(1, 2)) * ratio), cells - 1)]
            case "linear-corners":
                at = Fraction(o * (cells - 1), max(size - 1, 1))
            case _:
                at = (o + Fraction(1, 2)) * ratio - Fraction(1, 2)
        whole, part = divmod(at, 1)
        taps = [whole] if part == 0 else range(whole - 1, whole + 3) if kind == "cubic" else (whole, whole + 1)
        return [min(max(int(tap), 0), cells - 1) for tap in taps]

    return reads


def pooled_adaptively(cells: int, size: int) -> Callable[[int], range]:
    """The cells that adaptive pooling from `cells` to `size` reads for cell o."""
    return lambda o: range(o * cells // size, -(-(o + 1) * cells // size))
