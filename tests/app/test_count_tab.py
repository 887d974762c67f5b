"""The tab Count: the library's summary, its stages and formulas, question 1(c), and a person's way through it."""

import io
import json
import shlex
from collections.abc import Iterator
from math import prod
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.page_browser import axe_faults, chromium, is_too_wide, page_in, served_app, wait_until
from typer.testing import CliRunner

import convolab
from convolab.app.counting import BUNDLED, layer_stages
from convolab.app.folders import RunsFolder
from convolab.app.jobs import Jobs
from convolab.app.safety import AllowedHosts
from convolab.app.server import AppState, build_app
from convolab.cli.main import app as command_line

LONG_NETWORK = "timm/resnet18"
counted: dict[str, dict] = {}
ORIGIN = {"origin": "http://127.0.0.1:8360"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    convolab.train("shallow_net", epochs=1, out=folder / "first")
    return folder


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[TestClient]:
    state = AppState(RunsFolder(runs), Jobs(runs, runs.parent / "queue"))
    with TestClient(build_app(state, AllowedHosts("127.0.0.1", 8360)), base_url="http://127.0.0.1:8360") as found:
        yield found


def count(client: TestClient, **values: str) -> dict:
    """A summary; the same one is asked for once."""
    key = json.dumps(values)
    if key not in counted:
        counted[key] = count_again(client, values)
    return counted[key]


def count_again(client: TestClient, values: dict[str, str]) -> dict:
    answer = client.post("/api/count", json=values, headers=ORIGIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "network", "arguments"),
    [
        ({}, "simple_convnet", {"input_shape": (3, 32, 32)}),
        (
            {
                "net": "simple_convnet",
                "input": "1x28x28",
                "classes": "7",
                "option.channels": "[8, 16]",
                "option.residual": "true",
            },
            "simple_convnet",
            {"input_shape": (1, 28, 28), "classes": 7, "model": {"channels": [8, 16], "residual": True}},
        ),
        pytest.param({"net": "efficientnet_lite0"}, "efficientnet_lite0", {}, marks=pytest.mark.long),
        ({"net": "timm/resnet18", "input": "3x64x64"}, "timm/resnet18", {"input_shape": (3, 64, 64)}),
        ({"net": "run/first"}, "run", {}),
    ],
)
def test_the_numbers_are_those_of_summary_and_of_the_command_and_of_python(
    client: TestClient, runs: Path, values: dict[str, str], network: str, arguments: dict
) -> None:
    found = count(client, **values)
    summary = convolab.summary(convolab.Run(runs / "first") if network == "run" else network, **arguments)
    assert (found["parameters"], found["macs"]) == (summary.num_parameters, summary.macs)
    assert [layer["macs"] for layer in found["layers"]] == [layer.macs for layer in summary.layers]
    assert found["mismatches"] == []
    name, *words = shlex.split(found["command"])
    assert name == "convolab"
    printed = CliRunner().invoke(command_line, [*words, "--json"])
    assert printed.exit_code == 0, printed.output
    totals = json.loads(printed.stdout)["totals"]
    assert (totals["num_parameters"], totals["macs"]) == (summary.num_parameters, summary.macs)
    names: dict[str, object] = {}
    exec(found["python"], names)
    assert (names["summary"].num_parameters, names["summary"].macs) == (summary.num_parameters, summary.macs)


@pytest.mark.slow
def test_closed_forms_of_parameters_and_products_give_the_numbers_counted(client: TestClient) -> None:
    checked = 0
    for net in ("simple_convnet", LONG_NETWORK, "shallow_net"):
        for layer in count(client, net=net)["layers"]:
            if layer["mac_formula"]:
                assert prod(map(int, layer["mac_formula"].split("×"))) == layer["macs"]
                terms = layer["parameter_formula"].split(" + ")
                assert sum(prod(map(int, term.split("×"))) for term in terms) == layer["parameters"]
                checked += 1
    assert checked > 24


