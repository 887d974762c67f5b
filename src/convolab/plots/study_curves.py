"""Learning curves of a section: each arm's mean over the seeds and its interval, single runs, where runs diverged."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import altair as alt

from convolab.plots.study_figure import (
    DIVERGED_MARK,
    FIGURE_WIDTH,
    StudyFigure,
    Tables,
    describe_run_count,
    tooltip_fields,
)
from convolab.plots.study_scales import MAX_DISTINCT_ARMS, AxisRange, arm_styles, axis_range, to_display_unit
from convolab.plots.training import TRAIN_METRICS_CAPTIONS
from convolab.studies.metrics import Metric
from convolab.studies.results import Arm, SectionResult, mean_curve
from convolab.studies.section import Section
from convolab.studies.tables import TableRow


class MeanPoint(NamedTuple):
    """The mean of an arm's finished runs after an epoch with its interval, in the metric's unit."""

    arm: str
    epoch: int
    mean: float
    low: float
    high: float
    runs: int


class RunPoint(NamedTuple):
    """The value of one run after an epoch, in the metric's unit."""

    arm: str
    seed: int
    epoch: int
    value: float


class Divergence(NamedTuple):
    """Where the curve of a diverged run ends, in the metric's unit."""

    arm: str
    seed: int
    epoch: int
    position: float
    reason: str


def section_curves_chart(result: SectionResult, quantity: str) -> StudyFigure | None:
    """A quantity against epochs: each arm's mean with its band, single runs faint, a cross where a run diverged.

    With more than seven arms, bands and single runs are omitted, except those of diverged runs. None where no run has
    a value of the quantity.
    """
    metric = Metric("final", quantity)
    means = mean_points(result.arms, metric)
    finished = run_points(result.arms, metric, "finished")
    diverged = run_points(result.arms, metric, "diverged")
    if not (finished or diverged):
        return None
    arms_distinct = len(result.arms) <= MAX_DISTINCT_ARMS
    seeds = max((point.runs for point in means), default=0)
    bands = arms_distinct and seeds > 1
    value_range = axis_range(
        [point.value for point in finished or diverged], [(point.low, point.high) for point in means], metric
    )
    divergences = divergence_points(result.arms, metric, value_range)
    tables: Tables = {
        "means": [point._asdict() if bands else without_interval(point) for point in means],
        "runs": [point._asdict() for point in ([*finished, *diverged] if bands else diverged)],
        "divergences": [point._asdict() for point in divergences],
    }
    name = metric.quantity_title
    chart = curves_chart(
        result.section,
        epochs=max(point.epoch for point in (*finished, *diverged)),
        y_title=value_range.title(name, metric.unit),
        value_range=value_range,
        tables=tables,
        bands=bands,
    )
    caption = curves_caption(result, quantity, [point.runs for point in means], value_range, bool(divergences))
    return StudyFigure(quantity, name.capitalize(), caption, chart, tables, colored_by_arm=True)


def curves_caption(
    result: SectionResult, quantity: str, counts: Sequence[int], value_range: AxisRange, has_divergences: bool
) -> str:
    """What lines, bands and crosses are."""
    seeds = max(counts, default=0)
    clipped = ", clipped at the axis" if value_range.clips_intervals else ""
    if seeds > 1:
        lines = f"line: mean of {describe_run_count(counts)}"
    else:
        lines = "one run per arm" if seeds else "no run finished"
    if len(result.arms) > MAX_DISTINCT_ARMS:
        bands = "with this many arms, bands and single runs are omitted" if seeds > 1 else ""
    else:
        bands = f"band: its 95 % t-interval{clipped}; faint: single runs" if seeds > 1 else ""
    crosses = "cross: diverged run" if has_divergences else ""
    weights = train_metrics_caption(result) if quantity.startswith("train") else ""
    return "; ".join(filter(None, (lines, bands, crosses, weights)))


