"""A study from its file to its conclusions, undisturbed and disturbed."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image
from support.small_jobs import within

from convolab.core.errors import LabError
from convolab.studies.executor import EventCallback, Executor, Job, JobEvent
from convolab.studies.results import StudyResult
from convolab.studies.runner import run_study
from convolab.studies.serialize import study_result_to_dict
from convolab.studies.study import Study
from convolab.training.run import Run

Tiny = Callable[..., Study]
TIMES = ("seconds", "train_seconds", "images_per_second", "tested", "folder", "started", "machine", "versions")


def timeless(value: Any) -> Any:
    """Facts without what hangs on the clock and the place."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list | tuple) else value


def statuses(result: StudyResult) -> dict[tuple[str, int], str]:
    return {
        (o.trial.arm, o.trial.seed): o.status
        for section in result.sections
        for arm in section.arms
        for o in arm.results
    }


@pytest.mark.slow
def test_a_study_trains_every_trial_and_answers_its_contrast(tiny: Tiny, here: Executor, tmp_path: Path):
    heard: list[JobEvent] = []
    result = run_study(tiny(), tmp_path, executor=here, on_event=heard.append)
    assert set(statuses(result).values()) == {"finished"}
    assert len([news for news in heard if news.kind == "finished"]) == 4
    (answer,) = result.sections[0].contrast_results
    assert answer.seeds == (0, 1)
    assert answer.paired_test.difference.mean == pytest.approx(
        sum(answer.arm_values) / 2 - sum(answer.baseline_values) / 2
    )


@pytest.mark.slow
def test_every_core_gives_the_same_bits_as_this_process(tiny: Tiny, here: Executor, tmp_path: Path):
    alone = study_result_to_dict(run_study(tiny(), tmp_path / "alone", executor=here))
    side_by_side = study_result_to_dict(run_study(tiny(), tmp_path / "cores"))
    assert timeless(alone) == timeless(side_by_side)


@pytest.mark.slow
def test_a_finished_run_is_never_trained_twice(tiny: Tiny, here: Executor, tmp_path: Path):
    run_study(tiny(), tmp_path, executor=here)
    plans: list[tuple[int, int]] = []
    result = run_study(tiny(), tmp_path, executor=here, on_plan=lambda jobs, done: plans.append((len(jobs), done)))
    assert plans == [(0, 4)]
    assert set(statuses(result).values()) == {"finished"}


@pytest.mark.slow
def test_sections_share_a_run_and_it_is_trained_once(tiny: Tiny, here: Executor, tmp_path: Path):
    sections = {
        "a": {"arms": {"usual": {}, "slow": {"optimizer.lr": 0.001}}},
        "b": {"arms": {"same": {}, "other": {"optimizer.lr": 0.01}}},
    }
    result = run_study(tiny(sections=sections), tmp_path, executor=here)
    assert len(list((tmp_path / "runs").iterdir())) == 6
    assert len(statuses(result)) == 8
    assert result.sections[0].arms[0].results[0].history == result.sections[1].arms[0].results[0].history


@pytest.mark.slow
def test_a_changed_study_says_which_runs_still_hold_and_trains_the_rest(tiny: Tiny, here: Executor, tmp_path: Path):
    run_study(tiny(), tmp_path, executor=here)
    other = {"rates": {"arms": {"fast": {}, "slower": {"optimizer.lr": 0.0001}}}}
    said: list[str] = []
    plans: list[int] = []
    run_study(
        tiny(sections=other),
        tmp_path,
        executor=here,
        on_message=said.append,
        on_plan=lambda jobs, done: plans.append(len(jobs)),
    )
    assert said[0].startswith(
        "the study has changed since: 2 of its runs can be reused, 2 are to be trained, 2 are in no section now ("
    )
    assert plans == [2]
    assert len(list((tmp_path / "runs").iterdir())) == 6, "a run is never thrown away"