def test_long_networks_have_stages_that_hold_every_layer_once_and_what_they_cost(client: TestClient) -> None:
    assert count(client)["stages"] == []
    found = count(client, net=LONG_NETWORK)
    stages = found["stages"]
    assert 5 < len(stages) <= 24
    assert [stage["from"] for stage in stages] == [0, *(stage["to"] for stage in stages[:-1])]
    assert stages[-1]["to"] == len(found["layers"])
    assert sum(stage["macs"] for stage in stages) == found["macs"]
    assert sum(stage["parameters"] for stage in stages) == found["parameters"]
    assert {stage["family"] for stage in stages} <= {"convolution", "norm", "linear", "pooling", "activation", "other"}
    flat = layer_stages([f"layer{index}" for index in range(100)])  # no beginning in common: each its own
    assert [stage.end - stage.begin for stage in flat] == [1] * 100


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"net": "resnet_smal"}, "'resnet_smal' is none of the list"),
        ({"net": "/etc"}, "'/etc' is none of the list"),
        ({"net": "evil.py:Net"}, "'evil.py:Net' is none of the list"),
        ({"net": "timm/evil.py:Net"}, "'timm/evil.py:Net' is none of the list"),
        ({"net": "package.module:Net"}, "'package.module:Net' is none of the list"),
        ({"net": "timm/.."}, "'timm/..' is none of the list"),
        ({"net": "torchvision/../runs/first"}, "'torchvision/../runs/first' is none of the list"),
        ({"net": "efficientnet_lite0/../runs/first"}, "'efficientnet_lite0/../runs/first' is none of the list"),
        ({"net": "run/../../etc"}, "'../../etc' is not the name of a run here"),
        ({"net": "run/none"}, "there is no 'none'"),
        ({"net": "timm/resnet1"}, "timm has no network 'resnet1'"),
        ({"input": "3x0x4"}, "3x0x4 is not a shape"),
        ({"classes": "0"}, "classes = 0: give a whole number from 1"),
        ({"option.chanels": "[3]"}, "the network 'simple_convnet' has no option 'chanels'"),
        ({"option.channels": "[["}, None),
        ({"net": ["a"]}, "a summary has 60 controls at most, each a text"),
    ],
)
def test_what_cannot_be_counted_is_one_line(client: TestClient, values: dict, message: str | None) -> None:
    answer = client.post("/api/count", json=values, headers=ORIGIN)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "\n" not in error
    assert message is None or error.startswith(message), error


def test_the_offer_names_what_is_here(client: TestClient) -> None:
    offer = client.get("/api/count/offer").json()
    assert "run/first" in offer["runs"]
    assert offer["bundled"] == list(BUNDLED)
    assert "chelsea" in offer["images"]
    assert client.get("/api/count/names", params={"part": "timm/resnet5"}).json()[0].startswith("timm/resnet5")
    assert client.get("/api/count/names", params={"part": "timm/no such"}).json() == []


@pytest.mark.slow
def test_a_sample_image_is_as_large_as_the_input_and_no_file_is_opened(client: TestClient) -> None:
    answer = client.get("/api/count/image", params={"name": "chelsea", "height": "20", "width": "30"})
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (30, 20)
    large = client.get("/api/count/image", params={"name": "chelsea", "height": "9000", "width": "9000"})
    assert max(Image.open(io.BytesIO(large.content)).size) == 512
    for name in ("/etc/passwd", "../chelsea", "http://127.0.0.1/", ""):
        refused = client.get("/api/count/image", params={"name": name, "height": "20", "width": "30"})
        assert refused.status_code == 400
        assert "there is no sample image" in refused.json()["error"]


def test_question_1c_is_counted_by_the_library_and_has_the_closed_forms(client: TestClient) -> None:
    for samples, kernel_size, maps in ((100, 3, 10), (1000, 31, 64), (4, 1, 1)):
        values = {"samples": samples, "kernel_size": kernel_size, "maps": maps}
        found = client.get("/api/count/course", params=values).json()
        f, g = found["layers"]["f"], found["layers"]["g"]
        assert f["parameters"] == f["macs"] == samples * maps * samples
        assert (g["parameters"], g["macs"]) == (maps * kernel_size, maps * kernel_size * samples)
        assert f["outputs"] == g["outputs"] == maps * samples
    printed = CliRunner().invoke(command_line, [*shlex.split(found["command"])[1:], "--json"])
    assert [layer["totals"]["macs"] for layer in json.loads(printed.stdout)] == [f["macs"], g["macs"]]
    names: dict[str, object] = {}
    exec(found["python"], names)
    assert (names["f"].macs, names["g"].num_parameters) == (f["macs"], g["parameters"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kernel_size": "4"}, "kernel size 4 is even"),
        ({"kernel_size": "101"}, "kernel size 101 is longer than the signal"),
        ({"samples": "0"}, "samples = 0: give a whole number"),
        ({"maps": "1e9"}, "maps = 1e9: give a whole number"),
    ],
)
def test_sizes_that_make_no_layer_are_one_line(client: TestClient, values: dict[str, str], message: str) -> None:
    answer = client.get("/api/count/course", params=values)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(message)


