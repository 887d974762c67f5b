"""Figures for a paper: PDF and SVG of a given width and font size, so that they are put in without being scaled.

Charts are laid out in points: one unit of the chart is one point of the page. Titles are left out: the paper has captions.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from convolab.core.errors import require
from convolab.core.outputs import PAPER_FIGURE, require_outputs, write_output
from convolab.plots.calibration import reliability_chart
from convolab.plots.chart_page import has_numeric_axis, separable_panels
from convolab.plots.style import render_pdf, render_svg
from convolab.plots.training import confusion_matrix_chart, training_curves_chart
from convolab.reports import study_cards
from convolab.reports.export import UNFINISHED, section_folders
from convolab.studies.results import StudyResult
from convolab.training.run import Run

POINTS = {"mm": 72 / 25.4, "cm": 72 / 2.54, "in": 72.0, "pt": 1.0}
LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(mm|cm|in|pt)")
RANGES = {"--width": (72.0, 1500.0), "--font-size": (4.0, 40.0)}  # points
ASPECT = 0.62  # height of a figure by its width
LABEL_SIZE = 10  # pixels of a label's text where a chart's own rows have their height
FIGURE_FORMATS = (".pdf", ".svg")
README = "figures.md"


def parse_length(text: str, option: str) -> float:
    """The value of --width or --font-size in points. Raises LabError for one that cannot be read, or is out of range.

    >>> round(parse_length("84mm", "--width"), 2), parse_length("8pt", "--font-size")
    (238.11, 8.0)
    """
    match = LENGTH.fullmatch(text.strip())
    require(match is not None, f"{option} {text}: give a number and its unit, such as 84mm, 3.3in or 8pt")
    points = float(match[1]) * POINTS[match[2]] if match else 0.0
    low, high = RANGES[option]
    require(low <= points <= high, f"{option} {text}: that is {points:.4g} pt, and {low:g} to {high:g} pt are possible")
    return points


def run_charts(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """The charts of a run, by the names of their files: curves, and if it was tested those of the test."""
    require(run.history, f"{run.folder} has no epoch yet: train it first")
    loss, accuracy = separable_panels(training_curves_chart(run.history, "").to_dict())
    yield "loss", with_data(loss, training_curves_chart(run.history, "").to_dict())
    yield "accuracy", with_data(accuracy, training_curves_chart(run.history, "").to_dict())
    if record := run.test_result:
        confusion = confusion_matrix_chart(record.confusion, record.classes, "").to_dict()
        yield "confusion", confusion
        if record.calibration:
            chart = reliability_chart(record.calibration, "").to_dict()
            yield "reliability", with_data(separable_panels(chart)[0], chart)


def study_charts(result: StudyResult) -> Iterator[tuple[str, dict[str, Any]]]:
    """The charts of a study, by the names of their files: its section's name, and its own."""
    names = section_folders([section.name for section in result.sections])
    for card in study_cards.section_cards(result):
        for figure in card.figures:
            yield f"{names[card.name]}-{figure.name}", figure.to_chart().to_dict(context={"pre_transform": False})


def with_data(panel: Mapping[str, Any], chart: Mapping[str, Any]) -> dict[str, Any]:
    """A panel of a chart as a chart of its own."""
    return {**panel, "$schema": chart["$schema"], "datasets": chart.get("datasets", {})}


def figure_spec(spec: Mapping[str, Any], width: float, font_size: float) -> dict[str, Any]:
    """A chart of one view, of a width and a font size in points, without its title; rows are as high as their text needs."""
    has_rows = not is_square(spec) and not has_numeric_axis(spec, "y")
    fonts = {
        "labelFontSize": font_size,
        "titleFontSize": font_size,
        "labelFont": "sans-serif",
        "titleFont": "sans-serif",
    }
    plain = {key: value for key, value in spec.items() if key not in ("title", "config", "padding", "background")}
    return {
        **set_text_sizes(plain, font_size),
        "width": width,
        "height": spec["height"] * font_size / LABEL_SIZE if has_rows else width * (1 if is_square(spec) else ASPECT),
        "autosize": {"type": "fit-x" if has_rows else "fit", "contains": "padding"},
        "padding": 1,
        "background": "white",
        "config": {
            "axis": {**fonts, "gridColor": "#e5e5e5", "domainColor": "#999", "tickColor": "#999", "titlePadding": 3},
            "legend": {
                **fonts,
                "symbolSize": 3 * font_size,
                "columnPadding": font_size,
                "padding": 0,
                "columns": 3,
                "labelLimit": width / 3 - 4 * font_size,
            },
            "header": fonts,
            "text": {"fontSize": font_size},
            "view": {"stroke": None},
        },
    }


def is_square(spec: Mapping[str, Any]) -> bool:
    """Whether a chart was made as a square, as a confusion matrix is."""
    return spec.get("width") == spec.get("height")


def set_text_sizes(value: Any, font_size: float) -> Any:  # noqa: ANN401 (any part of a chart)
    """A part of a chart in which every size of text that is given is this one."""
    if isinstance(value, Mapping):
        return {
            key: font_size
            if key.lower().endswith("fontsize")
            else entry
            if key == "datasets"
            else set_text_sizes(entry, font_size)
            for key, entry in value.items()
        }
    return [set_text_sizes(entry, font_size) for entry in value] if isinstance(value, list) else value


def figure_svg(spec: Mapping[str, Any]) -> str:
    """A chart as SVG whose width and height are in points."""
    return re.sub(r'width="([\d.]+)" height="([\d.]+)"', r'width="\1pt" height="\2pt"', render_svg(spec), count=1)


def require_figure_folder(folder: Path) -> None:
    """Raise LabError, before any work is done, unless the folder is new, empty, or holds figures of ours."""
    require_outputs(PAPER_FIGURE, [folder / README])
    is_ours = not folder.exists() or (folder / README).exists() or not any(folder.iterdir())
    require(is_ours, f"{folder} holds other files, and no figures of convolab: choose a new or empty folder")


def export_figures(source: Run | StudyResult, folder: Path, width: float, font_size: float) -> list[Path]:
    """Write every figure of a run or study as PDF and SVG of a width and a font size in points; gives their paths, and that of their list.

    Raises LabError if a file cannot be written, or is there and is no figure's.
    """
    charts = dict(run_charts(source) if isinstance(source, Run) else study_charts(source))
    require(charts, "there is no figure: no run is finished")
    write_output(
        folder / README, PAPER_FIGURE, UNFINISHED
    )  # so that after a kill the folder is still known as an export
    paths = []
    for name, chart in charts.items():
        spec = figure_spec(chart, width, font_size)
        for suffix in FIGURE_FORMATS:
            path = folder / f"{name}{suffix}"
            content = render_pdf(spec) if suffix == ".pdf" else figure_svg(spec).encode()
            write_output(path, PAPER_FIGURE, content)
            paths.append(path)
    lines = [f"Figures of {width:.4g} pt with text of {font_size:g} pt: put them in without scaling.", ""]
    write_output(folder / README, PAPER_FIGURE, "\n".join([*lines, *(f"- {path.name}" for path in paths)]) + "\n")
    return [*paths, folder / README]
