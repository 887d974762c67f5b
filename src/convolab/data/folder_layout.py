"""How a folder of images is laid out: its classes, and its splits where it has some."""

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.text import join_with_and, truncate_list
from convolab.data.dataset import require_class_names

SPLIT_NAMES = {  # of a folder, in any case: the split that it holds
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# As it is written where the images of each split are not sorted by class: test_set, train-images, val2.
LIKE_SPLIT = re.compile(
    r"(?:(?:set|images?|imgs?|data)[ _.-]?)?(?:train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?|dev|eval|holdout)"
    r"(?:[ _.-]?(?:set|split|images?|imgs?|data|\d+))*",
    re.IGNORECASE,
)
LAYOUT = "put the images of each class in a subfolder of its own, for at least two classes"
SPLIT_LAYOUT = "put them in train/CLASS, val/CLASS and test/CLASS"
MAX_FILES = 2_000_000


@dataclass(frozen=True)
class FolderLayout:
    """Where the images of each split and class are."""

    splits: dict[str, Path]  # "train", and perhaps "validation" and "test"; only "" where there are no splits
    classes: tuple[str, ...]
    notes: tuple[str, ...]  # what a person should know of it


def find_layout(folder: Path) -> FolderLayout:
    """The layout of a folder with a subfolder for each class, or with such folders named train, val and test.

    Raises LabError, in a line that says what to do, for anything else.
    """
    names = subfolder_names(folder)
    split_names = [name for name in names if name.casefold() in SPLIT_NAMES]
    other_names = [name for name in names if name not in split_names]
    notes: list[str] = []
    if split_names and other_names:
        # A train may be a class beside a tram: then it holds images, and no folders.
        holders = [name for name in split_names if subfolder_names(folder / name)]
        require(
            not holders,
            f"{shown_path(folder)} holds the splits {shown_names(holders)}, but {shown_names(other_names)} beside them: if "
            f"these are classes, {SPLIT_LAYOUT}; else move them away",
        )
        notes += [
            f"the folder '{name}' is read as a class: beside it are others, and it holds no classes"
            for name in split_names
        ]
        split_names = []
    splits = find_splits(folder, split_names) if split_names else {"": folder}
    first = next(iter(splits.values()))
    classes = subfolder_names(first)
    require_class_folders(first, classes)
    for split_folder in splits.values():
        other_classes = subfolder_names(split_folder)
        require(
            other_classes == classes,
            f"{shown_path(split_folder)} has the classes {shown_names(other_classes)}, "
            f"but {shown_path(first)} has {shown_names(classes)}: make them the same",
        )
    require_class_names(classes, shown_path(folder))
    return FolderLayout(splits, tuple(classes), (*notes, *linked_folders(splits, classes)))


def find_splits(folder: Path, names: list[str]) -> dict[str, Path]:
    """The folders of the splits, the training images first. Raises LabError if there are two for one, or none to train."""
    by_split: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_split[SPLIT_NAMES[name.casefold()]].append(name)
    for split, found in by_split.items():
        require(len(found) == 1, f"{shown_path(folder)} has {join_with_and(found)}, both for {split}: keep one of them")
    require(
        "train" in by_split,
        f"{shown_path(folder)} has {join_with_and(names)}, but nothing to train on: add a folder train",
    )
    return {split: folder / by_split[split][0] for split in ("train", "validation", "test") if split in by_split}


def require_class_folders(folder: Path, classes: list[str]) -> None:
    """Raise LabError if there are too few classes, or if what looks like classes are splits."""
    if len(classes) < 2:
        count = "one subfolder" if classes else "no subfolders"
        inner = folder / classes[0] if classes else folder
        hint = f", or give {shown_path(inner)}, which has several" if len(subfolder_names(inner)) > 1 else ""
        raise LabError(f"{shown_path(folder)} has {count}: {LAYOUT}{hint}")
    inner_names = [sorted(inner.casefold() for inner in subfolder_names(folder / name)) for name in classes]
    require(
        not all(LIKE_SPLIT.fullmatch(name.strip()) for name in classes),
        f"all of {shown_names(classes)} in {shown_path(folder)} are called like splits, and not like classes: "
        f"{SPLIT_LAYOUT}",
    )
    shared = inner_names[0]
    if not shared or any(names != shared for names in inner_names):
        return
    is_split = len(shared) == 1 and shared[0] in SPLIT_NAMES
    if len(shared) == 1 and not is_split and not hold_the_same([only_subfolder(folder / name) for name in classes]):
        return  # one folder each, such as images/
    listed = f"all of {shown_names(classes)} in {shown_path(folder)} hold the same subfolders, {shown_names(shared)}"
    if all(name in SPLIT_NAMES for name in shared):
        raise LabError(f"{listed}: the splits belong outside of the classes; {SPLIT_LAYOUT}")
    raise LabError(
        f"{listed}: these look like splits that each hold the classes; {SPLIT_LAYOUT}, or the images of each class "
        "without subfolders"
    )


def only_subfolder(folder: Path) -> Path:
    return folder / subfolder_names(folder)[0]


def hold_the_same(folders: list[Path]) -> bool:
    """Whether folders have the same subfolders, and at least two of them."""
    first, *others = (sorted(name.casefold() for name in subfolder_names(folder)) for folder in folders)
    return len(first) > 1 and all(names == first for names in others)


def linked_folders(splits: dict[str, Path], classes: list[str]) -> list[str]:
    """A note for each class folder that is, through a link, also another one."""
    by_target: dict[Path, list[str]] = defaultdict(list)
    for split_folder in splits.values():
        for name in classes:
            shown = f"{split_folder.name}/{name}" if len(splits) > 1 else name
            by_target[(split_folder / name).resolve()].append(escape_line(shown, 200))
    return [f"{join_with_and(names)} are one folder, by a link" for names in by_target.values() if len(names) > 1]


def find_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Every file in and below a folder, whatever it is, and every link to a folder, which is not followed.

    Both in the same order on every machine. Hidden files and folders are left out. Raises LabError for a folder that
    cannot be read, and for too many files.
    """
    files: list[Path] = []
    links: list[Path] = []
    for current, folder_names, file_names in os.walk(folder, onerror=refuse_unreadable):
        folder_names[:] = [name for name in folder_names if not is_hidden(name)]
        links += [Path(current, name) for name in folder_names if os.path.islink(os.path.join(current, name))]
        files += [Path(current, name) for name in file_names if not is_hidden(name)]
        require(
            len(files) <= MAX_FILES, f"{shown_path(folder)} has more than {MAX_FILES:,} files: give a smaller folder"
        )
    return sorted(files, key=Path.as_posix), sorted(links, key=Path.as_posix)


def subfolder_names(folder: Path) -> list[str]:
    try:
        return sorted(inner.name for inner in folder.iterdir() if inner.is_dir() and not is_hidden(inner.name))
    except OSError as error:
        refuse_unreadable(error)
        return []


def refuse_unreadable(error: OSError) -> None:
    raise LabError(
        f"cannot read {shown_path(Path(error.filename))} ({error.strerror}): give a folder with one subfolder of images per "
        "class that you may read"
    ) from error


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # what a Mac adds to archives


def shown_path(path: Path) -> str:
    return escape_line(str(path), 300)


def shown_names(names: list[str]) -> str:
    return escape_line(truncate_list(names), 300)
