"""Photos in which things are boxed: a folder with boxes.json, to hold localisation against."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convolab.core.errors import require
from convolab.core.files import read_json

BoundingBox = tuple[
    float | int, float | int, float | int, float | int
]  # left, top, right, bottom in the photo's pixels


@dataclass(frozen=True)
class AnnotatedImage:
    """A photo, and for each kind of thing in it all boxes of that kind."""

    path: Path
    objects: dict[str, tuple[BoundingBox, ...]]


def read_annotations(folder: Path | str) -> tuple[list[AnnotatedImage], dict[str, tuple[int, ...]]]:
    """The photos of a folder in the order of its boxes.json, and which of ImageNet's classes each kind of thing comprises.

    boxes.json is {"images": {FILE: {"targets": {KIND: {"boxes": [[left, top, right, bottom], ...]}}}}}, and may have
    {"imagenet_ids": {KIND: [index, ...]}}. Raises LabError, with the file's name first, for anything else.
    """
    file = Path(folder) / "boxes.json"
    require(
        file.is_file(),
        f"{folder} holds no boxes.json, which says what is where in the photos: give a folder that has one",
    )
    content = read_json(file)
    format_message = f'{file} is not what was expected: {{"images": {{FILE: {{"targets": {{KIND: {{"boxes": [[left, top, right, bottom]]}}}}}}}}}}'
    require(isinstance(content, dict) and isinstance(content.get("images"), dict) and content["images"], format_message)
    annotated = []
    for name, entry in content["images"].items():
        targets = entry.get("targets") if isinstance(entry, dict) else None
        require(isinstance(targets, dict) and targets, f"{file}: {name} has no targets")
        annotated.append(
            AnnotatedImage(
                Path(folder) / name,
                {kind: parse_boxes(value, f"{file}: {kind} in {name}") for kind, value in targets.items()},
            )
        )
        require(annotated[-1].path.is_file(), f"{file} names {name}, which is not there")
    categories = content.get("imagenet_ids", {})
    require(isinstance(categories, dict), format_message)
    return annotated, {category: tuple(indices) for category, indices in categories.items()}


def parse_boxes(value: Any, context: str) -> tuple[BoundingBox, ...]:
    boxes = value.get("boxes") if isinstance(value, dict) else None
    require(isinstance(boxes, list) and boxes, f"{context} has no boxes")
    for box in boxes:
        is_box = isinstance(box, list) and len(box) == 4 and all(isinstance(n, int | float) for n in box)
        require(
            is_box and box[0] < box[2] and box[1] < box[3],
            f"{context} has the box {box}: give [left, top, right, bottom]",
        )
    return tuple(tuple(box) for box in boxes)
