"""The executor for many machines: the same trials through Ray, on nodes that need not share a disk.

A node needs Ray and convolab in the driver's versions. The images travel through Ray's object store, once to each
node; a Ray that is started here maps them instead. An unfinished run is sent along and resumed, since a trial may have taken hours; when a node or a process dies,
its trials start again from what was sent. The bits are those of the local executor: one thread per trial, and the same
code.
"""

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from convolab.core.environment import count_usable_cores
from convolab.core.errors import LabError, require
from convolab.core.run_files import SUMMARY_FILE
from convolab.data.memmap import read_memmap
from convolab.studies.executor import HEARTBEAT_INTERVAL, MAX_ATTEMPTS, EventCallback, Job, JobEvent
from convolab.studies.ray_events import EventReceiver, start_event_queue
from convolab.studies.ray_task import (
    SHUTDOWN_TIMEOUT,
    RunFiles,
    TaskPayload,
    codes_to_send,
    driver_versions,
    library_version,
    read_run_files,
    splits_to_arrays,
    train_on_node,
    weights_to_send,
    write_run_files,
)
from convolab.training.run import COMPLETED, Run

if TYPE_CHECKING:
    from ray import ObjectRef

MAX_NODE_FAILURES = 5  # how often the node of a trial may die before the trial is given up
TASKS_PER_CORE = 2  # trials handed to Ray for every core: one that trains and one that waits behind it


@dataclass
class InFlightTask:
    """A trial that Ray has."""

    job: Job
    process_failures: int = 0  # how often its process died
    node_failures: int = 0  # how often its node died
    started: bool = False


@dataclass(frozen=True)
class RayExecutor:
    """A task of one core for each trial, on a Ray that is started for the purpose or on a running cluster.

    Only a few more trials than there are cores are handed to Ray at a time, and each result is fetched as it arrives. A
    trial whose process dies is retried once; one whose node dies runs again on another.

    Args:
        address: auto, host:port or ray://host:port; None starts a Ray on this machine.
        workers: most trials in parallel; None: as many as there are cores.

    Raises LabError if Ray is not installed or nothing answers at the address.
    """

    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        import_ray()
        if self.address is not None:
            require_reachable(self.address)

    def run(
        self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, should_stop: Callable[[], bool]
    ) -> None:
        """See `Executor.run`."""
        codes = {job.recipe.key: codes_to_send(job.recipe) for job in jobs}
        versions = driver_versions()
        pending = deque(
            InFlightTask(job)
            for job in sorted(jobs, key=lambda job: -job.cost)
            if not finish_without_training(job, on_event)
        )
        if not pending:
            return
        # The processes of a Ray that is started here map the images, as the local executor's do; others get a copy.
        is_here = self.address is None and not import_ray().is_initialized()
        images = dataset_folder.resolve() if is_here else splits_to_arrays(read_memmap(dataset_folder))
        dataset_bytes = 0 if isinstance(images, Path) else sum(split["images"].nbytes for split in images.values())
        with ray_session(self.address, self.workers or count_usable_cores(), dataset_bytes) as ray:
            event_queue = start_event_queue(ray)
            receiver = EventReceiver(ray, event_queue)
            remote_train = ray.remote(num_cpus=1, max_retries=0)(train_on_node)
            in_flight: dict[ObjectRef[tuple[JobEvent, RunFiles]], InFlightTask] = {}
            stored_images = ray.put(images)
            stop_requested_at: float | None = None
            while in_flight or (pending and stop_requested_at is None):
                while pending and stop_requested_at is None and len(in_flight) < self.capacity(ray):
                    task = pending.popleft()
                    job = task.job
                    payload = TaskPayload(
                        job,
                        read_run_files(job.folder),
                        codes[job.recipe.key],
                        versions | library_version(job.recipe),
                        weights_to_send(job.recipe),
                    )
                    in_flight[remote_train.remote(payload, stored_images, event_queue)] = task
                    del payload  # it may hold the files of a large run
                done, _ = ray.wait(list(in_flight), timeout=HEARTBEAT_INTERVAL)
                tasks_by_key = {task.job.recipe.key: task for task in in_flight.values()}
                # A trial that has ended has delivered its events, but a reply on its way may be from before that.
                events = receiver.receive(SHUTDOWN_TIMEOUT if done else HEARTBEAT_INTERVAL)
                if done:
                    events += receiver.receive(SHUTDOWN_TIMEOUT)
                for event in events:
                    if task := tasks_by_key.get(event.key):
                        task.started = True
                        on_event(event)
                for ref in done:
                    handle_finished_task(ray, ref, in_flight.pop(ref), pending, on_event, stop_requested_at is not None)
                if stop_requested_at is None and should_stop():
                    stop_requested_at = time.monotonic()
                if stop_requested_at is not None:
                    event_queue.request_stop.remote()
                    for ref, task in in_flight.items():
                        if not task.started or time.monotonic() - stop_requested_at > SHUTDOWN_TIMEOUT:
                            ray.cancel(ref, force=task.started)

    def capacity(self, ray: ModuleType) -> int:
        """How many trials Ray may have now; nodes may have joined or left."""
        return self.workers or max(1, TASKS_PER_CORE * int(ray.cluster_resources().get("CPU", 0)))


