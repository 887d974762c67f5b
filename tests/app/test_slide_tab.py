"""The tab Slide: the library's answer, the same in the browser, and a person's way through it by mouse and keyboard."""

import json
import random
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from starlette.testclient import TestClient
from support.page_browser import axe_faults, chromium, is_too_wide, page_in, served_app, wait_until
from typer.testing import CliRunner

from convolab.app.folders import RunsFolder
from convolab.app.jobs import Jobs
from convolab.app.safety import AllowedHosts
from convolab.app.server import AppState, build_app
from convolab.cli.main import app as command_line
from convolab.core.errors import LabError
from convolab.theory.sliding import parse_samples, slide_correlation

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIGNALS = {"x": "1, 2, 0, -1", "y": "0, 1/2, 1, 2"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("page")
    state = AppState(RunsFolder(folder / "runs"), Jobs(folder / "runs", folder / "queue"))
    with TestClient(build_app(state, AllowedHosts("127.0.0.1", 8360)), base_url="http://127.0.0.1:8360") as found:
        yield found


def test_the_answer_is_the_librarys(client: TestClient) -> None:
    found = client.get("/api/slide", params={**SIGNALS, "padding": "zeros", "stride": "2", "shift": "2"}).json()
    sliding = slide_correlation([1, 2, 0, -1], [0, 0.5, 1, 2], padding="zeros", stride=2)
    assert found["z"] == sliding.z.tolist()
    assert found["jacobian_x"] == sliding.jacobian_x.tolist()
    assert found["jacobian_y"] == sliding.jacobian_y.tolist()
    assert found["shift"]["difference"] == sliding.measure_shift(2).difference


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": "1, 2, 3"}, "x has 3 samples: give 4 to 12"),
        ({"x": "1, 2, 3, 4, 5"}, "x has 5 samples and y has 4"),
        ({"y": ",".join("1" * 13)}, "y has 13 samples: give 4 to 12"),
        ({"x": "1, 2, <b>, 4"}, "'<b>' in x is not a number"),
        ({"x": "1, 2, 1/0, 4"}, "'1/0' in x divides by 0"),
        ({"padding": "mirror"}, "padding 'mirror': give circular or zeros"),
        ({"stride": "5"}, "stride 5: give 1 to 4"),
        ({"stride": "-1"}, "the stride = -1: give a whole number from 1 to 12"),
        ({"shift": "4"}, "a shift by 4: give 0 to 3"),
        ({"shift": "x"}, "the shift = x: give a whole number"),
    ],
)
def test_what_cannot_slide_is_one_line(client: TestClient, values: dict[str, str], message: str) -> None:
    answer = client.get("/api/slide", params={**SIGNALS, **values})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"padding": "zeros", "stride": "2", "shift": "0"},
        {"x": "-1/3, .5, +2., -007", "shift": "2"},
        {"x": "0.00001, 1, 0, -.0000000002"},
    ],
)
def test_the_command_is_parsed_and_the_python_runs_and_both_give_the_same(
    client: TestClient, values: dict[str, str]
) -> None:
    found = client.get("/api/slide", params={**SIGNALS, **values}).json()
    name, *words = shlex.split(found["command"])
    assert name == "convolab"
    printed = CliRunner().invoke(command_line, [*words, "--json"])
    assert printed.exit_code == 0
    by_command = json.loads(printed.stdout)
    names: dict[str, object] = {}
    exec(found["python"], names)
    by_python = names["sliding"]
    for key in ("z", "jacobian_x", "jacobian_y"):
        assert by_command[key] == found[key] == getattr(by_python, key).tolist()
    assert by_command["shift"] == found["shift"]


def random_cases(count: int) -> list[dict[str, object]]:
    """Signals of 4 to 12 samples, small and large, with every padding, stride and shift."""
    draw = random.Random(0)
    cases = []
    for _ in range(count):
        n, scale = draw.randint(4, 12), draw.choice((1, 1, 3, 100))
        x, y = ([draw.choice((0.0, draw.uniform(-scale, scale))) for _ in range(n)] for _ in "xy")
        padding, stride = draw.choice(("circular", "zeros")), draw.randint(1, 4)
        cases.append({"x": x, "y": y, "padding": padding, "stride": stride, "shift": draw.randrange(n)})
    return cases


COMPUTE = """async cases => {
  const c = await import("/static/correlation.js");
  return cases.map(({x, y, padding, stride, shift}) => {
    const settings = {padding, stride}, n = x.length;
    const values = (rows, held) => rows.map(row => row.map(index => index === null ? 0 : held[index]));
    const moved = c.measureShift(x, y, shift, settings);
    return {
      z: c.correlate(x, y, settings), jacobian_x: values(c.jacobianX(n, settings), y), jacobian_y: values(c.jacobianY(n, settings), x),
      difference: moved.difference, relative: moved.relativeDifference, onlyShifts: moved.onlyShifts,
    };
  });
}"""


