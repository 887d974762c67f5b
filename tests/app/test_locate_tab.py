"""The tab Locate."""

import base64
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.page_browser import axe_faults, chromium, is_too_wide, page_in, served_app
from support.same_as import require_command, run_python

import convolab

SMALL = "run:small"
ASK = {"net": SMALL, "image": "coffee", "scale": "64px", "alignment": "resize"}
pytestmark = pytest.mark.slow


def test_the_responses_and_boxes_are_the_librarys(looking: TestClient, looked_at: Path) -> None:
    found = looking.post("/api/locate/find", json={**ASK, "target": ["3", "5"]}).json()
    finding = convolab.locate("coffee", looked_at / "small", targets=["3", "5"], scales="64px", alignment="resize")
    assert [one["label"] for one in found["classes"]] == ["3", "5"]
    for one in found["classes"]:
        packed = one["responses"][0]
        response = np.frombuffer(base64.b64decode(packed["data"]), "<f4").reshape(packed["rows"], packed["columns"])
        assert np.array_equal(response, finding.arrays[f"response {one['label']} at 64px"].numpy())
        assert one["detections"] == finding.metrics["classes"][one["label"]]["detections"]


def test_each_wrong_setting_is_one_line(looking: TestClient) -> None:
    wrong = [
        {"target": ["goldfish"]},
        {"target": list("0123456")},
        {"scale": "huge"},
        {"scale": "100000px"},
        {"threshold": "x"},
        {"threshold": "2"},
        {"threshold": "nan"},
        {"alignment": "luck"},
        {"granularity": "luck"},
        {"image": "upload:gone"},
    ]
    for values in wrong:
        answer = looking.post("/api/locate/find", json={**ASK, **values})
        assert answer.status_code == 400, values
        assert "\n" not in answer.json()["error"]


def test_three_placements_put_the_same_response_on_the_image(looking: TestClient) -> None:
    placements = looking.post("/api/locate/placements", json={**ASK, "target": ["3"]}).json()
    assert list(placements) == ["erf", "rf-center", "resize"]
    assert all(
        placed["scales"]["64px"]["cells"] == placements["erf"]["scales"]["64px"]["cells"]
        for placed in placements.values()
    )


def test_the_same_as_box_is_a_command_and_python_that_runs(looking: TestClient) -> None:
    same = looking.get("/api/locate/same", params={**ASK, "target": ["3", "5"], "threshold": "0.4"}).json()
    assert require_command(same["command"]) == "locate"
    finding = run_python(same["python"])["finding"]
    assert list(finding.metrics["classes"]) == ["3", "5"]
    assert finding.metrics["threshold"] == 0.4


@pytest.mark.long
@pytest.mark.timing
def test_a_person_finds_a_class_and_moves_the_threshold(looked_at: Path) -> None:
    query = f"?tab=locate&locate.net={SMALL}&locate.image=coffee&locate.scale=64px&locate.alignment=resize"
    expected = convolab.locate(
        "coffee", looked_at / "small", targets="3", scales="64px", alignment="resize", threshold=0.8
    ).metrics["classes"]["3"]["detections"][0]["box"]
    with served_app(looked_at) as address, chromium() as browser:
        with page_in(browser, address + query) as page:
            page.wait_for_selector("#locate-stack:not([hidden])")
            page.fill("#locate-target", "3")
            page.press("#locate-target", "Enter")  # by keyboard alone
            page.wait_for_selector("[data-class='3']")
            took = page.evaluate(
                """() => { const slider = document.getElementById("locate-threshold"), began = performance.now();
                slider.value = 80; slider.dispatchEvent(new Event("input", {bubbles: true})); return performance.now() - began; }"""
            )
            shown = page.inner_text("[data-class='3'] .box").replace(" to ", ", ").split(", ")
            assert [int(at) for at in shown] == pytest.approx(expected, abs=3)  # the browser's box is the library's
            assert took < 100
            page.wait_for_selector("#locate-table:not(:has-text('…'))")
            page.click("#locate-compare")
            page.wait_for_selector("[data-placement=resize]")
            assert axe_faults(page) == []
            page.locator("#locate-same .command", has_text="--threshold 0.8").wait_for()
            link = page.url
        with page_in(browser, link, width=390, dark=True) as page:
            page.wait_for_selector("[data-class='3']")
            assert page.input_value("#locate-threshold") == "80"
            assert not is_too_wide(page)
            assert axe_faults(page) == []
