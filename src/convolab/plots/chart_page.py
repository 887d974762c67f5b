"""A chart as a web page that contains everything it needs and opens without a network."""

import html
import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version

import vl_convert

from convolab.core.environment import cache_folder
from convolab.core.errors import LabError
from convolab.core.files import write_text

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ margin: 0; background: white; }} #chart {{ overflow-x: auto; }}</style>
</head>
<body>
<div id="chart"></div>
<script>{libraries}</script>
<script>vegaEmbed("#chart", {spec}, {{mode: "vega-lite"}});</script>
</body>
</html>
"""


def chart_page(spec: Mapping[str, object]) -> str:
    """The page of a chart, given as Vega-Lite; its first line of title is the page's."""
    title = spec.get("title", "")
    text = title.get("text", "") if isinstance(title, Mapping) else title
    first_line = str(text[0] if isinstance(text, list) else text)
    safe_spec = json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")
    return PAGE.format(title=html.escape(first_line), libraries=vega_libraries(), spec=safe_spec)


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
