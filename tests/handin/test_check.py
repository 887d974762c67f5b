"""What is done and what is open, read from notebooks."""

from pathlib import Path

import pytest
from support.homework_folder import PNG, edit_cell

from convolab.core.errors import LabError
from convolab.handin.check import (
    FAST_RUN,
    NOT_RUN,
    ItemResult,
    NotebookChecker,
    check_folder,
    few_words,
    find_repeated_problems,
    find_shared_problems,
    has_gap,
)
from convolab.handin.homework import Homework, Value
from convolab.handin.notebook_file import parse_cell
from convolab.handin.notebooks import PLACEHOLDER
from convolab.theory.question1 import answer_sheet

Q2 = "question2_training.ipynb"


def item_of(homework: Homework, folder: Path, item_id: str) -> ItemResult:
    """The result of one item; of all others nothing may be open."""
    result = check_folder(homework, folder)
    assert {item.id for item in result.open_items} <= {item_id}
    return next(item for item in result.items if item.id == item_id)


@pytest.mark.slow
def test_nothing_is_open_in_a_folder_where_all_is_done(done: Path, homework: Homework) -> None:
    result = check_folder(homework, done)
    assert result.open_items == []
    assert result.to_dict()["num_open"] == 0


def test_everything_is_open_at_the_start(started: Path, homework: Homework) -> None:
    result = check_folder(homework, started)
    assert len(result.open_items) == len(result.items) == 2 + len(homework.items)
    states = {
        item.id: [item.state_of(aspect) for aspect in ("code", "run", "figure", "comment")] for item in result.items
    }
    assert states["2.5"] == ["open"] * 4
    assert states["2.1"] == ["open", "open", "", ""]


def test_a_gap_left_in_the_code_is_open(done: Path, homework: Homework) -> None:
    edit_cell(
        done / Q2, "q2-2-class", source="class ShallowNet:\n    def forward(self, x):\n        # later\n        ..."
    )
    [problem] = item_of(homework, done, "2.2").problems
    assert (problem.aspect, problem.what) == ("code", "a gap is not filled in yet")
    assert problem.remedy == f"cell q2-2-class of {Q2}"


@pytest.mark.parametrize(
    ("source", "gap"),
    [
        ("x = ...", True),
        ("a, b = ..., ...", True),
        ("def f():\n    ...", True),
        ("x = a[..., 0]", False),
        ("%time f()\nx = ...  # later", True),
        ("%time f()\nx = 3", False),
        ("x = '...'", False),
        ("(" * 5000, False),
    ],
)
def test_a_gap_is_a_statement_of_dots(source: str, gap: bool) -> None:
    assert has_gap(source) == gap


@pytest.mark.slow
def test_a_check_that_failed_is_open_with_its_message_in_one_printable_line(done: Path, homework: Homework) -> None:
    error = {"output_type": "error", "ename": "AssertionError", "evalue": "fit: the loss\x1b[31m rises\nfast"}
    edit_cell(done / Q2, "q2-1-check", outputs=[error])
    [problem] = item_of(homework, done, "2.1").problems
    assert problem.what == "AssertionError: fit: the loss?[31m rises fast"
    edit_cell(done / Q2, "q2-1-check", outputs=[{**error, "ename": "LabError", "evalue": "part 1: the loss rises"}])
    [problem] = item_of(homework, done, "2.1").problems
    assert problem.what == "part 1: the loss rises"


@pytest.mark.slow
def test_a_cell_that_was_not_run_or_was_run_before_one_above_it_is_open(done: Path, homework: Homework) -> None:
    edit_cell(done / Q2, "q2-7-check", execution_count=None)
    assert item_of(homework, done, "2.7").problems[0].what.startswith("it was not run")
    edit_cell(done / Q2, "q2-7-check", execution_count=2)
    assert item_of(homework, done, "2.7").problems[0].what.startswith("it was run out of order")


@pytest.mark.slow
def test_a_figure_that_is_not_shown_is_open(done: Path, homework: Homework) -> None:
    edit_cell(done / Q2, "q2-5-figure", outputs=[])
    assert [problem.what for problem in item_of(homework, done, "2.5").problems] == ["it shows no figure"]
    page = {"output_type": "execute_result", "data": {"text/html": "<script>document.title</script>"}}
    edit_cell(done / Q2, "q2-5-figure", outputs=[page])
    assert [problem.aspect for problem in item_of(homework, done, "2.5").problems] == ["figure"]


