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

from convolab.plots.style import FEW, Extent, extent, in_unit, looks, numeric_key
from convolab.plots.training import BLUE, LOOK, ORANGE, TRAINING_FIGURES, confusion, heading, wants_log
from convolab.studies.metrics import Metric
from convolab.studies.outcomes import Arm
from convolab.studies.results import BestOnTest, SectionResult, mean_curve
from convolab.studies.study import Section
from convolab.studies.tables import interval_of, values_of

WIDTH, HEIGHT = 480, 280  # of a figure in a file, without its titles; on a page it is as wide as its column
# The mark of a run that diverged: an outline, so that it takes its colour as a stroke.
CROSS = {"type": "point", "shape": "M-1,-1L1,1M-1,1L1,-1", "size": 50, "strokeWidth": 2, "filled": False}


@dataclass(frozen=True)
class Figure:
    """A chart with its words, and the tables it draws."""

    name: str  # of its files
    title: str
    subtitle: str
    spec: dict[str, Any]  # Vega-Lite's, without data, size and titles
    tables: dict[str, pl.DataFrame]
    height: int = HEIGHT  # pixels
    by_arm: bool = False  # its colours are the section's arms, so that a page can have one legend for all such

    @classmethod
    def of(cls, name: str, chart: alt.TopLevelMixin) -> "Figure":
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

    def whole(self) -> dict[str, Any]:
        """The specification with its data, size, words and look inside, to be saved."""
        words = heading(textwrap.wrap(self.title, 60), textwrap.wrap(self.subtitle, 95))
        datasets = {name: table.to_dicts() for name, table in self.tables.items()}
        frame = {"width": WIDTH, "height": self.height, "background": "white", "padding": 14, "config": LOOK}
        return self.spec | frame | {"title": words, "datasets": datasets}


def figures(result: SectionResult) -> list[Figure]:
    """Every chart of a section that has something to show: a curve a quantity, then what the arms end at."""
    drawn = [curves(result, quantity) for quantity in result.section.curves]
    if key := numeric_key(result.section):
        drawn += [ends(result, [metric], key) for metric in asked(result)]
        if any("loss" in quantity for quantity in result.section.curves):
            drawn.append(ends(result, both("loss"), key))
    elif len(result.arms) > 1:
        drawn.append(ends(result, both("accuracy")))
    return [figure for figure in drawn if figure]


def both(what: str) -> list[Metric]:
    return [Metric("final", f"train_{what}"), Metric("final", f"validation_{what}")]


def asked(result: SectionResult) -> list[Metric]:
    """The metrics that the section's contrasts ask about; where there are none, the best validation accuracy."""
    return list(dict.fromkeys(contrast.measure for contrast in result.section.contrasts)) or [
        Metric("best", "validation_accuracy")
    ]


def curves(result: SectionResult, quantity: str) -> Figure | None:
    """A quantity against epochs: each arm's mean with its band, single runs faint, a cross where a run diverged.

    So many arms that they need the ramp are drawn without bands and single runs, except those that diverged.
    """
    metric, few = Metric("final", quantity), len(result.arms) <= FEW
    means, runs = mean_table(result.arms, metric), run_table(result.arms, metric)
    if runs.is_empty():
        return None
    seeds = means["count"].max() or 0
    finished = runs.filter(pl.col("status") == "finished")["value"]
    span = extent(finished if len(finished) else runs["value"], means, metric)
    kept = runs.filter(pl.lit(few and seeds > 1) | (pl.col("status") == "diverged")).drop("status")
    crosses = cross_table(result.arms, metric, span)
    name = metric.words
    said = [
        f"line: mean of {count_of(means)}" if seeds > 1 else "one run an arm" if seeds else "no run finished",
        ""
        if seeds < 2
        else "band: its 95 % t-interval" + (", cut off at the axis" if span.cut else "") + "; faint: single runs"
        if few
        else "so many arms are drawn without bands and single runs",
        "cross: a run diverged" if len(crosses) else "",
        training_figures(result) if quantity.startswith("train") else "",
    ]
    bands = few and seeds > 1
    tables = {"means": means if bands else means.drop("low", "high", "count"), "runs": kept, "crosses": crosses}
    shared, layers = curve_layers(result.section, runs["epoch"].max(), span.axis(name, metric.unit), bands)
    spec = {"params": [{"name": "focus", "value": ""}], "encoding": shared, "layer": with_rows(layers, tables)}
    return Figure(quantity, name.capitalize(), "; ".join(filter(None, said)), spec, tables, by_arm=True)


