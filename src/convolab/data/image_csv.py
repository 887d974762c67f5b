"""The user's own dataset: a CSV file with the path and the label of each image."""

import csv
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import user_path
from convolab.core.text import pluralize
from convolab.data.folder_layout import MAX_FILES, SPLIT_NAMES, shown_path
from convolab.data.image_source import ImageSource, decode_files, empty_classes

COLUMNS = {  # what a column is called, in any case: what it holds
    "path": "path",
    "file": "path",
    "image": "path",
    "label": "label",
    "class": "label",
    "split": "split",
}
HEADER = "path,label or path,label,split"
MAX_LINE_LENGTH = 20_000  # characters of a line
MAX_LABEL_LENGTH = 200  # characters


def find_csv_images(given: str, data_dir: Path | None, image_size: int) -> ImageSource:
    """The images that a CSV file lists; none is decoded.

    Its first row names the columns: `path` (or `file`, `image`), `label` (or `class`) and perhaps `split`, whose values
    are train, val and test, spelled as folders may be. Without it a fixed fifth of each class is for testing. Classes
    are in alphabetical order, or, if all are whole numbers, in that of the numbers.

    Args:
        given: the path of the file; paths in it start at its folder, unless they are absolute.
        data_dir: where a relative path starts, by default the current folder.
        image_size: height and width, in pixels, that each image is resized to, 8 to 512; the center is kept.

    Raises LabError, with the number of the row, for what is not a path, label or split.
    """
    file = (data_dir or Path()) / user_path(given)
    where = shown_path(file)
    require(file.is_file(), f"cannot read {where}: give a CSV file with the columns {HEADER}")
    base = file.resolve().parent
    paths: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    missing = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for number, path, label, split in read_rows(lines, where):
                full_path = os.path.join(base, path)
                missing += not is_there(full_path, f"{where}, row {number}")
                paths.append(full_path)
                labels.append(label)
                splits.append(split)
    except OSError as error:
        raise LabError(f"cannot read {where} ({error.strerror}): check the file") from error
    except UnicodeDecodeError as error:
        raise LabError(f"{where} is not text in UTF-8: save it as CSV UTF-8") from error
    require(paths, f"{where} has no rows below its header: add a row for each image")
    require(
        missing < len(paths),
        f"{where}: there is no file at any of its {pluralize(len(paths), 'path')}, such as {escape_line(paths[0], 300)}: "
        "write them absolute, or from the folder of the CSV file",
    )
    classes = sorted(set(labels), key=class_order(labels))
    index = {name: label for label, name in enumerate(classes)}
    size = (image_size, image_size)
    return ImageSource(
        name=escape_line(file.stem, 200),
        where=shown_path(file.resolve()),
        classes=tuple(classes),
        splits=splits,
        labels=[index[label] for label in labels],
        names=[escape_line(os.path.relpath(path, base), 200) for path in paths],
        size=size,
        decode=lambda: decode_files(paths, size, base),
        files=paths,
        kind="csv",
        never_empty=empty_classes(classes, splits, where),
    )


def read_rows(lines: TextIO, where: str) -> Iterator[tuple[int, str, str, str]]:
    """Of each row its number, as a spreadsheet counts them, path, label and split."""
    header = read_line(lines, where)
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().casefold() for name in next(csv.reader([header], delimiter=delimiter), [])]
    columns = {
        kind: [index for index, name in enumerate(names) if COLUMNS.get(name) == kind] for kind in COLUMNS.values()
    }
    for kind, indices in columns.items():
        known = " or ".join(f"'{name}'" for name, of in COLUMNS.items() if of == kind)
        require(
            len(indices) == 1 or (kind == "split" and not indices),
            f"{where}: the first row, {escape_line(header.strip(), 100)!r}, has "
            f"{len(indices) or 'no'} column{'s' * (len(indices) != 1)} {known}: write {HEADER}",
        )
    ((path_column,), (label_column,)) = columns["path"], columns["label"]
    split_column = columns["split"][0] if columns["split"] else None
    reader = csv.reader(iter(lambda: read_line(lines, where), ""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for number, row in enumerate(reader, start=2):
            require(number <= MAX_FILES + 1, f"{where} has more than {MAX_FILES:,} rows: give fewer images")
            if not any(cell.strip() for cell in row):
                continue
            context = f"{where}, row {number}"
            require(len(row) == len(names), f"{context} has {pluralize(len(row), 'cell')}, the header {len(names)}")
            path, label = row[path_column].strip(), row[label_column].strip()
            require(path, f"{context} has no path")
            require("\0" not in path, f"{context}: the path has a NUL character, which no file name can have")
            require(label, f"{context} has no label")
            require(
                len(label) <= MAX_LABEL_LENGTH,
                f"{context}: the label has {len(label):,} characters: use at most {MAX_LABEL_LENGTH}",
            )
            split = "" if split_column is None else row[split_column].strip().casefold()
            require(
                split_column is None or split in SPLIT_NAMES,
                f"{context}: the split is {escape_line(split, 40)!r}: write train, val or test",
            )
            yield number, path, label, SPLIT_NAMES.get(split, "")
    except csv.Error as error:
        raise LabError(f"{where}, near row {number + 1}: not CSV ({error})") from error


def read_line(lines: TextIO, where: str) -> str:
    line = lines.readline(MAX_LINE_LENGTH + 1)
    require(len(line) <= MAX_LINE_LENGTH, f"{where} has a line of more than {MAX_LINE_LENGTH:,} characters: is it CSV?")
    return line


def is_there(path: str, context: str) -> bool:
    """Whether there is a file; one that is missing is listed later. Raises LabError for a folder, pipe or device."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    require(
        stat.S_ISREG(mode),
        f"{context}: {escape_line(path, 300)} is a {'folder' if stat.S_ISDIR(mode) else 'pipe or a device'}, "
        "not a file: give an image file",
    )
    return True


def class_order(labels: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    """What to sort labels by: if all are whole numbers by these, and where two are equal, as 1 and 01, as text.

    >>> labels = ["10", "2", "02"]
    >>> sorted(labels, key=class_order(labels)), sorted([*labels, "a"], key=class_order([*labels, "a"]))
    (['02', '2', '10'], ['02', '10', '2', 'a'])
    """
    are_numbers = all(label.isascii() and label.isdecimal() and len(label) < 10 for label in labels)
    return lambda label: (int(label) if are_numbers else 0, label)
