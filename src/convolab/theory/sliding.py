"""Question 1(b) by hand: two short signals slide past each other, padded circularly or with zeros, and with a stride.

z[k] = sum_i x[i] y[i + k] for k = 0, s, 2 s and so on, where s is the stride. With circular padding i + k is taken mod n:
that is `correlate`, of which every s-th value is kept. With zeros, y is 0 behind its end.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import require
from convolab.core.escape import escape_line
from convolab.core.text import pluralize
from convolab.core.types import Json
from convolab.theory.correlation import correlate, jacobian_x, jacobian_y, prepare_signals
from convolab.theory.equivariance import ROUNDING_TOLERANCE

SLIDING_PADDINGS = ("circular", "zeros")
MAX_SAMPLES = 500  # of a signal: a Jacobian has its square
SAMPLE = re.compile(r"[+-]?(\d{1,9}(\.\d{0,17})?|\.\d{1,17})|[+-]?\d{1,9}/\d{1,9}", re.ASCII)


@dataclass(frozen=True)
class ShiftMeasurement:
    """What a circular shift of x to the right does to z."""

    shift: int  # samples
    output_shift: int  # cells to the left, by which z is shifted for the comparison
    difference: float  # the largest one between z of the shifted x and the shifted z
    relative_difference: float | None  # norm of all differences, by that of z minus its mean; None where z is constant
    only_shifts: bool  # whether the difference is rounding


@dataclass(frozen=True)
class SlidingCorrelation:
    """Two signals that slide past each other."""

    x: Float[Tensor, " n"]
    y: Float[Tensor, " n"]
    padding: str  # one of SLIDING_PADDINGS
    stride: int

    def _slide(self, x: Float[Tensor, " n"]) -> Float[Tensor, " cells"]:
        return self._kept(correlate(self._padded(x), self._padded(self.y)))

    def _padded(self, signal: Float[Tensor, " n"]) -> Float[Tensor, " length"]:
        """With n zeros behind, nothing comes around: the circular correlation is that with zeros."""
        return F.pad(signal, (0, len(signal) * (self.padding == "zeros")))

    def _kept(self, rows: Float[Tensor, "length *columns"]) -> Float[Tensor, "cells *columns"]:
        return rows[: len(self.x) : self.stride]

    @property
    def z(self) -> Float[Tensor, " cells"]:
        """The correlation: a value for every s-th k from 0 to n - 1."""
        return self._slide(self.x)

    @property
    def jacobian_x(self) -> Float[Tensor, "cells n"]:
        """dz[k]/dx[i] = y[i + k], with a row for each k of z."""
        return self._kept(jacobian_x(self._padded(self.y)))[:, : len(self.x)]

    @property
    def jacobian_y(self) -> Float[Tensor, "cells n"]:
        """dz[k]/dy[j] = x[j - k], with a row for each k of z."""
        return self._kept(jacobian_y(self._padded(self.x)))[:, : len(self.x)]

    def measure_shift(self, shift: int = 1) -> ShiftMeasurement:
        """Whether z only shifts, to the left, when x is shifted circularly to the right.

        A shift that is no multiple of the stride would be a fraction of a cell of z: the better of the two nearest
        whole cells is taken, as when layers are measured.

        >>> slide_correlation([1, 2, 3, 4], [5, 6, 7, 9]).measure_shift(1).only_shifts
        True
        >>> slide_correlation([1, 2, 3, 4], [5, 6, 7, 9], stride=2).measure_shift(1).only_shifts
        False
        """
        require(
            0 <= shift < len(self.x),
            f"a shift by {shift}: give 0 to {len(self.x) - 1}, as x has {pluralize(len(self.x), 'sample')}",
        )
        z, moved = self.z, self._slide(self.x.roll(shift))
        cells = sorted({math.floor(shift / self.stride), math.ceil(shift / self.stride)})
        by_cells = {cell: moved - z.roll(-cell) for cell in cells}
        best = min(cells, key=lambda cell: by_cells[cell].abs().max().item())
        residual, variation = by_cells[best], (z - z.mean()).norm().item()
        difference, scale = residual.abs().max().item(), (self.x.abs().sum() * self.y.abs().max()).item()
        is_constant = variation <= ROUNDING_TOLERANCE * scale
        return ShiftMeasurement(
            shift,
            best,
            difference,
            None if is_constant else residual.norm().item() / variation,
            difference <= ROUNDING_TOLERANCE * scale,
        )

    def to_dict(self, shift: int | None = None) -> dict[str, Json]:
        """All of it as plain values, for JSON, with what a shift of x does: by 1, where x has two samples."""
        shift = min(1, len(self.x) - 1) if shift is None else shift
        tensors = ("x", "y", "z", "jacobian_x", "jacobian_y")
        numbers: dict[str, Json] = {name: getattr(self, name).tolist() for name in tensors}
        return {**numbers, "padding": self.padding, "stride": self.stride, "shift": asdict(self.measure_shift(shift))}


def slide_correlation(
    x: Sequence[float | int] | Float[Tensor, " n"],
    y: Sequence[float | int] | Float[Tensor, " m"],
    *,
    padding: str = "circular",
    stride: int = 1,
) -> SlidingCorrelation:
    """Two signals of one length that slide past each other.

    Args:
        x: the samples that stay.
        y: the samples that move to the left, as many.
        padding: what comes in from the right: "circular", y's own beginning, or "zeros".
        stride: samples from one place to the next.

    Raises:
        LabError: for signals that are empty, of different or great lengths, or not finite; for an unknown padding; for a
            stride below 1 or longer than the signals.

    >>> slide_correlation([1, 0, 2], [5, 6, 7]).z
    tensor([19., 16., 19.], dtype=torch.float64)
    >>> slide_correlation([1, 0, 2], [5, 6, 7], padding="zeros", stride=2).jacobian_y
    tensor([[1., 0., 2.],
            [0., 0., 1.]], dtype=torch.float64)
    """
    stays, moves = (torch.as_tensor(signal, dtype=torch.float64) for signal in (x, y))
    for name, tensor in (("x", stays), ("y", moves)):
        require(
            1 <= len(tensor) <= MAX_SAMPLES, f"{name} has {len(tensor)} samples: give from 1 to {MAX_SAMPLES} of them"
        )
    require(padding in SLIDING_PADDINGS, f"padding '{escape_line(padding, 40)}': give circular or zeros")
    n = len(stays)
    require(1 <= stride <= n, f"stride {stride}: give 1 to {n}, as the signals have {n} samples")
    stays, moves, _ = prepare_signals(stays, moves)
    return SlidingCorrelation(stays, moves, padding, stride)


def parse_samples(text: str, name: str = "the signal") -> list[float]:
    """A signal as a person types it: numbers and fractions of whole numbers, with commas between.

    Raises LabError, naming it, for what is neither.

    >>> parse_samples("1, -0.5, 1/4")
    [1.0, -0.5, 0.25]
    """
    parts = [part.strip() for part in text.split(",")]
    require(
        len(parts) <= MAX_SAMPLES, f"{name} has {len(parts)} samples: give at most {MAX_SAMPLES}, with commas between"
    )
    samples = []
    for part in parts:
        shown = escape_line(part, 40)
        require(
            SAMPLE.fullmatch(part),
            f"'{shown}' in {name} is not a number: give such as 2, -0.5 or 1/3, with commas between",
        )
        numerator, slash, denominator = part.partition("/")
        require(not slash or int(denominator), f"'{shown}' in {name} divides by 0: give another number")
        samples.append(int(numerator) / int(denominator) if slash else float(part))
    return samples
