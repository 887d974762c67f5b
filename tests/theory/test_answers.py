"""The answers whose checks need no training: all checks pass, and a wrong formula fails its checks."""

import pytest
import torch

from convolab.theory import answer_correlation, answer_layers, answer_priors, correlation, layers
from convolab.theory.sheet import Table, Text

pytestmark = pytest.mark.slow  # every answer runs its checks


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(
    "answer",
    [
        answer_correlation.answer_question_1b,
        answer_layers.answer_question_1c,
        lambda seed: answer_priors.answer_question_1a(seed, None, None),
    ],
)
def test_every_check_of_the_answers_passes_whatever_the_seed(answer, seed) -> None:
    state = torch.random.get_rng_state()
    checks = answer(seed).checks
    assert [c for c in checks if not c.passed] == []
    assert len(checks) >= 4
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_markup_of_the_answers_is_closed_and_their_tables_are_rectangular() -> None:
    for answer in (
        answer_correlation.answer_question_1b(0),
        answer_layers.answer_question_1c(0),
        answer_priors.answer_question_1a(0, None, None),
    ):
        for block in answer.blocks:
            if isinstance(block, Text):
                assert block.text.count("$") % 2 == block.text.count("**") % 2 == block.text.count("`") % 2 == 0
            if isinstance(block, Table):
                assert {len(row) for row in block.rows} == {len(block.headers)}


def off_by_one_jacobian(x):
    return x[..., (lambda n: (n[None] + n[:, None] + 1) % len(n))(torch.arange(x.shape[-1]))]


@pytest.mark.parametrize(
    ("name", "replacement", "failing"),
    [
        ("jacobian_x", off_by_one_jacobian, {"every entry"}),
        ("jacobian_y", lambda x: correlation.jacobian_x(x), {"every entry", "the direct sum"}),
        ("time_reverse", lambda x: x.flip(-1), {"a convolution"}),
        ("convolve", lambda x, y: correlation.correlate(x, y), {"a convolution"}),
        (
            "correlate",
            lambda x, y: correlation.correlate_direct(x, y).roll(1, -1),
            {"every entry", "the direct sum", "a convolution"},
        ),
    ],
)
def test_a_wrong_formula_fails_its_checks(monkeypatch, name, replacement, failing) -> None:
    monkeypatch.setattr(correlation, name, replacement)
    failed = [c.claim for c in answer_correlation.answer_question_1b(0).checks if not c.passed]
    assert {claim for claim in failed if claim.startswith(tuple(failing))} == set(failed)
    assert len(failed) == len(failing)


def test_a_wrong_backward_pass_fails_gradcheck(monkeypatch) -> None:
    original = correlation.SpectralProduct.backward

    def doubled(ctx, g):
        dx, dy, *rest = original(ctx, g)
        return dx * 2, dy, *rest

    monkeypatch.setattr(correlation.SpectralProduct, "backward", staticmethod(doubled))
    failed = [c for c in answer_correlation.answer_question_1b(0).checks if not c.passed]
    assert any("gradcheck" in c.claim and "raised an error" in c.result for c in failed)


def test_a_layer_with_another_cost_fails_the_checks(monkeypatch) -> None:
    original = layers.course_layers
    monkeypatch.setattr(
        layers,
        "course_layers",
        lambda n=100, features=10, kernel_size=3, bias=False: original(n, features, kernel_size + 2, bias),
    )
    failed = {c.claim.split(":")[0] for c in answer_layers.answer_question_1c(0).checks if not c.passed}
    assert {"parameters", "MACs"} <= failed


def test_the_numbers_of_1c_are_computed_and_not_constants(monkeypatch) -> None:
    monkeypatch.setattr(answer_layers, "FEATURES", 7)
    answer = answer_layers.answer_question_1c(0)
    assert all(c.passed for c in answer.checks)
    assert "70,000 parameters" in answer.summary
    assert "7 x 100 = 700, with 21 parameters and 2,100 MACs" in answer.summary


def test_the_jacobians_in_the_figure_are_those_of_the_formulas() -> None:
    indices = answer_correlation.jacobian_indices(4)
    assert indices.wrt_x == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    assert indices.wrt_y == [[0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1], [1, 2, 3, 0]]


def test_the_cost_of_f_grows_quadratically_and_that_of_g_linearly() -> None:
    quadratic, fixed, linear = answer_layers.macs_by_length()
    n, m = quadratic.lengths.index(100), quadratic.lengths.index(1000)
    assert [g.macs[m] / g.macs[n] for g in (quadratic, fixed, linear)] == [100, 10, 10]
    assert quadratic.macs[n] == fixed.macs[n]
    assert "10 n" in linear.layer
