"""A picture set of one's own: a folder that holds a folder of pictures per class."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from convolab.core.errors import LabError, need
from convolab.data.dataset import ImageSet
from convolab.data.download import Progress
from convolab.data.image_io import fit, read_photo
from convolab.data.splits import with_test_set

THREADS = min(8, os.cpu_count() or 1)  # each holds a whole photo


def read_folder(
    folder: Path, size: int, on_progress: Progress | None = None
) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    """The train and the test set, uint8 [N, C, size, size], and the files that could not be read, each with the reason.

    A folder that holds exactly `train` and `test` is split so; of any other, a fixed fifth of each class is for the test.
    There is one channel if every picture is grey, else three. Hidden files and folders are passed over.
    Raises LabError if the size is not 8 to 64, there are fewer than two classes, the parts have different ones, or a class
    has no picture that can be read.
    """
    need(8 <= size <= 64, f"pictures of {size} x {size} pixels are wanted: give a size from 8 to 64")
    need(
        folder.is_dir() and os.access(folder, os.R_OK | os.X_OK),
        f"cannot look into {folder}: give a folder that holds a folder of pictures per class",
    )
    parts = [folder / "train", folder / "test"] if _folders(folder) == ["test", "train"] else [folder]
    classes = _folders(parts[0])
    count = "one folder" if classes else "no folders"
    need(
        len(classes) > 1,
        f"{parts[0]} holds {count}: put the pictures of each class into a folder of its own, for two classes or more",
    )
    for part in parts:
        need(
            _folders(part) == classes,
            f"{part} holds the classes {_few(_folders(part))}, but {parts[0]} holds {_few(classes)}: make them the same",
        )

    found = [
        (part, label, path) for part in parts for label, name in enumerate(classes) for path in _files(part / name)
    ]
    images, reasons = _decoded([path for _, _, path in found], size, on_progress)
    unreadable = tuple(reason.removeprefix(f"{folder}{os.sep}") for reason in reasons if reason)
    kept = [(part, label) for (part, label, _), reason in zip(found, reasons, strict=True) if not reason]
    held = set(kept)
    for part in parts:
        for label, name in enumerate(classes):
            need(
                (part, label) in held,
                f"{part / name} holds no picture that can be read: put some there, or remove the folder",
            )

    labels, name = torch.tensor([label for _, label in kept]), folder.resolve().name
    if len(parts) == 1:
        return *with_test_set(ImageSet(images, labels, tuple(classes), name)), unreadable
    end = sum(part == parts[0] for part, _ in kept)  # the training pictures come first
    train, test = (
        ImageSet(images[rows], labels[rows], tuple(classes), name) for rows in (slice(end), slice(end, None))
    )
    return train, test, unreadable


def _decoded(
    paths: list[Path], size: int, on_progress: Progress | None
) -> tuple[UInt8[Tensor, "n c {size} {size}"], list[str]]:
    """The pictures that can be read, grey if all of them are, and for each path why it cannot, or nothing."""
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    reasons: list[str] = []
    count = 0
    # Each reading silences Pillow's warnings, but threads put the filters back in any order: this outer one has the last word.
    with warnings.catch_warnings(), ThreadPoolExecutor(THREADS) as pool:
        for result in pool.map(lambda path: _fitted(path, size), paths):
            if isinstance(result, str):
                reasons.append(result)
            else:
                reasons.append("")
                images[count] = result
                count += 1
            if on_progress:
                on_progress(len(reasons), len(paths))
    images = images[:count]
    if all(bool((picture == picture[:1]).all()) for picture in images):  # ends at the first one in colour
        images = images[:, :1].clone()
    return images, reasons


def _fitted(path: Path, size: int) -> UInt8[Tensor, "3 {size} {size}"] | str:
    """The picture at the set's size, or why there is none."""
    try:
        return fit(read_photo(path), (size, size), channels=3)
    except LabError as error:
        return str(error)


def _folders(folder: Path) -> list[str]:
    return sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    """Every file in and below the folder, in the same order on every machine."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return [
        folder / name
        for name in sorted(names, key=Path.as_posix)
        if not any(part.startswith(".") for part in name.parts)
    ]


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + ("..." if len(names) > 5 else "") if names else "none"
