"""What the tab Compare sends of a comparison."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.page_browser import chromium, page_in, served_app
from support.synthetic_study import synthetic_study

from convolab.app.comparison import section_values
from convolab.app.run_rows import MAX_POINTS, thin_curve

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 1999, 2000, 100_000])
def test_a_curve_has_a_thousand_points_at_most_and_ends_at_its_last(count: int) -> None:
    epochs = range(1, count + 1)
    shown = thin_curve(epochs)
    assert len(shown) <= MAX_POINTS
    assert shown[-1:] == list(epochs[-1:])
    assert count > MAX_POINTS or shown == list(epochs)


@pytest.mark.slow
def test_the_curves_of_a_comparison_are_as_thin_as_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convolab.app.run_rows.MAX_POINTS", 4)
    section = section_values(synthetic_study().sections[0])
    (curve, _) = section["curves"]["train_loss"]
    assert [epoch for epoch, _ in curve] == [3, 6, 9, 12]


ASK_MEANWHILE = """async () => {
  const {poll} = await import("/static/core.js");
  const ends = [], look = poll(document.createElement("div"), () => new Promise(end => ends.push(end)));
  look();
  ends[0](3600);
  await new Promise(resolve => setTimeout(resolve, 100));
  return ends.length;
}"""


@pytest.mark.slow
@pytest.mark.timing
def test_what_is_ticked_while_the_page_waits_for_an_answer_is_compared_at_once_and_the_answer_is_not_shown(
    looked_at: Path,
) -> None:
    query = "?tab=compare&compare.run=small&compare.run=other"
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address) as page:
        assert page.evaluate(ASK_MEANWHILE) == 2
        asked = []
        page.route(re.compile(r"/api/compare\?"), lambda route: asked.append(route))
        page.goto(address + query)
        wait_for_requests(page, asked, 1)
        page.select_option("#compare-baseline", "other")
        page.wait_for_timeout(200)
        asked[0].continue_()
        wait_for_requests(page, asked, 2)
        assert page.locator("#compare-title").text_content() == ""
        asked[1].continue_()
        page.locator("#compare-same .command", has_text=f"{looked_at}/other {looked_at}/small").wait_for()


def wait_for_requests(page: "Page", asked: list["Route"], count: int) -> None:
    """Wait until so many requests wait for an answer, much shorter than until the page asks by itself again."""
    for _ in range(400):
        if len(asked) >= count:
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"{len(asked)} requests after 8 s")
