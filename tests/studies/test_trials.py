"""What training a trial does with its folder, whatever was in it."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.callbacks import FunctionCallbacks
from torch import nn

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.models import registry
from convolab.studies.study import Study
from convolab.studies.trials import estimate_training_cost, find_corruption, train_trial
from convolab.training.recipe import Recipe
from convolab.training.run import Run

MakeStudy = Callable[..., Study]


@pytest.fixture
def recipe(make_study: MakeStudy) -> Recipe:
    return make_study().trials[0].recipe


@pytest.fixture
def finished_run(recipe: Recipe, digits: DatasetSplits, tmp_path: Path) -> Path:
    """The folder of a finished run."""
    assert train_trial(recipe, digits, tmp_path / "run") == ("finished", None)
    return tmp_path / "run"


def test_a_finished_run_is_not_trained_again(finished_run: Path, recipe: Recipe, digits: DatasetSplits):
    before = {path.name: path.stat().st_mtime_ns for path in finished_run.iterdir() if path.name != ".lock"}
    assert train_trial(recipe, digits, finished_run) == ("finished", None)
    assert {path.name: path.stat().st_mtime_ns for path in finished_run.iterdir() if path.name != ".lock"} == before


def test_a_folder_without_a_summary_as_a_kill_leaves_it_is_trained_from_the_start(
    recipe: Recipe, digits: DatasetSplits, tmp_path: Path
):
    recipe.write(tmp_path / "run" / "recipe.toml")
    assert find_corruption(tmp_path / "run", recipe) is None
    assert train_trial(recipe, digits, tmp_path / "run") == ("finished", None)


@pytest.mark.slow
def test_a_stopped_trial_resumes_where_it_stopped(
    recipe: Recipe, digits: DatasetSplits, tmp_path: Path, finished_run: Path
):
    steps = []
    first = FunctionCallbacks(on_step=steps.append, stop=lambda: len(steps) == 3)
    assert train_trial(recipe, digits, tmp_path / "stopped", callbacks=first) == ("stopped", None)
    second = FunctionCallbacks(on_step=steps.append)
    assert train_trial(recipe, digits, tmp_path / "stopped", callbacks=second) == ("finished", None)
    assert len(steps) == 6
    assert (tmp_path / "stopped" / "best.safetensors").read_bytes() == (finished_run / "best.safetensors").read_bytes()


def test_a_diverging_trial_is_reported_as_diverged_each_time_it_is_trained(
    make_study: MakeStudy, digits: DatasetSplits, tmp_path: Path
):
    recipe_that_diverges = make_study().trials[0].recipe.with_overrides({"optimizer.lr": 1e30})
    for _ in range(2):
        status, reason = train_trial(recipe_that_diverges, digits, tmp_path / "run")
        assert status == "diverged"
        assert "the loss became" in reason
    assert find_corruption(tmp_path / "run", recipe_that_diverges) is None


def test_a_complete_run_is_not_damaged(finished_run: Path, recipe: Recipe):
    assert find_corruption(finished_run, recipe) is None


def edit_metrics(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[-1]["validation_accuracy"] = 1.0
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def truncate(name: str) -> Callable[[Path], None]:
    """Cut the end off a file; as a new file, because the best weights may be a hard link to the last ones."""

    def damage(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).unlink()
        (run / name).write_bytes(content[:-100])

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit_metrics, "metrics.jsonl was edited"),
        (lambda run: (run / "metrics.jsonl").write_text("{"), "metrics.jsonl is damaged"),
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl (No such file or directory)"),
        (truncate("best.safetensors"), "best.safetensors is damaged"),
        (truncate("last.safetensors"), "last.safetensors is damaged"),
        (truncate("state.safetensors"), "state.safetensors is damaged"),
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
def test_the_damaged_file_of_a_run_is_named(
    finished_run: Path, recipe: Recipe, damage: Callable[[Path], None], message: str
):
    damage(finished_run)
    assert message in find_corruption(finished_run, recipe)
    assert "\n" not in find_corruption(finished_run, recipe)


def test_the_folder_of_another_run_under_this_key_is_damaged(finished_run: Path, recipe: Recipe):
    assert "its key is" in find_corruption(finished_run, recipe.with_overrides({"optimizer.lr": 0.2}))


def test_a_larger_network_and_more_epochs_cost_more(recipe: Recipe, digits: DatasetSplits):
    cheap = estimate_training_cost(recipe, digits)
    assert estimate_training_cost(recipe.with_overrides({"model.name": "simple_convnet"}), digits) > cheap
    assert estimate_training_cost(recipe.with_overrides({"training.epochs": 4}), digits) == 2 * cheap


class ByKeyword(nn.Module):
    """A network whose layer gets its input by name."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(shape), classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(input=pixels.flatten(1))


def test_a_layer_that_is_called_by_keyword_is_counted(
    recipe: Recipe, digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(registry.NETWORKS, "by_keyword", ByKeyword)
    by_keyword = Recipe.from_dict(recipe.to_dict() | {"model": {"name": "by_keyword"}})
    assert estimate_training_cost(by_keyword, digits) > 640 * len(digits.train) * 0.5


class WithSize(nn.Module):
    """A network whose transposed convolution is called with the size of its output."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(shape[0], classes, 2, stride=2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.up(pixels, [2 * pixels.shape[2], 2 * pixels.shape[3]]).mean((2, 3))


def test_a_layer_that_is_called_with_a_second_argument_is_counted(
    recipe: Recipe, digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(registry.NETWORKS, "with_size", WithSize)
    with_size = Recipe.from_dict(recipe.to_dict() | {"model": {"name": "with_size"}})
    assert estimate_training_cost(with_size, digits) > 0


def test_a_recipe_that_does_not_fit_its_images_is_found_before_training(recipe: Recipe, digits: DatasetSplits):
    with pytest.raises(LabError, match="a batch of 5000 is larger than the"):
        estimate_training_cost(recipe.with_overrides({"training.batch_size": 5000}), digits)
    with pytest.raises(LabError, match="cannot be halved"):
        estimate_training_cost(
            recipe.with_overrides({"model.name": "resnet_small", "model.channels": [8, 8, 8, 8, 8]}), digits
        )


def test_a_trial_sets_one_thread_and_then_restores_their_number(recipe: Recipe, digits: DatasetSplits, tmp_path: Path):
    torch.set_num_threads(2)
    train_trial(recipe, digits, tmp_path / "run")
    assert Run(tmp_path / "run").summary["threads"] == 1
    assert torch.get_num_threads() == 2
