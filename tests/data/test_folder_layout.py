"""How folders of images are understood, and which are refused."""

import os
from pathlib import Path

import pytest
from PIL import Image

from convolab.core.errors import LabError
from convolab.data import folder_layout, image_source
from convolab.data.catalog import load
from convolab.data.splits import DatasetSplits


def fill(folder: Path, *paths: str, count: int = 2) -> Path:
    """Put different images into folders."""
    for path in paths:
        (folder / path).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            number = sum(1 for file in folder.rglob("*.png"))
            Image.effect_noise((8, 8), 40 + number).save(folder / path / f"{index}.png")
    return folder


def read(folder: Path) -> DatasetSplits:
    return load(f"folder:{folder}", image_size=8)


def sizes(splits: DatasetSplits) -> dict[str, int]:
    return {name: len(dataset) for name, dataset in splits.by_name.items()}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "Validation", "tEst")],
)
def test_the_usual_names_of_splits_are_splits_in_any_case(tmp_path, train, validation, test):
    for split, count in ((train, 4), (validation, 3), (test, 2)):
        fill(tmp_path, f"{split}/cat", f"{split}/dog", count=count)
    splits = read(tmp_path)
    assert sizes(splits) == {"train": 8, "validation": 6, "test": 4}
    assert splits.train.classes == splits.validation.classes == splits.test.classes == ("cat", "dog")
    assert splits.validation.labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("names", [("train", "val"), ("train",)])
def test_without_test_images_none_are_made_up(tmp_path, names):
    for name in names:
        fill(tmp_path, f"{name}/cat", f"{name}/dog")
    splits = read(tmp_path)
    assert sizes(splits) == dict.fromkeys(("train", "validation")[: len(names)], 4)
    assert not splits.has_test
    with pytest.raises(LabError, match=f"{tmp_path.name} has no test images, .*: add some .a folder test"):
        _ = splits.test


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["val/cat", "val/dog", "test/cat", "test/dog"], "has test and val, but nothing to train on"),
        (["train/cat", "train/dog", "Training/cat", "Training/dog"], "has Training and train, both for train"),
        (["train/cat", "train/dog", "val/cat", "val/dog", "bird"], "holds the splits train, val, but bird beside them"),
        (["train/cat", "train/dog", "bird", "cow"], "holds the splits train, but bird, cow beside them"),
        (["train/cat", "train/dog", "val/cat", "val/cow"], "val has the classes cat, cow, but .*train has cat, dog"),
        (["train/cat", "train/dog", "test"], "test has the classes none, but .*train has cat, dog"),
        (["train", "val"], r"train has no subfolders: put the images of each class in a subfolder"),
        (["train", "test"], r"train has no subfolders"),
        (["train_images", "val_images"], "are called like splits, and not like classes: put them in train/CLASS"),
        (["training_set", "test_set"], "are called like splits"),
        (["train ", "val "], "are called like splits"),
        (["images-train", "images-dev", "images-holdout2"], "are called like splits"),
        (["train/cat", "val/cat"], "train has one subfolder"),
        (["a/cat", "a/dog", "b/cat", "b/dog"], "all of a, b in .* hold the same subfolders, cat, dog: .* like splits"),
        (["A/Cat", "A/dog", "B/cat", "B/Dog", "C/cat", "C/dog"], "these look like splits"),
        (
            ["cat/train", "cat/test", "dog/train", "dog/test"],
            "splits belong outside of the classes; put them in train/",
        ),
        (
            ["images/train/a", "images/train/b", "labels/train/a", "labels/train/b"],
            "splits belong outside of the classes",
        ),
        (["a/train", "b/train"], "splits belong outside of the classes"),
        (["images/d/a", "images/d/b", "labels/d/a", "labels/d/b"], "these look like splits"),
        (["train/x/cat", "train/x/dog", "train/y/cat", "train/y/dog"], "these look like splits"),
        (["set/train/cat", "set/val/cat"], r"has one subfolder: .*, or give .*set, which has several"),
    ],
)
def test_another_layout_is_refused_in_a_line_that_says_what_to_do(tmp_path, folders, message):
    with pytest.raises(LabError, match=message) as caught:
        read(fill(tmp_path, *folders))
    assert str(caught.value).isprintable()


def test_an_empty_class_of_a_split_is_refused(tmp_path):
    fill(tmp_path, "train/cat", "train/dog", "val/cat")
    (tmp_path / "val" / "dog").mkdir()
    with pytest.raises(LabError, match=r"val/dog has no readable image"):
        read(tmp_path)


