"""A study from its file to its conclusions, with and without interruptions."""

import gc
import json
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from PIL import Image
from support import own_parts
from support.run_contents import run_contents
from support.small_jobs import within

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.data.splits import DatasetSplits
from convolab.studies import runner
from convolab.studies.executor import EventCallback, Executor, Job, JobEvent, LocalExecutor
from convolab.studies.results import StudyResult
from convolab.studies.runner import execute_study, read_study_result
from convolab.studies.serialize import study_result_to_dict
from convolab.studies.study import Study
from convolab.training.run import Run

MakeStudy = Callable[..., Study]
TIME_KEYS = ("seconds", "train_seconds", "images_per_second", "tested", "folder", "started", "machine", "versions")


def without_times(value: Any) -> Any:
    """A result as a dict without what depends on the clock, the folder and the machine."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIME_KEYS}
    return [without_times(inner) for inner in value] if isinstance(value, list | tuple) else value


def statuses(result: StudyResult) -> dict[tuple[str, int], str]:
    return {
        (trial_result.trial.arm, trial_result.trial.seed): trial_result.status
        for section in result.sections
        for arm in section.arms
        for trial_result in arm.results
    }


@pytest.mark.slow
def test_a_study_trains_every_trial_and_decides_its_contrast(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    events: list[JobEvent] = []
    result = execute_study(make_study(), tmp_path, executor=in_process, on_event=events.append)
    assert set(statuses(result).values()) == {"finished"}
    assert len([event for event in events if event.kind == "finished"]) == 4
    (contrast_result,) = result.sections[0].contrast_results
    assert contrast_result.seeds == (0, 1)
    assert contrast_result.paired_test.difference.mean == pytest.approx(
        sum(contrast_result.arm_values) / 2 - sum(contrast_result.baseline_values) / 2
    )


@pytest.mark.slow
def test_worker_processes_give_the_same_bits_as_this_process(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    in_one_process = study_result_to_dict(execute_study(make_study(), tmp_path / "one", executor=in_process))
    in_workers = study_result_to_dict(execute_study(make_study(), tmp_path / "workers"))
    assert without_times(in_one_process) == without_times(in_workers)


@pytest.mark.slow
def test_while_workers_train_the_dataset_is_not_in_this_process_s_memory_too(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images: list[weakref.ref[torch.Tensor]] = []
    kept: list[bool] = []

    def load_and_watch(*arguments: Any, **keywords: Any) -> DatasetSplits:
        splits = load(*arguments, **keywords)
        images.append(weakref.ref(splits.train.images))
        return splits

    class Watching:
        def run(
            self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, should_stop: Callable[[], bool]
        ) -> None:
            gc.collect()
            kept.append(images[0]() is not None)
            in_process.run(jobs, dataset_folder, on_event, should_stop)

    monkeypatch.setattr(runner, "load", load_and_watch)
    execute_study(make_study(seeds=[0]), tmp_path, executor=Watching())
    assert kept == [False]


@pytest.mark.slow
def test_a_finished_run_is_never_trained_twice(make_study: MakeStudy, in_process: Executor, tmp_path: Path):
    execute_study(make_study(), tmp_path, executor=in_process)
    plans: list[tuple[int, int]] = []
    result = execute_study(
        make_study(), tmp_path, executor=in_process, on_plan=lambda jobs, done: plans.append((len(jobs), done))
    )
    assert plans == [(0, 4)]
    assert set(statuses(result).values()) == {"finished"}


@pytest.mark.slow
def test_sections_share_a_run_and_it_is_trained_once(make_study: MakeStudy, in_process: Executor, tmp_path: Path):
    sections = {
        "a": {"arms": {"usual": {}, "slow": {"optimizer.lr": 0.001}}},
        "b": {"arms": {"same": {}, "other": {"optimizer.lr": 0.01}}},
    }
    result = execute_study(make_study(sections=sections), tmp_path, executor=in_process)
    assert len(list((tmp_path / "runs").iterdir())) == 6
    assert len(statuses(result)) == 8
    assert result.sections[0].arms[0].results[0].history == result.sections[1].arms[0].results[0].history


@pytest.mark.slow
def test_a_changed_study_reports_which_runs_it_can_reuse_and_trains_the_rest(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    execute_study(make_study(), tmp_path, executor=in_process)
    other = {"rates": {"arms": {"fast": {}, "slower": {"optimizer.lr": 0.0001}}}}
    messages: list[str] = []
    plans: list[int] = []
    execute_study(
        make_study(sections=other),
        tmp_path,
        executor=in_process,
        on_message=messages.append,
        on_plan=lambda jobs, done: plans.append(len(jobs)),
    )
    assert messages[0].startswith(
        "the study has changed since: 2 of its runs can be reused, 2 are to be trained, 2 are in no section now ("
    )
    assert plans == [2]
    assert len(list((tmp_path / "runs").iterdir())) == 6, "a run is never deleted"
    until = {**other["rates"], "contrasts": [{"arm": "slower", "baseline": "fast"}]}
    study = make_study(sections={"rates": until}, seeds="until decided", max_seeds=3)
    execute_study(study, tmp_path, executor=in_process, on_message=messages.append)
    assert any(", at most 2 are to be trained" in message for message in messages)


@pytest.mark.slow
def test_a_study_of_the_first_edition_is_refused_in_one_line_and_none_of_its_runs_is_trained_again(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    execute_study(make_study(), tmp_path, executor=in_process)
    summary = next((tmp_path / "runs").glob("*/summary.json"))
    values = json.loads(summary.read_text())
    del values["format"]
    summary.write_text(json.dumps(values))
    with pytest.raises(LabError, match="is a study of convolab's first edition: it can be read"):
        execute_study(make_study(), tmp_path, executor=in_process)


@pytest.mark.slow
def test_a_damaged_run_is_named_and_retrained_only_if_asked_for(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    before = study_result_to_dict(execute_study(make_study(), tmp_path, executor=in_process))
    damaged = sorted((tmp_path / "runs").iterdir())[0]
    lines = [json.loads(line) for line in (damaged / "metrics.jsonl").read_text().splitlines()]
    lines[0]["train_loss"] = 0.0
    (damaged / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(
        LabError, match=rf"1 of the runs is damaged: .*{damaged.name}.*was edited.*train these runs again"
    ):
        execute_study(make_study(), tmp_path, executor=in_process)
    plans: list[int] = []
    after = study_result_to_dict(
        execute_study(
            make_study(),
            tmp_path,
            executor=in_process,
            retrain_damaged=True,
            on_plan=lambda jobs, done: plans.append(len(jobs)),
        )
    )
    assert plans == [1]
    assert without_times(after) == without_times(before)


@pytest.mark.slow
def test_runs_on_other_images_are_refused(make_study: MakeStudy, in_process: Executor, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / "dataset" / name).mkdir(parents=True)
        for shade in range(20):
            Image.new("L", (8, 8), shade * 10).save(tmp_path / "dataset" / name / f"{shade:02}.png")
    recipe = {
        "data": {"name": f"folder:{tmp_path / 'dataset'}", "image_size": 8, "augment": []},
        "training": {"epochs": 1, "batch_size": 8},
    }
    execute_study(make_study(recipe=recipe), tmp_path / "study", executor=in_process)
    Image.new("L", (8, 8), 255).save(tmp_path / "dataset" / "a" / "00.png")
    with pytest.raises(LabError, match=r"the (train|test) images of folder:.* are not those of"):
        execute_study(make_study(recipe=recipe), tmp_path / "study", executor=in_process)


@pytest.mark.slow
def test_a_diverging_arm_is_shown_as_diverged_and_its_contrast_decides_nothing(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    sections = {
        "rates": {
            "arms": {"usual": {}, "wild": {"optimizer.lr": 1e30}},
            "contrasts": [{"arm": "wild", "baseline": "usual"}],
        }
    }
    result = execute_study(make_study(sections=sections), tmp_path, executor=in_process)
    assert statuses(result)["wild", 0] == "diverged"
    (contrast_result,) = result.sections[0].contrast_results
    assert contrast_result.verdict == "undecided"
    assert "diverged" in contrast_result.comment


def test_a_study_that_cannot_be_trained_is_refused_before_the_first_step(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    sections = {"rates": {"arms": {"usual": {}, "huge": {"training.batch_size": 5000}}}}
    with pytest.raises(LabError, match="section 'rates', arm 'huge': a batch of 5000"):
        execute_study(make_study(sections=sections), tmp_path / "study", executor=in_process)
    assert not (tmp_path / "study").exists()


def test_two_datasets_in_one_study_are_refused(make_study: MakeStudy, in_process: Executor, tmp_path: Path):
    sections = {"sets": {"arms": {"a": {}, "b": {"data.name": "fashion_mnist"}}}}
    with pytest.raises(
        LabError, match="a study uses one dataset and one image size, but its recipes name digits, fashion_mnist"
    ):
        execute_study(make_study(sections=sections), tmp_path / "study", executor=in_process)


@pytest.mark.timing
def test_two_processes_cannot_run_the_same_study(make_study: MakeStudy, in_process: Executor, tmp_path: Path):
    with FileLock(tmp_path / ".lock"), pytest.raises(LabError, match="is in use by another process"):
        execute_study(make_study(), tmp_path, executor=in_process)


class FailingExecutor:
    """An executor whose first job fails."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def run(
        self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, should_stop: Callable[[], bool]
    ) -> None:
        on_event(JobEvent(jobs[0].recipe.key, "failed", reason="its process ended by signal SIGKILL"))
        self.executor.run(jobs[1:], dataset_folder, on_event, should_stop)


