"""Charts on a page: in its own colors, light and dark, with column-wise data."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import altair as alt

from convolab.core.types import Json
from convolab.plots.study_figure import StudyFigure
from convolab.plots.study_scales import arm_styles
from convolab.plots.style import COLORS
from convolab.studies.results import StudyResult
from convolab.studies.tables import Table

# On a dark background the same hues are lighter, in the order of `style.COLORS` and `study_scales.SEQUENTIAL_COLORS`.
DARK_COLORS = ("#3d95d6", "#ff8b4a", "#2cc295", "#e79cc6", "#f3b93f", "#8fd3f7", "#a9adb3")
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
CSS_COLORS = {"black": "var(--ink)", "#eeeeee": "var(--paper)"}  # what a chart's other colors are on the page
NAME_KEYS = ("domain", "sort", "title")  # of a specification: they hold names of arms and classes

# The style of charts on the page: its own colors, so that light, dark and print need no second drawing.
VEGA_THEME = alt.Config(
    font="system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    background="transparent",
    padding={"left": 0, "right": 12, "top": 4, "bottom": 4},
    axis=alt.AxisConfig(
        gridColor="var(--line)",
        domainColor="var(--rule)",
        tickColor="var(--rule)",
        labelColor="var(--muted)",
        titleColor="var(--ink)",
        titleFontWeight=500,
        labelFontSize=11,
        titleFontSize=11.5,
    ),
    legend=alt.LegendConfig(labelColor="var(--ink)", titleColor="var(--ink)", labelFontSize=12, titleFontWeight=500),
    text=alt.MarkConfig(color="var(--ink)"),
    view=alt.ViewConfig(stroke=None),
).to_dict()


def figure_payload(figure: StudyFigure, colors: Mapping[str, str]) -> dict[str, Json]:
    """What the page draws a figure from: its specification in the page's colors, and its tables by column.

    `colors` are the study's colors; a figure colored by arm has no legend, because its section has one.
    """
    description = f"{figure.title}: {figure.subtitle}"
    chart = figure.chart.properties(width="container", height=figure.height, description=description)
    spec = chart.to_dict(validate=False)  # each part was validated when it was made
    for key in ("$schema", "config"):
        spec.pop(key, None)
    css_by_color = CSS_COLORS | {color: css_variable(color) for color in colors}
    return {
        "spec": apply_page_style(spec, css_by_color, has_legend=not figure.colored_by_arm),
        "tables": {name: columns(rows) for name, rows in figure.tables.items() if rows},
    }


def apply_page_style(spec: Json, css_by_color: Mapping[str, str], *, has_legend: bool = True) -> Json:
    """A specification in the page's colors, which differ in the dark; with `has_legend=False` without its legends.

    Names stay as they are: an arm may be called black.
    """
    if isinstance(spec, Mapping):
        return {
            key: None
            if key == "legend" and not has_legend
            else value
            if key in NAME_KEYS
            else apply_page_style(value, css_by_color, has_legend=has_legend)
            for key, value in spec.items()
        }
    if isinstance(spec, list | tuple):
        return [apply_page_style(value, css_by_color, has_legend=has_legend) for value in spec]
    return css_by_color.get(spec, spec) if isinstance(spec, str) else spec


def columns(rows: Table) -> dict[str, Json]:
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


def css_variable(color: str) -> str:
    """The page's variable for a color.

    >>> css_variable("#0072B2")
    'var(--c-0072B2)'
    """
    return f"var(--c-{color[1:]})"


def study_palette(result: StudyResult) -> dict[str, str]:
    """Every color of the study's charts, and what it is on a dark background."""
    colors: dict[str, str] = dict(zip(COLORS, DARK_COLORS, strict=True))
    for section in result.sections:
        light = arm_styles(section.section)
        dark = arm_styles(section.section, DARK_SEQUENTIAL_COLORS, DARK_COLORS)
        colors |= {light[arm][0]: dark[arm][0] for arm in light}
    return colors