@pytest.mark.slow
def test_a_persons_way_through_the_layers_by_mouse_and_by_keyboard(tmp_path: Path) -> None:
    with (
        served_app(tmp_path / "runs") as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=count") as page,
    ):
        page.locator("#count-totals:has-text('24,346 parameters')").wait_for()
        layer = page.locator("#count-layer")
        assert "16×3×3×3 = 432" in layer.inner_text()
        assert "16×3×3×3×32×32 = 442,368" in layer.inner_text()
        page.locator("#count-drawing [data-box='4']").hover()  # the mouse
        assert "32×16×3×3 = 4,608" in layer.inner_text()
        page.locator("#count-drawing [data-box='0']").focus()  # the keyboard
        page.keyboard.press("End")
        assert page.locator("#count-layer-name").inner_text() == "head.linear"
        assert "64×10 + 10 = 650" in layer.inner_text()
        page.locator("#count-table button").nth(4).focus()
        assert page.locator("#count-layer-name").inner_text() == "features.1.conv"
        # the receptive field of the cell nearest to the pointer: 8 pixels, every 2
        image = page.locator("#count-field svg")
        wait_until(page, "document.querySelector('#count-field image').getBBox().width === 32")
        assert (
            "cell (8, 8) depends on rows 13 to 20 and columns 13 to 20"
            in page.locator("#count-field-about").inner_text()
        )
        image.focus()
        page.keyboard.press("ArrowRight")
        assert (
            "cell (8, 9) depends on rows 13 to 20 and columns 15 to 22"
            in page.locator("#count-field-about").inner_text()
        )
        image.hover(position={"x": 45, "y": 45})
        assert (
            "cell (0, 0) depends on rows -3 to 4 and columns -3 to 4" in page.locator("#count-field-about").inner_text()
        )
        # options, then question 1(c)
        page.locator("#count-option-channels").fill("[8, 16]")
        page.locator("#count-same .command:has-text('model.channels=[8, 16]')").wait_for()
        page.locator("#count-k").focus()
        page.keyboard.press("ArrowRight")
        page.locator("#count-course:has-text('10·5 = 50')").wait_for()
        assert "2,000 times the parameters" in page.locator("#count-ratio").inner_text()
        assert axe_faults(page) == []
        # a long network: blocks that open and close by Enter, and all of it in the address
        page.locator("#count-net").fill("timm/resnet18")
        page.locator("#count-title:has-text('timm/resnet18')").wait_for()
        stage = page.locator("#count-drawing .stage-box").first
        closed = page.locator("#count-drawing .box").count()
        stage.focus()
        page.keyboard.press("Enter")
        opened = page.locator("#count-drawing .box").count()
        assert opened > closed
        wait_until(page, "location.search.includes('count.open') && location.search.includes('count.layer')")
        name = page.locator("#count-layer-name").inner_text()
        page.goto(page.url)
        page.locator("#count-title:has-text('timm/resnet18')").wait_for()
        assert page.locator("#count-drawing .box").count() == opened
        assert page.locator("#count-layer-name").inner_text().startswith(name.rpartition(".")[0])
        page.set_viewport_size({"width": 390, "height": 800})
        assert not is_too_wide(page)


@pytest.mark.slow
def test_the_line_of_an_error_stays_in_sight_where_the_page_is_scrolled(tmp_path: Path) -> None:
    with (
        served_app(tmp_path / "runs") as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=count") as page,
    ):
        page.set_viewport_size({"width": 900, "height": 300})
        page.locator("#count-option-channels").fill("[8, ")
        page.wait_for_selector("#panel-count > .error:not([hidden])")
        page.evaluate("window.scrollTo(0, 400)")
        assert page.evaluate("window.scrollY") > 200
        box = page.locator("#panel-count > .error").bounding_box()
        assert box is not None
        assert 0 <= box["y"] < 100


@pytest.mark.slow
def test_nothing_of_the_last_network_stays_beside_the_error_of_another(tmp_path: Path) -> None:
    with (
        served_app(tmp_path / "runs") as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=count") as page,
    ):
        page.locator("#count-totals:has-text('24,346 parameters')").wait_for()
        page.locator("#count-option-channels").fill("[8, ")
        page.wait_for_selector("#panel-count > .error:not([hidden])")
        wait_until(page, "document.getElementById('count-totals').textContent === ''")
        assert page.locator("#count-drawing .box, #count-table tbody tr, #count-layer dt").count() == 0
        page.locator("#count-option-channels").fill("[8, 16]")
        page.locator("#count-table tbody tr").first.wait_for()
        page.locator("#count-n").fill("4")
        page.locator("#count-k").fill("31")
        wait_until(page, "document.getElementById('count-ratio').textContent === ''")
        assert page.locator("#count-course tbody tr").count() == 0


@pytest.mark.slow
def test_a_row_of_boxes_that_is_a_little_too_long_fits_also_after_the_window_has_become_narrower(
    tmp_path: Path,
) -> None:
    with (
        served_app(tmp_path / "runs") as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=count", 1600) as page,
    ):
        page.locator("#count-drawing .box").last.wait_for()
        first = page.locator("#count-drawing .front").first
        wide = first.evaluate("box => box.getBBox().width")
        page.set_viewport_size({"width": 1280, "height": 800})
        wait_until(page, f"document.querySelector('#count-drawing .front').getBBox().width < {wide}")
        wait_until(page, "(place => place.scrollWidth <= place.clientWidth)(document.getElementById('count-drawing'))")


@pytest.mark.long
@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("look", ["", "&theme=dark", "&projector=1", "&theme=dark&projector=1"])
@pytest.mark.parametrize("net", ["simple_convnet", "timm/resnet50", "timm/swin_tiny_patch4_window7_224"])
def test_every_look_of_every_kind_of_network_fits_and_can_be_read(
    tmp_path: Path, width: int, look: str, net: str
) -> None:
    with (
        served_app(tmp_path / "runs") as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=count&count.net={net}{look}", width) as page,
    ):
        page.locator(f"#count-title:has-text('{net}')").wait_for(timeout=120_000)
        assert axe_faults(page) == []
        assert not is_too_wide(page)
