"""The user's own dataset: a folder with one subfolder of images per class."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import MAX_PATH_BYTES
from convolab.core.text import format_bytes
from convolab.data.copies import describe_copies
from convolab.data.dataset import ImageDataset, similar_class_names
from convolab.data.download import ProgressCallback
from convolab.data.folder_layout import FolderLayout, find_files, find_layout, shown_path
from convolab.data.image_io import read_image_file, resize_and_center_crop
from convolab.data.splits import DatasetSplits, train_test_subsets

MAX_DATASET_BYTES = 8_000_000_000  # of all images, resized, in memory
DECODE_THREADS = min(8, os.cpu_count() or 1)  # each holds one photo in full size


def read_image_folder(folder: Path, image_size: int, on_progress: ProgressCallback | None = None) -> DatasetSplits:
    """Read a folder into its splits, with the files that could not be read and what else a person should know.

    A folder that holds `train`, and perhaps `val` and `test` (or `training`, `valid`, `validation`, `testing`; in any
    case), is split so; of any other, a fixed fifth of each class is for testing. There is one channel if every image is
    gray, else three. Hidden files and folders are skipped.

    Args:
        folder: holds one subfolder of images per class, or such folders for each split, with the same classes.
        image_size: height and width, in pixels, that each image is resized to, 8 to 64; the center is kept.
        on_progress: called with (images read, images in total).

    Returns:
        The splits: uint8 images [N, C, image_size, image_size]; a line for each file that could not be read: its path
        in the folder, and the reason; a note for each kind of image that is there twice, and for similar names.

    Raises LabError if the size is out of range, there are fewer than two classes, the splits have different ones, the
    classes look like splits, or a class has no readable image.
    """
    require(8 <= image_size <= 64, f"image size {image_size} was requested: give one from 8 to 64")
    require(
        folder.is_dir() and os.access(folder, os.R_OK | os.X_OK),
        f"cannot read {shown_path(folder)}: give a folder with one subfolder of images per class",
    )
    layout = find_layout(folder)
    entries: list[tuple[str, int, Path]] = []  # split, label, file
    links: list[Path] = []
    for split, split_folder in layout.splits.items():
        for label, name in enumerate(layout.classes):
            files, class_links = find_files(split_folder / name)
            entries += [(split, label, path) for path in files]
            links += class_links
    num_bytes = 3 * image_size**2 * len(entries)
    require(
        num_bytes <= MAX_DATASET_BYTES,
        f"{len(entries):,} images of {image_size} x {image_size} take {format_bytes(num_bytes)}, more than "
        f"{format_bytes(MAX_DATASET_BYTES)}: give a smaller image size, or fewer images",
    )
    images, reasons = decode_images([path for _, _, path in entries], image_size, on_progress)
    prefix = escape_line(f"{folder}{os.sep}", MAX_PATH_BYTES)
    unreadable = [reason.removeprefix(prefix) for reason in reasons if reason]
    unreadable += [f"{relative_name(link, folder)}: a link to a folder is not followed: copy it" for link in links]
    kept = [entry for entry, reason in zip(entries, reasons, strict=True) if not reason]
    non_empty = {(split, label) for split, label, _ in kept}
    for split, split_folder in layout.splits.items():
        for label, name in enumerate(layout.classes):
            require(
                (split, label) in non_empty,
                f"{shown_path(split_folder / name)} has no readable image: add some, or delete the folder",
            )
    dataset = ImageDataset(
        images,
        torch.tensor([label for _, label, _ in kept]),
        layout.classes,
        escape_line(folder.resolve().name, 200) or "/",
    )
    return make_splits(
        dataset, [split for split, _, _ in kept], [path for _, _, path in kept], folder, layout, unreadable
    )


def make_splits(
    dataset: ImageDataset,
    splits: list[str],
    paths: list[Path],
    folder: Path,
    layout: FolderLayout,
    unreadable: list[str],
) -> DatasetSplits:
    """The splits of all images of a folder, and the notes on them; for each image its split, "" for none, and path."""
    if "" in layout.splits:
        train, test = train_test_subsets(dataset)
        subsets = {"train": train, "test": test}
    else:
        subsets = {
            split: dataset.subset(torch.tensor([index for index, name in enumerate(splits) if name == split]))
            for split in layout.splits
        }
    split_of_image = [""] * len(dataset)
    for split, subset in subsets.items():
        for index in subset.indices.tolist():
            split_of_image[index] = split
    names = [relative_name(path, folder) for path in paths]
    notes = [
        *layout.notes,
        *similar_class_names(layout.classes),
        *describe_copies(dataset.images, dataset.labels, split_of_image, names),
    ]
    datasets = {split: subset.copy() for split, subset in subsets.items()}
    return DatasetSplits(
        datasets["train"],
        datasets.get("test"),
        tuple(unreadable),
        validation=datasets.get("validation"),
        notes=tuple(notes),
    )


def relative_name(path: Path, folder: Path) -> str:
    return escape_line(str(path.relative_to(folder)), 200)


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
