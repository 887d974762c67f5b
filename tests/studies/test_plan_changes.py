"""A plan that is changed after outcomes were seen, and metrics that were edited: reported or refused wherever they count."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from convolab.core.errors import LabError
from convolab.studies.compare import compare_named
from convolab.studies.executor import Executor
from convolab.studies.pilot import read_pilot
from convolab.studies.plan_changes import (
    LEFT_OUT_FILE,
    PLAN_CHANGES_FILE,
    find_plan_changes,
    read_plan_changes,
    read_plans,
)
from convolab.studies.results import TrialResult
from convolab.studies.runner import execute_study, read_study_result
from convolab.studies.study import Study
from convolab.training.recipe import Recipe

MakeStudy = Callable[..., Study]
ARMS = {"fast": {}, "like fast": {"optimizer.lr": 0.11}}
CONTRAST = {"arm": "fast", "baseline": "like fast"}


def section(**changes: Any) -> dict[str, Any]:
    return {"rates": {"arms": ARMS, "contrasts": [CONTRAST], **changes}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_seeds": 4}, "the number of seeds was changed"),
        ({"seeds": [0, 1, 2, 3]}, "the number of seeds was changed"),
        ({"margins": {"accuracy": 0.2}}, "a margin was changed"),
        ({"sections": section(contrasts=[{**CONTRAST, "margin": 0.2}])}, "a margin was changed"),
        (
            {"sections": section(contrasts=[CONTRAST, {**CONTRAST, "metric": "final_gap"}])},
            "the list of contrasts was changed",
        ),
        ({"sections": section(arms={**ARMS, "fast": {"optimizer.lr": 0.12}})}, "an arm was changed"),
        ({"max_seeds": 5, "margins": {"accuracy": 0.2}}, "the number of seeds and a margin were changed"),
    ],
)
def test_a_plan_that_is_changed_after_a_look_is_reported_now_and_in_every_later_result(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    plan: dict[str, Any] = {"seeds": "until decided", "max_seeds": 3, "sections": section()}
    execute_study(make_study(**plan), tmp_path, executor=in_process)
    messages: list[str] = []
    result = execute_study(make_study(**{**plan, **change}), tmp_path, executor=in_process, on_message=messages.append)
    line = f"section 'rates': {words} after 3 seeds had been seen: 5 % is the error of a plan that stays as it is, and this one has more"
    assert line in messages
    assert line in result.notes
    again = execute_study(make_study(**{**plan, **change}), tmp_path, executor=in_process)
    assert again.notes.count(line) == 1
    assert line in read_study_result(tmp_path).notes


def changes_after(before: dict[str, Any], now: dict[str, Any], unseen: Sequence[str] = ()) -> list[str]:
    """What is reported where a section with the recipe's defaults had three seeds of each arm, but for `unseen` ones."""
    old, new = (Study.from_dict({"name": "x", "sections": {"s": values}}) for values in (before, now))
    results = [TrialResult(trial, "finished", ()) for trial in old.trials if trial.arm not in unseen]
    return find_plan_changes(old, new, results, {})


def test_a_trend_whose_grid_is_another_one_is_reported_and_one_that_may_widen_is_not() -> None:
    rates = [0.01, 0.03, 0.1, 0.3]
    trend = {"grid": {"optimizer.lr": rates}, "contrasts": [{"trend": "optimizer.lr"}]}
    (line,) = changes_after(trend, {**trend, "grid": {"optimizer.lr": [*rates, 1.0]}})
    assert line.startswith("section 's': an arm was changed after 3 seeds had been seen")
    assert changes_after(trend, {**trend, "widen": 2}) == []
    assert changes_after(trend, {**trend, "grid": {"optimizer.lr": rates[::-1]}}) == []


def test_an_arm_that_is_written_otherwise_is_the_same_arm() -> None:
    lr = Recipe().optimizer.lr
    plan = {"arms": {"a": {}, "b": {"optimizer.lr": 0.3}}, "contrasts": [{"arm": "a", "baseline": "b"}]}
    written_out = {**plan, "arms": {"b": {"optimizer.lr": 0.3}, "a": {"optimizer.lr": lr, "optimizer.name": "sgd"}}}
    assert changes_after(plan, written_out) == []


def test_only_seeds_count_at_which_a_contrast_was_seen_that_keeps_a_run() -> None:
    arms = {"a": {}, "b": {"optimizer.lr": 0.3}, "alone": {"optimizer.lr": 0.5}}
    plan = {"arms": arms, "contrasts": [{"arm": "a", "baseline": "b"}]}
    one = {**plan, "arms": {**arms, "a": {"optimizer.lr": 1.0}}}
    both = {**plan, "arms": {**arms, "a": {"optimizer.lr": 1.0}, "b": {"optimizer.lr": 2.0}}}
    assert len(changes_after(plan, one)) == 1
    assert changes_after(plan, one, unseen=["a"]) == []
    assert changes_after(plan, both) == []


@pytest.mark.slow
def test_what_changes_no_plan_is_not_reported(make_study: MakeStudy, in_process: Executor, tmp_path: Path) -> None:
    plan: dict[str, Any] = {"seeds": "until decided", "max_seeds": 3, "sections": section()}
    execute_study(make_study(**plan), tmp_path, executor=in_process)
    reordered = {"rates": {"arms": dict(reversed(ARMS.items())), "contrasts": [{**CONTRAST, "subject": "a rate"}]}}
    more = {**reordered, "other": {"arms": ARMS, "contrasts": [CONTRAST]}}
    for sections in (section(), reordered, more):
        assert execute_study(make_study(**{**plan, "sections": sections}), tmp_path, executor=in_process).notes == ()
    assert not (tmp_path / PLAN_CHANGES_FILE).exists()


