"""Datasets of arrays in the files that torchvision keeps them in. No pickle is loaded: CIFAR has a reader of its own."""

import bz2
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.data.dataset import ImageDataset
from convolab.data.folder_layout import shown_path
from convolab.data.readers.cifar import read_cifar10, read_cifar100
from convolab.data.readers.fashion_mnist import FASHION_MNIST_CLASSES, read_idx
from convolab.data.readers.torchvision_files import read_list, read_verified

MAX_STL10_BYTES = 300_000_000  # of a file; its test images have 221 million
MAX_MAT_BYTES = 200_000_000  # SVHN's training images have 182 million
DIGIT_CLASSES = tuple("0123456789")
MNIST_CLASSES = (
    "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight",
    "9 - nine",
)  # fmt: skip
KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@dataclass
class ArraySet:
    """The images of a dataset, by split."""

    classes: tuple[str, ...]
    images: dict[str, UInt8[Tensor, "n c h w"]]
    labels: dict[str, Int64[Tensor, "n"]]


def from_datasets(train: ImageDataset, test: ImageDataset) -> ArraySet:
    datasets = {"train": train, "test": test}
    images = {split: dataset.images for split, dataset in datasets.items()}
    return ArraySet(train.classes, images, {split: dataset.labels for split, dataset in datasets.items()})


def read_mnist_like(folder: Path, classes: tuple[str, ...]) -> ArraySet:
    read = ArraySet(classes, {}, {})
    for split, prefix in {"train": "train", "test": "t10k"}.items():
        paths = [folder / f"{prefix}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
        images, labels = (read_idx(path if path.is_file() else path.with_name(f"{path.name}.gz")) for path in paths)
        require(images.ndim == 3, f"{shown_path(paths[0])} has the shape {list(images.shape)}, not [n, 28, 28]")
        read.images[split] = torch.from_numpy(images).unsqueeze(1)
        read.labels[split] = torch.from_numpy(labels).long()
    return read


def read_torchvision_stl10(folder: Path) -> ArraySet:
    """Its labeled images. A file holds planes of 96 x 96, column by column; labels count from 1."""
    read = ArraySet(tuple(read_list(folder / "class_names.txt").splitlines()), {}, {})
    for split in ("train", "test"):
        contents = []
        for path in (folder / f"{split}_X.bin", folder / f"{split}_y.bin"):
            require(path.is_file(), f"{shown_path(path)} is missing")
            require(path.stat().st_size <= MAX_STL10_BYTES, f"{shown_path(path)} is larger than the published file")
            contents.append(torch.from_numpy(np.fromfile(path, np.uint8)))
        read.images[split] = contents[0].view(-1, 3, 96, 96).mT
        read.labels[split] = contents[1].long() - 1
    return read


def read_torchvision_svhn(folder: Path) -> ArraySet:
    """Its training and test images of single digits; 10 stands for a 0."""
    from scipy.io import loadmat

    read = ArraySet(DIGIT_CLASSES, {}, {})
    for split in ("train", "test"):
        content = loadmat(read_verified(folder / f"{split}_32x32.mat", MAX_MAT_BYTES))
        read.images[split] = torch.from_numpy(content["X"].transpose(3, 2, 0, 1))
        read.labels[split] = torch.from_numpy(content["y"].astype(np.int64).ravel() % 10)
    return read


def read_torchvision_usps(folder: Path) -> ArraySet:
    """Lines of a label from 1 to 10 and 256 numbered values from -1 to 1, rounded to bytes as torchvision does."""
    read = ArraySet(DIGIT_CLASSES, {}, {})
    for split, name in {"train": "usps.bz2", "test": "usps.t.bz2"}.items():
        lines = bz2.decompress(read_verified(folder / name).getvalue()).decode().splitlines()
        rows = [[cell.rpartition(":")[2] for cell in line.split()] for line in lines]
        values = np.array([row[1:] for row in rows], np.float32).reshape(-1, 1, 16, 16)
        read.images[split] = torch.from_numpy(((values + 1) / 2 * 255).astype(np.uint8))
        read.labels[split] = torch.tensor([int(row[0]) - 1 for row in rows])
    return read


ARRAY_SETS: dict[str, tuple[str, tuple[str, ...], Callable[[Path], ArraySet]]] = {  # the folder, its files, the reader
    "CIFAR10": ("cifar-10-batches-py", ("batches.meta",), lambda folder: from_datasets(*read_cifar10(folder))),
    "CIFAR100": ("cifar-100-python", ("meta",), lambda folder: from_datasets(*read_cifar100(folder))),
    "FashionMNIST": ("FashionMNIST/raw", (), partial(read_mnist_like, classes=FASHION_MNIST_CLASSES)),
    "KMNIST": ("KMNIST/raw", (), partial(read_mnist_like, classes=KMNIST_CLASSES)),
    "MNIST": ("MNIST/raw", (), partial(read_mnist_like, classes=MNIST_CLASSES)),
    "STL10": ("stl10_binary", ("class_names.txt",), read_torchvision_stl10),
    "SVHN": ("", ("train_32x32.mat",), read_torchvision_svhn),
    "USPS": ("", ("usps.bz2",), read_torchvision_usps),
}
