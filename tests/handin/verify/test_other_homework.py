"""A hand-in of another homework than the one it is verified by: no student is accused of what the teacher left out."""

import json
import zipfile
from pathlib import Path

import pytest

from convolab.handin.homework import Homework, load_homework, parse_homework
from convolab.handin.verify.verify import HandInReport, verify_hand_ins

COURSE = load_homework().text
OTHER = COURSE.replace('title = "', 'title = "Deep Vision, ', 1)


def hand_in(path: Path, toml: bytes | None) -> Path:
    """A zip with a manifest, an answer and a homework.toml."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps({"name": "Ada"}))
        archive.writestr("question1_answers.md", "## 1(a)\n\nSo.\n")
        if toml is not None:
            archive.writestr("homework.toml", toml)
    return path


def verify(path: Path, homework: Homework | None = None) -> HandInReport:
    [report] = verify_hand_ins([path], homework).reports
    return report


def test_without_homework_given_one_that_holds_another_is_refused_and_accused_of_nothing(tmp_path: Path) -> None:
    report = verify(hand_in(tmp_path / "a.zip", OTHER.encode()))
    title = parse_homework(OTHER, None).title
    assert report.refused == f'is of another homework ("{title}"): give its file with --homework'
    assert (report.name, report.signs) == ("Ada", [])


@pytest.mark.parametrize("toml", [None, COURSE.encode(), COURSE.replace("\n", "\r\n").encode()])
def test_one_that_holds_the_courses_homework_or_none_is_verified_by_it(tmp_path: Path, toml: bytes | None) -> None:
    report = verify(hand_in(tmp_path / "a.zip", toml))
    assert report.refused == ""
    assert not any("teacher's" in sign.what for sign in report.signs)


@pytest.mark.parametrize(
    "toml",
    [b"", b"\xff\xfe", b"[" * 500_000, b"title = ", b'title = "' + b"x" * 900_000, b'title = "\x1b[31m\xe2\x80\xae"', b"a." * 450_000],
)  # fmt: skip
def test_another_homework_that_is_damaged_is_refused_in_one_printable_line(tmp_path: Path, toml: bytes) -> None:
    refused = verify(hand_in(tmp_path / "a.zip", toml)).refused
    assert refused.startswith("is of another homework")
    assert refused.isprintable()
    assert len(refused) < 400


def test_a_copy_that_its_owner_edited_is_a_note_and_the_teachers_file_counts(tmp_path: Path) -> None:
    teachers = parse_homework(OTHER, None)
    edited = hand_in(tmp_path / "a.zip", OTHER.replace("min_comment_words = ", "min_comment_words = 0", 1).encode())
    report = verify(edited, teachers)
    [note] = [sign for sign in report.notes if sign.where == "homework.toml"]
    assert note.what == "its homework.toml is not the teacher's, by which it is verified here"
    assert report.refused == ""
    assert {item.id for item in teachers.items} <= {item.id for item in report.check.items}
    same = verify(hand_in(tmp_path / "b.zip", OTHER.encode()), teachers)
    assert not any("teacher's" in sign.what for sign in same.signs)
