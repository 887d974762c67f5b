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

from convolab.core.errors import LabError, need
from convolab.core.files import whole_file, writing_to
from convolab.data.catalog import Pictures
from convolab.data.dataset import ImageSet
from convolab.data.memmap import PARTS, read_mapped
from convolab.models import zoo
from convolab.studies.executor import ENDS, PATIENCE, TRIES, Hear, Job, News, cores, report_on
from convolab.studies.ray_events import Desk
from convolab.training.recipe import Recipe
from convolab.training.run import Run

NODES = 5  # how often a trial's node may die under it, before the trial is given up
GRACE = 10.0  # seconds for a trial to end after its step, once asked to
QUEUED = 2  # trials handed to Ray for every core: one that trains and one that waits beside it
SAME = ("convolab", "torch", "numpy")  # packages whose version may change a run's bits
Files = dict[str, bytes]


@dataclass(frozen=True)
class Parcel:
    """All that a node needs for one trial, besides the pictures."""

    job: Job
    files: Files  # of the unfinished run to go on with
    network: str | None  # the text of the file that a network named file.py:Name is in
    versions: dict[str, str]  # on the driver


@dataclass
class Flight:
    """A trial in Ray's hands."""

    job: Job
    crashes: int = 0  # how often its process died
    losses: int = 0  # how often its node died
    started: bool = False


@dataclass(frozen=True)
class RayEngine:
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
            need_reachable(self.address)

    def run(self, jobs: Sequence[Job], pictures: Path, hear: Hear, stop: Callable[[], bool]) -> None:
        """See `Engine.run`."""
        parcels = {job.recipe.key: partial(Parcel, network=source(job.recipe), versions=versions()) for job in jobs}
        waiting = deque(Flight(job) for job in sorted(jobs, key=lambda job: -job.cost) if not over(job, hear))
        if not waiting:
            return
        images = pack(read_mapped(pictures))
        with connected(
            self.address, self.workers or cores(), sum(part["images"].nbytes for part in images.values())
        ) as ray:
            desk = open_desk(ray)
            mail = Mail(ray, desk)
            task = ray.remote(num_cpus=1, max_retries=0)(train_on_node)
            flying: dict[Any, Flight] = {}
            images, asked = ray.put(images), None
            while flying or (waiting and asked is None):
                while waiting and asked is None and len(flying) < self.room(ray):
                    flight = waiting.popleft()
                    parcel = parcels[flight.job.recipe.key](flight.job, read_files(flight.job.folder))
                    flying[task.remote(parcel, images, desk)] = flight
                    del parcel
                done, _ = ray.wait(list(flying), timeout=PATIENCE)
                under_way = {flight.job.recipe.key: flight for flight in flying.values()}
                # Of a trial that has ended all news is there, but an answer that is on its way may be from before.
                for news in mail.fetch(GRACE) + mail.fetch(GRACE) if done else mail.fetch(PATIENCE):
                    if flight := under_way.get(news.key):
                        flight.started = True
                        hear(news)
                for ref in done:
                    land(ray, ref, flying.pop(ref), waiting, hear, asked is not None)
                if asked is None and stop():
                    asked = time.monotonic()
                if asked is not None:
                    desk.stop.remote()
                    for ref, flight in flying.items():
                        if not flight.started or time.monotonic() - asked > GRACE:
                            ray.cancel(ref, force=flight.started)

    def room(self, ray: ModuleType) -> int:
        """How many trials may be in Ray's hands now; nodes may have come or gone."""
        return self.workers or max(1, QUEUED * int(ray.cluster_resources().get("CPU", 0)))


def over(job: Job, hear: Hear) -> bool:
    """Whether a job needs no training, or cannot have any: it is told of, and nothing is sent anywhere."""
    if not (job.folder / "summary.json").exists():
        return False
    try:
        run = Run(job.folder)
        need(run.status != "running", f"{job.folder} is being trained by another process: wait for it, or stop it")
    except LabError as error:
        hear(News(job.recipe.key, "failed", reason=str(error)))
        return True
    if run.status not in ("finished", "diverged"):
        return False
    hear(News(job.recipe.key, run.status, reason=run.summary["reason"]))
    return True


