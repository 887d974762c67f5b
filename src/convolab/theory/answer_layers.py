"""Question 1(c), answered and checked: what a fully-connected and a convolutional layer cost.

Every number here is computed.
"""

from dataclasses import dataclass

import torch
from torch import nn

from convolab.core.rng import isolated_rng
from convolab.models.registry import initialize_weights
from convolab.theory import layers
from convolab.theory.layers import LayerCost
from convolab.theory.sheet import Formula, QuestionAnswer, SheetFigure, Table, Text, make_sheet_table, run_sheet_check

N, FEATURES, KERNEL_SIZE = 100, 10, 3  # the question's
SCALING_CASES = (  # (length, features, kernel size): each grows alone, then all together
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
CHART_LENGTHS = (10, 30, 100, 300, 1_000, 3_000, 10_000)  # of the figure


@dataclass(frozen=True)
class MacsByLength:
    """MACs against the input's length, for the figure."""

    layer: str
    lengths: tuple[int, ...]
    macs: tuple[int, ...]


@dataclass(frozen=True)
class WeightIndexMatrices:
    """Two layers as matrices of weight indices: which weight each entry is, -1 where there is none."""

    fully_connected: list[list[int]]
    convolution: list[list[int]]
    n: int
    features: int


def answer_question_1c(seed: int = 0) -> QuestionAnswer:
    """Question 1(c); the seed decides the weights of the checks."""
    f, g = layers.course_layers(N, FEATURES, KERNEL_SIZE)
    f_cost, g_cost = (layers.layer_cost(layer, N) for layer in (f, g))
    products_without_padding = layers.count_products(g, N, padding_value=0.0)
    return QuestionAnswer(
        name="1(c)",
        question=f"$f$ is a fully-connected layer from {N} to {f.out_features:,} values, $g$ a convolution from 1 "
        f"channel to {FEATURES} with kernels of {KERNEL_SIZE} samples, padding {KERNEL_SIZE // 2} and stride 1, both "
        f"without bias, on a signal of $n = {N}$ samples. How large are their outputs, how many parameters do they "
        "have, and how many MACs do they take?",
        summary=f"f gives {f.out_features:,} values, with {f_cost.num_parameters:,} parameters and {f_cost.macs:,} "
        f"MACs; g gives {format_output_shape(g_cost)}, with {g_cost.num_parameters} parameters and {g_cost.macs:,} "
        f"MACs. Equally large outputs, {f_cost.num_parameters // g_cost.num_parameters:,} times fewer parameters, "
        f"{f_cost.macs // g_cost.macs} times fewer MACs.",
        blocks=(
            Formula(rf"f(x) = \sigma(W x), \quad W \in \mathbb{{R}}^{{{f.out_features} \times {N}}}"),
            Formula(
                rf"g(x)[c, k] = \sigma ( \sum_{{i=0}}^{{{KERNEL_SIZE - 1}}} w[c, i]\, x[k + i - {KERNEL_SIZE // 2}] ), "
                rf"\quad w \in \mathbb{{R}}^{{{FEATURES} \times {KERNEL_SIZE}}}"
            ),
            Text(
                f"where $x$ is 0 outside its samples. An output of $g$ has $n + 2 p - m + 1 = {N} + "
                f"{2 * (KERNEL_SIZE // 2)} - {KERNEL_SIZE} + 1 = {N}$ positions for kernel size $m = {KERNEL_SIZE}$ "
                f"and padding $p = {KERNEL_SIZE // 2}$, for each of the {FEATURES} channels."
            ),
            Text(
                "**Parameters.** $f$ has a weight for every pair of an input and an output. $g$ has one for every "
                "channel and every sample of the kernel: all positions share them, so their number does not depend on "
                "the signal's length."
            ),
            Text(
                "**MACs.** The convention: a MAC is a multiplication of a weight with an input, and the addition that "
                "goes with it. Products with the zeros of the padding count, because the layer does them; biases and "
                rf"$\sigma$ do not. Each output of $f$ takes ${N}$ of them, each output of $g$ takes ${KERNEL_SIZE}$. "
                "A FLOP count is twice the MACs."
            ),
            make_sheet_table(
                "What one input costs",
                ("", "outputs", "parameters", "MACs", "FLOPs"),
                [
                    [name, format_output_shape(cost), f"{cost.num_parameters:,}", f"{cost.macs:,}", f"{cost.flops:,}"]
                    for name, cost in (("$f$", f_cost), ("$g$", g_cost))
                ],
            ),
            run_sheet_check(
                "outputs: the layers, run on a signal, give as many values as the formulas predict",
                lambda: check_output_shapes(seed),
            ),
            run_sheet_check(
                f"parameters: counted in the layers, $f$ has ${FEATURES} n^2$ and $g$ has ${FEATURES} m$",
                lambda: check_parameter_counts(f_cost, g_cost),
            ),
            run_sheet_check(
                "MACs: `convolab summary`, and a run with all weights and inputs 1 (every product then adds 1 to the "
                "sum), count what the formulas predict",
                check_mac_counts,
            ),
            Text(
                "**Other conventions** give other numbers for the same layers, so an operation count means little "
                "without its convention. A sum of $m$ products takes $m - 1$ additions, a bias one more, and an "
                "activation one evaluation for each output. Without the products with the padding's zeros, $g$ takes "
                f"{products_without_padding:,} multiplications instead of {g_cost.macs:,}."
            ),
            convention_table(),
            Text(
                "**$g$ is an $f$ with most weights 0 and the others shared.** A convolution is a linear map, so it "
                "can be written as the matrix of a fully-connected layer: locality makes it a band, stationarity "
                "makes every diagonal constant. What $g$ saves is what these two assumptions (question 1(a)) remove "
                "from $f$."
            ),
            SheetFigure(
                "matrices",
                "Both layers as matrices, for n = 12, 2 features and kernels of 3: each color is one weight, white is "
                "0.",
                weight_index_matrices(12, 2, KERNEL_SIZE),
            ),
            run_sheet_check(
                "$g$, written as a matrix, has few entries that are not 0, and fewer distinct ones; $f$ with these "
                "weights is $g$",
                lambda: check_convolution_matrix(seed),
            ),
            Text(
                "**Scaling.** With $q$ features for each sample, $f$ takes $q n^2$ weights and as many MACs. $g$ "
                "takes $q m$ weights whatever the length, and $q m n$ MACs. Twice the length makes $f$ four times as "
                "expensive and $g$ twice."
            ),
            scaling_table(),
            SheetFigure("growth", "MACs against the length of the input, both axes logarithmic.", macs_by_length()),
        ),
    )


def format_output_shape(cost: LayerCost) -> str:
    """The outputs as `10 x 100 = 1,000`."""
    num_outputs = f"{cost.activation_evaluations:,}"
    if len(cost.output_shape) == 1:
        return num_outputs
    return f"{' x '.join(f'{size:,}' for size in cost.output_shape)} = {num_outputs}"


def convention_table() -> Table:
    """The same layers under other conventions."""
    rows = []
    for bias in (False, True):
        for name, layer in zip("fg", layers.course_layers(N, FEATURES, KERNEL_SIZE, bias), strict=True):
            cost = layers.layer_cost(layer, N)
            numbers = (
                cost.num_parameters,
                cost.macs,
                cost.additions,
                cost.arithmetic_operations,
                cost.arithmetic_operations + cost.activation_evaluations,
                cost.flops,
            )
            rows.append([f"${name}$ {'with' if bias else 'without'} bias", *(f"{number:,}" for number in numbers)])
    headers = (
        "",
        "parameters",
        "multiplications = MACs",
        "additions",
        "both",
        "both, and $\\sigma$",
        "FLOPs = 2 x MACs",
    )
    return make_sheet_table("The same layers, counted in other ways", headers, rows)


def scaling_table() -> Table:
    """How both costs scale with the signal length, the features and the kernel size."""
    rows = []
    for n, features, kernel_size in SCALING_CASES:
        f, g = (layers.layer_cost(layer, n) for layer in layers.course_layers(n, features, kernel_size))
        rows.append(
            [
                *(f"{v:,}" for v in (n, features, kernel_size, f.num_parameters, g.num_parameters, f.macs, g.macs)),
                f"{f.macs / g.macs:,.0f}",
            ]
        )
    headers = ("$n$", "features", "kernel size", "parameters of $f$", "of $g$", "MACs of $f$", "of $g$", "$f$ to $g$")
    return make_sheet_table("Scaling with the signal length, the features and the kernel size", headers, rows)


def macs_by_length() -> tuple[MacsByLength, ...]:
    """MACs against the length: f with as many outputs as g, f with the question's number of outputs, and g."""
    macs_by_layer = {
        name: [] for name in (f"f, {FEATURES} n outputs", f"f, {FEATURES * N:,} outputs", f"g, {FEATURES} n outputs")
    }
    for n in CHART_LENGTHS:
        f, g = layers.course_layers(n, FEATURES, KERNEL_SIZE)
        with torch.device("meta"):
            f_fixed_outputs = nn.Linear(n, FEATURES * N, bias=False)
        for macs, layer in zip(macs_by_layer.values(), (f, f_fixed_outputs, g), strict=True):
            macs.append(layers.layer_cost(layer, n).macs)
    return tuple(MacsByLength(name, CHART_LENGTHS, tuple(macs)) for name, macs in macs_by_layer.items())


def weight_index_matrices(n: int, features: int, kernel_size: int) -> WeightIndexMatrices:
    """Which weight each entry is: number the weights from 1 and write the convolution as a matrix."""
    with torch.device("meta"):  # its own weights are never initialized
        g = nn.Conv1d(1, features, kernel_size, padding=kernel_size // 2, bias=False)
    numbers = torch.arange(1.0, features * kernel_size + 1, dtype=torch.float64).view(g.weight.shape)
    g.weight = nn.Parameter(numbers)
    weight_indices = torch.arange(features * n * n).view(features * n, n)
    return WeightIndexMatrices(
        weight_indices.tolist(), (layers.convolution_matrix(g, n).long() - 1).tolist(), n, features
    )


def seeded_course_layers(seed: int) -> tuple[nn.Linear, nn.Conv1d]:
    """The question's layers with weights, in float64."""
    f, g = layers.course_layers(N, FEATURES, KERNEL_SIZE)
    for layer in (f, g):
        layer.to_empty(device="cpu").double()
    with isolated_rng():
        initialize_weights(nn.ModuleList([f, g]), seed)
    return f, g


def check_output_shapes(seed: int) -> tuple[str, bool]:
    f, g = seeded_course_layers(seed)
    x = torch.ones(1, N, dtype=torch.float64)
    outputs = (list(f(x).shape[1:]), list(g(x[None]).shape[1:]))
    expected = ([FEATURES * N], [FEATURES, N + 2 * (KERNEL_SIZE // 2) - KERNEL_SIZE + 1])
    return f"f: {outputs[0]}, g: {outputs[1]}", outputs == expected


def check_parameter_counts(f_cost: LayerCost, g_cost: LayerCost) -> tuple[str, bool]:
    counted = (f_cost.num_parameters, g_cost.num_parameters)
    return f"f: {counted[0]:,}, g: {counted[1]:,}", counted == (FEATURES * N * N, FEATURES * KERNEL_SIZE)


def check_mac_counts() -> tuple[str, bool]:
    f, g = layers.course_layers(N, FEATURES, KERNEL_SIZE)
    summary_counts = [layers.layer_cost(layer, N).macs for layer in (f, g)]
    run_counts = [layers.count_products(layer, N) for layer in (f, g)]
    message = (
        f"summary: {summary_counts[0]:,} and {summary_counts[1]:,}; by running: {run_counts[0]:,} and {run_counts[1]:,}"
    )
    return message, summary_counts == run_counts == [FEATURES * N * N, FEATURES * N * KERNEL_SIZE]


def check_convolution_matrix(seed: int) -> tuple[str, bool]:
    f, g = seeded_course_layers(seed)
    matrix = layers.convolution_matrix(g, N)
    f.weight.data = matrix
    x = torch.linspace(-1, 1, N, dtype=torch.float64)[None]
    difference = (f(x).view(FEATURES, N) - g(x[None])[0]).abs().max().item()
    nonzero_weights = matrix[matrix != 0]
    counts = (len(nonzero_weights), len(nonzero_weights.unique()))
    message = (
        f"of {matrix.numel():,} entries {counts[0]:,} are not 0, {counts[1]} of them distinct; largest difference of "
        f"the outputs {difference:.1g}"
    )
    expected_counts = (layers.count_products(g, N, padding_value=0.0), FEATURES * KERNEL_SIZE)
    return message, difference < 1e-12 and counts == expected_counts