def curve_layers(
    section: Section, epochs: int, y: dict[str, Any], bands: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the layers of a chart of curves share, and the layers.

    A page sets the parameter `focus` to an arm, and the others fade.
    """
    styles = looks(section)
    columns = max(1, 90 // (6 + max(map(len, styles))))
    legend = {
        "orient": "top",
        "columns": columns,
        "symbolType": "stroke",
        "symbolSize": 400,
        "symbolStrokeWidth": 2,
        "symbolOpacity": 1,
    }
    legend["labelLimit"] = WIDTH
    colour, dash = (
        {"field": "arm", "title": None, "scale": {"domain": list(styles), "range": list(values)}, "legend": legend}
        for values in zip(*styles.values(), strict=True)
    )
    lone = epochs == 1  # a line of one point cannot be seen
    x = {"field": "epoch", "type": "quantitative", "scale": {"domain": [1, max(2, epochs)], "nice": False}}
    x["axis"] = {"format": "d", "tickMinStep": 1, "tickCount": 8, "grid": False}

    def layer(data: str, mark: dict[str, Any], value: str, opacity: float | int, **channels: Any) -> dict[str, Any]:
        faded = {"condition": {"test": "focus == '' || focus == datum.arm", "value": opacity}, "value": opacity / 8}
        encoding = {"y": {"field": value, "type": "quantitative"} | y, "opacity": faded} | channels
        return {"data": {"name": data}, "mark": {"clip": True} | mark, "encoding": encoding}

    said = told("arm", "epoch", "mean") + (told("low", "high", "count") if bands else [])
    target = {"type": "circle", "size": 40} if lone else {"type": "circle", "size": 90, "aria": False}
    return {"x": x, "color": colour}, [
        *([layer("means", {"type": "area"}, "low", 0.16, y2={"field": "high"})] if bands else []),
        layer(
            "runs",
            {"type": "line", "strokeWidth": 1},
            "value",
            0.4,
            detail={"field": "seed"},
            tooltip=told("arm", "seed"),
        ),
        layer("means", {"type": "line", "strokeWidth": 2}, "mean", 1, strokeDash=dash),
        layer("means", target, "mean", 1 if lone else 0, tooltip=said),  # unseen, wider than the line: to be pointed at
        layer("crosses", CROSS | {"clip": False}, "place", 1, tooltip=told("arm", "seed", "diverged")),
    ]


def with_rows(layers: list[dict[str, Any]], tables: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """The layers that have something to draw."""
    return [layer for layer in layers if len(tables[layer["data"]["name"]])]


def told(*fields: str) -> list[dict[str, str]]:
    """What is said where a person points at a mark."""
    words = {"low": "95 % from", "high": "to", "count": "runs"}
    numbers = {"mean", "low", "high", "value"}
    return [
        {"field": f, "title": words.get(f, f)} | ({"format": ".4~g", "type": "quantitative"} if f in numbers else {})
        for f in fields
    ]


def ends(result: SectionResult, metrics: Sequence[Metric], key: str | None = None) -> Figure | None:
    """What each arm comes to by a metric, or by one of training and one of validation: every seed, the mean, its interval.

    The arms stand in rows; with `key`, of which the section's grid tries numbers, they lie along an axis of these.
    """
    tables = end_tables(result, metrics, key)
    if tables["means"].is_empty():
        return None
    first, pair, means = metrics[0], len(metrics) > 1, tables["means"]
    span = extent(tables["points"]["value"], means, first)
    name = f"final {first.quantity.removeprefix('train_')}" if pair else first.title
    lost = [f"{arm} ({said})" for arm, _, said in tables["lost"].iter_rows()]
    cut = ", cut off at the axis" if span.cut else ""
    said = [
        f"dot: mean of {count_of(means)}; bar: its 95 % t-interval{cut}; faint: seeds"
        if means["count"].max() > 1
        else "one run an arm",
        f"cross: diverged, {some(lost)}" if lost else "",
    ]
    spec = {
        "layer": with_rows(
            end_layers(tables, span.axis(name, first.unit), list(result.section.named_arms), key, pair), tables
        )
    }
    return Figure(
        name=name.replace(" ", "_") if pair else str(first).replace(":", "-"),
        title=f"{name[0].upper()}{name[1:]}" + (f" against {key}" if key else ""),
        subtitle="; ".join(filter(None, said)),
        spec=spec,
        tables=tables,
        height=HEIGHT if key else max(100, 34 * len(result.arms)),
    )


def end_tables(result: SectionResult, metrics: Sequence[Metric], key: str | None) -> dict[str, pl.DataFrame]:
    """The means, the single runs' points and the arms that lost runs to divergence, in the metrics' unit."""
    place = {arm: float(changes[key]) if key else None for arm, changes in result.section.named_arms.items()}
    points, means = [], []
    for metric in metrics:
        for arm in result.arms:
            start = (arm.name, place[arm.name], "training" if metric.quantity.startswith("train") else "validation")
            points += [(*start, seed, in_unit(metric, value)) for seed, value in values_of(arm, metric).items()]
            if of := interval_of(arm, metric):
                means.append((*start, *(in_unit(metric, value) for value in (of.mean, of.low, of.high)), of.count))
    lost = [
        (arm.name, place[arm.name], f"{len(arm.diverged)} of {len(arm.outcomes)}")
        for arm in result.arms
        if arm.diverged
    ]
    whose = {"arm": pl.String, "place": pl.Float64}
    series = whose | {"series": pl.String}
    return {
        "means": frame(means, series | {"mean": pl.Float64, "low": pl.Float64, "high": pl.Float64, "count": pl.Int64}),
        "points": frame(points, series | {"seed": pl.Int64, "value": pl.Float64}),
        "lost": frame(lost, whose | {"diverged": pl.String}),
    }


def end_layers(
    tables: dict[str, pl.DataFrame], value_axis: dict[str, Any], arms: list[str], key: str | None, pair: bool
) -> list[dict[str, Any]]:
    """The layers of a chart of `ends`."""
    domain, legend = ["training", "validation"], {"orient": "top", "symbolOpacity": 1} if pair else None
    whose = {"field": "series", "title": None, "legend": legend}
    colour = whose | {"scale": {"domain": domain, "range": [BLUE, ORANGE] if pair else [BLUE, BLUE]}}
    shape = whose | {"scale": {"domain": domain, "range": ["square", "circle"]}}
    if key:
        places = sorted({*tables["means"]["place"], *tables["lost"]["place"]})
        log = places[0] > 0 and wants_log(places)
        axis = {"grid": False, "format": "~g", "labelOverlap": "parity"} | (
            {"values": places} if len(places) <= 12 else {}
        )
        scale = {"nice": False, "padding": 16} | ({"type": "log"} if log else {"zero": False})
        where = {
            "field": "place",
            "type": "quantitative",
            "title": key + (" (log scale)" if log else ""),
            "scale": scale,
            "axis": axis,
        }
        across, along, edge, offset = "x", "y", HEIGHT - 8, {}
    else:
        where = {
            "field": "arm",
            "sort": arms,
            "title": None,
            "axis": {"labelLimit": 150, "ticks": False, "domain": False},
        }
        across, along, edge, offset = "y", "x", 6, {"yOffset": {"field": "series", "sort": domain}} if pair else {}

    def layer(data: str, mark: dict[str, Any], value: str, **channels: Any) -> dict[str, Any]:
        encoding = (
            {across: where, along: {"field": value, "type": "quantitative"} | value_axis, "color": colour}
            | offset
            | channels
        )
        return {"data": {"name": data}, "mark": {"clip": True} | mark, "encoding": encoding}

    line = layer("means", {"type": "line", "strokeWidth": 1, "opacity": 0.5}, "mean")
    dot = {"type": "point", "filled": True}
    return [
        *([line] if key else []),
        layer(
            "points", dot | {"size": 26, "opacity": 0.35}, "value", shape=shape, tooltip=told("arm", "seed", "value")
        ),
        layer("means", {"type": "rule", "strokeWidth": 2}, "low", **{f"{along}2": {"field": "high"}}),
        layer(
            "means",
            dot | {"size": 70, "opacity": 1},
            "mean",
            shape=shape,
            tooltip=told("arm", "series", "mean", "low", "high", "count"),
        ),
        {
            "data": {"name": "lost"},
            "mark": CROSS | {"color": ORANGE},
            "encoding": {across: where, along: {"value": edge}, "tooltip": told("arm", "diverged")},
        },
    ]


def best_figures(best: BestOnTest) -> list[Figure]:
    """The confusion matrix of the tested run, and its accuracy class by class."""
    trial, classes = best.outcome.trial, list(best.record["per_class"])
    matrix = Figure.of(
        "confusion",
        confusion(best.record["confusion"], classes, f"What {trial.recipe.model.name} calls the test pictures"),
    )
    shares = [
        (name, in_unit(Metric("final", "train_accuracy"), share))
        for name, share in best.record["per_class"].items()
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
    table = frame(shares, {"class": pl.String, "accuracy": pl.Float64})
    subtitle = "of each true class, the share called right"
    return [
        matrix,
        Figure(
            "per_class",
            "Accuracy class by class",
            subtitle,
            {"layer": layers},
            {"classes": table},
            max(100, 24 * len(shares)),
        ),
    ]


def mean_table(arms: Sequence[Arm], metric: Metric) -> pl.DataFrame:
    """A row an arm and epoch: the mean of the finished runs and its interval, in the metric's unit."""
    rows = [
        (arm.name, epoch, *(in_unit(metric, value) for value in (of.mean, of.low, of.high)), of.count)
        for arm in arms
        for epoch, of in mean_curve(arm, metric.quantity)
    ]
    return frame(
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


def run_table(arms: Sequence[Arm], metric: Metric) -> pl.DataFrame:
    """A row a run and epoch, of the runs that finished or diverged, in the metric's unit."""
    rows = [
        (arm.name, outcome.trial.seed, outcome.status, epoch.epoch, in_unit(metric, value))
        for arm in arms
        for outcome in (*arm.finished, *arm.diverged)
        for epoch in outcome.history
        if (value := getattr(epoch, metric.quantity)) is not None and math.isfinite(value)
    ]
    return frame(
        rows, {"arm": pl.String, "seed": pl.Int64, "status": pl.String, "epoch": pl.Int64, "value": pl.Float64}
    )


def cross_table(arms: Sequence[Arm], metric: Metric, span: Extent) -> pl.DataFrame:
    """A row a diverged run: where its curve ends, or on the bad edge of the chart if it has no epoch or left the chart."""
    rows = []
    for arm in arms:
        for outcome in arm.diverged:
            done = len(outcome.history)
            value = getattr(outcome.history[-1], metric.quantity) if done else -math.inf if metric.rising else math.inf
            if value is None or math.isnan(value):
                continue
            place = min(span.high, max(span.low, in_unit(metric, value)))
            rows.append((arm.name, outcome.trial.seed, max(1, done), place, outcome.reason or f"after epoch {done}"))
    return frame(
        rows, {"arm": pl.String, "seed": pl.Int64, "epoch": pl.Int64, "place": pl.Float64, "diverged": pl.String}
    )


def frame(rows: list[tuple[Any, ...]], schema: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema, orient="row")


def count_of(means: pl.DataFrame) -> str:
    """How many runs a mean is of.

    >>> count_of(pl.DataFrame({"count": [3, 2]}))
    '2 to 3 runs'
    """
    low, high = means["count"].min(), means["count"].max()
    return f"{low} to {high} runs" if low < high else f"{high} runs"


def some(names: list[str], most: int = 4) -> str:
    """Names in a row, or the first of them.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def training_figures(result: SectionResult) -> str:
    """Of which weights the training figures are."""
    kinds = {outcome.history[0].train_metrics for arm in result.arms for outcome in arm.outcomes if outcome.history}
    return TRAINING_FIGURES[kinds.pop()] if len(kinds) == 1 else ""
