"""Pages in headless Chromium."""

import shutil
import subprocess
from pathlib import Path

import pytest


def render_in_browser(page: Path, profile: Path, *options: str, query: str = "") -> subprocess.CompletedProcess[str]:
    """Render the page, with what stands behind its address, in headless Chromium: the resulting page on stdout, messages of the console on stderr."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        pytest.skip("no Chromium found: the page's charts are not checked in a browser")
    quiet_options = (
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    )
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        *quiet_options,
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        *options,
        page.as_uri() + query,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