@pytest.mark.slow
def test_a_failed_trial_is_reported_and_no_run_is_tested_until_it_is_finished(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    result = execute_study(make_study(test_best=True), tmp_path, executor=FailingExecutor(in_process))
    assert sorted(statuses(result).values()) == ["failed", "finished", "finished", "finished"]
    assert any("its process ended by signal SIGKILL" in note for note in result.notes)
    assert result.best_on_test is None
    assert any("no run was tested" in note for note in result.notes)
    assert execute_study(make_study(test_best=True), tmp_path, executor=in_process).best_on_test is not None


@pytest.mark.slow
def test_the_best_run_of_all_is_tested_once(make_study: MakeStudy, in_process: Executor, tmp_path: Path):
    best = execute_study(make_study(test_best=True), tmp_path, executor=in_process).best_on_test
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
    assert (
        execute_study(make_study(test_best=True), tmp_path, executor=in_process).best_on_test.test_result
        == best.test_result
    )


@pytest.mark.slow
def test_a_note_says_when_another_best_run_uses_the_test_set_a_second_time(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    slow = {"rates": {"arms": {"slow": {"optimizer.lr": 0.001}, "slower": {"optimizer.lr": 0.0001}}}}
    first = execute_study(make_study(test_best=True, sections=slow), tmp_path, executor=in_process)
    assert not first.notes
    second = execute_study(make_study(test_best=True), tmp_path, executor=in_process)
    assert second.best_on_test.trial_result.trial.arm == "fast"
    assert any("the test set was used before" in note for note in second.notes)


@pytest.mark.slow
def test_a_stopped_study_keeps_its_finished_runs_and_the_same_call_resumes_it(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    expected = study_result_to_dict(execute_study(make_study(), tmp_path / "uninterrupted", executor=in_process))
    done: list[JobEvent] = []
    stopped = execute_study(
        make_study(), tmp_path / "stopped", executor=in_process, on_event=done.append, should_stop=lambda: len(done) > 6
    )
    assert "missing" in statuses(stopped).values()
    (note,) = stopped.notes  # a count, and not a line for each run
    assert " not trained yet" in note
    assert without_times(
        study_result_to_dict(execute_study(make_study(), tmp_path / "stopped", executor=in_process))
    ) == without_times(expected)


SCRIPT = """
import sys
from convolab.studies.runner import execute_study
from convolab.studies.study import Study
if __name__ == "__main__":
    execute_study(Study.read(sys.argv[1]), sys.argv[2], on_event=lambda event: print(event.kind, flush=True))
"""


@pytest.mark.timing
@pytest.mark.parametrize("num_events", [1, 3, 5])
def test_a_study_killed_at_any_moment_resumes_with_the_same_result(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path, num_events: int
):
    study = make_study(seeds=[0, 1, 2])
    study.write(tmp_path / "study.toml")
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "study.toml"), str(tmp_path / "killed")],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        for _ in range(num_events):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    runs = tmp_path / "killed" / "runs"
    assert within(60, lambda: not any(Run(path.parent).status == "running" for path in runs.glob("*/summary.json")))
    resumed = study_result_to_dict(execute_study(study, tmp_path / "killed"))
    assert without_times(resumed) == without_times(
        study_result_to_dict(execute_study(study, tmp_path / "uninterrupted", executor=in_process))
    )
    assert not (tmp_path / "killed" / ".images").exists()


@pytest.mark.slow
def test_a_study_goes_only_where_nothing_was_or_the_same_study(make_study, tmp_path: Path, in_process) -> None:
    study = make_study()
    (tmp_path / "own").mkdir()
    (tmp_path / "own/report.html").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/summary.json").write_text("{}")
    for mark in ("recipe.toml", "metrics.jsonl"):
        (tmp_path / "run" / mark).write_text("")
    (tmp_path / "file").write_text("")
    other = study.model_copy(update={"name": "another"})
    (tmp_path / "other").mkdir()
    other.write(tmp_path / "other/study.toml")
    for name, message in {
        "own": "is not empty and holds no study (report.html)",
        "run": "holds a run",
        "run/study": "run, which is the folder of a run",
        "file": "is a file",
        "other": "holds another study, 'another'",
    }.items():
        before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
        with pytest.raises(LabError) as caught:
            execute_study(study, tmp_path / name, executor=in_process)
        assert message in str(caught.value)
        assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()) == before


