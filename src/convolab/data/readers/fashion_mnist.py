"""Fashion-MNIST as published (Xiao, Rasul & Vollgraf 2017): idx files, compressed by gzip."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.text import format_bytes
from convolab.data.dataset import ImageDataset
from convolab.data.download import redownload_hint

HINT = redownload_hint()
MAX_IDX_BYTES = 100_000_000  # of a file, unpacked; the training images are 47 million
MAX_DIMENSIONS = 3

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_fashion_mnist(folder: Path) -> tuple[ImageDataset, ImageDataset]:
    """The training and the test set, uint8 [60000, 1, 28, 28] and [10000, 1, 28, 28].

    Raises LabError, naming the file, if one is missing or damaged, or if images and labels do not fit together.
    """
    return read_idx_pair(folder, "train"), read_idx_pair(folder, "t10k")


def read_idx_pair(folder: Path, prefix: str) -> ImageDataset:
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    require(
        images.ndim == 3 and images.shape[1:] == (28, 28),
        f"{folder}: the {prefix} images are {list(images.shape)}, not [n, 28, 28]: {HINT}",
    )
    require(len(images), f"{folder}: there are no {prefix} images: {HINT}")
    require(
        labels.shape == images.shape[:1],
        f"{folder}: there are {labels.size} {prefix} labels for {len(images)} images: {HINT}",
    )
    require(
        labels.max() < len(FASHION_MNIST_CLASSES),
        f"{folder}: {prefix} labels run up to {labels.max()}, "
        f"but there are {len(FASHION_MNIST_CLASSES)} classes: {HINT}",
    )
    return ImageDataset(
        torch.from_numpy(images[:, None]),
        torch.from_numpy(labels.astype(np.int64)),
        FASHION_MNIST_CLASSES,
        "fashion_mnist",
    )


def read_idx(path: Path) -> np.ndarray:
    """The bytes of an idx file, gzipped if its name ends in .gz, uint8, in the shape it states.

    Such a file consists of the bytes 0, 0, 8, n, then n big-endian sizes, then the values. No more is unpacked than the
    sizes state, and these are bounded: a few bytes may be the compressed form of gigabytes.

    Raises LabError if the file is missing, damaged, too large or of another kind.
    """
    require(path.is_file(), f"{path} is missing: {HINT}")
    # Only so much of the compressed file is read, too: it may hold nothing, again and again.
    require(
        path.stat().st_size <= MAX_IDX_BYTES,
        f"{path} is {format_bytes(path.stat().st_size)}, more than {format_bytes(MAX_IDX_BYTES)}: {HINT}",
    )
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4)
            require(len(header) == 4 and header[:3] == b"\0\0\x08", f"{path} is not an idx file of bytes: {HINT}")
            require(0 < header[3] <= MAX_DIMENSIONS, f"{path} states {header[3]} dimensions, not 1 to 3: {HINT}")
            sizes = file.read(4 * header[3])
            shape = struct.unpack(f">{header[3]}I", sizes) if len(sizes) == 4 * header[3] else ()
            num_values = math.prod(shape) if shape else 0
            require(
                num_values <= MAX_IDX_BYTES,
                f"{path} states the shape {list(shape)}, more than {format_bytes(MAX_IDX_BYTES)}: {HINT}",
            )
            values = file.read(num_values + 1)  # with one too many, if there is one
    except (OSError, EOFError, zlib.error) as error:
        raise LabError(f"{path} is damaged ({escape_line(str(error), 200)}): {HINT}") from error
    num_bytes = len(header) + len(sizes) + len(values)
    require(
        shape and len(values) == num_values,
        f"{path} holds {num_bytes} bytes, not those of its shape {list(shape)}: {HINT}",
    )
    return np.frombuffer(values, np.uint8).reshape(shape).copy()  # bytes are read-only, an array is not
