"""Question 1(b), answered and checked: circular cross-correlation and its Jacobians."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from convolab.core.rng import generator, own_global_generators, seed_global
from convolab.models import zoo
from convolab.theory import correlation
from convolab.theory.sheet import Answer, Formula, Picture, Text, check, table

TOLERANCE = 1e-12  # of sums of up to 300 products of numbers about 1, in float64
SMALL = 6  # samples of the signals whose Jacobians are drawn


@dataclass(frozen=True)
class Jacobians:
    """Which sample of the other signal stands in each entry: row k, column i."""

    of_x: list[list[int]]  # dz[k]/dx[i] is y[this]
    of_y: list[list[int]]  # dz[k]/dy[i] is x[this]


def answer(seed: int = 0) -> Answer:
    """Question 1(b); the signals of the checks are drawn by the seed."""
    return Answer(
        name="1(b)",
        question=r"Two signals $x$ and $y$ of $n$ samples have the circular cross-correlation "
        r"$z[k] = \sum_{i=0}^{n-1} x[i]\, y[(i+k) \bmod n]$. What are the derivatives of $z$ by $x$ and by $y$?",
        short=r"Each output is a sum of products, so its derivative by one factor is the other factor: that of $z[k]$ by $x[i]$ is "
        r"$y[(i+k) \bmod n]$, by $y[i]$ it is $x[(i-k) \bmod n]$. Both Jacobians hold nothing but turned copies of the other signal.",
        blocks=(
            Text(
                "**By $x$.** In the sum for $z[k]$ every $x[i]$ occurs once, and it is multiplied by $y[(i+k) \\bmod n]$. So"
            ),
            Formula(r"\frac{\partial z[k]}{\partial x[i]} = y[(i+k) \bmod n]"),
            Text(
                r"**By $y$.** Every $y[j]$ occurs once too, where $(i+k) \bmod n = j$: there $i = (j-k) \bmod n$, and the factor is "
                r"$x[(j-k) \bmod n]$. Calling the index $i$ again,"
            ),
            Formula(r"\frac{\partial z[k]}{\partial y[i]} = x[(i-k) \bmod n]"),
            Text(
                r"Written as matrices, with a row for each $z[k]$ and a column for each sample: $J_x$ has in each row $y$, turned one "
                r"step further to the left, so its anti-diagonals are constant (a Hankel matrix). $J_y$ has in each row $x$, turned one "
                r"step further to the right, so its diagonals are constant (a circulant matrix). As $z$ is linear in each of the two "
                r"signals, the matrices are also the way to calculate it: $z = J_x x = J_y y$."
            ),
            Picture(
                "jacobians",
                f"The Jacobians for n = {SMALL}: which sample stands in each entry. Equal samples have equal colours.",
                drawn(SMALL),
            ),
            check(
                "every entry of both Jacobians is what automatic differentiation of the definition gives",
                lambda: of_jacobians(seed),
            ),
            Text(
                r"**Three ways to calculate it.** The sum as it reads takes $n^2$ multiplications; the product with the circulant matrix "
                r"takes as many, and $n^2$ numbers of memory. The discrete Fourier transform $\mathcal{F}$ turns the sum into a product "
                r"at each frequency (the correlation theorem; the star is the complex conjugate), and a fast transform takes in the "
                r"order of $n\,\log\,n$ steps:"
            ),
            Formula(r"z = \mathcal{F}^{-1} ( \mathcal{F}(x)^{*} \cdot \mathcal{F}(y) )"),
            check("the direct sum, the circulant matrix and the FFT agree", lambda: of_forms(seed)),
            Text(
                r"**Backward pass.** A loss $L$ has the gradient $g[k] = \partial L / \partial z[k]$ at the output. By the chain rule it "
                r"is multiplied with the Jacobians from the left, and that is a correlation and a convolution again:"
            ),
            Formula(r"\frac{\partial L}{\partial x[i]} = \sum_{k=0}^{n-1} g[k]\, y[(i+k) \bmod n]"),
            Formula(r"\frac{\partial L}{\partial y[j]} = \sum_{k=0}^{n-1} g[k]\, x[(j-k) \bmod n]"),
            Text(
                "So the backward pass is done by FFT as well, no Jacobian is ever written down, and because it is made of the same "
                "two operations it can be differentiated in turn."
            ),
            check(
                "our backward pass by FFT passes torch's `gradcheck`, and its own derivative `gradgradcheck`",
                lambda: of_gradients(seed),
            ),
            Text(
                r"**What deep learning calls a convolution** is this correlation: `conv1d` multiplies a window of the signal with the "
                r"kernel as it lies, adds up over the input channels $c$, and does so for every output channel $o$ and every picture $b$ "
                r"of a batch. With a kernel $w$ of $m$ samples and circular padding,"
            ),
            Formula(r"z[b, o, k] = \sum_{c} \sum_{i=0}^{m-1} w[o, c, i]\, y[b, c, (i+k) \bmod n]"),
            check(
                "`nn.Conv1d` on circularly padded signals is our correlation over channels, forwards and backwards",
                lambda: of_conv1d(seed),
            ),
            Text(
                r"**A convolution is its mirror.** It runs through one signal backwards, $(x * y)[k] = \sum_i x[i]\, y[(k-i) \bmod n]$: "
                r"with the mirrored signal $\tilde{x}[i] = x[-i \bmod n]$ it is the correlation of $\tilde{x}$ with $y$. A convolution "
                r"does not mind the order of its signals; in a correlation, exchanging them mirrors the result. A network whose kernels "
                r"are learnt may use either, because it learns the kernel mirrored."
            ),
            check(
                "a convolution is the correlation with the mirrored signal: compared with `numpy.convolve`, wrapped around",
                lambda: of_mirror(seed),
            ),
            table(
                "Which numbers are taken",
                ("type", "what happens"),
                (
                    ("`float64`, `float32`", "calculated in that precision; of two, in the finer"),
                    ("`bfloat16`, `float16`", "summed in `float32`, rounded at the end"),
                    ("integers, booleans", "refused: an FFT would round them unasked"),
                    ("complex numbers", "refused: there $x$ would have to be conjugated first"),
                    ("no samples, different lengths, NaN, infinity", "refused"),
                ),
            ),
        ),
    )


def drawn(n: int) -> Jacobians:
    """The Jacobians of numbered samples, so that each entry says which sample it is."""
    numbers = torch.arange(n)
    return Jacobians(correlation.jacobian_x(numbers).tolist(), correlation.jacobian_y(numbers).tolist())


def lengths(seed: int, largest: int) -> list[int]:
    """1, 2, and three lengths drawn at random, in order."""
    drawn = torch.randint(3, largest + 1, (3,), generator=generator(seed, "lengths", largest)).tolist()
    return [1, 2, *sorted(drawn)]


def pair(seed: int, n: int) -> list[Float[Tensor, "n"]]:
    """Two random signals in float64, to be differentiated by."""
    draws = (generator(seed, "signal", name, n) for name in ("x", "y"))
    return [torch.randn(n, dtype=torch.float64, generator=draw).requires_grad_() for draw in draws]


def largest_over(sizes: list[int], difference: Callable[[int], float]) -> tuple[str, bool]:
    """What a check says that compares two ways for several lengths."""
    worst = max(difference(n) for n in sizes)
    return f"n = {', '.join(map(str, sizes))}: largest difference {worst:.1e}", worst <= TOLERANCE


def of_forms(seed: int) -> tuple[str, bool]:
    def difference(n: int) -> float:
        x, y = pair(seed, n)
        direct = correlation.correlate_directly(x, y)
        others = (correlation.correlate(x, y), correlation.correlate_by_matrix(x, y))
        return max((other - direct).abs().max().item() for other in others)

    return largest_over(lengths(seed, 300), difference)


def of_jacobians(seed: int) -> tuple[str, bool]:
    """The formulae against torch's derivative of the plain sum, and against our own backward pass."""

    def difference(n: int) -> float:
        x, y = pair(seed, n)
        ours = (correlation.jacobian_x(y), correlation.jacobian_y(x))
        found = [
            torch.autograd.functional.jacobian(form, (x, y))
            for form in (correlation.correlate_directly, correlation.correlate)
        ]
        return max((a - b).abs().max().item() for theirs in found for a, b in zip(ours, theirs, strict=True))

    sizes = lengths(seed, 60)
    said, holds = largest_over(sizes, difference)
    return f"{sum(2 * n * n for n in sizes):,} entries, {said}", holds


