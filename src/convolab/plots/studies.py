"""The charts of a study: curves of its arms with their spread over the seeds, and what the arms end at.

A figure is described once, for a page and for a file, in Vega-Lite's own words: a thousand runs make a hundred charts, and
altair's objects take a quarter of a second each to build. It names its tables, which a page holds by column and a file inside.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from convolab.core.text import truncate_list
from convolab.plots.style import (
    MAX_DISTINCT_ARMS,
    AxisRange,
    arm_styles,
    axis_range,
    swept_numeric_key,
    to_display_unit,
)
from convolab.plots.training import (
    BLUE,
    CHART_STYLE,
    ORANGE,
    TRAIN_METRICS_CAPTIONS,
    confusion_matrix_chart,
    needs_log_scale,
    title_params,
)
from convolab.studies.metrics import Metric
from convolab.studies.outcomes import Arm
from convolab.studies.results import BestOnTest, SectionResult, mean_curve
from convolab.studies.study import Section
from convolab.studies.tables import finished_metric_interval, finished_metric_values

FIGURE_WIDTH, FIGURE_HEIGHT = (
    480,
    280,
)  # of a figure in a file, without its titles; on a page it is as wide as its column
# The mark of a run that diverged: an outline, so that it takes its colour as a stroke.
DIVERGED_MARK = {"type": "point", "shape": "M-1,-1L1,1M-1,1L1,-1", "size": 50, "strokeWidth": 2, "filled": False}


@dataclass(frozen=True)
class StudyFigure:
    """A chart with its words, and the tables it draws."""

    name: str  # of its files
    title: str
    subtitle: str
    spec: dict[str, Any]  # Vega-Lite's, without data, size and titles
    tables: dict[str, pl.DataFrame]
    height: int = FIGURE_HEIGHT  # pixels
    colored_by_arm: bool = False  # its colours are the section's arms, so that a page can have one legend for all such

    @classmethod
    def from_chart(cls, name: str, chart: alt.TopLevelMixin) -> "StudyFigure":
        """The figure in a chart of `plots`."""
        with alt.data_transformers.disable_max_rows():
            spec = chart.to_dict()
        words, tables, height = spec["title"], spec.pop("datasets"), spec["height"]
        for key in ("$schema", "config", "title", "background", "padding", "width", "height"):
            spec.pop(key, None)
        return cls(
            name,
            words["text"],
            words["subtitle"],
            spec,
            {key: pl.DataFrame(rows) for key, rows in tables.items()},
            height,
        )

    def to_vega_lite(self) -> dict[str, Any]:
        """The specification with its data, size, words and look inside, to be saved."""
        words = title_params(textwrap.wrap(self.title, 60), textwrap.wrap(self.subtitle, 95))
        datasets = {name: table.to_dicts() for name, table in self.tables.items()}
        frame = {
            "width": FIGURE_WIDTH,
            "height": self.height,
            "background": "white",
            "padding": 14,
            "config": CHART_STYLE,
        }
        return self.spec | frame | {"title": words, "datasets": datasets}


def section_figures(result: SectionResult) -> list[StudyFigure]:
    """Every chart of a section that has something to show: a curve a quantity, then what the arms end at."""
    candidates = [section_curves_chart(result, quantity) for quantity in result.section.curves]
    if key := swept_numeric_key(result.section):
        candidates += [final_values_chart(result, [metric], key) for metric in contrast_metrics(result)]
        if any("loss" in quantity for quantity in result.section.curves):
            candidates.append(final_values_chart(result, train_and_validation_metrics("loss"), key))
    elif len(result.arms) > 1:
        candidates.append(final_values_chart(result, train_and_validation_metrics("accuracy")))
    return [figure for figure in candidates if figure]


def train_and_validation_metrics(quantity: str) -> list[Metric]:
    return [Metric("final", f"train_{quantity}"), Metric("final", f"validation_{quantity}")]


def contrast_metrics(result: SectionResult) -> list[Metric]:
    """The metrics that the section's contrasts ask about; where there are none, the best validation accuracy."""
    return list(dict.fromkeys(contrast.parsed_metric for contrast in result.section.contrasts)) or [
        Metric("best", "validation_accuracy")
    ]


