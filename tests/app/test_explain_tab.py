"""The tab Explain."""

import base64
import io
import json
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.page import client_of
from support.page_browser import axe_faults, chromium, is_too_wide, open_address, page_in, served_app
from support.same_as import require_command, run_python

import convolab
from convolab.app.choices import EXPLAIN_METHODS
from convolab.app.folders import RunsFolder
from convolab.app.jobs import Jobs
from convolab.app.networks import MAX_LOADED, LoadedNetworks
from convolab.app.server import AppState

SMALL = "run:small"
pytestmark = pytest.mark.slow


def unpack(packed: dict[str, object]) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(str(packed["data"])), "<f4")
    return values.reshape(packed["rows"], packed["columns"])


def png(size: tuple[int, int] = (12, 12)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, "PNG")
    return file.getvalue()


def test_a_map_is_the_librarys_number_by_number(looking: TestClient, looked_at: Path) -> None:
    answer = looking.post("/api/explain/map/gradient", json={"image": "coffee", "net": SMALL, "target": "3"}).json()
    finding = convolab.explain("coffee", looked_at / "small", target="3", methods="gradient")
    assert np.array_equal(unpack(answer["map"]), finding.arrays["gradient"].numpy())
    assert answer["target"]["class"] == "3"
    assert answer["input"].startswith("data:image/png;base64,")


def test_the_page_offers_every_method(looking: TestClient) -> None:
    page = looking.get("/").text
    assert [name for name in EXPLAIN_METHODS if f'value="{name}"' not in page] == []


def test_a_class_that_no_network_has_a_missing_image_and_a_path_are_one_line_each(looking: TestClient) -> None:
    wrong = [
        {"target": "goldfish", "net": SMALL},
        {"image": "nothing"},
        {"image": "../../etc/passwd"},
        {"image": "upload:gone"},
        {"image": 5},
        {"net": "run:../small"},
        {"net": "run:none"},
        {"net": "/etc"},
        {"net": "timm/../x"},
        {"net": "file.py:Net"},
    ]
    for values in wrong:
        answer = looking.post("/api/explain/map/gradient", json=values)
        assert answer.status_code == 400, values
        assert "\n" not in answer.json()["error"]
    assert looking.post("/api/explain/field", json={"net": SMALL, "row": "x", "column": "1"}).status_code == 400
    assert looking.post("/api/explain/field", json={"net": SMALL, "row": "99", "column": "1"}).status_code == 400
    assert looking.post("/api/explain/field", json={"net": SMALL}).json()["error"].startswith("give a row")


@pytest.mark.long  # timm takes long to import
def test_a_network_that_timm_does_not_have_is_one_line(looking: TestClient) -> None:
    answer = looking.get("/api/networks/open", params={"net": "timm/no_such_network_at_all"})
    assert answer.status_code == 400
    assert "no_such_network_at_all" in answer.json()["error"]


def test_an_uploaded_image_is_explained_and_is_another_browsers_secret(looking: TestClient) -> None:
    kept = looking.post("/api/uploads?name=a cat.png", content=png()).json()
    name = f"upload:{kept['id']}"
    assert {"value": name, "name": "a cat.png"} in looking.get("/api/images/list").json()["uploads"]
    values = {"image": name, "net": SMALL}
    assert looking.post("/api/explain/map/gradient", json=values).status_code == 200
    assert looking.get("/api/images/show", params={"image": name}).headers["content-type"] == "image/jpeg"
    same = looking.get("/api/explain/same", params={**values, "method": "gradient"}).json()
    assert "'a cat.png'" in same["command"]
    looking.cookies.clear()
    assert "not here any more" in looking.post("/api/explain/map/gradient", json=values).json()["error"]


def test_checks_become_badges_with_an_explanation(looking: TestClient) -> None:
    answer = looking.post("/api/explain/check/gradient", json={"image": "coffee", "net": SMALL}).json()
    assert [badge["name"] for badge in answer["badges"]] == ["random weights", "deletion", "insertion"]
    for badge in answer["badges"]:
        assert badge["verdict"] in ("passes", "fails", "unclear")
        assert badge["text"]
        assert badge["about"]
        assert all(curve["values"] for curve in badge["curves"])


