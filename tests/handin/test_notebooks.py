"""The two forms of each notebook, made from one source."""

import ast
import json
import runpy
from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.handin.check import has_gap
from convolab.handin.homework import FORMS, Form, Homework
from convolab.handin.notebooks import (
    PLACEHOLDER,
    NotebookCell,
    build_notebook,
    notebook_json,
    parse_cells,
    percent_text,
    read_source,
    solution_cell,
    student_cell,
)

STORED = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = ("question2_training", "question3_4_inspection")
GAP = """\
def double(x):
    \"\"\"Twice x.\"\"\"
    # BEGIN SOLUTION: add x to itself
    return x + x
    # END SOLUTION


# BEGIN SOLUTION: a number
# INSTEAD: y = ...
y = double(2)
# END SOLUTION"""


def test_the_student_form_has_a_hint_and_a_gap_in_place_of_the_solution() -> None:
    text = student_cell(NotebookCell("code", "a", "gap", GAP)).text
    assert text == (
        'def double(x):\n    """Twice x."""\n    # TODO: add x to itself\n    ...\n\n\n# TODO: a number\ny = ...'
    )


def test_the_solution_form_is_the_source_without_its_marks() -> None:
    text = solution_cell(NotebookCell("code", "a", "gap", GAP)).text
    assert text == 'def double(x):\n    """Twice x."""\n    return x + x\n\n\ny = double(2)'


def test_a_comment_is_code_in_the_solution_and_an_empty_text_with_the_question_for_the_student() -> None:
    cell = NotebookCell("code", "a", "comment", '# PROMPT: What is seen?\nprint("much")')
    assert solution_cell(cell).text == 'print("much")'
    assert student_cell(cell) == NotebookCell(
        "markdown", "a", "comment", f"> **Your comment.** What is seen?\n\n{PLACEHOLDER}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_gap_is_open_for_the_student_and_filled_in_the_solution(homework: Homework, name: str) -> None:
    for form in FORMS:
        gaps = [cell for cell in build_notebook(homework, name, form, "digits") if cell.tag == "gap"]
        assert gaps
        assert {has_gap(cell.text) for cell in gaps} == {form == "student"}


@pytest.mark.parametrize("name", NAMES)
def test_no_mark_of_the_source_is_left_and_all_code_is_python(homework: Homework, name: str) -> None:
    for form in FORMS:
        for cell in build_notebook(homework, name, form, "digits"):
            assert not any(mark in cell.text for mark in ("BEGIN SOLUTION", "END SOLUTION", "INSTEAD:", "PROMPT:"))
            if cell.type == "code":
                ast.parse(cell.text)


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_the_solution_is_in_the_student_form(homework: Homework, name: str) -> None:
    student = {cell.name: cell.text for cell in build_notebook(homework, name, "student", "digits")}
    for cell in build_notebook(homework, name, "solution", "digits"):
        if cell.tag in ("gap", "comment"):
            assert student[cell.name] != cell.text
            assert len(student[cell.name]) < len(cell.text) + 200


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_equal_sources_give_equal_bytes_that_jupyter_accepts(homework: Homework, name: str, form: Form) -> None:
    nbformat = pytest.importorskip("nbformat", reason="notebooks are not installed: pip install 'convolab[notebook]'")
    texts = {notebook_json(build_notebook(homework, name, form, "digits")) for _ in range(2)}
    [text] = texts
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert json.loads(nbformat.writes(notebook)) == json.loads(text)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_jupytext_reads_the_same_cells_from_the_python_file(homework: Homework, name: str, form: Form) -> None:
    jupytext = pytest.importorskip("jupytext", reason="notebooks are not installed: pip install 'convolab[notebook]'")
    cells = build_notebook(homework, name, form, "digits")
    read = jupytext.reads(percent_text(cells), fmt="py:percent").cells
    assert [(cell.cell_type, cell.source, cell.metadata.name) for cell in read] == [
        (cell.type, cell.text, cell.name) for cell in cells
    ]
    assert list(parse_cells(percent_text(cells))) == cells


def test_the_dataset_is_set_at_the_top_of_each_notebook(homework: Homework) -> None:
    for name in NAMES:
        for data in homework.datasets:
            text = "\n".join(cell.text for cell in build_notebook(homework, name, "student", data))
            assert f'\nDATA = "{data}"  # or ' in text
            assert "= {}  # from homework.toml" not in text
            assert f"'epochs': {homework.budgets[data].epochs}" in text


def test_an_unknown_dataset_is_refused_with_the_known_ones(homework: Homework) -> None:
    with pytest.raises(LabError, match="there is no homework on 'cifar01': did you mean 'cifar10'"):
        build_notebook(homework, NAMES[0], "student", "cifar01")


def test_no_two_cells_share_a_name_which_is_their_id() -> None:
    names = [cell.name for name in NAMES for cell in read_source(name)]
    assert "" not in names
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 64  # of a cell's id


def test_the_stored_notebooks_are_those_of_the_source(homework: Homework) -> None:
    make = runpy.run_path(str(STORED / "make.py"))
    for name in NAMES:
        for form in FORMS:
            cells = build_notebook(homework, name, form, make["SOLUTION_DATA"] if form == "solution" else "digits")
            stem = STORED / form / name
            assert stem.with_suffix(".py").read_text() == percent_text(cells), "run `make notebooks`"
            assert make["has_these_cells"](stem.with_suffix(".ipynb"), cells), "run `make notebooks`"
            assert stem.with_suffix(".ipynb").stat().st_size < 3_000_000


def test_a_stored_solution_keeps_its_outputs_while_only_texts_and_checks_change(tmp_path: Path) -> None:
    with_stored_outputs = runpy.run_path(str(STORED / "make.py"))["with_stored_outputs"]
    cells = [NotebookCell("markdown", "a", "", "Text"), NotebookCell("code", "b", "gap", "x = 1")]
    cells += [NotebookCell("code", "c", "check", "assert x"), NotebookCell("code", "d", "figure", "draw(x)")]
    content = json.loads(notebook_json(cells))
    for cell in content["cells"][1:]:
        cell.update(execution_count=1, outputs=[{"output_type": "stream", "name": "stdout", "text": "1"}])
    stored = tmp_path / "a.ipynb"
    stored.write_text(json.dumps(content))
    changed = {"a": "Other text", "c": "assert x == 1"}
    edited = [NotebookCell(cell.type, cell.name, cell.tag, changed.get(cell.name, cell.text)) for cell in cells]
    kept = {cell["id"]: cell.get("outputs") for cell in json.loads(with_stored_outputs(stored, edited))["cells"]}
    assert [name for name, outputs in kept.items() if outputs] == ["b", "d"]
    edited[1] = NotebookCell("code", "b", "gap", "x = 2")
    assert with_stored_outputs(stored, edited) == notebook_json(edited)
