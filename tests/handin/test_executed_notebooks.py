"""Both notebooks, run in a kernel of Jupyter: the solution from top to bottom, and the student form with its gaps."""

import ast
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.homework_folder import OWN_COMMENT
from support.small_homework import copy_as, pack

import convolab
from convolab.core.errors import LabError
from convolab.handin.check import FAST_RUN, check_folder
from convolab.handin.homework import Form, Homework
from convolab.handin.notebooks import build_notebook, notebook_json
from convolab.handin.verify.verify import verify_hand_ins

nbformat = pytest.importorskip("nbformat", reason="notebooks are not installed: pip install 'convolab[notebook]'")
NAMES = ("question2_training", "question3_4_inspection")
pytestmark = pytest.mark.slow


def execute(homework: Homework, name: str, form: Form, folder: Path, data: str = "digits", fast: bool = True) -> Any:
    """A notebook with its outputs. Those of the solution may not fail."""
    from nbclient import NotebookClient

    notebook = nbformat.reads(notebook_json(build_notebook(homework, name, form, data)), as_version=4)
    client = NotebookClient(
        notebook, timeout=600 if fast else None, kernel_name="python3", allow_errors=form == "student",
        coalesce_streams=True, resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVOLAB_FAST", "1" if fast else "0")
        patch.setenv("CONVOLAB_HOMEWORK_DATA", data)
        client.execute(env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"})
    return notebook


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory, homework: Homework) -> Path:
    """A folder with both solutions, executed, and their runs."""
    folder = tmp_path_factory.mktemp("solved")
    for name in NAMES:
        started = time.monotonic()
        notebook = execute(homework, name, "solution", folder)
        nbformat.write(notebook, folder / f"{name}.ipynb")
        print(f"{name}: {time.monotonic() - started:.0f} s")
    return folder


def test_in_the_solutions_only_the_comments_the_fast_run_and_question_1_are_open(
    solved: Path, homework: Homework
) -> None:
    result = check_folder(homework, solved)
    open_aspects = {problem.aspect for item in result.open_items for problem in item.problems}
    assert open_aspects == {"comment", "run"}
    texts = {problem.what for item in result.open_items for problem in item.problems if item.id != "1"}
    assert texts == {"it is the text of the solution or of the task: write what you see in your run", FAST_RUN}
    assert result.fast == NAMES
    with_comments = [item for item in result.items if any(problem.aspect == "comment" for problem in item.problems)]
    assert len(with_comments) == 1 + sum(bool(item.comments) for item in homework.items)


def test_with_comments_of_ones_own_and_a_full_run_nothing_is_open(
    solved: Path, homework: Homework, tmp_path: Path
) -> None:
    for name in NAMES:
        content = json.loads((solved / f"{name}.ipynb").read_text())
        for cell in content["cells"]:
            if cell["metadata"].get("tags") == ["comment"]:
                cell.update(cell_type="markdown", source=OWN_COMMENT)
            elif cell["metadata"]["name"].endswith("-settings"):
                [printed] = [output for output in cell["outputs"] if output["output_type"] == "stream"]
                printed["text"] = "".join(printed["text"]).replace("fast = True", "fast = False")
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(content))
    (tmp_path / "runs").symlink_to(solved / "runs")
    (tmp_path / homework.question1.pdf).write_bytes(b"%PDF-1.7\n")
    assert [item.id for item in check_folder(homework, tmp_path).open_items] == ["runs"]  # a link is not followed


def test_the_comments_of_the_solution_tell_the_numbers_of_their_run(solved: Path) -> None:
    for name in NAMES:
        cells = json.loads((solved / f"{name}.ipynb").read_text())["cells"]
        comments = [cell for cell in cells if cell["metadata"].get("tags") == ["comment"]]
        for cell in comments:
            [output] = cell["outputs"]
            text = "".join(output["data"]["text/markdown"])
            assert any(char.isdigit() for char in text)
            assert "{" not in text