def land(ray: ModuleType, ref: Any, flight: Flight, waiting: deque[Flight], hear: Hear, stopping: bool) -> None:
    """Take a trial out of Ray's hands: its files into its folder, or the trial back among those that wait."""
    from ray.exceptions import NodeDiedError, ObjectLostError, RayError, TaskCancelledError

    key = flight.job.recipe.key
    try:
        end, files = ray.get(ref)
        if files:
            lay_out(flight.job.folder, files)
        hear(end)
        return
    except LabError as error:
        hear(News(key, "failed", reason=str(error)))
        return
    except TaskCancelledError:
        stopping = True
    except (NodeDiedError, ObjectLostError):
        flight.losses += 1
        reason = "its node died"
    except RayError as error:
        flight.crashes += 1
        reason = f"its process ended: {last_line(error)}"
    if stopping:
        if flight.started:  # else nobody has heard of it yet
            hear(News(key, "stopped"))
    elif flight.crashes < TRIES and flight.losses < NODES:
        flight.started = False
        waiting.appendleft(flight)
        hear(News(key, "tried again", reason=reason))
    else:
        hear(News(key, "failed", reason=reason))


def last_line(error: Exception) -> str:
    """What Ray says of a failure, without the traceback it may hold."""
    return str(error).strip().splitlines()[-1].strip().rstrip(".")


# ---------------------------------------------------------------- on the node


def train_on_node(parcel: Parcel, images: dict[str, dict[str, Any]], desk: Any) -> tuple[News, Files]:
    """Train one trial in a folder of its own; how it ended, and the run's files."""
    job, ends = parcel.job, []
    asked, told = threading.Event(), threading.Event()

    def answered(answer: Future[bool]) -> None:
        with suppress(Exception):  # a desk that died is opened anew by Ray: it asks again
            if answer.result():
                asked.set()
        told.set()

    def send(news: News) -> None:
        if news.kind in ENDS:
            ends.append(news)
            return
        told.clear()
        desk.leave.remote(pickle.dumps(news)).future().add_done_callback(answered)

    def read() -> Pictures:
        for name, wanted in parcel.versions.items():
            need(
                version(name) == wanted,
                f"has {name} {version(name)}, and the driver {wanted}: install the same on all nodes",
            )
        return unpack(images)

    with tempfile.TemporaryDirectory(prefix="convolab-") as place:
        folder = Path(place) / job.recipe.key
        try:
            if parcel.network is not None:
                bring(job.recipe.model.name, parcel.network)
            lay_out(folder, parcel.files)
            report_on(replace(job, folder=folder), read, send, asked.is_set)
        except LabError as error:
            ends.append(News(job.recipe.key, "failed", reason=str(error)))
        told.wait(GRACE)  # so that no news of the trial comes after its end; the desk may be slow to open
        if ends[0].kind == "failed":
            return replace(ends[0], reason=f"node {socket.gethostname()}: {ends[0].reason}"), {}
        return ends[0], read_files(folder)


@cache
def bring(name: str, text: str) -> None:
    """Make the network of a person's file known in this process, by the name that recipes have for it."""
    place, _, attribute = name.rpartition(":")
    with tempfile.TemporaryDirectory(prefix="convolab-") as folder:
        path = Path(folder) / Path(place).name
        path.write_text(text, encoding="utf-8")
        zoo.register(zoo.find(f"{path}:{attribute}"), name)


# ---------------------------------------------------------------- what is sent


