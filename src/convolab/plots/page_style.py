"""Charts on a page in the page's colors, so that light, dark and print need no second drawing."""

from collections.abc import Mapping

import altair as alt

from convolab.core.types import Json
from convolab.plots.style import BLACK, COLORS

# On a dark background the same hues are lighter, in the order of `style.COLORS`.
DARK_COLORS = ("#3d95d6", "#ff8b4a", "#2cc295", "#e79cc6", "#f3b93f", "#8fd3f7", "#a9adb3")
# What a chart's other colors are on the page.
CSS_COLORS = {"black": "var(--ink)", BLACK: "var(--ink)", "#eeeeee": "var(--paper)"}
NAME_KEYS = ("domain", "sort", "title", "description")  # of a specification: they hold names of arms and classes

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


def css_variable(color: str) -> str:
    """The page's variable for a color.

    >>> css_variable("#0072B2")
    'var(--c-0072B2)'
    """
    return f"var(--c-{color[1:]})"


def css_colors(colors: Mapping[str, str]) -> dict[str, str]:
    """What each color of a chart is on the page. `colors` are those that have a variable there."""
    return CSS_COLORS | {color: css_variable(color) for color in colors}


def dark_palette() -> dict[str, str]:
    """The colors that all charts share, and what they are on a dark background."""
    return dict(zip(COLORS, DARK_COLORS, strict=True))
