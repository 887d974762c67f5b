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
from convolab.data.catalog import Pictures
from convolab.data.memmap import read_mapped
from convolab.studies.forkserver import fork_server
from convolab.studies.trials import train_trial
from convolab.training.recipe import Recipe
from convolab.training.trainer import Epoch, Fit

TRIES = 2  # how often a trial whose process dies is begun
ENDS = ("finished", "diverged", "stopped", "failed")  # the last news of a job
PATIENCE = 0.5  # seconds between two signs of life of a trial


@dataclass(frozen=True)
class Job:
    """A run to train, or to go on with."""

    recipe: Recipe
    folder: Path
    cost: float = 1.0  # how long it takes, in any unit


@dataclass(frozen=True)
class News:
    """What an engine tells of a job while it works."""

    key: str  # of the recipe
    kind: Literal["started", "under way", "epoch", "finished", "diverged", "stopped", "failed", "tried again"]
    share: float = 0.0  # of its steps done
    rate: float = 0.0  # images/s
    epoch: Epoch | None = None  # the last one done
    reason: str | None = None  # why it diverged, failed or is tried again


Hear = Callable[[News], None]


@runtime_checkable
class Engine(Protocol):
    """Whatever trains jobs: every engine gives the same bits."""

    def run(self, jobs: Sequence[Job], pictures: Path, hear: Hear, stop: Callable[[], bool]) -> None:
        """Train all jobs on the set that lies in `pictures` (see images/mapped), telling of each; end early when `stop()` says so.

        A job that fails is told of and does not stop the others.
        """


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Worker:
    """A process at work on one job."""

    job: Job
    process: Any
    tries: int
    over: bool = False  # it has told how its job ended


@dataclass(frozen=True)
class LocalEngine:
    """A process for each trial, as many side by side as there are cores, the longest first.

    A process that crashes, or that the system ends because memory is short, takes only its own trial with it; the trial is
    tried once more, goes on from its last epoch, and is then given up. When this process dies, its workers do.
    """

    workers: int = field(default_factory=cores)

    def run(self, jobs: Sequence[Job], pictures: Path, hear: Hear, stop: Callable[[], bool]) -> None:
        """See `Engine.run`."""
        context = fork_server()
        waiting = deque((job, 1) for job in sorted(jobs, key=lambda job: -job.cost))
        working: dict[Connection, Worker] = {}
        stopping = False
        while working or (waiting and not stopping):
            while waiting and not stopping and len(working) < self.workers:
                job, tries = waiting.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=work, args=(job, pictures, theirs), daemon=True)
                process.start()
                theirs.close()
                working[ours] = Worker(job, process, tries)
            for connection in wait(list(working), timeout=PATIENCE):
                worker = working[connection]
                with suppress(EOFError):
                    news: News = connection.recv()
                    worker.over = news.kind in ENDS
                    hear(news)
                    continue
                del working[connection]
                connection.close()
                worker.process.join()
                if worker.over:
                    continue
                key, reason = worker.job.recipe.key, f"its process ended {how(worker.process.exitcode)}"
                if stopping and worker.process.exitcode == -signal.SIGTERM:
                    hear(News(key, "stopped"))  # asked to stop before it knew how to hear that
                elif worker.tries < TRIES and not stopping:
                    waiting.append((worker.job, worker.tries + 1))
                    hear(News(key, "tried again", reason=reason))
                else:
                    hear(News(key, "failed", reason=reason))
            if stop() and not stopping:
                stopping = True
                for worker in working.values():
                    worker.process.terminate()  # it ends after its step, saved


def how(code: int | None) -> str:
    """An exit code in words.

    >>> how(-9), how(1)
    ('by signal SIGKILL (the system may have been out of memory)', 'with exit code 1')
    """
    if code is None or code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name
    return f"by signal {name}" + (" (the system may have been out of memory)" if name == "SIGKILL" else "")


def work(job: Job, pictures: Path, connection: Connection) -> None:
    """What a worker's process does: train one job, and tell of it."""
    threading.Thread(target=die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches every process of the terminal; the parent decides
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    report_on(job, partial(read_mapped, pictures), connection.send, asked.is_set)


def report_on(job: Job, read: Callable[[], Pictures], send: Hear, stop: Callable[[], bool]) -> None:
    """Train one job in this process, on the set that `read()` gives, and send news of it, the end last; only a bug is raised."""
    key, spoken = job.recipe.key, 0.0

    def on_step(fit: Fit) -> None:
        nonlocal spoken
        if time.monotonic() - spoken > PATIENCE:
            spoken, progress = time.monotonic(), fit.progress
            share = (progress.epoch + progress.step / fit.steps_per_epoch) / fit.training.epochs
            send(News(key, "under way", share, progress.seen / progress.seconds))

    def on_epoch(epoch: Epoch) -> None:
        send(News(key, "epoch", epoch.epoch / job.recipe.training.epochs, epoch.images_per_second, epoch))

    send(News(key, "started"))
    try:
        end, reason = train_trial(job.recipe, read(), job.folder, on_step=on_step, on_epoch=on_epoch, stop=stop)
    except LabError as error:
        end, reason = "failed", str(error)
    send(News(key, end, reason=reason))


def die_with_parent() -> None:
    """End this process when the one that asked for it is gone: nobody would hear of its work."""
    wait([parent_process().sentinel])
    os._exit(1)
