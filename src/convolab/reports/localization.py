"""Scores of placement as a page, a picture and tables: which map points where things are, at which scale."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from convolab.core.files import whole_file, write_json, write_text
from convolab.inspection.localization.evaluation import CONTROLS, OVERLAPS, Score
from convolab.plots.training import COLOURS, GREY, save_chart, styled

if TYPE_CHECKING:
    from convolab.inspection.localization.alignment import Displacement

Scored = Sequence[tuple[dict[str, Any], Score]]  # what the setting was, and its score
MEASURES = {
    "pointing": "points at it (%)",
    "energy": "positive response inside (%)",
    "overlap": "overlap of the box (%)",
}
DASHES = {"centre": [2, 2], "random": [6, 3], "edges": [1, 3]}


def write_page(
    stem: Path,
    net: str,
    source: str,
    moved: "Displacement",
    scores: Scored,
    numbers: dict[str, Any],
    words: Sequence[str],
) -> list[Path]:
    """Write STEM.html with charts and tables, STEM.png with the charts, STEM.csv and STEM.json with the numbers."""
    from jinja2 import Environment, PackageLoader

    table = rows(scores)
    chart = draw(
        table,
        f"{Path(net).name} on {'pasted things' if source == 'pasted' else Path(source).name}: where do its responses lie?",
        subtitle(scores),
    )
    (picture,) = save_chart(chart, stem, ("png",))
    (drawing,) = save_chart(chart, stem, ("svg",))
    environment = Environment(
        loader=PackageLoader("convolab.reports"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("placement.html").render(
        css=environment.loader.get_source(environment, "report.css")[0],
        net=Path(net).name,
        source=Path(source).name,
        moved=moved,
        tolerance=scores[0][1].tolerance,
        levels=OVERLAPS,
        scores=[found for _, found in scores],
        controls=CONTROLS,
        words=words,
        drawing=drawing.read_text(encoding="utf-8"),
    )
    drawing.unlink()
    write_text(stem.with_name(f"{stem.name}.html"), page)
    write_json(stem.with_name(f"{stem.name}.json"), numbers)
    with whole_file(stem.with_name(f"{stem.name}.csv")) as part:
        table.write_csv(part)
    return [stem.with_name(f"{stem.name}.{ending}") for ending in ("html", "png", "csv", "json") if picture]


def rows(scores: Scored) -> pl.DataFrame:
    """A row for each setting, map and measure, in %."""
    found = []
    for facts, score in scores:
        for name in score.maps:
            values = score.facts(name)
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
                        "things": len(score.items),
                        "map": name,
                        "measure": measure,
                        **shares,
                    }
                )
    return pl.DataFrame(found, infer_schema_length=None)


def subtitle(scores: Scored) -> list[str]:
    things = {len(score.items) for _, score in scores}
    many = " or ".join(map(str, sorted(things)))
    return [
        f"{many} things; bars and bands: 95 % intervals. Points within {scores[0][1].tolerance:.3g} px of the box count; a box is made by a threshold",
        "that the other half of the pictures chose. centre, random and edges know nothing of the network.",
    ]


def draw(table: pl.DataFrame, title: str, under: list[str]) -> alt.TopLevelMixin:
    """Against scale where there are several, else a dot for each map."""
    curves = table.filter(pl.col("ground") != "together")
    if curves["side"].null_count() or curves["side"].n_unique() < 2:
        return styled(dots(table), title, under)
    return styled(lines(curves), title, under)


def look(names: Sequence[str]) -> tuple[alt.Color, list[str]]:
    """Each map's colour: the placements' by hue, the controls grey."""
    placed = [name for name in names if name not in CONTROLS]
    colours = [COLOURS[placed.index(name)] if name in placed else GREY for name in names]
    legend = alt.Legend(orient="top", symbolType="stroke", symbolSize=400, symbolStrokeWidth=2, symbolOpacity=1)
    return alt.Color("map:N", title=None, scale=alt.Scale(domain=list(names), range=colours), legend=legend), colours


def lines(table: pl.DataFrame) -> alt.TopLevelMixin:
    """A panel for each measure and ground: the measure against the size of what the network sees."""
    names = table["map"].unique(maintain_order=True).to_list()
    colour, _ = look(names)
    dash = alt.StrokeDash(
        "map:N", title=None, scale=alt.Scale(domain=names, range=[DASHES.get(name, [1, 0]) for name in names])
    )
    grounds = table["ground"].unique(maintain_order=True).to_list()
    said = (
        "shorter side of the photo as seen (px, log scale)"
        if grounds == ["photos"]
        else "side of the thing (px, log scale)"
    )
    sides = sorted(table["side"].unique().to_list())
    panels = []
    for ground in grounds:
        row = []
        for measure, unit in MEASURES.items():
            part = table.filter((pl.col("ground") == ground) & (pl.col("measure") == measure))
            x = alt.X(
                "side:Q",
                title=said,
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(values=sides, format="d", grid=False),
            )
            y = alt.Y(
                "mean:Q", title=unit if ground == "photos" else f"{unit}, {ground}", scale=alt.Scale(domain=[0, 100])
            )
            base = alt.Chart(part).encode(x=x, color=colour)
            only = alt.Chart(part.filter(pl.col("map") == "effective")).encode(x=x, color=colour)
            band = only.mark_area(opacity=0.15).encode(y=alt.Y("low:Q"), y2="high:Q")
            curve = base.mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=25)).encode(y=y, strokeDash=dash)
            row.append((band + curve).properties(width=250, height=200))
        panels.append(alt.hconcat(*row, spacing=28))
    return alt.vconcat(*panels, spacing=18)


def dots(table: pl.DataFrame) -> alt.TopLevelMixin:
    """A panel for each setting and measure: a dot with its interval for each map."""
    names = table["map"].unique(maintain_order=True).to_list()
    colour, _ = look(names)
    panels = []
    for setting in table["setting"].unique(maintain_order=True).to_list():
        row = []
        for number, (measure, unit) in enumerate(MEASURES.items()):
            part = table.filter((pl.col("setting") == setting) & (pl.col("measure") == measure))
            y = alt.Y(
                "map:N",
                sort=names,
                title=setting if number == 0 else None,
                axis=alt.Axis(labels=number == 0, ticks=False),
            )
            base = alt.Chart(part).encode(y=y, color=colour.copy(deep=False))
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
