"""Photos in which things are boxed: a folder with boxes.json, to hold localisation against."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convolab.core.errors import need
from convolab.core.files import read_json

Corners = tuple[float | int, float | int, float | int, float | int]  # left, top, right, bottom in the photo's pixels


@dataclass(frozen=True)
class Boxed:
    """A photo, and for each kind of thing in it all boxes of that kind."""

    path: Path
    things: dict[str, tuple[Corners, ...]]


def read_boxed(folder: Path | str) -> tuple[list[Boxed], dict[str, tuple[int, ...]]]:
    """The photos of a folder in the order of its boxes.json, and which of ImageNet's classes each kind of thing comprises.

    boxes.json is {"images": {FILE: {"targets": {KIND: {"boxes": [[left, top, right, bottom], ...]}}}}}, and may have
    {"imagenet_ids": {KIND: [index, ...]}}. Raises LabError, with the file's name first, for anything else.
    """
    file = Path(folder) / "boxes.json"
    need(
        file.is_file(),
        f"{folder} holds no boxes.json, which says what is where in the photos: give a folder that has one",
    )
    content = read_json(file)
    wanted = f'{file} is not what was expected: {{"images": {{FILE: {{"targets": {{KIND: {{"boxes": [[left, top, right, bottom]]}}}}}}}}}}'
    need(isinstance(content, dict) and isinstance(content.get("images"), dict) and content["images"], wanted)
    photos = []
    for name, entry in content["images"].items():
        targets = entry.get("targets") if isinstance(entry, dict) else None
        need(isinstance(targets, dict) and targets, f"{file}: {name} has no targets")
        photos.append(
            Boxed(
                Path(folder) / name,
                {kind: corners_of(value, f"{file}: {kind} in {name}") for kind, value in targets.items()},
            )
        )
        need(photos[-1].path.is_file(), f"{file} names {name}, which is not there")
    kinds = content.get("imagenet_ids", {})
    need(isinstance(kinds, dict), wanted)
    return photos, {kind: tuple(indices) for kind, indices in kinds.items()}


def corners_of(value: Any, where: str) -> tuple[Corners, ...]:
    boxes = value.get("boxes") if isinstance(value, dict) else None
    need(isinstance(boxes, list) and boxes, f"{where} has no boxes")
    for box in boxes:
        whole = isinstance(box, list) and len(box) == 4 and all(isinstance(n, int | float) for n in box)
        need(
            whole and box[0] < box[2] and box[1] < box[3], f"{where} has the box {box}: give [left, top, right, bottom]"
        )
    return tuple(tuple(box) for box in boxes)
