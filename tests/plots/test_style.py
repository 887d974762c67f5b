"""Charts as files."""

import io
import re
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pytest
import vl_convert
from PIL import Image

from convolab.core.errors import LabError
from convolab.plots.figure import ChartFigure
from convolab.plots.style import (
    VEGA_LITE,
    apply_chart_style,
    chart_data,
    chart_to_pil_image,
    render_pdf,
    render_svg,
    save_chart,
)
from convolab.plots.training import confusion_matrix_chart


def line_chart() -> alt.TopLevelMixin:
    rows = [{"epoch": epoch, "loss": 1 / epoch} for epoch in (1, 2, 3)]
    return apply_chart_style(
        alt.Chart(chart_data(rows)).mark_line().encode(x="epoch:Q", y="loss:Q"), "three epochs", ""
    )


@pytest.mark.slow
def test_a_chart_is_saved_in_three_formats_that_need_no_network_connection(tmp_path) -> None:
    paths = save_chart(line_chart(), tmp_path / "curves")
    assert [path.name for path in paths] == ["curves.html", "curves.svg", "curves.png"]
    html, svg, png = (path.read_bytes() for path in paths)
    assert not re.search(rb"<script[^>]+src=", html)
    assert b"vegaEmbed" in html
    assert svg.lstrip().startswith(b"<svg")
    assert b"three epochs" in svg
    assert png.startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_ending_in_capitals_gives_the_same_file(tmp_path) -> None:
    for ending in ("png", "svg"):
        small, large = (
            ChartFigure(line_chart(), "figure").save(tmp_path / f"chart.{name}") for name in (ending, ending.upper())
        )
        assert small.read_bytes() == large.read_bytes()


@pytest.mark.slow
def test_a_chart_is_converted_to_an_image() -> None:
    image = chart_to_pil_image(line_chart())
    assert image.mode == "RGB"
    assert len(image.getcolors(1 << 24) or ()) > 10


@pytest.mark.slow
def test_the_png_made_of_the_svg_has_the_pixels_of_a_chart_drawn_as_png(tmp_path) -> None:
    chart = line_chart()
    [path] = save_chart(chart, tmp_path / "curves", ["png"])
    drawn = vl_convert.vegalite_to_png(chart.to_dict(), vl_version=VEGA_LITE, scale=2.0, ppi=72)
    with Image.open(path) as ours, Image.open(io.BytesIO(drawn)) as theirs:
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.slow
def test_names_that_svg_cannot_hold_do_not_end_the_renderer(tmp_path) -> None:
    names = ["cat\x1b[31m", "</svg><script>\x00", "b'\"[x].y\\z\n\ud800\ufffe"]
    chart = apply_chart_style(confusion_matrix_chart(np.eye(3, dtype=int).tolist(), names, names[0]), names, names[2])
    paths = save_chart(chart, tmp_path / "chart", ["svg", "png", "html", "pdf"])
    svg = ElementTree.parse(paths[0])
    assert not [element for element in svg.iter() if element.tag.endswith("script")]
    assert "cat\\x1b[31m" in "".join(svg.getroot().itertext())
    assert paths[2].read_text().count("<script") == 3
    assert ChartFigure(chart).svg().startswith("<svg")
    assert chart_to_pil_image(chart).width > 100


def test_a_limited_address_space_is_one_line_and_not_the_end_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (8_000_000_000, -1))
    with pytest.raises(LabError, match="charts cannot be drawn with an address space of 8,000,000,000 bytes: `ulimit"):
        render_svg({"mark": "point", "data": {"values": []}})
    with pytest.raises(LabError, match="charts cannot be drawn with an address space"):
        render_pdf({"mark": "point", "data": {"values": []}})