def source(recipe: Recipe) -> str | None:
    """The text of the file a recipe's network is in, None for one of convolab's or of an installed package.

    Raises LabError for one that only this process knows.
    """
    name = recipe.model.name
    place, colon, _ = name.rpartition(":")
    if place.endswith(".py"):
        return Path(place).read_text(encoding="utf-8")
    need(
        colon or zoo.find(name).__module__ == zoo.__name__,
        f"the network '{name}' is registered in this process only, and Ray's nodes do not know it: put it in a file and name it file.py:Name",
    )
    return None


def versions() -> dict[str, str]:
    """Of everything that may change a run's bits."""
    return {name: version(name) for name in SAME}


def read_files(folder: Path) -> Files:
    """The files of a run, none if there is no run; without its lock, which is of one machine."""
    if not (folder / "summary.json").exists():
        return {}
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")
    }


def lay_out(folder: Path, files: Files) -> None:
    """Make a folder hold a run's files and nothing else.

    The summary goes first and comes last: a kill in between leaves a folder without one, which is no run, and is trained afresh.
    Raises LabError if the disk is full.
    """
    with writing_to(folder):
        (folder / "summary.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for name in sorted(files, key=lambda name: name == "summary.json"):
        with whole_file(folder / name) as part:
            part.write_bytes(files[name])


def pack(pictures: Pictures) -> dict[str, dict[str, Any]]:
    """A set as arrays, which Ray stores once on each node and lends to the tasks there without a copy."""
    return {
        part: {
            "images": whole.images.numpy(),
            "labels": whole.labels.numpy(),
            "classes": whole.classes,
            "name": whole.name,
            "fingerprint": whole.fingerprint,
        }
        for part, whole in zip(PARTS, pictures, strict=False)
    }


def unpack(packed: dict[str, dict[str, Any]]) -> Pictures:
    """The set that `pack` made, on the very memory of its arrays."""
    parts = []
    for part in PARTS:
        about = packed[part]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the arrays cannot be written to: nobody does
            images, labels = (torch.from_numpy(about[name]) for name in ("images", "labels"))
        parts.append(ImageSet(images, labels, about["classes"], about["name"]))
        vars(parts[-1])["fingerprint"] = about["fingerprint"]
    return Pictures(*parts)


# ---------------------------------------------------------------- the cluster


@contextmanager
def connected(address: str | None, workers: int, set_bytes: int) -> Iterator[ModuleType]:
    """Ray, connected; on leaving, what was started here is shut down, and a running cluster is only left.

    A process that is connected already stays so, whatever the address.
    Raises LabError if Ray is not installed or the address cannot be reached.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # The store holds the set and the results on their way; by default it would take a third of the memory.
        begin = partial(
            ray.init,
            "local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=2 * set_bytes + 2**28,
            **quiet,
        )
    else:
        begin = partial(ray.init, address, **quiet)
    with silent():
        try:
            begin()
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


def need_reachable(address: str) -> None:
    """Raise LabError unless somebody listens at an address: Ray itself would try for two minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    need(
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
def silent() -> Iterator[None]:
    """Keep what Ray's daemons say of crashed workers off the terminal, where it would fall into the table: it is told of as news."""
    from ray._private import worker

    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def open_desk(ray: ModuleType) -> Any:
    """A desk on the driver's own node, which lives as long as the driver, and is opened anew should it die."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Desk).remote()


@dataclass
class Mail:
    """The driver's side of the desk."""

    ray: ModuleType
    desk: Any
    asked: Any = None  # what was asked of the desk and not answered in time: the news in the answer is nowhere else

    def fetch(self, patience: float) -> list[News]:
        """The news left at the desk; none if it does not answer within so many seconds."""
        from ray.exceptions import RayError

        self.asked = self.asked or self.desk.fetch.remote()
        if not self.ray.wait([self.asked], timeout=patience)[0]:
            return []
        answer, self.asked = self.asked, None
        with suppress(RayError):  # the desk is being opened anew, and what lay there is lost
            return [pickle.loads(news) for news in self.ray.get(answer)]
        return []