@pytest.mark.slow
def test_a_study_of_the_first_edition_is_refused_in_one_line_and_nothing_of_it_is_trained_again(
    tiny: Tiny, here: Executor, tmp_path: Path
):
    run_study(tiny(), tmp_path, executor=here)
    summary = next((tmp_path / "runs").glob("*/summary.json"))
    values = json.loads(summary.read_text())
    del values["format"]
    summary.write_text(json.dumps(values))
    with pytest.raises(LabError, match="is a study of convolab's first edition: it can be read"):
        run_study(tiny(), tmp_path, executor=here)


@pytest.mark.slow
def test_a_damaged_run_is_named_and_retrained_only_with_repair(tiny: Tiny, here: Executor, tmp_path: Path):
    before = study_result_to_dict(run_study(tiny(), tmp_path, executor=here))
    harmed = sorted((tmp_path / "runs").iterdir())[0]
    lines = [json.loads(line) for line in (harmed / "metrics.jsonl").read_text().splitlines()]
    lines[0]["train_loss"] = 0.0
    (harmed / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(LabError, match=rf"1 of the runs is damaged: .*{harmed.name}.*was edited.*--retrain-damaged"):
        run_study(tiny(), tmp_path, executor=here)
    plans: list[int] = []
    after = study_result_to_dict(
        run_study(tiny(), tmp_path, executor=here, repair=True, on_plan=lambda jobs, done: plans.append(len(jobs)))
    )
    assert plans == [1]
    assert timeless(after) == timeless(before)


@pytest.mark.slow
def test_runs_of_other_pictures_are_refused(tiny: Tiny, here: Executor, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for shade in range(20):
            Image.new("L", (8, 8), shade * 10).save(tmp_path / "set" / name / f"{shade:02}.png")
    recipe = {
        "data": {"name": f"folder:{tmp_path / 'set'}", "image_size": 8, "augment": []},
        "training": {"epochs": 1, "batch_size": 8},
    }
    run_study(tiny(recipe=recipe), tmp_path / "study", executor=here)
    Image.new("L", (8, 8), 255).save(tmp_path / "set" / "a" / "00.png")
    with pytest.raises(LabError, match=r"the (train|test) images of folder:.* are not those of"):
        run_study(tiny(recipe=recipe), tmp_path / "study", executor=here)


@pytest.mark.slow
def test_a_diverging_arm_is_shown_as_diverged_and_its_contrast_decides_nothing(
    tiny: Tiny, here: Executor, tmp_path: Path
):
    sections = {
        "rates": {
            "arms": {"usual": {}, "wild": {"optimizer.lr": 1e30}},
            "contrasts": [{"arm": "wild", "baseline": "usual"}],
        }
    }
    result = run_study(tiny(sections=sections), tmp_path, executor=here)
    assert statuses(result)["wild", 0] == "diverged"
    (answer,) = result.sections[0].contrast_results
    assert answer.verdict is None
    assert "diverged" in answer.comment


def test_a_study_that_cannot_be_trained_is_refused_before_the_first_step(tiny: Tiny, here: Executor, tmp_path: Path):
    sections = {"rates": {"arms": {"usual": {}, "huge": {"training.batch_size": 5000}}}}
    with pytest.raises(LabError, match="section 'rates', arm 'huge': a batch of 5000"):
        run_study(tiny(sections=sections), tmp_path / "study", executor=here)
    assert not (tmp_path / "study").exists()


def test_two_picture_sets_in_one_study_are_refused(tiny: Tiny, here: Executor, tmp_path: Path):
    sections = {"sets": {"arms": {"a": {}, "b": {"data.name": "fashion_mnist"}}}}
    with pytest.raises(
        LabError, match="a study uses one data set and one image size, but its recipes name digits, fashion_mnist"
    ):
        run_study(tiny(sections=sections), tmp_path / "study", executor=here)


@pytest.mark.timing
def test_two_processes_do_not_conduct_one_study(tiny: Tiny, here: Executor, tmp_path: Path):
    with FileLock(tmp_path / ".lock"), pytest.raises(LabError, match="is in use by another process"):
        run_study(tiny(), tmp_path, executor=here)


class Failing:
    """An engine whose first job fails."""

    def __init__(self, engine: Executor) -> None:
        self.engine = engine

    def run(self, jobs: Sequence[Job], pictures: Path, hear: EventCallback, stop: Callable[[], bool]) -> None:
        hear(JobEvent(jobs[0].recipe.key, "failed", reason="its process ended by signal SIGKILL"))
        self.engine.run(jobs[1:], pictures, hear, stop)


@pytest.mark.slow
def test_a_failed_trial_is_reported_and_nothing_is_tested_until_it_is_done(tiny: Tiny, here: Executor, tmp_path: Path):
    result = run_study(tiny(test_best=True), tmp_path, executor=Failing(here))
    assert sorted(statuses(result).values()) == ["failed", "finished", "finished", "finished"]
    assert any("its process ended by signal SIGKILL" in note for note in result.notes)
    assert result.best_on_test is None
    assert any("no run was tested" in note for note in result.notes)
    assert run_study(tiny(test_best=True), tmp_path, executor=here).best_on_test is not None


@pytest.mark.slow
def test_the_best_run_of_all_is_tested_once(tiny: Tiny, here: Executor, tmp_path: Path):
    best = run_study(tiny(test_best=True), tmp_path, executor=here).best_on_test
    accuracies = {
        path.parent.name: max(json.loads(line)["validation_accuracy"] for line in path.read_text().splitlines())
        for path in (tmp_path / "runs").glob("*/metrics.jsonl")
    }
    assert best.validation_accuracy == max(accuracies.values()) == accuracies[best.trial_result.trial.recipe.key]
    assert best.num_candidates == 4
    assert best.num_validation_images == 20
    assert [path.parent.name for path in (tmp_path / "runs").glob("*/test.json")] == [
        best.trial_result.trial.recipe.key
    ]
    assert run_study(tiny(test_best=True), tmp_path, executor=here).best_on_test.test_result == best.test_result


@pytest.mark.slow
def test_a_second_best_run_is_said_to_be_a_second_look_at_the_test_set(tiny: Tiny, here: Executor, tmp_path: Path):
    slow = {"rates": {"arms": {"slow": {"optimizer.lr": 0.001}, "slower": {"optimizer.lr": 0.0001}}}}
    first = run_study(tiny(test_best=True, sections=slow), tmp_path, executor=here)
    assert not first.notes
    second = run_study(tiny(test_best=True), tmp_path, executor=here)
    assert second.best_on_test.trial_result.trial.arm == "fast"
    assert any("the test set was used before" in note for note in second.notes)


@pytest.mark.slow
def test_a_stopped_study_keeps_what_is_done_and_the_same_call_goes_on(tiny: Tiny, here: Executor, tmp_path: Path):
    whole = study_result_to_dict(run_study(tiny(), tmp_path / "whole", executor=here))
    done: list[JobEvent] = []
    cut = run_study(tiny(), tmp_path / "cut", executor=here, on_event=done.append, stop=lambda: len(done) > 6)
    assert "missing" in statuses(cut).values()
    assert timeless(study_result_to_dict(run_study(tiny(), tmp_path / "cut", executor=here))) == timeless(whole)


SCRIPT = """
import sys
from convolab.studies.runner import run_study
from convolab.studies.study import Study
if __name__ == "__main__":
    run_study(Study.read(sys.argv[1]), sys.argv[2], on_event=lambda event: print(event.kind, flush=True))
"""


@pytest.mark.timing
@pytest.mark.parametrize("moment", [1, 3, 5])
def test_a_study_killed_at_any_moment_goes_on_and_ends_as_if_undisturbed(
    tiny: Tiny, here: Executor, tmp_path: Path, moment: int
):
    study = tiny(seeds=[0, 1, 2])
    study.write(tmp_path / "study.toml")
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "study.toml"), str(tmp_path / "killed")],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    for _ in range(moment):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    runs = tmp_path / "killed" / "runs"
    assert within(60, lambda: not any(Run(path.parent).status == "running" for path in runs.glob("*/summary.json")))
    again = study_result_to_dict(run_study(study, tmp_path / "killed"))
    assert timeless(again) == timeless(study_result_to_dict(run_study(study, tmp_path / "whole", executor=here)))
    assert not (tmp_path / "killed" / ".images").exists()
