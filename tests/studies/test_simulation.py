"""How often a study errs, and how often it sees what is there, over thousands of studies whose truth is known."""

import json
import subprocess
import sys
from math import sqrt
from pathlib import Path

import pytest

STUDIES, COARSE, REAL = 5000, 1500, 2500


def error(share: float, count: int) -> float:
    """Three standard errors of a share that was counted."""
    return 3 * sqrt(share * (1 - share) / count)


@pytest.fixture(scope="module")
def simulated() -> dict[str, dict[str, float]]:
    script = Path(__file__).parent / "simulate.py"
    sizes = map(str, (STUDIES, COARSE, REAL))
    done = subprocess.run([sys.executable, script, *sizes], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def test_a_study_of_arms_that_do_not_differ_sees_a_difference_at_most_5_times_in_100(
    simulated: dict[str, dict[str, float]],
) -> None:
    seen = simulated["no_difference"]
    assert seen["decided"] == 1  # every contrast had its verdict
    assert seen["false"] <= 0.05 + error(0.05, STUDIES)
    assert seen["false"] > 0.02  # Holm's correction does not give away more than it must


def test_numbers_that_come_in_coarse_steps_deceive_no_more_often(simulated: dict[str, dict[str, float]]) -> None:
    assert simulated["coarse"]["false"] <= 0.05 + error(0.05, COARSE)


def test_the_interval_of_a_difference_covers_the_truth_95_times_in_100(simulated: dict[str, dict[str, float]]) -> None:
    assert simulated["no_difference"]["covered"] == pytest.approx(0.95, abs=error(0.95, STUDIES))
    assert simulated["real_difference"]["covered"] == pytest.approx(0.95, abs=error(0.95, REAL))


def test_a_real_difference_is_seen_as_often_as_the_smallest_one_promises(
    simulated: dict[str, dict[str, float]],
) -> None:
    seen = simulated["real_difference"]
    assert seen["found"] == pytest.approx(0.8, abs=error(0.8, REAL) + 0.01)  # Holm's later steps add a little
    assert seen["wrong"] <= 0.05 + error(0.05, REAL)
    assert seen["parted"] == seen["found"]  # of one epoch: where the verdict is decided the curves are apart
