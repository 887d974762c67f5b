"""The command `convolab theory`."""

import json
import sys
from pathlib import Path

import pytest

from convolab.cli.commands.theory import trial_progress_bar
from convolab.theory import correlation, priors


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


@pytest.mark.slow
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
        (("--data", "digitz"), "there is no dataset 'digitz': did you mean 'digits'?"),
        (("--data", "cifar10", "--data-dir", "taken"), "cannot write taken"),
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
