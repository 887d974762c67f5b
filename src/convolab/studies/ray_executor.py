"""The engine of many machines: the same trials by Ray, on nodes that need not share a disk.

What a node must have is Ray and convolab of the driver's versions. The picture set goes through Ray's object store, once to
each node; a trial trains in a folder on its node, and its files come back in one piece when it ends. An unfinished run is sent
along and gone on with, since a trial may have taken hours; what a node or its process was at when it died is done again from
there. The bits are those of the local engine: one thread a trial, and the same code.
"""

import logging
import os
import pickle
import shutil
import socket
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from convolab.core.errors import LabError, require
from convolab.core.files import atomic_write, translate_write_errors
from convolab.data.dataset import ImageDataset
from convolab.data.memmap import SPLIT_NAMES, read_memmap
from convolab.data.splits import DatasetSplits
from convolab.models import registry, zoo
from convolab.studies.executor import (
    HEARTBEAT_INTERVAL,
    MAX_ATTEMPTS,
    TERMINAL_EVENTS,
    EventCallback,
    Job,
    JobEvent,
    count_usable_cores,
    run_job,
)
from convolab.studies.ray_events import EventQueue
from convolab.training.recipe import Recipe
from convolab.training.run import Run

MAX_NODE_FAILURES = 5  # how often a trial's node may die under it, before the trial is given up
SHUTDOWN_TIMEOUT = 10.0  # seconds for a trial to end after its step, once asked to
TASKS_PER_CORE = 2  # trials handed to Ray for every core: one that trains and one that waits beside it
VERSION_CHECKED_PACKAGES = ("convolab", "torch", "numpy")  # packages whose version may change a run's bits
RunFiles = dict[str, bytes]


@dataclass(frozen=True)
class TaskPayload:
    """All that a node needs for one trial, besides the pictures."""

    job: Job
    run_files: RunFiles  # of the unfinished run to go on with
    network_source: str | None  # the text of the file that a network named file.py:Name is in
    versions: dict[str, str]  # on the driver


@dataclass
class InFlightTask:
    """A trial in Ray's hands."""

    job: Job
    process_failures: int = 0  # how often its process died
    node_failures: int = 0  # how often its node died
    started: bool = False


@dataclass(frozen=True)
class RayExecutor:
    """A task of one core for each trial, on a Ray started for the purpose or on a cluster that is running.

    Only a few trials more than there are cores are in Ray's hands at a time, and each result is fetched as it comes. A trial
    whose process dies is tried once more; one whose node dies runs again elsewhere.
    Raises LabError if Ray is not installed or its address cannot be reached.
    """

    address: str | None = None  # auto, host:port or ray://host:port; None starts a Ray of one's own on this machine
    workers: int | None = None  # most trials side by side; None: as many as there are cores

    def __post_init__(self) -> None:
        import_ray()
        if self.address is not None:
            require_reachable(self.address)

    def run(self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, stop: Callable[[], bool]) -> None:
        """See `Engine.run`."""
        payload_builders = {
            job.recipe.key: partial(TaskPayload, network=network_source(job.recipe), versions=driver_versions())
            for job in jobs
        }
        pending = deque(
            InFlightTask(job)
            for job in sorted(jobs, key=lambda job: -job.cost)
            if not finish_without_training(job, on_event)
        )
        if not pending:
            return
        images = splits_to_arrays(read_memmap(dataset_folder))
        with ray_session(
            self.address, self.workers or count_usable_cores(), sum(part["images"].nbytes for part in images.values())
        ) as ray:
            event_queue = start_event_queue(ray)
            receiver = EventReceiver(ray, event_queue)
            remote_train = ray.remote(num_cpus=1, max_retries=0)(train_on_node)
            in_flight: dict[Any, InFlightTask] = {}
            images, stop_requested_at = ray.put(images), None
            while in_flight or (pending and stop_requested_at is None):
                while pending and stop_requested_at is None and len(in_flight) < self.capacity(ray):
                    task = pending.popleft()
                    payload = payload_builders[task.job.recipe.key](task.job, read_run_files(task.job.folder))
                    in_flight[remote_train.remote(payload, images, event_queue)] = task
                    del payload
                done, _ = ray.wait(list(in_flight), timeout=HEARTBEAT_INTERVAL)
                tasks_by_key = {flight.job.recipe.key: flight for flight in in_flight.values()}
                # Of a trial that has ended all news is there, but an answer that is on its way may be from before.
                for event in (
                    receiver.receive(SHUTDOWN_TIMEOUT) + receiver.receive(SHUTDOWN_TIMEOUT)
                    if done
                    else receiver.receive(HEARTBEAT_INTERVAL)
                ):
                    if task := tasks_by_key.get(event.key):
                        task.started = True
                        on_event(event)
                for ref in done:
                    handle_finished_task(ray, ref, in_flight.pop(ref), pending, on_event, stop_requested_at is not None)
                if stop_requested_at is None and stop():
                    stop_requested_at = time.monotonic()
                if stop_requested_at is not None:
                    event_queue.stop.remote()
                    for ref, task in in_flight.items():
                        if not task.started or time.monotonic() - stop_requested_at > SHUTDOWN_TIMEOUT:
                            ray.cancel(ref, force=task.started)

    def capacity(self, ray: ModuleType) -> int:
        """How many trials may be in Ray's hands now; nodes may have come or gone."""
        return self.workers or max(1, TASKS_PER_CORE * int(ray.cluster_resources().get("CPU", 0)))