@pytest.mark.slow
def test_a_study_of_the_same_name_that_shares_no_section_and_no_run_is_refused_and_replaces_nothing(
    make_study: MakeStudy, tmp_path: Path, in_process: Executor
) -> None:
    execute_study(make_study(seeds=[0]), tmp_path / "study", executor=in_process)
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    sections = {"widths": {"grid": {"model.hidden": [4, 6]}}}
    with pytest.raises(LabError, match=r"shares no section \(rates\) and no run .*: choose another folder \(--out\)$"):
        execute_study(make_study(seeds=[0], sections=sections), tmp_path / "study", executor=in_process)
    assert sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file()) == before
    shared_run = {"widths": {"grid": {"model.hidden": [4, 8]}}}  # 8 is what the study has
    execute_study(make_study(seeds=[0], sections=shared_run), tmp_path / "study", executor=in_process)
    shared_section = {"widths": {"grid": {"model.hidden": [5]}}}
    execute_study(make_study(seeds=[0], sections=shared_section), tmp_path / "study", executor=in_process)
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 4


@pytest.mark.slow
def test_the_sections_of_one_study_may_be_trained_one_after_another_in_its_folder(
    make_study: MakeStudy, tmp_path: Path, in_process: Executor
) -> None:
    for name, hidden in (("narrow", [4, 6]), ("wide", [8, 9])):
        study = make_study(seeds=[0], sections={name: {"grid": {"model.hidden": hidden}}}, title="How wide?")
        execute_study(study, tmp_path / "study", executor=in_process)
    assert len(list((tmp_path / "study" / "runs").iterdir())) == 4