def test_a_click_gives_both_receptive_fields_and_each_patchs_classes(looking: TestClient) -> None:
    layers = looking.get("/api/explain/layers", params={"net": SMALL}).json()["layers"]
    found = looking.post(
        "/api/explain/field", json={"net": SMALL, "row": "4", "column": "2", "layer": layers[0]}
    ).json()
    assert found["layer"] == layers[0]
    assert found["theoretical"]["top"][0]["class"] in "0123456789"
    assert unpack(found["energy"]).shape == (8, 8)


def test_the_same_as_box_is_a_command_and_python_that_runs(looking: TestClient) -> None:
    values = {"net": SMALL, "method": ["gradient", "gradcam"], "target": "3", "row": "4", "column": "2", "check": ""}
    same = looking.get("/api/explain/same", params=values).json()
    assert require_command(same["command"]) == "explain"
    names = run_python(same["python"])
    assert list(names["finding"].metrics["methods"]) == ["gradient", "gradcam"]
    assert names["field"].tool == "receptive_field"


def test_few_networks_stay_loaded_and_one_is_loaded_once_for_all(looked_at: Path) -> None:
    kept = LoadedNetworks()
    loads: list[object] = []
    net = convolab.Run(looked_at / "small").net()

    def load() -> convolab.ImageClassifier:
        loads.append(0)
        time.sleep(0.05)
        return net

    threads = [threading.Thread(target=kept.get, args=("a", load)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(loads) == 1
    for name in range(2 * MAX_LOADED):
        kept.get(name, load)
    assert len(kept.nets) == MAX_LOADED
    assert not kept.loading


def test_a_run_that_was_trained_on_is_loaded_again(looking: TestClient, looked_at: Path) -> None:
    ask = {"net": SMALL}
    before = looking.post("/api/explain/map/gradient", json=ask).json()["top"]
    (looked_at / "small" / "best.safetensors").touch()
    assert looking.post("/api/explain/map/gradient", json=ask).json()["top"] == before


def test_a_run_that_is_tested_again_has_the_caution_of_its_new_test(looked_at: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(looked_at, runs)
    state = AppState(RunsFolder(runs), Jobs(runs, tmp_path / "queue"))
    client = client_of(state)
    before = client.get("/api/networks/open", params={"net": SMALL}).json()["caution"]
    convolab.Run(runs / "small").test()
    path = runs / "small" / "test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "caution": "it is a joke"}))
    assert "it is a joke" not in before
    assert "it is a joke" in client.get("/api/networks/open", params={"net": SMALL}).json()["caution"]
    state.worker.close()


def test_the_runs_that_are_offered_are_the_latest_and_it_says_how_many_are_not(
    looking: TestClient, looked_at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("networks", "counting"):
        monkeypatch.setattr(f"convolab.app.{module}.MAX_LISTED", 1)
    for seconds, name in ((2e9, "small"), (1e9, "other")):
        os.utime(looked_at / name / "summary.json", (seconds, seconds))
    found = looking.get("/api/networks/list").json()
    assert (found["runs"], found["left_out"]) == ([{"value": "run:small", "name": "small"}], 1)
    offered = looking.get("/api/count/offer").json()
    assert (offered["runs"], offered["left_out"]) == (["run/small"], 1)


def test_maps_and_fields_of_the_last_network_do_not_stay_beside_the_error_of_another(looked_at: Path) -> None:
    query = f"?tab=explain&explain.net={SMALL}&explain.methods=gradient&explain.row=4&explain.column=2"
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address + query) as page:
        page.wait_for_selector("#explain-theoretical-top li")
        page.wait_for_selector("#explain-top li")
        page.evaluate("document.querySelector('#explain-net').append(new Option('gone', 'run:gone'))")
        page.select_option("#explain-net", "run:gone")
        page.wait_for_selector("#explain-field", state="hidden")
        page.wait_for_selector("[data-method=gradient].failed")
        assert page.locator("#explain-top li").count() == 0


@pytest.mark.timing
def test_a_person_explains_clicks_a_cell_and_opens_a_check(looked_at: Path) -> None:
    query = f"?tab=explain&explain.net={SMALL}&explain.image=coffee&explain.methods=gradient"
    with served_app(looked_at) as address, chromium() as browser:
        with page_in(browser, address + query) as page:
            page.wait_for_selector("[data-method=gradient] .busy", state="hidden")
            page.fill("#explain-target", "goldfish")
            page.press("#explain-target", "Tab")
            page.wait_for_selector("#panel-explain > .error:has-text('no class')")
            page.fill("#explain-target", "3")
            page.press("#explain-target", "Tab")
            page.wait_for_selector("#explain-top .marked .name:text-is('3')")
            moved = page.evaluate(
                """() => { const slider = document.getElementById("explain-opacity"), began = performance.now();
                slider.value = 100; slider.dispatchEvent(new Event("input", {bubbles: true}));
                return [document.querySelector("#explain-tiles .over").style.opacity, performance.now() - began]; }"""
            )
            assert moved[0] == "1"
            assert moved[1] < 100
            page.focus("#explain-row")  # by keyboard alone
            page.keyboard.type("4")
            page.keyboard.press("Tab")
            page.keyboard.type("2")
            page.wait_for_selector("#explain-theoretical-top li")
            page.click("#explain-check")
            page.click("[data-method=gradient] .of-check >> nth=0 >> summary")
            page.wait_for_selector("[data-method=gradient] .of-check svg")
            page.locator("#explain-same .command", has_text="--check").wait_for()
            assert axe_faults(page) == []
            page.wait_for_timeout(200)
            link = page.url
            assert "explain.target=3" in link
        with page_in(browser, link, width=390, dark=True) as page:  # the link reproduces the view
            page.wait_for_selector("#explain-top .marked .name:text-is('3')")
            page.wait_for_selector("#explain-theoretical-top li")
            assert not is_too_wide(page)
            assert axe_faults(page) == []
            page.set_input_files(
                "#explain-image-field input", {"name": "teal.png", "mimeType": "image/png", "buffer": png()}
            )
            page.wait_for_selector("#explain-image option:checked:has-text('teal.png')", state="attached")
            page.select_option("#explain-net", "")
            page.select_option("#explain-net", SMALL)


@pytest.mark.timing
def test_a_check_that_is_asked_for_while_the_map_is_computed_waits_for_the_map(looked_at: Path) -> None:
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address) as page:
        maps = []
        page.route("**/api/explain/map/gradient", lambda route: maps.append(route))
        open_address(page, f"{address}?tab=explain&explain.net={SMALL}&explain.methods=gradient")
        while not maps:
            page.wait_for_timeout(20)
        page.click("#explain-check")
        page.wait_for_timeout(200)
        maps[0].continue_()
        page.wait_for_selector("[data-method=gradient]:not(.failed) .of-check", state="attached")


GIVE_FILE = """([kind, bytes]) => {
    const file = new File([new Uint8Array(bytes)], `${kind}.png`, {type: "image/png"}), transfer = new DataTransfer();
    transfer.items.add(file);
    const at = document.getElementById("panel-explain");
    if (kind === "drop") at.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
    else document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer}));
}"""


@pytest.mark.slow
@pytest.mark.timing
def test_an_image_is_dropped_pasted_and_taken_by_the_camera(looked_at: Path) -> None:
    chosen = "#explain-image option:checked:has-text('{}')"
    query = f"?tab=explain&explain.net={SMALL}&explain.methods=gradient"
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address + query) as page:
        for kind in ("drop", "paste"):
            page.evaluate(GIVE_FILE, [kind, list(png())])
            page.wait_for_selector(chosen.format(f"{kind}.png"), state="attached")
        page.click("#explain-image-field [data-do=camera]")
        page.wait_for_selector("#explain-image-field [data-do=take]:focus")
        page.keyboard.press("Enter")  # the button that takes the image has the focus
        page.wait_for_selector(chosen.format("camera.png"), state="attached")
        assert page.is_hidden("#explain-image-field .camera")
        page.wait_for_selector("[data-method=gradient] .busy", state="hidden")
