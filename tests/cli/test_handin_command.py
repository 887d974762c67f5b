"""The command `convolab handin`."""

import json
from pathlib import Path

import pytest


@pytest.mark.slow
def test_start_check_and_pack_lead_from_the_first_notebook_to_the_zip(run_cli) -> None:
    started = run_cli("handin", "start", "work")
    assert (started.code, started.err) == (0, "")
    assert started.out.splitlines()[-2:] == ["work/README.md", "read work/README.md first"]
    checked = run_cli("handin", "check", "work")
    assert checked.code == 1
    assert "0 of 20 items done" in checked.out
    lines = checked.out.splitlines()
    assert len(lines) == 25
    assert "2.5\tboth networks with SGD\tgap; no figure; no comment" in lines
    not_run = "it was not run: restart the kernel, run all cells, and save"
    assert [line for line in lines if not_run in line] == [
        f"{name}.ipynb: {not_run}" for name in ("question2_training", "question3_4_inspection")
    ]
    assert lines[-1].startswith("next: 1 ")
    assert lines[-1].endswith("(write question1_answers.md, or put your question1.pdf there)")
    checked = run_cli("handin", "check", "work", "--details")
    assert "2.1 code: a gap is not filled in yet\n    cell q2-1-loop of question2_training.ipynb" in checked.out
    assert len([line for line in checked.out.splitlines() if not_run in line]) == 2  # once for each notebook
    packed = run_cli("handin", "pack", "work", "--name", "Ada")
    assert packed.code == 0
    assert "20 items open: convolab handin check work --details lists what to do" in packed.err
    assert Path("handin.zip").is_file()
    again = run_cli("handin", "pack", "work", "--name", "Ada")
    assert "handin.zip was the hand-in of Ada, 0 of 20 items done: replaced" in again.err


def test_check_and_pack_take_the_folder_that_one_is_in(run_cli, monkeypatch) -> None:
    run_cli("handin", "start", "work")
    monkeypatch.chdir("work")
    assert "0 of 20 items done" in run_cli("handin", "check").out
    packed = run_cli("handin", "pack", "--name", "Ada")
    assert packed.code == 0, packed.err
    assert Path("handin.zip").is_file()


@pytest.mark.slow
def test_json_is_all_that_is_printed(run_cli) -> None:
    started = json.loads(run_cli("handin", "start", "work", "--data", "cifar10", "--json").out)
    assert (started["form"], started["data"], len(started["files"])) == ("student", "cifar10", 4)
    checked = run_cli("handin", "check", "work", "--json")
    assert (checked.code, checked.err) == (1, "")
    assert json.loads(checked.out)["num_open"] == 20
    packed = json.loads(run_cli("handin", "pack", "work", "--name", "Ada", "--json").out)
    assert "manifest.json" in packed["files"]
    assert len(packed["open"]) == 20


def test_the_solution_is_for_teachers(run_cli) -> None:
    refused = run_cli("handin", "start", "work", "--form", "solution")
    assert (refused.code, refused.err) == (2, "convolab: the solution is for teachers: add --i-am-teaching\n")
    assert not Path("work").exists()
    assert run_cli("handin", "start", "work", "--form", "solution", "--i-am-teaching").code == 0


def test_wrong_words_are_one_line_before_anything_is_written(run_cli) -> None:
    for words in (
        ("start", "work", "--form", "teacher"),
        ("start", "work", "--data", "mnist"),
        ("check", "nowhere"),
        ("pack", "nowhere", "--name", "Ada"),
        ("chek", "work"),
    ):
        refused = run_cli("handin", *words)
        assert refused.code == 2
        assert refused.err.startswith("convolab: ")
        assert refused.err.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_strict_refuses_what_is_open(run_cli) -> None:
    run_cli("handin", "start", "work")
    refused = run_cli("handin", "pack", "work", "--name", "Ada", "--strict")
    assert (refused.code, refused.out) == (2, "")
    assert "20 of 20 items are open" in refused.err
    assert not Path("handin.zip").exists()


def test_a_missing_notebook_is_named_once(run_cli) -> None:
    run_cli("handin", "start", "work")
    Path("work/question2_training.ipynb").unlink()
    lines = run_cli("handin", "check", "work").out.splitlines()
    assert "2.5\tboth networks with SGD\tthe notebook is missing" in lines
    assert len([line for line in lines if "question2_training.ipynb is missing" in line]) == 1
    lines = run_cli("handin", "check", "work", "--details").out.splitlines()
    assert len([line for line in lines if "question2_training.ipynb is missing" in line]) == 1
    assert not any("see below" in line for line in lines)


@pytest.mark.slow
def test_an_empty_answer_sheet_leaves_question_1_open_and_is_not_called_full(run_cli) -> None:
    run_cli("handin", "start", "work")
    made = run_cli("theory", "--answers", "work/question1_answers.md", "--name", "Ada", "--pdf", "work/question1.pdf")
    assert (made.code, made.err) == (0, "convolab: not answered yet: 1(a), 1(b) and 1(c)\n")
    assert "full answers" not in made.out
    assert made.out.splitlines()[-1] == "your answers, without 1(a), 1(b) and 1(c), written to: work/question1.pdf"
    row = run_cli("handin", "check", "work").out.splitlines()[1]
    assert row.endswith("\tcomment: question1.pdf has no answer to 1(a), 1(b), 1(c) yet")
