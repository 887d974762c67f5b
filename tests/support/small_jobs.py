"""Jobs that train in a moment. Run as a script: an executor that trains them, for tests that kill it.

    python small_jobs.py EXECUTOR DATASET_FOLDER RUNS_FOLDER COUNT EPOCHS

prints a line of JSON for each event of the executor, with the processes of its workers. EXECUTOR is `local`, `ray` or
the address of a Ray cluster.
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
from convolab.studies.executor import EventCallback, Executor, Job, JobEvent, LocalExecutor
from convolab.training.recipe import Recipe

BASE_RECIPE = {
    "data": {"limit": 200},
    "model": {"name": "shallow_net", "hidden": 16},
    "optimizer": {"lr": 0.1},
    "training": {"epochs": 3, "batch_size": 32},
}
TINY_RECIPE = {
    "data": {"limit": 40, "validation": 0.2},
    "model": {"name": "shallow_net", "hidden": 2},
    "training": {"epochs": 1, "batch_size": 16},
}
HAS_PROC = Path("/proc/self/stat").exists()
NEVER: Callable[[], bool] = lambda: False  # noqa: E731


def make_jobs(
    runs: Path, count: int, overrides: dict[str, Any] | None = None, base: dict[str, Any] = BASE_RECIPE
) -> list[Job]:
    """A job for each of `count` seeds, its run in `runs`, the first the longest."""
    recipes = [
        Recipe.from_dict(base).with_overrides({**(overrides or {}), "training.seed": seed}) for seed in range(count)
    ]
    return [Job(recipe, runs / recipe.key, cost=float(count - seed)) for seed, recipe in enumerate(recipes)]


def write_digits(folder: Path) -> Path:
    write_memmap(load("digits"), folder)
    return folder


def run_jobs(
    executor: Executor,
    jobs: list[Job],
    dataset_folder: Path,
    stop: Callable[[], bool] = NEVER,
    on_event: EventCallback | None = None,
) -> list[JobEvent]:
    """Have an executor train jobs; return all its events. `on_event` is called with each of them at once."""
    events: list[JobEvent] = []

    def record(event: JobEvent) -> None:
        events.append(event)
        if on_event:
            on_event(event)

    executor.run(jobs, dataset_folder, record, stop)
    return events


def count_kinds(events: list[JobEvent]) -> Counter[str]:
    return Counter(event.kind for event in events)


def is_alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(pid: int) -> list[int]:
    """The ids of all processes that a process started, directly or not; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until a condition is true; whether it is within so many seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def sleep_before_work(*_: Any) -> None:
    """In place of a worker's first function: a worker that has not yet come to it."""
    time.sleep(600)


def main() -> None:
    name, dataset_folder, runs, count, epochs = sys.argv[1:]
    if name == "local":
        executor: Executor = LocalExecutor(2)
    else:
        from convolab.studies.ray_executor import RayExecutor

        executor = RayExecutor(None if name == "ray" else name, 2)

    def print_event(event: JobEvent) -> None:
        pids = [child.pid for child in multiprocessing.active_children()]
        print(
            json.dumps(
                {"key": event.key, "kind": event.kind, "reason": event.reason, "pids": pids, "pid": os.getpid()}
            ),
            flush=True,
        )

    jobs = make_jobs(Path(runs), int(count), {"training.epochs": int(epochs)})
    executor.run(jobs, Path(dataset_folder), print_event, NEVER)


if __name__ == "__main__":
    main()
