"""Outputs: only where nothing was, or onto what the same kind of output wrote before."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolab.core.errors import LabError
from convolab.core.outputs import (
    COMMENTS,
    output_file,
    require_outputs,
    write_json_output,
    write_output,
)

SUFFIXES = [*COMMENTS, ".png", ".npz", ".csv", ".jpg", ".webp"]


def write_sample(path: Path, kind: str = "sample", number: int = 1) -> None:
    match path.suffix:
        case ".png" | ".jpg" | ".webp":
            with output_file(path, kind) as temporary:
                Image.new("RGB", (4, 4), (number, 0, 0)).save(temporary)
        case ".npz":
            with output_file(path, kind) as temporary:
                np.savez_compressed(temporary, a=np.full(3, number))
        case ".json":
            write_json_output(path, kind, {"number": number})
        case _:
            write_output(path, kind, f"name,value\n{kind},{number}\n")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_replaces_its_own_kind_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_sample(path, number=1)
    first = path.read_bytes()
    require_outputs("sample", [path], csv_header="name,value")
    write_sample(path, number=2)
    assert path.read_bytes() != first
    if suffix != ".csv":
        with pytest.raises(LabError, match="choose another name"):
            write_sample(path, "other")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_a_person_wrote_or_changed_is_never_replaced(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    own = b"x,y\n1,2\n" if suffix == ".csv" else b"a person's own"
    path.write_bytes(own)
    with pytest.raises(LabError, match="choose another name"):
        require_outputs("sample", [path], csv_header="name,value")
    with pytest.raises(LabError, match="choose another name"):
        write_sample(path)
    assert path.read_bytes() == own
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    write_sample(path)
    if suffix != ".csv":
        path.write_bytes(path.read_bytes()[:5] + b"!" + path.read_bytes()[6:])
        with pytest.raises(LabError, match="choose another name"):
            write_sample(path)


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".csv"])
def test_the_error_of_a_file_that_stays_tells_whose_it_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    curves, others = "training curves of 0123456789ab", "training curves of ba9876543210"
    write_sample(path, curves, number=1)
    write_sample(path, curves, number=2)  # the same kind of the same run
    with pytest.raises(LabError) as other_run:
        write_sample(path, others)
    assert str(other_run.value) == (
        f"{path} exists, and convolab wrote it as training curves of a run of recipe 0123456789ab, not as "
        "training curves of a run of recipe ba9876543210: choose another name, or delete the file"
    )
    path.write_bytes(path.read_bytes()[:5] + b"!" + path.read_bytes()[6:])
    with pytest.raises(
        LabError, match="was changed since convolab wrote it as training curves of a run of recipe 0123"
    ):
        write_sample(path, curves)
    path.write_bytes(b"a person's own")
    with pytest.raises(LabError, match="has no sign that convolab wrote it as sample: choose another name, or delete"):
        write_sample(path)


def test_the_marker_is_where_each_format_allows_it(tmp_path: Path) -> None:
    for suffix in (".png", ".npz", ".json", ".jpg"):
        write_sample(tmp_path / f"a{suffix}")
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.text["Software"].startswith("[convolab: sample ")
    with Image.open(tmp_path / "a.jpg") as image:
        image.load()
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["a"].tolist() == [1, 1, 1]
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"[convolab: sample ")
    values = json.loads((tmp_path / "a.json").read_text())
    assert values["number"] == 1
    assert values["written_by"].startswith("[convolab: sample ")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    write_sample(path.with_name("real.png"))
    path.symlink_to("real.png")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("/nowhere/real.png")


@pytest.mark.parametrize("make", [make_fifo, make_link, make_dangling_link, Path.mkdir])
def test_a_pipe_a_link_and_a_folder_stay_what_they_are(tmp_path: Path, make) -> None:
    path = tmp_path / "a.png"
    make(path)
    before = path.lstat()
    for attempt in (lambda: require_outputs("sample", [path]), lambda: write_sample(path)):
        with pytest.raises(LabError, match="choose another name"):
            attempt()
    assert path.lstat() == before


def test_a_device_stays_what_it_is() -> None:
    with pytest.raises(LabError, match="not a regular file"):
        require_outputs("sample", [Path("/dev/full")])


def test_an_input_is_no_output_even_if_it_is_of_the_same_kind_or_has_another_name(tmp_path: Path) -> None:
    path, second = tmp_path / "a.png", tmp_path / "b.png"
    write_sample(path)
    os.link(path, second)
    for output in (path, second, tmp_path / "." / "a.png"):
        with pytest.raises(LabError, match="read by this command"):
            require_outputs("sample", [output], ["chelsea", "http://x/\0", path])


def test_two_outputs_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(LabError, match="two outputs"):
        require_outputs("sample", [tmp_path / "a.png", tmp_path / "sub" / ".." / "a.png"])


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "file/below/a.png", "new/" + "n" * 300 + "/a.png"])
def test_a_path_that_cannot_be_is_refused_before_work_starts(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError) as caught:
        require_outputs("sample", [tmp_path / f"{name}.png"])
    assert "\n" not in str(caught.value)


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    write_sample(tmp_path / ("n" * 251 + ".png"))
    assert len(list(tmp_path.iterdir())) == 1
