"""Two signals that slide: against the definition, against autograd, and against torch's own convolution."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from convolab.core.errors import LabError
from convolab.theory.correlation import correlate, jacobian_x, jacobian_y
from convolab.theory.sliding import parse_samples, slide_correlation

PADDINGS = ("circular", "zeros")


def by_definition(x: list[float], y: list[float], padding: str, stride: int) -> list[float]:
    n = len(x)
    at = {"circular": lambda j: y[j % n], "zeros": lambda j: y[j] if j < n else 0.0}[padding]
    return [sum(x[i] * at(i + k) for i in range(n)) for k in range(0, n, stride)]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_z_is_its_definition_and_the_jacobians_are_those_of_autograd(padding: str, stride: int) -> None:
    for n in (1, 5, 12):
        x, y = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        if stride > n:
            continue
        sliding = slide_correlation(x.tolist(), y.tolist(), padding=padding, stride=stride)
        assert sliding.z.tolist() == pytest.approx(by_definition(x.tolist(), y.tolist(), padding, stride), abs=1e-12)
        by_x, by_y = torch.autograd.functional.jacobian(
            lambda a, b, padding=padding: slide_correlation(a, b, padding=padding, stride=stride).z, (x, y)
        )
        torch.testing.assert_close(sliding.jacobian_x, by_x, atol=1e-12, rtol=0)
        torch.testing.assert_close(sliding.jacobian_y, by_y, atol=1e-12, rtol=0)


def test_without_stride_it_is_the_circular_correlation_and_with_zeros_that_of_torch() -> None:
    x, y = torch.randn(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    circular = slide_correlation(x, y)
    assert torch.equal(circular.z, correlate(x, y))
    assert torch.equal(circular.jacobian_x, jacobian_x(y))
    assert torch.equal(circular.jacobian_y, jacobian_y(x))
    by_torch = F.conv1d(F.pad(y, (0, 8))[None, None], x[None, None], stride=2)[0, 0]
    torch.testing.assert_close(slide_correlation(x, y, padding="zeros", stride=2).z, by_torch, atol=1e-12, rtol=0)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 11), st.sampled_from(PADDINGS), st.integers(0, 99))
def test_z_only_shifts_exactly_when_padding_is_circular_and_the_shift_is_whole_cells(
    n: int, stride: int, shift: int, padding: str, seed: int
) -> None:
    stride, shift = min(stride, n), shift % n
    x, y = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    measured = slide_correlation(x, y, padding=padding, stride=stride).measure_shift(shift)
    is_equivariant = n % stride == 0 and shift % stride == 0 and padding == "circular"
    assert measured.only_shifts == (is_equivariant or shift == 0 or (stride == n and shift % n == 0))


def test_the_difference_is_that_of_a_case_done_by_hand() -> None:
    # x = 1 0 0 0 and y = 1 2 3 4 with zeros: z = 1 2 3 4; of 0 1 0 0 it is 2 3 4 0, where 2 3 4 1 was expected.
    measured = slide_correlation([1, 0, 0, 0], [1, 2, 3, 4], padding="zeros").measure_shift(1)
    assert (measured.output_shift, measured.difference, measured.only_shifts) == (1, pytest.approx(1), False)
    assert measured.relative_difference == pytest.approx(1 / 5**0.5)
    constant = slide_correlation([1, 1, 1, 1], [1, 2, 3, 4]).measure_shift(1)
    assert (constant.relative_difference, constant.only_shifts) == (None, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "x has 0 samples: give from 1 to 500"),
        (([1, 2], [1, 2, 3]), "x has 2 samples and y has 3"),
        (([1.0] * 501, [1.0] * 501), "x has 501 samples"),
        (([float("nan"), 1], [1, 2]), "x has 1 NaN or infinite samples"),
        (([1, 2], [1, 2], "mirror"), "padding 'mirror': give circular or zeros"),
        (([1, 2], [1, 2], "zeros", 3), "stride 3: give 1 to 2"),
    ],
)
def test_signals_that_cannot_slide_are_refused_in_one_line(arguments: tuple, message: str) -> None:
    x, y, padding, stride = (*arguments, *("circular", 1)[len(arguments) - 2 :])
    with pytest.raises(LabError, match="^" + re.escape(message)) as caught:
        slide_correlation(x, y, padding=padding, stride=stride)
    assert "\n" not in str(caught.value)


def test_a_shift_longer_than_the_signal_is_refused() -> None:
    with pytest.raises(LabError, match="a shift by 4: give 0 to 3, as x has 4 samples"):
        slide_correlation([1, 2, 3, 4], [1, 2, 3, 4]).measure_shift(4)


@pytest.mark.parametrize(
    "text",
    ["", "1,,2", "1 2", "nan", "inf", "1e999999999", "0x10", "1/2/3", "1/0", "１", "1" * 12, "__import__('os')", "1;2"],
)
def test_what_is_no_number_is_named(text: str) -> None:
    with pytest.raises(LabError, match=r"in x (is not a number|divides by 0)"):
        parse_samples(text, "x")


def test_fractions_and_decimals_are_read_exactly() -> None:
    assert parse_samples(" 1/3 ,-.5, +2., -4/8,007") == [1 / 3, -0.5, 2.0, -0.5, 7.0]
    with pytest.raises(LabError, match="the signal has 501 samples"):
        parse_samples(",".join(["1"] * 501))
