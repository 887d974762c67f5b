"""Images annotated with object boxes: a folder with boxes.json, for evaluating localization."""

import reprlib
from dataclasses import dataclass
from pathlib import Path

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import parse_json, read_text, user_path
from convolab.core.text import format_bytes

BoundingBox = tuple[float | int, float | int, float | int, float | int]  # left, top, right, bottom, in pixels
MAX_FILE_BYTES = 50_000_000
MAX_COORDINATE = 1_000_000  # pixels
EXPECTED_FORMAT = '{"images": {FILE: {"targets": {CATEGORY: {"boxes": [[left, top, right, bottom]]}}}}}'


@dataclass(frozen=True)
class AnnotatedImage:
    """A photo, and the boxes of all objects in it, by category."""

    path: Path
    objects: dict[str, tuple[BoundingBox, ...]]


def read_annotations(folder: Path | str) -> tuple[list[AnnotatedImage], dict[str, tuple[int, ...]]]:
    """The photos of a folder in the order of its boxes.json, and which ImageNet classes each category comprises.

    boxes.json is {"images": {FILE: {"targets": {CATEGORY: {"boxes": [[left, top, right, bottom], ...]}}}}}, and may
    have {"imagenet_ids": {CATEGORY: [index, ...]}}. Raises LabError for anything else; its message begins with the
    file's name.
    """
    file = user_path(folder) / "boxes.json"
    require(
        file.is_file(),
        f"{escape_line(str(folder), 200)} has no boxes.json with the objects' boxes: give a folder that has one",
    )
    require(file.stat().st_size <= MAX_FILE_BYTES, f"{file} is larger than {format_bytes(MAX_FILE_BYTES)}: split it")
    content = parse_json(read_text(file, MAX_FILE_BYTES), file)
    format_message = f"{file} does not have the expected format {EXPECTED_FORMAT}"
    require(isinstance(content, dict) and isinstance(content.get("images"), dict) and content["images"], format_message)
    annotated = []
    for name, entry in content["images"].items():
        targets = entry.get("targets") if isinstance(entry, dict) else None
        shown = escape_line(name, 100)
        if not isinstance(targets, dict) or not targets:
            raise LabError(f"{file}: {shown} has no targets")
        try:
            path = user_path(file.parent / name)
        except LabError as error:
            raise LabError(f"{file} lists {error}") from error
        objects = {
            category: parse_boxes(value, f"{file}: {escape_line(category, 100)} in {shown}")
            for category, value in targets.items()
        }
        require(path.is_file(), f"{file} lists {shown}, which does not exist")
        annotated.append(AnnotatedImage(path, objects))
    categories = content.get("imagenet_ids", {})
    require(isinstance(categories, dict), format_message)
    for category, indices in categories.items():
        require(
            isinstance(indices, list)
            and indices
            and all(type(index) is int and 0 <= index < 1000 for index in indices),
            f"{file}: imagenet_ids of {escape_line(category, 100)} is {escape_line(reprlib.repr(indices), 60)}: give a list of "
            "ImageNet classes, such as [281, 282]",
        )
    return annotated, {category: tuple(indices) for category, indices in categories.items()}


def parse_boxes(value: object, context: str) -> tuple[BoundingBox, ...]:
    """The boxes of `{"boxes": [[left, top, right, bottom], ...]}`. Errors begin with the context."""
    boxes = value.get("boxes") if isinstance(value, dict) else None
    if not isinstance(boxes, list) or not boxes:
        raise LabError(f"{context} has no boxes")
    for box in boxes:
        is_box = isinstance(box, list) and len(box) == 4 and all(is_coordinate(number) for number in box)
        require(
            is_box and box[0] < box[2] and box[1] < box[3],
            f"{context} has the box {escape_line(reprlib.repr(box), 60)}: give [left, top, right, bottom]",
        )
    return tuple((left, top, right, bottom) for left, top, right, bottom in boxes)


def is_coordinate(value: object) -> bool:
    """Whether a value of a JSON file is a number of pixels; NaN is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_COORDINATE
