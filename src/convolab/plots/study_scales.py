"""Colors and axes of a study's charts: how each arm looks, and which values an axis spans."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from convolab.plots.style import COLORS, needs_log_scale
from convolab.studies.metrics import Metric
from convolab.studies.section import Section

DASH_PATTERNS = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2], [12, 4], [1, 3])
MAX_DISTINCT_ARMS = len(COLORS)  # arms that can be distinguished one by one
# Viridis, whose lightness rises for every kind of color vision, without the end that is lost on white paper.
SEQUENTIAL_COLORS = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#a5d02b")


def swept_numeric_key(section: Section) -> str | None:
    """The one key of which the section's grid tries three numbers or more, if it is such a grid."""
    if len(section.grid) != 1:
        return None
    ((key, values),) = section.grid.items()
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return key if numbers and len(values) > 2 else None


def arm_numbers(section: Section, key: str) -> dict[str, float]:
    """The number that each arm of a grid has for `swept_numeric_key`."""
    values = {arm: overrides.get(key) for arm, overrides in section.arm_overrides.items()}
    return {arm: float(value) for arm, value in values.items() if isinstance(value, int | float)}


def arm_styles(
    section: Section, ramp_colors: Sequence[str] = SEQUENTIAL_COLORS, distinct_colors: Sequence[str] = COLORS
) -> dict[str, tuple[str, list[int]]]:
    """Each arm's color and dashes: distinct where arms are few, else (or if they are numbers) a step of the ramp."""
    arms = section.arm_overrides
    key = swept_numeric_key(section)
    dashes = DASH_PATTERNS if len(arms) <= MAX_DISTINCT_ARMS else [DASH_PATTERNS[0]] * len(arms)
    if not key and len(arms) <= MAX_DISTINCT_ARMS:
        return {arm: (distinct_colors[i], dashes[i]) for i, arm in enumerate(arms)}
    numbers = arm_numbers(section, key) if key else {}
    order = sorted(arms, key=lambda arm: numbers.get(arm, 0.0))
    steps = {arm: (interpolate_color(i / max(1, len(arms) - 1), ramp_colors), dashes[i]) for i, arm in enumerate(order)}
    return {arm: steps[arm] for arm in arms}


def interpolate_color(fraction: float, colors: Sequence[str] = SEQUENTIAL_COLORS) -> str:
    """The color at a fraction of the way along the ramp.

    >>> interpolate_color(0.0), interpolate_color(1.0), interpolate_color(1 / 16)
    ('#440154', '#a5d02b', '#461466')
    """
    position = fraction * (len(colors) - 1)
    low = min(int(position), len(colors) - 2)
    ends = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors[low : low + 2]]
    return "#" + "".join(f"{round(a + (b - a) * (position - low)):02x}" for a, b in zip(*ends, strict=True))


@dataclass(frozen=True)
class AxisRange:
    """The ends of an axis of values."""

    low: float
    high: float
    log: bool
    clips_intervals: bool  # whether an interval reaches beyond

    def title(self, name: str, unit: str) -> str:
        return f"{name} ({unit}{', log scale' if self.log else ''})"

    def scale(self) -> alt.Scale:
        if self.log:  # an interval may reach below 0, where there is no logarithm: it is clamped
            return alt.Scale(type="log", domain=[self.low, self.high], nice=False, clamp=True)
        return alt.Scale(type="linear", domain=[self.low, self.high], nice=False)

    def axis(self) -> alt.Axis:
        return alt.Axis(format="~g", values=log_ticks(self.low, self.high)) if self.log else alt.Axis()


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a log axis: powers of ten, with twos and fives between them where there are few.

    >>> log_ticks(0.02, 3.0), log_ticks(1e-4, 2.0)
    ([0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0], [0.0001, 0.001, 0.01, 0.1, 1.0])
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high < 1000 * low else (1,)
    return [tick for power in powers for step in steps if low <= (tick := float(f"{step}e{power}")) <= high]


def axis_range(values: Sequence[float], intervals: Sequence[tuple[float, float]], metric: Metric) -> AxisRange:
    """The ends of an axis that holds all values, and the intervals (low, high) in part.

    The interval of two or three seeds can be many times as wide as the values' range: it may add a quarter of that
    range on each side. Losses have a log scale where they range widely, which ends at the smallest that is not 0;
    accuracies stay within 0 and 100 %.
    """
    positive = [value for value in values if value > 0]
    log = "loss" in metric.quantity and metric.threshold is None and bool(positive) and needs_log_scale(positive)

    def transform(value: float) -> float:
        return math.log(max(value, 1e-12)) if log else value

    def inverse(value: float) -> float:
        return math.exp(value) if log else value

    low = transform(min(positive if log else values))
    high = transform(max(values))
    span = high - low or 0.1 * abs(high) or 1.0
    lowest = min((transform(interval[0]) for interval in intervals), default=low)
    highest = max((transform(interval[1]) for interval in intervals), default=high)
    bottom = min(low - 0.05 * span, max(lowest, low - 0.25 * span))
    top = max(high + 0.05 * span, min(highest, high + 0.25 * span))
    if metric.unit == "%" and metric.quantity != "gap":
        margin = min(1.0, 0.02 * (min(top, 100.0) - max(bottom, 0.0)))  # a line along 0 or 100 % stays visible
        bottom = max(bottom, -margin)
        top = min(top, 100.0 + margin)
    return AxisRange(
        round_significant(inverse(bottom)), round_significant(inverse(top)), log, lowest < bottom or highest > top
    )


def to_display_unit(metric: Metric, value: float) -> float:
    """A metric's value as a chart shows it: fractions in %, with five digits."""
    return round_significant(100 * value if metric.unit == "%" else value)


def round_significant(value: float) -> float:
    """Five significant digits, which is more than a chart can show."""
    return float(f"{value:.5g}")
