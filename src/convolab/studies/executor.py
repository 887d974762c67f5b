"""Executors train the runs of a study; the one here uses the cores of this machine."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

from convolab.core.environment import count_usable_cores, tune_malloc
from convolab.core.errors import LabError, require
from convolab.core.limits import VARIABLE, lift_limits
from convolab.core.text import pluralize
from convolab.core.trust import trust_here, trusted_here
from convolab.data.memmap import read_memmap
from convolab.data.splits import DatasetSplits
from convolab.studies.forkserver import without_current_folder, worker_context
from convolab.studies.trials import train_trial
from convolab.training.callbacks import Callbacks
from convolab.training.history import EpochMetrics
from convolab.training.recipe import Recipe
from convolab.training.trainer import Trainer

MAX_ATTEMPTS = 2  # how often a trial is started whose process dies
MAX_WORKERS_PER_CORE = 4  # each is a process with torch in it
HEARTBEAT_INTERVAL = 0.5  # seconds between two progress events of a trial

EventKind = Literal["started", "progress", "epoch", "retrying", "finished", "paused", "diverged", "stopped", "failed"]
TERMINAL_EVENTS: tuple[EventKind, ...] = ("finished", "paused", "diverged", "stopped", "failed")  # a job's last event


@dataclass(frozen=True)
class Job:
    """A run to train, or to resume."""

    recipe: Recipe
    folder: Path
    cost: float = 1.0  # how long it takes, in any unit
    pause_after: int | None = None  # epochs of the run, after which it is stopped, ready to be resumed
    log: str | None = None  # where its epochs go too, see `Run.start`
    device: str = "cpu"  # "cpu", "cuda" or "mps"; a run that is resumed stays on its own


@dataclass(frozen=True)
class JobEvent:
    """What an executor reports of a job while it works."""

    key: str  # of the recipe
    kind: EventKind
    fraction_done: float = 0.0  # of the job's steps, and of those of the run before it
    images_per_second: float = 0.0
    epoch: EpochMetrics | None = None  # the last one completed
    reason: str | None = None  # why it diverged, failed or is retried


EventCallback = Callable[[JobEvent], None]


@runtime_checkable
class Executor(Protocol):
    """Trains jobs. Every executor gives the same bits."""

    def run(
        self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, should_stop: Callable[[], bool]
    ) -> None:
        """Train all jobs, or fewer when `should_stop()` becomes true.

        Args:
            jobs: what to train; a job that fails is reported and does not stop the others.
            dataset_folder: where `data.memmap.write_memmap` wrote the images.
            on_event: called with each event, in this process.
            should_stop: asked every half second; running jobs then end after their step, saved.
        """


@dataclass
class WorkerProcess:
    """A process at work on one job."""

    job: Job
    process: BaseProcess
    attempts: int
    finished: bool = False  # it has reported how its job ended


@dataclass(frozen=True)
class LocalExecutor:
    """One process per trial, as many in parallel as there are cores, the longest trials first.

    A process that crashes, or that the system ends because memory is short, takes only its own trial with it. The trial
    is retried once, from its last epoch, and then given up. When this process dies, its workers do too.

    Args:
        workers: trials in parallel; on a graphics card too, which one small network leaves idle most of the time.
        device: "cpu", "cuda" or "mps", of the runs that are not begun yet; others stay on theirs.
    """

    workers: int = field(default_factory=count_usable_cores)
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Raise LabError for more processes than this machine can use."""
        most = MAX_WORKERS_PER_CORE * (cores := count_usable_cores())
        require(
            1 <= self.workers <= most,
            f"{self.workers} workers: this machine has {pluralize(cores, 'core')}, and a study takes at most "
            f"{MAX_WORKERS_PER_CORE} workers for each: give 1 to {most}",
        )

    def run(
        self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, should_stop: Callable[[], bool]
    ) -> None:
        """See `Executor.run`."""
        longest_first = sorted(jobs, key=lambda job: -job.cost)
        pending = deque((replace(job, device=self.device), 1) for job in longest_first)
        stopping = False
        with worker_processes() as running:
            while running or (pending and not stopping):
                while pending and not stopping and len(running) < self.workers:
                    job, attempts = pending.popleft()
                    receiver, process = start_worker(job, dataset_folder)
                    running[receiver] = WorkerProcess(job, process, attempts)
                ready = connection.wait(list(running), timeout=HEARTBEAT_INTERVAL)
                for receiver in cast("list[Connection]", ready):  # on Windows a class of another name
                    worker = running[receiver]
                    with suppress(EOFError):
                        event: JobEvent = receiver.recv()
                        worker.finished = event.kind in TERMINAL_EVENTS
                        on_event(event)
                        continue
                    del running[receiver]
                    receiver.close()
                    worker.process.join()
                    if worker.finished:
                        continue
                    key = worker.job.recipe.key
                    reason = f"its process ended {describe_exit_code(worker.process.exitcode)}"
                    if stopping and worker.process.exitcode == -signal.SIGTERM:
                        on_event(JobEvent(key, "stopped"))  # asked to stop before it had its signal handler
                    elif worker.attempts < MAX_ATTEMPTS and not stopping:
                        pending.append((worker.job, worker.attempts + 1))
                        on_event(JobEvent(key, "retrying", reason=reason))
                    else:
                        on_event(JobEvent(key, "failed", reason=reason))
                if should_stop() and not stopping:
                    stopping = True
                    for worker in running.values():
                        worker.process.terminate()  # it ends after its step, saved


