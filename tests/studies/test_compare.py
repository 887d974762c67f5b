"""Comparisons of finished runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.callbacks import FunctionCallbacks
from support.shape_checks import without_shape_checks

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.models.registry import trust_named
from convolab.studies.compare import compare_named, compare_runs, find_runs_of_arm
from convolab.studies.executor import Executor
from convolab.studies.runner import execute_study
from convolab.studies.single_runs import describe_gap
from convolab.studies.study import Study
from convolab.training.history import History
from convolab.training.recipe import Recipe
from convolab.training.run import Run

MakeStudy = Callable[..., Study]
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(make_study: MakeStudy, digits: DatasetSplits, tmp_path: Path) -> MakeRun:
    """Train a run in the folder `name`; `overrides` change its recipe, as optimizer__lr=0.1."""
    base: Recipe = make_study().trials[0].recipe

    def make(name: str, **overrides: object) -> Run:
        return Run.start(
            base.with_overrides({key.replace("__", "."): value for key, value in overrides.items()}),
            digits,
            tmp_path / name,
        )

    return make


@pytest.mark.slow
def test_a_folder_of_runs_stands_for_all_that_it_holds(make_run: MakeRun, tmp_path: Path):
    make_run("runs/a")
    make_run("runs/b", optimizer__lr=0.01)
    result = compare_named([tmp_path / "runs"])
    assert [arm.name for arm in result.sections[0].arms] == ["lr=0.1", "lr=0.01"]


@pytest.mark.slow
def test_runs_are_named_by_the_keys_in_which_they_differ(make_run: MakeRun):
    result = compare_runs([make_run("a"), make_run("b", optimizer__lr=0.01, training__epochs=3)])
    assert [arm.name for arm in result.sections[0].arms] == ["lr=0.1, epochs=2", "lr=0.01, epochs=3"]
    assert result.study.base_recipe.model.name == "shallow_net"


@pytest.mark.slow
def test_a_different_name_makes_all_keys_of_its_section_overrides(make_run: MakeRun):
    result = compare_runs([make_run("a"), make_run("b", optimizer__name="adam")])
    assert {t.recipe.optimizer.name for t in result.study.trials} == {"sgd", "adam"}
    assert {trial_result.trial.recipe.key for arm in result.sections[0].arms for trial_result in arm.results} == {
        t.recipe.key for t in result.study.trials
    }


@pytest.mark.slow
def test_runs_that_differ_only_in_their_seed_are_one_arm_and_pair_with_the_same_seed(make_run: MakeRun):
    runs = [
        make_run(f"{rate}-{seed}", optimizer__lr=rate, training__seed=seed)
        for rate in (0.1, 0.01)
        for seed in (0, 1, 2)
    ]
    result = compare_runs(runs)
    assert [(arm.name, len(arm.results)) for arm in result.sections[0].arms] == [("lr=0.1", 3), ("lr=0.01", 3)]
    assert all(contrast_result.seeds == (0, 1, 2) for contrast_result in result.sections[0].contrast_results)


@pytest.mark.slow
def test_two_single_runs_decide_nothing(make_run: MakeRun):
    result = compare_runs([make_run("a"), make_run("b", optimizer__lr=0.01)])
    for contrast_result in result.sections[0].contrast_results:
        assert contrast_result.verdict == "undecided"
        assert "a single seed decides nothing" in contrast_result.reason


@pytest.mark.slow
def test_of_two_single_runs_the_difference_and_the_command_that_decides_are_given(make_run: MakeRun):
    runs = [make_run("a"), make_run("b", optimizer__lr=0.01)]
    lines = compare_runs(runs).sections[0].comment.split("\n")
    assert lines[0] == "Their recipes differ in optimizer.lr (0.1 and 0.01)."
    for run, line in zip(runs, lines[1:3], strict=True):
        assert f"{100 * run.best_epoch.validation_accuracy:.2f} % (epoch {run.best_epoch.epoch})" in line
        assert f"{min(epoch.validation_loss for epoch in run.history):.4f} nats" in line
    assert lines[3].startswith("So 'lr=0.01' is ")
    assert "One seed each cannot show which is better" in lines[4]
    assert lines[5] == f"convolab sweep {runs[0].folder}/recipe.toml optimizer.lr=0.1,0.01 --seeds 3"


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"data__validation": 0.3}, {"data__limit": 250}])
def test_runs_that_hold_out_other_images_are_compared_with_a_caution(make_run: MakeRun, change: dict[str, float]):
    result = compare_runs([make_run("a"), make_run("b", **change)])
    (note,) = result.notes
    assert "are measured on different validation images, because their data.validation or data.limit differ" in note
    assert result.sections[0].comment.split("\n")[3].endswith(", each on validation images of its own.")


@without_shape_checks
def test_equal_accuracies_are_called_equal_and_not_lower_by_nothing(make_run: MakeRun):
    def history(accuracy: float, loss: float) -> History:
        return History([replace(run.history[0], validation_accuracy=accuracy, validation_loss=loss)])

    run = make_run("a")
    for second, expected in (
        (history(0.5, 0.9), "equal in accuracy and 0.1000 nats lower in loss"),
        (history(0.5, 1.0), "equal in accuracy and loss"),
        (history(0.6, 1.00001), "10.00 percentage points higher in accuracy and less than 0.0001 nats higher in loss"),
    ):
        runs: Any = [SimpleNamespace(history=history(0.5, 1.0)), SimpleNamespace(history=second)]
        assert describe_gap(runs) == expected


@pytest.mark.slow
def test_a_run_that_went_on_from_another_one_is_named_as_that(make_run: MakeRun, tmp_path: Path):
    first, other = make_run("a"), make_run("other", optimizer__lr=0.01)
    longer = first.extend(4, tmp_path / "longer")
    (note,) = compare_runs([first, longer]).notes
    assert note == (
        f"{longer.folder} went on from {first.folder} after 2 epochs, so both have these in common; "
        "that gives what its recipe gives from scratch"
    )
    cosine = make_run("cosine", schedule__name="cosine")
    (note,) = compare_runs([other, cosine.extend(4, tmp_path / "cosine-longer")]).notes
    assert f"went on from a run of recipe {cosine.recipe.key} after 2 epochs; that is not what its recipe gives" in note
    assert compare_runs([first, other]).notes == ()


@pytest.mark.slow
def test_of_several_differences_the_other_seeds_of_both_are_trained(make_run: MakeRun):
    first, second = make_run("a"), make_run("b", optimizer__name="adam", optimizer__lr=0.01, training__seed=1)
    lines = compare_runs([first, second]).sections[0].comment.split("\n")
    assert "optimizer.name (sgd and adam)" in lines[0]
    assert "Their seeds differ too (0 and 1)" in lines[1]
    commands = [line for line in lines if line.startswith("convolab")]
    assert commands[0] == f"convolab train --recipe {first.folder}/recipe.toml --seed 1 --out {first.folder}-seed1"
    assert commands[2] == f"convolab train --recipe {second.folder}/recipe.toml --seed 0 --out {second.folder}-seed0"
    assert commands[-1].count(str(first.folder)) == commands[-1].count(str(second.folder)) == 3


@pytest.mark.slow
def test_seeds_of_one_recipe_are_shown_without_a_contrast(make_run: MakeRun):
    result = compare_runs([make_run("a"), make_run("b", training__seed=1)])
    assert [(arm.name, len(arm.results)) for arm in result.sections[0].arms] == [("a", 2)]
    assert not result.sections[0].contrast_results


@pytest.mark.slow
def test_an_unfinished_run_is_skipped_with_a_note(
    make_run: MakeRun, make_study: MakeStudy, digits: DatasetSplits, tmp_path: Path
):
    epochs = []
    callbacks = FunctionCallbacks(on_epoch=epochs.append, stop=lambda: bool(epochs))
    stopped = Run.start(make_study().trials[2].recipe, digits, tmp_path / "stopped", callbacks=callbacks)
    result = compare_runs([make_run("a"), stopped])
    assert any(
        "stopped is stopped after 1 of 2 epochs and is left out of the comparison" in note for note in result.notes
    )


@pytest.mark.slow
def test_arms_of_a_study_are_named_by_their_folder_and_name(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    execute_study(make_study(), tmp_path / "study", executor=in_process)
    fast, slow = (find_runs_of_arm(f"{tmp_path / 'study'}:{arm}") for arm in ("fast", "rates/slow"))
    assert [run.recipe.training.seed for run in fast] == [0, 1]
    assert [arm.name for arm in compare_runs([*fast, *slow]).sections[0].arms] == ["lr=0.1", "lr=0.001"]
    with pytest.raises(LabError, match="has no arm 'fats': did you mean 'fast'"):
        find_runs_of_arm(f"{tmp_path / 'study'}:fats")
    with pytest.raises(LabError, match="is not a study's folder: give a run's folder, or STUDY:ARM"):
        find_runs_of_arm(f"{tmp_path}:fast")


@pytest.mark.slow
def test_arms_of_a_study_keep_their_names_in_a_comparison_although_one_changes_nothing(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    arms = {"plain": {}, "clipped": {"training.clip_norm": 1.0}}
    for name, limit in (("few", 200), ("more", 300)):
        study = make_study(seeds=[0], sections={"norm": {"arms": arms, "overrides": {"data.limit": limit}}})
        execute_study(study, tmp_path / name, executor=in_process)

    def names(*specs: str) -> list[str]:
        return [arm.name for arm in compare_named([f"{tmp_path}/{spec}" for spec in specs]).sections[0].arms]

    assert names("few:clipped", "few:norm/plain") == ["clipped", "plain"]
    assert names("few:clipped", "more:clipped") == ["limit=200", "limit=300"]


FIRST_EDITION = """
name = "tiny"
seeds = [0, 1]
test_best = false

