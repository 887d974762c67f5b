"""Question 1(c), answered and checked: what a fully-connected and a convolutional layer cost. No number here is typed in."""

from dataclasses import dataclass

import torch
from torch import nn

from convolab.core.rng import own_global_generators
from convolab.models import zoo
from convolab.theory import layers
from convolab.theory.layers import Cost
from convolab.theory.sheet import Answer, Formula, Picture, Table, Text, check, table

N, FEATURES, KERNEL = 100, 10, 3  # the question's
GROWN = (  # (length, features, kernel): each of the three grown on its own, then all together
    (100, 10, 3),
    (200, 10, 3),
    (400, 10, 3),
    (1_000, 10, 3),
    (10_000, 10, 3),
    (100, 20, 3),
    (100, 40, 3),
    (100, 10, 5),
    (100, 10, 9),
    (100, 10, 99),
    (10_000, 40, 9),
)
LENGTHS = (10, 30, 100, 300, 1_000, 3_000, 10_000)  # of the picture


@dataclass(frozen=True)
class Growth:
    """MACs against the input's length, for the picture."""

    layer: str
    lengths: tuple[int, ...]
    macs: tuple[int, ...]


@dataclass(frozen=True)
class Matrices:
    """Two layers as matrices of which weight stands where: -1 where there is none."""

    connected: list[list[int]]
    convolution: list[list[int]]
    n: int
    features: int


def answer(seed: int = 0) -> Answer:
    """Question 1(c); the weights of the checks are drawn by the seed."""
    f, g = layers.course_layers(N, FEATURES, KERNEL)
    of_f, of_g = (layers.cost(layer, N) for layer in (f, g))
    nonzero = layers.products(g, N, padding=0.0)
    return Answer(
        name="1(c)",
        question=rf"$f$ is a fully-connected layer from {N} to {f.out_features:,} values, $g$ a convolution from 1 channel to "
        rf"{FEATURES} with kernels of {KERNEL} samples, padding {KERNEL // 2} and stride 1, both without bias, on a signal of "
        rf"$n = {N}$ samples. How large are their outputs, how many parameters do they have, and how many MACs do they take?",
        short=f"f gives {f.out_features:,} values, with {of_f.parameters:,} parameters and {of_f.macs:,} MACs; g gives {shape(of_g)}, "
        f"with {of_g.parameters} parameters and {of_g.macs:,} MACs. Equally large outputs, {of_f.parameters // of_g.parameters:,} times "
        f"fewer parameters, {of_f.macs // of_g.macs} times fewer MACs.",
        blocks=(
            Formula(rf"f(x) = \sigma(W x), \quad W \in \mathbb{{R}}^{{{f.out_features} \times {N}}}"),
            Formula(
                rf"g(x)[c, k] = \sigma ( \sum_{{i=0}}^{{{KERNEL - 1}}} w[c, i]\, x[k + i - {KERNEL // 2}] ), "
                rf"\quad w \in \mathbb{{R}}^{{{FEATURES} \times {KERNEL}}}"
            ),
            Text(
                rf"where $x$ is 0 outside its samples. An output of $g$ has $n + 2 p - m + 1 = {N} + {2 * (KERNEL // 2)} - {KERNEL} + 1 "
                rf"= {N}$ places for a kernel of $m = {KERNEL}$ and a padding of $p = {KERNEL // 2}$, for each of the {FEATURES} channels."
            ),
            Text(
                r"**Parameters.** $f$ has a weight for every pair of an input and an output. $g$ has one for every channel and every "
                r"sample of the kernel: all places share them, so the length of the signal does not count."
            ),
            Text(
                r"**MACs.** The convention: a MAC is a multiplication of a weight with an input, and the addition that goes with it. "
                r"Products with the zeros of the padding count, because the layer does them; biases and $\sigma$ do not. Each output "
                rf"of $f$ takes ${N}$ of them, each output of $g$ takes ${KERNEL}$. A FLOP count is twice the MACs."
            ),
            table(
                "What one input costs",
                ("", "outputs", "parameters", "MACs", "FLOPs"),
                [
                    [name, shape(cost), f"{cost.parameters:,}", f"{cost.macs:,}", f"{cost.flops:,}"]
                    for name, cost in (("$f$", of_f), ("$g$", of_g))
                ],
            ),
            check(
                "outputs: the layers, made with weights and run on a signal, give as many values as the formulae say",
                lambda: of_outputs(seed),
            ),
            check(
                f"parameters: counted in the layers, $f$ has ${FEATURES} n^2$ and $g$ has ${FEATURES} m$",
                lambda: of_parameters(of_f, of_g),
            ),
            check(
                "MACs: torch's own count, and a run with all weights and inputs 1, where every product adds 1, give the formulae's numbers",
                of_macs,
            ),
            Text(
                f"**Other conventions** give other numbers for the same layers, so a number of operations says little without its "
                f"convention. A sum of $m$ products takes $m - 1$ additions, and a bias one more, an activation one evaluation for each "
                f"output. Leaving out the products with the padding's zeros, $g$ takes {nonzero:,} multiplications rather than "
                f"{of_g.macs:,}."
            ),
            variants(),
            Text(
                r"**$g$ is an $f$ with most weights 0 and the others shared.** A convolution is a linear map, so it can be written as "
                r"the matrix of a fully-connected layer: locality makes it a band, stationarity makes every diagonal constant. What $g$ "
                r"saves is what these two assumptions, question 1(a), take away from $f$."
            ),
            Picture(
                "matrices",
                "Both layers as matrices, for n = 12, 2 features and kernels of 3: each colour is a weight of its own, white is 0.",
                matrices(12, 2, KERNEL),
            ),
            check(
                "$g$, written as a matrix, has few entries that are not 0, and fewer different ones; $f$ with these weights is $g$",
                lambda: of_matrix(seed),
            ),
            Text(
                r"**When they grow.** With $q$ features for each sample, $f$ takes $q n^2$ weights and as many MACs. $g$ takes $q m$ "
                r"weights whatever the length, and $q m n$ MACs. Twice the length makes $f$ four times as expensive and $g$ twice."
            ),
            grown(),
            Picture("growth", "MACs against the length of the input, both axes logarithmic.", growth()),
        ),
    )


