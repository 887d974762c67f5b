"""The command `convolab handin verify`."""

import json
import zipfile
from pathlib import Path

import pytest


@pytest.fixture
def packed(run_cli) -> None:
    """A folder with two hand-ins as they were laid out."""
    run_cli("handin", "start", "work")
    for name in ("Ada", "Bela"):
        run_cli("handin", "pack", "work", "--name", name, "--out", f"inbox/{name}.zip")


@pytest.mark.slow
def test_a_class_is_a_table_with_a_row_for_each_and_what_was_found(run_cli, packed) -> None:
    Path("inbox/c.zip").write_bytes(b"no zip")
    with zipfile.ZipFile("inbox/Bela.zip", "a") as archive:
        archive.writestr("../../evil.py", "x")
    result = run_cli("handin", "verify", "inbox", "--out", "report")
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert lines[0].split("\t") == [
        "who",
        "found",
        "items",
        "points",
        "runs",
        "data",
        "versions",
        "file",
    ]
    assert [line.split("\t")[0] for line in lines[1:4]] == ["Ada", "Bela", "c"]
    assert (
        "Bela.zip: refused: holds '../../evil.py', a path that leads out of it: nothing of it was read, ask for another"
        in lines
    )
    assert any(line.startswith("c.zip: refused: is no zip") for line in lines)
    assert "3 hand-ins: 2 refused, 0 with contradictions, 0 sharing work; nothing of them was run" in lines
    assert lines[-2:] == ["written: report/class.html", "written: report/class.csv"]
    again = run_cli("handin", "verify", "inbox", "--out", "report")
    assert again.code == 2
    assert "its points may have been changed by hand" in again.err
    printed = run_cli("handin", "verify", "inbox", "--csv", "-")
    assert printed.out == Path("report/class.csv").read_text(encoding="utf-8-sig")
    assert "written: table.csv" in run_cli("handin", "verify", "inbox", "--csv", "table.csv").out
    assert Path("table.csv").read_bytes() == Path("report/class.csv").read_bytes()
    again = run_cli("handin", "verify", "inbox", "--csv", "table.csv")
    assert (again.code, "its points may have been changed by hand: give another name" in again.err) == (2, True)
    as_json = json.loads(run_cli("handin", "verify", "inbox", "--json").out)
    assert [entry["name"] for entry in as_json["hand_ins"]] == ["Ada", "Bela", "c"]


@pytest.mark.slow
def test_hand_ins_without_contradictions_exit_with_0(run_cli, packed) -> None:
    result = run_cli("handin", "verify", "inbox/Ada.zip")
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.zip",), "there is no nowhere.zip"),
        ((".",), "holds no zip"),
        (("a.zip", "--rerun", "3"), "give --seed"),
        (("a.zip", "--rerun", "0", "--seed", "1"), "trains nothing again"),
        (("a.zip", "--homework", "none.toml"), "cannot read none.toml"),
        (("a.zip", "--json", "--csv", "-"), "give one of them"),
        (("a.zip", "--csv", "table.txt"), "give a name ending in .csv, or - to print the table"),
        (("a.zip", "--csv"), "--csv takes a value: give a file to write, or - to print the table"),
        (("a.zip", "--out", "a.zip"), "is a file"),
        (("a.zip", "--seed", "x"), "--seed x"),
        (("a.zip", "--rerum", "3"), "--rerun"),
    ],
)
def test_wrong_words_are_one_line_before_any_zip_is_opened(run_cli, words: tuple[str, ...], message: str) -> None:
    if words[0] == "a.zip":
        Path("a.zip").write_bytes(b"no zip")
    result = run_cli("handin", "verify", *words)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert message in result.err


def test_without_a_fence_nothing_is_executed_unless_the_teacher_says_so(run_cli, monkeypatch) -> None:
    from convolab.handin.verify import fence

    monkeypatch.setattr(fence, "bubblewrap", lambda: None)
    Path("a.zip").write_bytes(b"no zip")
    result = run_cli("handin", "verify", "a.zip", "--execute", "--trust")
    assert result.code == 2
    assert "install bubblewrap, or add --unfenced" in result.err
