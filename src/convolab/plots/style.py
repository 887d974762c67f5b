"""Colours and axes of a study's charts: which arm looks like what, and what an axis holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from convolab.plots.training import COLORS, needs_log_scale
from convolab.studies.metrics import Metric
from convolab.studies.study import Section

DASH_PATTERNS = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2], [12, 4], [1, 3])
MAX_DISTINCT_ARMS = len(COLORS)  # arms that can be told apart one by one
# Viridis, which rises in lightness for every kind of sight, without the end that white paper swallows.
SEQUENTIAL_COLORS = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#a5d02b")


def swept_numeric_key(section: Section) -> str | None:
    """The one key of which the section's grid tries several numbers, if it is such a grid."""
    if len(section.grid) != 1:
        return None
    ((key, values),) = section.grid.items()
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return key if numbers and len(values) > 2 else None


def arm_styles(
    section: Section, ramp_colors: Sequence[str] = SEQUENTIAL_COLORS, distinct_colors: Sequence[str] = COLORS
) -> dict[str, tuple[str, list[int]]]:
    """Each arm's colour and dashes: one of its own where they are few, a step of the ramp where they are numbers or many."""
    arms, key = section.arm_overrides, swept_numeric_key(section)
    dashes = DASH_PATTERNS if len(arms) <= MAX_DISTINCT_ARMS else [DASH_PATTERNS[0]] * len(arms)
    if not key and len(arms) <= MAX_DISTINCT_ARMS:
        return {arm: (distinct_colors[i], dashes[i]) for i, arm in enumerate(arms)}
    order = sorted(arms, key=lambda arm: arms[arm][key]) if key else list(arms)
    steps = {arm: (interpolate_color(i / max(1, len(arms) - 1), ramp_colors), dashes[i]) for i, arm in enumerate(order)}
    return {arm: steps[arm] for arm in arms}


def interpolate_color(fraction: float, colors: Sequence[str] = SEQUENTIAL_COLORS) -> str:
    """The colour at a share of the way along the ramp.

    >>> ramp(0.0), ramp(1.0), ramp(1 / 16)
    ('#440154', '#a5d02b', '#461466')
    """
    position = fraction * (len(colors) - 1)
    low = min(int(position), len(colors) - 2)
    ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colors[low : low + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (position - low)):02x}" for a, b in zip(*ends, strict=True))


@dataclass(frozen=True)
class AxisRange:
    """The ends of an axis of values."""

    low: float
    high: float
    log: bool
    clips_intervals: bool  # whether an interval reaches beyond

    def to_channel(self, title: str, unit: str) -> dict[str, Any]:
        """The channel's title and scale."""
        scale = {"type": "log" if self.log else "linear", "domain": [self.low, self.high], "nice": False}
        scale |= {"clamp": True} if self.log else {}  # an interval may reach below 0, where there is no logarithm
        axis = {"format": "~g", "values": log_ticks(self.low, self.high)} if self.log else {}
        return {"title": f"{title} ({unit}{', log scale' if self.log else ''})", "scale": scale, "axis": axis}


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a log axis: powers of ten, with twos and fives between them where there are few.

    >>> decades(0.02, 3.0), decades(1e-4, 2.0)
    ([0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0], [0.0001, 0.001, 0.01, 0.1, 1.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high < 1000 * low else (1,)
    return [tick for power in powers for step in steps if low <= (tick := float(f"{step}e{power}")) <= high]


def axis_range(values: pl.Series, intervals: pl.DataFrame, metric: Metric) -> AxisRange:
    """The ends of an axis that holds all values, and of the intervals `low` to `high` a part.

    The interval of two or three seeds can be many times as wide as all there is to see: it may add a quarter of the values'
    range on each side. Losses have a log scale where they range widely, which ends at the smallest that is not 0; accuracies
    stay within 0 and 100 %.
    """
    positive = values.filter(values > 0)
    log = "loss" in metric.quantity and metric.threshold is None and len(positive) > 0 and needs_log_scale(positive)
    transform, inverse = (lambda v: math.log(max(v, 1e-12)), math.exp) if log else (lambda v: v, lambda v: v)
    low, high = transform((positive if log else values).min()), transform(values.max())
    span = high - low or 0.1 * abs(high) or 1.0
    lowest, highest = (
        (transform(intervals["low"].min()), transform(intervals["high"].max())) if len(intervals) else (low, high)
    )
    bottom = min(low - 0.05 * span, max(lowest, low - 0.25 * span))
    top = max(high + 0.05 * span, min(highest, high + 0.25 * span))
    if metric.unit == "%" and metric.quantity != "gap":
        bottom, top = max(bottom, -1.0), min(top, 101.0)  # a line along 100 % is seen whole
    return AxisRange(
        round_significant(inverse(bottom)), round_significant(inverse(top)), log, lowest < bottom or highest > top
    )


def to_display_unit(metric: Metric, value: float) -> float:
    """A metric's value as a chart shows it: fractions in %, in five digits."""
    return round_significant(100 * value if metric.unit == "%" else value)


def round_significant(value: float) -> float:
    return float(f"{value:.5g}")
