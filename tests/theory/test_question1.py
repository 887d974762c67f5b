"""The sheet of question 1, made by one call."""

from pathlib import Path

import pytest
import torch

from convolab.core.errors import LabError
from convolab.theory import priors, question1
from convolab.theory.layers import LayerSizes
from convolab.theory.question1 import SheetSettings, answer_sheet, command_options
from convolab.theory.sheet import Check, Heading, OpenItem, SheetFigure, Table, plain_text


@pytest.fixture
def work_must_not_start(monkeypatch) -> None:
    for name in ("answer_question_1a", "answer_question_1b", "answer_question_1c", "load"):
        monkeypatch.setattr(question1, name, lambda *_, **__: pytest.fail("work was started"))


@pytest.mark.slow
def test_a_sheet_is_made_by_one_call_that_changes_nothing_of_the_process() -> None:
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    sheet = answer_sheet(name=" Ada ", date="1 May", samples=64, maps=4, kernel_size=5, outputs=20, data=None)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads
    assert [answer.name for answer in sheet.answers] == ["1(a)", "1(b)", "1(c)"]
    assert (sheet.name, sheet.date, sheet.failed_checks, sheet.open_parts) == ("Ada", "1 May", (), ())
    command = "`convolab theory --seed 0 --quick --samples 64 --outputs 20 --kernel-size 5 --maps 4`"
    assert command.strip("`") in plain_text(sheet.provenance)


@pytest.mark.slow
def test_own_answers_replace_the_prose_and_the_evidence_becomes_an_appendix(tmp_path: Path) -> None:
    path = tmp_path / "mine.md"
    path.write_text("## 1(a)\nLocality and stationarity.\n\n## 1(c)\n- as computed\n")
    sheet = answer_sheet(path, data=None, samples=64)
    plain = answer_sheet(data=None, samples=64)
    *own, appendix = sheet.answers
    assert [answer.name for answer in own] == ["1(a)", "1(b)", "1(c)"]
    assert plain_text(own[0].blocks[0].text) == "Locality and stationarity."
    assert own[1].blocks == (OpenItem("1(b) is not answered yet."),)
    assert sheet.open_parts == ("1(b)",)
    assert [answer.summary for answer in own] == ["", "", ""]
    assert "from 64 to 640 values" in own[2].question
    assert appendix.name == "Appendix: what convolab checked"
    assert {type(block) for block in appendix.blocks} == {Heading, Check, SheetFigure, Table}
    assert [block.text for block in appendix.blocks if isinstance(block, Heading)] == ["1(a)", "1(c)"]
    expected = [check.claim for index in (0, 2) for check in plain.answers[index].checks]
    assert [check.claim for check in appendix.checks] == expected
    assert f"--answers {path}" in plain_text(sheet.provenance)
    assert "Its checks do not look at the author's answers." in plain_text(sheet.provenance)


def test_of_parts_that_a_person_has_not_answered_nothing_is_computed_and_nothing_shown(
    tmp_path: Path, monkeypatch
) -> None:
    for name in ("answer_question_1a", "answer_question_1b", "answer_question_1c", "load"):
        monkeypatch.setattr(question1, name, lambda *_, **__: pytest.fail("a solution was computed"))
    path = tmp_path / "mine.md"
    path.write_text("## 1(a)\n\n## 1(c)\n...\n")
    sheet = answer_sheet(path)  # with the experiment, if 1(a) were answered
    assert sheet.open_parts == ("1(a)", "1(b)", "1(c)")
    assert [answer.name for answer in sheet.answers] == ["1(a)", "1(b)", "1(c)"]
    assert all({type(block) for block in answer.blocks} == {OpenItem} for answer in sheet.answers)
    assert sheet.is_own
    assert sheet.checks == ()


@pytest.mark.long
def test_the_experiment_is_part_of_the_sheet(monkeypatch) -> None:
    config = priors.PriorsConfig(train_size=64, epochs=1, test_placements=1)
    monkeypatch.setattr(priors, "CONFIG_BY_DATASET", {"digits": config})
    trials: list = []
    sheet = answer_sheet(seeds=3, on_trial_end=trials.append)
    assert sheet.experiment is not None
    assert len(trials) == len(sheet.experiment.trials) == 24
    assert "on digits with all pixels in one random order, a convnet's lead" in sheet.answers[0].summary


@pytest.mark.usefixtures("work_must_not_start")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 2}, "kernel size 2 is even"),
        ({"kernel_size": 101}, "longer than the signal of 100 samples"),
        ({"jacobian_size": 40}, "give 2 to 12 samples"),
        ({"seeds": 2}, "2 seeds: give 3 to 100"),
        ({"seed": -1}, "seed -1: give at least 0"),
        ({"name": "two\nlines"}, r"the name 'two\nlines' does not fit in the sheet's head"),
        ({"date": "x" * 201}, "give one line of at most 200 printable characters"),
        ({"answers": "nowhere.md"}, "there is no file nowhere.md"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line_before_work_starts(arguments: dict, message: str) -> None:
    with pytest.raises(LabError) as caught:
        answer_sheet(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_that_makes_the_sheet_again_names_what_differs_from_the_course() -> None:
    assert command_options(SheetSettings()) == ["--seed 0", "--data digits", "--seeds 5"]
    settings = SheetSettings(
        LayerSizes(64, 4, 5, 20), jacobian_size=4, data="folder:my images", answers_file="my answers.md", own_answers={}
    )
    assert command_options(settings) == [
        "--answers 'my answers.md'",
        "--seed 0",
        "--data 'folder:my images'",
        "--seeds 5",
        "--samples 64",
        "--outputs 20",
        "--kernel-size 5",
        "--maps 4",
        "--jacobian-size 4",
    ]
