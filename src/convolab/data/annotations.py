"""Images annotated with object boxes: a folder with boxes.json, for evaluating localization."""

from dataclasses import dataclass
from pathlib import Path

from convolab.core.errors import LabError, require
from convolab.core.files import read_json

BoundingBox = tuple[float | int, float | int, float | int, float | int]  # left, top, right, bottom, in pixels
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
    file = Path(folder) / "boxes.json"
    require(file.is_file(), f"{folder} has no boxes.json with the objects' boxes: give a folder that has one")
    content = read_json(file)
    format_message = f"{file} does not have the expected format {EXPECTED_FORMAT}"
    require(isinstance(content, dict) and isinstance(content.get("images"), dict) and content["images"], format_message)
    annotated = []
    for name, entry in content["images"].items():
        targets = entry.get("targets") if isinstance(entry, dict) else None
        if not isinstance(targets, dict) or not targets:
            raise LabError(f"{file}: {name} has no targets")
        path = Path(folder) / name
        objects = {category: parse_boxes(value, f"{file}: {category} in {name}") for category, value in targets.items()}
        require(path.is_file(), f"{file} lists {name}, which does not exist")
        annotated.append(AnnotatedImage(path, objects))
    categories = content.get("imagenet_ids", {})
    require(isinstance(categories, dict), format_message)
    return annotated, {category: tuple(indices) for category, indices in categories.items()}


def parse_boxes(value: object, context: str) -> tuple[BoundingBox, ...]:
    """The boxes of `{"boxes": [[left, top, right, bottom], ...]}`. Errors begin with the context."""
    boxes = value.get("boxes") if isinstance(value, dict) else None
    if not isinstance(boxes, list) or not boxes:
        raise LabError(f"{context} has no boxes")
    for box in boxes:
        is_box = isinstance(box, list) and len(box) == 4 and all(isinstance(number, int | float) for number in box)
        require(
            is_box and box[0] < box[2] and box[1] < box[3],
            f"{context} has the box {box}: give [left, top, right, bottom]",
        )
    return tuple((left, top, right, bottom) for left, top, right, bottom in boxes)
