"""A folder of photos with boxes, and the errors in one."""

import json

import numpy as np
import pytest
from PIL import Image

from convolab.core import files
from convolab.core.errors import LabError
from convolab.data import annotations as module
from convolab.data.annotations import read_annotations


def annotations(**changes) -> dict:
    return {"images": {"a.png": {"targets": {"cat": {"boxes": [[1, 2, 3, 4.5]]}}}}} | changes


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    return tmp_path


def write(folder, value) -> None:
    (folder / "boxes.json").write_text(value if isinstance(value, str) else json.dumps(value))


def test_photos_and_boxes_are_read_in_their_order(folder) -> None:
    write(folder, annotations(imagenet_ids={"cat": [281, 282]}))
    photos, categories = read_annotations(folder)
    assert [(p.path.name, p.objects) for p in photos] == [("a.png", {"cat": ((1, 2, 3, 4.5),)})]
    assert categories == {"cat": (281, 282)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is not JSON"),
        ([], "does not have the expected format"),
        ({"images": {}}, "does not have the expected format"),
        ({"images": {"b.png": {"targets": {"cat": {"boxes": [[0, 0, 1, 1]]}}}}}, "lists b.png, which does not exist"),
        ({"images": {"a.png": {}}}, "a.png has no targets"),
        ({"images": {"a.png": {"targets": {"cat": {"boxes": []}}}}}, "cat in a.png has no boxes"),
        ({"images": {"a.png": {"targets": {"cat": {"boxes": [[3, 0, 1, 1]]}}}}}, "has the box"),
        ({"images": {"a.png": {"targets": {"cat": {"boxes": [["0", 0, 1, 1]]}}}}}, "has the box"),
        (annotations(imagenet_ids=[1]), "does not have the expected format"),
        (annotations(imagenet_ids={"cat": "281"}), "imagenet_ids of cat is '281': give a list"),
        (annotations(imagenet_ids={"cat": ["281"]}), "imagenet_ids of cat is"),
        (annotations(imagenet_ids={"cat": None}), "imagenet_ids of cat is None"),
        (annotations(imagenet_ids={"cat": []}), "imagenet_ids of cat is"),
        (annotations(imagenet_ids={"cat": 281}), "imagenet_ids of cat is"),
        (annotations(imagenet_ids={"cat": [281.0]}), "imagenet_ids of cat is"),
        (annotations(imagenet_ids={"cat": [True]}), "imagenet_ids of cat is"),
        (annotations(imagenet_ids={"c\x1b[31m\n": [1000]}), "imagenet_ids of "),
        (annotations(imagenet_ids=None), "does not have the expected format"),
        (
            '{"images": {"a.png": {"targets": {"cat": {"boxes": [' + "[" * 900 + "]" * 900 + "]}}}}}",
            "is nested too deeply",
        ),
        ("[" * 100_000, "nested too deeply|is not JSON"),
        (
            '{"images": ' * 5_000 + "1" + "}" * 5_000,
            "nested too deeply|does not have the expected format|has no targets",
        ),
        ({"images": {"x" * 300: {"targets": {"cat": {"boxes": [[0, 0, 1, 1]]}}}}}, "a name in this path has 300 bytes"),
        ({"images": {"a\0": {"targets": {"cat": {"boxes": [[0, 0, 1, 1]]}}}}}, "has a NUL character"),
        ({"images": {"\x1b[31m\n": {}}}, "has no targets"),
        (annotations(images={"a.png": {"targets": {"cat": {"boxes": [[float("nan"), 0, 1, 1]]}}}}), "has the box"),
        (annotations(images={"a.png": {"targets": {"cat": {"boxes": [[0, 0, float("inf"), 1]]}}}}), "has the box"),
        (annotations(images={"a.png": {"targets": {"cat": {"boxes": [[False, 0, True, 1]]}}}}), "has the box"),
        (annotations(images={"a.png": {"targets": {"cat": {"boxes": [[0, 0, 10**400, 1]]}}}}), "has the box"),
        (annotations(images={"a.png": {"targets": {"cat": {"boxes": [[[[[]]]] * 999]}}}}), "has the box"),
        (annotations(images={"a.png": {"targets": {"cat": {"boxes": "abcd"}}}}), "has no boxes"),
    ],
)
def test_a_wrong_file_gives_one_line_with_its_name(folder, value, message: str) -> None:
    write(folder, value)
    with pytest.raises(LabError, match=message) as error:
        read_annotations(folder)
    assert "boxes.json" in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 500


def test_boxes_have_a_limit_of_their_own(folder, monkeypatch) -> None:
    write(folder, annotations())
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    assert len(read_annotations(folder)[0]) == 1
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    with pytest.raises(LabError, match="is larger than 10 B: split it"):
        read_annotations(folder)


def test_a_folder_without_boxes_is_refused(tmp_path) -> None:
    with pytest.raises(LabError, match=r"has no boxes\.json"):
        read_annotations(tmp_path)
