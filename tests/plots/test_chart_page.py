"""The page of a single chart."""

import html
import json
import re

import altair as alt
import pytest
import vl_convert
from support.browser import render_in_browser

from convolab.plots import chart_page
from convolab.plots.style import BLUE, save_chart
from convolab.plots.training import confusion_matrix_chart, training_curves_chart
from convolab.training.history import EpochMetrics


def test_the_libraries_are_bundled_once_and_then_read_from_the_cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = iter(["library = '</script>';"])
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: next(bundles))
    texts = [chart_page.vega_libraries() for _ in range(2)]
    assert texts == ["library = '<\\/script>';"] * 2


def test_without_a_place_for_the_cache_the_libraries_are_bundled_each_time(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "file"))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: "library")
    assert chart_page.vega_libraries() == "library"


HOSTILE_NAME = "</title></script><script>alert(1)</script><b>"


@pytest.fixture
def small_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart_page, "vega_libraries", lambda: "library")


@pytest.mark.usefixtures("small_libraries")
def test_what_a_chart_says_is_text_on_its_page() -> None:
    title = {"text": [HOSTILE_NAME, "two"], "subtitle": HOSTILE_NAME}
    page = chart_page.chart_page({"title": title, "datasets": {HOSTILE_NAME: [{"name": HOSTILE_NAME}]}, "mark": "bar"})
    assert page.count("<script") == page.count("</script>") == 3
    assert "<b>" not in page
    assert f"<title>{html.escape(HOSTILE_NAME)} two</title>" in page
    assert page.count("</title>") == 1
    assert "unsafe-eval" not in page
    assert chart_payload(page)["figures"][0]["tables"] == {HOSTILE_NAME: [{"name": HOSTILE_NAME}]}


def chart_payload(page: str) -> dict:
    """What the page draws."""
    return json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.slow
@pytest.mark.usefixtures("small_libraries")
def test_the_page_has_the_frame_of_the_reports() -> None:
    page = chart_page.chart_page(curves().to_dict())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].startswith("default-src 'none';")
    assert '<button id="theme"' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert not re.search(r"https?://", page.split("<script>")[0])


@pytest.mark.slow
@pytest.mark.usefixtures("small_libraries")
def test_panels_in_a_row_are_charts_of_their_own_that_fit_their_column() -> None:
    page = chart_page.chart_page(curves().to_dict())
    figures = chart_payload(page)["figures"]
    assert [figure["spec"]["width"] for figure in figures] == ["container", "container"]
    assert page.count('<div class="chart" data-figure=') == 2
    text = json.dumps(figures)
    assert "hconcat" not in text
    assert "var(--c-0072B2)" in text
    assert BLUE not in text  # it would not change in the dark
    assert all(figure["spec"]["description"].startswith("curves. training: ") for figure in figures)


@pytest.mark.slow
@pytest.mark.usefixtures("small_libraries")
def test_a_chart_of_ten_classes_fits_on_a_phone_and_one_of_more_keeps_its_size_and_scrolls_in_its_frame() -> None:
    for num_classes, is_flexible in ((2, True), (10, True), (11, False)):
        names, matrix = [f"class {n}" for n in range(num_classes)], [[1] * num_classes] * num_classes
        page = chart_page.chart_page(confusion_matrix_chart(matrix, names, "t").to_dict())
        (figure,) = chart_payload(page)["figures"]
        side = 40 * num_classes
        assert figure["spec"]["width"] == ("container" if is_flexible else side)
        assert (f'style="max-width:{max(300, side + 120)}px"' in page) == is_flexible  # a matrix is not stretched
        assert ('<div class="scroll" tabindex="0"' in page) != is_flexible


@pytest.mark.usefixtures("small_libraries")
def test_panels_that_share_their_labels_stay_together() -> None:
    labels = alt.Chart(alt.InlineData([])).mark_bar().encode(x="a:Q", y="b:N")
    page = chart_page.chart_page(alt.hconcat(labels, labels).to_dict())
    assert len(chart_payload(page)["figures"]) == 1


def curves() -> alt.TopLevelMixin:
    metrics = [EpochMetrics(epoch, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0, 10.0, "running") for epoch in (1, 2)]
    return training_curves_chart(metrics, "curves")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1400,900", "390,800"])
def test_a_browser_draws_every_panel_without_a_message_on_its_console(tmp_path, size) -> None:
    (path,) = save_chart(curves(), tmp_path / "curves", ["html"])
    result = render_in_browser(
        path, tmp_path / "profile", f"--window-size={size}", "--virtual-time-budget=30000", "--dump-dom"
    )
    assert "CONSOLE" not in result.stderr
    assert 'data-drawn="2"' in result.stdout
    assert result.stdout.count('aria-label="curves. training: ') == 2
