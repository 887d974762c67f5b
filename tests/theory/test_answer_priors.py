"""The answer to question 1(a): its checks fail if the results contradict them."""

import pytest

from convolab.data.catalog import load
from convolab.theory import answer_priors
from convolab.theory.arrangements import AS_IS, BLOCKS, PERMUTED, PriorsConfig
from convolab.theory.priors import CONVNET, FULLY_CONNECTED, PriorsResult, PriorsTrial
from convolab.theory.sheet import Check

CONFIG = PriorsConfig(num_seeds=3)


def make_result(convnet: list[float], fully_connected: list[float], permuted: list[float]) -> PriorsResult:
    accuracies = {
        (AS_IS, CONVNET): convnet,
        (AS_IS, FULLY_CONNECTED): fully_connected,
        (PERMUTED, CONVNET): permuted,
        (PERMUTED, FULLY_CONNECTED): fully_connected,
    }
    accuracies |= {(BLOCKS, CONVNET): permuted, (BLOCKS, FULLY_CONNECTED): fully_connected}
    trials = [
        PriorsTrial(a, n, seed, 10, 1.0, value)
        for (a, n), values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return PriorsResult(CONFIG, "synthetic", 10, tuple(trials))


def test_results_in_which_the_convnet_keeps_its_lead_fail_the_checks() -> None:
    keeps_lead = make_result([0.9, 0.91, 0.92], [0.5, 0.51, 0.5], [0.9, 0.9, 0.91])
    assert answer_priors.check_convnet_lead(keeps_lead)[1]
    assert not answer_priors.check_permutation_removes_lead(keeps_lead)[1]
    loses_lead = make_result([0.9, 0.91, 0.92], [0.5, 0.51, 0.5], [0.5, 0.5, 0.51])
    assert answer_priors.check_permutation_removes_lead(loses_lead)[1]
    assert answer_priors.check_block_shifts_reduce_lead(loses_lead)[1]


def test_digits_on_a_canvas_are_not_called_the_original_images(monkeypatch: pytest.MonkeyPatch) -> None:
    claims: list[str] = []
    monkeypatch.setattr(answer_priors, "run_sheet_check", lambda claim, check: Check(claim, "", passed=True))
    for config in (CONFIG, PriorsConfig(num_seeds=3, canvas_size=None)):
        checks = answer_priors.experiment_checks(PriorsResult(config, "synthetic", 10, ()), load("digits"))
        claims += [check.claim for check in checks]
    on_canvas, as_they_are = (claim for claim in claims if claim.endswith("the convnet is more accurate"))
    assert "on the images on their canvas of 16 x 16 pixels" in on_canvas
    assert as_they_are.startswith("on the original images")


def test_an_insignificant_lead_and_a_changed_fully_connected_network_fail_the_checks() -> None:
    no_lead = make_result([0.5, 0.6, 0.4], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert not answer_priors.check_convnet_lead(no_lead)[1]
    unchanged = make_result([0.9, 0.91, 0.92], [0.5, 0.51, 0.5], [0.5, 0.5, 0.5])
    trials = [
        t
        if (t.arrangement, t.network) != (PERMUTED, FULLY_CONNECTED)
        else PriorsTrial(PERMUTED, FULLY_CONNECTED, t.seed, 10, 1.0, 0.4)
        for t in unchanged.trials
    ]
    assert answer_priors.check_fully_connected_unchanged(unchanged)[1]
    changed = PriorsResult(CONFIG, "synthetic", 10, tuple(trials))
    assert not answer_priors.check_fully_connected_unchanged(changed)[1]
