"""A study's charts on a page: in its colors, light and dark, with column-wise data."""

from collections.abc import Mapping, Sequence
from itertools import groupby

from convolab.core.types import Json
from convolab.plots.page_style import DARK_COLORS, apply_page_style, css_colors, dark_palette
from convolab.plots.study_figure import StudyFigure
from convolab.plots.study_scales import arm_styles
from convolab.studies.results import StudyResult
from convolab.studies.tables import TableRows

# `study_scales.SEQUENTIAL_COLORS` on a dark background.
DARK_SEQUENTIAL_COLORS = (
    "#9a6fd0",
    "#7d7fd6",
    "#5f93cf",
    "#4aa6bd",
    "#3fb8a6",
    "#52c98a",
    "#7fd86c",
    "#b5e255",
    "#e8ec6a",
)


def figure_payload(figure: StudyFigure, colors: Mapping[str, str]) -> dict[str, Json]:
    """What the page draws a figure from: its specification in the page's colors, and its tables by column.

    `colors` are the study's colors; a figure colored by arm has no legend, because its section has one.
    """
    description = f"{figure.title}: {figure.subtitle}"
    chart = figure.chart.properties(width="container", height=figure.height, description=description)
    spec = chart.to_dict(validate=False)  # each part was validated when it was made
    for key in ("$schema", "config"):
        spec.pop(key, None)
    return {
        "spec": apply_page_style(spec, css_colors(colors), has_legend=not figure.colored_by_arm),
        "tables": {name: columns(rows) for name, rows in figure.tables.items() if rows},
    }


def columns(rows: TableRows) -> dict[str, Json]:
    """Rows of the same fields as one short column per field."""
    return {field: compress_column([row[field] for row in rows]) for field in rows[0]}


def compress_column(column: Sequence[str | int | float | None]) -> Json:
    """A column as it is, or where that is shorter as [value, times] of repeats, or as [first, count] of counting up.

    >>> compress_column([1.5, 1.25]), compress_column(["a", "a", "a", "b", "b"])
    ([1.5, 1.25], {'repeated': [['a', 3], ['b', 2]]})
    >>> compress_column([1, 2, 3, 4, 1, 2, 3])
    {'counting': [[1, 4], [1, 3]]}
    """
    repeated = [[value, len(list(run))] for value, run in groupby(column)]
    if 2 * len(repeated) < len(column):
        return {"repeated": repeated}
    numbers = [value for value in column if isinstance(value, int)]
    if len(numbers) == len(column):
        runs = [list(run) for _, run in groupby(enumerate(numbers), lambda item: item[1] - item[0])]
        if 2 * len(runs) < len(column):
            return {"counting": [[run[0][1], len(run)] for run in runs]}
    return list(column)


def study_palette(result: StudyResult) -> dict[str, str]:
    """Every color of the study's charts, and what it is on a dark background."""
    colors = dark_palette()
    for section in result.sections:
        light = arm_styles(section.section)
        dark = arm_styles(section.section, DARK_SEQUENTIAL_COLORS, DARK_COLORS)
        colors |= {light[arm][0]: dark[arm][0] for arm in light}
    return colors
