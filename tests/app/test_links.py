"""What opening a link starts: nothing that costs much, and nothing that may be downloaded."""

from pathlib import Path

import pytest
from support.page_browser import chromium, open_address, page_in, served_app

pytestmark = [pytest.mark.slow, pytest.mark.timing]
SMALL = "run:small"
COSTLY = ("/api/fool/climb", "/api/explain/check/", "/start", "/resume", "timm/", "timm%2F")
LINKS = (
    f"tab=fool&fool.net={SMALL}&fool.target=3&fool.max_steps=1000000",
    f"tab=fool&fool.net={SMALL}&fool.target=3&fool.victim=timm/resnet18",
    f"tab=explain&explain.net={SMALL}&explain.methods=gradient&explain.check=1",
    "tab=explain&explain.net=timm/resnet18&explain.row=4&explain.column=4",
    "tab=fool&fool.net=timm/resnet18&fool.target=goldfish",
    "tab=locate&locate.net=timm/resnet18&locate.target=moped",
)


@pytest.mark.parametrize("link", LINKS)
def test_a_link_starts_no_attack_and_no_check_and_loads_nothing_of_timm(looked_at: Path, link: str) -> None:
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address) as page:
        requests: list[str] = []
        page.on("request", lambda sent: requests.append(f"{sent.url} {sent.post_data or ''}"))
        open_address(page, f"{address}?{link}")
        page.wait_for_timeout(1500)
        asked = [request for request in requests if "/api/" in request]
        assert asked
        assert [request for request in asked if any(part in request for part in COSTLY)] == []


def test_a_change_of_an_image_loads_no_network_of_timm_that_waits_for_a_press(looked_at: Path) -> None:
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, address) as page:
        requests: list[str] = []
        page.on("request", lambda sent: requests.append(f"{sent.url} {sent.post_data or ''}"))
        open_address(page, f"{address}?tab=explain&explain.net=timm/resnet18")
        page.locator("#explain-net-about", has_text="press the button below").wait_for()
        page.select_option("#explain-image", "coffee")
        page.wait_for_timeout(1000)
        assert [request for request in requests if "/api/" in request and "timm" in request] == []


def test_the_check_of_a_link_is_made_by_a_press(looked_at: Path) -> None:
    link = f"tab=explain&explain.net={SMALL}&explain.methods=gradient&explain.check=1"
    with served_app(looked_at) as address, chromium() as browser, page_in(browser, f"{address}?{link}") as page:
        page.locator("#explain-same .command", has_text="--check").wait_for()
        page.wait_for_selector("[data-method=gradient] .busy", state="hidden")
        assert page.locator("[data-method=gradient] .of-check").count() == 0
        page.click("#explain-check")
        page.wait_for_selector("[data-method=gradient] .of-check", state="attached")