def finish_without_training(job: Job, on_event: EventCallback) -> bool:
    """Whether a job needs no training, or cannot have any: it is told of, and nothing is sent anywhere."""
    if not (job.folder / "summary.json").exists():
        return False
    try:
        run = Run(job.folder)
        require(run.status != "running", f"{job.folder} is being trained by another process: wait for it, or stop it")
    except LabError as error:
        on_event(JobEvent(job.recipe.key, "failed", reason=str(error)))
        return True
    if run.status not in ("finished", "diverged"):
        return False
    on_event(JobEvent(job.recipe.key, run.status, reason=run.summary["reason"]))
    return True


def handle_finished_task(
    ray: ModuleType, ref: Any, task: InFlightTask, pending: deque[InFlightTask], on_event: EventCallback, stopping: bool
) -> None:
    """Take a trial out of Ray's hands: its files into its folder, or the trial back among those that wait."""
    from ray.exceptions import NodeDiedError, ObjectLostError, RayError, TaskCancelledError

    key = task.job.recipe.key
    try:
        event, files = ray.get(ref)
        if files:
            write_run_files(task.job.folder, files)
        on_event(event)
        return
    except LabError as error:
        on_event(JobEvent(key, "failed", reason=str(error)))
        return
    except TaskCancelledError:
        stopping = True
    except (NodeDiedError, ObjectLostError):
        task.node_failures += 1
        reason = "its node died"
    except RayError as error:
        task.process_failures += 1
        reason = f"its process ended: {last_error_line(error)}"
    if stopping:
        if task.started:  # else nobody has heard of it yet
            on_event(JobEvent(key, "stopped"))
    elif task.process_failures < MAX_ATTEMPTS and task.node_failures < MAX_NODE_FAILURES:
        task.started = False
        pending.appendleft(task)
        on_event(JobEvent(key, "tried again", reason=reason))
    else:
        on_event(JobEvent(key, "failed", reason=reason))


def last_error_line(error: Exception) -> str:
    """What Ray says of a failure, without the traceback it may hold."""
    return str(error).strip().splitlines()[-1].strip().rstrip(".")


# ---------------------------------------------------------------- on the node


def train_on_node(
    payload: TaskPayload, packed_splits: dict[str, dict[str, Any]], event_queue: Any
) -> tuple[JobEvent, RunFiles]:
    """Train one trial in a folder of its own; how it ended, and the run's files."""
    job, terminal_events = payload.job, []
    stop_requested, delivered = threading.Event(), threading.Event()

    def on_reply(reply: Future[bool]) -> None:
        with suppress(Exception):  # a desk that died is opened anew by Ray: it asks again
            if reply.result():
                stop_requested.set()
        delivered.set()

    def send(news: JobEvent) -> None:
        if news.kind in TERMINAL_EVENTS:
            terminal_events.append(news)
            return
        delivered.clear()
        event_queue.put.remote(pickle.dumps(news)).future().add_done_callback(on_reply)

    def read() -> DatasetSplits:
        for name, required in payload.versions.items():
            require(
                version(name) == required,
                f"has {name} {version(name)}, and the driver {required}: install the same on all nodes",
            )
        return splits_from_arrays(packed_splits)

    with tempfile.TemporaryDirectory(prefix="convolab-") as temporary_folder:
        folder = Path(temporary_folder) / job.recipe.key
        try:
            if payload.network_source is not None:
                register_network_source(job.recipe.model.name, payload.network_source)
            write_run_files(folder, payload.run_files)
            run_job(replace(job, folder=folder), read, send, stop_requested.is_set)
        except LabError as error:
            terminal_events.append(JobEvent(job.recipe.key, "failed", reason=str(error)))
        delivered.wait(
            SHUTDOWN_TIMEOUT
        )  # so that no news of the trial comes after its end; the desk may be slow to open
        if terminal_events[0].kind == "failed":
            return replace(terminal_events[0], reason=f"node {socket.gethostname()}: {terminal_events[0].reason}"), {}
        return terminal_events[0], read_run_files(folder)


@cache
def register_network_source(name: str, text: str) -> None:
    """Make the network of a person's file known in this process, by the name that recipes have for it."""
    file, _, attribute = name.rpartition(":")
    with tempfile.TemporaryDirectory(prefix="convolab-") as folder:
        path = Path(folder) / Path(file).name
        path.write_text(text, encoding="utf-8")
        registry.register(registry.resolve_factory(f"{path}:{attribute}"), name)


# ---------------------------------------------------------------- what is sent


