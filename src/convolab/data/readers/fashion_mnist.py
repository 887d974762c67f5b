"""Fashion-MNIST as published (Xiao, Rasul & Vollgraf 2017): idx files, compressed by gzip."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from convolab.core.errors import LabError, require
from convolab.data.dataset import ImageDataset

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
    """The train and the test set, uint8 [60000, 1, 28, 28] and [10000, 1, 28, 28].

    Raises LabError, naming the file, if one is missing or damaged, or if pictures and labels do not fit together.
    """
    return _read_idx_pair(folder, "train"), _read_idx_pair(folder, "t10k")


def _read_idx_pair(folder: Path, prefix: str) -> ImageDataset:
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
    require(
        images.ndim == 3 and images.shape[1:] == (28, 28),
        f"{folder}: the {prefix} pictures are {list(images.shape)}, not [n, 28, 28]: remove it to have it fetched anew",
    )
    require(
        labels.shape == images.shape[:1],
        f"{folder}: there are {labels.size} {prefix} labels for {len(images)} pictures: remove it to have it fetched anew",
    )
    require(
        labels.max() < len(FASHION_MNIST_CLASSES),
        f"{folder}: {prefix} labels run up to {labels.max()}, but there are {len(FASHION_MNIST_CLASSES)} classes: remove it to have it fetched anew",
    )
    return ImageDataset(
        torch.from_numpy(images[:, None]),
        torch.from_numpy(labels.astype(np.int64)),
        FASHION_MNIST_CLASSES,
        "fashion_mnist",
    )


def read_idx(path: Path) -> np.ndarray:
    """The bytes of a gzipped idx file, uint8, in the shape it states: 0, 0, 8, n, then n big-endian sizes, then the bytes.

    Raises LabError if the file is missing, damaged or of another kind.
    """
    require(path.is_file(), f"{path} is missing: remove it to have it fetched anew")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise LabError(f"{path} is damaged ({error}): remove it to have it fetched anew") from error
    require(
        len(content) > 4 and content[:3] == b"\0\0\x08",
        f"{path} is not an idx file of bytes: remove it to have it fetched anew",
    )
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start]) if len(content) >= start else ()
    require(
        shape and len(content) - start == math.prod(shape),
        f"{path} holds {len(content)} bytes, not those of its shape {list(shape)}: remove it to have it fetched anew",
    )
    return (
        np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
    )  # a copy, because bytes may not be written to