@pytest.mark.slow
def test_a_changed_plan_is_reported_also_where_another_section_was_trained_alone_in_between(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
) -> None:
    def run(sections: dict[str, Any], **more: Any) -> tuple[str, ...]:
        study = make_study(seeds=[0, 1, 2], sections=sections, **more)
        return execute_study(study, tmp_path, executor=in_process).notes

    other = {"other": section()["rates"]}
    assert run({**section(), **other}) == ()
    assert run(section()) == ()
    assert list(read_plans(tmp_path)) == ["other", "rates"]
    assert run(section(), title="The same alone again") == ()
    (note,) = run({**section(), "other": {"arms": ARMS, "contrasts": [{**CONTRAST, "margin": 0.2}]}})
    assert note.startswith("section 'other': a margin was changed after 3 seeds had been seen")
    assert json.loads((tmp_path / LEFT_OUT_FILE).read_text())["plans"] == {}


@pytest.mark.parametrize("text", ["[]", '{"format": 1}', '{"format": 2, "plans": {}}', '{"plans": {"a": {"name": 3}}}'])
def test_damaged_plans_of_sections_that_were_left_out_are_one_line(tmp_path: Path, text: str) -> None:
    Study.from_dict({"name": "x", "sections": {"s": {"arms": {"a": {}}}}}).write(tmp_path / "study.toml")
    (tmp_path / LEFT_OUT_FILE).write_text(text)
    with pytest.raises(LabError) as caught:
        read_plans(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_one_seed_shows_nothing_to_choose_by_so_more_may_follow(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
) -> None:
    for seeds in ([0], [0, 1, 2]):
        assert execute_study(make_study(seeds=seeds), tmp_path, executor=in_process).notes == ()
    (note,) = execute_study(make_study(seeds=[0, 1, 2, 3]), tmp_path, executor=in_process).notes
    assert note.startswith("section 'rates': the number of seeds was changed after 3 seeds had been seen")


@pytest.mark.parametrize(
    "text", ["[]", '{"format": 1}', '{"format": 1, "changes": [3]}', '{"format": 2, "changes": []}']
)
def test_a_damaged_list_of_changes_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / PLAN_CHANGES_FILE).write_text(text)
    with pytest.raises(LabError, match=PLAN_CHANGES_FILE) as caught:
        read_plan_changes(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_edited_metrics_are_refused_wherever_a_verdict_leaves_the_study(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
) -> None:
    study = make_study()
    execute_study(study, tmp_path, executor=in_process)
    compare_named([tmp_path])
    run = tmp_path / "runs" / study.trials[0].recipe.key
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[-1]["validation_accuracy"] = 0.01
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = r"metrics\.jsonl was edited: it disagrees with the run's saved state"
    runs = [tmp_path / "runs" / trial.recipe.key for trial in study.trials]
    for read in (lambda: compare_named([tmp_path]), lambda: compare_named(runs), lambda: read_study_result(tmp_path)):
        with pytest.raises(LabError, match=words):
            read()
    assert any("metrics.jsonl was edited" in note for note in read_pilot(study, tmp_path).notes)


@pytest.mark.slow
def test_a_difference_that_may_be_one_of_the_validation_images_is_reported(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
) -> None:
    arms = {"fast": {}, "more": {"data.validation": 0.3}, "slow": {"optimizer.lr": 0.001}}
    contrasts = [{"arm": "more", "baseline": "fast"}, {"arm": "slow", "baseline": "fast"}]
    sections = {"rates": {"arms": arms, "contrasts": contrasts}}
    (note,) = execute_study(make_study(sections=sections), tmp_path, executor=in_process).notes
    assert note.startswith("section 'rates': 'more' and 'fast' are measured on different validation images")


@pytest.mark.slow
def test_a_damaged_run_of_a_changed_study_can_still_be_trained_again(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
) -> None:
    plan: dict[str, Any] = {"seeds": [0, 1, 2], "sections": section()}
    study = make_study(**plan)
    execute_study(study, tmp_path, executor=in_process)
    (tmp_path / "runs" / study.trials[0].recipe.key / "metrics.jsonl").write_text("no metrics")
    changed = make_study(**{**plan, "seeds": [0, 1, 2, 3]})
    with pytest.raises(LabError, match=r"1 of the runs is damaged: .*train these runs again"):
        execute_study(changed, tmp_path, executor=in_process)
    result = execute_study(changed, tmp_path, executor=in_process, retrain_damaged=True)
    assert [len(arm.finished) for arm in result.sections[0].arms] == [4, 4]
    assert any(note.startswith("section 'rates': the number of seeds was changed") for note in result.notes)


@pytest.mark.slow
def test_a_study_before_that_cannot_be_read_is_reported_and_does_not_stop_this_one(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
) -> None:
    execute_study(make_study(), tmp_path, executor=in_process)
    path = tmp_path / "study.toml"
    path.write_text(path.read_text().replace("lr = 0.1", 'lr = "fast"'))
    messages: list[str] = []
    result = execute_study(make_study(), tmp_path, executor=in_process, on_message=messages.append)
    assert len(result.sections[0].arms[0].finished) == 2
    assert any(message.startswith("whether the plan was changed is not known: ") for message in messages)
