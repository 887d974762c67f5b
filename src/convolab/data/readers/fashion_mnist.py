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
from convolab.data.download import redownload_hint

HINT = redownload_hint()

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
    """The bytes of a gzipped idx file, uint8, in the shape it states.

    Such a file consists of the bytes 0, 0, 8, n, then n big-endian sizes, then the values.

    Raises LabError if the file is missing, damaged or of another kind.
    """
    require(path.is_file(), f"{path} is missing: {HINT}")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise LabError(f"{path} is damaged ({error}): {HINT}") from error
    require(
        len(content) > 4 and content[:3] == b"\0\0\x08",
        f"{path} is not an idx file of bytes: {HINT}",
    )
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start]) if len(content) >= start else ()
    require(
        shape and len(content) - start == math.prod(shape),
        f"{path} holds {len(content)} bytes, not those of its shape {list(shape)}: {HINT}",
    )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()  # bytes are read-only, an array is not
