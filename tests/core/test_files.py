import errno
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from threading import Event, Thread

import pytest

from convolab.core.errors import LabError
from convolab.core.files import atomic_write, link_or_copy, read_json, write_json, write_text


def run_script(script: str, *arguments: object) -> str:
    """The output of a script that runs in its own process."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout


def test_an_exception_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_and_fail() -> None:
        with atomic_write(path) as part:
            part.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_and_its_folders_appear_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "image.png"
    with atomic_write(path) as part:
        part.write_text("new")
        assert not path.exists()
        assert part.parent == path.parent  # a rename does not cross file systems
        assert part.suffix == ".png"
        assert part.name.startswith(".")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.slow
def test_a_reader_never_sees_a_partly_written_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    texts = ["a" * 300_000, "b" * 200_000]
    path.write_text(texts[0])
    finished = Event()
    first_letters = set()
    partial_lengths = []

    def read() -> None:
        while not finished.is_set():
            text = path.read_text()
            first_letters.add(text[:1])
            if text not in texts:
                partial_lengths.append(len(text))

    reader = Thread(target=read)
    reader.start()
    for number in range(300):
        write_text(path, texts[number % 2])
    finished.set()
    reader.join()
    assert not partial_lengths
    assert first_letters == {"a", "b"}
    assert list(tmp_path.iterdir()) == [path]


def test_two_simultaneous_writers_leave_one_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    texts = ["a" * 100_000, "b" * 50_000]
    writers = [Thread(target=lambda text=text: [write_text(path, text) for _ in range(30)]) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


FULL_DISK = """
import resource, signal, sys
from convolab.core.errors import LabError
from convolab.core.files import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_text(sys.argv[1], "new" * 100_000)
except LabError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_old_file_stays_intact(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    assert f"the disk is full while writing {path}" in run_script(FULL_DISK, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


WRITE_AS_ANOTHER_USER = """
import os, sys
from convolab.core.errors import LabError
from convolab.core.files import write_text
if os.geteuid() == 0:
    os.setuid(65534)
try:
    write_text(sys.argv[1], "new")
except LabError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_without_write_permission_is_refused_in_one_line(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(mode)
    try:
        output = run_script(WRITE_AS_ANOTHER_USER, folder / "a.txt")
    finally:
        folder.chmod(0o755)
    assert output.startswith(f"cannot write {folder / 'a.txt'}")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("path", ["file/a.txt", "file/below/a.txt", "folder", "n" * 300])
def test_a_path_that_cannot_be_a_file_is_refused_in_one_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(LabError, match=r"cannot write .*choose another path"):
        write_text(tmp_path / path, "new")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"


def test_an_error_that_is_not_about_writing_is_not_translated(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), atomic_write(tmp_path / "a.txt"):
        raise ConnectionResetError


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("-inf")]}])
def test_values_that_json_does_not_have_are_refused_and_the_old_file_is_kept(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, value)
    assert read_json(path) == {"old": 1}


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    value = {"name": "Zoë", "number": 0.1 + 0.2, "list": [None, True, -1]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_refused_by_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabError, match=r"a\.json"):
        read_json(path)


def test_a_second_name_for_a_file_keeps_its_content_when_the_first_is_written_again(tmp_path: Path) -> None:
    write_text(tmp_path / "last", "first")
    link_or_copy(tmp_path / "best", tmp_path / "last")
    link_or_copy(tmp_path / "best", tmp_path / "last")  # again, as after a kill
    assert (tmp_path / "best").samefile(tmp_path / "last")
    write_text(tmp_path / "last", "second")
    assert (tmp_path / "best").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last"]


def test_without_hard_links_a_second_name_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_permission_error(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", raise_permission_error)
    write_text(tmp_path / "last", "first")
    link_or_copy(tmp_path / "best", tmp_path / "last")
    assert (tmp_path / "best").read_text() == "first"
    assert not (tmp_path / "best").samefile(tmp_path / "last")


@pytest.mark.parametrize("depth", [101, 500, 10_000])
@pytest.mark.parametrize("shape", ["[]", '{"a":}'])
def test_json_that_is_nested_too_deeply_is_refused_in_one_line(tmp_path: Path, depth: int, shape: str) -> None:
    path = tmp_path / "deep.json"
    path.write_text(shape[:-1] * depth + "1" + shape[-1] * depth)
    with pytest.raises(LabError, match="nested too deeply"):
        read_json(path)
    path.write_text(shape[:-1] * 100 + "1" + shape[-1] * 100)
    read_json(path)


@pytest.mark.slow
def test_a_file_of_two_gigabytes_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "summary.json").open("wb") as file:
        file.truncate(2 * 10**9)
    tracemalloc.start()
    with pytest.raises(LabError, match="has more than 50,000,000 bytes"):
        read_json(tmp_path / "summary.json")
    assert tracemalloc.get_traced_memory()[1] < 2e8
    tracemalloc.stop()