def section_curves_chart(result: SectionResult, quantity: str) -> StudyFigure | None:
    """A quantity against epochs: each arm's mean with its band, single runs faint, a cross where a run diverged.

    So many arms that they need the ramp are drawn without bands and single runs, except those that diverged.
    """
    metric, arms_distinct = Metric("final", quantity), len(result.arms) <= MAX_DISTINCT_ARMS
    means, runs = mean_curve_table(result.arms, metric), run_curve_table(result.arms, metric)
    if runs.is_empty():
        return None
    seeds = means["count"].max() or 0
    finished = runs.filter(pl.col("status") == "finished")["value"]
    value_range = axis_range(finished if len(finished) else runs["value"], means, metric)
    faint_runs = runs.filter(pl.lit(arms_distinct and seeds > 1) | (pl.col("status") == "diverged")).drop("status")
    crosses = divergence_table(result.arms, metric, value_range)
    name = metric.quantity_title
    caption_parts = [
        f"line: mean of {describe_run_count(means)}" if seeds > 1 else "one run an arm" if seeds else "no run finished",
        ""
        if seeds < 2
        else "band: its 95 % t-interval"
        + (", cut off at the axis" if value_range.clips_intervals else "")
        + "; faint: single runs"
        if arms_distinct
        else "so many arms are drawn without bands and single runs",
        "cross: a run diverged" if len(crosses) else "",
        train_metrics_caption(result) if quantity.startswith("train") else "",
    ]
    bands = arms_distinct and seeds > 1
    tables = {"means": means if bands else means.drop("low", "high", "count"), "runs": faint_runs, "crosses": crosses}
    shared, layers = curve_layers(result.section, runs["epoch"].max(), value_range.to_channel(name, metric.unit), bands)
    spec = {"params": [{"name": "focus", "value": ""}], "encoding": shared, "layer": drop_empty_layers(layers, tables)}
    return StudyFigure(
        quantity, name.capitalize(), "; ".join(filter(None, caption_parts)), spec, tables, colored_by_arm=True
    )


