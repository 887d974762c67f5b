"""CIFAR-10 and CIFAR-100 as published (Krizhevsky 2009): pickles of Python 2, read without trusting them."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convolab.core.errors import LabError, need
from convolab.data.dataset import ImageSet

PIXELS = 3 * 32 * 32  # a picture's row: its red, its green and its blue plane


def read_cifar10(folder: Path) -> tuple[ImageSet, ImageSet]:
    """The train and the test set, uint8 [50000, 3, 32, 32] and [10000, 3, 32, 32], from `cifar-10-batches-py`.

    Raises LabError, naming the file, if one is missing, damaged or asks to run anything.
    """
    classes = _names(folder / "batches.meta", "label_names")
    batches = [folder / f"data_batch_{number}" for number in range(1, 6)]
    train, test = (_read(paths, "labels", classes, "cifar10") for paths in (batches, [folder / "test_batch"]))
    return train, test


def read_cifar100(folder: Path) -> tuple[ImageSet, ImageSet]:
    """The train and the test set with the hundred fine labels, from `cifar-100-python`; else as `read_cifar10`."""
    classes = _names(folder / "meta", "fine_label_names")
    train, test = (_read([folder / part], "fine_labels", classes, "cifar100") for part in ("train", "test"))
    return train, test


def _read(paths: Sequence[Path], key: str, classes: tuple[str, ...], name: str) -> ImageSet:
    """Join batch files of equal length. Each is copied to its place and let go, so at most one lies beside the set."""
    labels: list[int] = []
    for number, path in enumerate(paths):
        rows, row_labels = _batch(path, key, len(classes))
        if number == 0:
            images = np.empty((len(paths), len(rows), PIXELS), dtype=np.uint8)
        need(
            len(rows) == images.shape[1],
            f"{path} holds {len(rows)} pictures and {paths[0].name} holds {images.shape[1]}: remove the folder to have it fetched anew",
        )
        images[number] = rows
        labels += row_labels
        del rows
    return ImageSet(torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.tensor(labels), classes, name)


def _batch(path: Path, key: str, classes: int) -> tuple[np.ndarray, list[int]]:
    """The rows of pixels, uint8 [n, 3072], and the labels of one file."""
    content = _unpickled(path)
    rows, labels = _entry(path, content, "data"), _entry(path, content, key)
    came = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else f"a {type(rows).__name__}"
    whole = (
        isinstance(rows, np.ndarray)
        and rows.dtype == np.uint8
        and rows.ndim == 2
        and rows.shape[1] == PIXELS
        and len(rows)
    )
    need(whole, f"{path}: 'data' is {came}, not uint8 [n, {PIXELS}]: remove the folder to have it fetched anew")
    need(
        isinstance(labels, list) and all(type(label) is int for label in labels),
        f"{path}: '{key}' is not a list of integers: remove the folder to have it fetched anew",
    )
    need(
        len(labels) == len(rows),
        f"{path} holds {len(labels)} labels for {len(rows)} pictures: remove the folder to have it fetched anew",
    )
    low, high = min(labels), max(labels)
    need(
        low >= 0 and high < classes,
        f"{path}: labels run from {low} to {high}, but there are {classes} classes: remove the folder to have it fetched anew",
    )
    return rows, labels


def _names(path: Path, key: str) -> tuple[str, ...]:
    names = _entry(path, _unpickled(path), key)
    fine = isinstance(names, list) and names and all(isinstance(name, bytes | str) for name in names)
    need(fine, f"{path}: '{key}' is not a list of names: remove the folder to have it fetched anew")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)


def _entry(path: Path, content: dict[str, Any], key: str) -> Any:
    need(
        key in content,
        f"{path} lacks '{key}' (it holds {_brief(', '.join(content)) or 'nothing'}): remove the folder to have it fetched anew",
    )
    return content[key]


def _unpickled(path: Path) -> dict[str, Any]:
    need(path.is_file(), f"{path} is missing: remove the folder to have it fetched anew")
    try:
        with path.open("rb") as file:
            content = _Unpickler(file, path).load()
    except LabError:
        raise
    except Exception as error:  # a damaged pickle may fail in any way, from EOFError to UnicodeDecodeError
        raise LabError(
            f"{path} is damaged ({type(error).__name__}: {_brief(str(error))}): remove the folder to have it fetched anew"
        ) from error
    need(
        isinstance(content, dict), f"{path} holds a {type(content).__name__}, not a dictionary: it is not a CIFAR file"
    )
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def _brief(text: str) -> str:
    """Short and on one line, because a damaged file may call things anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:100])


def _latin1(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes into a pickle that Python 2 can read, `_codecs.encode`, kept to its one use."""
    if encoding != "latin1":
        raise ValueError(f"bytes are encoded in {encoding!r}")
    return text.encode("latin1")


RECONSTRUCT = np.empty(0).__reduce__()[0]  # `_reconstruct`, wherever the installed numpy keeps it
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _Unpickler(pickle.Unpickler):
    """Knows arrays, and refuses every other thing a pickle can ask for."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        need((module, name) in ALLOWED, f"{self.path} asks for {_brief(f'{module}.{name}')}: not a CIFAR file")
        return ALLOWED[module, name]
