"""Charts on a page: in its own colours, light and dark, with their data by column."""

from itertools import groupby
from typing import Any

from convolab.plots.studies import Figure
from convolab.plots.style import looks
from convolab.plots.training import COLOURS
from convolab.studies.results import StudyResult

# On dark ground the same hues are lighter, in the order of `plots.COLOURS` and `scales.RAMP`.
DARK_COLOURS = ("#3d95d6", "#ff8b4a", "#2cc295", "#e79cc6", "#f3b93f", "#8fd3f7", "#a9adb3")
DARK_RAMP = ("#9a6fd0", "#7d7fd6", "#5f93cf", "#4aa6bd", "#3fb8a6", "#52c98a", "#7fd86c", "#b5e255", "#e8ec6a")
INK = {"black": "var(--ink)", "#eeeeee": "var(--paper)"}  # what a chart's other colours are on the page

# What charts look like on the page: its own colours, so that light, dark and print need no second drawing.
PAGE_LOOK = {
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


def figure_of(figure: Figure, colours: dict[str, str]) -> dict[str, Any]:
    """A figure's words, and the data that the page draws it from."""
    spec = figure.spec | {
        "height": figure.height,
        "width": "container",
        "description": f"{figure.title}: {figure.subtitle}",
    }
    tables = {
        name: {column.name: packed(column.to_list()) for column in table} for name, table in figure.tables.items()
    }
    return {
        "title": figure.title,
        "subtitle": figure.subtitle,
        "height": figure.height,
        "by_arm": figure.by_arm,
        "data": {
            "spec": themed(
                without_legend(spec) if figure.by_arm else spec, INK | {colour: variable(colour) for colour in colours}
            ),
            "tables": tables,
        },
    }


def without_legend(part: Any) -> Any:
    """A specification without its legends: the section has one for all its charts."""
    if isinstance(part, dict):
        return {key: None if key == "legend" else without_legend(value) for key, value in part.items()}
    return [without_legend(value) for value in part] if isinstance(part, list) else part


def packed(column: list[Any]) -> list[Any] | dict[str, Any]:
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


def themed(part: Any, names: dict[str, str]) -> Any:
    """A specification with its colours replaced by the page's, which differ in the dark."""
    if isinstance(part, dict):
        # A domain, an order and a title hold names of arms and classes, and an arm may be called black.
        return {
            key: value if key in ("domain", "sort", "title") else themed(value, names) for key, value in part.items()
        }
    if isinstance(part, list | tuple):
        return [themed(value, names) for value in part]
    return names.get(part, part) if isinstance(part, str) else part


def variable(colour: str) -> str:
    """
    >>> variable("#0072B2")
    'var(--c-0072B2)'
    """
    return f"var(--c-{colour[1:]})"


def palette(result: StudyResult) -> dict[str, str]:
    """Every colour of the study's charts, and what it is on dark ground."""
    colours = dict(zip(COLOURS, DARK_COLOURS, strict=True))
    for section in result.sections:
        light, dark = looks(section.section), looks(section.section, DARK_RAMP, DARK_COLOURS)
        colours |= {light[arm][0]: dark[arm][0] for arm in light}
    return colours
