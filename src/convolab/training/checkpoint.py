"""Weights and states on disk, as safetensors: nothing is unpickled, and a truncated file is detected."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import (
    Annotated,
    NotRequired,  # typing has what pydantic needs from Python 3.12 on
    Protocol,
    cast,
    runtime_checkable,
)

from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from typing_extensions import TypedDict

from convolab.core.errors import LabError, require
from convolab.core.files import MAX_JSON_BYTES, atomic_write, parse_json, size_of_file
from convolab.core.records import validate_record
from convolab.core.run_files import CODE_FOLDER, PREVIOUS_STATE_FILE, STATE_FILE
from convolab.core.types import Json
from convolab.models import registry
from convolab.models.classifier import ImageClassifier
from convolab.models.own_code import CodeRecord, code_of_record
from convolab.models.weights import START_KEYS
from convolab.training.recipe import LaterFormat, require_known_format

MAX_TENSOR_BYTES = 4_000_000_000  # of a file of weights or of a state
MAX_SIDE = 10_000  # pixels; of the images that a weights file says its network is for
NO_OPTIONS = ("name", *START_KEYS)  # what a recipe's model holds besides the network's options
ImageSide = Annotated[int, Field(gt=0, le=MAX_SIDE)]


class NamedModel(TypedDict):
    name: str  # and the network's own options, of any name


class WeightsRecord(TypedDict):
    """The metadata without which a weights file cannot be used."""

    model: NamedModel
    mean: list[float]  # of each channel, pixels in [0, 1]
    std: list[float]
    size: tuple[ImageSide, ImageSide]  # height and width, pixels
    classes: list[str]
    epoch: NotRequired[int | None]
    code: NotRequired[CodeRecord | None]


@runtime_checkable
class TensorFile(Protocol):
    """What we use of the file that safetensors opens, whose package has no types."""

    def keys(self) -> list[str]: ...

    def get_tensor(self, name: str) -> Tensor: ...

    def metadata(self) -> dict[str, str] | None: ...


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Json]) -> None:
    """Write named tensors, and metadata that JSON can hold, atomically."""
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    # A file cannot hold two tensors that share memory, as tied weights do.
    uses = Counter(tensor.untyped_storage().data_ptr() for tensor in plain.values())
    plain = {name: t.clone() if uses[t.untyped_storage().data_ptr()] > 1 else t for name, t in plain.items()}
    content = save(plain, {"about": json.dumps(metadata)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)  # not safetensors' own writer: it reports a full disk as damage of the file


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Json]]:
    """Read what `write_tensors` wrote.

    Raises LabError if the file is missing, truncated, of another program or of a later format.
    """
    with open_safetensors(path) as (file, metadata):
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a dict)


def read_metadata(path: Path) -> dict[str, Json]:
    """Only the metadata written with the tensors. Raises LabError like `read_tensors`."""
    with open_safetensors(path) as (_, metadata):
        return metadata


def read_header_metadata(path: Path) -> dict[str, Json]:
    """What `read_metadata` gives, from the file's first bytes alone: a third of its time, for a list of many runs.

    Whether the tensors that follow are whole is not looked at. Raises LabError like `read_tensors`.
    """
    try:
        size = size_of_file(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            require(length <= min(size, MAX_JSON_BYTES), f"{path} is damaged: it ends within its header")
            header = file.read(length).decode()
        metadata = json.loads(json.loads(header)["__metadata__"]["about"])
        require(isinstance(metadata, dict), f"{path} is damaged: its metadata are no fields")
        return metadata
    except FileNotFoundError as error:
        raise LabError(f"there is no {path}") from error
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        reason = type(error).__name__ if isinstance(error, KeyError | TypeError) else str(error).splitlines()[0]
        raise LabError(f"{path} is damaged or was not written by convolab: {reason}") from error


@contextmanager
def open_safetensors(path: Path) -> Iterator[tuple[TensorFile, dict[str, Json]]]:
    """A file of tensors and its metadata; whatever is wrong with it becomes one line."""
    try:
        require(
            size_of_file(path) <= MAX_TENSOR_BYTES,
            f"{path} has more than {MAX_TENSOR_BYTES:,} bytes: it is too large to be read",
        )
        with safe_open(path, framework="pt") as file:
            metadata = parse_json((file.metadata() or {})["about"], f"{path} is damaged: its metadata")
            require(isinstance(metadata, dict), f"{path} is damaged: its metadata are no fields")
            require_known_format(metadata.get("format"), path)
            yield file, metadata
    except FileNotFoundError as error:
        raise LabError(f"there is no {path}") from error
    except KeyError as error:
        raise LabError(f"{path} was not written by convolab: it does not say what it holds") from error
    except (SafetensorError, ValueError, OSError, AttributeError, RecursionError) as error:
        raise LabError(f"{path} is damaged or was not written by convolab: {str(error).splitlines()[0]}") from error


def write_weights(path: Path, net: ImageClassifier, metadata: Mapping[str, Json]) -> None:
    """Write a network so that the file alone is enough to build it again.

    `metadata` must hold its `model` (name and options), as a recipe has it.
    """
    preprocessing = {"mean": net.mean, "std": net.std, "size": net.input_size, "classes": net.classes}
    write_tensors(path, net.network.state_dict(), {**metadata, **preprocessing})


def read_weights(path: Path) -> tuple[ImageClassifier, dict[str, Json]]:
    """The network in a weights file, in evaluation mode, where it takes pixels in [0, 1] only, and the file's metadata.

    A network of somebody's own is built from the copy of its code in the folder `code/` beside the file.

    Raises LabError if the file is damaged, its weights do not fit the network it names, or its code is not trusted.
    """
    tensors, metadata = read_tensors(path)
    record = validate_record(WeightsRecord, metadata, path)
    name, mean, std, classes = record["model"]["name"], record["mean"], record["std"], record["classes"]
    options = {key: value for key, value in cast("dict[str, Json]", metadata["model"]).items() if key not in NO_OPTIONS}
    height, width = record["size"]
    code_record = record.get("code")
    code = code_of_record(path.parent / CODE_FOLDER, code_record) if code_record else None
    network = registry.build_by_name(name, (len(mean), height, width), len(classes), options, code=code)
    net = ImageClassifier(
        network, mean=mean, std=std, input_size=(height, width), classes=classes, validate_inputs=True
    )
    try:
        net.network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise LabError(f"{path} holds weights of another network than {name}: {reason}") from error
    return net.eval(), metadata


def write_state(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Json]) -> None:
    """Write a training's state; the one before is kept beside it."""
    if (folder / STATE_FILE).exists():
        # A kill between here and the next rename leaves only the previous state, which is as good: one epoch older.
        os.replace(folder / STATE_FILE, folder / PREVIOUS_STATE_FILE)
    write_tensors(folder / STATE_FILE, tensors, metadata)


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Json], str | None]:
    """The newest whole state in a folder: tensors, metadata, and what is wrong with a newer one, if it is damaged.

    Raises LabError if there is none, and LaterFormat for one that a later convolab wrote: that is as good as new.
    """
    try:
        return *read_tensors(folder / STATE_FILE), None
    except LaterFormat:
        raise
    except LabError as error:
        require(
            (folder / PREVIOUS_STATE_FILE).exists(),
            f"{error}, and there is no older state to fall back on: train again from the start",
        )
        return *read_tensors(folder / PREVIOUS_STATE_FILE), str(error) if (folder / STATE_FILE).exists() else None
