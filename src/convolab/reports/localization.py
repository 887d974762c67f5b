"""Scores of placement as a page, a picture and tables: which map points where things are, at which scale."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from convolab.core.files import atomic_write, write_json, write_text
from convolab.inspection.localization.evaluation import BASELINES, IOU_LEVELS, LocalizationScore
from convolab.plots.training import COLORS, GRAY, apply_chart_style, save_chart

if TYPE_CHECKING:
    from convolab.inspection.localization.alignment import ErfOffset

ScoredSettings = Sequence[tuple[dict[str, Any], LocalizationScore]]  # what the setting was, and its score
METRIC_TITLES = {
    "pointing": "points at it (%)",
    "energy": "positive response inside (%)",
    "overlap": "overlap of the box (%)",
}
CONTROL_DASHES = {"centre": [2, 2], "random": [6, 3], "edges": [1, 3]}


def write_localization_report(
    stem: Path,
    net: str,
    source: str,
    offset: "ErfOffset",
    scores: ScoredSettings,
    numbers: dict[str, Any],
    lines: Sequence[str],
) -> list[Path]:
    """Write STEM.html with charts and tables, STEM.png with the charts, STEM.csv and STEM.json with the numbers."""
    from jinja2 import Environment, PackageLoader

    table = score_table(scores)
    chart = localization_scores_chart(
        table,
        f"{Path(net).name} on {'pasted things' if source == 'pasted' else Path(source).name}: where do its responses lie?",
        score_chart_subtitle(scores),
    )
    (png_path,) = save_chart(chart, stem, ("png",))
    (svg_path,) = save_chart(chart, stem, ("svg",))
    environment = Environment(
        loader=PackageLoader("convolab.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("placement.html").render(
        css=environment.loader.get_source(environment, "report.css")[0],
        net=Path(net).name,
        source=Path(source).name,
        moved=offset,
        tolerance=scores[0][1].tolerance,
        levels=IOU_LEVELS,
        scores=[found for _, found in scores],
        controls=BASELINES,
        words=lines,
        drawing=svg_path.read_text(encoding="utf-8"),
    )
    svg_path.unlink()
    write_text(stem.with_name(f"{stem.name}.html"), page)
    write_json(stem.with_name(f"{stem.name}.json"), numbers)
    with atomic_write(stem.with_name(f"{stem.name}.csv")) as part:
        table.write_csv(part)
    return [stem.with_name(f"{stem.name}.{ending}") for ending in ("html", "png", "csv", "json") if png_path]


def score_table(scores: ScoredSettings) -> pl.DataFrame:
    """A row for each setting, map and measure, in %."""
    found = []
    for facts, score in scores:
        for name in score.map_names:
            values = score.map_metrics(name)
            measured = {
                "pointing": (values["share"], *values["interval"]),
                "energy": tuple(values["energy"][key] for key in ("mean", "low", "high")),
                "overlap": tuple(values["overlap"][key] for key in ("mean", "low", "high")),
            }
            for measure, (mean, low, high) in measured.items():
                shares = {"mean": 100 * mean, "low": 100 * low, "high": 100 * high}
                found.append(
                    {
                        "setting": score.setting,
                        **facts,
                        "things": len(score.records),
                        "map": name,
                        "measure": measure,
                        **shares,
                    }
                )
    return pl.DataFrame(found, infer_schema_length=None)


def score_chart_subtitle(scores: ScoredSettings) -> list[str]:
    things = {len(score.records) for _, score in scores}
    count_text = " or ".join(map(str, sorted(things)))
    return [
        f"{count_text} things; bars and bands: 95 % intervals. Points within {scores[0][1].tolerance:.3g} px of the box count; a box is made by a threshold",
        "that the other half of the pictures chose. centre, random and edges know nothing of the network.",
    ]


def localization_scores_chart(table: pl.DataFrame, title: str, subtitle_lines: list[str]) -> alt.TopLevelMixin:
    """Against scale where there are several, else a dot for each map."""
    curves = table.filter(pl.col("ground") != "together")
    if curves["side"].null_count() or curves["side"].n_unique() < 2:
        return apply_chart_style(scores_by_map_chart(table), title, subtitle_lines)
    return apply_chart_style(scores_by_scale_chart(curves), title, subtitle_lines)


def map_colors(names: Sequence[str]) -> tuple[alt.Color, list[str]]:
    """Each map's colour: the placements' by hue, the controls grey."""
    alignments = [name for name in names if name not in BASELINES]
    colors = [COLORS[alignments.index(name)] if name in alignments else GRAY for name in names]
    legend = alt.Legend(orient="top", symbolType="stroke", symbolSize=400, symbolStrokeWidth=2, symbolOpacity=1)
    return alt.Color("map:N", title=None, scale=alt.Scale(domain=list(names), range=colors), legend=legend), colors


def scores_by_scale_chart(table: pl.DataFrame) -> alt.TopLevelMixin:
    """A panel for each measure and ground: the measure against the size of what the network sees."""
    names = table["map"].unique(maintain_order=True).to_list()
    color, _ = map_colors(names)
    dash = alt.StrokeDash(
        "map:N", title=None, scale=alt.Scale(domain=names, range=[CONTROL_DASHES.get(name, [1, 0]) for name in names])
    )
    grounds = table["ground"].unique(maintain_order=True).to_list()
    x_title = (
        "shorter side of the photo as seen (px, log scale)"
        if grounds == ["photos"]
        else "side of the thing (px, log scale)"
    )
    sides = sorted(table["side"].unique().to_list())
    panels = []
    for ground in grounds:
        row = []
        for measure, unit in METRIC_TITLES.items():
            part = table.filter((pl.col("ground") == ground) & (pl.col("measure") == measure))
            x = alt.X(
                "side:Q",
                title=x_title,
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(values=sides, format="d", grid=False),
            )
            y = alt.Y(
                "mean:Q", title=unit if ground == "photos" else f"{unit}, {ground}", scale=alt.Scale(domain=[0, 100])
            )
            base = alt.Chart(part).encode(x=x, color=color)
            erf_only = alt.Chart(part.filter(pl.col("map") == "effective")).encode(x=x, color=color)
            band = erf_only.mark_area(opacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q")
            curve = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=25)).encode(y=y, strokeDash=dash)
            row.append((band + curve).properties(width=250, height=200))
        panels.append(alt.hconcat(*row, spacing=28))
    return alt.vconcat(*panels, spacing=18)


def scores_by_map_chart(table: pl.DataFrame) -> alt.TopLevelMixin:
    """A panel for each setting and measure: a dot with its interval for each map."""
    names = table["map"].unique(maintain_order=True).to_list()
    color, _ = map_colors(names)
    panels = []
    for setting in table["setting"].unique(maintain_order=True).to_list():
        row = []
        for number, (measure, unit) in enumerate(METRIC_TITLES.items()):
            part = table.filter((pl.col("setting") == setting) & (pl.col("measure") == measure))
            y = alt.Y(
                "map:N",
                sort=names,
                title=setting if number == 0 else None,
                axis=alt.Axis(labels=number == 0, ticks=False),
            )
            base = alt.Chart(part).encode(y=y, color=color.copy(deep=False))
            bar = base.mark_rule(strokeWidth=2).encode(
                x=alt.X("low:Q", title=unit, scale=alt.Scale(domain=[0, 100])), x2="high:Q"
            )
            row.append(
                (bar + base.mark_circle(size=70, opacity=1).encode(x="mean:Q")).properties(
                    width=250, height=22 * len(names)
                )
            )
        panels.append(alt.hconcat(*row, spacing=28))
    return alt.vconcat(*panels, spacing=18)
