"""The tab Locate."""

import base64
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.page_browser import axe_faults, chromium, is_too_wide, page_in, served_app
from support.same_as import require_command, run_python

import convolab
from convolab.app.worker import ComputeThread

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


def test_the_boxes_of_another_threshold_are_the_librarys_and_end_no_search(
    looking: TestClient, looked_at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = []
    run = ComputeThread.run

    async def record(worker: ComputeThread, session: str, channel: str, function: object) -> object:
        channels.append(channel)
        return await run(worker, session, channel, function)

    monkeypatch.setattr(ComputeThread, "run", record)
    values = {**ASK, "target": ["3"], "threshold": "0.8"}
    looking.post("/api/locate/find", json=values)
    judged = looking.post("/api/locate/judge", json=values).json()["classes"]
    finding = convolab.locate(
        "coffee", looked_at / "small", targets="3", scales="64px", alignment="resize", threshold=0.8
    )
    assert judged == [{"label": "3", "detections": finding.metrics["classes"]["3"]["detections"]}]
    assert len(set(channels)) == 2  # the next one of a channel takes the place of the one before


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


@pytest.mark.timing
def test_no_column_of_the_boxes_is_out_of_sight_on_a_wide_screen(looked_at: Path) -> None:
    query = (
        f"?tab=locate&locate.net={SMALL}&locate.image=coffee&locate.scale=64px&locate.alignment=resize&locate.target=3"
    )
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address + query, width=1300) as page:
        page.wait_for_selector("#locate-table:not([hidden]):not(:has-text('…'))")
        assert page.evaluate(
            "(box => box.scrollWidth <= box.clientWidth)(document.querySelector('.scroll:has(#locate-table)'))"
        )


@pytest.mark.timing
def test_boxes_of_the_last_search_do_not_stay_beside_the_error_of_another(looked_at: Path) -> None:
    query = f"?tab=locate&locate.net={SMALL}&locate.image=coffee&locate.scale=64px&locate.alignment=resize"
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address + query) as page:
        page.wait_for_selector("#locate-stack:not([hidden])")
        page.fill("#locate-scale", "nothing")
        page.wait_for_selector("#locate-stack", state="hidden")
        assert page.is_hidden("#locate-table")
        page.fill("#locate-scale", "64px")
        page.wait_for_selector("#locate-stack:not([hidden])")
        page.evaluate("document.querySelector('#locate-net').append(new Option('gone', 'run:gone'))")
        page.select_option("#locate-net", "run:gone")
        page.wait_for_selector("#locate-stack", state="hidden")


@pytest.mark.timing
def test_a_threshold_moved_during_a_search_asks_about_the_image_that_is_shown(looked_at: Path) -> None:
    query = (
        f"?tab=locate&locate.net={SMALL}&locate.image=coffee&locate.scale=64px&locate.alignment=resize&locate.target=3"
    )
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address + query) as page:
        page.wait_for_selector("[data-class='3']")
        searches = []
        page.route("**/api/locate/find", lambda route: searches.append(route))
        page.select_option("#locate-image", "rocket")
        while not searches:
            page.wait_for_timeout(20)
        with page.expect_response("**/api/locate/judge") as judged:
            page.evaluate(
                """() => { const slider = document.getElementById("locate-threshold");
                slider.value = 80; slider.dispatchEvent(new Event("input", {bubbles: true})); }"""
            )
        assert judged.value.request.post_data_json["image"] == "coffee"
        page.wait_for_selector("#locate-table:not(:has-text('…'))")
        searches[0].continue_()
        page.wait_for_selector("#locate-canvas[aria-label^='rocket']")  # the search went on to its end
        page.wait_for_selector("#locate-table:not(:has-text('…'))")
