"""Images of a person's own that are known and not decoded yet, wherever they are listed, and how they become splits."""

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import MAX_PATH_BYTES
from convolab.core.text import truncate_list
from convolab.core.types import MessageCallback
from convolab.data.copies import describe_copies
from convolab.data.dataset import ImageDataset, require_class_names, similar_class_names
from convolab.data.download import ProgressCallback
from convolab.data.image_io import (
    MAX_BYTES_PER_PIXEL,
    MAX_FILE_OVERHEAD,
    MAX_IMAGE_PIXELS,
    may_pass,
    read_image_file,
    resize_and_center_crop,
)
from convolab.data.splits import DatasetSplits, train_test_subsets

MIN_SIDE = 8  # pixels of an image
MAX_SIDE = 512
MAX_CLASSES = 10_000  # a confusion matrix of all has 800 MB
MAX_MEMORY_BYTES = 1_000_000_000  # of a set, decoded, that is kept in memory; a larger one is decoded to the disk
DECODE_THREADS = min(8, os.cpu_count() or 1)  # each holds one photo in full size
DECODE_AHEAD = 64  # images that are decoded before the first of them is stored
SETTLING_SECONDS = 2.0  # the coarsest clock of a file system: later changes have another time
Readable = TypeVar("Readable")


class PassingFailure(str):
    """Why an image could not be read, where the next try may succeed: the disk, the network or memory failed."""


DARK = 32  # of 255, an eighth of the range
NUM_LOOKED_AT = 1000  # images, for the brightest pixel
Decoded = Generator[UInt8[Tensor, "c h w"] | str]  # images, and for an unreadable one the reason


