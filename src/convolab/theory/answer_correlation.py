"""Question 1(b), answered and checked: circular cross-correlation and its Jacobians."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from convolab.core.errors import require
from convolab.core.rng import isolated_rng, make_generator, seed_default_generator
from convolab.models.registry import initialize_weights
from convolab.theory import correlation
from convolab.theory.sheet import (
    Check,
    ContentBlock,
    Formula,
    Heading,
    QuestionAnswer,
    SheetFigure,
    Text,
    run_sheet_check,
)

TOLERANCE = 1e-12  # absolute; sums of up to 300 products of numbers near 1, in float64
DEFAULT_JACOBIAN_SIZE = 6  # samples of the signals on the figure of the Jacobians
JACOBIAN_SIZES = range(2, 13)


@dataclass(frozen=True)
class JacobianIndices:
    """The sample of the other signal in each entry: row k, column i."""

    wrt_x: list[list[int]]  # dz[k]/dx[i] is y at this index
    wrt_y: list[list[int]]  # dz[k]/dy[i] is x at this index


def answer_question_1b(seed: int = 0, jacobian_size: int = DEFAULT_JACOBIAN_SIZE) -> QuestionAnswer:
    """Question 1(b), answered and checked.

    Args:
        seed: decides the signals of the checks.
        jacobian_size: the signal length n of the Jacobians on the figure.

    Returns:
        The answer.

    Raises:
        LabError: Jacobians of this size could not be read on the figure.
    """
    require_jacobian_size(jacobian_size)
    return QuestionAnswer(
        name="1(b)",
        question=question_1b(),
        summary="Each output is a sum of products, so its derivative by one factor is the other factor: "
        r"$\partial z[k] / \partial x[i] = y[(i+k) \bmod n]$ and $\partial z[k] / \partial y[i] = x[(i-k) \bmod n]$. "
        "Each row of either Jacobian is a circular shift of the other signal.",
        blocks=(
            Heading("Reasoning"),
            *derivative_blocks(jacobian_size),
            *computation_blocks(),
            *convolution_blocks(),
            Heading("Checks"),
            *correlation_checks(seed),
        ),
    )


def require_jacobian_size(size: int) -> None:
    """Raise LabError for Jacobians that could not be read on a page."""
    require(
        isinstance(size, int) and not isinstance(size, bool) and size in JACOBIAN_SIZES,
        f"Jacobians of size {size}: give {JACOBIAN_SIZES[0]} to {JACOBIAN_SIZES[-1]} samples, which can be read on a page",
    )


def question_1b() -> str:
    """The question."""
    return (
        "Two signals $x$ and $y$ of $n$ samples have the circular cross-correlation $z[k] = "
        r"\sum_{i=0}^{n-1} x[i]\, y[(i+k) \bmod n]$. What are the derivatives of $z$ with respect to $x$ and to $y$?"
    )


def derivative_blocks(jacobian_size: int) -> list[ContentBlock]:
    """Both derivatives, and both Jacobians."""
    return [
        Text(r"**By $x$.** In the sum for $z[k]$ every $x[i]$ occurs once, multiplied by $y[(i+k) \bmod n]$. So"),
        Formula(r"\frac{\partial z[k]}{\partial x[i]} = y[(i+k) \bmod n]"),
        Text(
            r"**By $y$.** Every $y[j]$ occurs once too, where $(i+k) \bmod n = j$: there $i = (j-k) \bmod n$, and "
            r"the factor is $x[(j-k) \bmod n]$. Renaming the index to $i$,"
        ),
        Formula(r"\frac{\partial z[k]}{\partial y[i]} = x[(i-k) \bmod n]"),
        Text(
            "Written as matrices, with a row for each $z[k]$ and a column for each sample: each row of $J_x$ is "
            "$y$, shifted one step further to the left, so its anti-diagonals are constant (a Hankel matrix). "
            "Each row of $J_y$ is $x$, shifted one step further to the right, so its diagonals are constant (a "
            "circulant matrix). As $z$ is linear in each of the two signals, the matrices also compute it: $z = "
            "J_x x = J_y y$."
        ),
        SheetFigure(
            "jacobians",
            f"The Jacobians for n = {jacobian_size}: the sample index of each entry; equal samples have equal colors.",
            jacobian_indices(jacobian_size),
        ),
    ]


def computation_blocks() -> list[ContentBlock]:
    """How the correlation and its backward pass are computed."""
    return [
        Text(
            "**Three ways to compute it.** The direct sum takes $n^2$ multiplications; the product with the "
            "circulant matrix takes as many, and memory for $n^2$ numbers. The discrete Fourier transform "
            r"$\mathcal{F}$ turns the sum into a product at each frequency (the correlation theorem for real "
            r"signals; the star is the complex conjugate), and a fast Fourier transform takes $O(n\,\log\,n)$ steps:"
        ),
        Formula(r"z = \mathcal{F}^{-1} ( \mathcal{F}(x)^{*} \cdot \mathcal{F}(y) )"),
        Text(
            r"**Backward pass.** A loss $L$ has the gradient $g[k] = \partial L / \partial z[k]$ at the output. "
            "By the chain rule it is multiplied by the Jacobians from the left, and that is a correlation and a "
            "convolution again:"
        ),
        Formula(r"\frac{\partial L}{\partial x[i]} = \sum_{k=0}^{n-1} g[k]\, y[(i+k) \bmod n]"),
        Formula(r"\frac{\partial L}{\partial y[j]} = \sum_{k=0}^{n-1} g[k]\, x[(j-k) \bmod n]"),
        Text(
            "So the backward pass is done by FFT as well, no Jacobian is ever formed, and because it is made of "
            "the same two operations it can itself be differentiated."
        ),
    ]


def convolution_blocks() -> list[ContentBlock]:
    """What deep learning and what mathematics call a convolution."""
    return [
        Text(
            "**What deep learning calls a convolution** is this correlation: `conv1d` multiplies a window of the "
            "signal with the kernel (not reversed), sums over the input channels $c$, and does so for every "
            "output channel $o$ and every signal $b$ of a batch. With a kernel $w$ of $m$ samples and circular "
            "padding,"
        ),
        Formula(r"z[b, o, k] = \sum_{c} \sum_{i=0}^{m-1} w[o, c, i]\, y[b, c, (i+k) \bmod n]"),
        Text(
            "**Convolution is correlation with a time-reversed signal.** It runs through one signal backwards, "
            r"$(x * y)[k] = \sum_i x[i]\, y[(k-i) \bmod n]$: with the reversed signal $\tilde{x}[i] = x[-i \bmod "
            r"n]$ it is the correlation of $\tilde{x}$ with $y$. A convolution is commutative; in a correlation, "
            "exchanging the signals reverses the result in time. A network that learns its kernels may use "
            "either, because it simply learns the reversed kernel."
        ),
    ]


def correlation_checks(seed: int) -> list[Check]:
    """The checks of the formulas above."""
    return [
        run_sheet_check(
            "every entry of both Jacobians equals automatic differentiation of the definition",
            lambda: check_jacobians(seed),
        ),
        run_sheet_check("the direct sum, the circulant matrix and the FFT agree", lambda: check_forms_agree(seed)),
        run_sheet_check(
            "our backward pass by FFT passes torch's `gradcheck`, and its own derivative `gradgradcheck`",
            lambda: check_gradients(seed),
        ),
        run_sheet_check(
            "`nn.Conv1d` on circularly padded signals is our correlation over channels, forward and backward",
            lambda: check_conv1d_equivalence(seed),
        ),
        run_sheet_check(
            "a convolution is the correlation with the time-reversed signal: compared with `numpy.convolve`, made "
            "circular",
            lambda: check_time_reversal(seed),
        ),
    ]


def jacobian_indices(n: int) -> JacobianIndices:
    """The Jacobians of numbered samples, so that each entry says which sample it is."""
    sample_indices = torch.arange(n)
    return JacobianIndices(
        correlation.jacobian_x(sample_indices).tolist(), correlation.jacobian_y(sample_indices).tolist()
    )


def random_lengths(seed: int, max_length: int) -> list[int]:
    """1, 2, and three random lengths up to `max_length`, in order."""
    random_part = torch.randint(3, max_length + 1, (3,), generator=make_generator(seed, "lengths", max_length)).tolist()
    return [1, 2, *sorted(random_part)]


def random_signal_pair(seed: int, n: int) -> list[Float[Tensor, "n"]]:
    """Two random signals in float64 that require a gradient."""
    generators = (make_generator(seed, "signal", name, n) for name in ("x", "y"))
    return [torch.randn(n, dtype=torch.float64, generator=rng).requires_grad_() for rng in generators]


def compare_over_lengths(signal_lengths: list[int], max_difference: Callable[[int], float]) -> tuple[str, bool]:
    """The result of a check that compares two ways to compute the same numbers, for several lengths."""
    worst = max(max_difference(n) for n in signal_lengths)
    return f"n = {', '.join(map(str, signal_lengths))}: largest difference {worst:.1e}", worst <= TOLERANCE


def check_forms_agree(seed: int) -> tuple[str, bool]:
    def max_difference(n: int) -> float:
        x, y = random_signal_pair(seed, n)
        direct = correlation.correlate_direct(x, y)
        others = (correlation.correlate(x, y), correlation.correlate_circulant(x, y))
        return max((other - direct).abs().max().item() for other in others)

    return compare_over_lengths(random_lengths(seed, 300), max_difference)


def check_jacobians(seed: int) -> tuple[str, bool]:
    """Compare the formulas with torch's derivative of the direct sum, and with our own backward pass."""

    def max_difference(n: int) -> float:
        x, y = random_signal_pair(seed, n)
        ours = (correlation.jacobian_x(y), correlation.jacobian_y(x))
        computed = [
            torch.autograd.functional.jacobian(form, (x, y))
            for form in (correlation.correlate_direct, correlation.correlate)
        ]
        return max((a - b).abs().max().item() for reference in computed for a, b in zip(ours, reference, strict=True))

    signal_lengths = random_lengths(seed, 60)
    comparison, passed = compare_over_lengths(signal_lengths, max_difference)
    return f"{sum(2 * n * n for n in signal_lengths):,} entries, {comparison}", passed