@pytest.mark.slow
def test_a_link_in_a_studys_folder_is_not_followed_and_the_folder_itself_may_be_one(
    make_study: MakeStudy, tmp_path: Path, in_process: Executor
) -> None:
    study, elsewhere = make_study(seeds=[0]), tmp_path / "elsewhere"
    elsewhere.mkdir()
    key = next(iter(study.recipes))
    for number, link in enumerate(("runs", f"runs/{key}", ".images", "runs")):
        folder = tmp_path / f"study-{number}"
        (folder / link).parent.mkdir(parents=True)
        study.write(folder / "study.toml")
        (folder / link).symlink_to(elsewhere if number < 3 else tmp_path / "nowhere", target_is_directory=True)
        for call in (lambda folder: execute_study(study, folder, executor=in_process), read_study_result):
            with pytest.raises(LabError, match=r"is a symbolic link to a path outside its folder") as caught:
                call(folder)
            assert str(caught.value).startswith(str(folder / link))
        assert list(elsewhere.iterdir()) == []
        assert not (tmp_path / "nowhere").exists()
    (tmp_path / "mine").symlink_to(elsewhere, target_is_directory=True)
    execute_study(study, tmp_path / "mine", executor=in_process)
    assert sorted(path.name for path in elsewhere.iterdir() if path.name != ".lock") == ["runs", "study.toml"]


