"""The user's own dataset: a folder with one subfolder of images per class."""

import os
from pathlib import Path

from convolab.core.errors import require
from convolab.core.escape import escape_line
from convolab.core.files import user_path
from convolab.data.folder_layout import find_files, find_layout, shown_path
from convolab.data.image_source import MAX_SIDE, MIN_SIDE, ImageSource, decode_files


def find_image_folder(given: str, data_dir: Path | None, image_size: int) -> ImageSource:
    """The images of a folder, listed and not decoded; see `image_source.decode_source`.

    A folder that holds `train`, and perhaps `val` and `test` (or `training`, `valid`, `validation`, `testing`; in any
    case), is split so; of any other, a fixed fifth of each class is for testing. Hidden files and folders are skipped.

    Args:
        given: the path of a folder; it holds one subfolder of images per class, or such folders for each split, with the same classes.
        data_dir: where a relative path starts, by default the current folder.
        image_size: height and width, in pixels, that each image is resized to, 8 to 512; the center is kept.

    Raises LabError if the size is out of range, there are fewer than two classes, the splits have different ones, or
    the classes look like splits.
    """
    folder = (data_dir or Path()) / user_path(given)
    require(
        MIN_SIDE <= image_size <= MAX_SIDE,
        f"image size {image_size} was requested: give one from {MIN_SIDE} to {MAX_SIDE}",
    )
    require(
        folder.is_dir() and os.access(folder, os.R_OK | os.X_OK),
        f"cannot read {shown_path(folder)}: give a folder with one subfolder of images per class",
    )
    layout = find_layout(folder)
    entries: list[tuple[str, int, Path]] = []  # split, label, file
    links: list[Path] = []
    never_empty: dict[tuple[str, int], str] = {}
    for split, split_folder in layout.splits.items():
        for label, name in enumerate(layout.classes):
            files, class_links = find_files(split_folder / name)
            entries += [(split, label, path) for path in files]
            links += class_links
            never_empty[split, label] = (
                f"{shown_path(split_folder / name)} has no readable image: add some, or delete the folder"
            )
    paths = [path for _, _, path in entries]
    size = (image_size, image_size)
    return ImageSource(
        name=escape_line(folder.resolve().name, 200) or "/",
        where=shown_path(folder.resolve()),
        classes=layout.classes,
        splits=[split for split, _, _ in entries],
        labels=[label for _, label, _ in entries],
        names=[relative_name(path, folder) for path in paths],
        size=size,
        decode=lambda: decode_files(paths, size, folder),
        files=paths,
        never_empty=never_empty,
        unreadable=tuple(
            f"{relative_name(link, folder)}: a link to a folder is not followed: copy it" for link in links
        ),
        notes=layout.notes,
    )


def relative_name(path: Path, folder: Path) -> str:
    return escape_line(str(path.relative_to(folder)), 200)
