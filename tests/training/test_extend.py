"""More epochs for a finished run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.training.callbacks import Callbacks
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.sections import MAX_EPOCHS
from convolab.training.trainer import Trainer

pytestmark = pytest.mark.slow
MakeRecipe = Callable[..., Recipe]
EXACT = [
    {"schedule.name": "constant"},
    {"schedule.name": "step", "schedule.step_size": 1, "optimizer.momentum": 0.9},
    {"schedule.name": "ExponentialLR", "schedule.gamma": 0.7, "optimizer.name": "adam"},
    {"schedule.name": "constant", "schedule.warmup": 3, "training.ema": 0.9, "optimizer.name": "RMSprop"},
    {"schedule.name": "ReduceLROnPlateau", "schedule.patience": 0},
]
INEXACT = [
    {"schedule.name": "cosine"},
    {"schedule.name": "one_cycle"},
    {
        "schedule.name": "constant",
        "data.augment": ["progressive:0.5"],
        "model.name": "simple_convnet",
        "model.channels": [4, 8],
    },
]


class Messages(Callbacks):
    """Keeps the messages, and stops after so many steps."""

    def __init__(self, steps: int | None = None) -> None:
        self.lines: list[str] = []
        self.steps = steps

    def on_message(self, message: str) -> None:
        self.lines.append(message)

    def on_step(self, trainer: Trainer) -> None:
        self.steps = None if self.steps is None else self.steps - 1

    def should_stop(self) -> bool:
        return self.steps == 0


def tensors_of(run: Run) -> dict[str, dict[str, torch.Tensor]]:
    return {name: load_file(run.folder / f"{name}.safetensors") for name in ("last", "best", "state")}


def same_tensors(first: Run, second: Run) -> bool:
    a, b = tensors_of(first), tensors_of(second)
    return all(a[f].keys() == b[f].keys() and all(torch.equal(a[f][k], b[f][k]) for k in a[f]) for f in a)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def trained(tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits, epochs: int, overrides: dict) -> Run:
    recipe = make_recipe({**overrides, "training.epochs": epochs})
    return Run.start(recipe, digits, tmp_path / f"{epochs}-{recipe.key}")


@pytest.mark.parametrize("overrides", EXACT)
def test_two_epochs_and_two_more_are_four_bit_for_bit_where_the_schedule_does_not_know_the_end(
    tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits, overrides: dict
) -> None:
    short = trained(tmp_path, make_recipe, digits, 2, overrides)
    before = contents(short.folder)
    messages = Messages()
    extended = short.extend(4, tmp_path / "more", splits=digits, callbacks=messages)
    whole = trained(tmp_path, make_recipe, digits, 4, overrides)
    assert same_tensors(extended, whole)
    assert extended.recipe == whole.recipe
    assert extended.run_id == whole.run_id
    assert [e.train_loss for e in extended.history] == [e.train_loss for e in whole.history]
    assert [e.learning_rate for e in extended.history] == [e.learning_rate for e in whole.history]
    assert "bit for bit what 4 epochs from scratch give" in messages.lines[0]
    assert contents(short.folder) == before
    parent = Run(extended.folder).summary["parent"]
    assert (parent["recipe_key"], parent["epochs"], parent["is_exact"]) == (short.recipe.key, 2, True)
    assert str(tmp_path) not in json.dumps(parent)


@pytest.mark.parametrize("overrides", INEXACT)
def test_where_the_schedule_ends_with_the_training_a_message_warns_that_the_bits_differ(
    tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits, overrides: dict
) -> None:
    messages = Messages()
    short = trained(tmp_path, make_recipe, digits, 2, overrides)
    extended = short.extend(4, tmp_path / "more", splits=digits, callbacks=messages)
    assert "not what 4 epochs from scratch give" in messages.lines[0]
    assert not same_tensors(extended, trained(tmp_path, make_recipe, digits, 4, overrides))
    again = extended.extend(5, tmp_path / "again", splits=digits)
    assert again.summary["parent"]["is_exact"] is False  # what it goes on from was not


def test_an_extension_that_was_stopped_resumes_to_the_same_bits(
    tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    short = trained(tmp_path, make_recipe, digits, 2, {})
    for name, steps in (("at-once", 0), ("later", 3)):
        stopped = short.extend(4, tmp_path / name, splits=digits, callbacks=Messages(steps))
        assert (stopped.status, len(stopped.history)) == ("stopped", 2)
        Run(stopped.folder).resume(digits)
        assert same_tensors(stopped, trained(tmp_path / f"{name}-plain", make_recipe, digits, 4, {}))
        assert Run(stopped.folder).summary["parent"]["recipe_key"] == short.recipe.key


def test_what_cannot_go_on_is_refused_in_one_line(
    tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    short = trained(tmp_path, make_recipe, digits, 2, {})
    goal = trained(tmp_path, make_recipe, digits, 3, {"training.goal": 0.1})
    stopped = Run.start(make_recipe(), digits, tmp_path / "stopped", callbacks=Messages(7))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("")
    for run, epochs, out, message in (
        (short, 2, "new", "2 epochs in all are not more than the 2"),
        (short, MAX_EPOCHS + 1, "new", "training.epochs = 100001: give at most 100000"),
        (short, 10**30, "new", "training.epochs = 10+: give at most 100000"),
        (goal, 9, "new", r"stopped by itself after 1 epoch \(training.goal or"),
        (stopped, 9, "new", "is stopped: only a finished run"),
        (short, 4, "used", "is not empty"),
    ):
        with pytest.raises(LabError, match=message) as caught:
            run.extend(epochs, tmp_path / out, splits=digits)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "new").exists()


def test_a_network_of_ones_own_goes_on_with_the_copy_of_its_code(
    tmp_path: Path, digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = (
        "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self, input_shape, num_classes):\n"
        "        c, h, w = input_shape\n        super().__init__(nn.Flatten(), nn.Linear(c * h * w, num_classes))\n"
    )
    Path("mine.py").write_text(source)
    recipe = Recipe.from_dict({"data": {"limit": 200}, "model": {"name": "mine.py:Net"}, "training": {"epochs": 1}})
    short = Run.start(recipe, digits, tmp_path / "short")
    Path("mine.py").unlink()
    extended = short.extend(2, tmp_path / "more", splits=digits)
    assert extended.status == "finished"
    assert (extended.folder / "code" / "mine.py").read_text() == source
    assert extended.net().classes == short.net().classes
