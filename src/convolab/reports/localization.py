"""Localization scores as an HTML page, an image and tables: which map fits the boxes, at which scale."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from convolab.core.files import csv_text
from convolab.core.outputs import LOCALIZATION_SCORES, write_json_output, write_output
from convolab.core.types import Json
from convolab.inspection.localization.erf_offset import ErfOffset
from convolab.inspection.localization.metrics import IOU_LEVELS
from convolab.inspection.localization.score import BASELINES, LocalizationScore
from convolab.plots.chart_page import page_environment
from convolab.plots.localization import localization_scores_chart, score_rows
from convolab.plots.style import render_svg, save_chart, without_heading


def localization_paths(stem: Path) -> list[Path]:
    """The files of the report: `stem` with their endings."""
    return [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("html", "png", "csv", "json")]


def write_localization_report(
    stem: Path,
    net_name: str,
    source: str,
    offset: ErfOffset,
    scores: Sequence[LocalizationScore],
    metrics: Mapping[str, Json],
    lines: Sequence[str],
) -> list[Path]:
    """Write STEM.html with charts and tables, STEM.png with the charts, STEM.csv and STEM.json with the numbers.

    Args:
        stem: the files' path without their ending.
        net_name: the network's name, or its run's folder.
        source: `synthetic`, or the folder of the photos.
        offset: where the network's cells look.
        scores: at least one.
        metrics: all that goes into the JSON file.
        lines: the scores in words.

    Raises:
        LabError: if a file cannot be written.
    """
    images = "synthetic images" if source == "synthetic" else Path(source).name
    title = f"{Path(net_name).name} on {images}: localization scores"
    chart = localization_scores_chart(scores, title)
    charts = {"wide": chart, "narrow": localization_scores_chart(scores, title, is_narrow=True)}
    html_path, png_path, csv_path, json_path = localization_paths(stem)
    save_chart(chart, stem, ("png",), LOCALIZATION_SCORES)
    template = page_environment("convolab.reports").get_template("localization.html")
    page = template.render(
        title=f"Localization scores of {Path(net_name).name}",
        images=images,
        offset=offset,
        scores=scores,
        lines=lines,
        charts={name: Markup(render_svg(without_heading(chart))) for name, chart in charts.items()},
        levels=IOU_LEVELS,
        baselines=BASELINES,
    )
    write_output(html_path, LOCALIZATION_SCORES, page)
    write_json_output(json_path, LOCALIZATION_SCORES, metrics)
    write_output(csv_path, LOCALIZATION_SCORES, csv_text(score_rows(scores)))
    return [html_path, png_path, csv_path, json_path]
