import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from convolab.app.choices import RECIPE_CHOICES
from convolab.training.lr_schedule import ConstantLR, CosineLR, LinearDecayLR, OneCycleLR, Schedule, StepLR
from convolab.training.optim import Optimizer
from convolab.training.recipe import Recipe, recipe_key

SCHEDULES = [ConstantLR(), StepLR(step_size=2, gamma=0.5), CosineLR(), LinearDecayLR(), OneCycleLR()]


def test_every_schedule_is_tried_here_and_offered_on_the_page() -> None:
    own = {entry.__metadata__[0].tag for entry in get_args(get_args(Schedule)[0])} - {"other"}
    assert {schedule.name for schedule in SCHEDULES} == own
    assert set(RECIPE_CHOICES["schedule"]) == own


def test_every_optimizer_is_offered_on_the_page() -> None:
    own = {entry.__metadata__[0].tag for entry in get_args(get_args(Optimizer)[0])} - {"other"}
    assert set(RECIPE_CHOICES["optimizer"]) == own


@pytest.mark.slow
@given(st.sampled_from(SCHEDULES), st.floats(0.1, 5), st.floats(0, 10))
def test_warmup_grows_linearly_and_then_the_schedule_is_unchanged(
    schedule: Schedule, warmup: float, time: float
) -> None:
    with_warmup, factor_without_warmup = schedule.model_copy(update={"warmup": warmup}), schedule.factor(time, 10)
    assert with_warmup.factor(time, 10) == (
        pytest.approx(factor_without_warmup * time / warmup) if time < warmup else factor_without_warmup
    )


def test_a_new_warmup_starts_above_zero_and_grows_with_every_step() -> None:
    factors = [ConstantLR(warmup=2).factor(step / 7, 10) for step in range(15)]
    assert factors == pytest.approx([0.01 + 0.99 * step / 14 for step in range(15)])
    assert ConstantLR(warmup=2, warmup_start=0.5).factor(1.0, 10) == pytest.approx(0.75)


def test_a_warmup_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=6)
    rate = ConstantLR(warmup=2).rates(0.3, 3, 10)
    for step in range(9):
        assert rate(step // 3, step % 3, []) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", ["cosine", "ExponentialLR"])
def test_a_new_recipe_says_where_its_warmup_starts_and_a_stored_one_keeps_its_meaning(name: str) -> None:
    options = {"gamma": 0.9} if name == "ExponentialLR" else {}
    schedule = {"name": name, "warmup": 1.0, **options}
    new = Recipe.from_dict({"schedule": schedule})
    assert new.to_dict()["schedule"]["warmup_start"] == 0.01
    assert new.schedule.rates(0.1, 10, 5)(0, 0, []) == pytest.approx(0.001)
    stored = {**Recipe.from_dict({"schedule": {**schedule, "warmup": 0.0}}).to_dict()}
    stored["schedule"] = {**stored["schedule"], "warmup": 1.0}
    for old in (
        Recipe.from_file_values(stored, stored=Recipe.model_fields),
        Recipe.from_file_values({"format": 1, **stored}),
    ):
        assert old.to_dict() == stored
        assert old.key == recipe_key(stored)
        assert old.schedule.rates(0.1, 10, 5)(0, 0, []) == 0
        assert old.with_overrides({"training.seed": 3}).schedule == old.schedule


def test_a_recipe_without_warmup_has_no_start_of_it() -> None:
    assert "warmup_start" not in Recipe().to_dict()["schedule"]
    assert Recipe.from_dict({"schedule": {"warmup_start": 0.5}}) == Recipe()


def test_a_constant_schedule_is_constant() -> None:
    assert {ConstantLR().factor(time / 3, 4) for time in range(13)} == {1.0}


def test_a_step_schedule_changes_between_epochs_and_not_within_one() -> None:
    schedule = StepLR(step_size=3, gamma=0.5)
    factors = [schedule.factor(epoch + step / 391, 9) for epoch in range(9) for step in range(391)]
    assert factors == [0.5 ** (epoch // 3) for epoch in range(9) for _ in range(391)]


def test_cosine_falls_from_one_to_zero_and_is_one_half_in_the_middle() -> None:
    assert [CosineLR().factor(time, 10) for time in (0.0, 5.0, 10.0)] == pytest.approx([1, 0.5, 0], abs=1e-12)
    assert CosineLR().factor(11.0, 10) == pytest.approx(0, abs=1e-12)


def test_one_cycle_starts_low_peaks_at_pct_start_and_ends_lowest() -> None:
    schedule = OneCycleLR(pct_start=0.25, div_factor=10, final_div_factor=100)
    assert [schedule.factor(time, 8) for time in (0.0, 1.0, 2.0, 8.0)] == pytest.approx([0.1, 0.55, 1, 0.001])
    assert schedule.factor(9.0, 8) == pytest.approx(0.001)
    factors = [schedule.factor(time / 10, 8) for time in range(81)]
    assert factors[:21] == sorted(factors[:21])
    assert factors[20:] == sorted(factors[20:], reverse=True)


@pytest.mark.parametrize("schedule", [*SCHEDULES, *(s.model_copy(update={"warmup": 1.5}) for s in SCHEDULES)])
def test_every_factor_is_between_zero_and_one(schedule: Schedule) -> None:
    assert all(
        0 <= schedule.factor(step / 9, 5) <= 1 and math.isfinite(schedule.factor(step / 9, 5)) for step in range(46)
    )


@pytest.mark.parametrize(
    "values",
    [
        {"name": "step", "step_size": 0},
        {"name": "step", "step_size": 2.5},
        {"name": "step", "gamma": 1.1},
        {"name": "step", "gamma": -0.1},
        {"name": "constant", "warmup": -1},
        {"name": "constant", "warmup": float("nan")},
        {"name": "cosine", "warmup": float("inf")},
        {"name": "one_cycle", "pct_start": 0},
        {"name": "one_cycle", "pct_start": 1},
        {"name": "one_cycle", "div_factor": 0},
        {"name": "one_cycle", "final_div_factor": -1},
        {"name": "constant", "gamma": 0.1},
        {"name": "cosines"},
        {"step_size": 3},
    ],
)
def test_invalid_values_of_a_schedule_are_refused(values: dict) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Schedule).validate_python(values)
