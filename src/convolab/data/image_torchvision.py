"""Datasets that torchvision knows and has downloaded: `torchvision:NAME`, or `torchvision:NAME@PATH`."""

from itertools import chain
from pathlib import Path

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import user_path
from convolab.data.catalog import require_default_size
from convolab.data.folder_layout import shown_path
from convolab.data.image_source import Decoded, ImageSource, decode_files, empty_classes
from convolab.data.readers.torchvision_arrays import ARRAY_SETS, ArraySet
from convolab.data.readers.torchvision_files import FILE_SETS, FileList

KNOWN = sorted([*ARRAY_SETS, *FILE_SETS])
UNEXPECTED = (ValueError, TypeError, LookupError, AttributeError, OSError, RecursionError, EOFError, RuntimeError)


def find_torchvision_images(given: str, data_dir: Path | None, image_size: int) -> ImageSource:
    """The images of a dataset as `torchvision.datasets.NAME(PATH, download=True)` leaves it; nothing is downloaded.

    A class with train and test, and perhaps val, gives these splits; of any other a fixed fifth of each class is for
    testing. Class names are the class's. Arrays keep their size.

    Args:
        given: NAME, or NAME@PATH with the `root` that torchvision was given.
        data_dir: where a relative PATH starts, by default the current folder. Without PATH it is looked for there, and
            in `data` below.
        image_size: height and width, in pixels, that images of files are resized to, 8 to 512; the center is kept.

    Raises LabError for another name, a set that is not there, and files that are not as torchvision leaves them.
    """
    name, at, path = given.partition("@")
    require(name in KNOWN, f"torchvision's '{escape_line(name, 60)}' is not read: known: {', '.join(KNOWN)}")
    require(path or not at, f"torchvision:{given} has no path after the @: write torchvision:{name}@PATH")
    start = data_dir or Path()
    roots = [start / user_path(path)] if at else [start, start / "data"]
    folder = find_folder(name, roots)
    try:
        if name in FILE_SETS:
            return file_source(name, folder, FILE_SETS[name][1](folder), image_size)
        require_default_size(image_size, "its images")
        return array_source(name, folder, ARRAY_SETS[name][2](folder))
    except LabError as error:
        raise LabError(f"{name}: {error}") from error
    except UNEXPECTED as error:
        reason = escape_line(f"{type(error).__name__}: {error}", 200)
        raise LabError(f"{shown_path(folder)} is not as torchvision leaves {name} ({reason}): get it again") from error


def find_folder(name: str, roots: list[Path]) -> Path:
    """The folder of a set, in the first of the roots that has it. Raises LabError if none has."""
    folders, required = (FILE_SETS[name][0], ()) if name in FILE_SETS else ((ARRAY_SETS[name][0],), ARRAY_SETS[name][1])
    for root in roots:
        for folder in folders:
            if (root / folder).is_dir() and all((root / folder / file).is_file() for file in required):
                return root / folder
    places = " or ".join(shown_path(root / folders[0] / Path(*required[:1])) for root in roots)
    root = shown_path(roots[0])
    raise LabError(
        f"{name} is not in {places}: give its root as torchvision:{name}@PATH, or get it in Python with "
        f"torchvision.datasets.{name}({root!r}, download=True)"
    )


def file_source(name: str, folder: Path, listed: FileList, image_size: int) -> ImageSource:
    size = (image_size, image_size)
    where = shown_path(folder.resolve())
    require(listed.paths, f"{where} has no images: get it again")
    return ImageSource(
        name=name,
        where=where,
        classes=tuple(listed.classes),
        splits=listed.splits,
        labels=listed.labels,
        names=[escape_line(path.relative_to(folder).as_posix(), 200) for path in listed.paths],
        size=size,
        decode=lambda: decode_files(listed.paths, size, folder),
        files=listed.paths,
        kind=f"torchvision {name}",
        never_empty=empty_classes(listed.classes, listed.splits, where),
    )


def array_source(name: str, folder: Path, read: ArraySet) -> ImageSource:
    where = shown_path(folder.resolve())
    first = read.images["train"]
    for split, images in read.images.items():
        labels = read.labels[split]
        require(
            labels.shape == images.shape[:1] and images.shape[1:] == first.shape[1:],
            f"{where} has labels {list(labels.shape)} for images {list(images.shape)} of {split}: get it again",
        )
        require(
            not len(labels) or (int(labels.min()) >= 0 and int(labels.max()) < len(read.classes)),
            f"{where} has labels of {split} beyond its {len(read.classes)} classes: get it again",
        )
    splits = [split for split, images in read.images.items() for _ in range(len(images))]

    def decode() -> Decoded:
        yield from chain.from_iterable(read.images.values())

    return ImageSource(
        name=name,
        where=where,
        classes=read.classes,
        splits=splits,
        labels=[label for labels in read.labels.values() for label in labels.tolist()],
        names=[f"{split}[{index}]" for split, images in read.images.items() for index in range(len(images))],
        size=(first.shape[2], first.shape[3]),
        decode=decode,
        files=[],
        kind=f"torchvision {name}",
        never_empty=empty_classes(read.classes, splits, where),
    )