def of_gradients(seed: int) -> tuple[str, bool]:
    sizes = lengths(seed, 12)
    layer = layer_of(seed, 2, 3, 3)
    signals = torch.randn(2, 2, 5, dtype=torch.float64, generator=generator(seed, "signals")).requires_grad_()

    def call(weight: Tensor, y: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (y,))

    tried = [(correlation.correlate, pair(seed, n)) for n in sizes] + [(call, (layer.weight, signals))]
    with own_global_generators():  # gradgradcheck draws from the global one
        seed_global(torch.device("cpu"), seed, "gradients")
        passed = [test(function, inputs) for test in (gradcheck, gradgradcheck) for function, inputs in tried]
    return f"both passed for n = {', '.join(map(str, sizes))}, and for a layer of 2 x 3 channels", all(passed)


def of_conv1d(seed: int) -> tuple[str, bool]:
    batch, inputs, outputs, kernel, n = 4, 3, 5, 7, 50
    draw = generator(seed, "channels")
    signals = torch.randn(batch, inputs, n, dtype=torch.float64, generator=draw).requires_grad_()
    ours = layer_of(seed, inputs, outputs, kernel)
    theirs = nn.utils.skip_init(nn.Conv1d, inputs, outputs, kernel, bias=False, dtype=torch.float64)
    theirs.weight.data = ours.weight.data
    z = [ours(signals), theirs(nn.functional.pad(signals, (0, kernel - 1), mode="circular"))]
    g = torch.randn(z[0].shape, dtype=torch.float64, generator=draw)
    found = [
        (out, *torch.autograd.grad(out, (layer.weight, signals), g))
        for out, layer in zip(z, (ours, theirs), strict=True)
    ]
    worst = max((a - b).abs().max().item() for a, b in zip(*found, strict=True))
    size = f"{batch} signals of {inputs} channels and {n} samples, {outputs} kernels of {kernel}"
    return f"{size}: largest difference {worst:.1e}, of outputs and of both gradients", worst <= 100 * TOLERANCE


def layer_of(seed: int, inputs: int, outputs: int, kernel: int) -> correlation.CircularCorrelation:
    """A layer in float64, its weights drawn by the seed."""
    with own_global_generators():
        layer = correlation.CircularCorrelation(inputs, outputs, kernel)
        zoo.initialise(layer, seed)
    return layer.double()


def of_mirror(seed: int) -> tuple[str, bool]:
    def difference(n: int) -> float:
        x, y = (signal.detach() for signal in pair(seed, n))
        whole = np.convolve(x.numpy(), y.numpy())  # 2 n - 1 samples; those past n come in again at 0
        wrapped = torch.from_numpy(whole[:n] + np.append(whole[n:], 0.0))
        ours = (correlation.convolve(x, y), correlation.correlate(correlation.mirror(x), y))
        swapped = correlation.correlate(y, x) - correlation.mirror(correlation.correlate(x, y))
        return max(swapped.abs().max().item(), *((z - wrapped).abs().max().item() for z in ours))

    return largest_over(lengths(seed, 300), difference)
