"""A picture set in files that processes map into their memory: each byte is there once, however many of them train on it."""

from pathlib import Path

import numpy as np
import torch

from convolab.core.files import read_json, whole_file, write_json
from convolab.data.catalog import Pictures
from convolab.data.dataset import ImageSet

PARTS = ("train", "test")


def write_mapped(pictures: Pictures, folder: Path) -> None:
    """Lay a set out in a folder for `read_mapped`. Raises LabError if the disk is full."""
    for part in PARTS:
        image_set: ImageSet = getattr(pictures, part)
        for name, tensor in (("images", image_set.images), ("labels", image_set.labels)):
            with whole_file(folder / f"{part}-{name}.npy") as path:
                np.save(path, tensor.numpy())
        about = {"classes": image_set.classes, "name": image_set.name, "fingerprint": image_set.fingerprint}
        write_json(folder / f"{part}.json", about)


def read_mapped(folder: Path) -> Pictures:
    """The set that `write_mapped` laid out; what a process writes to it stays its own."""
    return Pictures(*(_read(folder, part) for part in PARTS))


def _read(folder: Path, part: str) -> ImageSet:
    about = read_json(folder / f"{part}.json")
    images, labels = (
        torch.from_numpy(np.load(folder / f"{part}-{name}.npy", mmap_mode="c")) for name in ("images", "labels")
    )
    image_set = ImageSet(images, labels, tuple(about["classes"]), about["name"])
    vars(image_set)["fingerprint"] = about["fingerprint"]  # a pass over every byte, made once and not by each process
    return image_set
