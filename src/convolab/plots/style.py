"""What all charts share: colors, style, data from rows, and how a chart is saved."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import altair as alt
from PIL import Image

from convolab.core.files import atomic_write

# The palette of Okabe & Ito (2008), which color-blind readers can tell apart too.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
AMBER, SKY, GRAY, BLACK = "#E69F00", "#56B4E9", "#666666", "#000000"
COLORS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, GRAY)
METHOD_COLORS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK)  # beside gray controls

CHART_STYLE = alt.Config(
    axis=alt.AxisConfig(gridColor="#e5e5e5", domainColor="#999", tickColor="#999"),
    view=alt.ViewConfig(stroke=None),
)
LOG_SCALE_RATIO = 20  # values that span a larger factor are drawn on a log scale


def chart_data(rows: Iterable[Mapping[str, object]]) -> alt.InlineData:
    """Rows as the data of a chart. Their channels name their types: `alt.X("epoch:Q")`."""
    return alt.InlineData(values=[dict(row) for row in rows])


def needs_log_scale(values: Iterable[float]) -> bool:
    """Whether a log scale shows these values better: they span more than a factor of 20.

    >>> needs_log_scale([0.3, 0.1, 0.003]), needs_log_scale([0.1, 0.5, 0.9])
    (True, False)
    """
    values = list(values)
    return max(values) > LOG_SCALE_RATIO * max(min(values), 1e-9)


def apply_chart_style(chart: alt.TopLevelMixin, title: str | list[str], subtitle: str | list[str]) -> alt.TopLevelMixin:
    """The chart with a title, a subtitle (of several lines: lists) and the common style, ready to be saved."""
    return chart.properties(title=title_params(title, subtitle), background="white", padding=14, config=CHART_STYLE)


def title_params(title: str | list[str], subtitle: str | list[str]) -> alt.TitleParams:
    """A chart's title and subtitle, in lines where they are lists."""
    return alt.TitleParams(
        text=title, subtitle=subtitle, anchor="start", fontSize=15, subtitleColor=GRAY, subtitleFontSize=11, offset=12
    )


def save_chart(chart: alt.TopLevelMixin, stem: Path, formats: Sequence[str] = ("html", "svg", "png")) -> list[Path]:
    """Write a chart once in each format, and return the paths: `stem` with the format's ending.

    The HTML file contains everything it needs and opens without a network. Raises LabError if a file cannot be written.
    """
    from convolab.plots.chart_page import chart_page  # here, because the page has the colors of this module

    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    for path in paths:
        with atomic_write(path) as part:
            if path.suffix == ".html":
                part.write_text(chart_page(chart.to_dict()), encoding="utf-8")
            elif path.suffix == ".png":
                chart.save(part, scale_factor=2)
            else:
                chart.save(part)
    return paths


def chart_to_pil_image(chart: alt.TopLevelMixin) -> Image.Image:
    """A chart as an image, RGB, to be combined with other images."""
    content = io.BytesIO()
    chart.save(content, format="png", scale_factor=1.6)
    return Image.open(content).convert("RGB")
