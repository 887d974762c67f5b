"""A dataset in memory-mapped files: it may be larger than memory, and processes that train on it share one copy."""

import math
import mmap
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import LabError
from convolab.core.files import atomic_write, read_json, size_of_file, write_json
from convolab.data.dataset import FileRows, ImageDataset
from convolab.data.splits import DatasetSplits

MAP_NORESERVE = 0x4000  # Linux; Python 3.11 has no name for it


def map_rows(rows: FileRows, shape: tuple[int, ...]) -> UInt8[Tensor, "n c h w"]:
    """The bytes of a file from an offset on, as images that are read from the disk when they are used.

    What a process changes in them stays in that process. Raises LabError if the file is gone or too short.
    """
    try:
        size_of_file(rows.path)  # no pipe, on which this would wait
        with rows.path.open("rb") as file:
            # Without a reservation, because Linux would refuse a map of more bytes than memory that may be written to.
            flags = mmap.MAP_PRIVATE | (MAP_NORESERVE if sys.platform == "linux" else 0)
            skipped = rows.offset % mmap.ALLOCATIONGRANULARITY  # where a map begins
            length = skipped + math.prod(shape)
            access = mmap.PROT_READ | mmap.PROT_WRITE
            mapped = mmap.mmap(file.fileno(), length, flags, access, offset=rows.offset - skipped)
        values = np.frombuffer(mapped, np.uint8, math.prod(shape), skipped)
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read the decoded images in {rows.path} ({error}): try again") from error
    return torch.from_numpy(values).view(shape)


def write_memmap(splits: DatasetSplits, folder: Path) -> None:
    """Write a dataset to a folder for `read_memmap`; one that is mapped already is linked, not copied.

    Raises LabError if the disk is full.
    """
    for split, dataset in splits.by_name.items():
        metadata = {"classes": dataset.classes, "name": dataset.name, "fingerprint": dataset.fingerprint}
        arrays = {"images": dataset.images, "labels": dataset.labels}
        if dataset.file_rows is not None:
            del arrays["images"]
            metadata |= {"offset": dataset.file_rows.offset, "shape": tuple(dataset.images.shape)}
            link_rows(dataset.file_rows.path, folder / f"{split}-images.bin")
        for name, tensor in arrays.items():
            with atomic_write(folder / f"{split}-{name}.npy") as path:
                np.save(path, tensor.numpy())
        write_json(folder / f"{split}.json", metadata)


def link_rows(source: Path, path: Path) -> None:
    """Another name for a file: it outlives the first name where the disk has hard links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        path.unlink()
    try:
        os.link(source, path)
    except OSError:  # of another disk
        os.symlink(source.resolve(), path)


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
    rows = None
    if "offset" in metadata:
        rows = FileRows(folder / f"{split}-images.bin", metadata["offset"])
        images = map_rows(rows, tuple(metadata["shape"]))
    else:
        images = torch.from_numpy(np.load(folder / f"{split}-images.npy", mmap_mode="c"))
    labels = torch.from_numpy(np.load(folder / f"{split}-labels.npy", mmap_mode="c"))
    dataset = ImageDataset(images, labels, tuple(metadata["classes"]), metadata["name"])
    dataset = dataset.with_fingerprint(metadata["fingerprint"])
    return dataset if rows is None else dataset.with_file_rows(rows)


@contextmanager
def memmapped_dataset(splits: DatasetSplits, folder: Path) -> Iterator[Path]:
    """The dataset as files that workers map, removed afterwards. Who needs it in memory no more can drop it meanwhile."""
    shutil.rmtree(folder, ignore_errors=True)  # what a kill left
    write_memmap(splits, folder)
    del splits  # else this frame, which waits below, would keep it
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
