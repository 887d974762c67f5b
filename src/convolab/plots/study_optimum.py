"""The trend of a grid in one figure: means with intervals, the parabola through the best of them, and its optimum."""

import math

import altair as alt
import numpy as np

from convolab.core.stats import mean_interval
from convolab.plots.study_figure import StudyFigure, tooltip_fields
from convolab.plots.study_scales import arm_numbers, to_display_unit
from convolab.plots.style import BLUE, GRAY, ORANGE
from convolab.studies.pairing import censored_values
from convolab.studies.results import ContrastResult, SectionResult
from convolab.studies.tables import TableRow
from convolab.studies.trend import Optimum

NUM_POINTS = 61  # of the parabola


def optimum_figures(result: SectionResult) -> list[StudyFigure]:
    """A figure for each trend that has an optimum."""
    return [
        optimum_figure(result, contrast, contrast.optimum) for contrast in result.contrast_results if contrast.optimum
    ]


def optimum_figure(result: SectionResult, contrast: ContrastResult, optimum: Optimum) -> StudyFigure:
    """The means that the parabola is fitted to, against the key; shaded: where the optimum lies among these values."""
    metric, key = contrast.contrast.parsed_metric, contrast.contrast.trend
    numbers = arm_numbers(result.section, key)
    means: list[TableRow] = []
    arms = [arm for arm in result.arms if arm.name in contrast.involved]
    for arm, values in censored_values(metric, arms, contrast.seeds).items():
        if not optimum.span[0] <= numbers[arm] * (1 + 1e-9) or numbers[arm] > optimum.span[1] * (1 + 1e-9):
            continue
        interval = metric.possible(mean_interval(list(values.values())))
        low, mean, high = (to_display_unit(metric, x) for x in (interval.low, interval.mean, interval.high))
        means.append({"arm": arm, "x": numbers[arm], "mean": mean, "low": low, "high": high})
    first, last = (math.log(end) if optimum.is_log else end for end in optimum.span)
    a, b, c = optimum.coefficients
    parabola: list[TableRow] = []
    for x in np.linspace(first, last, NUM_POINTS):
        value = math.exp(x) if optimum.is_log else float(x)
        parabola.append({"x": value, "mean": to_display_unit(metric, float(a + b * x + c * x * x))})
    lowest, highest = optimum.span
    place: list[TableRow] = [{"x": optimum.value}] if optimum.is_inside else []
    shade: list[TableRow] = []
    if place and optimum.low is not None and optimum.high is not None:
        shade = [{"low": max(optimum.low, lowest), "high": min(optimum.high, highest)}]
    name = key.rpartition(".")[2]
    scale = alt.Scale(type="log" if optimum.is_log else "linear", domain=[lowest, highest], nice=False, padding=14)
    axis = alt.Axis(values=sorted(float(row["x"] or 0) for row in means), format="~g", labelOverlap=False)
    x = alt.X("x:Q", title=key, scale=scale, axis=axis)
    y = alt.Y("mean:Q", title=f"{metric.title} ({metric.unit})", scale=alt.Scale(zero=False))
    points = alt.NamedData("means")
    layers = [
        alt.Chart(alt.NamedData("interval"), mark=alt.MarkDef(type="rect", color=ORANGE, opacity=0.18)).encode(
            x=alt.X("low:Q", scale=scale, axis=axis, title=key), x2="high:Q"
        ),
        alt.Chart(
            alt.NamedData("optimum"), mark=alt.MarkDef(type="rule", color=ORANGE, strokeWidth=2, strokeDash=[5, 3])
        ).encode(x=x),
        alt.Chart(alt.NamedData("parabola"), mark=alt.MarkDef(type="line", color=GRAY, strokeWidth=2)).encode(x=x, y=y),
        alt.Chart(points, mark=alt.MarkDef(type="rule", color=BLUE, strokeWidth=2)).encode(
            x=x, y=alt.Y("low:Q", scale=alt.Scale(zero=False)), y2="high:Q"
        ),
        alt.Chart(points, mark=alt.MarkDef(type="point", color=BLUE, filled=True, size=60, opacity=1)).encode(
            x=x, y=y, tooltip=tooltip_fields("arm", "mean", "low", "high")
        ),
    ]
    where = f"dashed: the optimum, {name} = {optimum.value:.3g}" if place else "no optimum inside"
    sure = ", shaded its 95 % interval" if shade else ", without an interval" if place else ""
    return StudyFigure(
        name=f"optimum_{str(metric).replace(':', '-').replace('.', '_')}",
        title=f"Optimum of {name} in {'the ' if metric.threshold is None else ''}{metric.title}",
        subtitle=f"mark: mean over the seeds, with its 95 % interval; line: the parabola through the best; {where}{sure}",
        chart=alt.LayerChart(layer=layers),
        tables={"means": means, "parabola": parabola, "optimum": place, "interval": shade},
    )
