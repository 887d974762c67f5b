"""Charts of localization scores: which map fits the boxes, at which size of the image or the object."""

import textwrap
from collections.abc import Sequence
from typing import TypeAlias

import altair as alt

from convolab.core.stats import Interval
from convolab.inspection.localization.score import BASELINES, LocalizationScore
from convolab.plots.style import COLORS, GRAY, apply_chart_style, chart_data

METRIC_TITLES = {
    "pointing_game": "pointing game (%)",
    "energy_in_box": "energy in the box (%)",
    "iou": "IoU of the box (%)",
}
BASELINE_DASHES = {"center": [2, 2], "random": [6, 3], "edges": [1, 3]}
BAND_MAP = "erf"  # the one map whose intervals are drawn where maps are lines
PERCENT_SCALE = alt.Scale(domain=[0, 100])

SCORE_COLUMNS = (
    *("setting", "background", "object_size", "shorter_side", "num_objects", "map", "metric"), *("mean", "low", "high")
)  # fmt: skip
ScoreRow: TypeAlias = dict[str, str | int | float | None]


def score_rows(scores: Sequence[LocalizationScore]) -> list[ScoreRow]:
    """A row for each setting, map and metric; mean and interval in %."""
    rows: list[ScoreRow] = []
    for score in scores:
        setting = score.setting
        for name in score.map_names:
            metrics = score.map_metrics(name)
            low, high = metrics["interval"]
            intervals = {
                "pointing_game": Interval(metrics["fraction"], low, high, len(score.records)),
                "energy_in_box": metrics["energy"],
                "iou": metrics["iou"],
            }
            for metric, interval in intervals.items():
                settings = (setting.name, setting.background, setting.object_size, setting.shorter_side)
                percentages = (100 * interval.mean, 100 * interval.low, 100 * interval.high)
                row = (*settings, len(score.records), name, metric, *percentages)
                rows.append(dict(zip(SCORE_COLUMNS, row, strict=True)))
    return rows


def localization_scores_chart(
    scores: Sequence[LocalizationScore], title: str, is_narrow: bool = False
) -> alt.TopLevelMixin:
    """Lines against the size where there are several sizes, else a dot with its interval for each map.

    The panels of a setting are side by side, or with `is_narrow`, for a phone, one below the other.
    """
    rows = score_rows(scores)
    single_scale = [row for row in rows if row["background"] != "all_scales"]
    size_field = "object_size" if any(row["object_size"] for row in rows) else "shorter_side"
    sizes = {row[size_field] for row in single_scale}
    has_curves = len(sizes) > 1 and None not in sizes
    columns = 1 if is_narrow else len(METRIC_TITLES)
    chart = (
        scores_by_size_chart(single_scale, size_field, columns) if has_curves else scores_by_map_chart(rows, columns)
    )
    num_objects = " or ".join(map(str, sorted({len(score.records) for score in scores})))
    subtitle = [
        f"{num_objects} objects; bars and bands: 95 % intervals. "
        f"Points within {scores[0].setting.tolerance:.3g} px of the box count; box thresholds are cross-fitted:",
        "chosen on the other half of the images. center, random and edges are baselines without the network.",
    ]
    if is_narrow:
        subtitle = textwrap.wrap(" ".join(subtitle), 52)
    return apply_chart_style(chart, title, subtitle)


def distinct(rows: Sequence[ScoreRow], field: str) -> list[str]:
    """The values of a field, in the order of the rows."""
    return list(dict.fromkeys(str(row[field]) for row in rows))


def map_color(names: Sequence[str], columns: int) -> alt.Color:
    """Each map's color: a hue for an alignment, gray for a baseline. The legend is as wide as so many panels."""
    alignments = [name for name in names if name not in BASELINES]
    colors = [COLORS[alignments.index(name)] if name in alignments else GRAY for name in names]
    legend = alt.Legend(
        orient="top", columns=3 * columns, symbolType="stroke", symbolSize=400, symbolStrokeWidth=2, symbolOpacity=1
    )
    return alt.Color("map:N", title=None, scale=alt.Scale(domain=list(names), range=colors), legend=legend)


def rows_of_panels(panels: Sequence[alt.LayerChart], columns: int) -> list[alt.HConcatChart]:
    """The panels, `columns` of them side by side."""
    return [alt.hconcat(*panels[start : start + columns], spacing=28) for start in range(0, len(panels), columns)]


def scores_by_size_chart(rows: Sequence[ScoreRow], size_field: str, columns: int) -> alt.VConcatChart:
    """A panel for each background and metric, `columns` side by side: the metric against a size in pixels."""
    names = distinct(rows, "map")
    color = map_color(names, columns)
    dashes = [BASELINE_DASHES.get(name, [1, 0]) for name in names]
    dash = alt.StrokeDash("map:N", title=None, scale=alt.Scale(domain=names, range=dashes))
    sizes = sorted({int(row[size_field] or 0) for row in rows})
    noun = "object" if size_field == "object_size" else "resized photo"
    side = "side" if size_field == "object_size" else "shorter side"
    x = alt.X(
        f"{size_field}:Q",
        title=[f"{side} of the {noun}", "(px, log scale)"],
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(values=sizes, format="d", grid=False),
    )
    panel_rows = []
    for background in distinct(rows, "background"):
        panels = []
        for metric, metric_title in METRIC_TITLES.items():
            selected = [row for row in rows if row["background"] == background and row["metric"] == metric]
            y_title = metric_title if background == "photos" else f"{metric_title}, {background}"
            lines = (
                alt.Chart(chart_data(selected))
                .mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=25))
                .encode(x=x, y=alt.Y("mean:Q", title=y_title, scale=PERCENT_SCALE), color=color, strokeDash=dash)
            )
            band = (
                alt.Chart(chart_data(row for row in selected if row["map"] == BAND_MAP))
                .mark_area(opacity=0.15, clip=True)
                .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=color)
            )
            panels.append((band + lines).properties(width=250, height=200))
        panel_rows += rows_of_panels(panels, columns)
    return alt.vconcat(*panel_rows, spacing=18)


def scores_by_map_chart(rows: Sequence[ScoreRow], columns: int) -> alt.VConcatChart:
    """A panel for each setting and metric, `columns` side by side: a dot with its interval for each map."""
    names = distinct(rows, "map")
    color = map_color(names, columns)
    panel_rows = []
    for setting in distinct(rows, "setting"):
        panels = []
        for number, (metric, metric_title) in enumerate(METRIC_TITLES.items()):
            is_first = number % columns == 0  # of its row
            selected = [row for row in rows if row["setting"] == setting and row["metric"] == metric]
            axis = alt.Axis(labels=is_first, ticks=False, titlePadding=12)
            y = alt.Y("map:N", sort=names, title=setting if is_first else None, axis=axis)
            base = alt.Chart(chart_data(selected)).encode(y=y, color=color)
            bars = base.mark_rule(strokeWidth=2, clip=True).encode(
                x=alt.X("low:Q", title=metric_title, scale=PERCENT_SCALE), x2="high:Q"
            )
            dots = base.mark_circle(size=70, opacity=1).encode(x="mean:Q")
            panels.append((bars + dots).properties(width=250, height=22 * len(names)))
        panel_rows += rows_of_panels(panels, columns)
    return alt.vconcat(*panel_rows, spacing=18)
