"""Charts on a page: in its own colours, light and dark, with their data by column."""

from itertools import groupby
from typing import Any

from convolab.plots.studies import StudyFigure
from convolab.plots.style import arm_styles
from convolab.plots.training import COLORS
from convolab.studies.results import StudyResult

# On dark ground the same hues are lighter, in the order of `plots.COLOURS` and `scales.RAMP`.
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
CSS_COLORS = {"black": "var(--ink)", "#eeeeee": "var(--paper)"}  # what a chart's other colours are on the page

# What charts look like on the page: its own colours, so that light, dark and print need no second drawing.
VEGA_THEME = {
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "background": "transparent",
    "padding": {"left": 0, "right": 12, "top": 4, "bottom": 4},
    "axis": {
        "gridColor": "var(--line)",
        "domainColor": "var(--rule)",
        "tickColor": "var(--rule)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--ink)",
        "titleFontWeight": 500,
        "labelFontSize": 11,
        "titleFontSize": 11.5,
    },
    "legend": {"labelColor": "var(--ink)", "titleColor": "var(--ink)", "labelFontSize": 12, "titleFontWeight": 500},
    "text": {"color": "var(--ink)"},
    "view": {"stroke": None},
}


def figure_payload(figure: StudyFigure, colors: dict[str, str]) -> dict[str, Any]:
    """A figure's words, and the data that the page draws it from."""
    spec = figure.spec | {
        "height": figure.height,
        "width": "container",
        "description": f"{figure.title}: {figure.subtitle}",
    }
    tables = {
        name: {column.name: compress_column(column.to_list()) for column in table}
        for name, table in figure.tables.items()
    }
    return {
        "title": figure.title,
        "subtitle": figure.subtitle,
        "height": figure.height,
        "by_arm": figure.colored_by_arm,
        "data": {
            "spec": apply_css_colors(
                remove_legends(spec) if figure.colored_by_arm else spec,
                CSS_COLORS | {colour: css_variable(colour) for colour in colors},
            ),
            "tables": tables,
        },
    }


def remove_legends(spec: Any) -> Any:
    """A specification without its legends: the section has one for all its charts."""
    if isinstance(spec, dict):
        return {key: None if key == "legend" else remove_legends(value) for key, value in spec.items()}
    return [remove_legends(value) for value in spec] if isinstance(spec, list) else spec


def compress_column(column: list[Any]) -> list[Any] | dict[str, Any]:
    """A column as it is, or where that is shorter as [value, times] of what repeats, or [first, count] of what counts up.

    >>> packed([1.5, 1.25]), packed(["a", "a", "a", "b", "b"])
    ([1.5, 1.25], {'same': [['a', 3], ['b', 2]]})
    >>> packed([1, 2, 3, 4, 1, 2, 3])
    {'up': [[1, 4], [1, 3]]}
    """
    same = [[value, len(list(run))] for value, run in groupby(column)]
    if 2 * len(same) < len(column):
        return {"same": same}
    if all(isinstance(value, int) for value in column):
        runs = [list(run) for _, run in groupby(enumerate(column), lambda at: at[1] - at[0])]
        if 2 * len(runs) < len(column):
            return {"up": [[run[0][1], len(run)] for run in runs]}
    return column


def apply_css_colors(spec: Any, css_by_color: dict[str, str]) -> Any:
    """A specification with its colours replaced by the page's, which differ in the dark."""
    if isinstance(spec, dict):
        # A domain, an order and a title hold names of arms and classes, and an arm may be called black.
        return {
            key: value if key in ("domain", "sort", "title") else apply_css_colors(value, css_by_color)
            for key, value in spec.items()
        }
    if isinstance(spec, list | tuple):
        return [apply_css_colors(value, css_by_color) for value in spec]
    return css_by_color.get(spec, spec) if isinstance(spec, str) else spec


def css_variable(color: str) -> str:
    """
    >>> variable("#0072B2")
    'var(--c-0072B2)'
    """
    return f"var(--c-{color[1:]})"


def study_palette(result: StudyResult) -> dict[str, str]:
    """Every colour of the study's charts, and what it is on dark ground."""
    colors = dict(zip(COLORS, DARK_COLORS, strict=True))
    for section in result.sections:
        light, dark = arm_styles(section.section), arm_styles(section.section, DARK_SEQUENTIAL_COLORS, DARK_COLORS)
        colors |= {light[arm][0]: dark[arm][0] for arm in light}
    return colors
