"""A chart as a web page that contains everything it needs and opens without a network."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import vl_convert
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from convolab.core.environment import cache_folder
from convolab.core.errors import LabError
from convolab.core.escape import chart_spec, printable_lines, script_json
from convolab.core.files import write_text
from convolab.core.types import Json
from convolab.plots.page_style import VEGA_THEME, apply_page_style, css_colors, css_variable, dark_palette

MAX_FLEXIBLE_NAMES = 10  # along an axis: numbers below each fit on a phone
LABELS_WIDTH = 120  # pixels
MIN_WIDTH = 300  # pixels, for the legend
CHART_KEYS = ("$schema", "background", "config", "datasets", "padding", "title")  # that a chart has and a panel lacks


def chart_page(spec: Mapping[str, Any]) -> str:
    """The page of a chart, given as Vega-Lite: the reports' frame, with the chart's title as the page's."""
    title = spec.get("title", "")
    title = title if isinstance(title, Mapping) else {"text": title}
    title_lines, subtitle_lines = text_lines(title.get("text", "")), text_lines(title.get("subtitle", ""))
    colors = dark_palette()
    description = ". ".join((*title_lines, *subtitle_lines))
    parts = separable_panels(spec)
    panels = [page_panel(part) | {"description": description} for part in parts]
    figures = [
        {"spec": apply_page_style(panel, css_colors(colors)), "tables": spec.get("datasets", {})} for panel in panels
    ]
    template = page_environment().get_template("chart.html")
    return template.render(
        title=" ".join(title_lines),
        subtitle=subtitle_lines,
        has_fixed_width=[panel.get("width") != "container" for panel in panels],
        max_widths=[max_panel_width(part) for part in parts],
        **chart_values(figures, colors),
    )


def separable_panels(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chart's parts that may stand one below the other: panels in a row, each with axes of its own, or the whole.

    >>> numeric = {"encoding": {"x": {"type": "quantitative"}, "y": {"type": "quantitative"}}}
    >>> len(separable_panels({"hconcat": [numeric, {"layer": [numeric]}]})), len(separable_panels({"layer": [numeric]}))
    (2, 1)
    """
    whole = {key: value for key, value in spec.items() if key not in CHART_KEYS}
    panels = spec.get("hconcat", [])
    if panels and all(has_numeric_axis(panel, "x") and has_numeric_axis(panel, "y") for panel in panels):
        shared = {key: value for key, value in whole.items() if key not in ("hconcat", "spacing")}
        return [shared | panel for panel in panels]
    return [whole]


def page_panel(panel: Mapping[str, Any]) -> dict[str, Any]:
    """A panel that is as wide as its column where its x axis is of numbers or of a few names, else as it is."""
    is_flexible = has_numeric_axis(panel, "x") or has_few_names(panel)
    return (
        {**panel, "width": "container"} if is_flexible and isinstance(panel.get("width"), int | float) else dict(panel)
    )


def max_panel_width(panel: Mapping[str, Any]) -> int | None:
    """The pixels that a panel of few names takes at most, labels included, so that a matrix is about square."""
    has_limit = has_few_names(panel) and "width" in panel
    return max(MIN_WIDTH, panel["width"] + LABELS_WIDTH) if has_limit else None


def has_numeric_axis(chart: Mapping[str, Any], channel: str) -> bool:
    """Whether numbers are along a channel of a chart or of one of its layers."""
    return any(encoding.get("type") == "quantitative" for encoding in channel_encodings(chart, channel))


def has_few_names(chart: Mapping[str, Any]) -> bool:
    """Whether the names along x, in a given order, are so few that they fit on a phone."""
    orders = [encoding.get("sort") for encoding in channel_encodings(chart, "x")]
    return any(isinstance(order, list) and len(order) <= MAX_FLEXIBLE_NAMES for order in orders)


def channel_encodings(chart: Mapping[str, Any], channel: str) -> list[Mapping[str, Any]]:
    """What a chart and its layers have along a channel."""
    return [layer.get("encoding", {}).get(channel, {}) for layer in (chart, *chart.get("layer", ()))]


def text_lines(text: str | list[str]) -> list[str]:
    """A title's lines.

    >>> text_lines("one"), text_lines(["one", "two"]), text_lines("")
    (['one'], ['one', 'two'], [])
    """
    return list(filter(None, [text] if isinstance(text, str) else text))


def page_environment(*packages: str) -> Environment:
    """The templates of the frame that every page has, and those of `packages`."""
    loaders = [PackageLoader(package) for package in (*packages, "convolab.plots")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=select_autoescape(),
        finalize=printable_value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csp_hash"] = csp_hash
    return environment


def csp_hash(code: str) -> str:
    """How a page's content security policy names a piece of code that may run.

    >>> csp_hash("alert(1)")
    'sha256-bhHHL3z2vDgxUt0W3dWQOrprscmda2Y5pLsLg4GF+pI='
    """
    return f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}"


def printable_value(value: object) -> object:
    """What a template writes: text whose invisible characters are escapes, and all else as it is."""
    return printable_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def chart_values(figures: Iterable[Json], colors: Mapping[str, str]) -> dict[str, object]:
    """What the frame needs to draw charts: their data, the libraries, and the colors with what they are in the dark."""
    payload = {"theme": VEGA_THEME, "figures": list(figures)}
    return {
        "payload": Markup(script_json(chart_spec(payload))),
        "libraries": Markup(vega_libraries()),
        "colors": {color: (css_variable(color), dark) for color, dark in colors.items()},
    }


def vega_libraries() -> str:
    """The JavaScript of Vega, Vega-Lite and Vega-Embed, for the inside of a <script> element.

    To bundle it takes seconds, so the bundle is kept in the cache, by the version of vl-convert, which holds the
    libraries.
    """
    path = cache_folder("vega") / f"{version('vl-convert-python')}.js"
    with suppress(OSError):
        return path.read_text(encoding="utf-8")
    libraries = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]  (the stub lacks the default)
    libraries = libraries.replace("</script", "<\\/script")
    with suppress(LabError):  # where no cache can be written it is bundled each time
        write_text(path, libraries)
    return libraries