@pytest.mark.slow
def test_a_study_with_own_optimizer_loss_and_transform_is_trained_by_workers_with_the_bits_of_this_process(
    make_study: MakeStudy, tmp_path: Path, in_process: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / own_parts.FILE).write_text(own_parts.SOURCE)
    monkeypatch.chdir(tmp_path)
    base = {
        **own_parts.SECTIONS,
        "data": {"limit": 200, "augment": [own_parts.TRANSFORM]},
        "model": {"name": "shallow_net", "hidden": 8},
        "training": {"epochs": 2, "batch_size": 64},
    }
    sections = {"rates": {"arms": {"fast": {}, "slow": {"optimizer.lr": 0.001}}}}
    study = make_study(seeds=[0], recipe=base, sections=sections)
    result = execute_study(study, "workers", executor=LocalExecutor(2))
    execute_study(study, "here", executor=in_process)
    assert set(statuses(result).values()) == {"finished"}
    for key in study.recipes:
        assert run_contents(Path("workers/runs") / key) == run_contents(Path("here/runs") / key)
        assert {path.parent.name for path in (Path("workers/runs") / key / "code").glob(f"*/{own_parts.FILE}")} == {
            "@optimizer", "@schedule", "@loss", "@validation_metric", "@sampling", "@transform1",
        }  # fmt: skip


# ---- seeds "until decided"

RATES = {
    "arms": {"fast": {}, "slow": {"optimizer.lr": 0.0001}, "like fast": {"optimizer.lr": 0.11}},
    "contrasts": [{"arm": "fast", "baseline": "slow"}, {"arm": "like fast", "baseline": "fast"}],
}


@pytest.fixture
def until_decided(make_study: MakeStudy) -> Study:
    """One contrast that is decided at the first looks, and one that is open for longer."""
    return make_study(seeds="until decided", max_seeds=6, sections={"rates": RATES})


@pytest.mark.slow
def test_a_study_until_decided_trains_look_by_look_and_only_arms_that_are_open(
    until_decided: Study, in_process: Executor, tmp_path: Path
):
    plans: list[int] = []
    lines: list[str] = []
    result = execute_study(
        until_decided,
        tmp_path,
        executor=in_process,
        on_plan=lambda jobs, done: plans.append(len(jobs)),
        on_look=lines.append,
    )
    assert plans[0] == 9  # three arms, three seeds
    (section,) = result.sections
    counts = {arm.name: len(arm.results) for arm in section.arms}
    assert sum(plans) == sum(counts.values())
    assert counts["slow"] < counts["fast"] == counts["like fast"]
    first, second = section.contrast_results
    assert first.verdict == "better"
    assert first.seeds == tuple(range(first.looks[-1].seeds))
    assert (first.paired_test.difference.low, first.looks[-1].outcome) == (first.looks[-1].difference.low, "different")
    assert f"Decided after {len(first.seeds)} seeds, at look {len(first.looks)}" in first.comment
    assert [look.seeds for look in second.looks] == [3, 4, 5, 6][: len(second.looks)]
    assert lines[0].startswith("rates: after 3 seeds ")