def check_gradients(seed: int) -> tuple[str, bool]:
    signal_lengths = random_lengths(seed, 12)
    layer = seeded_correlation_layer(seed, 2, 3, 3)
    signals = torch.randn(2, 2, 5, dtype=torch.float64, generator=make_generator(seed, "signals")).requires_grad_()

    def call_layer(weight: Tensor, y: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (y,))

    functions_and_inputs = [
        *((correlation.correlate, random_signal_pair(seed, n)) for n in signal_lengths),
        (call_layer, (layer.weight, signals)),
    ]
    with isolated_rng():  # gradgradcheck draws from the global generator
        seed_default_generator(torch.device("cpu"), seed, "gradients")
        results = [
            test(function, inputs) for test in (gradcheck, gradgradcheck) for function, inputs in functions_and_inputs
        ]
    return f"both passed for n = {', '.join(map(str, signal_lengths))}, and for a layer of 2 x 3 channels", all(results)


def check_conv1d_equivalence(seed: int) -> tuple[str, bool]:
    batch, in_channels, out_channels, kernel_size, n = 4, 3, 5, 7, 50
    rng = make_generator(seed, "channels")
    signals = torch.randn(batch, in_channels, n, dtype=torch.float64, generator=rng).requires_grad_()
    ours = seeded_correlation_layer(seed, in_channels, out_channels, kernel_size)
    with torch.device("meta"):  # its own weights are never initialized
        theirs = nn.Conv1d(in_channels, out_channels, kernel_size, bias=False)
    theirs.weight = nn.Parameter(ours.weight.data.clone())
    z = [ours(signals), theirs(nn.functional.pad(signals, (0, kernel_size - 1), mode="circular"))]
    g = torch.randn(z[0].shape, dtype=torch.float64, generator=rng)
    weights = (ours.weight, theirs.weight)
    outputs_and_gradients = [
        (out, *torch.autograd.grad([out], [weight, signals], [g])) for out, weight in zip(z, weights, strict=True)
    ]
    worst = max((a - b).abs().max().item() for a, b in zip(*outputs_and_gradients, strict=True))
    description = f"{batch} signals of {in_channels} channels and {n} samples, {out_channels} kernels of {kernel_size}"
    return f"{description}: largest difference {worst:.1e}, of outputs and of both gradients", worst <= 100 * TOLERANCE


def seeded_correlation_layer(
    seed: int, in_channels: int, out_channels: int, kernel_size: int
) -> correlation.CircularCorrelation:
    """A layer in float64; the seed decides its weights."""
    with isolated_rng():
        layer = correlation.CircularCorrelation(in_channels, out_channels, kernel_size)
        initialize_weights(layer, seed)
    return layer.double()


def check_time_reversal(seed: int) -> tuple[str, bool]:
    def max_difference(n: int) -> float:
        x, y = (signal.detach() for signal in random_signal_pair(seed, n))
        full_convolution = np.convolve(x.numpy(), y.numpy())  # 2 n - 1 samples; those past n wrap around to 0
        circular_convolution = torch.from_numpy(full_convolution[:n] + np.append(full_convolution[n:], 0.0))
        ours = (correlation.convolve(x, y), correlation.correlate(correlation.time_reverse(x), y))
        swapped = correlation.correlate(y, x) - correlation.time_reverse(correlation.correlate(x, y))
        return max(swapped.abs().max().item(), *((z - circular_convolution).abs().max().item() for z in ours))

    return compare_over_lengths(random_lengths(seed, 300), max_difference)
