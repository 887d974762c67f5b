"""The command `convolab theory`."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from convolab.cli.commands.theory import require_sheet_or_folder, trial_progress_bar
from convolab.theory import correlation, priors, question1
from convolab.theory.sheet import AnswerSheet


@pytest.fixture
def small_experiment(monkeypatch):
    """The experiment at a size that takes seconds; its claims are tested in tests/theory."""
    config = priors.PriorsConfig(train_size=64, epochs=1, test_placements=1)
    monkeypatch.setattr(priors, "CONFIG_BY_DATASET", {"digits": config})


@pytest.mark.slow
def test_a_quick_run_answers_and_writes_the_sheet_in_three_formats(run_cli) -> None:
    result = run_cli("theory", "--quick")
    assert (result.code, result.err) == (0, "")
    for text in ("1(a)", "1(b)", "1(c)", "100,000 MACs", "All 14 checks passed."):
        assert text in result.out
    assert "FAILED" not in result.out
    assert {p.name for p in Path("question1").iterdir()} == {
        "question1.md",
        "question1.html",
        "question1.pdf",
        "figures",
    }
    assert "left out." in Path("question1/question1.md").read_text()


@pytest.mark.slow
def test_a_failed_check_makes_the_command_exit_1_and_is_in_the_sheet(run_cli, monkeypatch) -> None:
    monkeypatch.setattr(correlation, "jacobian_x", lambda y: correlation.jacobian_y(y))
    result = run_cli("theory", "--quick", "--out", "a.md")
    assert result.code == 1
    assert result.err == "convolab: 1 of 14 checks failed\n"
    assert "FAILED: every entry of both Jacobians" in result.out
    assert "❌ **Check FAILED:** every entry" in Path("a.md").read_text()


@pytest.mark.long
def test_the_experiment_is_part_of_the_sheet_and_of_the_json(run_cli, small_experiment) -> None:
    result = run_cli("theory", "--seeds", 3, "--seed", 5, "--pdf", "sheet.pdf", "--json")
    values = json.loads(result.out)  # nothing else on standard output
    assert result.code == (1 if values["num_failed"] else 0)
    assert values["num_checks"] == 20
    assert all(answer["summary"] for answer in values["answers"])
    assert [answer["name"] for answer in values["answers"]] == ["1(a)", "1(b)", "1(c)"]
    assert all(
        {"claim", "result", "passed"} == set(check) for answer in values["answers"] for check in answer["checks"]
    )
    assert len(values["trials"]) == 3 * 4 * 2
    assert {trial["seed"] for trial in values["trials"]} == {5, 6, 7}
    assert {"num_parameters", "test_accuracy"} <= set(values["trials"][0])
    assert values["config"]["train_size"] == 64
    assert values["files"] == ["sheet.pdf"]
    assert [p.name for p in Path().iterdir()] == ["sheet.pdf"]


@pytest.mark.long
def test_name_date_and_sizes_are_in_every_format_of_the_sheet(run_cli) -> None:
    options = ("--samples", 64, "--outputs", 20, "--kernel-size", 5, "--maps", 4, "--jacobian-size", 4)
    result = run_cli("theory", "--quick", "--name", "Ada <Lovelace>", "--date", "1 May", *options)
    assert (result.code, result.err) == (0, "")
    assert "f gives 20 values, with 1,280 parameters and 1,280 MACs." in result.out
    assert "Ada &lt;Lovelace&gt;, 1 May" in Path("question1/question1.md").read_text()
    assert "Ada &lt;Lovelace&gt;, 1 May" in Path("question1/question1.html").read_text()
    assert Path("question1/question1.pdf").stat().st_size > 10_000


@pytest.mark.slow
def test_a_template_is_filled_in_and_typeset_with_the_checks_as_appendix(run_cli) -> None:
    written = run_cli("theory", "--answers-template", "my.md", "--samples", 64)
    assert (written.code, written.out.splitlines()[0]) == (0, "written to: my.md")
    assert "from 64 to 640 values" in Path("my.md").read_text()
    again = run_cli("theory", "--answers-template", "my.md")
    assert (again.code, again.err.count("\n")) == (2, 1)
    assert "my.md exists already and is never overwritten" in again.err
    text = Path("my.md").read_text().replace("## 1(b)", "My own <b>words</b> and $x_1$.\n\n## 1(b)")
    Path("my.md").write_text(text)
    result = run_cli("theory", "--quick", "--answers", "my.md", "--out", "sheet")
    assert result.code == 0
    assert result.err == "convolab: not answered yet: 1(b) and 1(c)\n"
    page = Path("sheet/question1.html").read_text()
    assert "<p>My own &lt;b&gt;words&lt;/b&gt; and <math" in page
    assert page.count('class="open"') == 2
    assert page.index("1(c) is not answered yet") < page.index("Appendix: what convolab checked")
    assert 0 < page.count("Check passed:") < 14
    assert "Short answer" not in page
    for shown in (page, result.out):  # nothing of the parts that are open
        assert not any(word in shown for word in ("Jacobian", "100,000"))
    assert "do not look at" in page
    assert result.out.splitlines()[-1].startswith("your answers, without 1(b) and 1(c), written to: sheet/question1.md")
    assert "full answers" not in result.out
    assert Path("my.md").read_text() == text


def test_the_answers_are_never_replaced_by_the_sheet(run_cli, monkeypatch) -> None:
    monkeypatch.setattr(question1, "make_sheet", lambda *_: pytest.fail("work was started"))
    Path("q").mkdir()
    Path("q/question1.md").write_text("## 1(a)\nmine")
    for out in ("q", "q/../q/question1.md"):
        result = run_cli("theory", "--quick", "--answers", "q/question1.md", "--out", out)
        assert result.code == 2
        assert "holds your answers and would be replaced" in result.err
    assert Path("q/question1.md").read_text() == "## 1(a)\nmine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("## 1(e)\nx", "my.md, line 1: the heading '1(e)' is not one of 1(a), 1(b) and 1(c)"),
        ("## 1(a)\n$\\frac{a$", "the formula $\\frac{a$ cannot be typeset: an argument is missing"),
        ("## 1(a)\n$\\foo$", "the command \\foo is not known"),
        ("## 1(a)\n" + "x" * 10**6, "my.md has 1,000,008 bytes: give a text of at most 1,000,000"),
    ],
)
def test_answers_that_cannot_be_typeset_are_refused_in_one_line_before_work_starts(
    run_cli, monkeypatch, text: str, message: str
) -> None:
    monkeypatch.setattr(question1, "make_sheet", lambda *_: pytest.fail("work was started"))
    Path("my.md").write_text(text)
    result = run_cli("theory", "--answers", "my.md")
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_a_folder_whose_name_has_a_dot_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "old.docs").mkdir()
    for name in ("v1.2", "sheet.2025-26", "old.docs"):
        require_sheet_or_folder(tmp_path / name)


def commands_in_docs() -> list[list[str]]:
    """The arguments of every `convolab theory` in docs/theory.md."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "theory.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.slow
