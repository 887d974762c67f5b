"""The page in a real Chromium: a person's way through the tabs by mouse and by keyboard, in all its looks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.page_browser import axe_faults, chromium, is_too_wide, open_address, page_in, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timing]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three finished runs: two seeds of one recipe, and another recipe."""
    import convolab

    folder = tmp_path_factory.mktemp("page")
    for name, lr, seed in (("slow-0", 0.001, 0), ("slow-1", 0.001, 1), ("fast-0", 0.1, 0), ("fast-1", 0.1, 1)):
        convolab.train("shallow_net", epochs=3, lr=lr, seed=seed, out=folder / "runs" / name)
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    with serving(place) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: "Browser", address: str) -> Iterator["Page"]:
    """The page as `convolab app` opens it; at the end its console is empty, and no request left this machine."""
    with page_in(browser, address) as opened:
        yield opened


def test_a_training_by_mouse_shows_its_curves_and_its_command(page: "Page", place: Path) -> None:
    page.select_option("#train-net", "shallow_net")
    page.fill("#train-option-hidden", "32")
    page.fill("#train-epochs", "2")
    page.fill("#train-name", "by-mouse")
    page.check("#train-playback-tick")
    expected = "convolab train shallow_net --epochs 2 --set model.hidden=32 --log playback --out runs/by-mouse"
    page.locator("#train-same .command", has_text=expected).wait_for()
    page.click("#train-form [type=submit]")
    row = page.locator("#train-runs tr", has_text="by-mouse")
    row.get_by_text("finished").wait_for()
    page.wait_for_selector("#train-loss polyline", state="attached")
    page.locator("#train-curves-title", has_text="by-mouse").wait_for()
    assert (place / "runs" / "by-mouse" / "last.safetensors").exists()
    page.wait_for_selector("#train-frames img >> nth=7")  # the filters and seven images
    last = page.get_attribute("#train-frames img >> nth=0", "src")
    page.focus("#train-frame")
    page.keyboard.press("Home")
    page.locator("#train-frame-epoch", has_text="1").wait_for()
    assert page.get_attribute("#train-frames img >> nth=0", "src") != last
    page.wait_for_url("**train.epoch=1**")
    page.click("#train-play")
    page.locator("#train-frame-epoch").get_by_text("2").wait_for()
    page.locator("#train-play").get_by_text("Play").wait_for()
    page.click("#dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def press_until(page: "Page", selector: str, key: str = "Tab", most: int = 80) -> None:
    """Press a key until an element has the focus."""
    for _ in range(most):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{selector} is not reached by {key}")


@pytest.mark.long
def test_a_training_and_a_comparison_by_keyboard_alone(page: "Page", place: Path) -> None:
    press_until(page, "[role=tab]")
    press_until(page, "#train-net")
    page.keyboard.type("shallow_net")
    press_until(page, "#train-epochs")
    page.keyboard.type("1")
    press_until(page, "#train-name")
    page.keyboard.type("by-keys")
    page.keyboard.press("Enter")  # as in every form
    page.locator("#train-runs tr", has_text="by-keys").get_by_text("finished").wait_for()
    press_until(page, "#tab-train", "Shift+Tab")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#panel-compare[data-ready]")
    assert page.get_attribute("#tab-compare", "aria-selected") == "true"
    page.wait_for_selector("#compare-runs li")
    for name in ("slow-0", "slow-1", "fast-0", "fast-1"):
        press_until(page, f'[id="compare-tick-{name}"]')
        page.keyboard.press("Space")
        page.wait_for_timeout(150)
    page.wait_for_selector("#compare-sections circle.mean")
    press_until(page, ".line-chart")
    page.keyboard.press("Home")
    page.locator("#compare-sections .legend >> nth=0", has_text="(epoch 1)").wait_for()
    press_until(page, "#dark", "Shift+Tab")
    press_until(page, "#projector", "Shift+Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("getComputedStyle(document.documentElement).fontSize") == "24px"


@pytest.mark.long
def test_a_comparison_has_verdicts_differences_and_the_report(page: "Page", address: str) -> None:
    open_address(page, address + "?tab=compare")
    for name in ("slow-0", "slow-1", "fast-0", "fast-1"):
        page.check(f'[id="compare-tick-{name}"]')
    page.wait_for_selector("#compare-sections .state")
    assert page.locator("#compare-sections tbody tr").count() >= 4
    page.locator("#compare-differences", has_text="optimizer.lr").wait_for()
    assert page.input_value("#compare-baseline") == "slow-0"
    page.locator("#compare-same .command", has_text="convolab compare runs/slow-0 runs/slow-1 runs/fast-0").wait_for()
    page.click("#compare-report")
    report = page.frame_locator(".report")
    report.locator("svg").first.wait_for()
    assert page.get_attribute(".report", "sandbox") == "allow-scripts"


def shown_difference(margin: float | None) -> dict[str, object]:
    """A contrast as the server describes it."""
    return {
        "label": "a − b",
        "metric": "accuracy",
        "unit": "percentage points",
        "higher_is_better": True,
        "mean": 0.5,
        "low": -1.0,
        "high": 2.0,
        "margin": margin,
        "seeds": 3,
        "verdict": "undecided",
        "reason": None,
        "comment": "",
    }


@pytest.mark.parametrize(("margins", "bands"), [((1.0, 1.0), 1), ((1.0, 3.0), 0), ((None, 1.0), 0), ((None, None), 0)])
def test_the_band_of_what_does_not_matter_is_drawn_only_where_it_is_that_of_all_rows(
    page: "Page", address: str, margins: tuple[float | None, ...], bands: int
) -> None:
    section = {"name": "s", "title": "", "arms": [], "curves": {}, "comment": ""}
    found = {
        "title": "t",
        "num_runs": 2,
        "num_complete": 2,
        "sections": [{**section, "contrasts": [shown_difference(margin) for margin in margins]}],
        "notes": [],
        "same": {"command": "", "python": ""},
        "differences": {},
        "runs": [],
    }
    page.route(re.compile(r"/api/compare\?"), lambda route: route.fulfill(json=found))
    open_address(page, address + "?tab=compare&compare.run=fast-0&compare.run=slow-0")
    page.wait_for_selector("#compare-sections circle.mean", state="attached")
    assert page.locator("#compare-sections .band").count() == bands
    assert ("shaded" in page.inner_text("#compare-sections")) == (bands > 0)


def test_more_epochs_have_a_command_with_the_folder_that_the_page_would_take(page: "Page") -> None:
    page.click("#train-runs [data-key='show fast-0']")
    page.locator("#train-curves-title", has_text="fast-0").wait_for()
    assert page.is_hidden("#train-resume-same")
    page.fill("#train-extend", "7")
    expected = "convolab resume runs/fast-0 --epochs 7 --out runs/fast-0-1"
    page.locator("#train-resume-same .command", has_text=expected).wait_for()
    page.fill("#train-extend", "2")  # it has three already
    page.wait_for_selector("#train-resume-same", state="hidden")


def test_an_address_reproduces_the_view(page: "Page", address: str) -> None:
    query = "?tab=compare&compare.run=fast-0&compare.run=slow-0&theme=dark&projector=1&train.epochs=7&train.net=shallow_net&train.option.hidden=9"
    open_address(page, address + query)
    page.wait_for_selector("#compare-sections .state")
    assert page.is_checked('[id="compare-tick-fast-0"]')
    assert page.input_value("#compare-baseline") == "fast-0"
    assert page.evaluate("[document.documentElement.dataset.theme, document.documentElement.dataset.projector]") == [
        "dark",
        "1",
    ]
    page.click("#tab-train")
    page.wait_for_selector("#panel-train[data-ready]")
    assert [page.input_value(f"#train-{name}") for name in ("epochs", "net", "option-hidden")] == [
        "7",
        "shallow_net",
        "9",
    ]
    page.fill("#train-seed", "5")
    page.wait_for_url("**train.seed=5**")
    again = page.url
    page.reload()
    page.wait_for_selector("[role=tabpanel][data-ready]:not([hidden])")
    assert page.input_value("#train-seed") == "5"
    assert page.url == again


LOOKS = ("", "theme=dark&", "projector=1&", "projector=1&theme=dark&")
QUICK_LOOKS = ((1400, LOOKS[3]), (390, LOOKS[0]))  # at every change; each look in each width in the outer ring
VIEWS = {
    "train.run=fast-0": "#train-loss polyline",
    "tab=compare&compare.run=slow-0&compare.run=slow-1&compare.run=fast-0&compare.run=fast-1": "#compare-sections .state",
}


@pytest.mark.parametrize(
    ("width", "look"),
    [
        pytest.param(width, look, marks=() if (width, look) in QUICK_LOOKS else pytest.mark.long)
        for width in (1400, 390)
        for look in LOOKS
    ],
)
def test_every_look_fits_the_screen_and_axe_finds_no_serious_fault(
    browser: "Browser", address: str, look: str, width: int
) -> None:
    for query, shown in VIEWS.items():
        with page_in(browser, f"{address}?{look}{query}", width) as page:
            page.wait_for_selector(shown)
            assert not is_too_wide(page)
            assert axe_faults(page) == []


def test_a_wrong_value_is_one_line_and_the_page_goes_on(page: "Page") -> None:
    page.fill("#train-lr", "fast")
    page.get_by_role("alert").get_by_text("optimizer.lr").wait_for()
    page.fill("#train-lr", "0.1")
    page.wait_for_selector("#panel-train .error", state="hidden")
    page.locator("#train-same .command", has_text="convolab train simple_convnet --lr 0.1").wait_for()


def test_the_line_about_a_wrong_value_stays_when_the_list_of_runs_is_asked_for_again(page: "Page") -> None:
    page.fill("#train-lr", "fast")
    page.get_by_role("alert").get_by_text("optimizer.lr").wait_for()
    with page.expect_response("**/api/runs"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(300)
    assert page.get_by_role("alert").get_by_text("optimizer.lr").is_visible()