def curves_chart(
    section: Section, epochs: int, y_title: str, value_range: AxisRange, tables: Tables, bands: bool
) -> alt.LayerChart:
    """The layers that have something to draw. A page sets the parameter `focus` to an arm, and the others fade."""
    single_epoch = epochs == 1  # a line of one point is invisible

    def layer(table: str, mark: alt.MarkDef, field: str, opacity: float) -> alt.Chart:
        y = alt.Y(f"{field}:Q", title=y_title, scale=value_range.scale(), axis=value_range.axis())
        test = {"test": "focus == '' || focus == datum.arm", "value": opacity}
        faded = alt.OpacityValue(opacity / 8, condition=test)
        return alt.Chart(alt.NamedData(table), mark=mark).encode(y=y, opacity=faded)

    layers = []
    if tables["means"] and bands:
        layers.append(layer("means", alt.MarkDef(type="area", clip=True), "low", 0.16).encode(y2=alt.Y2("high")))
    if tables["runs"]:
        runs = layer("runs", alt.MarkDef(type="line", clip=True, strokeWidth=1), "value", 0.4)
        layers.append(runs.encode(detail=alt.Detail("seed:N"), tooltip=tooltip_fields("arm", "seed")))
    if tables["means"]:
        line = layer("means", alt.MarkDef(type="line", clip=True, strokeWidth=2), "mean", 1.0)
        layers.append(line.encode(strokeDash=arm_dashes(section)))
        # Invisible and wider than the line: a target to point at.
        points = alt.MarkDef(type="circle", clip=True, size=40 if single_epoch else 90, aria=single_epoch)
        fields = ("arm", "epoch", "mean", "low", "high", "runs") if bands else ("arm", "epoch", "mean")
        target = layer("means", points, "mean", 1.0 if single_epoch else 0.0)
        layers.append(target.encode(tooltip=tooltip_fields(*fields)))
    if tables["divergences"]:
        crosses = layer("divergences", DIVERGED_MARK, "position", 1.0)
        layers.append(crosses.encode(tooltip=tooltip_fields("arm", "seed", "reason")))
    # Few epochs have a tick each: a chart that chooses its ticks labels 1.5 as 2.
    ticks = list(range(1, epochs + 1)) if epochs <= 8 else alt.Undefined
    axis = alt.Axis(format="d", tickMinStep=1, tickCount=8, values=ticks, grid=False, labelOverlap=True)
    x = alt.X("epoch:Q", scale=alt.Scale(domain=[1, max(2, epochs)], nice=False), axis=axis)
    return (
        alt.LayerChart(layer=layers)
        .encode(x=x, color=arm_colors(section))
        .add_params(alt.param(name="focus", value=""))
    )


def arm_colors(section: Section) -> alt.Color:
    """The arms' colors."""
    styles = arm_styles(section)
    scale = alt.Scale(domain=list(styles), range=[color for color, _ in styles.values()])
    return alt.Color("arm:N", title=None, scale=scale, legend=arm_legend(section))


def arm_dashes(section: Section) -> alt.StrokeDash:
    """The arms' dashes, in the same legend."""
    styles = arm_styles(section)
    scale = alt.Scale(domain=list(styles), range=[dash for _, dash in styles.values()])
    return alt.StrokeDash("arm:N", title=None, scale=scale, legend=arm_legend(section))


def arm_legend(section: Section) -> alt.Legend:
    """The legend of the arms, in as many columns as fit a file's figure."""
    return alt.Legend(
        orient="top",
        columns=max(1, 90 // (6 + max(map(len, section.arm_overrides)))),
        columnPadding=24,  # a browser's letters may be wider than those that the columns are measured with
        symbolType="stroke",
        symbolSize=400,
        symbolStrokeWidth=2,
        symbolOpacity=1,
        labelLimit=FIGURE_WIDTH,
    )


def mean_points(arms: Sequence[Arm], metric: Metric) -> list[MeanPoint]:
    """One point per arm and epoch: the mean of the finished runs and its interval."""
    return [
        MeanPoint(
            arm.name,
            epoch,
            to_display_unit(metric, interval.mean),
            to_display_unit(metric, interval.low),
            to_display_unit(metric, interval.high),
            interval.count,
        )
        for arm in arms
        for epoch, interval in mean_curve(arm, metric.quantity)
    ]


def without_interval(point: MeanPoint) -> TableRow:
    """A mean's row where no band is drawn."""
    return {"arm": point.arm, "epoch": point.epoch, "mean": point.mean}


def run_points(arms: Sequence[Arm], metric: Metric, status: str) -> list[RunPoint]:
    """One point per epoch of each run with that status; values that are not finite are left out."""
    return [
        RunPoint(arm.name, result.trial.seed, epoch.epoch, to_display_unit(metric, value))
        for arm in arms
        for result in arm.results
        if result.status == status
        for epoch in result.history
        if (value := getattr(epoch, metric.quantity)) is not None and math.isfinite(value)
    ]


def divergence_points(arms: Sequence[Arm], metric: Metric, value_range: AxisRange) -> list[Divergence]:
    """Where the curves of diverged runs end: at the bad edge of the chart for one without an epoch or off the axis."""
    points = []
    for arm in arms:
        for result in arm.diverged:
            epochs = len(result.history)
            worst = -math.inf if metric.quantity_higher_is_better else math.inf
            value = getattr(result.history[-1], metric.quantity) if epochs else worst
            if value is None or math.isnan(value):
                continue
            position = min(value_range.high, max(value_range.low, to_display_unit(metric, value)))
            reason = result.reason or f"after epoch {epochs}"
            points.append(Divergence(arm.name, result.trial.seed, max(1, epochs), position, reason))
    return points


def train_metrics_caption(result: SectionResult) -> str:
    """Which weights the training metrics are of, and whether of augmented images."""
    trained = [outcome for arm in result.arms for outcome in arm.results if outcome.history]
    kinds = {outcome.history[0].train_metrics for outcome in trained}
    if len(kinds) != 1:
        return ""
    (kind,) = kinds
    augmented = {bool(outcome.trial.recipe.data.augment) for outcome in trained}
    images = ""
    if kind == "running" and any(augmented):
        images = ", with augmentation" if all(augmented) else ", with augmentation where the arm has one"
    return TRAIN_METRICS_CAPTIONS[kind] + images