def test_folders_inside_of_classes_that_differ_are_read(tmp_path):
    fill(tmp_path, "cat/young", "cat/old", "dog/young", "dog")
    assert read(tmp_path).train.classes == ("cat", "dog")
    fill(tmp_path / "b", "cat/images", "dog/images")
    assert read(tmp_path / "b").train.classes == ("cat", "dog")


def test_a_train_beside_a_tram_is_a_class_and_that_gives_a_note(tmp_path):
    splits = read(fill(tmp_path, "train", "tram", "bus"))
    assert splits.train.classes == ("bus", "train", "tram")
    assert any("'train' is read as a class" in note for note in splits.notes)


def test_a_class_that_is_a_link_to_another_gives_a_note(tmp_path):
    fill(tmp_path, "cat", "dog")
    (tmp_path / "eel").symlink_to("cat")
    assert "cat and eel are one folder, by a link" in read(tmp_path).notes


def test_a_split_that_is_a_link_to_another_gives_a_note(tmp_path):
    fill(tmp_path, "train/cat", "train/dog")
    (tmp_path / "test").symlink_to("train")
    notes = read(tmp_path).notes
    assert "train/cat and test/cat are one folder, by a link" in notes
    assert any(note.startswith("4 images of test are also in train") for note in notes)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_devices_and_links_that_lead_nowhere_are_skipped_and_listed(tmp_path):
    fill(tmp_path, "cat", "dog", "dog/more", "elsewhere/eel")
    (tmp_path / "elsewhere").rename(tmp_path / ".elsewhere")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "cat" / "loop.png").symlink_to("loop.png")
    (tmp_path / "dog" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "dog" / "up").symlink_to("..")
    (tmp_path / "dog" / "eel").symlink_to(tmp_path / ".elsewhere" / "eel")
    splits = read(tmp_path)
    assert len(splits.train) + len(splits.test) == 6
    assert [line.split(":")[0] for line in splits.unreadable] == [
        "cat/loop.png", "cat/pipe.png", "cat/zero.png", "dog/gone.png", "dog/eel", "dog/up",
    ]  # fmt: skip


def test_a_loop_of_folders_ends(tmp_path):
    fill(tmp_path, "cat", "dog")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "cat" / "self").symlink_to(".")
    assert read(tmp_path).train.classes == ("cat", "dog")


def test_a_folder_that_may_not_be_read_gives_one_line(tmp_path, monkeypatch):
    fill(tmp_path, "cat", "dog/inner")

    def refuse(path: object) -> object:
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LabError, match=r"cannot read .*dog/inner \(Permission denied\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    "path",
    ["x" * 300, "~nouser/x", "a\0b", "y" * 300 + "/z", "nowhere\n\x1b[31m", "a/" * 3000],
    ids=lambda path: path[:9],
)
def test_a_folder_that_cannot_be_gives_one_line(path, tmp_path):
    for name, data_dir in ((f"folder:{path}", None), (f"folder:{path}", tmp_path), ("cifar10", path)):
        with pytest.raises(LabError) as caught:
            load(name, data_dir, download=False)
        assert str(caught.value).isprintable()


def test_too_many_files_or_bytes_are_refused_before_any_is_read(tmp_path, monkeypatch):
    fill(tmp_path, "cat", "dog", count=3)
    monkeypatch.setattr(image_source, "MAX_MEMORY_BYTES", 1000)
    monkeypatch.setenv("CONVOLAB_MAX_BYTES", "1000")
    with pytest.raises(LabError, match=r"6 images of 8 x 8 take 1\.2 kB, more than 1\.0 kB"):
        read(tmp_path)
    monkeypatch.setattr(folder_layout, "MAX_FILES", 2)
    with pytest.raises(LabError, match="cat has more than 2 files"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["a\x1b[31m", "two\nlines", "bell\x07", "right\u202eleft", "half\udcff"])
def test_a_class_name_that_cannot_be_shown_is_refused(tmp_path, name):
    with pytest.raises(LabError, match=r"a class is called .*: give it a name without control characters") as caught:
        read(fill(tmp_path, "cat", name))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("names", [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("STRASSE", "stra\u00dfe")])
def test_classes_that_look_alike_give_a_note(tmp_path, names):
    fill(tmp_path, *names)
    if len(os.listdir(tmp_path)) < 2:
        pytest.skip("this file system takes both names for one")
    assert any("differ only in case or in how their letters are encoded" in note for note in read(tmp_path).notes)


def test_names_with_commas_and_joiners_are_names(tmp_path):
    names = ("a", "a,b", "b", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
    splits = read(fill(tmp_path, *names))
    assert splits.train.classes == names
    assert splits.notes == ()