@pytest.mark.slow
def test_stopping_and_going_on_gives_the_verdicts_of_a_study_that_ran_at_once(
    until_decided: Study, in_process: Executor, tmp_path: Path
):
    at_once = study_result_to_dict(execute_study(until_decided, tmp_path / "at once", executor=in_process))
    for stop_after in (2, 4, 5, 1, 1):  # runs; then it is stopped, also in the middle of a look
        finished: list[str] = []
        result = execute_study(
            until_decided,
            tmp_path / "in parts",
            executor=in_process,
            on_event=lambda event, done=finished: done.append(event.key) if event.kind == "finished" else None,
            should_stop=lambda done=finished, most=stop_after: len(done) >= most,
        )
        assert [c.verdict for c in result.sections[0].contrast_results if c.looks == ()] in ([], ["undecided"] * 2)
    in_parts = study_result_to_dict(execute_study(until_decided, tmp_path / "in parts", executor=in_process))
    assert without_times(in_parts) == without_times(at_once)


@pytest.mark.slow
def test_worker_processes_and_one_process_come_to_the_same_verdicts_until_decided(
    until_decided: Study, in_process: Executor, tmp_path: Path
):
    in_one_process = study_result_to_dict(execute_study(until_decided, tmp_path / "one", executor=in_process))
    in_workers = study_result_to_dict(execute_study(until_decided, tmp_path / "workers"))
    assert without_times(in_one_process) == without_times(in_workers)


@pytest.mark.slow
def test_hours_stop_between_looks_say_so_and_the_same_call_goes_on(
    until_decided: Study, in_process: Executor, tmp_path: Path
):
    result = execute_study(until_decided, tmp_path, executor=in_process, hours=1e-9)
    _, second = result.sections[0].contrast_results
    assert [len(arm.finished) for arm in result.sections[0].arms] == [3, 3, 3]
    assert second.out_of_time
    assert second.verdict == "undecided"
    assert second.comment.startswith("Undecided (time)")
    assert len(second.looks) == 1
    complete = execute_study(until_decided, tmp_path, executor=in_process)
    assert not any(contrast.out_of_time for contrast in complete.sections[0].contrast_results)
    assert complete.sections[0].contrast_results[1].looks[0] == second.looks[0]


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf")])
def test_hours_that_are_no_time_are_refused_in_one_line(until_decided: Study, tmp_path: Path, hours: float):
    with pytest.raises(LabError, match="hours: give a number above 0"):
        execute_study(until_decided, tmp_path / "out", hours=hours)
    assert not (tmp_path / "out").exists()


def test_hours_of_a_study_with_fixed_seeds_are_refused(make_study: MakeStudy, tmp_path: Path):
    with pytest.raises(LabError, match='for a study whose seeds are "until decided"'):
        execute_study(make_study(), tmp_path / "out", hours=1.0)


@pytest.mark.slow
def test_a_diverging_arm_ends_its_contrast_without_a_verdict_and_the_other_goes_on(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    arms = {**RATES["arms"], "slow": {"optimizer.lr": 1e30}}
    study = make_study(seeds="until decided", max_seeds=4, sections={"rates": {**RATES, "arms": arms}})
    first, second = execute_study(study, tmp_path, executor=in_process).sections[0].contrast_results
    assert first.verdict == "undecided"
    assert "'slow' diverged in 3 of 3 runs" in first.reason
    assert second.looks


@pytest.mark.slow
def test_a_run_that_failed_is_tried_again_by_the_same_call_until_decided(
    until_decided: Study, in_process: Executor, tmp_path: Path
):
    class FailingExecutor:
        def run(
            self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, should_stop: Callable[[], bool]
        ) -> None:
            slow = [job for job in jobs if job.recipe.optimizer.lr == 0.0001]
            in_process.run([job for job in jobs if job not in slow], dataset_folder, on_event, should_stop)
            for job in slow:
                on_event(JobEvent(job.recipe.key, "failed", reason="no memory"))

    failed = execute_study(until_decided, tmp_path, executor=FailingExecutor())
    assert failed.sections[0].contrast_results[0].reason.startswith("'slow' failed in 3 of 3 runs")
    assert failed.sections[0].contrast_results[1].looks
    again = execute_study(until_decided, tmp_path, executor=in_process)
    assert again.sections[0].contrast_results[0].verdict == "better"
