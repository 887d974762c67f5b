"""The final values of a section's arms: in rows, or along an axis of the numbers that a grid tries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import altair as alt

from convolab.core.text import truncate_list
from convolab.plots.study_figure import (
    DIVERGED_MARK,
    FIGURE_HEIGHT,
    StudyFigure,
    Tables,
    describe_run_count,
    tooltip_fields,
)
from convolab.plots.study_scales import AxisRange, arm_numbers, axis_range, to_display_unit
from convolab.plots.style import BLUE, ORANGE, needs_log_scale
from convolab.studies.metrics import Metric
from convolab.studies.results import SectionResult
from convolab.studies.tables import finished_metric_interval, finished_metric_values

ROW_HEIGHT = 34  # pixels of an arm where arms are in rows
SPLITS = ("training", "validation")


class FinalMean(NamedTuple):
    """An arm's mean of a metric over its finished runs, in the metric's unit. `position` is its number in a grid."""

    arm: str
    position: float | None
    series: str
    mean: float
    low: float
    high: float
    runs: int


class FinalPoint(NamedTuple):
    """The metric of one finished run."""

    arm: str
    position: float | None
    series: str
    seed: int
    value: float


class DivergedArm(NamedTuple):
    """An arm that lost runs to divergence: "1 of 3"."""

    arm: str
    position: float | None
    diverged_runs: str


@dataclass(frozen=True)
class FinalValues:
    """What the chart draws."""

    means: list[FinalMean]
    points: list[FinalPoint]
    diverged: list[DivergedArm]

    def to_tables(self) -> Tables:
        return {
            "means": [row._asdict() for row in self.means],
            "points": [row._asdict() for row in self.points],
            "diverged": [row._asdict() for row in self.diverged],
        }


def final_values_chart(result: SectionResult, metrics: Sequence[Metric], key: str | None = None) -> StudyFigure | None:
    """Each arm's value of a metric, or of one of training and one of validation: every seed, the mean, its interval.

    The arms are in rows; with `key`, of which the section's grid tries numbers, they lie along an axis of these.
    A metric that no finished run has is left out. None where no run finished.
    """
    drawn = [metric for metric in metrics if any(finished_metric_values(arm, metric) for arm in result.arms)]
    values = final_values(result, drawn, key)
    if not drawn:
        return None
    first = drawn[0]
    compares_splits = len(drawn) > 1
    value_range = axis_range(
        [point.value for point in values.points], [(mean.low, mean.high) for mean in values.means], first
    )
    both = f"final {metrics[0].quantity.removeprefix('train_')}"
    name = both if compares_splits else first.title
    counts = [mean.runs for mean in values.means]
    arrows = ", an arrow where it goes on beyond the axis" if value_range.clips_intervals else ""
    caption = (
        f"dot: mean of {describe_run_count(counts)}; bar: its 95 % t-interval{arrows}; faint: seeds"
        if max(counts) > 1
        else "one run per arm"
    )
    if values.diverged:
        caption += f"; cross: diverged, {truncate_list([f'{a.arm} ({a.diverged_runs})' for a in values.diverged])}"
    if key:
        place = GridPlacement(value_range, value_range.title(name, first.unit), key, values)
    else:
        arms = [arm.name for arm in result.arms]
        place = RowPlacement(value_range, value_range.title(name, first.unit), arms, compares_splits)
    return StudyFigure(
        name=both.replace(" ", "_") if len(metrics) > 1 else str(first).replace(":", "-"),
        title=f"{name[0].upper()}{name[1:]}" + (f" against {key}" if key else ""),
        subtitle=caption,
        chart=final_values_layers(values, place, compares_splits, has_line=bool(key)),
        tables=values.to_tables(),
        height=FIGURE_HEIGHT if key else max(100, ROW_HEIGHT * len(result.arms)),
    )


def final_values(result: SectionResult, metrics: Sequence[Metric], key: str | None) -> FinalValues:
    """The means, the single runs' points and the arms with diverged runs, in the metrics' unit."""
    positions = arm_numbers(result.section, key) if key else {}
    values = FinalValues([], [], [])
    for metric in metrics:
        series = SPLITS[0] if metric.quantity.startswith("train") else SPLITS[1]
        for arm in result.arms:
            position = positions.get(arm.name)
            for seed, value in finished_metric_values(arm, metric).items():
                values.points.append(FinalPoint(arm.name, position, series, seed, to_display_unit(metric, value)))
            if interval := finished_metric_interval(arm, metric):
                mean, low, high = (to_display_unit(metric, x) for x in (interval.mean, interval.low, interval.high))
                values.means.append(FinalMean(arm.name, position, series, mean, low, high, interval.count))
    for arm in result.arms:
        if arm.diverged:
            runs = f"{len(arm.diverged)} of {len(arm.results)}"
            values.diverged.append(DivergedArm(arm.name, positions.get(arm.name), runs))
    return values


@dataclass(frozen=True)
class GridPlacement:
    """Arms along x by the number that the grid tries, values along y."""

    value_range: AxisRange
    value_title: str
    key: str
    values: FinalValues
    arrows: ClassVar = {"low": "M0,0L1,-1.5L-1,-1.5Z", "high": "M0,0L1,1.5L-1,1.5Z"}  # with the tip at the value

    def value(self, layer: alt.Chart, field: str) -> alt.Chart:
        y = alt.Y(f"{field}:Q", title=self.value_title, scale=self.value_range.scale(), axis=self.value_range.axis())
        return layer.encode(x=self._x(), y=y)

    def interval(self, layer: alt.Chart) -> alt.Chart:
        return self.value(layer, "low").encode(y2=alt.Y2("high"))

    def edge(self, layer: alt.Chart) -> alt.Chart:
        """Beside the arm on the edge of the chart."""
        return layer.encode(x=self._x(), y=alt.YValue(FIGURE_HEIGHT - 8))

    def _x(self) -> alt.X:
        rows = (*self.values.means, *self.values.diverged)
        positions = sorted({row.position for row in rows if row.position is not None})
        log = positions[0] > 0 and needs_log_scale(positions)
        axis = alt.Axis(grid=False, format="~g", labelOverlap="parity")
        if len(positions) <= 12:
            axis = alt.Axis(grid=False, format="~g", labelOverlap="parity", values=positions)
        scale = alt.Scale(nice=False, padding=16, type="log") if log else alt.Scale(nice=False, padding=16, zero=False)
        return alt.X("position:Q", title=self.key + (" (log scale)" if log else ""), scale=scale, axis=axis)


@dataclass(frozen=True)
class RowPlacement:
    """One row per arm, values along x; training and validation of an arm are one below the other."""

    value_range: AxisRange
    value_title: str
    arms: list[str]
    compares_splits: bool
    arrows: ClassVar = {"low": "M0,0L1.5,-1L1.5,1Z", "high": "M0,0L-1.5,-1L-1.5,1Z"}

    def value(self, layer: alt.Chart, field: str) -> alt.Chart:
        x = alt.X(f"{field}:Q", title=self.value_title, scale=self.value_range.scale(), axis=self.value_range.axis())
        placed = layer.encode(y=self._y(), x=x)
        return placed.encode(yOffset=alt.YOffset("series:N", sort=list(SPLITS))) if self.compares_splits else placed

    def interval(self, layer: alt.Chart) -> alt.Chart:
        return self.value(layer, "low").encode(x2=alt.X2("high"))

    def edge(self, layer: alt.Chart) -> alt.Chart:
        """Beside the arm on the edge of the chart."""
        return layer.encode(y=self._y(), x=alt.XValue(6))

    def _y(self) -> alt.Y:
        axis = alt.Axis(labelLimit=150, ticks=False, domain=False)
        return alt.Y("arm:N", sort=self.arms, title=None, axis=axis)


def final_values_layers(
    values: FinalValues, place: GridPlacement | RowPlacement, compares_splits: bool, has_line: bool
) -> alt.LayerChart:
    """Seeds, means, intervals with an arrow where the axis cuts them, and a cross for each arm with diverged runs.

    `has_line` connects the means.
    """
    legend = alt.Legend(orient="top", symbolOpacity=1) if compares_splits else None
    colors = [BLUE, ORANGE] if compares_splits else [BLUE, BLUE]
    color = alt.Color("series:N", title=None, legend=legend, scale=alt.Scale(domain=list(SPLITS), range=colors))
    shapes = alt.Scale(domain=list(SPLITS), range=["square", "circle"])
    shape = alt.Shape("series:N", title=None, legend=legend, scale=shapes)

    def layer(table: str, mark: alt.MarkDef) -> alt.Chart:
        return alt.Chart(alt.NamedData(table), mark=mark).encode(color=color)

    line = alt.MarkDef(type="line", clip=True, strokeWidth=1, opacity=0.5)
    seed = alt.MarkDef(type="point", clip=True, filled=True, size=26, opacity=0.35)
    bar = alt.MarkDef(type="rule", clip=True, strokeWidth=2)
    dot = alt.MarkDef(type="point", clip=True, filled=True, size=70, opacity=1)
    seeds = place.value(layer("points", seed), "value")
    means = place.value(layer("means", dot), "mean")
    layers = [place.value(layer("means", line), "mean")] if has_line else []
    layers += [
        seeds.encode(shape=shape, tooltip=tooltip_fields("arm", "seed", "value")),
        place.interval(layer("means", bar)),
        means.encode(shape=shape, tooltip=tooltip_fields("arm", "series", "mean", "low", "high", "runs")),
    ]
    if place.value_range.clips_intervals:
        for end, beyond in (("low", "<"), ("high", ">")):
            edge = getattr(place.value_range, end)
            arrow = alt.MarkDef(type="point", filled=True, size=120, opacity=1, aria=False, shape=place.arrows[end])
            cut = (
                layer("means", arrow)
                .transform_filter(f"datum.{end} {beyond} {edge}")
                .transform_calculate(edge=f"{edge}")
            )
            layers.append(place.value(cut, "edge"))
    if values.diverged:
        crosses = place.edge(alt.Chart(alt.NamedData("diverged"), mark=DIVERGED_MARK)).encode(color=alt.value(ORANGE))
        layers.append(crosses.encode(tooltip=tooltip_fields("arm", "diverged_runs")))
    return alt.LayerChart(layer=layers)