[recipe]
data = {limit = 200, size = 32}
model = {name = "shallow_net", hidden = 8}
optimizer = {lr = 0.1}
schedule = {name = "step", period = 5}
training = {epochs = 2, batch_size = 64}
metrics = {train = "running"}

[sections.rates.arms]
fast = {}
slow = {"optimizer.lr" = 0.001}
[[sections.rates.contrasts]]
arm = "fast"
against = "slow"
metric = "epochs_until_train_accuracy:0.5"
"""


@pytest.mark.slow
def test_arms_of_a_study_of_the_first_edition_are_found_although_its_folders_had_other_names(
    make_study: MakeStudy, in_process: Executor, tmp_path: Path
):
    folder = tmp_path / "study"
    execute_study(make_study(), folder, executor=in_process)
    (folder / "study.toml").write_text(FIRST_EDITION)
    for number, path in enumerate(sorted((folder / "runs").iterdir())):
        path.rename(folder / "runs" / f"old-{number}")
    runs = [run for arm in ("fast", "slow") for run in find_runs_of_arm(f"{folder}:{arm}")]
    assert [(run.recipe.optimizer.lr, run.recipe.training.seed) for run in runs] == [
        (0.1, 0),
        (0.1, 1),
        (0.001, 0),
        (0.001, 1),
    ]
    assert compare_runs(runs).sections[0].contrast_results[0].seeds == (0, 1)


def test_what_cannot_be_compared_is_refused_in_one_line(make_run: MakeRun, tmp_path: Path):
    run = make_run("a")
    with pytest.raises(LabError, match="a comparison needs at least two runs"):
        compare_runs([run])
    with pytest.raises(LabError, match="have the same recipe and the same seed"):
        compare_runs([run, Run(tmp_path / "a")])
    with pytest.raises(LabError, match="is not a run folder"):
        find_runs_of_arm(str(tmp_path / "none"))


@pytest.mark.slow
def test_runs_of_networks_of_ones_own_are_compared_wherever_they_are_and_whatever_their_folders_are_called(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    source = (
        "from torch import nn\ndef {}(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    names = []
    for folder in ("nets", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text(source.format("Net"))
        names.append(f"{folder}/a.py:Net")
        trust_named(names[-1])
    runs = [make_run(f"run\t{i}", model__name=name) for i, name in enumerate(names)]
    assert [arm.name for arm in compare_runs(runs).sections[0].arms] == [
        "model.name=a.py:Net",
        "model.name=a.py:Net (2)",
    ]
    long = make_run("run\nof\ta" + "b" * 240, model__name=names[0], data__augment=["crop:1"] * 40)
    assert compare_runs([runs[0], long]).sections[0].arms[1].name.startswith("run of abbb")