@contextmanager
def worker_processes() -> Iterator[dict[Connection, WorkerProcess]]:
    """The workers at any moment. Those that an error leaves at the end of the block end after their step, saved."""
    running: dict[Connection, WorkerProcess] = {}
    try:
        yield running
    finally:
        for worker in running.values():
            worker.process.terminate()
        for receiver, worker in running.items():
            with suppress(EOFError, OSError):
                while True:
                    receiver.recv()  # else one that still reports might wait for ever
            worker.process.join()
            receiver.close()


def start_worker(job: Job, dataset_folder: Path) -> tuple[Connection, BaseProcess]:
    """Start a process that trains a job: where its events arrive, and the process."""
    context = worker_context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_worker, args=(job, dataset_folder, sender, trusted_here()), daemon=True)
    with without_current_folder():  # for where each worker is a new interpreter
        process.start()
    sender.close()
    return receiver, process


def describe_exit_code(code: int | None) -> str:
    """An exit code in words.

    >>> describe_exit_code(-9), describe_exit_code(1)
    ('by signal SIGKILL (the system may have run out of memory)', 'with exit code 1')
    """
    if code is None or code >= 0:
        return f"with exit code {code}"
    name = signal.Signals(-code).name
    return f"by signal {name}" + (" (the system may have run out of memory)" if name == "SIGKILL" else "")


def run_worker(job: Job, dataset_folder: Path, sender: Connection, trusted: frozenset[str]) -> None:
    """The worker's side: train one job and report on it. Code that is `trusted` by its SHA-256 may run."""
    trust_here(trusted)
    lift_limits(os.environ.get(VARIABLE, ""))
    threading.Thread(target=die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches every process of the terminal; the parent decides
    stop_requested = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop_requested.set())
    tune_malloc()
    run_job(job, partial(read_memmap, dataset_folder), sender.send, stop_requested.is_set)


class JobCallbacks(Callbacks):
    """Reports the progress of one job as events."""

    def __init__(self, job: Job, on_event: EventCallback, should_stop: Callable[[], bool]) -> None:
        self.job = job
        self.on_event = on_event
        self.stop_requested = should_stop
        self.epochs_to_do = job.pause_after or job.recipe.training.epochs
        self.epochs_done = 0
        self.last_reported = 0.0  # by the monotonic clock

    @property
    def is_paused(self) -> bool:
        """Whether the run has the epochs after which the job pauses it."""
        return self.job.pause_after is not None and self.epochs_done >= self.job.pause_after

    def should_stop(self) -> bool:
        return self.is_paused or self.stop_requested()

    def on_step(self, trainer: Trainer) -> None:
        self.epochs_done = trainer.progress.epoch
        if time.monotonic() - self.last_reported > HEARTBEAT_INTERVAL:
            self.last_reported = time.monotonic()
            progress = trainer.progress
            fraction_done = (progress.epoch + progress.step / trainer.steps_per_epoch) / self.epochs_to_do
            images_per_second = progress.num_images / progress.seconds
            self.on_event(JobEvent(self.job.recipe.key, "progress", fraction_done, images_per_second))

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.epochs_done = metrics.epoch
        fraction_done = metrics.epoch / self.epochs_to_do
        self.on_event(JobEvent(self.job.recipe.key, "epoch", fraction_done, metrics.images_per_second, metrics))


def run_job(
    job: Job, load_splits: Callable[[], DatasetSplits], on_event: EventCallback, should_stop: Callable[[], bool]
) -> None:
    """Train one job in this process on the images that `load_splits()` gives, and report events; only a bug raises."""
    key = job.recipe.key
    on_event(JobEvent(key, "started"))
    callbacks = JobCallbacks(job, on_event, should_stop)
    try:
        status, reason = train_trial(
            job.recipe, load_splits(), job.folder, device=job.device, callbacks=callbacks, log=job.log
        )
    except LabError as error:
        on_event(JobEvent(key, "failed", reason=str(error)))
    else:
        on_event(JobEvent(key, "paused" if status == "stopped" and callbacks.is_paused else status, reason=reason))


def die_with_parent() -> None:
    """End this process when its parent is gone: nobody would receive its results."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os._exit(1)
