"""What all charts share: colors, style, data from rows, and how a chart is saved."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import altair as alt
import vl_convert
from PIL import Image

from convolab.core.errors import require
from convolab.core.escape import chart_spec
from convolab.core.outputs import output_file

try:
    import resource
except ModuleNotFoundError:  # on Windows
    resource = None

# The palette of Okabe & Ito (2008), which color-blind readers can tell apart too.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, GRAY, BLACK = "#E69F00", "#56B4E9", "#666666", "#000000"
COLORS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, GRAY)
METHOD_COLORS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK)  # beside gray controls

CHART_STYLE = alt.Config(
    axis=alt.AxisConfig(gridColor="#e5e5e5", domainColor="#999", tickColor="#999"),
    view=alt.ViewConfig(stroke=None),
)
VEGA_LITE = "_".join(alt.SCHEMA_VERSION.split(".")[:2])  # altair's version, as vl_convert names it
CHART_FILE_FORMATS = ("html", "svg", "png")
ADDRESS_SPACE = 100_000_000_000  # bytes that the renderer may reserve; with 64 GB it ends the whole process
LOG_SCALE_RATIO = 20  # values that span a larger factor are drawn on a log scale


def chart_data(rows: Iterable[Mapping[str, object]]) -> alt.InlineData:
    """Rows as the data of a chart. Their channels name their types: `alt.X("epoch:Q")`."""
    return alt.InlineData(values=[dict(row) for row in rows])


def needs_log_scale(values: Iterable[float]) -> bool:
    """Whether a log scale shows these values better: they span more than a factor of 20, and none is 0.

    >>> needs_log_scale([0.3, 0.1, 0.003]), needs_log_scale([0.1, 0.5, 0.9]), needs_log_scale([0.5, 0.0])
    (True, False, False)
    """
    values = list(values)
    return 0 < min(values) < max(values) / LOG_SCALE_RATIO


def apply_chart_style(chart: alt.TopLevelMixin, title: str | list[str], subtitle: str | list[str]) -> alt.TopLevelMixin:
    """The chart with a title, a subtitle (of several lines: lists) and the common style, ready to be saved."""
    return chart.properties(title=title_params(title, subtitle), background="white", padding=14, config=CHART_STYLE)


def without_heading(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """The chart with its subtitle alone, for a page that has its title as the heading."""
    subtitle = chart.to_dict(context={"pre_transform": False})["title"]["subtitle"]
    text = alt.TitleParams(text=subtitle, anchor="start", color=GRAY, fontSize=11, fontWeight="normal", offset=12)
    return chart.properties(title=text)  # a subtitle below an empty title is not drawn


def title_params(title: str | list[str], subtitle: str | list[str]) -> alt.TitleParams:
    """A chart's title and subtitle, in lines where they are lists."""
    return alt.TitleParams(
        text=title, subtitle=subtitle, anchor="start", fontSize=15, subtitleColor=GRAY, subtitleFontSize=11, offset=12
    )


def chart_paths(stem: Path, formats: Sequence[str] = CHART_FILE_FORMATS) -> list[Path]:
    """The files of a chart: `stem` with each format's ending."""
    return [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]


def save_chart(
    chart: alt.TopLevelMixin, stem: Path, formats: Sequence[str] = CHART_FILE_FORMATS, kind: str = "figure"
) -> list[Path]:
    """Write a chart once in each format, and return the paths: `stem` with the format's ending.

    The HTML file contains everything it needs and opens without a network. Only files of the same kind are replaced,
    see `core.outputs`. Raises LabError if a file cannot be written.
    """
    from convolab.plots.chart_page import chart_page  # here, because the page has the colors of this module

    paths = chart_paths(stem, formats)
    spec = chart.to_dict(context={"pre_transform": False})
    svg = render_svg(spec) if {".png", ".svg"} & {path.suffix.lower() for path in paths} else ""
    for path in paths:
        with output_file(path, kind) as part:
            match path.suffix.lower():
                case ".html":
                    part.write_text(chart_page(spec), encoding="utf-8")
                case ".png":
                    part.write_bytes(render_png(svg, scale=2.0))
                case ".svg":
                    part.write_text(svg, encoding="utf-8")
                case ".pdf":
                    part.write_bytes(render_pdf(spec))
                case ".json":
                    part.write_text(json.dumps(chart_spec(spec), indent=2), encoding="utf-8")
                case other:
                    raise ValueError(f"a chart is not written as {other}")
    return paths


def render_svg(chart: alt.TopLevelMixin | Mapping[str, object]) -> str:
    """A chart, or its Vega-Lite, as SVG, with texts that SVG can hold."""
    spec = chart if isinstance(chart, Mapping) else chart.to_dict(context={"pre_transform": False})
    require_address_space()
    return vl_convert.vegalite_to_svg(dict(chart_spec(spec)), vl_version=VEGA_LITE)


def render_pdf(spec: Mapping[str, object]) -> bytes:
    """A chart as PDF, with its fonts in it."""
    require_address_space()
    return vl_convert.vegalite_to_pdf(dict(chart_spec(dict(spec))), vl_version=VEGA_LITE)


def require_address_space() -> None:
    """Raise LabError if a limit of the shell would make the renderer, a JavaScript engine, end the whole process."""
    if resource is None:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    require(
        limit == resource.RLIM_INFINITY or limit >= ADDRESS_SPACE,
        f"charts cannot be drawn with an address space of {limit:,} bytes: `ulimit -v unlimited`, or at least "
        f"{ADDRESS_SPACE // 1000:,} (it is reserved, not used)",
    )


def render_png(svg: str, scale: float) -> bytes:
    """A drawn chart as PNG, enlarged: the pixels of the chart itself as PNG, in half of the time."""
    return vl_convert.svg_to_png(svg, scale=scale, ppi=72)


def chart_to_pil_image(chart: alt.TopLevelMixin) -> Image.Image:
    """A chart as an image, RGB, to be combined with other images."""
    return Image.open(io.BytesIO(render_png(render_svg(chart), scale=1.6))).convert("RGB")