def shape(cost: Cost) -> str:
    """The outputs as `10 x 100 = 1,000`."""
    values = f"{cost.activations:,}"
    return values if len(cost.outputs) == 1 else f"{' x '.join(f'{side:,}' for side in cost.outputs)} = {values}"


def variants() -> Table:
    """The same layers under other conventions."""
    rows = []
    for bias in (False, True):
        for name, layer in zip("fg", layers.course_layers(N, FEATURES, KERNEL, bias), strict=True):
            cost = layers.cost(layer, N)
            numbers = (
                cost.parameters,
                cost.macs,
                cost.additions,
                cost.operations,
                cost.operations + cost.activations,
                cost.flops,
            )
            rows.append([f"${name}$ {'with' if bias else 'without'} bias", *(f"{number:,}" for number in numbers)])
    headings = (
        "",
        "parameters",
        "multiplications = MACs",
        "additions",
        "both",
        "both, and $\\sigma$",
        "FLOPs = 2 x MACs",
    )
    return table("The same layers, counted in other ways", headings, rows)


def grown() -> Table:
    """What becomes of both when the signal, the features or the kernel grow."""
    rows = []
    for n, features, kernel in GROWN:
        f, g = (layers.cost(layer, n) for layer in layers.course_layers(n, features, kernel))
        rows.append(
            [
                *(f"{v:,}" for v in (n, features, kernel, f.parameters, g.parameters, f.macs, g.macs)),
                f"{f.macs / g.macs:,.0f}",
            ]
        )
    headings = ("$n$", "features", "kernel", "parameters of $f$", "of $g$", "MACs of $f$", "of $g$", "$f$ to $g$")
    return table("Growing the signal, the features and the kernel", headings, rows)


