"""Engines train the runs of a study: this one on the cores of this machine."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from convolab.core.errors import LabError
from convolab.data.memmap import read_memmap
from convolab.data.splits import DatasetSplits
from convolab.studies.forkserver import forkserver_context
from convolab.studies.trials import train_trial
from convolab.training.recipe import Recipe
from convolab.training.trainer import EpochMetrics, Trainer

MAX_ATTEMPTS = 2  # how often a trial whose process dies is begun
TERMINAL_EVENTS = ("finished", "diverged", "stopped", "failed")  # the last news of a job
HEARTBEAT_INTERVAL = 0.5  # seconds between two signs of life of a trial


@dataclass(frozen=True)
class Job:
    """A run to train, or to go on with."""

    recipe: Recipe
    folder: Path
    cost: float = 1.0  # how long it takes, in any unit


@dataclass(frozen=True)
class JobEvent:
    """What an engine tells of a job while it works."""

    key: str  # of the recipe
    kind: Literal["started", "under way", "epoch", "finished", "diverged", "stopped", "failed", "tried again"]
    fraction_done: float = 0.0  # of its steps done
    images_per_second: float = 0.0  # images/s
    epoch: EpochMetrics | None = None  # the last one done
    reason: str | None = None  # why it diverged, failed or is tried again


EventCallback = Callable[[JobEvent], None]


@runtime_checkable
class Executor(Protocol):
    """Whatever trains jobs: every engine gives the same bits."""

    def run(self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, stop: Callable[[], bool]) -> None:
        """Train all jobs on the set that lies in `pictures` (see images/mapped), telling of each; end early when `stop()` says so.

        A job that fails is told of and does not stop the others.
        """


def count_usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class WorkerProcess:
    """A process at work on one job."""

    job: Job
    process: Any
    attempts: int
    finished: bool = False  # it has told how its job ended


@dataclass(frozen=True)
class LocalExecutor:
    """A process for each trial, as many side by side as there are cores, the longest first.

    A process that crashes, or that the system ends because memory is short, takes only its own trial with it; the trial is
    tried once more, goes on from its last epoch, and is then given up. When this process dies, its workers do.
    """

    workers: int = field(default_factory=count_usable_cores)

    def run(self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, stop: Callable[[], bool]) -> None:
        """See `Engine.run`."""
        context = forkserver_context()
        pending = deque((job, 1) for job in sorted(jobs, key=lambda job: -job.cost))
        running: dict[Connection, WorkerProcess] = {}
        stopping = False
        while running or (pending and not stopping):
            while pending and not stopping and len(running) < self.workers:
                job, attempts = pending.popleft()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=run_worker, args=(job, dataset_folder, sender), daemon=True)
                process.start()
                sender.close()
                running[receiver] = WorkerProcess(job, process, attempts)
            for connection in wait(list(running), timeout=HEARTBEAT_INTERVAL):
                worker = running[connection]
                with suppress(EOFError):
                    event: JobEvent = connection.recv()
                    worker.finished = event.kind in TERMINAL_EVENTS
                    on_event(event)
                    continue
                del running[connection]
                connection.close()
                worker.process.join()
                if worker.finished:
                    continue
                key, reason = worker.job.recipe.key, f"its process ended {describe_exit_code(worker.process.exitcode)}"
                if stopping and worker.process.exitcode == -signal.SIGTERM:
                    on_event(JobEvent(key, "stopped"))  # asked to stop before it knew how to hear that
                elif worker.attempts < MAX_ATTEMPTS and not stopping:
                    pending.append((worker.job, worker.attempts + 1))
                    on_event(JobEvent(key, "tried again", reason=reason))
                else:
                    on_event(JobEvent(key, "failed", reason=reason))
            if stop() and not stopping:
                stopping = True
                for worker in running.values():
                    worker.process.terminate()  # it ends after its step, saved


def describe_exit_code(code: int | None) -> str:
    """An exit code in words.

    >>> how(-9), how(1)
    ('by signal SIGKILL (the system may have been out of memory)', 'with exit code 1')
    """
    if code is None or code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name
    return f"by signal {name}" + (" (the system may have been out of memory)" if name == "SIGKILL" else "")


def run_worker(job: Job, dataset_folder: Path, connection: Connection) -> None:
    """What a worker's process does: train one job, and tell of it."""
    threading.Thread(target=die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches every process of the terminal; the parent decides
    stop_requested = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop_requested.set())
    run_job(job, partial(read_memmap, dataset_folder), connection.send, stop_requested.is_set)


def run_job(
    job: Job, load_splits: Callable[[], DatasetSplits], on_event: EventCallback, stop: Callable[[], bool]
) -> None:
    """Train one job in this process, on the set that `read()` gives, and send news of it, the end last; only a bug is raised."""
    key, last_reported = job.recipe.key, 0.0

    def on_step(trainer: Trainer) -> None:
        nonlocal last_reported
        if time.monotonic() - last_reported > HEARTBEAT_INTERVAL:
            last_reported, progress = time.monotonic(), trainer.progress
            fraction_done = (progress.epoch + progress.step / trainer.steps_per_epoch) / trainer.training.epochs
            on_event(JobEvent(key, "under way", fraction_done, progress.num_images / progress.seconds))

    def on_epoch(epoch: EpochMetrics) -> None:
        on_event(JobEvent(key, "epoch", epoch.epoch / job.recipe.training.epochs, epoch.images_per_second, epoch))

    on_event(JobEvent(key, "started"))
    try:
        status, reason = train_trial(
            job.recipe, load_splits(), job.folder, on_step=on_step, on_epoch=on_epoch, stop=stop
        )
    except LabError as error:
        status, reason = "failed", str(error)
    on_event(JobEvent(key, status, reason=reason))


def die_with_parent() -> None:
    """End this process when the one that asked for it is gone: nobody would hear of its work."""
    wait([parent_process().sentinel])
    os._exit(1)