def network_source(recipe: Recipe) -> str | None:
    """The text of the file a recipe's network is in, None for one of convolab's or of an installed package.

    Raises LabError for one that only this process knows.
    """
    name = recipe.model.name
    file, colon, _ = name.rpartition(":")
    if file.endswith(".py"):
        return Path(file).read_text(encoding="utf-8")
    require(
        colon or registry.resolve_factory(name).__module__ == zoo.__name__,
        f"the network '{name}' is registered in this process only, and Ray's nodes do not know it: put it in a file and name it file.py:Name",
    )
    return None


def driver_versions() -> dict[str, str]:
    """Of everything that may change a run's bits."""
    return {name: version(name) for name in VERSION_CHECKED_PACKAGES}


def read_run_files(folder: Path) -> RunFiles:
    """The files of a run, none if there is no run; without its lock, which is of one machine."""
    if not (folder / "summary.json").exists():
        return {}
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    }


def write_run_files(folder: Path, files: RunFiles) -> None:
    """Make a folder hold a run's files and nothing else.

    The summary goes first and comes last: a kill in between leaves a folder without one, which is no run, and is trained afresh.
    Raises LabError if the disk is full.
    """
    with translate_write_errors(folder):
        (folder / "summary.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for name in sorted(files, key=lambda name: name == "summary.json"):
        with atomic_write(folder / name) as part:
            part.write_bytes(files[name])


def splits_to_arrays(splits: DatasetSplits) -> dict[str, dict[str, Any]]:
    """A set as arrays, which Ray stores once on each node and lends to the tasks there without a copy."""
    return {
        part: {
            "images": dataset.images.numpy(),
            "labels": dataset.labels.numpy(),
            "classes": dataset.classes,
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
        }
        for part, dataset in zip(SPLIT_NAMES, splits, strict=False)
    }


def splits_from_arrays(packed: dict[str, dict[str, Any]]) -> DatasetSplits:
    """The set that `pack` made, on the very memory of its arrays."""
    parts = []
    for part in SPLIT_NAMES:
        entry = packed[part]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the arrays cannot be written to: nobody does
            images, labels = (torch.from_numpy(entry[name]) for name in ("images", "labels"))
        parts.append(ImageDataset(images, labels, entry["classes"], entry["name"]))
        vars(parts[-1])["fingerprint"] = entry["fingerprint"]
    return DatasetSplits(*parts)


# ---------------------------------------------------------------- the cluster


@contextmanager
def ray_session(address: str | None, workers: int, dataset_bytes: int) -> Iterator[ModuleType]:
    """Ray, connected; on leaving, what was started here is shut down, and a running cluster is only left.

    A process that is connected already stays so, whatever the address.
    Raises LabError if Ray is not installed or the address cannot be reached.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    log_settings = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # The store holds the set and the results on their way; by default it would take a third of the memory.
        start = partial(
            ray.init,
            "local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=2 * dataset_bytes + 2**28,
            **log_settings,
        )
    else:
        start = partial(ray.init, address, **log_settings)
    with suppress_ray_logs():
        try:
            start()
        except Exception as error:  # Ray raises whatever is at hand, down to Exception itself
            raise LabError(f"cannot use Ray at {address or 'this machine'}: {' '.join(str(error).split())}") from error
        try:
            yield ray
        finally:
            ray.shutdown()


def import_ray() -> ModuleType:
    """The module `ray`, told not to send statistics of its use anywhere. Raises LabError if it is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns that it will do so one day
    try:
        import ray
    except ImportError as error:
        raise LabError("Ray is not installed: pip install 'convolab[ray]', or leave --engine ray out") from error
    return ray


def require_reachable(address: str) -> None:
    """Raise LabError unless somebody listens at an address: Ray itself would try for two minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    require(
        host and port.isdecimal(),
        f"'{address}' is no address of a Ray cluster: give auto, host:port or ray://host:port",
    )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise LabError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): start one there with ray start --head"
        ) from error


@contextmanager
def suppress_ray_logs() -> Iterator[None]:
    """Keep what Ray's daemons say of crashed workers off the terminal, where it would fall into the table: it is told of as news."""
    from ray._private import worker

    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def start_event_queue(ray: ModuleType) -> Any:
    """A desk on the driver's own node, which lives as long as the driver, and is opened anew should it die."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_driver_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=on_driver_node)(EventQueue).remote()


@dataclass
class EventReceiver:
    """The driver's side of the desk."""

    ray: ModuleType
    event_queue: Any
    pending_reply: Any = (
        None  # what was asked of the desk and not answered in time: the news in the answer is nowhere else
    )

    def receive(self, timeout: float) -> list[JobEvent]:
        """The news left at the desk; none if it does not answer within so many seconds."""
        from ray.exceptions import RayError

        self.pending_reply = self.pending_reply or self.event_queue.drain.remote()
        if not self.ray.wait([self.pending_reply], timeout=timeout)[0]:
            return []
        answer, self.pending_reply = self.pending_reply, None
        with suppress(RayError):  # the desk is being opened anew, and what lay there is lost
            return [pickle.loads(news) for news in self.ray.get(answer)]
        return []
