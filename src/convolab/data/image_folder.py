"""The user's own dataset: a folder with one subfolder of images per class."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.text import truncate_list
from convolab.data.dataset import ImageDataset
from convolab.data.download import ProgressCallback
from convolab.data.image_io import read_image_file, resize_and_center_crop
from convolab.data.splits import train_test_split

DECODE_THREADS = min(8, os.cpu_count() or 1)  # each holds one photo in full size


def read_image_folder(
    folder: Path, image_size: int, on_progress: ProgressCallback | None = None
) -> tuple[ImageDataset, ImageDataset, tuple[str, ...]]:
    """Read a folder into a training and a test set, with the files that could not be read.

    A folder that holds exactly `train` and `test` is split so; of any other, a fixed fifth of each class is for
    testing. There is one channel if every image is gray, else three. Hidden files and folders are skipped.

    Args:
        folder: holds one subfolder of images per class, or `train` and `test`, each with the same classes.
        image_size: height and width, in pixels, that each image is resized to, 8 to 64; the center is kept.
        on_progress: called with (images read, images in total).

    Returns:
        (train, test, unreadable): uint8 images [N, C, image_size, image_size], and a line for each file that could not
        be read: its path in the folder, and the reason.

    Raises LabError if the size is out of range, there are fewer than two classes, `train` and `test` have different
    ones, or a class has no readable image.
    """
    require(8 <= image_size <= 64, f"image size {image_size} was requested: give one from 8 to 64")
    require(
        folder.is_dir() and os.access(folder, os.R_OK | os.X_OK),
        f"cannot read {folder}: give a folder with one subfolder of images per class",
    )
    split_folders = [folder / "train", folder / "test"] if subfolder_names(folder) == ["test", "train"] else [folder]
    classes = subfolder_names(split_folders[0])
    count = "one subfolder" if classes else "no subfolders"
    require(
        len(classes) > 1,
        f"{split_folders[0]} has {count}: put the images of each class in a subfolder of its own, "
        "for at least two classes",
    )
    for split_folder in split_folders:
        names = subfolder_names(split_folder)
        require(
            names == classes,
            f"{split_folder} has the classes {truncate_list(names)}, "
            f"but {split_folders[0]} has {truncate_list(classes)}: make them the same",
        )

    entries = [
        (split_folder, label, path)
        for split_folder in split_folders
        for label, name in enumerate(classes)
        for path in image_paths(split_folder / name)
    ]
    images, reasons = decode_images([path for _, _, path in entries], image_size, on_progress)
    unreadable = tuple(reason.removeprefix(f"{folder}{os.sep}") for reason in reasons if reason)
    kept = [
        (split_folder, label) for (split_folder, label, _), reason in zip(entries, reasons, strict=True) if not reason
    ]
    non_empty = set(kept)
    for split_folder in split_folders:
        for label, name in enumerate(classes):
            require(
                (split_folder, label) in non_empty,
                f"{split_folder / name} has no readable image: add some, or delete the folder",
            )

    labels = torch.tensor([label for _, label in kept])
    name = folder.resolve().name
    if len(split_folders) == 1:
        return *train_test_split(ImageDataset(images, labels, tuple(classes), name)), unreadable
    num_train = sum(split_folder == split_folders[0] for split_folder, _ in kept)  # the training images come first
    train, test = (
        ImageDataset(images[rows], labels[rows], tuple(classes), name)
        for rows in (slice(num_train), slice(num_train, None))
    )
    return train, test, unreadable


def decode_images(
    paths: list[Path], image_size: int, on_progress: ProgressCallback | None
) -> tuple[UInt8[Tensor, "n c {image_size} {image_size}"], list[str]]:
    """The readable images, with one channel if all of them are gray, and for each path why it is unreadable, or ""."""
    images = torch.empty(len(paths), 3, image_size, image_size, dtype=torch.uint8)
    reasons: list[str] = []
    count = 0
    # Each reading silences Pillow's warnings, but threads put the filters back in any order: this outer one comes last.
    with warnings.catch_warnings(), ThreadPoolExecutor(DECODE_THREADS) as pool:
        for result in pool.map(lambda path: read_or_reason(path, image_size), paths):
            if isinstance(result, str):
                reasons.append(result)
            else:
                reasons.append("")
                images[count] = result
                count += 1
            if on_progress:
                on_progress(len(reasons), len(paths))
    images = images[:count]
    if all(bool((image == image[:1]).all()) for image in images):  # ends at the first one in color
        images = images[:, :1].clone()
    return images, reasons


def read_or_reason(path: Path, image_size: int) -> UInt8[Tensor, "3 {image_size} {image_size}"] | str:
    """The image at the dataset's size, or why it is unreadable."""
    try:
        return resize_and_center_crop(read_image_file(path), (image_size, image_size), channels=3)
    except LabError as error:
        return str(error)


def subfolder_names(folder: Path) -> list[str]:
    return sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def image_paths(folder: Path) -> list[Path]:
    """Every file in and below the folder, in the same order on every machine."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [
        folder / name
        for name in sorted(names, key=Path.as_posix)
        if not any(part.startswith(".") for part in name.parts)
    ]
