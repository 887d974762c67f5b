"""The tab Fool."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from support.page_browser import axe_faults, chromium, is_too_wide, page_in, served_app
from support.same_as import require_command, run_python

import convolab

SMALL = "run:small"
pytestmark = pytest.mark.slow


def other_class(looking: TestClient) -> str:
    """A class that the image is not classified as."""
    top = looking.post("/api/explain/map/gradient", json={"net": SMALL}).json()["top"]
    return top[-1]["class"]


def decode(url: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def test_the_image_that_is_downloaded_is_the_one_that_was_judged(looking: TestClient, looked_at: Path) -> None:
    target = other_class(looking)
    found = looking.post("/api/fool/climb", json={"net": SMALL, "target": target}).json()
    finding = convolab.fool("chelsea", target, looked_at / "small")
    assert found["fooled"]
    assert np.array_equal(decode(found["fooling"])[..., 0], finding.arrays["fooling"][0, 0].numpy())
    assert found["l2"] == pytest.approx(finding.metrics["images"][0]["l2"])
    assert found["file"] == f"fool-chelsea-{target}.png"
    assert len(base64.b64decode(found["fooling"].partition(",")[2])) == found["bytes"]


def test_the_path_has_a_probability_for_each_step(looking: TestClient) -> None:
    found = looking.post(
        "/api/fool/climb", json={"net": SMALL, "target": other_class(looking), "confidence": "0.9"}
    ).json()
    assert len(found["path"]) == found["steps"] + 1
    assert found["path"][-1] > found["path"][0]
    assert looking.get("/api/fool/progress").json() == {"path": []}  # nothing is left of it


def test_each_wrong_setting_is_one_line(looking: TestClient) -> None:
    target = other_class(looking)
    wrong = [
        {"target": ""},
        {"target": "no such class"},
        {"target": "random:3"},  # the page shows one result
        {"budget": "l9=3"},
        {"step_size": "x"},
        {"step_size": "-1"},
        {"step_size": "nan"},
        {"max_steps": "1.5"},
        {"max_steps": "inf"},
        {"confidence": "2"},
        {"objective": "luck"},
        {"victim": ["efficientnet_lite0"]},
        {"victim": [SMALL]},
        {"shortest": "1", "confidence": "0.9"},
    ]
    for values in wrong:
        answer = looking.post("/api/fool/climb", json={"net": SMALL, "target": target, **values})
        assert answer.status_code == 400, values
        assert "\n" not in answer.json()["error"]


def test_the_shortest_change_is_no_longer_than_the_first_success(looking: TestClient) -> None:
    values = {"net": SMALL, "target": other_class(looking)}
    first, shortest = (looking.post("/api/fool/climb", json={**values, "shortest": tick}).json() for tick in ("", "1"))
    assert shortest["fooled"]
    assert shortest["l2"] <= first["l2"]
    assert "--shortest" in looking.get("/api/fool/same", params={**values, "shortest": "1"}).json()["command"]


def test_other_networks_judge_under_their_own_names(looking: TestClient, looked_at: Path) -> None:
    found = looking.post(
        "/api/fool/climb", json={"net": SMALL, "target": other_class(looking), "victim": ["run:other"]}
    ).json()
    assert "error" not in found, found
    assert list(found["networks"]) == [str(looked_at / "other")]


def test_the_same_as_box_is_a_command_and_python_that_runs(looking: TestClient) -> None:
    target = other_class(looking)
    values = {
        "net": SMALL,
        "target": target,
        "budget": "l2=3",
        "step_size": "0.1",
        "max_steps": "20",
        "objective": "margin",
    }
    same = looking.get("/api/fool/same", params=values).json()
    assert require_command(same["command"]) == "fool"
    finding = run_python(same["python"])["finding"]
    assert finding.metrics["objective"] == "margin"
    assert finding.metrics["max_steps"] == 20
    assert finding.metrics["images"][0]["target"]["class"] == target


def test_the_card_of_the_command_is_there_once_there_is_a_command(looked_at: Path) -> None:
    with (
        served_app(looked_at) as address,
        chromium() as browser,
        page_in(browser, f"{address}?tab=fool&fool.net={SMALL}") as page,
    ):
        card = page.locator(".card", has=page.locator("#fool-same"))
        assert not card.is_visible()
        page.fill("#fool-target", "1")
        page.locator("#fool-target").blur()
        card.locator(".command", has_text="convolab fool").wait_for()


@pytest.mark.timing
def test_the_last_climb_does_not_stay_beside_the_error_of_another(looking: TestClient, looked_at: Path) -> None:
    query = f"?tab=fool&fool.net={SMALL}&fool.target={other_class(looking)}"
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address + query) as page:
        page.click("#fool-form button.main")
        page.wait_for_selector("#fool-judged:not([hidden])")
        page.fill("#fool-budget", "l9=3")
        page.click("#fool-form button.main")
        page.wait_for_selector("#panel-fool > .error:not([hidden])")
        assert [page.is_hidden(f"#fool-{name}") for name in ("views", "climb", "judged")] == [True] * 3
        assert page.text_content("#fool-verdict") == ""


@pytest.mark.long
@pytest.mark.timing
def test_a_person_fools_a_network_watches_and_downloads(looked_at: Path) -> None:
    top = convolab.explain("chelsea", looked_at / "small", methods="gradient").metrics["top"]
    target = top[-1]["class"]
    with served_app(looked_at) as address, chromium() as browser:
        with page_in(browser, f"{address}?tab=fool&fool.net={SMALL}") as page:
            page.fill("#fool-target", target)
            page.press("#fool-target", "Enter")  # by keyboard alone
            page.wait_for_selector("#fool-judged:not([hidden])")
            page.locator("#fool-verdict", has_text="Fooled").wait_for()
            before = page.evaluate("document.getElementById('fool-difference').toDataURL()")
            took = page.evaluate(
                """() => { const slider = document.getElementById("fool-gain"), began = performance.now();
                slider.value = 55; slider.dispatchEvent(new Event("input", {bubbles: true})); return performance.now() - began; }"""
            )
            assert took < 100
            assert page.evaluate("document.getElementById('fool-difference').toDataURL()") != before
            with page.expect_download() as download:
                page.click("#fool-download")
            saved = Image.open(io.BytesIO(download.value.path().read_bytes()))
            assert (saved.format, saved.size) == ("PNG", (8, 8))
            assert axe_faults(page) == []
            # a climb that does not end is cancelled
            page.fill("#fool-confidence", "0.9999999999")
            page.fill("#fool-steps", "1000000")
            page.click("#fool-form button.main")
            page.wait_for_selector("#fool-status:has-text('step')")
            page.click("#fool-cancel")
            page.wait_for_selector("#fool-status:has-text('cancelled')", timeout=1500)
            page.fill("#fool-confidence", "")
            page.fill("#fool-steps", "")
            page.wait_for_timeout(200)
            link = page.url
        with page_in(browser, link, width=390, dark=True) as page:
            assert page.input_value("#fool-target") == target
            page.click("#fool-form button.main")  # the link alone starts nothing
            page.wait_for_selector("#fool-judged:not([hidden])")
            assert not is_too_wide(page)
            assert axe_faults(page) == []
