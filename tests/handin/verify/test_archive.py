"""Zips of strangers: what could do harm is refused in one line, before anything is unpacked."""

import os
import stat
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.handin.verify.archive import MAX_MEMBERS, MAX_ZIP_BYTES, find_hand_ins, read_hand_in, write_files
from convolab.handin.verify.verify import verify_hand_ins


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def error_of(path: Path) -> str:
    """The one line that a zip is refused with."""
    with pytest.raises(LabError) as caught:
        read_hand_in(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_plain_zip_is_read_and_written_as_it_is(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"manifest.json": b'{"name": "Ada"}', "evidence/run/recipe.toml": b"x = 1"})
    hand_in = read_hand_in(path)
    assert (hand_in.name, hand_in.files["evidence/run/recipe.toml"]) == ("Ada", b"x = 1")
    write_files(hand_in.files, tmp_path / "out")
    assert (tmp_path / "out/evidence/run/recipe.toml").read_bytes() == b"x = 1"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "a/../../evil.py",
        "/etc/passwd",
        "C:/evil.py",
        "C:evil",
        "a\\..\\..\\evil",
        "a/\x1b[31m",
        "a//b",
        "./a",
        "/".join("abcdefghijk"),
    ],
)
def test_a_path_that_leads_out_or_is_none_is_refused(tmp_path: Path, name: str) -> None:
    line = error_of(make_zip(tmp_path / "a.zip", {"manifest.json": b"{}", name: b"x"}))
    assert "nothing of it was read" in line
    assert line.isprintable()
    assert not (tmp_path.parent / "evil.py").exists()


def test_a_bomb_of_10_gb_is_refused_without_being_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", "{}")
        archive.writestr("zeros", bytes(2_000_000))
        archive.getinfo("zeros").file_size = 10_000_000_000  # what the zip's list of its members says
    tracemalloc.start()
    assert "would unpack to 10.0 GB" in error_of(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.slow
def test_a_member_of_zeros_is_refused_by_its_ratio_and_a_plain_text_is_not(tmp_path: Path) -> None:
    assert "over 200 bytes for each of its own" in error_of(
        make_zip(tmp_path / "a.zip", {"manifest.json": b"{}", "zeros": bytes(50_000_000)})
    )
    text = "\n".join(f"{number} epochs" for number in range(50_000)).encode()
    assert read_hand_in(make_zip(tmp_path / "b.zip", {"manifest.json": b"{}", "log": text})).files["log"] == text


def test_a_member_that_holds_more_than_it_claims_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"manifest.json": b"{}", "zeros": bytes(3_000_000)})
    content = path.read_bytes()
    size = struct.pack("<I", 3_000_000)
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, struct.pack("<I", 100)))
    assert "is a damaged zip" in error_of(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFSOCK])
def test_a_link_and_a_device_are_refused(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", "{}")
        entry = zipfile.ZipInfo("evidence")
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert "which is a link or a device" in error_of(path)


@pytest.mark.slow
def test_too_many_members_and_two_of_a_name_are_refused(tmp_path: Path) -> None:
    many = {"manifest.json": b"{}", **{f"f{number}": b"" for number in range(MAX_MEMBERS + 1)}}
    assert "members" in error_of(make_zip(tmp_path / "a.zip", many))
    assert "twice" in error_of(make_zip(tmp_path / "b.zip", {"manifest.json": b"{}", "Manifest.JSON": b"{}"}))
    for names in (("evidence", "evidence/a/b"), ("evidence/a/b", "Evidence")):
        both = make_zip(tmp_path / "c.zip", {"manifest.json": b"{}", **dict.fromkeys(names, b"x")})
        assert "as a file and as a folder" in error_of(both)


@pytest.mark.slow
def test_a_zip64_list_of_members_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(66_000):
            archive.writestr(f"{number}", b"")
    tracemalloc.start()
    assert "no hand-in has" in error_of(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"manifest.json": b"{}"})
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + place] |= 1
    path.write_bytes(content)
    assert "encrypted" in error_of(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"Rar!\x1a\x07", b"PK\x05\x06" + bytes(17), b"PK\x05\x06" + b"\xff" * 18, os.urandom(2000)]
)
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert "a.zip" in error_of(tmp_path / "a.zip")


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe", b'"x"'])
def test_a_manifest_of_something_else_is_refused(tmp_path: Path, manifest: bytes) -> None:
    assert "manifest.json" in error_of(make_zip(tmp_path / "a.zip", {"manifest.json": manifest}))
    assert "no hand-in" in error_of(make_zip(tmp_path / "b.zip", {"photo.png": b""}))


