"""CIFAR-10 and CIFAR-100 as published (Krizhevsky 2009): pickles of Python 2, read without trusting them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.data.dataset import ImageDataset
from convolab.data.download import redownload_hint
from convolab.data.readers.pickled_arrays import read_pickle

BYTES_PER_IMAGE = 3 * 32 * 32  # a row of the file: the red, the green and the blue plane of an image
HINT = redownload_hint("the folder")


def read_cifar10(folder: Path) -> tuple[ImageDataset, ImageDataset]:
    """The training and the test set, uint8 [50000, 3, 32, 32] and [10000, 3, 32, 32], from `cifar-10-batches-py`.

    Raises LabError, naming the file, if one is missing, damaged or tries to load anything but arrays.
    """
    classes = read_class_names(folder / "batches.meta", "label_names")
    batches = [folder / f"data_batch_{number}" for number in range(1, 6)]
    train, test = (read_batches(paths, "labels", classes, "cifar10") for paths in (batches, [folder / "test_batch"]))
    return train, test


def read_cifar100(folder: Path) -> tuple[ImageDataset, ImageDataset]:
    """The training and the test set with the hundred fine labels, from `cifar-100-python`; else as `read_cifar10`."""
    classes = read_class_names(folder / "meta", "fine_label_names")
    train, test = (read_batches([folder / part], "fine_labels", classes, "cifar100") for part in ("train", "test"))
    return train, test


def read_batches(paths: Sequence[Path], key: str, classes: tuple[str, ...], name: str) -> ImageDataset:
    """Join batch files of equal length. Each is copied and then freed: at most one is in memory beside the dataset."""
    labels: list[int] = []
    images = np.empty((0, 0, BYTES_PER_IMAGE), dtype=np.uint8)
    for number, path in enumerate(paths):
        pixels, batch_labels = read_batch(path, key, len(classes))
        if number == 0:
            images = np.empty((len(paths), len(pixels), BYTES_PER_IMAGE), dtype=np.uint8)
        require(
            len(pixels) == images.shape[1],
            f"{path} holds {len(pixels)} images and {paths[0].name} holds {images.shape[1]}: {HINT}",
        )
        images[number] = pixels
        labels += batch_labels
        del pixels
    return ImageDataset(torch.from_numpy(images.reshape(-1, 3, 32, 32)), torch.tensor(labels), classes, name)


def read_batch(path: Path, key: str, num_classes: int) -> tuple[np.ndarray, list[int]]:
    """The rows of pixels, uint8 [n, 3072], and the labels of one file."""
    content = load_pickle(path)
    pixels = require_entry(path, content, "data")
    labels = require_entry(path, content, key)
    if not isinstance(pixels, np.ndarray):
        raise LabError(f"{path}: 'data' is a {type(pixels).__name__}, not uint8 [n, {BYTES_PER_IMAGE}]: {HINT}")
    require(
        pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.shape[1] == BYTES_PER_IMAGE and len(pixels),
        f"{path}: 'data' is {pixels.dtype} {list(pixels.shape)}, not uint8 [n, {BYTES_PER_IMAGE}]: {HINT}",
    )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise LabError(f"{path}: '{key}' is not a list of integers: {HINT}")
    require(
        len(labels) == len(pixels),
        f"{path} holds {len(labels)} labels for {len(pixels)} images: {HINT}",
    )
    low = min(labels)
    high = max(labels)
    require(
        low >= 0 and high < num_classes,
        f"{path}: labels run from {low} to {high}, but there are {num_classes} classes: {HINT}",
    )
    return pixels, labels


def read_class_names(path: Path, key: str) -> tuple[str, ...]:
    names = require_entry(path, load_pickle(path), key)
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes | str) for name in names):
        raise LabError(f"{path}: '{key}' is not a list of names: {HINT}")
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names)


def require_entry(path: Path, content: dict[str, object], key: str) -> object:
    keys = escape_line(", ".join(content), 100) or "nothing"
    require(key in content, f"{path} has no '{key}' (it has {keys}): {HINT}")
    return content[key]


def load_pickle(path: Path) -> dict[str, object]:
    require(path.is_file(), f"{path} is missing: {HINT}")
    try:
        content = read_pickle(path)
    except LabError as error:
        raise LabError(f"{error}: {HINT}") from error
    if not isinstance(content, dict):
        raise LabError(f"{path} holds a {type(content).__name__}, not a dictionary: it is not a CIFAR file")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}