def curve_layers(
    section: Section, epochs: int, y: dict[str, Any], bands: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the layers of a chart of curves share, and the layers.

    A page sets the parameter `focus` to an arm, and the others fade.
    """
    styles = arm_styles(section)
    columns = max(1, 90 // (6 + max(map(len, styles))))
    legend = {
        "orient": "top",
        "columns": columns,
        "symbolType": "stroke",
        "symbolSize": 400,
        "symbolStrokeWidth": 2,
        "symbolOpacity": 1,
    }
    legend["labelLimit"] = FIGURE_WIDTH
    color, dash = (
        {"field": "arm", "title": None, "scale": {"domain": list(styles), "range": list(values)}, "legend": legend}
        for values in zip(*styles.values(), strict=True)
    )
    single_epoch = epochs == 1  # a line of one point cannot be seen
    x = {"field": "epoch", "type": "quantitative", "scale": {"domain": [1, max(2, epochs)], "nice": False}}
    x["axis"] = {"format": "d", "tickMinStep": 1, "tickCount": 8, "grid": False}

    def layer(data: str, mark: dict[str, Any], value: str, opacity: float | int, **channels: Any) -> dict[str, Any]:
        faded = {"condition": {"test": "focus == '' || focus == datum.arm", "value": opacity}, "value": opacity / 8}
        encoding = {"y": {"field": value, "type": "quantitative"} | y, "opacity": faded} | channels
        return {"data": {"name": data}, "mark": {"clip": True} | mark, "encoding": encoding}

    mean_tooltip = tooltip_fields("arm", "epoch", "mean") + (tooltip_fields("low", "high", "count") if bands else [])
    target = {"type": "circle", "size": 40} if single_epoch else {"type": "circle", "size": 90, "aria": False}
    return {"x": x, "color": color}, [
        *([layer("means", {"type": "area"}, "low", 0.16, y2={"field": "high"})] if bands else []),
        layer(
            "runs",
            {"type": "line", "strokeWidth": 1},
            "value",
            0.4,
            detail={"field": "seed"},
            tooltip=tooltip_fields("arm", "seed"),
        ),
        layer("means", {"type": "line", "strokeWidth": 2}, "mean", 1, strokeDash=dash),
        layer(
            "means", target, "mean", 1 if single_epoch else 0, tooltip=mean_tooltip
        ),  # unseen, wider than the line: to be pointed at
        layer(
            "crosses", DIVERGED_MARK | {"clip": False}, "place", 1, tooltip=tooltip_fields("arm", "seed", "diverged")
        ),
    ]


def drop_empty_layers(layers: list[dict[str, Any]], tables: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """The layers that have something to draw."""
    return [layer for layer in layers if len(tables[layer["data"]["name"]])]


def tooltip_fields(*fields: str) -> list[dict[str, str]]:
    """What is said where a person points at a mark."""
    words = {"low": "95 % from", "high": "to", "count": "runs"}
    numbers = {"mean", "low", "high", "value"}
    return [
        {"field": f, "title": words.get(f, f)} | ({"format": ".4~g", "type": "quantitative"} if f in numbers else {})
        for f in fields
    ]


def final_values_chart(result: SectionResult, metrics: Sequence[Metric], key: str | None = None) -> StudyFigure | None:
    """What each arm comes to by a metric, or by one of training and one of validation: every seed, the mean, its interval.

    The arms stand in rows; with `key`, of which the section's grid tries numbers, they lie along an axis of these.
    """
    tables = final_value_tables(result, metrics, key)
    if tables["means"].is_empty():
        return None
    first, compares_splits, means = metrics[0], len(metrics) > 1, tables["means"]
    value_range = axis_range(tables["points"]["value"], means, first)
    name = f"final {first.quantity.removeprefix('train_')}" if compares_splits else first.title
    diverged_arms = [f"{arm} ({said})" for arm, _, said in tables["lost"].iter_rows()]
    cut = ", cut off at the axis" if value_range.clips_intervals else ""
    caption_parts = [
        f"dot: mean of {describe_run_count(means)}; bar: its 95 % t-interval{cut}; faint: seeds"
        if means["count"].max() > 1
        else "one run an arm",
        f"cross: diverged, {truncate_list(diverged_arms)}" if diverged_arms else "",
    ]
    spec = {
        "layer": drop_empty_layers(
            final_value_layers(
                tables,
                value_range.to_channel(name, first.unit),
                list(result.section.arm_overrides),
                key,
                compares_splits,
            ),
            tables,
        )
    }
    return StudyFigure(
        name=name.replace(" ", "_") if compares_splits else str(first).replace(":", "-"),
        title=f"{name[0].upper()}{name[1:]}" + (f" against {key}" if key else ""),
        subtitle="; ".join(filter(None, caption_parts)),
        spec=spec,
        tables=tables,
        height=FIGURE_HEIGHT if key else max(100, 34 * len(result.arms)),
    )


def final_value_tables(result: SectionResult, metrics: Sequence[Metric], key: str | None) -> dict[str, pl.DataFrame]:
    """The means, the single runs' points and the arms that lost runs to divergence, in the metrics' unit."""
    positions = {arm: float(changes[key]) if key else None for arm, changes in result.section.arm_overrides.items()}
    points, means = [], []
    for metric in metrics:
        for arm in result.arms:
            start = (arm.name, positions[arm.name], "training" if metric.quantity.startswith("train") else "validation")
            points += [
                (*start, seed, to_display_unit(metric, value))
                for seed, value in finished_metric_values(arm, metric).items()
            ]
            if of := finished_metric_interval(arm, metric):
                means.append(
                    (*start, *(to_display_unit(metric, value) for value in (of.mean, of.low, of.high)), of.count)
                )
    diverged_rows = [
        (arm.name, positions[arm.name], f"{len(arm.diverged)} of {len(arm.results)}")
        for arm in result.arms
        if arm.diverged
    ]
    arm_schema = {"arm": pl.String, "place": pl.Float64}
    series = arm_schema | {"series": pl.String}
    return {
        "means": typed_frame(
            means, series | {"mean": pl.Float64, "low": pl.Float64, "high": pl.Float64, "count": pl.Int64}
        ),
        "points": typed_frame(points, series | {"seed": pl.Int64, "value": pl.Float64}),
        "lost": typed_frame(diverged_rows, arm_schema | {"diverged": pl.String}),
    }


def final_value_layers(
    tables: dict[str, pl.DataFrame], value_axis: dict[str, Any], arms: list[str], key: str | None, compares_splits: bool
) -> list[dict[str, Any]]:
    """The layers of a chart of `ends`."""
    domain, legend = ["training", "validation"], {"orient": "top", "symbolOpacity": 1} if compares_splits else None
    series_channel = {"field": "series", "title": None, "legend": legend}
    colour = series_channel | {
        "scale": {"domain": domain, "range": [BLUE, ORANGE] if compares_splits else [BLUE, BLUE]}
    }
    shape = series_channel | {"scale": {"domain": domain, "range": ["square", "circle"]}}
    if key:
        positions = sorted({*tables["means"]["place"], *tables["lost"]["place"]})
        log = positions[0] > 0 and needs_log_scale(positions)
        axis = {"grid": False, "format": "~g", "labelOverlap": "parity"} | (
            {"values": positions} if len(positions) <= 12 else {}
        )
        scale = {"nice": False, "padding": 16} | ({"type": "log"} if log else {"zero": False})
        arm_channel = {
            "field": "place",
            "type": "quantitative",
            "title": key + (" (log scale)" if log else ""),
            "scale": scale,
            "axis": axis,
        }
        arm_axis, value_direction, diverged_offset, offset = "x", "y", FIGURE_HEIGHT - 8, {}
    else:
        arm_channel = {
            "field": "arm",
            "sort": arms,
            "title": None,
            "axis": {"labelLimit": 150, "ticks": False, "domain": False},
        }
        arm_axis, value_direction, diverged_offset, offset = (
            "y",
            "x",
            6,
            {"yOffset": {"field": "series", "sort": domain}} if compares_splits else {},
        )

    def layer(data: str, mark: dict[str, Any], value: str, **channels: Any) -> dict[str, Any]:
        encoding = (
            {
                arm_axis: arm_channel,
                value_direction: {"field": value, "type": "quantitative"} | value_axis,
                "color": colour,
            }
            | offset
            | channels
        )
        return {"data": {"name": data}, "mark": {"clip": True} | mark, "encoding": encoding}

    line = layer("means", {"type": "line", "strokeWidth": 1, "opacity": 0.5}, "mean")
    dot = {"type": "point", "filled": True}
    return [
        *([line] if key else []),
        layer(
            "points",
            dot | {"size": 26, "opacity": 0.35},
            "value",
            shape=shape,
            tooltip=tooltip_fields("arm", "seed", "value"),
        ),
        layer("means", {"type": "rule", "strokeWidth": 2}, "low", **{f"{value_direction}2": {"field": "high"}}),
        layer(
            "means",
            dot | {"size": 70, "opacity": 1},
            "mean",
            shape=shape,
            tooltip=tooltip_fields("arm", "series", "mean", "low", "high", "count"),
        ),
        {
            "data": {"name": "lost"},
            "mark": DIVERGED_MARK | {"color": ORANGE},
            "encoding": {
                arm_axis: arm_channel,
                value_direction: {"value": diverged_offset},
                "tooltip": tooltip_fields("arm", "diverged"),
            },
        },
    ]


def best_on_test_figures(best: BestOnTest) -> list[StudyFigure]:
    """The confusion matrix of the tested run, and its accuracy class by class."""
    trial, classes = best.trial_result.trial, list(best.test_result["per_class"])
    matrix = StudyFigure.from_chart(
        "confusion",
        confusion_matrix_chart(
            best.test_result["confusion"], classes, f"What {trial.recipe.model.name} calls the test pictures"
        ),
    )
    shares = [
        (name, to_display_unit(Metric("final", "train_accuracy"), share))
        for name, share in best.test_result["per_class"].items()
        if share is not None
    ]
    shares.sort(key=lambda share: -share[1])
    row = {
        "field": "class",
        "sort": [name for name, _ in shares],
        "title": None,
        "axis": {"labelLimit": 120, "ticks": False, "domain": False},
    }
    scale, data = {"domain": [0, 100]}, {"name": "classes"}
    value = {"field": "accuracy", "type": "quantitative", "title": "accuracy on the test pictures (%)", "scale": scale}
    text = {"field": "accuracy", "type": "quantitative", "format": ".1f"}
    layers = [
        {
            "data": data,
            "mark": {"type": "bar", "color": BLUE, "height": {"band": 0.6}},
            "encoding": {"y": row, "x": value},
        },
        {
            "data": data,
            "mark": {"type": "text", "align": "left", "dx": 4},
            "encoding": {"y": row, "x": value, "text": text},
        },
    ]
    table = typed_frame(shares, {"class": pl.String, "accuracy": pl.Float64})
    subtitle = "of each true class, the share called right"
    return [
        matrix,
        StudyFigure(
            "per_class",
            "Accuracy class by class",
            subtitle,
            {"layer": layers},
            {"classes": table},
            max(100, 24 * len(shares)),
        ),
    ]


def mean_curve_table(arms: Sequence[Arm], metric: Metric) -> pl.DataFrame:
    """A row an arm and epoch: the mean of the finished runs and its interval, in the metric's unit."""
    rows = [
        (arm.name, epoch, *(to_display_unit(metric, value) for value in (of.mean, of.low, of.high)), of.count)
        for arm in arms
        for epoch, of in mean_curve(arm, metric.quantity)
    ]
    return typed_frame(
        rows,
        {
            "arm": pl.String,
            "epoch": pl.Int64,
            "mean": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
            "count": pl.Int64,
        },
    )


def run_curve_table(arms: Sequence[Arm], metric: Metric) -> pl.DataFrame:
    """A row a run and epoch, of the runs that finished or diverged, in the metric's unit."""
    rows = [
        (arm.name, outcome.trial.seed, outcome.status, epoch.epoch, to_display_unit(metric, value))
        for arm in arms
        for outcome in (*arm.finished, *arm.diverged)
        for epoch in outcome.history
        if (value := getattr(epoch, metric.quantity)) is not None and math.isfinite(value)
    ]
    return typed_frame(
        rows, {"arm": pl.String, "seed": pl.Int64, "status": pl.String, "epoch": pl.Int64, "value": pl.Float64}
    )


def divergence_table(arms: Sequence[Arm], metric: Metric, value_range: AxisRange) -> pl.DataFrame:
    """A row a diverged run: where its curve ends, or on the bad edge of the chart if it has no epoch or left the chart."""
    rows = []
    for arm in arms:
        for outcome in arm.diverged:
            done = len(outcome.history)
            value = (
                getattr(outcome.history[-1], metric.quantity)
                if done
                else -math.inf
                if metric.quantity_higher_is_better
                else math.inf
            )
            if value is None or math.isnan(value):
                continue
            position = min(value_range.high, max(value_range.low, to_display_unit(metric, value)))
            rows.append((arm.name, outcome.trial.seed, max(1, done), position, outcome.reason or f"after epoch {done}"))
    return typed_frame(
        rows, {"arm": pl.String, "seed": pl.Int64, "epoch": pl.Int64, "place": pl.Float64, "diverged": pl.String}
    )


def typed_frame(rows: list[tuple[Any, ...]], schema: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema, orient="row")


def describe_run_count(means: pl.DataFrame) -> str:
    """How many runs a mean is of.

    >>> count_of(pl.DataFrame({"count": [3, 2]}))
    '2 to 3 runs'
    """
    low, high = means["count"].min(), means["count"].max()
    return f"{low} to {high} runs" if low < high else f"{high} runs"


def train_metrics_caption(result: SectionResult) -> str:
    """Of which weights the training figures are."""
    kinds = {outcome.history[0].train_metrics for arm in result.arms for outcome in arm.results if outcome.history}
    return TRAIN_METRICS_CAPTIONS[kinds.pop()] if len(kinds) == 1 else ""
