"""The answers whose checks need no training: all checks pass, and a wrong formula fails its checks."""

import re

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convolab.core.errors import LabError
from convolab.theory import answer_correlation, answer_layers, answer_priors, correlation, equivariance, layers
from convolab.theory.layers import LayerSizes
from convolab.theory.sheet import Check, Heading, QuestionAnswer, SheetFigure, Table, Text, plain_text

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
        lambda n, maps, kernel_size, bias=False, outputs=None: original(n, maps, kernel_size + 2, bias, outputs),
    )
    failed = {c.claim.split(":")[0] for c in answer_layers.answer_question_1c(0).checks if not c.passed}
    assert {"parameters", "MACs"} <= failed


OTHER_HOMEWORKS = [
    LayerSizes(samples=64, maps=4, kernel_size=5, outputs=20),
    LayerSizes(samples=31, maps=6, kernel_size=7),
    LayerSizes(samples=16, maps=8, kernel_size=1, outputs=5),
]


@pytest.mark.parametrize("sizes", OTHER_HOMEWORKS)
def test_the_numbers_of_another_homework_are_those_of_the_layers_of_torch(sizes: LayerSizes) -> None:
    n, m = sizes.samples, sizes.kernel_size
    f = nn.Linear(n, sizes.num_outputs, bias=False)
    g = nn.Conv1d(1, sizes.maps, m, padding=m // 2, bias=False)
    expected = []
    for name, layer, signal in (("f", f, torch.ones(1, n)), ("g", g, torch.ones(1, 1, n))):
        with FlopCounterMode(display=False) as counter:
            outputs = layer(signal)[0]
        flops = counter.get_total_flops()
        num_parameters = sum(p.numel() for p in layer.parameters())
        shape = " x ".join(map(str, outputs.shape))
        format_outputs = f"{shape} = {outputs.numel():,}" if outputs.ndim > 1 else shape
        expected.append((f"${name}$", format_outputs, f"{num_parameters:,}", f"{flops // 2:,}", f"{flops:,}"))
    answer = answer_layers.answer_question_1c(0, sizes)
    table = next(block for block in answer.blocks if isinstance(block, Table) and "one input" in block.caption)
    assert list(table.rows) == expected
    assert all(check.passed for check in answer.checks)


def texts_of_answer(answer: QuestionAnswer) -> list[str]:
    """The question, the short answer, all prose, and the claims and results of the checks."""
    texts = [answer.question, answer.summary]
    for block in answer.blocks:
        match block:
            case Text(text) | Heading(text):
                texts.append(plain_text(text))
            case Check(claim, result):
                texts += [claim, result]
            case SheetFigure(_, caption):
                texts.append(caption)
            case _:
                pass
    return texts


def test_no_number_of_the_course_is_left_in_the_answer_of_another_homework() -> None:
    answer = answer_layers.answer_question_1c(0, OTHER_HOMEWORKS[0])
    numbers = {number for text in texts_of_answer(answer) for number in re.findall(r"[\d,]*\d", text)}
    assert {"64", "20", "4", "5", "256", "1,280"} <= numbers
    assert not numbers & {"100", "1,000", "1000", "10", "3", "30", "3,000", "2,980", "3,333", "33", "100,000"}


def test_the_comparison_says_more_fewer_or_equally_many_as_it_is() -> None:
    few_outputs = answer_layers.answer_question_1c(0, LayerSizes(samples=4, maps=2, kernel_size=1, outputs=1)).summary
    assert "takes 2 times as many MACs" in few_outputs
    assert "2 times fewer parameters" in few_outputs
    assert "takes equally many MACs" in answer_layers.answer_question_1c(0, OTHER_HOMEWORKS[0]).summary
    assert "33 times fewer MACs" in answer_layers.answer_question_1c(0).summary


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((100, 10, 4), "kernel size 4 is even: give an odd one"),
        ((100, 10, 101), "kernel size 101 is longer than the signal of 100 samples: give at most 100"),
        ((0,), "samples 0: give a whole number of at least 1"),
        ((100, -1), "maps -1: give a whole number of at least 1"),
        ((100, 10, 3, 0), "outputs 0: give a whole number of at least 1"),
        ((True,), "samples True: give a whole number"),
        ((10**9,), "the checks run it, so give at most 10,000,000"),
        ((100, 10, 3, 10**6), "a fully-connected layer of 100,000,000 weights"),
        ((3000, 1, 2999), "26,991,000,000 MACs to write the convolution as a matrix: give at most 2,000,000,000"),
    ],
)
def test_sizes_that_make_no_sense_are_refused_in_one_line(sizes: tuple, message: str) -> None:
    with pytest.raises(LabError, match=re.escape(message)) as caught:
        LayerSizes(*sizes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [1, 13, 0, -3, True])
def test_jacobians_that_cannot_be_read_on_a_page_are_refused(size: int) -> None:
    with pytest.raises(LabError, match="give 2 to 12 samples"):
        answer_correlation.answer_question_1b(0, size)


def test_each_part_begins_with_the_short_answer_and_ends_with_the_checks() -> None:
    for answer in (
        answer_correlation.answer_question_1b(0),
        answer_layers.answer_question_1c(0),
        answer_priors.answer_question_1a(0, None, None),
    ):
        assert 2 <= len(re.findall(r"\.(?: |$)", answer.summary)) <= 4
        assert answer.blocks[0] == Heading("Reasoning")
        checks_start = answer.blocks.index(Heading("Checks"))
        is_check = [isinstance(block, Check) for block in answer.blocks]
        assert not any(is_check[:checks_start])
        assert all(is_check[checks_start + 1 :])


def test_the_text_about_photos_says_what_was_measured() -> None:
    zero_padded, pooled, *_ = equivariance.compare_on_photos(0)
    assert zero_padded.on_photos.mean > zero_padded.on_random.mean
    assert pooled.on_photos.mean < pooled.on_random.mean
    (text,) = [t for t in texts_of_answer(answer_priors.answer_question_1a(0, None, None)) if t.startswith("Photos")]
    percentages = [f"{100 * i.mean:.0f} %" for i in (zero_padded.on_photos, zero_padded.on_random)]
    assert f"errs more on photos than on random pixels ({percentages[0]} against {percentages[1]})" in text
    assert f"in {zero_padded.num_larger_on_photos} of the draws" in text
    assert "Max pooling with stride 2 errs less on photos" in text


@pytest.mark.parametrize(("kernel_size", "reach"), [(1, "$x[k]$ alone"), (3, "$x[k-1]$ to $x[k+1]$"), (9, "$x[k+4]$")])
def test_the_example_of_locality_has_the_kernel_of_the_question(kernel_size: int, reach: str) -> None:
    answer = answer_priors.answer_question_1a(0, None, None, kernel_size)
    assert any(isinstance(block, Text) and reach in block.text for block in answer.blocks)


def test_the_jacobians_in_the_figure_are_those_of_the_formulas() -> None:
    indices = answer_correlation.jacobian_indices(4)
    assert indices.wrt_x == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    assert indices.wrt_y == [[0, 1, 2, 3], [3, 0, 1, 2], [2, 3, 0, 1], [1, 2, 3, 0]]


def test_the_cost_of_f_grows_quadratically_and_that_of_g_linearly() -> None:
    quadratic, fixed, linear = answer_layers.macs_by_length(LayerSizes())
    n, m = quadratic.lengths.index(100), quadratic.lengths.index(1000)
    assert [g.macs[m] / g.macs[n] for g in (quadratic, fixed, linear)] == [100, 10, 10]
    assert quadratic.macs[n] == fixed.macs[n]
    assert "10 n" in linear.layer