def test_the_commands_in_docs_are_those_that_the_command_line_takes(run_cli, monkeypatch) -> None:
    sheet = AnswerSheet("t", "made by a test", ())
    monkeypatch.setattr(question1, "make_sheet", lambda *_: sheet)
    commands = commands_in_docs()
    assert len(commands) == 4
    run_cli("theory", "--answers-template", "my.md")
    for command in commands:
        result = run_cli(*command)
        assert (result.code, result.err) == (0, "")
    assert Path("my.md").is_file()
    assert Path("sheet.pdf").is_file()


def test_there_is_no_progress_bar_in_a_pipe_and_one_on_a_terminal(monkeypatch) -> None:
    with trial_progress_bar(3) as on_trial:
        assert on_trial is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with trial_progress_bar(1) as on_trial:
        on_trial(priors.PriorsTrial("a", "b", 0, 1, 1.0, 1.0))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--pdf", "sheet.txt"), "--pdf sheet.txt: the file name must end in .pdf"),
        (("--out", "taken"), "taken is a file: give a folder"),
        (("--out", "folder.md"), "folder.md is a folder: choose another name"),
        (("--out", "taken/below"), "cannot write taken/below"),
        (("--out", "sheet.docx"), "sheet.docx: .docx is not written: give a folder, or a file name ending in .md"),
        (("--out", "a/sheet.TEX"), "a/sheet.TEX: .TEX is not written"),
        (("--answers-template", "mine.docx"), "mine.docx: it is Markdown, so give a name that ends in .md"),
        (("--data", "digitz"), "there is no dataset 'digitz': did you mean 'digits'?"),
        (("--data", "cifar10", "--data-dir", "taken"), "cannot write taken"),
        (("--kernel-size", "4"), "kernel size 4 is even: give an odd one"),
        (("--samples", "9", "--kernel-size", "11"), "kernel size 11 is longer than the signal of 9 samples"),
        (("--samples", "100000"), "the checks run it, so give at most 10,000,000"),
        (("--jacobian-size", "13"), "Jacobians of size 13: give 2 to 12 samples"),
        (("--maps", "0"), "maps 0: give a whole number of at least 1"),
        (("--name", "a\nb"), "does not fit in the sheet's head"),
        (("--answers", "none.md"), "there is no file none.md"),
        (("--answers-template", "taken"), "taken exists already and is never overwritten"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line_before_work_starts(run_cli, monkeypatch, args, message) -> None:
    monkeypatch.setattr(priors, "run_priors_experiment", lambda *_: pytest.fail("work was started"))
    Path("taken").write_text("mine")
    Path("folder.md").mkdir()
    result = run_cli("theory", *args)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert Path("taken").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "missing", "message"),
    [
        (("--pdf", "a.pdf"), "typst", "a.pdf needs typst: pip install 'convolab[pdf]'"),
        (("--out", "a.html"), "latex2mathml", "a.html needs latex2mathml: pip install 'convolab[pdf]'"),
        ((), "typst", "question1 needs typst: pip install 'convolab[pdf]', or write a file ending in .md"),
    ],
)
def test_a_missing_package_is_named_in_one_line_before_work_starts(
    run_cli, monkeypatch, args, missing, message
) -> None:
    monkeypatch.setattr(priors, "run_priors_experiment", lambda *_: pytest.fail("work was started"))
    monkeypatch.setitem(sys.modules, missing, None)
    result = run_cli("theory", *args)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert list(Path().iterdir()) == []