@pytest.mark.slow
def test_a_comment_that_is_missing_is_open_and_one_by_code_is_read_from_its_output(
    done: Path, homework: Homework
) -> None:
    edit_cell(done / Q2, "q2-8-comment", source=PLACEHOLDER)
    assert [problem.what for problem in item_of(homework, done, "2.8").problems] == ["it is empty"]
    words = "my own sentence about residual blocks says that on this laptop nothing was gained by them at all"
    shown = {"output_type": "display_data", "data": {"text/markdown": words}}
    edit_cell(done / Q2, "q2-8-comment", cell_type="code", source="display(...)", execution_count=None, outputs=[shown])
    assert item_of(homework, done, "2.8").is_done


@pytest.mark.parametrize(
    ("printed", "what"),
    [
        ("test accuracy = 0.11", "test accuracy = 0.11 is not plausible: 0.3 to 1"),
        ("test accuracy = 1.5", "test accuracy = 1.5 is not plausible: 0.3 to 1"),
        ("test accuracy = high", "it does not print 'test accuracy = NUMBER'"),
        ("", "it does not print 'test accuracy = NUMBER'"),
        ("\x1b[31mtest accuracy = 0.11\x1b[0m", "test accuracy = 0.11 is not plausible: 0.3 to 1"),
    ],
)
def test_a_number_that_is_missing_or_not_plausible_is_open(
    done: Path, homework: Homework, printed: str, what: str
) -> None:
    edit_cell(done / Q2, "q2-12-figure", outputs=[{"output_type": "stream", "text": printed}, PNG])
    assert [problem.what for problem in item_of(homework, done, "2.12").problems] == [what]


def test_a_number_on_ones_own_images_has_the_range_of_that_dataset() -> None:
    value = Value(cell="a", label="test accuracy", ranges={"folder:photos": (0.5, 0.6)})
    cells = [
        parse_cell({"cell_type": "code", "id": name, "outputs": [{"output_type": "stream", "text": text}]})
        for name, text in (("q-settings", "data = folder:photos\nfast = False\n"), ("a", "test accuracy = 0.4\n"))
    ]
    assert NotebookChecker(Q2, cells, 12).value_problem(value) == "test accuracy = 0.4 is not plausible: 0.5 to 0.6"


def test_a_deleted_cell_is_open_and_named(done: Path, homework: Homework) -> None:
    edit_cell(done / Q2, "q2-4-check", metadata={"name": "other"}, id="other")
    [problem] = item_of(homework, done, "2.4").problems
    assert (problem.what, problem.remedy) == ("the cell is missing", f"cell q2-4-check of {Q2}")


def test_a_notebook_that_cannot_be_read_leaves_its_items_open_and_the_others_done(
    done: Path, homework: Homework
) -> None:
    (done / Q2).write_text("{")
    result = check_folder(homework, done)
    assert {item.question for item in result.open_items} == {2}
    assert len(result.open_items) == 13
    assert "is not JSON" in result.open_items[0].problems[0].what


def test_of_a_missing_notebook_nothing_is_done(done: Path, homework: Homework) -> None:
    (done / Q2).unlink()
    result = check_folder(homework, done)
    of_question2 = [item for item in result.items if item.id.startswith("2.")]
    assert {item.state_of(aspect) for item in of_question2 for aspect in item.aspects} == {"open"}
    assert {item.id for item in result.open_items} == {item.id for item in of_question2}


