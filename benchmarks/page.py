"""How fast is the page, alone, beside a training, and with twenty visitors; and what does an open page cost a training?

    python benchmarks/page.py [--seconds 60]

starts `convolab app` on an empty folder of runs and asks it as a browser does. Prints how long it takes to be ready; the
time of a gradient map of a sample image; the median answer of one and of twenty visitors, each of whom clicks once in five
seconds, in all tabs, beside one training; how long a cancelled computation goes on; and the speed of a training with the
page open and closed, in rounds that alternate.
"""

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import httpx
from measure import processor, verdict

VISITORS, PAUSE = 20, 5.0  # seconds between two clicks of a visitor
READY_GOAL, MAP_GOAL, CANCEL_GOAL, VISITORS_GOAL, COST_GOAL = 5.0, 1.0, 1.0, 2.0, 0.05
CONVOLAB = [sys.executable, "-m", "convolab"]
TRAINING = ["train", "simple_convnet", "--epochs", "100000"]  # longer than anybody waits; it is ended
CLICKS: list[tuple[str, str, dict[str, str]]] = [
    ("GET", "/api/runs", {}),
    ("POST", "/api/train/check", {"net": "shallow_net", "epochs": "3"}),
    ("GET", "/api/compare/list", {}),
    ("POST", "/api/count", {"net": "simple_convnet"}),
    ("GET", "/api/slide", {"x": "1,2,3,4,0,0", "y": "1,0,-1,0,0,0"}),
    ("POST", "/api/explain/map/gradient", {"image": "chelsea"}),
    ("GET", "/api/networks/list", {}),
    ("GET", "/api/images/show", {"image": "coffee"}),
]


@contextlib.contextmanager
def running(words: list[str], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A command of convolab for as long as the block lasts."""
    process = subprocess.Popen(
        [*CONVOLAB, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


@contextlib.contextmanager
def page(folder: Path) -> Iterator[tuple[str, float]]:
    """The page's address, and how long it took to be ready."""
    started = time.perf_counter()
    with running(["app", "--no-open", "--port", "0"], folder) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[4].rstrip("/"), time.perf_counter() - started


class Visitor:
    """A browser with a session of its own."""

    def __init__(self, address: str) -> None:
        self.client = httpx.Client(base_url=address, headers={"Origin": address}, timeout=120)
        self.client.get("/")

    def click(self, method: str, path: str, values: dict[str, str]) -> float:
        """Ask once; gives the seconds until the whole answer is there."""
        started = time.perf_counter()
        answer = self.client.get(path, params=values) if method == "GET" else self.client.post(path, json=values)
        seconds = time.perf_counter() - started
        answer.raise_for_status()
        assert "error" not in (answer.json() if "json" in answer.headers["content-type"] else {}), answer.text
        return seconds


def visit(address: str, count: int, seconds: float) -> list[float]:
    """The answers' seconds of so many visitors, who begin at different moments."""
    answers: list[float] = []

    def stay(number: int) -> None:
        draw, visitor = random.Random(number), Visitor(address)
        until = time.perf_counter() + seconds
        time.sleep(draw.random() * PAUSE)
        while time.perf_counter() < until:
            taken = visitor.click(*draw.choice(CLICKS))
            answers.append(taken)
            time.sleep(max(0.0, PAUSE - taken))

    threads = [threading.Thread(target=stay, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def seconds_to_cancel(visitor: Visitor) -> float:
    """How long after a cancel the thread that computes is free for the next question."""
    with contextlib.suppress(httpx.ReadTimeout):  # as a browser that does not wait any more
        visitor.client.post("/api/explain/map/occlusion", json={"image": "chelsea"}, timeout=1.0)
    started = time.perf_counter()
    visitor.click("POST", "/api/count", {"net": "shallow_net"})
    return time.perf_counter() - started


def training_speed(folder: Path, name: str) -> float:
    """Images/s of a training of some seconds: the median of its epochs but the first."""
    words = ["train", "simple_convnet", "--epochs", "150", "--threads", "1", "--out", name]  # all with the same number
    subprocess.run([*CONVOLAB, *words], cwd=folder, check=True, capture_output=True)
    lines = (folder / name / "metrics.jsonl").read_text().splitlines()
    return median(json.loads(line)["images_per_second"] for line in lines[1:])


@contextlib.contextmanager
def watched_page(folder: Path) -> Iterator[None]:
    """The page with the tab Train open, which asks how the runs stand every two seconds while one is trained."""
    is_over = threading.Event()
    with page(folder) as (address, _):
        visitor = Visitor(address)

        def poll() -> None:
            while not is_over.wait(2.0):
                visitor.click("GET", "/api/runs", {})

        thread = threading.Thread(target=poll)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


def cost_of_an_open_page(folder: Path, rounds: int) -> float:
    """The share of a training's speed that an open page takes when nobody clicks: the median of alternating pairs."""
    losses = []
    for number in range(rounds):
        speeds: dict[bool, float] = {}
        for is_open in (False, True)[:: -1 if number % 2 else 1]:
            with watched_page(folder) if is_open else contextlib.nullcontext():
                speeds[is_open] = training_speed(folder, f"runs/cost-{number}-{is_open}")
        losses.append(1 - speeds[True] / speeds[False])
    return median(losses)


def report(what: str, value: str, is_met: bool, goal: str) -> None:
    print(f"- {what}: {value} (goal {goal}: {verdict(is_met)})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="that the visitors stay")
    parser.add_argument("--rounds", type=int, default=4, help="pairs of trainings with the page open and closed")
    given = parser.parse_args()
    print(f"{processor()}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with page(folder) as (address, ready):
            report("ready", f"{ready:.1f} s", ready <= READY_GOAL, f"{READY_GOAL:g} s")
            visitor, gradient = Visitor(address), ("POST", "/api/explain/map/gradient", {"image": "chelsea"})
            visitor.click(*gradient)
            taken = median(visitor.click(*gradient) for _ in range(5))
            report("a gradient map, once the network is loaded", f"{taken:.2f} s", taken <= MAP_GOAL, f"{MAP_GOAL:g} s")
            freed = seconds_to_cancel(visitor)
            report("free again after a cancel", f"{freed:.2f} s", freed <= CANCEL_GOAL, f"{CANCEL_GOAL:g} s")
            with running([*TRAINING, "--out", "runs/beside"], folder):
                time.sleep(5.0)
                for method, path, values in CLICKS:  # what is loaded once
                    visitor.click(method, path, values)
                one = visit(address, 1, 2 * given.seconds)
                many = visit(address, VISITORS, given.seconds)
            ratio = median(many) / median(one)
            report(
                f"{VISITORS} visitors beside a training",
                f"median answer {1000 * median(many):.0f} ms, {ratio:.2f} x one visitor's {1000 * median(one):.0f} ms; the slowest "
                f"of {len(many)} took {max(many):.1f} s",
                ratio <= VISITORS_GOAL, f"{VISITORS_GOAL:g} x",
            )  # fmt: skip
        cost = cost_of_an_open_page(folder, given.rounds)
        report("an open page takes of a training's speed", f"{cost:.1%}", cost <= COST_GOAL, f"{COST_GOAL:.0%}")


if __name__ == "__main__":
    main()
