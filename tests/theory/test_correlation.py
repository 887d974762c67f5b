"""Circular correlation: its forms agree with NumPy, its derivatives with autograd and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from convolab.core.errors import LabError
from convolab.theory.correlation import (
    CircularCorrelation,
    convolve,
    correlate,
    correlate_circulant,
    correlate_direct,
    jacobian_x,
    jacobian_y,
    time_reverse,
)

FORMS = (correlate, correlate_direct, correlate_circulant)
LENGTHS = (1, 2, 3, 8, 13)
samples = st.floats(-1e3, 1e3, allow_subnormal=False)
pairs = hnp.array_shapes(max_dims=2, max_side=40).flatmap(
    lambda shape: st.tuples(*(hnp.arrays(np.float64, shape, elements=samples),) * 2)
)


def signals(n: int, count: int = 2, **options) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(n)
    return [torch.randn(n, dtype=torch.float64, generator=rng).requires_grad_(**options) for _ in range(count)]


@pytest.mark.slow
@given(pairs)
@settings(deadline=None, max_examples=40)
def test_the_three_forms_agree_with_the_spectra_of_numpy(pair) -> None:
    x, y = pair
    expected = np.fft.ifft(np.fft.fft(x).conj() * np.fft.fft(y)).real
    size = 1 + np.abs(x).max() * np.abs(y).max() * x.shape[-1]
    for form in FORMS:
        assert np.abs(form(torch.from_numpy(x), torch.from_numpy(y)).numpy() - expected).max() < 1e-12 * size


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_sum_of_the_definition(form, n) -> None:
    x, y = signals(n, requires_grad=False)
    expected = [math.fsum(float(x[i] * y[(i + k) % n]) for i in range(n)) for k in range(n)]
    assert torch.allclose(form(x, y), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.slow
@given(pairs)
@settings(deadline=None, max_examples=20)
def test_a_convolution_is_the_correlation_with_the_time_reversed_signal_and_commutes(pair) -> None:
    x, y = map(torch.from_numpy, pair)
    tolerance = 1e-12 * (1 + float(x.abs().max() * y.abs().max()) * x.shape[-1])
    assert (convolve(x, y) - correlate(time_reverse(x), y)).abs().max() <= tolerance
    assert (convolve(x, y) - convolve(y, x)).abs().max() <= tolerance
    assert (correlate(y, x) - time_reverse(correlate(x, y))).abs().max() <= tolerance


@pytest.mark.parametrize("n", LENGTHS)
def test_a_convolution_is_that_of_numpy_wrapped_around(n) -> None:
    x, y = signals(n, requires_grad=False)
    full = np.convolve(x.numpy(), y.numpy())  # 2n - 1 samples; those past n wrap around to 0
    circular = full[:n] + np.append(full[n:], np.zeros(1))
    assert np.abs(convolve(x, y).numpy() - circular).max() < 1e-13


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("form", FORMS)
def test_every_entry_of_both_jacobians_is_that_of_autograd(form, n) -> None:
    x, y = signals(n)
    wrt_x, wrt_y = torch.autograd.functional.jacobian(form, (x, y))
    assert (wrt_x - jacobian_x(y)).abs().max() < 1e-14
    assert (wrt_y - jacobian_y(x)).abs().max() < 1e-14
    for k in range(n):
        for i in range(n):
            assert jacobian_x(y)[k, i] == y[(i + k) % n]
            assert jacobian_y(x)[k, i] == x[(i - k) % n]


@pytest.mark.slow
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("function", [correlate, convolve])
def test_the_first_and_second_derivatives_are_right(function, n) -> None:
    pair = signals(n)
    assert gradcheck(function, pair)
    assert gradgradcheck(function, pair)


@pytest.mark.slow
def test_the_third_derivative_is_right_too() -> None:
    x, y = signals(5)

    def gradient_of_gradient(x, y):
        (first,) = torch.autograd.grad(correlate(x, y).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), y, create_graph=True)[0]

    assert gradcheck(gradient_of_gradient, (x, y))


def test_the_backward_pass_uses_ffts_and_no_matrix_products() -> None:
    x, y = (torch.randn(2**16, requires_grad=True) for _ in range(2))
    with torch.autograd.profiler.profile(with_stack=False) as profile:
        correlate(x, y).sum().backward()
    names = [event.name for event in profile.function_events]
    assert sum("_fft_r2c" in name for name in names) == 6  # two spectra of each of three products
    assert not any("matmul" in name or "aten::mm" in name for name in names)


@pytest.mark.slow
def test_batches_are_broadcast_and_their_gradients_are_summed() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(4, 1, 6, dtype=torch.float64, generator=rng),
        torch.randn(3, 6, dtype=torch.float64, generator=rng),
    )
    z = correlate(x, y)
    assert z.shape == (4, 3, 6)
    for b in range(4):
        for c in range(3):
            assert torch.allclose(z[b, c], correlate(x[b, 0], y[c]), rtol=0, atol=1e-14)
    assert gradcheck(correlate, (x.requires_grad_(), y.requires_grad_()))
    assert gradgradcheck(correlate, (x, y))


@pytest.mark.slow
def test_functional_transforms_work_through_the_backward_pass() -> None:
    x, y = signals(7, requires_grad=False)
    assert torch.allclose(torch.func.jacrev(correlate)(x, y), jacobian_x(y))
    hessian = torch.func.jacrev(torch.func.grad(lambda y: correlate(x, y).square().sum() / 2))(y)
    assert torch.allclose(hessian, jacobian_y(x).T @ jacobian_y(x))


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "kernel_size", "n"), [(1, 1, 1, 1), (2, 3, 3, 10), (3, 2, 5, 5), (4, 1, 4, 9)]
)
def test_the_layer_is_the_convolution_of_torch_on_circularly_padded_signals(
    in_channels, out_channels, kernel_size, n
) -> None:
    layer = CircularCorrelation(in_channels, out_channels, kernel_size).double()
    padded = nn.Conv1d(in_channels, out_channels, kernel_size, bias=False, dtype=torch.float64)
    padded.weight.data = layer.weight.data.clone()
    y = torch.randn(6, in_channels, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    ours, theirs = layer(y), padded(nn.functional.pad(y, (0, kernel_size - 1), mode="circular"))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-13)
    g = torch.randn(ours.shape, dtype=torch.float64)
    for ours_by, theirs_by in zip(
        torch.autograd.grad(ours, (layer.weight, y), g), torch.autograd.grad(theirs, (padded.weight, y), g), strict=True
    ):
        assert torch.allclose(ours_by, theirs_by, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_the_layer_passes_both_gradient_checks() -> None:
    layer = CircularCorrelation(2, 3, 3).double()
    y = torch.randn(4, 2, 5, dtype=torch.float64).requires_grad_()

    def call(weight, y):
        return torch.func.functional_call(layer, {"weight": weight}, (y,))

    assert gradcheck(call, (layer.weight, y))
    assert gradgradcheck(call, (layer.weight, y))


@pytest.mark.slow
def test_the_layer_learns_the_kernel_that_generated_the_signals() -> None:
    rng = torch.Generator().manual_seed(2)
    y, kernel = torch.randn(64, 1, 16, generator=rng), torch.randn(1, 1, 3, generator=rng)
    layer = CircularCorrelation(1, 1, 3)
    targets = torch.nn.functional.conv1d(torch.nn.functional.pad(y, (0, 2), mode="circular"), kernel)
    for _ in range(100):
        (gradient,) = torch.autograd.grad((layer(y) - targets).square().mean(), layer.weight)
        layer.weight.data -= 0.3 * gradient
    assert torch.allclose(layer.weight, kernel, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)]
)
def test_lower_precisions_keep_their_dtype_and_their_accuracy(dtype, tolerance) -> None:
    x, y = (
        torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(2)
    )
    expected = correlate(x.double(), y.double())
    for form in FORMS:
        z = form(x, y)
        assert z.dtype == dtype
        assert ((z.double() - expected) / expected).abs().max() < tolerance


@pytest.mark.slow
def test_half_precisions_are_summed_in_float32() -> None:
    ones = torch.ones(5000, dtype=torch.bfloat16)  # a running sum in bfloat16 would stop at 256
    for form in (correlate, correlate_circulant):
        assert form(ones, ones)[0] == 4992  # 5000, rounded to bfloat16


def test_two_precisions_give_the_higher_one_and_gradients_in_their_own() -> None:
    x, y = torch.rand(5, requires_grad=True), torch.rand(5, dtype=torch.float64, requires_grad=True)
    z = correlate(x, y)
    z.sum().backward()
    assert (z.dtype, x.grad.dtype, y.grad.dtype) == (torch.float64, torch.float32, torch.float64)


THREE_ONES = torch.ones(3)
INVALID_SIGNALS = [
    (torch.ones(0), torch.ones(0), "x is [0] and has no samples: give [..., n] with n >= 1"),
    (torch.tensor(1.0), THREE_ONES, "x is [] and has no samples"),
    (torch.ones(2), THREE_ONES, "x has 2 samples and y has 3: give both the same length"),
    (THREE_ONES, torch.tensor([1.0, math.nan, math.inf]), "y has 2 NaN or infinite samples"),
    (torch.ones(3, dtype=torch.complex64), THREE_ONES, "x has dtype complex64: give real floating-point signals"),
    (
        THREE_ONES,
        torch.ones(3, dtype=torch.int64),
        "y has dtype int64: give real floating-point signals, e.g. y.double()",
    ),
    (torch.ones(3, dtype=torch.bool), THREE_ONES, "x has dtype bool"),
    (torch.ones(2, 3), torch.ones(4, 3), "x is [2, 3] and y [4, 3]: give batches of the same shape"),
]


@pytest.mark.parametrize("form", [*FORMS, convolve])
@pytest.mark.parametrize(("x", "y", "message"), INVALID_SIGNALS)
def test_invalid_signals_are_refused_in_one_line(form, x, y, message) -> None:
    with pytest.raises(LabError) as caught:
        form(x, y)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (torch.ones(2, 5), r"the signals are \[2, 5\]: give \[batch, 2, n\]"),
        (torch.ones(1, 3, 5), r"the signals are \[1, 3, 5\]: give \[batch, 2, n\]"),
        (torch.ones(1, 2, 2), "the kernel has 3 samples and the signals have 2"),
        (torch.full((1, 2, 5), math.nan), "y has 10 NaN or infinite samples"),
    ],
)
def test_the_layer_refuses_signals_that_do_not_fit(signal, message) -> None:
    with pytest.raises(LabError, match=message):
        CircularCorrelation(2, 1, 3)(signal)


def test_a_layer_without_outputs_is_refused() -> None:
    with pytest.raises(LabError, match="give each at least 1"):
        CircularCorrelation(1, 0, 3)
