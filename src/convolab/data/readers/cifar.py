"""CIFAR-10 and CIFAR-100 as published (Krizhevsky 2009): pickles of Python 2, read without trusting them."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convolab.core.errors import LabError, require
from convolab.data.dataset import ImageDataset

BYTES_PER_IMAGE = 3 * 32 * 32  # a picture's row: its red, its green and its blue plane


def read_cifar10(folder: Path) -> tuple[ImageDataset, ImageDataset]:
    """The train and the test set, uint8 [50000, 3, 32, 32] and [10000, 3, 32, 32], from `cifar-10-batches-py`.

    Raises LabError, naming the file, if one is missing, damaged or asks to run anything.
    """
    classes = _read_class_names(folder / "batches.meta", "label_names")
    batches = [folder / f"data_batch_{number}" for number in range(1, 6)]
    train, test = (_read_batches(paths, "labels", classes, "cifar10") for paths in (batches, [folder / "test_batch"]))
    return train, test


def read_cifar100(folder: Path) -> tuple[ImageDataset, ImageDataset]:
    """The train and the test set with the hundred fine labels, from `cifar-100-python`; else as `read_cifar10`."""
    classes = _read_class_names(folder / "meta", "fine_label_names")
    train, test = (_read_batches([folder / part], "fine_labels", classes, "cifar100") for part in ("train", "test"))
    return train, test


def _read_batches(paths: Sequence[Path], key: str, classes: tuple[str, ...], name: str) -> ImageDataset:
    """Join batch files of equal length. Each is copied to its place and let go, so at most one lies beside the set."""
    labels: list[int] = []
    for number, path in enumerate(paths):
        pixels, batch_labels = _read_batch(path, key, len(classes))
        if number == 0:
            images = np.empty((len(paths), len(pixels), BYTES_PER_IMAGE), dtype=np.uint8)
        require(
            len(pixels) == images.shape[1],
            f"{path} holds {len(pixels)} pictures and {paths[0].name} holds {images.shape[1]}: remove the folder to have it fetched anew",
        )
        images[number] = pixels
        labels += batch_labels
        del pixels
    return ImageDataset(torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.tensor(labels), classes, name)


def _read_batch(path: Path, key: str, num_classes: int) -> tuple[np.ndarray, list[int]]:
    """The rows of pixels, uint8 [n, 3072], and the labels of one file."""
    content = _load_pickle(path)
    pixels, labels = _require_entry(path, content, "data"), _require_entry(path, content, key)
    received = (
        f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else f"a {type(pixels).__name__}"
    )
    is_valid = (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.ndim == 2
        and pixels.shape[1] == BYTES_PER_IMAGE
        and len(pixels)
    )
    require(
        is_valid,
        f"{path}: 'data' is {received}, not uint8 [n, {BYTES_PER_IMAGE}]: remove the folder to have it fetched anew",
    )
    require(
        isinstance(labels, list) and all(type(label) is int for label in labels),
        f"{path}: '{key}' is not a list of integers: remove the folder to have it fetched anew",
    )
    require(
        len(labels) == len(pixels),
        f"{path} holds {len(labels)} labels for {len(pixels)} pictures: remove the folder to have it fetched anew",
    )
    low, high = min(labels), max(labels)
    require(
        low >= 0 and high < num_classes,
        f"{path}: labels run from {low} to {high}, but there are {num_classes} classes: remove the folder to have it fetched anew",
    )
    return pixels, labels


def _read_class_names(path: Path, key: str) -> tuple[str, ...]:
    names = _require_entry(path, _load_pickle(path), key)
    is_valid = isinstance(names, list) and names and all(isinstance(name, bytes | str) for name in names)
    require(is_valid, f"{path}: '{key}' is not a list of names: remove the folder to have it fetched anew")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)


def _require_entry(path: Path, content: dict[str, Any], key: str) -> Any:
    require(
        key in content,
        f"{path} lacks '{key}' (it holds {_printable_prefix(', '.join(content)) or 'nothing'}): remove the folder to have it fetched anew",
    )
    return content[key]


def _load_pickle(path: Path) -> dict[str, Any]:
    require(path.is_file(), f"{path} is missing: remove the folder to have it fetched anew")
    try:
        with path.open("rb") as file:
            content = _RestrictedUnpickler(file, path).load()
    except LabError:
        raise
    except Exception as error:  # a damaged pickle may fail in any way, from EOFError to UnicodeDecodeError
        raise LabError(
            f"{path} is damaged ({type(error).__name__}: {_printable_prefix(str(error))}): remove the folder to have it fetched anew"
        ) from error
    require(
        isinstance(content, dict), f"{path} holds a {type(content).__name__}, not a dictionary: it is not a CIFAR file"
    )
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _printable_prefix(text: str) -> str:
    """Short and on one line, because a damaged file may call things anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:100])


def _encode_latin1(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes into a pickle that Python 2 can read, `_codecs.encode`, kept to its one use."""
    if encoding != "latin1":
        raise ValueError(f"bytes are encoded in {encoding!r}")
    return text.encode("latin1")


NUMPY_RECONSTRUCT = np.empty(0).__reduce__()[0]  # `_reconstruct`, wherever the installed numpy keeps it
ALLOWED_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): NUMPY_RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): NUMPY_RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode_latin1,
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Knows arrays, and refuses every other thing a pickle can ask for."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        require(
            (module, name) in ALLOWED_GLOBALS,
            f"{self.path} asks for {_printable_prefix(f'{module}.{name}')}: not a CIFAR file",
        )
        return ALLOWED_GLOBALS[module, name]
