"""The page of `convolab app` in a real Chromium, the system's, driven by Playwright."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
TALL = 900  # pixels
PATIENCE = 30_000  # milliseconds: a training starts in seconds
FAKE_CAMERA = [
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # a moving image of Chromium's own
SERIOUS = ("serious", "critical")


@contextmanager
def served_app(runs: Path, data_dir: Path | None = None) -> Iterator[str]:
    """The page's address, served in a thread of this process."""
    import uvicorn

    from convolab.app.folders import RunsFolder
    from convolab.app.jobs import Jobs
    from convolab.app.safety import AllowedHosts
    from convolab.app.server import AppState, build_app, import_torch, open_socket

    import_torch()  # the first request need not wait for it
    listening = open_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]
    state = AppState(RunsFolder(runs), Jobs(runs, runs.parent / "queue"), data_dir=data_dir)
    app = build_app(state, AllowedHosts("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), name="served-app")
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """`convolab app` of the runs in a folder, as a process of its own: its address."""
    command = [sys.executable, "-m", "convolab", "app", "--runs", "runs", "--no-open", "--port", "0", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("the page is at http://"), line + process.stderr.read()
            yield line.split()[4]
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)  # seconds: beside ten busy programs it took 20
        assert errors in ("", "convolab: the page has ended\n"), errors


@contextmanager
def chromium() -> Iterator["Browser"]:
    """The system's Chromium; skips where there is none, or no Playwright."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not executable:
        pytest.skip("no Chromium found: the page is not checked in a browser")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright: the page is not checked in a browser"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox", *QUIET, *FAKE_CAMERA])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_in(browser: "Browser", address: str, width: int = 1400, dark: bool = False) -> Iterator["Page"]:
    """A page at an address, once its tab is ready; at the end nothing may have failed or left this machine."""
    context = browser.new_context(
        viewport={"width": width, "height": TALL}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    page = context.new_page()
    faults: list[str] = []
    origin = "/".join(address.split("/")[:3]) + "/"
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on(
        "console",
        lambda message: (
            faults.append(f"console: {message.text}") if is_bad_message(message.type, message.text) else None
        ),
    )
    page.on(
        "request",
        lambda sent: None if sent.url.startswith((origin, "data:", "blob:")) else faults.append(f"asks {sent.url}"),
    )
    page.set_default_timeout(PATIENCE)
    try:
        open_address(page, address)
        yield page
        assert faults == [], faults
    finally:
        context.close()


def open_address(page: "Page", address: str) -> None:
    """Go to an address and wait until its tab is ready."""
    page.goto(address)
    page.wait_for_selector("[role=tabpanel][data-ready]:not([hidden])")


def wait_until(page: "Page", expression: str, seconds: float = 15.0) -> None:
    """Wait until an expression of JavaScript is true. Playwright's own way evaluates text in the page, which its policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"{expression} is still false after {seconds} s"
        page.wait_for_timeout(20)


def is_bad_message(kind: str, text: str) -> bool:
    """Whether the console says that something is wrong; an answer that refuses what a person typed is none,
    and one to a request in whose place another came."""
    return kind in ("error", "warning") and not any(status in text for status in ("status of 400", "status of 409"))


def axe_faults(page: "Page") -> list[str]:
    """What axe finds serious on the page as it is now: the rule, and where."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {node['target']} {node['failureSummary']}"
        for fault in found
        if fault["impact"] in SERIOUS
        for node in fault["nodes"]
    ]


def is_too_wide(page: "Page") -> bool:
    """Whether the page must be scrolled to the side."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
