"""The charts of the page, drawn in a real Chromium."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.page_browser import chromium, page_in, served_app

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow
INTERVALS = [(-2, 0.1), (7.13, 8.23), (-1.73, 1.68), (-0.704, -0.239), (-0.002419, 0.0092), (-9e-5, 1.4e-5), (0, 0)]
DRAW = """async ([intervals, widths]) => {
  const {intervalChart} = await import("/static/chart.js");
  return widths.flatMap(width => intervals.map(([low, high]) => {
    const place = document.createElement("div");
    place.className = "plot";
    place.style.width = `${width}px`;
    document.querySelector("main").append(place);
    intervalChart(place, [{label: "a − b", mean: (low + high) / 2, low, high, verdict: "undecided"}], {title: "t", xTitle: "difference", margin: 0.05 * (high - low)});
    const boxes = [...place.querySelectorAll(".tick-label")].map(text => text.getBoundingClientRect());
    const labels = [...place.querySelectorAll(".tick-label")].map(text => Number(text.textContent));
    const {left, right} = place.querySelector("svg").getBoundingClientRect();
    const span = box => [box.left, box.right];
    const found = {low, high, width, labels, place: [left, right], boxes: boxes.map(span)};
    place.remove();
    return found;
  }));
}"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator["Page"]:
    with (
        served_app(tmp_path / "runs") as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=slide") as opened,
    ):
        yield opened


def test_an_axis_of_differences_ends_at_labels_that_are_whole_and_apart(page: "Page") -> None:
    for found in page.evaluate(DRAW, [INTERVALS, [290, 330, 378, 474, 900]]):
        labels, (left, right), boxes = found["labels"], found["place"], found["boxes"]
        assert labels == sorted(labels), found
        assert labels[0] <= min(0, found["low"]), found
        assert labels[-1] >= max(0, found["high"]), found
        assert len(labels) >= 3 or labels[0] == 0 or labels[-1] == 0, found
        assert left <= boxes[0][0], found
        assert boxes[-1][1] <= right, found
        assert all(one[1] < other[0] for one, other in pairwise(boxes)), found


def test_a_chart_whose_place_has_no_width_yet_is_drawn_without_an_error(page: "Page") -> None:
    page.evaluate(DRAW, [INTERVALS, [0, 1]])  # the page's end sees what the console says


DRAW_LONG = """async count => {
  const {lineChart} = await import("/static/chart.js");
  const place = document.createElement("div");
  document.querySelector("main").append(place);
  lineChart(place, [{name: "a", points: Array.from({length: count}, (_, index) => [index + 1, Math.sin(index)])}], {title: "t"});
  const drawn = place.querySelector("polyline").getAttribute("points").split(" ").length;
  place.remove();
  return drawn;
}"""


def test_two_hundred_runs_of_a_thousand_epochs_are_drawn(page: "Page") -> None:
    assert page.evaluate(DRAW_LONG, 200_000) == 200_000


LOOKS = """async () => {
  const {colorOf, dashOf} = await import("/static/chart.js");
  return Array.from({length: 28}, (_, index) => [colorOf(index), dashOf(index)]);
}"""


def test_curves_differ_in_color_and_in_dash_from_the_next_and_none_of_28_looks_like_another(page: "Page") -> None:
    looks = page.evaluate(LOOKS)
    assert len(set(map(tuple, looks))) == 28
    assert all(one[0] != other[0] and one[1] != other[1] for one, other in pairwise(looks))
