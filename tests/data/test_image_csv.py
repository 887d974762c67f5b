"""The user's own datasets: CSV files of paths and labels."""

import os
import time
from pathlib import Path

import pytest
from PIL import Image

from convolab.core.errors import LabError
from convolab.data import image_csv, image_source
from convolab.data.catalog import load
from convolab.data.splits import DatasetSplits


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A CSV file of ten images, of which the first five are red."""
    for index in range(10):
        color = (200, 20, 20 * index) if index < 5 else (20, 200, 20 * index)
        Image.new("RGB", (20, 16), color).save(tmp_path / f"{index}.png")
    return write(tmp_path, [f"{index}.png,{'cat' if index < 5 else 'dog'}" for index in range(10)])


def write(folder: Path, rows: list[str], header: str = "path,label") -> Path:
    path = folder / "pets.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> DatasetSplits:
    return load(f"csv:{path}", image_size=8)


def test_without_splits_a_fifth_of_each_class_is_for_testing(pets):
    splits = read(pets)
    assert (splits.train.name, splits.train.classes, splits.train.shape) == ("pets", ("cat", "dog"), (3, 8, 8))
    assert splits.train.labels.bincount().tolist() == [4, 4]
    assert splits.test.labels.bincount().tolist() == [1, 1]
    is_green = splits.train.images[:, 1, 0, 0] > 100
    assert is_green.long().tolist() == splits.train.labels.tolist()
    assert load("csv:pets.csv", pets.parent, image_size=8).fingerprints == splits.fingerprints


@pytest.mark.parametrize("header", ["file,class,split", "Image, Label ,SPLIT", "\ufeffpath,label,split"])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "VALIDATION", "testing")])
def test_a_column_of_splits_is_taken_in_every_spelling(pets, header, names):
    rows = [f"{index}.png,{'cat' if index < 5 else 'dog'},{names[max(index % 5 - 2, 0)]}" for index in range(10)]
    splits = read(write(pets.parent, rows, header))
    assert {name: len(dataset) for name, dataset in splits.by_name.items()} == {"train": 6, "validation": 2, "test": 2}


def test_paths_are_relative_to_the_file_or_absolute_and_may_be_quoted_or_above_it(pets):
    inner = pets.parent / "lists"
    inner.mkdir()
    (pets.parent / "0.png").rename(pets.parent / "a, b.png")
    rows = [f"../{index}.png,x" for index in (1, 2)] + ['"../a, b.png",x', f"{pets.parent / '5.png'},y", "../6.png,y"]
    assert len(read(write(inner, rows)).train) == 3


def test_semicolons_and_extra_columns_are_taken(pets):
    rows = [f"{index};me;{index}.png;{index // 5}" for index in range(10)]
    assert read(write(pets.parent, rows, "id;author;path;label")).train.classes == ("0", "1")


def test_whole_numbers_are_sorted_as_numbers(pets):
    rows = [f"{index}.png,{(2, 10)[index // 5]}" for index in range(10)]
    assert read(write(pets.parent, rows)).train.classes == ("2", "10")


def test_labels_that_are_the_same_number_are_always_in_the_same_order(pets):
    rows = [f"{index}.png,{('2', '1', '001', '02', '01')[index // 2]}" for index in range(10)]
    assert read(write(pets.parent, rows)).train.classes == ("001", "01", "1", "02", "2")


def test_tabs_separate_cells_too(pets):
    rows = [f"{index}.png\t{'cat, or dog' if index < 5 else 'dog'}" for index in range(10)]
    assert read(write(pets.parent, rows, "path\tlabel")).train.classes == ("cat, or dog", "dog")


def test_images_that_are_unreadable_or_missing_are_listed(pets):
    (pets.parent / "broken.png").write_bytes(b"no image")
    with pets.open("a") as file:
        file.write("broken.png,cat\ngone.png,dog\n")
    unreadable = read(pets).unreadable
    assert [line.split(":")[0] for line in unreadable] == ["broken.png", "gone.png"]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["0.png,cat"], "name,label", r"the first row, 'name,label', has no columns 'path' or 'file' or 'image'"),
        (["0.png,cat"], "path,file,label", "has 2 columns 'path' or"),
        (["0.png"], "path", "has no columns 'label' or 'class'"),
        (["0.png,cat", "1.png"], None, "row 3 has 1 cell, the header 2"),
        (["0.png,cat", ",dog"], None, "row 3 has no path"),
        (["0.png,cat", "1.png,"], None, "row 3 has no label"),
        (["0.png,cat", "1.png," + "x" * 201], None, "row 3: the label has 201 characters: use at most 200"),
        (["0.png,cat", "\0,dog"], None, "(row 3: the path has a NUL character|not CSV)"),
        (["0.png,cat", '"1.png,dog'], None, "near row 3: not CSV"),
        (["0.png,cat," + "x" * 30_000], "path,label,z", "a line of more than 20,000 characters"),
        (["0.png,cat,train", "1.png,dog,tset"], "path,label,split", "row 3: the split is 'tset': write train, val or"),
        (["0.png,cat,train", "1.png,dog,"], "path,label,split", "row 3: the split is ''"),
        (["0.png,cat,test", "1.png,dog,test"], "path,label,split", "has no training images"),
        (["0.png,cat,train", "1.png,dog,test"], "path,label,split", "the class 'dog' has no readable training image"),
        (["0.png,cat", "1.png,cat"], None, "has one class: give images of at least two"),
        (["a.png,cat", "b.png,dog"], None, "there is no file at any of its 2 paths, such as .*a.png"),
        (["/dev/zero,cat"], None, "row 2: /dev/zero is a pipe or a device, not a file"),
        (["0.png,cat", "pipe,dog"], None, "row 3: .*pipe is a pipe or a device"),
        (["0.png,cat", "..,dog"], None, "row 3: .* is a folder, not a file"),
        ([], None, "has no rows below its header"),
        (["0.png,a\x1b[31m", "1.png,b"], None, "a class is called"),
    ],
)
def test_a_wrong_row_is_one_line_with_its_number(pets, rows, header, message):
    os.mkfifo(pets.parent / "pipe")
    with pytest.raises(LabError, match=message) as caught:
        read(write(pets.parent, rows, header or "path,label"))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n" * 1000])
def test_what_is_no_csv_is_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(LabError):
        load(f"csv:{tmp_path / 'a.csv'}")


@pytest.mark.parametrize("name", ["csv:", "csv:nowhere.csv", "csv:/dev/zero", "csv:.", "csv:~nouser/x"])
def test_what_is_no_file_is_refused(name):
    with pytest.raises(LabError):
        load(name)


@pytest.mark.slow
def test_ten_million_rows_are_refused_at_the_limit_without_reading_on(tmp_path, monkeypatch):
    assert image_csv.MAX_FILES == 2_000_000
    monkeypatch.setattr(image_csv, "MAX_FILES", 2000)  # of two million the test would take a minute
    (tmp_path / "a.csv").write_text("path,label\n" + "a,b\n" * 10**7)
    start = time.process_time()
    with pytest.raises(LabError, match="has more than 2,000 rows: give fewer images"):
        load(f"csv:{tmp_path / 'a.csv'}")
    assert time.process_time() - start < 10


@pytest.mark.slow
def test_a_changed_image_of_a_list_is_decoded_again(pets, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "root"))
    monkeypatch.setattr(image_source, "SETTLING_SECONDS", 0.0)
    memory = read(pets)
    monkeypatch.setattr(image_source, "MAX_MEMORY_BYTES", 0)
    before = read(pets)
    assert before.fingerprints == memory.fingerprints
    assert before.train.file_rows is not None
    Image.new("RGB", (20, 16), "white").save(pets.parent / "0.png")
    assert read(pets).fingerprints != before.fingerprints
