"""Weights and states on disk, as safetensors: nothing unpickles, and a file that is cut off is found out."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.files import atomic_write
from convolab.models import zoo
from convolab.models.classifier import ImageClassifier

STATE_FILE, PREVIOUS_STATE_FILE = "state.safetensors", "state.previous.safetensors"


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write named tensors and what JSON can hold about them, whole."""
    content = save(
        {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, {"about": json.dumps(metadata)}
    )
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)  # not safetensors' own writer: it reports a full disk as damage of the file


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote. Raises LabError if the file is missing, cut off or not one of these."""
    with open_safetensors(path) as (file, metadata):
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a dict)


def read_metadata(path: Path) -> dict[str, Any]:
    """Only what was written about the tensors. Raises LabError like `read_tensors`: a file cut off is found by its length."""
    with open_safetensors(path) as (_, metadata):
        return metadata


@contextmanager
def open_safetensors(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A file of tensors, and what was written about them; whatever is wrong with it becomes one line."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file, json.loads((file.metadata() or {})["about"])
    except FileNotFoundError as error:
        raise LabError(f"there is no {path}") from error
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise LabError(f"{path} is damaged or not one of convolab's: {str(error).splitlines()[0]}") from error


def write_weights(path: Path, net: ImageClassifier, metadata: dict[str, Any]) -> None:
    """Write a network so that the file alone tells how to build it; `about` must hold its `model` (name and options)."""
    preprocessing = {"mean": net.mean, "std": net.std, "size": net.input_size, "classes": net.classes}
    write_tensors(path, net.network.state_dict(), {**metadata, **preprocessing})


def read_weights(path: Path) -> tuple[ImageClassifier, dict[str, Any]]:
    """The network in a weights file, in evaluation mode, and what was written about it.

    Raises LabError if the file is damaged, or its weights do not fit the network it names.
    """
    tensors, metadata = read_tensors(path)
    try:
        name, shape = metadata["model"]["name"], (len(metadata["mean"]), *metadata["size"])
        options = {k: v for k, v in metadata["model"].items() if k != "name"}
        net = ImageClassifier(
            zoo.build(name, shape, len(metadata["classes"]), **options),
            mean=metadata["mean"], std=metadata["std"], input_size=tuple(metadata["size"]), classes=metadata["classes"],
        )  # fmt: skip
        net.network.load_state_dict(tensors)
    except KeyError as error:
        raise LabError(f"{path} does not say its {error}: it is no weights file of convolab's") from error
    except RuntimeError as error:
        raise LabError(
            f"{path} holds weights of another network than {name}: {str(error).splitlines()[1].strip()}"
        ) from error
    return net.eval(), metadata


def write_state(folder: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write a training's state; the one before is kept beside it."""
    if (folder / STATE_FILE).exists():
        # A kill between here and the next rename leaves only the previous state, which is as good: it is one epoch older.
        os.replace(folder / STATE_FILE, folder / PREVIOUS_STATE_FILE)
    write_tensors(folder / STATE_FILE, tensors, metadata)


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], str | None]:
    """The newest whole state in a folder, and a word on what was wrong with a newer one, if it was damaged.

    Raises LabError if there is none.
    """
    try:
        return *read_tensors(folder / STATE_FILE), None
    except LabError as error:
        require(
            (folder / PREVIOUS_STATE_FILE).exists(), f"{error}, and there is no older state to fall back to: train anew"
        )
        warning = f"{error}: going on from the state before it" if (folder / STATE_FILE).exists() else None
        return *read_tensors(folder / PREVIOUS_STATE_FILE), warning
