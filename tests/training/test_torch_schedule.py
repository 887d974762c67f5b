"""Schedules that are not convolab's: torch's own by name, and a person's, whose rates are a function of the time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.callbacks import stop_after
from support.own_code import own_code_folder
from torch import nn

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.torch_schedule import SCHEDULES, OtherSchedule

STEPS, EPOCHS = 4, 6
OPTIONS: dict[str, dict[str, Any]] = {
    "ConstantLR": {"total_iters": 2},
    "CosineAnnealingLR": {"T_max": 6},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {},
    "MultiStepLR": {"milestones": [2, 4]},
    "OneCycleLR": {"max_lr": 0.3, "total_steps": STEPS * EPOCHS},
    "PolynomialLR": {"total_iters": 4, "power": 2.0},
    "ReduceLROnPlateau": {"patience": 0},
    "StepLR": {"step_size": 2},
}
OWN = """
import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


def halved(epoch: float, total_epochs: int, power: float = 1.0) -> float:
    return 0.5 ** (power * epoch)


def negative(epoch, total_epochs):
    return 1 - epoch


class Falling(LRScheduler):
    def __init__(self, optimizer, by: float = 0.5):
        self.by = by
        super().__init__(optimizer)

    def get_lr(self):
        return [rate * self.by**self.last_epoch for rate in self.base_lrs]


class Patient(ReduceLROnPlateau):
    def __init__(self, optimizer, patience: int = 0):
        super().__init__(optimizer, patience=patience, threshold=0.5)


class NoSchedule:
    def __init__(self, optimizer):
        pass
"""


def test_every_class_of_torch_is_either_used_or_refused_with_a_reason() -> None:
    assert OPTIONS.keys() | SCHEDULES.refused.keys() == SCHEDULES.classes.keys()


@pytest.mark.parametrize("per", ["epoch", "step"])
@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - {"ReduceLROnPlateau"}))
@pytest.mark.filterwarnings("ignore")
def test_the_rates_are_those_of_torch(name: str, per: str) -> None:
    rate = OtherSchedule(name=name, per=per, **OPTIONS[name]).rates(0.1, STEPS, EPOCHS)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **OPTIONS[name])
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            assert rate(epoch, step, []) == optimizer.param_groups[0]["lr"]
            optimizer.step()
            if per == "step":
                scheduler.step()
        if per == "epoch":
            scheduler.step()


@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule",
    [
        {"schedule.name": "ReduceLROnPlateau", "schedule.patience": 0, "schedule.threshold": 0.5},
        {"schedule.name": "CosineAnnealingLR", "schedule.T_max": 3, "schedule.warmup": 0.5},
    ],
    ids=["plateau", "cosine"],
)
def test_a_stopped_run_has_the_rates_of_an_uninterrupted_one(
    schedule: dict[str, Any], digits: DatasetSplits, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe({**schedule, "training.epochs": 4})
    whole = Run.start(recipe, digits, tmp_path / "whole")
    Run.start(recipe, digits, tmp_path / "stopped", callbacks=stop_after(13))
    stopped = Run(tmp_path / "stopped").resume(digits)
    assert (stopped.folder / "last.safetensors").read_bytes() == (whole.folder / "last.safetensors").read_bytes()
    rates = [epoch.learning_rate for epoch in whole.history]
    assert rates == [epoch.learning_rate for epoch in stopped.history]
    assert len(set(rates)) > 1


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"name": "ExponentialR"}, "unknown schedule 'ExponentialR': did you mean 'ExponentialLR'?"),
        ({"name": "ExponentialLR"}, "the schedule 'ExponentialLR' has no default for its option 'gamma': set schedule.gamma"),
        ({"name": "ExponentialLR", "gama": 1.0}, "the schedule 'ExponentialLR' has no option 'gama': did you mean 'gamma'?"),
        ({"name": "StepLR", "step_size": 2, "per": "batch"}, "schedule.per = 'batch': give 'epoch' or 'step'"),
        ({"name": "LambdaLR"}, "the schedule 'LambdaLR' cannot be used: it takes a function, which a recipe cannot hold: "
         "write yours as file.py:name"),
    ],
)  # fmt: skip
def test_a_wrong_schedule_is_one_line(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(LabError) as caught:
        Recipe.from_dict({"schedule": schedule})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            OtherSchedule(name="OneCycleLR", max_lr=0.1, total_steps=3, per="step"),
            "failed in its step: ValueError: Tried to step 4",
        ),
        (OtherSchedule(name="ExponentialLR", gamma="x"), "cannot be made with|failed in its step"),
        (OtherSchedule(name="ReduceLROnPlateau", per="step"), "looks at the loss of whole epochs"),
    ],
)
def test_what_would_fail_later_is_refused_before_the_training(schedule: OtherSchedule, message: str) -> None:
    with pytest.raises(LabError, match=message):
        schedule.rates(0.1, STEPS, EPOCHS)


@pytest.mark.slow
def test_a_schedule_of_millions_of_steps_is_made_within_seconds() -> None:
    start = time.perf_counter()
    rates = OtherSchedule(name="ExponentialLR", gamma=0.999999, per="step").rates(0.1, 400, 100_000)
    assert time.perf_counter() - start < 30  # all 40 million steps take ten minutes
    assert rates(0, 1, []) == pytest.approx(0.1 * 0.999999)


# ---- a person's own


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Recipes with a schedule of own.py, which is in the current folder."""
    return own_code_folder(tmp_path, monkeypatch, "own.py", OWN)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rates"), [("halved", [1.0, 0.5, 0.25]), ("Falling", [1.0, 0.5, 0.25])])
def test_an_own_schedule_is_kept_with_the_run_and_resumed_from_its_copy(
    name: str, rates: list[float], own: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    recipe = own({"schedule.name": f"own.py:{name}", "optimizer.lr": 1.0})
    assert [recipe.schedule.rates(1.0, 1, 3)(epoch, 0, []) for epoch in range(3)] == rates
    whole = Run.start(recipe, digits, "whole")
    assert (whole.folder / "code/@schedule/own.py").read_text() == OWN
    Run.start(recipe, digits, "stopped", callbacks=stop_after(8))
    Path("own.py").write_text(OWN.replace("0.5", "0.1"))
    resumed = Run("stopped").resume(digits)
    assert (resumed.folder / "last.safetensors").read_bytes() == (whole.folder / "last.safetensors").read_bytes()


def test_an_own_schedule_that_waits_for_a_lower_loss_is_not_asked_for_a_rate_before_there_is_one(
    own: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    plateau = {"schedule.name": "own.py:Patient", "optimizer.lr": 1.0}
    run = Run.start(own(plateau), digits, "run")
    library = own(
        {"schedule.name": "ReduceLROnPlateau", "schedule.patience": 0, "schedule.threshold": 0.5, "optimizer.lr": 1.0}
    )
    rates = library.schedule.rates(1.0, 1, 3)
    assert [epoch.learning_rate for epoch in run.history] == [rates(n, 0, run.history[:n]) for n in range(3)]
    with pytest.raises(LabError, match=r"own\.py:Patient looks at the loss of whole epochs"):
        Run.start(own({**plateau, "schedule.per": "step"}), digits, "other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("negative", r"gives a learning rate of -0\.018"),
        ("NoSchedule", "gives NoSchedule: it must be a torch.optim.lr_scheduler.LRScheduler"),
    ],
)
def test_what_an_own_schedule_does_wrong_is_one_line_before_anything_is_written(
    name: str, message: str, own: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    with pytest.raises(LabError, match=message):
        Run.start(own({"schedule.name": f"own.py:{name}"}), digits, "run")
    assert not Path("run").exists()
