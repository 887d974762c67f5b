"""A picture set of one's own: a folder that holds a folder of pictures per class."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.data.dataset import ImageDataset
from convolab.data.download import ProgressCallback
from convolab.data.image_io import read_image_file, resize_and_center_crop
from convolab.data.splits import train_test_split

DECODE_THREADS = min(8, os.cpu_count() or 1)  # each holds a whole photo


def read_image_folder(
    folder: Path, image_size: int, on_progress: ProgressCallback | None = None
) -> tuple[ImageDataset, ImageDataset, tuple[str, ...]]:
    """The train and the test set, uint8 [N, C, size, size], and the files that could not be read, each with the reason.

    A folder that holds exactly `train` and `test` is split so; of any other, a fixed fifth of each class is for the test.
    There is one channel if every picture is grey, else three. Hidden files and folders are passed over.
    Raises LabError if the size is not 8 to 64, there are fewer than two classes, the parts have different ones, or a class
    has no picture that can be read.
    """
    require(
        8 <= image_size <= 64, f"pictures of {image_size} x {image_size} pixels are wanted: give a size from 8 to 64"
    )
    require(
        folder.is_dir() and os.access(folder, os.R_OK | os.X_OK),
        f"cannot look into {folder}: give a folder that holds a folder of pictures per class",
    )
    split_folders = [folder / "train", folder / "test"] if _subfolder_names(folder) == ["test", "train"] else [folder]
    classes = _subfolder_names(split_folders[0])
    count = "one folder" if classes else "no folders"
    require(
        len(classes) > 1,
        f"{split_folders[0]} holds {count}: put the pictures of each class into a folder of its own, for two classes or more",
    )
    for split_folder in split_folders:
        require(
            _subfolder_names(split_folder) == classes,
            f"{split_folder} holds the classes {_first_names(_subfolder_names(split_folder))}, but {split_folders[0]} holds {_first_names(classes)}: make them the same",
        )

    found = [
        (part, label, path)
        for part in split_folders
        for label, name in enumerate(classes)
        for path in _image_paths(part / name)
    ]
    images, reasons = _decode_images([path for _, _, path in found], image_size, on_progress)
    unreadable = tuple(reason.removeprefix(f"{folder}{os.sep}") for reason in reasons if reason)
    kept = [(part, label) for (part, label, _), reason in zip(found, reasons, strict=True) if not reason]
    non_empty = set(kept)
    for split_folder in split_folders:
        for label, name in enumerate(classes):
            require(
                (split_folder, label) in non_empty,
                f"{split_folder / name} holds no picture that can be read: put some there, or remove the folder",
            )

    labels, name = torch.tensor([label for _, label in kept]), folder.resolve().name
    if len(split_folders) == 1:
        return *train_test_split(ImageDataset(images, labels, tuple(classes), name)), unreadable
    num_train = sum(part == split_folders[0] for part, _ in kept)  # the training pictures come first
    train, test = (
        ImageDataset(images[rows], labels[rows], tuple(classes), name)
        for rows in (slice(num_train), slice(num_train, None))
    )
    return train, test, unreadable


def _decode_images(
    paths: list[Path], image_size: int, on_progress: ProgressCallback | None
) -> tuple[UInt8[Tensor, "n c {size} {size}"], list[str]]:
    """The pictures that can be read, grey if all of them are, and for each path why it cannot, or nothing."""
    images = torch.empty(len(paths), 3, image_size, image_size, dtype=torch.uint8)
    reasons: list[str] = []
    count = 0
    # Each reading silences Pillow's warnings, but threads put the filters back in any order: this outer one has the last word.
    with warnings.catch_warnings(), ThreadPoolExecutor(DECODE_THREADS) as pool:
        for result in pool.map(lambda path: _read_or_reason(path, image_size), paths):
            if isinstance(result, str):
                reasons.append(result)
            else:
                reasons.append("")
                images[count] = result
                count += 1
            if on_progress:
                on_progress(len(reasons), len(paths))
    images = images[:count]
    if all(bool((image == image[:1]).all()) for image in images):  # ends at the first one in colour
        images = images[:, :1].clone()
    return images, reasons


def _read_or_reason(path: Path, image_size: int) -> UInt8[Tensor, "3 {size} {size}"] | str:
    """The picture at the set's size, or why there is none."""
    try:
        return resize_and_center_crop(read_image_file(path), (image_size, image_size), channels=3)
    except LabError as error:
        return str(error)


def _subfolder_names(folder: Path) -> list[str]:
    return sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def _image_paths(folder: Path) -> list[Path]:
    """Every file in and below the folder, in the same order on every machine."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [
        folder / name
        for name in sorted(names, key=Path.as_posix)
        if not any(part.startswith(".") for part in name.parts)
    ]


def _first_names(names: list[str]) -> str:
    return ", ".join(names[:5]) + ("..." if len(names) > 5 else "") if names else "none"
