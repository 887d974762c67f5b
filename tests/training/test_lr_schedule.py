import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from convolab.training.lr_schedule import ConstantLR, CosineLR, OneCycleLR, Schedule, StepLR

SCHEDULES = [ConstantLR(), StepLR(step_size=2, gamma=0.5), CosineLR(), OneCycleLR()]


@pytest.mark.slow
@given(st.sampled_from(SCHEDULES), st.floats(0.1, 5), st.floats(0, 10))
def test_warmup_grows_linearly_and_then_the_schedule_is_unchanged(
    schedule: Schedule, warmup: float, time: float
) -> None:
    with_warmup, factor_without_warmup = schedule.model_copy(update={"warmup": warmup}), schedule.factor(time, 10)
    assert with_warmup.factor(time, 10) == (
        pytest.approx(factor_without_warmup * time / warmup) if time < warmup else factor_without_warmup
    )


def test_warmup_starts_from_zero_and_grows_with_every_step() -> None:
    factors = [ConstantLR(warmup=2).factor(step / 7, 10) for step in range(15)]
    assert factors == pytest.approx([step / 14 for step in range(15)])


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
