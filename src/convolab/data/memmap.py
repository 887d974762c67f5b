"""A dataset in memory-mapped files: the processes that train on it share one copy of it in memory."""

from pathlib import Path

import numpy as np
import torch

from convolab.core.errors import LabError
from convolab.core.files import atomic_write, read_json, write_json
from convolab.data.dataset import ImageDataset
from convolab.data.splits import DatasetSplits


def write_memmap(splits: DatasetSplits, folder: Path) -> None:
    """Write a dataset to a folder for `read_memmap`. Raises LabError if the disk is full."""
    for split, dataset in splits.by_name.items():
        for name, tensor in (("images", dataset.images), ("labels", dataset.labels)):
            with atomic_write(folder / f"{split}-{name}.npy") as path:
                np.save(path, tensor.numpy())
        metadata = {"classes": dataset.classes, "name": dataset.name, "fingerprint": dataset.fingerprint}
        write_json(folder / f"{split}.json", metadata)


def read_memmap(folder: Path) -> DatasetSplits:
    """The dataset that `write_memmap` wrote; what a process changes in it stays in that process."""
    train, validation, test = (
        read_memmap_split(folder, split) if (folder / f"{split}.json").exists() else None
        for split in ("train", "validation", "test")
    )
    if train is None:
        raise LabError(f"{folder} holds no dataset")
    return DatasetSplits(train, test, validation=validation)


def read_memmap_split(folder: Path, split: str) -> ImageDataset:
    metadata = read_json(folder / f"{split}.json")
    images, labels = (
        torch.from_numpy(np.load(folder / f"{split}-{name}.npy", mmap_mode="c")) for name in ("images", "labels")
    )
    dataset = ImageDataset(images, labels, tuple(metadata["classes"]), metadata["name"])
    return dataset.with_fingerprint(metadata["fingerprint"])