@pytest.mark.slow
def test_a_persons_way_by_mouse_and_by_keyboard(tmp_path: Path) -> None:
    with (
        served_app(tmp_path / "runs") as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=slide") as page,
    ):
        compare_arithmetic(page)
        compare_typed_samples(page)

        def z_now() -> str:
            return page.locator("#slide-sum").inner_text()

        assert z_now().startswith("k = 0: z[0] =")
        assert "does not" not in page.locator("#slide-verdict").inner_text()
        page.locator("#slide-library:has-text('gives the same z')").wait_for()
        # the mouse: a sample is dragged to the top of its row, the Jacobian lights up, the signal is in the address
        sample = page.locator("[data-key=x0] .hit").bounding_box()
        assert sample
        page.mouse.move(sample["x"] + sample["width"] / 2, sample["y"] + sample["height"] / 2)
        page.mouse.down()
        page.mouse.move(sample["x"] + sample["width"] / 2, sample["y"] - 40, steps=4)
        page.mouse.up()
        assert page.locator("#slide-x").input_value() == "2, 2, 0, -1, 0, 0.5"
        assert page.locator("#slide-jacobian-y td.lit").count() == 6
        # the keyboard: step, a sample, a cell of the Jacobian, zeros
        page.locator("#slide-step").press("Enter")
        assert z_now().startswith("k = 1: z[1] =")
        page.locator("[data-key=x0]").press("ArrowDown")
        page.locator("[data-key=x0]").press("ArrowRight")
        assert page.evaluate("document.activeElement.dataset.key") == "x1"
        page.keyboard.press("PageDown")
        assert page.locator("#slide-x").input_value() == "1.9, 1, 0, -1, 0, 0.5"
        page.locator("#slide-jacobian-x td").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert (
            page.locator("#slide-lit")
            .inner_text()
            .startswith("∂z[1] / ∂x[1] = y[2] = 1, which stands on anti-diagonals")
        )
        assert page.locator("#slide-jacobian-x td.lit").all_inner_texts() == ["1"] * 6
        page.locator("#slide-padding").select_option("zeros")
        assert page.locator("#slide-verdict").inner_text().startswith("No: the largest difference is")
        assert "zeros come in" in page.locator("#slide-verdict").inner_text()
        page.locator("#slide-play").press("Enter")
        page.locator("#slide-sum:has-text('k = 2')").wait_for()
        page.keyboard.press("Escape")
        wait_until(page, "location.search.includes('slide.k=')")
        page.locator(".command:has-text('--padding zeros')").wait_for()
        # the address alone gives the same view
        address_now = page.url
        assert axe_faults(page) == []
        page.goto(address_now)
        page.wait_for_selector("#panel-slide[data-ready] [data-key=x0]")
        assert page.locator("#slide-stage [data-key=x0]").get_attribute("aria-valuetext") == "1.9"
        page.locator("#slide-x").fill("1, 2")
        page.locator("#panel-slide .error:has-text('x has 2 samples')").wait_for()
        page.set_viewport_size({"width": 390, "height": 800})
        assert not is_too_wide(page)


def compare_arithmetic(page: "Page") -> None:
    """The browser's numbers are the library's to 1e-12 of the largest possible value."""
    cases = random_cases(150)
    for case, found in zip(cases, page.evaluate(COMPUTE, cases), strict=True):
        x, y, padding, stride, shift = case.values()
        sliding = slide_correlation(x, y, padding=padding, stride=stride)
        scale = max(1.0, sum(map(abs, x)) * max(map(abs, y)))
        for name in ("z", "jacobian_x", "jacobian_y"):
            torch.testing.assert_close(
                torch.tensor(found[name], dtype=torch.float64), getattr(sliding, name), atol=1e-12 * scale, rtol=0
            )
        measured = sliding.measure_shift(shift)
        assert found["onlyShifts"] == measured.only_shifts
        assert found["difference"] == pytest.approx(measured.difference, abs=1e-11 * scale)
        assert (found["relative"] is None) == (measured.relative_difference is None)


def compare_typed_samples(page: "Page") -> None:
    """What is typed means the same in the browser as in the library, or nothing in both."""
    texts = [
        "1, 2, 3, 4",
        "1/3,-2/7,.5,+2.",
        "007,0,0,0",
        "0.1,0.2,0.3,123456789.5",
        "1,2,3,x",
        "1,2,3,1/0",
        "1,2,3,",
        "1,2,3,1e5",
        "1,2,3,１",
    ]
    found = page.evaluate("async texts => texts.map((await import('/static/correlation.js')).parseSamples)", texts)
    for text, by_browser in zip(texts, found, strict=True):
        try:
            by_library = parse_samples(text)
        except LabError:
            by_library = None
        assert by_browser == by_library, text


@pytest.mark.slow
def test_bars_of_products_are_as_high_as_the_products_and_zero_has_none(tmp_path: Path) -> None:
    with (
        served_app(tmp_path / "runs") as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=slide&slide.x=1,2,0,-2&slide.y=1,1,1,1") as page,
    ):
        page.wait_for_selector("#slide-stage .product", state="attached")
        heights = page.locator(".product").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().height)")
        one, two, zero, minus_two = heights
        assert two == pytest.approx(2 * one) == pytest.approx(minus_two)
        assert zero == pytest.approx(1)


@pytest.mark.long
@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("look", ["", "&theme=dark", "&projector=1", "&theme=dark&projector=1"])
def test_every_look_fits_and_can_be_read(tmp_path: Path, width: int, look: str) -> None:
    more = "&slide.padding=zeros&slide.stride=2&slide.k=2"
    signals = "&slide.x=1,2,0,-1,0,.5,1/3,-2.25,0,0,1,1&slide.y=1,2,0,-1,0,.5,1/3,-2.25,0,0,1,1"
    with (
        served_app(tmp_path / "runs") as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=slide{more}{signals}{look}", width) as page,
    ):
        page.locator("#slide-library:has-text('gives the same z')").wait_for()
        assert axe_faults(page) == []
        assert not is_too_wide(page)
