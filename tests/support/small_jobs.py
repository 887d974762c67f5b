"""Jobs that train in a moment; and, as a program, an engine at work on them that a test may kill.

    python small_jobs.py ENGINE SET RUNS COUNT EPOCHS

prints a line of JSON for all that the engine tells, with the processes of its workers.
"""

import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from convolab.data.catalog import load
from convolab.data.memmap import write_memmap
from convolab.studies.executor import Executor, Job, JobEvent, LocalExecutor
from convolab.training.recipe import Recipe

BASE = {
    "data": {"limit": 200},
    "model": {"name": "shallow_net", "hidden": 16},
    "optimizer": {"lr": 0.1},
    "training": {"epochs": 3, "batch_size": 32},
}
TINIEST = {
    "data": {"limit": 40, "validation": 0.2},
    "model": {"name": "shallow_net", "hidden": 2},
    "training": {"epochs": 1, "batch_size": 16},
}
PROC = Path("/proc/self/stat").exists()
NEVER: Callable[[], bool] = lambda: False  # noqa: E731


def jobs(runs: Path, count: int, changes: dict[str, Any] | None = None, base: dict[str, Any] = BASE) -> list[Job]:
    """A job for each of `count` seeds, its run in `runs`, the first the longest."""
    recipes = [
        Recipe.from_dict(base).with_overrides({**(changes or {}), "training.seed": seed}) for seed in range(count)
    ]
    return [Job(recipe, runs / recipe.key, cost=float(count - seed)) for seed, recipe in enumerate(recipes)]


def digits_in(folder: Path) -> Path:
    write_memmap(load("digits"), folder)
    return folder


def told(
    engine: Executor, todo: list[Job], pictures: Path, stop: Callable[[], bool] = NEVER, hear: Any = None
) -> list[JobEvent]:
    """All that an engine tells of some jobs; `hear` hears it too, at once."""
    news: list[JobEvent] = []

    def listen(word: JobEvent) -> None:
        news.append(word)
        if hear:
            hear(word)

    engine.run(todo, pictures, listen, stop)
    return news


def kinds(news: list[JobEvent]) -> Counter[str]:
    return Counter(word.kind for word in news)


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """All processes that descend from one; none where the system does not tell."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found = list(children.get(pid, []))
    for one in found:
        found += children.get(one, [])
    return found


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def never_listen(*_: Any) -> None:
    """What a worker is like that has not come to its first line yet."""
    time.sleep(600)


def main() -> None:
    name, pictures, runs, count, epochs = sys.argv[1:]
    if name == "local":
        engine: Executor = LocalExecutor(2)
    else:
        from convolab.studies.ray_executor import RayExecutor

        engine = RayExecutor(None if name == "ray" else name, 2)

    def hear(news: JobEvent) -> None:
        pids = [child.pid for child in multiprocessing.active_children()]
        print(
            json.dumps({"key": news.key, "kind": news.kind, "reason": news.reason, "pids": pids, "pid": os.getpid()}),
            flush=True,
        )

    engine.run(jobs(Path(runs), int(count), {"training.epochs": int(epochs)}), Path(pictures), hear, NEVER)


if __name__ == "__main__":
    main()