def finish_without_training(job: Job, on_event: EventCallback) -> bool:
    """Whether a job needs no training, or cannot have any: then it is reported, and nothing is sent."""
    if not (job.folder / SUMMARY_FILE).exists():
        return False
    try:
        run = Run(job.folder)
        require(run.status != "running", f"{job.folder} is being trained by another process: wait for it, or stop it")
    except LabError as error:
        on_event(JobEvent(job.recipe.key, "failed", reason=str(error)))
        return True
    if run.status not in COMPLETED:
        return False
    kind = "diverged" if run.status == "diverged" else "finished"
    on_event(JobEvent(job.recipe.key, kind, reason=run.summary["reason"]))
    return True


def handle_finished_task(
    ray: ModuleType,
    ref: "ObjectRef[tuple[JobEvent, RunFiles]]",
    task: InFlightTask,
    pending: deque[InFlightTask],
    on_event: EventCallback,
    stopping: bool,
) -> None:
    """Take a trial back from Ray: write its files into its folder, or put it among those that wait."""
    from ray.exceptions import NodeDiedError, ObjectLostError, RayError, TaskCancelledError

    key = task.job.recipe.key
    reason = ""
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
        reason = f"its process ended: {last_line(error)}"
    if stopping:
        if task.started:  # otherwise no event of it was reported yet
            on_event(JobEvent(key, "stopped"))
    elif task.process_failures < MAX_ATTEMPTS and task.node_failures < MAX_NODE_FAILURES:
        task.started = False
        pending.appendleft(task)
        on_event(JobEvent(key, "retrying", reason=reason))
    else:
        on_event(JobEvent(key, "failed", reason=reason))


def last_line(error: Exception) -> str:
    """What Ray says of a failure, without the traceback that may come before it."""
    return str(error).strip().splitlines()[-1].strip().rstrip(".")


# ---------------------------------------------------------------- the cluster


@contextmanager
def ray_session(address: str | None, workers: int, dataset_bytes: int) -> Iterator[ModuleType]:
    """Connect to Ray; afterwards a Ray that was started here is shut down, and a running cluster is only left.

    A process that is connected already stays connected, whatever the address.
    Raises LabError if Ray is not installed or the address cannot be reached.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    init = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)
    with suppress_ray_logs():
        try:
            with ray_settings():
                if address is None:
                    # The store holds the images and results on their way; by default it takes a third of the memory.
                    store_bytes = 2 * dataset_bytes + 2**28
                    init("local", num_cpus=workers, include_dashboard=False, object_store_memory=store_bytes)
                else:
                    init(address)
        except Exception as error:  # Ray raises many types, down to Exception itself
            place = address or "this machine"
            raise LabError(f"cannot use Ray at {place}: {' '.join(str(error).split())}") from error
        try:
            yield ray
        finally:
            ray.shutdown()


def import_ray() -> ModuleType:
    """The module `ray`. Raises LabError if it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise LabError("Ray is not installed: pip install 'convolab[ray]', or use the local executor") from error
    return ray


@contextmanager
def ray_settings() -> Iterator[None]:
    """Ray's settings while it starts; its processes inherit them, and this process's environment is restored."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent anywhere
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of a coming change
    }
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def require_reachable(address: str) -> None:
    """Raise LabError unless something listens at an address: Ray itself would try for two minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    require(
        host and port.isdecimal(),
        f"'{address}' is not an address of a Ray cluster: give auto, host:port or ray://host:port",
    )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise LabError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): start one there with ray start --head"
        ) from error


@contextmanager
def suppress_ray_logs() -> Iterator[None]:
    """Keep Ray's messages on crashed workers off the terminal, where they would break the table: events report them.

    The function that prints them is private to Ray. Where a version of Ray does not have it, its messages are printed.
    """
    try:
        from ray._private import worker
    except ImportError:
        yield
        return
    before = getattr(worker, "print_to_stdstream", None)
    if before is None:
        yield
        return
    setattr(worker, "print_to_stdstream", lambda *_, **__: None)  # noqa: B010 (a private name, absent from the stubs)
    try:
        yield
    finally:
        setattr(worker, "print_to_stdstream", before)  # noqa: B010
