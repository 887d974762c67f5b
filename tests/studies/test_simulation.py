"""How often a study is wrong, and how often it finds a real difference, over thousands of simulated studies."""

import json
import subprocess
import sys
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Simulation:
    """How many studies of each kind, and the fractions that came out of them."""

    no_difference: int
    coarse: int
    real_difference: int
    just_not_equivalent: int
    fractions: dict[str, dict[str, float]]


def three_standard_errors(fraction: float, count: int) -> float:
    """Three standard errors of a fraction that was counted."""
    return 3 * sqrt(fraction * (1 - fraction) / count)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((1000, 300, 500, 1000), id="some", marks=pytest.mark.slow),
        pytest.param((5000, 1500, 2500, 5000), id="many", marks=pytest.mark.long),
    ],
)
def simulated(request: pytest.FixtureRequest) -> Simulation:
    command = [sys.executable, "-m", "support.simulate", *map(str, request.param)]
    tests = Path(__file__).parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=tests)
    return Simulation(*request.param, json.loads(done.stdout))


def test_a_study_of_arms_that_do_not_differ_finds_a_difference_at_most_5_times_in_100(simulated: Simulation) -> None:
    fractions = simulated.fractions["no_difference"]
    assert fractions["decided"] == 1  # every contrast had its verdict
    assert fractions["false"] <= 0.05 + three_standard_errors(0.05, simulated.no_difference)
    assert fractions["false"] > 0.02  # Holm's correction is not much too strict


def test_numbers_in_coarse_steps_give_no_more_false_positives(simulated: Simulation) -> None:
    assert simulated.fractions["coarse"]["false"] <= 0.05 + three_standard_errors(0.05, simulated.coarse)


def test_arms_that_differ_by_the_margin_are_called_equivalent_at_most_5_times_in_100(simulated: Simulation) -> None:
    false = simulated.fractions["just_not_equivalent"]["false"]
    assert false <= 0.05 + three_standard_errors(0.05, simulated.just_not_equivalent)
    assert false > 0.02  # the test is not much too strict


def test_the_interval_of_a_difference_covers_the_truth_95_times_in_100(simulated: Simulation) -> None:
    for kind, count in (("no_difference", simulated.no_difference), ("real_difference", simulated.real_difference)):
        assert simulated.fractions[kind]["covered"] == pytest.approx(0.95, abs=three_standard_errors(0.95, count))


def test_a_real_difference_is_found_as_often_as_the_minimum_detectable_effect_promises(simulated: Simulation) -> None:
    fractions, count = simulated.fractions["real_difference"], simulated.real_difference
    assert fractions["found"] == pytest.approx(
        0.8, abs=three_standard_errors(0.8, count) + 0.01
    )  # Holm's later steps add a little
    assert fractions["wrong"] <= 0.05 + three_standard_errors(0.05, count)
    assert fractions["separated"] == fractions["found"]  # of one epoch: where there is a verdict the curves differ
