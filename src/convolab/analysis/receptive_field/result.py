"""The receptive field of a layer as it is reported: a value per image axis, in input pixels."""

from dataclasses import dataclass
from fractions import Fraction

from convolab.analysis.receptive_field.propagation import RFState, UnknownRF


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive field of a layer's cells, a value per image axis, in input pixels.

    Cell i depends on the pixels from `start + i * stride` to `start + i * stride + size - 1`; its center is
    `center + i * stride`. Pixels outside the image are padding. `stride` is None where there is one cell. A stride that
    is not whole, as after upsampling or adaptive pooling, is an average: a single cell can lie beside that place.
    """

    size: tuple[int, ...]
    stride: tuple[int | float | None, ...]
    start: tuple[int | None, ...]
    is_global: tuple[bool, ...]  # whether every cell depends on the whole axis
    measured: bool = False  # by gradient, where it could not be computed from the graph

    @property
    def center(self) -> tuple[float | None, ...]:
        """The middle of the first cell's field, in pixels from the middle of the image's first pixel."""
        return tuple(
            None if start is None else start + (size - 1) / 2 for start, size in zip(self.start, self.size, strict=True)
        )


def to_receptive_field(rf_state: RFState) -> ReceptiveField | UnknownRF | None:
    """The receptive field that a tensor's state describes; None if the tensor does not depend on the input."""
    if rf_state is None or isinstance(rf_state, UnknownRF):
        return rf_state
    starts: list[int | None] = []
    for axis_field in rf_state:
        interval = axis_field.interval_at(0)
        starts.append(interval[0] if interval else None)
    return ReceptiveField(
        size=tuple(axis_field.intervals.size for axis_field in rf_state),
        stride=tuple(
            None if axis_field.dim is None else to_number(axis_field.intervals.stride) for axis_field in rf_state
        ),
        start=tuple(starts),
        is_global=tuple(axis_field.is_global for axis_field in rf_state),
    )


def to_number(value: Fraction | None) -> int | float | None:
    """An integer where the fraction is one."""
    if value is None:
        return None
    return value.numerator if value.denominator == 1 else float(value)
