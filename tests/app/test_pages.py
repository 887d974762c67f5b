"""The page in a real Chromium: a person's way through the tabs by mouse and by keyboard, in all its looks."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.page import serving

pytestmark = [pytest.mark.slow, pytest.mark.timing]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'convolab[test]'"
)
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 800}
PATIENCE = 30_000  # milliseconds; a training starts in seconds


@dataclass
class Visit:
    """One page, with what its browser asked for and complained of."""

    page: "playwright.Page"
    address: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, query: str = "") -> "playwright.Page":
        self.page.goto(self.address + query)
        self.page.wait_for_selector("[role=tabpanel][data-ready]:not([hidden])")
        return self.page

    def require_clean(self) -> None:
        """Nothing went to another machine, and the console is empty."""
        assert self.requests
        assert [url for url in self.requests if not url.startswith((self.address, "data:", "blob:"))] == []
        assert self.complaints == []


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
def browser() -> Iterator["playwright.Browser"]:
    if BROWSER is None:
        pytest.skip("no Chromium found: the page is not tried in a browser")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: "playwright.Browser", address: str) -> Iterator[Visit]:
    context = browser.new_context(viewport=WIDE)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    found = Visit(page, address)
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("console", lambda message: message.type in ("error", "warning") and found.complaints.append(message.text))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    yield found
    context.close()


def test_a_training_by_mouse_shows_its_curves_and_its_command(visit: Visit, place: Path) -> None:
    page = visit.open()
    page.select_option("#train-net", "shallow_net")
    page.fill("#train-option-hidden", "32")
    page.fill("#train-epochs", "2")
    page.fill("#train-name", "by-mouse")
    expected = "convolab train shallow_net --epochs 2 --set model.hidden=32 --out runs/by-mouse"
    page.locator("#train-same .command", has_text=expected).wait_for()
    page.click("#train-form [type=submit]")
    row = page.locator("#train-runs tr", has_text="by-mouse")
    row.get_by_text("finished").wait_for()
    page.wait_for_selector("#train-loss polyline", state="attached")
    assert page.inner_text("#train-curves-title") == "by-mouse"
    assert (place / "runs" / "by-mouse" / "last.safetensors").exists()
    page.click("#dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    visit.require_clean()


def press_until(page: "playwright.Page", selector: str, key: str = "Tab", most: int = 80) -> None:
    """Press a key until an element has the focus."""
    for _ in range(most):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{selector} is not reached by {key}")


@pytest.mark.long
def test_a_training_and_a_comparison_by_keyboard_alone(visit: Visit, place: Path) -> None:
    page = visit.open()
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
    assert "(epoch 1)" in page.inner_text("#compare-sections .legend >> nth=0")
    press_until(page, "#dark", "Shift+Tab")
    press_until(page, "#projector", "Shift+Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("getComputedStyle(document.documentElement).fontSize") == "24px"
    visit.require_clean()


@pytest.mark.long
def test_a_comparison_has_verdicts_differences_and_the_report(visit: Visit) -> None:
    page = visit.open("?tab=compare")
    for name in ("slow-0", "slow-1", "fast-0", "fast-1"):
        page.check(f'[id="compare-tick-{name}"]')
    page.wait_for_selector("#compare-sections .state")
    assert page.locator("#compare-sections tbody tr").count() >= 4
    assert "optimizer.lr" in page.inner_text("#compare-differences")
    assert page.input_value("#compare-baseline") == "slow-0"
    assert page.inner_text("#compare-same .command").startswith("convolab compare runs/slow-0 runs/slow-1 runs/fast-0")
    page.click("#compare-report")
    report = page.frame_locator(".report")
    report.locator("svg").first.wait_for()
    assert page.get_attribute(".report", "sandbox") == "allow-scripts"
    visit.require_clean()


def test_an_address_reproduces_the_view(visit: Visit) -> None:
    query = "?tab=compare&compare.run=fast-0&compare.run=slow-0&theme=dark&projector=1&train.epochs=7&train.net=shallow_net&train.option.hidden=9"
    page = visit.open(query)
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
    visit.require_clean()


LOOKS = ("", "theme=dark&", "projector=1&", "projector=1&theme=dark&")


@pytest.mark.parametrize(
    ("size", "look"),
    [
        # Two of them at every change; each look in each size in the outer ring.
        pytest.param(size, look, marks=() if is_quick else pytest.mark.long)
        for size, quick in ((WIDE, (3,)), (NARROW, (0,)))
        for number, look in enumerate(LOOKS)
        for is_quick in [number in quick]
    ],
)
def test_every_look_fits_the_screen_and_axe_finds_no_serious_fault(
    visit: Visit, look: str, size: dict[str, int]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    visit.page.set_viewport_size(size)
    for query, shown in (
        ("train.run=fast-0", "#train-loss polyline"),
        (
            "tab=compare&compare.run=slow-0&compare.run=slow-1&compare.run=fast-0&compare.run=fast-1",
            "#compare-sections .state",
        ),
    ):
        page = visit.open(f"?{look}{query}")
        page.wait_for_selector(shown)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        faults = [f for f in axe.run(page).response["violations"] if f["impact"] in ("serious", "critical")]
        assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in faults] == []
    visit.require_clean()


def test_a_wrong_value_is_one_line_and_the_page_goes_on(visit: Visit) -> None:
    page = visit.open()
    page.fill("#train-lr", "fast")
    page.get_by_role("alert").get_by_text("optimizer.lr").wait_for()
    page.fill("#train-lr", "0.1")
    page.wait_for_selector("#panel-train .error", state="hidden")
    assert page.inner_text("#train-same .command").startswith("convolab train simple_convnet --lr 0.1")
    visit.require_clean()
