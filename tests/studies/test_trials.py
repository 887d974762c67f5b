"""What becomes of a trial's folder, whatever was in it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.callbacks import FunctionCallbacks

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.studies.study import Study
from convolab.studies.trials import estimate_training_cost, find_corruption, train_trial
from convolab.training.recipe import Recipe
from convolab.training.run import Run

Tiny = Callable[..., Study]


@pytest.fixture
def recipe(tiny: Tiny) -> Recipe:
    return tiny().trials[0].recipe


@pytest.fixture
def whole(recipe: Recipe, digits: DatasetSplits, tmp_path: Path) -> Path:
    """The folder of a finished run."""
    assert train_trial(recipe, digits, tmp_path / "run") == ("finished", None)
    return tmp_path / "run"


def test_a_finished_run_is_not_trained_again(whole: Path, recipe: Recipe, digits: DatasetSplits):
    before = {path.name: path.stat().st_mtime_ns for path in whole.iterdir() if path.name != ".lock"}
    assert train_trial(recipe, digits, whole) == ("finished", None)
    assert {path.name: path.stat().st_mtime_ns for path in whole.iterdir() if path.name != ".lock"} == before


def test_a_folder_that_a_kill_left_before_its_summary_is_started_again(
    recipe: Recipe, digits: DatasetSplits, tmp_path: Path
):
    recipe.write(tmp_path / "run" / "recipe.toml")
    assert find_corruption(tmp_path / "run", recipe) is None
    assert train_trial(recipe, digits, tmp_path / "run") == ("finished", None)


def test_a_stopped_trial_resumes_where_it_was(recipe: Recipe, digits: DatasetSplits, tmp_path: Path, whole: Path):
    steps = []
    first = FunctionCallbacks(on_step=steps.append, stop=lambda: len(steps) == 3)
    assert train_trial(recipe, digits, tmp_path / "cut", callbacks=first) == ("stopped", None)
    second = FunctionCallbacks(on_step=steps.append)
    assert train_trial(recipe, digits, tmp_path / "cut", callbacks=second) == ("finished", None)
    assert len(steps) == 6
    assert (tmp_path / "cut" / "best.safetensors").read_bytes() == (whole / "best.safetensors").read_bytes()


def test_a_diverging_trial_says_so_each_time_it_is_asked(tiny: Tiny, digits: DatasetSplits, tmp_path: Path):
    wild = tiny().trials[0].recipe.with_overrides({"optimizer.lr": 1e30})
    for _ in range(2):
        end, reason = train_trial(wild, digits, tmp_path / "run")
        assert end == "diverged"
        assert "the loss became" in reason
    assert find_corruption(tmp_path / "run", wild) is None


def test_a_complete_run_is_not_called_damaged(whole: Path, recipe: Recipe):
    assert find_corruption(whole, recipe) is None


def edit_metrics(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[-1]["validation_accuracy"] = 1.0
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def cut(name: str) -> Callable[[Path], None]:
    """Cut a file off; a file of its own, because the best weights may be a second name of the last ones."""

    def harm(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).unlink()
        (run / name).write_bytes(content[:-100])

    return harm


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (edit_metrics, "metrics.jsonl was edited"),
        (lambda run: (run / "metrics.jsonl").write_text("{"), "metrics.jsonl is damaged"),
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl is damaged"),
        (cut("best.safetensors"), "best.safetensors is damaged"),
        (cut("last.safetensors"), "last.safetensors is damaged"),
        (cut("state.safetensors"), "state.safetensors is damaged"),
        (lambda run: (run / "best.safetensors").unlink(), "there is no"),
        (
            lambda run: (run / "recipe.toml").write_text(
                (run / "recipe.toml").read_text().replace("hidden = 8", "hidden = 9")
            ),
            "recipe.toml was edited",
        ),
        (lambda run: (run / "recipe.toml").unlink(), "cannot read the recipe"),
        (lambda run: (run / "summary.json").write_text("{}"), "summary.json is damaged"),
        (lambda run: (run / "summary.json").write_text("[]"), "is damaged"),
        (lambda run: (run / "summary.json").write_text("{"), "is not JSON"),
    ],
)
def test_whatever_is_damaged_in_a_run_is_named(whole: Path, recipe: Recipe, harm: Callable[[Path], None], message: str):
    harm(whole)
    assert message in find_corruption(whole, recipe)
    assert "\n" not in find_corruption(whole, recipe)


def test_another_run_s_folder_under_this_key_is_damage(whole: Path, recipe: Recipe):
    assert "its key is" in find_corruption(whole, recipe.with_overrides({"optimizer.lr": 0.2}))


def test_a_costlier_network_and_more_epochs_cost_more(recipe: Recipe, digits: DatasetSplits):
    cheap = estimate_training_cost(recipe, digits)
    assert estimate_training_cost(recipe.with_overrides({"model.name": "simple_convnet"}), digits) > cheap
    assert estimate_training_cost(recipe.with_overrides({"training.epochs": 4}), digits) == 2 * cheap


def test_a_recipe_that_does_not_fit_its_images_is_found_before_training(recipe: Recipe, digits: DatasetSplits):
    with pytest.raises(LabError, match="a batch of 5000 is larger than the"):
        estimate_training_cost(recipe.with_overrides({"training.batch_size": 5000}), digits)
    with pytest.raises(LabError, match="cannot be halved"):
        estimate_training_cost(
            recipe.with_overrides({"model.name": "resnet_small", "model.channels": [8, 8, 8, 8, 8]}), digits
        )


def test_a_trial_takes_one_thread_and_gives_the_others_back(recipe: Recipe, digits: DatasetSplits, tmp_path: Path):
    torch.set_num_threads(2)
    train_trial(recipe, digits, tmp_path / "run")
    assert Run(tmp_path / "run").summary["threads"] == 1
    assert torch.get_num_threads() == 2
