"""Contrasts decided look by look, and thousands of simulated studies that do so."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from convolab.core.sequential import Estimate, look_levels, planned_looks
from convolab.core.stats import ALPHA
from convolab.studies.decide import Decision, Sample, decide_contrasts, seeds_by_arm, share_level

LOOKS = planned_looks(20)
SAME = Estimate(0.0, 1.0, 3)


def drawn(differences: np.ndarray, available: int | None = None) -> Callable[[int, int], Sample]:
    """What differences [contrasts, seeds] say; only the `available` first seeds are there."""

    def sample(contrast: int, seeds: int) -> Sample:
        if available is not None and seeds > available:
            return "missing"
        values = differences[contrast, :seeds]
        return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(seeds)), seeds)

    return sample


def outcomes(decisions: list[Decision]) -> list[tuple[str, int]]:
    return [(decision.outcome, decision.seeds) for decision in decisions]


@pytest.mark.slow
def test_a_difference_of_ten_standard_deviations_is_decided_within_five_seeds():
    rng = np.random.default_rng(0)
    for _ in range(20):
        (decision,) = decide_contrasts(drawn(10 * sqrt(2) + sqrt(2) * rng.standard_normal((1, 20))), [None], LOOKS)
        assert decision.outcome == "different"
        assert decision.seeds <= 5


@pytest.mark.slow
def test_a_small_spread_around_no_difference_is_equivalent_within_the_margin():
    differences = 0.001 * np.random.default_rng(0).standard_normal((1, 20))
    (decision,) = decide_contrasts(drawn(differences), [0.1], LOOKS)
    assert decision.outcome == "equivalent"
    assert decision.seeds == 3
    last = decision.looks[-1]
    assert last.p_equivalent is not None
    assert last.level_equivalent is not None
    assert last.p_equivalent <= last.level_equivalent


@pytest.mark.slow
def test_a_difference_within_the_margin_is_equivalent_also_where_it_is_sure_to_be_there():
    differences = 0.05 + 0.00001 * np.random.default_rng(0).standard_normal((1, 20))
    (decision,) = decide_contrasts(drawn(differences), [0.1], LOOKS)
    assert decision.outcome == "equivalent"
    assert decision.looks[-1].p < decision.looks[-1].level


@pytest.mark.slow
def test_what_more_seeds_would_probably_not_decide_is_given_up_from_five_seeds_on():
    differences = np.tile([1.0, -1.0, 1.0, -1.0, 0.1], 4)[None]
    (decision,) = decide_contrasts(drawn(differences), [None], LOOKS)
    assert (decision.outcome, decision.seeds) == ("futile", 5)
    (decision,) = decide_contrasts(drawn(differences), [None], (3, 4))
    assert (decision.outcome, decision.seeds) == ("exhausted", 4)


def test_a_look_waits_until_every_open_contrast_has_its_runs():
    seen: dict[tuple[int, int], Sample] = {(0, 3): SAME, (1, 3): "missing"}
    decisions = decide_contrasts(lambda contrast, seeds: seen[contrast, seeds], [None, None], LOOKS)
    assert [decision.looks for decision in decisions] == [[], []]
    assert [decision.next_look for decision in decisions] == [3, 3]


@pytest.mark.slow
def test_a_diverged_run_ends_its_contrast_and_no_other():
    differences = 10 + np.random.default_rng(1).standard_normal((2, 20))
    both = drawn(differences)
    decisions = decide_contrasts(
        lambda i, seeds: "lost" if i == 1 and seeds >= 3 else both(i, seeds), [None, None], LOOKS
    )
    assert decisions[0].outcome == "different"
    assert outcomes(decisions)[1] == ("lost", 3)


def test_differences_that_cannot_be_tested_are_given_up_at_five_seeds():
    assert outcomes(decide_contrasts(lambda contrast, seeds: "untestable", [None], LOOKS)) == [("untestable", 5)]
    assert outcomes(decide_contrasts(lambda contrast, seeds: "untestable", [None], (3,))) == [("exhausted", 3)]


def test_a_decided_contrast_passes_its_level_on_at_the_same_look():
    half, full = look_levels(LOOKS, ALPHA / 2)[0], look_levels(LOOKS)[0]
    # t statistics of three pairs with given two-sided p-values
    from scipy.stats import t as student

    between = Estimate(float(student(2).isf((half + full) / 4)), 1.0, 3)  # p is above half and below full
    sure = Estimate(float(student(2).isf(half / 4)), 1.0, 3)
    alone = {0: SAME, 1: between}
    together = {0: sure, 1: between}
    waiting = [
        decide_contrasts(lambda i, n, s=s: s[i] if n == 3 else "missing", [None] * 2, LOOKS) for s in (alone, together)
    ]
    assert [d.outcome for d in waiting[0]] == ["open", "open"]
    assert [d.outcome for d in waiting[1]] == ["different", "different"]


def test_shares_are_never_larger_than_the_exact_ones():
    shares = [share_level(count) for count in range(1, 1000)]
    assert all(share <= ALPHA / count for count, share in enumerate(shares, 1))
    assert all(share > 0.6 * ALPHA / count for count, share in enumerate(shares, 1))
    assert len(set(shares)) < 30


@pytest.mark.slow
def test_a_verdict_depends_only_on_the_runs_up_to_its_look():
    rng = np.random.default_rng(7)
    for _ in range(8):
        differences = rng.choice([0.0, 1.0, 2.0], (3, 1)) + rng.standard_normal((3, 20))
        at_once = decide_contrasts(drawn(differences), [0.5, None, 2.0], LOOKS)
        for available in LOOKS:  # stopped there, and going on
            so_far = decide_contrasts(drawn(differences, available), [0.5, None, 2.0], LOOKS)
            for now, end in zip(so_far, at_once, strict=True):
                assert now.looks == end.looks[: len(now.looks)]
                assert now.outcome == ("open" if end.seeds > available else end.outcome)
                assert (now.next_look is not None) == (now.outcome == "open")


def test_only_arms_of_open_contrasts_get_more_seeds():
    differences = np.random.default_rng(3).standard_normal((2, 20)) + np.array([[30.0], [1.2]])
    decisions = decide_contrasts(drawn(differences, available=4), [None, None], LOOKS)
    assert [decision.outcome for decision in decisions] == ["different", "open"]
    needed = seeds_by_arm(["base", "far", "near", "alone"], [("far", "base"), ("near", "base")], decisions, 3)
    assert needed == {"base": 5, "far": decisions[0].seeds, "near": 5, "alone": 3}


@pytest.mark.slow
def test_the_contrasts_of_ten_thousand_runs_are_decided_in_five_seconds():
    rng = np.random.default_rng(3)
    differences = rng.choice([0.0, 0.5, 1.0, 2.0, 10.0], (499, 1)) + rng.standard_normal((499, 20))
    started = time.process_time()
    decide_contrasts(drawn(differences), [1.0] * 499, LOOKS)
    assert time.process_time() - started < 5


# ---- simulations: see tests/support/simulate_sequential.py

# Skewed differences are more than a t-test of few pairs bears: what docs/studies.md states.
ALLOWED = {"skewed_baseline": 0.07, "skewed_unsteady": 0.11, "collapsing": 0.41}
SOME = ("no difference, normal, 4", "at the margin of 1 sd, normal, 2", "no difference, diverging, 4", "by 10 sd, 10")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((1000, *SOME), id="some", marks=pytest.mark.slow),
        pytest.param((5000,), id="many", marks=pytest.mark.long),
    ],
)
def simulated(request: pytest.FixtureRequest) -> tuple[int, dict[str, dict[str, float]]]:
    """The number of studies of each setting, and what came out of them."""
    command = [sys.executable, "-m", "support.simulate_sequential", *map(str, request.param)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    return request.param[0], json.loads(done.stdout)["results"]


def test_errors_of_either_kind_are_in_at_most_5_of_100_studies_and_intervals_cover_95_of_100(
    simulated: tuple[int, dict[str, dict[str, float]]],
):
    studies, results = simulated
    chance = 3 * sqrt(0.05 * 0.95 / studies)
    for name, figures in results.items():
        allowed = next((level for noise, level in ALLOWED.items() if noise in name), ALPHA)
        assert figures["false"] <= allowed + chance, name
        assert figures["false_equivalent"] <= allowed + chance, name
        assert figures["covered"] >= 1 - allowed - chance, name


def test_the_design_is_not_much_too_strict_and_saves_most_seeds_where_the_answer_is_clear(
    simulated: tuple[int, dict[str, dict[str, float]]],
):
    _, results = simulated
    assert results["no difference, normal, 4 arms"]["false"] > 0.015
    assert results["at the margin of 1 sd, normal, 2 arms"]["false_equivalent"] > 0.015
    assert results["one differs by 10 sd, 10 arms"]["found"] > 0.99
    assert results["no difference, normal, 4 arms"]["seeds"] < 8  # of 20