def growth() -> tuple[Growth, ...]:
    """MACs against the length: f with as many outputs as g, f with the question's number of outputs, and g."""
    found = {
        name: [] for name in (f"f, {FEATURES} n outputs", f"f, {FEATURES * N:,} outputs", f"g, {FEATURES} n outputs")
    }
    for n in LENGTHS:
        f, g = layers.course_layers(n, FEATURES, KERNEL)
        with torch.device("meta"):
            fixed = nn.Linear(n, FEATURES * N, bias=False)
        for macs, layer in zip(found.values(), (f, fixed, g), strict=True):
            macs.append(layers.cost(layer, n).macs)
    return tuple(Growth(name, LENGTHS, tuple(macs)) for name, macs in found.items())


def matrices(n: int, features: int, kernel: int) -> Matrices:
    """Which weight stands in each entry, found by numbering the weights from 1 and writing the convolution as a matrix."""
    g = nn.utils.skip_init(nn.Conv1d, 1, features, kernel, padding=kernel // 2, bias=False, dtype=torch.float64)
    g.weight.data = torch.arange(1.0, features * kernel + 1, dtype=torch.float64).view(g.weight.shape)
    numbers = torch.arange(features * n * n).view(features * n, n)
    return Matrices(numbers.tolist(), (layers.as_matrix(g, n).long() - 1).tolist(), n, features)


def with_weights(seed: int) -> tuple[nn.Linear, nn.Conv1d]:
    """The question's layers with weights, in float64."""
    f, g = (layer.to_empty(device="cpu").double() for layer in layers.course_layers(N, FEATURES, KERNEL))
    with own_global_generators():
        zoo.initialise(nn.ModuleList([f, g]), seed)
    return f, g


def of_outputs(seed: int) -> tuple[str, bool]:
    f, g = with_weights(seed)
    x = torch.ones(1, N, dtype=torch.float64)
    outputs = tuple(f(x).shape[1:]), tuple(g(x[None]).shape[1:])
    return f"f: {list(outputs[0])}, g: {list(outputs[1])}", outputs == (
        (FEATURES * N,),
        (FEATURES, N + 2 * (KERNEL // 2) - KERNEL + 1),
    )


def of_parameters(of_f: Cost, of_g: Cost) -> tuple[str, bool]:
    counted = (of_f.parameters, of_g.parameters)
    return f"f: {counted[0]:,}, g: {counted[1]:,}", counted == (FEATURES * N * N, FEATURES * KERNEL)


def of_macs() -> tuple[str, bool]:
    f, g = layers.course_layers(N, FEATURES, KERNEL)
    torchs = [layers.cost(layer, N).macs for layer in (f, g)]
    ours = [layers.products(layer, N) for layer in (f, g)]
    said = f"torch: {torchs[0]:,} and {torchs[1]:,}; by the run: {ours[0]:,} and {ours[1]:,}"
    return said, torchs == ours == [FEATURES * N * N, FEATURES * N * KERNEL]


def of_matrix(seed: int) -> tuple[str, bool]:
    f, g = with_weights(seed)
    matrix = layers.as_matrix(g, N)
    f.weight.data = matrix
    x = torch.linspace(-1, 1, N, dtype=torch.float64)[None]
    difference = (f(x).view(FEATURES, N) - g(x[None])[0]).abs().max().item()
    entries, different = matrix.numel(), matrix[matrix != 0]
    counts = f"of {entries:,} entries {len(different):,} are not 0, {len(different.unique())} of them different"
    said = f"{counts}; largest difference of the outputs {difference:.1g}"
    wanted = layers.products(g, N, padding=0.0), FEATURES * KERNEL
    return said, difference < 1e-12 and (len(different), len(different.unique())) == wanted