@dataclass(frozen=True)
class ImageSource:
    """Images that are listed: nothing of their pixels has been read."""

    name: str  # of the dataset
    where: str  # the folder or file, as messages name it
    classes: tuple[str, ...]
    splits: Sequence[str]  # of each image "train", "validation" or "test"; "" for all where there are no splits
    labels: Sequence[int]
    names: Sequence[str]  # of each image, for notes and for `ImageDataset.names`
    size: tuple[int, int]  # height and width that its images have, once decoded
    decode: Callable[[], Decoded]  # every image, in order, with 1 or 3 channels
    files: Sequence[Path | str]  # whatever the pixels depend on
    kind: str = "folder"  # how it is decoded
    never_empty: Mapping[tuple[str, int], str] = field(default_factory=dict)  # (split, label): what to say if it is
    unreadable: tuple[str, ...] = ()  # what was left out before
    notes: tuple[str, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Of all images in color."""
        return 3 * self.size[0] * self.size[1] * len(self.labels)

    def class_counts(self) -> dict[str, list[int]]:
        """How many images each split has of each class, if all can be read. Raises LabError for a class that has none."""
        kept = KeptImages.of(self, [""] * len(self.labels))
        num_classes = len(self.classes)
        return {
            split: torch.bincount(kept.labels[indices], minlength=num_classes).tolist()
            for split, indices in kept.indices.items()
        }

    def require_usable(self) -> None:
        """Raise LabError, before anything is decoded, for a size, classes or splits that cannot be trained on."""
        for side in self.size:
            require(
                MIN_SIDE <= side <= MAX_SIDE, f"image size {side} was requested: give one from {MIN_SIDE} to {MAX_SIDE}"
            )
        count = len(self.classes)
        require(count >= 2, f"{self.where} has {'one class' if count else 'no classes'}: give images of at least two")
        require(count <= MAX_CLASSES, f"{self.where} has {count:,} classes, more than {MAX_CLASSES:,}: give fewer")
        require_class_names(self.classes, self.where)
        splits = set(self.splits)
        require(splits == {""} or "" not in splits, f"{self.where}: some images have a split and some have none")
        require(
            splits == {""} or "train" in splits, f"{self.where} has no training images: name the split of some train"
        )


def recipe_side(side: int) -> int:
    """A recipe's `data.image_size`, if it is one. Raises LabError, naming the key, for any other.

    A bound in the recipe's type would stay what it was at the import when the limit is lifted.
    """
    require(MIN_SIDE <= side <= MAX_SIDE, f"data.image_size = {side}: give {MIN_SIDE} to {MAX_SIDE} pixels")
    return side


def empty_classes(classes: Sequence[str], splits: Sequence[str], where: str) -> dict[tuple[str, int], str]:
    """What to say of a class without training images, for a source that is not a folder."""
    split = "train" if "train" in splits else ""
    return {
        (split, label): f"{where}: the class '{escape_line(name, 100)}' has no readable training image: add some"
        for label, name in enumerate(classes)
    }


def decode_source(
    source: ImageSource, on_progress: ProgressCallback | None = None, on_message: MessageCallback | None = None
) -> DatasetSplits:
    """Decode a source: up to `MAX_MEMORY_BYTES` into memory, more into a file that is mapped, once.

    There is one channel if every image is gray, else three. Without splits a fixed fifth of each class is for testing.

    Args:
        source: the images.
        on_progress: called with (images decoded, images in total).
        on_message: called with what will be written to the disk, before it is.

    Raises LabError if there is nothing to train on, the disk is too small, or the images change meanwhile.
    """
    source.require_usable()
    if source.num_bytes > MAX_MEMORY_BYTES:
        from convolab.data.decoded_cache import read_through_cache

        return read_through_cache(source, on_progress, on_message)
    height, width = source.size
    images = torch.empty(len(source.labels), 3, height, width, dtype=torch.uint8)
    reasons: list[str] = []
    count = 0
    with closing(source.decode()) as decoded:
        for image in decoded:
            reasons.append(image if isinstance(image, str) else "")
            if not isinstance(image, str):
                images[count] = image
                count += 1
            if on_progress:
                on_progress(len(reasons), len(source.labels))
    images = images[:count]
    if all(is_gray(image) for image in images):  # ends at the first one in color
        images = images[:, :1].clone()
    kept = KeptImages.of(source, reasons)
    notes = kept.notes(source, images)
    datasets = {
        split: ImageDataset(
            images.index_select(0, indices),
            kept.labels[indices],
            source.classes,
            source.name,
            names_at(source, kept.positions[indices]),
        )
        for split, indices in kept.indices.items()
    }
    return to_splits(datasets, kept.unreadable, notes)


@dataclass(frozen=True)
class KeptImages:
    """The images of a source that could be read, in its order, and which of them each split has."""

    labels: Int64[Tensor, "n"]
    positions: Int64[Tensor, "n"]  # of each in the source
    indices: dict[str, Int64[Tensor, "m"]]  # of "train", and perhaps "validation" and "test"
    unreadable: tuple[str, ...]  # the reasons for the others

    @classmethod
    def of(cls, source: ImageSource, reasons: Sequence[str]) -> "KeptImages":
        """Leave out the unreadable images. Raises LabError if that leaves nothing of what may not be empty."""
        kept = [index for index, reason in enumerate(reasons) if not reason]
        splits = [source.splits[index] for index in kept]
        labels = [source.labels[index] for index in kept]
        present = set(zip(splits, labels, strict=True))
        for key, message in source.never_empty.items():
            if key not in present:
                places = zip(source.splits, source.labels, reasons, strict=True)
                why = next((reason for split, label, reason in places if (split, label) == key and reason), "")
                raise LabError(f"{message} ({why})" if why else message)
        label_tensor = torch.tensor(labels, dtype=torch.int64)
        if "" in source.splits:
            no_pixels = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(len(kept), 1, 1, 1)
            train, test = train_test_subsets(ImageDataset(no_pixels, label_tensor, source.classes, source.name))
            indices = {"train": train.indices, "test": test.indices}
        else:
            indices = {
                split: torch.tensor([index for index, name in enumerate(splits) if name == split])
                for split in ("train", "validation", "test")
                if split in splits
            }
        unreadable = tuple(reason for reason in reasons if reason) + source.unreadable
        return cls(label_tensor, torch.tensor(kept, dtype=torch.int64), indices, unreadable)

    def notes(self, source: ImageSource, images: UInt8[Tensor, "n c h w"]) -> tuple[str, ...]:
        """What a person should know of the images."""
        split_of_image = [""] * len(images)
        for split, indices in self.indices.items():
            for index in indices.tolist():
                split_of_image[index] = split
        copies = describe_copies(images, self.labels, split_of_image, names_at(source, self.positions))
        names = (*similar_class_names(source.classes), *self.untested_classes(source.classes))
        return (*source.notes, *names, *nearly_black(images), *copies)

    def untested_classes(self, classes: Sequence[str]) -> list[str]:
        """A note for each split but training that has no image of a class."""
        notes = []
        for split, indices in self.indices.items():
            counts = torch.bincount(self.labels[indices], minlength=len(classes)).tolist()
            missing = [f"'{name}'" for name, count in zip(classes, counts, strict=True) if not count]
            if split != "train" and missing:
                notes.append(f"{split} has no image of {truncate_list(missing, 3)}: its accuracy says nothing of that")
        return notes


def nearly_black(images: UInt8[Tensor, "n c h w"]) -> list[str]:
    """A note if all images are nearly black, as images of 16 bits are that use only the lowest of them.

    >>> nearly_black(torch.full((2, 1, 8, 8), 6, dtype=torch.uint8))
    ['the brightest pixel of the images is 6 of 255: if they use a part of their 16 bits, most of it is lost; scale them first']
    """
    brightest = int(images[:NUM_LOOKED_AT].max()) if len(images) else 255
    if brightest >= DARK or not brightest:
        return []
    return [
        f"the brightest pixel of the images is {brightest} of 255: if they use a part of their 16 bits, most of it is "
        "lost; scale them first"
    ]


def names_at(source: ImageSource, positions: Int64[Tensor, "n"]) -> tuple[str, ...]:
    places: list[int] = positions.tolist()
    return tuple(source.names[place] for place in places)


def to_splits(
    datasets: Mapping[str, ImageDataset], unreadable: tuple[str, ...], notes: tuple[str, ...]
) -> DatasetSplits:
    return DatasetSplits(
        datasets["train"], datasets.get("test"), unreadable, validation=datasets.get("validation"), notes=notes
    )


def is_gray(image: UInt8[Tensor, "c h w"]) -> bool:
    return bool((image == image[:1]).all())


def describe_failure(error: LabError, prefix: str = "") -> str:
    """Why an image could not be read, without the folder that its path begins with; known by its type if it may pass."""
    reason = str(error).removeprefix(prefix)
    return PassingFailure(reason) if may_pass(error.__cause__) else reason


def decode_files(paths: Sequence[Path | str], size: tuple[int, int], folder: Path | str = "") -> Decoded:
    """The images of files, resized; for an unreadable one its path, in `folder`, and the reason."""
    prefix = escape_line(f"{folder}{os.sep}", MAX_PATH_BYTES) if str(folder) else ""

    def read(path: Path | str) -> UInt8[Tensor, "3 h w"] | str:
        try:
            return resize_and_center_crop(read_image_file(path), size, channels=3)
        except LabError as error:
            return describe_failure(error, prefix)

    return decode_in_threads(paths, read)


def decode_in_threads(items: Iterable[Readable], read: Callable[[Readable], UInt8[Tensor, "3 h w"] | str]) -> Decoded:
    """What `read` makes of each item, in order; only some are taken ahead."""
    # Each reading silences Pillow's warnings, but threads put the filters back in any order: this outer one comes last.
    with warnings.catch_warnings(), ThreadPoolExecutor(DECODE_THREADS) as pool:
        remaining = iter(items)
        while some := list(islice(remaining, DECODE_AHEAD)):
            yield from pool.map(read, some)


def source_digest(source: ImageSource) -> str:
    """SHA-256 of all that decides the pixels, the splits and the notes: of each file its path, inode, size and times.

    The time of change (ctime) is the kernel's: nobody can set it, so a file that was changed has another digest, also
    if its size and its modification time are as before. A file that changed in the last two seconds could change again
    at the same time of a coarse clock: then this waits until they are over.
    """
    import PIL

    digest = hashlib.sha256()
    user = os.geteuid() if hasattr(os, "geteuid") else 0  # decides what may be read
    about = (source.kind, source.where, source.classes, source.size, source.unreadable, source.notes)
    about = (*about, user, PIL.__version__, MAX_IMAGE_PIXELS, MAX_BYTES_PER_PIXEL, MAX_FILE_OVERHEAD)
    digest.update(repr(about).encode(errors="surrogateescape"))
    for entry in zip(source.splits, source.labels, source.names, strict=True):
        digest.update(repr(entry).encode(errors="surrogateescape"))
    newest = 0.0
    for path in source.files:
        try:
            status = os.stat(path)
        except OSError as error:
            state: tuple[object, ...] = (error.errno,)
        else:
            state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            newest = max(newest, status.st_ctime)
        digest.update(repr((str(path), state)).encode(errors="surrogateescape"))
    time.sleep(min(max(newest + SETTLING_SECONDS - time.time(), 0), SETTLING_SECONDS))
    return digest.hexdigest()