@pytest.mark.slow
def test_a_manifest_that_is_too_large_is_refused(tmp_path: Path) -> None:
    rows = ",".join(f'"{number}"' for number in range(1_200_000))
    line = error_of(make_zip(tmp_path / "a.zip", {"manifest.json": f"[{rows}]".encode()}))
    assert "at most 10.0 MB are read" in line


@pytest.mark.slow
def test_a_truncated_or_damaged_zip_is_refused_at_every_byte_or_read(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "a.zip", {"manifest.json": b'{"name": "Ada"}', "evidence/a/recipe.toml": b"x = 1\n" * 100}
    )
    whole = path.read_bytes()
    for number in range(len(whole)):
        for changed in (whole[:number], whole[:number] + bytes([whole[number] ^ 255]) + whole[number + 1 :]):
            path.write_bytes(changed)
            with suppress(LabError):
                read_hand_in(path)


def test_a_bad_zip_is_one_row_and_the_others_go_on(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"../evil": b""})
    (tmp_path / "b.zip").write_bytes(b"no zip")
    (tmp_path / "c.zip").mkdir()
    make_zip(tmp_path / "d.zip", {"manifest.json": b'{"name": "Dora"}', "question1_answers.md": b"## 1(a)\n\nSo.\n"})
    result = verify_hand_ins([tmp_path])
    assert [bool(report.refused) for report in result.reports] == [True, True, True, False]
    assert result.reports[3].name == "Dora"
    assert result.reports[3].num_done == 0


def test_zips_in_folders_below_are_read_and_those_of_one_name_are_called_by_their_folders(tmp_path: Path) -> None:
    for name in ("ada", "bela"):
        (tmp_path / name).mkdir()
        make_zip(tmp_path / name / "handin.zip", {"manifest.json": f'{{"name": "{name}"}}'.encode()})
    make_zip(tmp_path / "c.ZIP", {"manifest.json": b'{"name": "cem"}'})
    reports = verify_hand_ins([tmp_path]).reports
    assert [(report.file, report.name) for report in reports] == [
        ("ada/handin.zip", "ada"), ("bela/handin.zip", "bela"), ("c.ZIP", "cem"),
    ]  # fmt: skip


def test_a_folder_without_a_zip_and_a_missing_path_are_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "holds no zip"), (tmp_path / "none", "there is no")):
        with pytest.raises(LabError, match=words):
            find_hand_ins([path])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes): ask for it again"),
        (b"PK\x03\x04" + bytes(100), "is cut off: ask for it again"),
        (b"Rar!", "is no zip: ask for the file"),
        (b"PK\x05\x06" + bytes(18), "is a zip without files"),
    ],
)
def test_a_file_that_did_not_arrive_whole_is_refused_in_other_words_than_one_that_is_no_zip(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert words in error_of(tmp_path / "a.zip")


def test_a_folder_that_was_zipped_by_hand_names_the_command_that_packs_it(tmp_path: Path) -> None:
    line = error_of(make_zip(tmp_path / "a.zip", {"ada/question2_training.ipynb": b"{}", "ada/README.md": b""}))
    assert line.endswith("holds notebooks but was not packed: the student must run `convolab handin pack`")


def test_a_zip_that_is_too_large_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.truncate(MAX_ZIP_BYTES + 1)  # takes no room on the disk
    assert error_of(path) == f"{path} has 200.0 MB: at most 200.0 MB are read"


def test_more_hand_ins_than_a_class_has_are_refused_and_one_that_is_named_twice_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convolab.handin.verify.archive.MAX_HAND_INS", 2)
    paths = [make_zip(tmp_path / f"{name}.zip", {"manifest.json": b"{}"}) for name in "abc"]
    assert find_hand_ins([paths[0], paths[1], paths[0]]) == paths[:2]
    with pytest.raises(LabError, match="3 hand-ins: give at most 2"):
        find_hand_ins([tmp_path])