def test_a_folder_without_any_file_of_the_homework_is_refused(homework: Homework, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(LabError, match=r"is no homework folder: make one by `convolab handin start NAME`"):
        check_folder(homework, tmp_path)


def test_a_fast_run_is_open_in_each_item_of_its_notebook(done: Path, homework: Homework) -> None:
    printed = {"output_type": "stream", "name": "stdout", "text": "data = digits\nfast = True\n"}
    edit_cell(done / Q2, "q2-settings", outputs=[printed])
    result = check_folder(homework, done)
    assert [item.id for item in result.open_items] == [item.id for item in homework.items_of("question2_training")]
    problems = {problem for item in result.open_items for problem in item.problems}
    assert {(problem.aspect, problem.what) for problem in problems} == {
        ("run", "this was the fast run: run it again without FAST")
    }
    assert result.to_dict()["fast"] == ["question2_training"]


@pytest.mark.slow
def test_question_1_is_done_with_a_pdf_or_with_an_answer_to_each_part(done: Path, homework: Homework) -> None:
    (done / homework.question1.pdf).write_bytes(b"GIF89a")
    assert item_of(homework, done, "1").problems[0].what == "question1.pdf is no PDF"
    (done / homework.question1.pdf).unlink()
    answers = done / homework.question1.answers
    assert item_of(homework, done, "1").problems[0].what == "no answer to 1(a), 1(b), 1(c) yet"
    answers.write_text(answers.read_text().replace("*Write your answer here, in place of this line.*", "Because.", 2))
    assert item_of(homework, done, "1").problems[0].what == "no answer to 1(c) yet"
    answers.write_text(answers.read_text().replace("*Write your answer here, in place of this line.*", "So."))
    same = "the same text stands under 1(a) and 1(b): answer each"
    assert item_of(homework, done, "1").problems[0].what == same
    answers.write_text(answers.read_text().replace("Because.", "Therefore.", 1))
    assert item_of(homework, done, "1").is_done


@pytest.mark.slow
@pytest.mark.parametrize("num_answered", [0, 2, 3])
def test_a_pdf_that_was_made_of_answers_with_open_parts_is_open(
    done: Path, homework: Homework, num_answered: int
) -> None:
    pdf, answers = done / homework.question1.pdf, done / homework.question1.answers
    text = answers.read_text()
    answers.write_text(text.replace("*Write your answer here, in place of this line.*", "Because.", num_answered))
    sheet = answer_sheet(answers, data=None, name="Ada (Lovelace)")
    pdf.unlink()
    sheet.save(pdf)
    item = item_of(homework, done, "1")
    open_parts = ["1(a)", "1(b)", "1(c)"][num_answered:]
    expected = [f"question1.pdf has no answer to {', '.join(open_parts)} yet"] if open_parts else []
    assert [problem.what for problem in item.problems] == expected


def test_a_line_is_cut_at_a_word_with_a_mark(done: Path, homework: Homework) -> None:
    message = "part 1: " + "the loss is wrong " * 20
    error = {"output_type": "error", "ename": "LabError", "evalue": message}
    edit_cell(done / Q2, "q2-1-check", outputs=[error])
    words = few_words(item_of(homework, done, "2.1"))
    assert len(words) <= 101
    assert words.endswith("…")
    assert message.startswith(words.removeprefix("run: ").removesuffix("…"))
    assert words.removesuffix("…").split()[-1] in message.split()


def test_of_what_a_notebook_shares_the_first_is_named_where_nothing_else_is_open(
    done: Path, homework: Homework
) -> None:
    printed = {"output_type": "stream", "name": "stdout", "text": "data = digits\nfast = True\n"}
    edit_cell(done / Q2, "q2-settings", outputs=[printed])
    edit_cell(done / Q2, "q2-7-check", execution_count=None)
    items = check_folder(homework, done).items
    shared = find_shared_problems(items)
    assert shared == {Q2: [FAST_RUN]}
    assert {item.id: few_words(item, shared.get(item.notebook, ())) for item in items if not item.is_done} == {
        item.id: "not run" if item.id == "2.7" else "fast run" for item in homework.items_of("question2_training")
    }
    assert find_repeated_problems(items) == {(Q2, FAST_RUN): ["q2-settings"], (Q2, NOT_RUN): ["q2-7-check"]}


def test_missing_runs_are_open_and_links_to_runs_elsewhere_do_not_count(done: Path, homework: Homework) -> None:
    runs = sorted((done / "runs").iterdir())
    runs[0].rename(done.parent / "elsewhere")
    runs[0].symlink_to(done.parent / "elsewhere")
    assert item_of(homework, done, "runs").problems[0].what.startswith("2 runs are in runs/")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, homework: Homework) -> None:
    with pytest.raises(LabError, match="is not a folder"):
        check_folder(homework, tmp_path / "none")