@pytest.mark.long
def test_ten_honest_hand_ins_of_the_course_pass_and_an_edited_number_does_not(
    solved: Path, homework: Homework, tmp_path: Path
) -> None:
    for number in range(10):
        work = copy_as(solved, tmp_path / f"work-{number}", f"Person {number}", number)
        pack(homework, work, f"Person {number}", tmp_path / "inbox" / f"{number}.zip")
    reports = verify_hand_ins([tmp_path / "inbox"], homework).reports
    assert [(report.refused, report.contradictions) for report in reports] == [("", [])] * 10
    assert {report.total_points for report in reports} == {homework.question1.points}  # the rest is the fast run's
    for label, notebook, words in (
        ("test accuracy = ", NAMES[0], "the printed 95 % interval does not fit 0.9876"),
        ("validation accuracy with = ", NAMES[0], "the chart of the cell does not have it"),
        ("small network's validation accuracy = ", NAMES[1], "no run in evidence/ has this accuracy"),
    ):
        path = tmp_path / "work-3" / f"{notebook}.ipynb"
        honest = path.read_text()
        place = honest.index(label) + len(label)
        path.write_text(f"{honest[:place]}0.9876{honest[place + 6 :]}")
        [report] = verify_hand_ins([pack(homework, tmp_path / "work-3", "Person 3")], homework).reports
        assert [sign.what for sign in report.contradictions if words in sign.what], label
        path.write_text(honest)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_the_whole_solution_runs_to_its_end_and_is_small_enough_to_be_handed_in(
    homework: Homework, data: str, name: str, tmp_path: Path, cifar10_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONVOLAB_DATA", str(cifar10_dir))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # as a person runs it
    started = time.monotonic()
    notebook = execute(homework, name, "solution", tmp_path, data, fast=False)
    size = len(nbformat.writes(notebook))
    print(f"{name} on {data}: {time.monotonic() - started:.0f} s, {size / 1e6:.2f} MB")
    assert size <= 3_000_000


@pytest.mark.parametrize("name", [NAMES[0], pytest.param(NAMES[1], marks=pytest.mark.long)])
def test_before_anything_is_filled_in_checks_and_figures_fail_in_one_line_of_their_own(
    homework: Homework, name: str, tmp_path: Path
) -> None:
    notebook = execute(homework, name, "student", tmp_path)
    errors = {
        cell.metadata.name: output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "error"
    }
    checks = {cell.metadata.name for cell in notebook.cells if cell.metadata.get("tags") == ["check"]}
    figures = {cell.metadata.name for cell in notebook.cells if cell.metadata.get("tags") == ["figure"]}
    others = {"q2-13-runs", "q4-2-beside", "q4-3-small"}
    assert checks | figures <= errors.keys() <= checks | figures | others
    for error in errors.values():
        assert error.ename == "LabError"
        assert error.traceback == [f"LabError: {error.evalue}"]  # one line, no traceback
        assert error.evalue.startswith("part ")
    messages = [errors[check].evalue for check in checks]
    assert len(set(messages)) == len(messages)


@pytest.mark.parametrize("name", NAMES)
def test_no_open_gap_prints_the_dots_that_stand_for_it(homework: Homework, name: str) -> None:
    for cell in build_notebook(homework, name, "student", "digits"):
        if cell.type == "code":
            last = ast.parse(cell.text).body[-1]
            assert not (isinstance(last, ast.Expr) and ast.unparse(last.value) == "..."), cell.name


def test_an_image_that_cannot_be_fetched_is_replaced_by_a_sample(homework: Homework, capsys) -> None:
    cells = {cell.name: cell.text for cell in build_notebook(homework, NAMES[1], "student", "digits")}
    text = cells["q3-images"].replace('IMAGE_ADDRESS = "chelsea"', 'IMAGE_ADDRESS = "https://example.com/cat.jpg"', 1)
    text = text[: text.index("inputs = ")].replace('net = convolab.pretrained("efficientnet_lite0")', "")
    read_image = convolab.read_image

    def read(name: str) -> object:
        if "://" in name:
            raise LabError(f"{name}: no connection")
        return read_image(name)

    names = {"convolab": SimpleNamespace(read_image=read, LabError=LabError)}
    exec(text, names)
    assert list(names["photos"]) == ["chelsea", "coffee", "rocket"]
    message = "The sample 'chelsea' takes the place of https://example.com/cat.jpg: https://example.com/cat.jpg: no connection"
    assert capsys.readouterr().out.strip() == message
