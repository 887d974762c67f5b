"""Half an hour of clicking by a script: the server's memory stays flat, and nothing is left behind.

`make soak` runs 30 minutes, or CONVOLAB_SOAK_MINUTES; `make long` runs 20 seconds.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.page_browser import chromium, page_in

if TYPE_CHECKING:
    from playwright.sync_api import Page

SECONDS = 60 * float(os.environ.get("CONVOLAB_SOAK_MINUTES", "0")) or 20.0
SETTLED = min(300.0, SECONDS / 2)  # seconds, after which memory must be flat
IS_LONG = SECONDS >= 600  # a run of seconds still warms up
MAX_GROWTH = 1.05 if IS_LONG else 1.5
MAX_MORE = 2 if IS_LONG else 40  # threads of starlette's pool, which come and go; and connections
TABS = ("train", "compare", "explain", "fool", "locate", "count", "slide")


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and threads are read from /proc")
def test_after_long_clicking_memory_is_flat_and_no_thread_or_file_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "convolab", "app", "--runs", "runs", "--no-open", "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    try:
        address = server.stdout.readline().split()[4]
        memory, threads, files = click_for(SECONDS, address, server.pid)
        assert largest_later(memory) <= MAX_GROWTH * largest_early(memory), memory
        assert largest_later(threads) <= largest_early(threads) + MAX_MORE, threads
        assert largest_later(files) <= largest_early(files) + MAX_MORE, files
    finally:
        server.send_signal(signal.SIGINT)
        code = server.wait(timeout=20)
        server.stdout.close()
    assert code == 0
    left = [
        path for path in (tmp_path / "tmp").rglob("*") if path.is_file()
    ]  # torch makes a folder, and leaves it empty
    assert left == []
    assert not (tmp_path / "runs").exists()  # clicking alone makes no run


def largest_early(values: Sequence[float]) -> float:
    return max(values[: (len(values) + 1) // 2])


def largest_later(values: Sequence[float]) -> float:
    return max(values[len(values) // 2 :])


def click_for(seconds: float, address: str, pid: int) -> tuple[list[float], list[int], list[int]]:
    """Megabytes, threads and open files of the server since it has settled, while a script clicks."""
    draw, begin = random.Random(0), time.monotonic()
    memory, threads, files = [], [], []
    with chromium() as browser:
        visits = 0
        while time.monotonic() < begin + seconds:
            tab = TABS[visits % len(TABS)]
            visits += 1
            with page_in(browser, f"{address}?tab={tab}") as page:
                until = min(begin + seconds, time.monotonic() + 6)
                while time.monotonic() < until:
                    click_anything(page, draw)
            if time.monotonic() >= begin + SETTLED:
                memory.append(resident_megabytes(pid))
                threads.append(len(os.listdir(f"/proc/{pid}/task")))
                files.append(len(os.listdir(f"/proc/{pid}/fd")))
    assert len(memory) >= 2, f"{len(memory)} visits since it settled: give it more time"
    return memory, threads, files


def click_anything(page: "Page", draw: random.Random) -> None:
    """Press, choose, slide or type at a control that is seen; never what starts a training."""
    from playwright.sync_api import Error

    controls = page.locator(
        "[role=tabpanel]:not([hidden]) :is(button.plain, select, input[type=range], .sample, .box):visible"
    ).element_handles()
    if not controls:
        page.wait_for_timeout(100)
        return
    control = draw.choice(controls)
    with suppress(Error):  # an answer to an earlier click may replace it meanwhile
        kind = control.evaluate("control => control.tagName.toLowerCase()")
        if kind == "select":
            options = control.query_selector_all("option:not([disabled])")
            control.select_option(index=draw.randrange(max(1, len(options))), timeout=2000)
        elif kind == "button":
            control.click(timeout=2000)
        else:
            control.focus()
            page.keyboard.press(draw.choice(("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown")))
    page.wait_for_timeout(draw.randrange(20, 200))


def resident_megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
