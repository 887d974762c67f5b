"""One trial as a Ray task: what the driver sends, and what the node does with it.

A node need not share a disk with the driver. The trial trains in a temporary folder on its node, and the run's files
travel as bytes.
"""

import pickle
import shutil
import socket
import tempfile
import threading
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch

from convolab.core.environment import tune_malloc
from convolab.core.errors import LabError, require
from convolab.core.files import atomic_write, translate_write_errors
from convolab.core.run_files import SUMMARY_FILE
from convolab.data.dataset import ImageDataset
from convolab.data.memmap import read_memmap
from convolab.data.splits import DatasetSplits
from convolab.models import registry
from convolab.models.libraries import is_library_network, split_library
from convolab.models.own_code import OwnCode, find_own_code, provide_code
from convolab.models.weights import OWN_WEIGHTS, provide_weights, read_weights_bytes
from convolab.studies.executor import TERMINAL_EVENTS, Job, JobEvent, run_job
from convolab.training.recipe import Recipe

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from convolab.studies.ray_events import EventQueue

SHUTDOWN_TIMEOUT = 10.0  # seconds that a trial may take to end after its step, once asked to stop
VERSION_CHECKED_PACKAGES = ("convolab", "torch", "numpy")  # packages whose version may change a run's bits
RunFiles = dict[str, bytes]


class DatasetArrays(TypedDict):
    """An `ImageDataset` as arrays, which Ray stores once on each node and lends to the tasks there without a copy."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    fingerprint: str


@dataclass(frozen=True)
class TaskPayload:
    """All that a node needs for one trial, besides the images."""

    job: Job
    run_files: RunFiles  # of the unfinished run to resume
    codes: dict[str, OwnCode]  # of a person's own parts, by the name that stands for each
    versions: Mapping[str, str]  # of the packages on the driver
    weights: dict[str, bytes]  # the files that networks start from, by the name that stands for each


def train_on_node(
    payload: TaskPayload, images: dict[str, DatasetArrays] | Path, event_queue: "ActorHandle[EventQueue]"
) -> tuple[JobEvent, RunFiles]:
    """Train one trial in a temporary folder, on arrays or on a folder that `write_memmap` wrote, if the node has it.

    Returns its terminal event and the run's files.
    """
    tune_malloc()
    job = payload.job
    terminal_events: list[JobEvent] = []
    stop_requested = threading.Event()
    delivered = threading.Event()

    def on_reply(reply: "Future[bool]") -> None:
        with suppress(Exception):  # a queue that died is restarted by Ray, and the next event asks again
            if reply.result():
                stop_requested.set()
        delivered.set()

    def send(event: JobEvent) -> None:
        if event.kind in TERMINAL_EVENTS:
            terminal_events.append(event)
            return
        delivered.clear()
        event_queue.put.remote(pickle.dumps(event)).future().add_done_callback(on_reply)

    def load_splits() -> DatasetSplits:
        for name, required in payload.versions.items():
            own = installed_version(name)
            require(
                own == required,
                f"has {name} {own}, but the driver has {required}: install the same version on all nodes",
            )
        return read_memmap(images) if isinstance(images, Path) else splits_from_arrays(images)

    with tempfile.TemporaryDirectory(prefix="convolab-") as temporary_folder:
        folder = Path(temporary_folder) / job.recipe.key
        try:
            for name, code in payload.codes.items():
                provide_code(name, code)
            for name, content in payload.weights.items():
                provide_weights(name, content)
            write_run_files(folder, payload.run_files)
            run_job(replace(job, folder=folder), load_splits, send, stop_requested.is_set)
        except LabError as error:
            terminal_events.append(JobEvent(job.recipe.key, "failed", reason=str(error)))
        delivered.wait(SHUTDOWN_TIMEOUT)  # no event of the trial may arrive after its end; the queue may start slowly
        event = terminal_events[0]
        if event.kind == "failed":
            return replace(event, reason=f"node {socket.gethostname()}: {event.reason}"), {}
        return event, read_run_files(folder)


def codes_to_send(recipe: Recipe) -> dict[str, OwnCode]:
    """The code of a recipe's own parts, by the name that stands for each; not that of an installed package.

    Raises LabError for a network that is registered in this process only.
    """
    name = recipe.model.name
    is_elsewhere = "model" in recipe.own_parts or is_library_network(name)
    require(
        is_elsewhere or not registry.is_own_factory(registry.resolve_factory(name)),
        f"the network '{name}' is registered in this process only, and Ray's nodes do not have it: "
        "put it into a file and name it file.py:Name",
    )
    codes = {name: find_own_code(name) for name in recipe.own_parts.values()}
    return {name: code for name, code in codes.items() if not code.is_installed}


def weights_to_send(recipe: Recipe) -> dict[str, bytes]:
    """The file of weights that a recipe's network starts from, by its name; a library's own are each node's."""
    weights = recipe.model.weights
    return {} if weights in (None, OWN_WEIGHTS) else {weights: read_weights_bytes(weights)}


def driver_versions() -> dict[str, str]:
    """The versions, here, of the packages that may change a run's bits."""
    return {name: version(name) for name in VERSION_CHECKED_PACKAGES}


def library_version(recipe: Recipe) -> dict[str, str]:
    """The version, here, of the library that a recipe's network is one of; nothing for other networks."""
    library, _ = split_library(recipe.model.name)
    return {library: installed_version(library)} if library else {}


def installed_version(name: str) -> str:
    """The version of a package here, or "none"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def read_run_files(folder: Path) -> RunFiles:
    """The files of a run and of its logs, without its lock, which belongs to one machine; empty if there is no run."""
    if not (folder / SUMMARY_FILE).exists():
        return {}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def write_run_files(folder: Path, files: RunFiles) -> None:
    """Make a folder hold a run's files and nothing else.

    The summary is removed first and written last: a kill in between leaves a folder without one, which is not a run and
    is trained again. Raises LabError if the disk is full.
    """
    with translate_write_errors(folder):
        (folder / SUMMARY_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for name in sorted(files, key=lambda name: name == SUMMARY_FILE):
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(files[name])


def splits_to_arrays(splits: DatasetSplits) -> dict[str, DatasetArrays]:
    """A dataset as arrays, see `DatasetArrays`."""
    return {
        split: {
            "images": dataset.images.numpy(),
            "labels": dataset.labels.numpy(),
            "classes": dataset.classes,
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
        }
        for split, dataset in splits.by_name.items()
    }


def splits_from_arrays(arrays: dict[str, DatasetArrays]) -> DatasetSplits:
    """The dataset that `splits_to_arrays` took apart, in the memory of its arrays."""

    def to_dataset(entry: DatasetArrays) -> ImageDataset:
        # Torch warns that the arrays are read-only; nothing writes to them.
        with warnings.catch_warnings(action="ignore"):
            images = torch.from_numpy(entry["images"])
            labels = torch.from_numpy(entry["labels"])
        dataset = ImageDataset(images, labels, entry["classes"], entry["name"])
        return dataset.with_fingerprint(entry["fingerprint"])

    datasets = {split: to_dataset(entry) for split, entry in arrays.items()}
    return DatasetSplits(datasets["train"], datasets.get("test"), validation=datasets.get("validation"))
