"""Question 1(c), answered and checked: what a fully-connected and a convolutional layer cost.

Every number here is computed.
"""

from dataclasses import dataclass

import torch
from torch import nn

from convolab.core.rng import isolated_rng
from convolab.core.text import pluralize
from convolab.models.registry import initialize_weights
from convolab.theory import layers
from convolab.theory.layers import LayerCost, LayerSizes
from convolab.theory.sheet import (
    Check,
    ContentBlock,
    Formula,
    Heading,
    QuestionAnswer,
    SheetFigure,
    Table,
    Text,
    make_sheet_table,
    run_sheet_check,
)

SMALL_SAMPLES, SMALL_MAPS, SMALL_KERNEL_SIZE = 12, 2, 9  # the most that the figure of the matrices shows


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
    maps: int


@dataclass(frozen=True)
class LayerComparison:
    """The sizes of the question, and what its two layers cost."""

    sizes: LayerSizes
    f: LayerCost
    g: LayerCost


def answer_question_1c(seed: int = 0, sizes: LayerSizes | None = None) -> QuestionAnswer:
    """Question 1(c), answered and checked.

    Args:
        seed: decides the weights of the checks.
        sizes: of the layers; default: the course's.

    Returns:
        The answer; every number in it is counted on layers of these sizes.
    """
    sizes = sizes or LayerSizes()
    f_cost, g_cost = (layers.layer_cost(layer, sizes.samples) for layer in sizes.make_layers())
    comparison = LayerComparison(sizes, f_cost, g_cost)
    return QuestionAnswer(
        name="1(c)",
        question=question_1c(sizes),
        summary=short_answer_1c(comparison),
        blocks=(
            Heading("Reasoning"),
            *count_blocks(comparison),
            *convention_blocks(comparison),
            *matrix_blocks(sizes),
            *scaling_blocks(sizes),
            Heading("Checks"),
            *layer_checks(comparison, seed),
        ),
    )


def question_1c(sizes: LayerSizes) -> str:
    """The question, with these sizes."""
    return (
        f"$f$ is a fully-connected layer from {sizes.samples:,} to {sizes.num_outputs:,} values, $g$ a convolution from "
        f"1 channel to {pluralize(sizes.maps, 'feature map')} with kernels of {pluralize(sizes.kernel_size, 'sample')}, "
        f"zero padding of {sizes.kernel_size // 2} and stride 1, both without bias, on a signal of $n = "
        f"{sizes.samples}$ samples. How large are their outputs, how many parameters do they have, and how many "
        "multiply-accumulate operations (MACs) do they take?"
    )


def short_answer_1c(comparison: LayerComparison) -> str:
    """The numbers, and how they compare."""
    f, g = comparison.f, comparison.g
    same_outputs = f.num_outputs == g.num_outputs
    return (
        f"$f$ gives {pluralize(f.num_outputs, 'value')}, with {pluralize(f.num_parameters, 'parameter')} and "
        f"{f.macs:,} MACs. $g$ gives {format_output_shape(g)} {'values' if g.num_outputs > 1 else 'value'}, with "
        f"{pluralize(g.num_parameters, 'parameter')} and {g.macs:,} MACs. "
        f"{'For as many outputs' if same_outputs else 'So'} $g$ has "
        f"{compare_counts(f.num_parameters, g.num_parameters, 'parameters')} and takes "
        f"{compare_counts(f.macs, g.macs, 'MACs')}."
    )


def compare_counts(of_f: int, of_g: int, noun: str) -> str:
    """How many times fewer or more of something g has than f.

    >>> compare_counts(100_000, 3_000, "MACs"), compare_counts(10, 25, "MACs"), compare_counts(7, 7, "MACs")
    ('33 times fewer MACs', '2.5 times as many MACs', 'equally many MACs')
    """
    if of_f == of_g:
        return f"equally many {noun}"
    ratio = max(of_f, of_g) / min(of_f, of_g)
    times = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}" if ratio >= 1.05 else f"{ratio:.6g}"
    return f"{times} times fewer {noun}" if of_f > of_g else f"{times} times as many {noun}"


def count_blocks(comparison: LayerComparison) -> list[ContentBlock]:
    """Outputs, parameters and MACs, each with its reason, and all in a table."""
    n, maps, m = comparison.sizes.samples, comparison.sizes.maps, comparison.sizes.kernel_size
    p = m // 2
    offset = f" - {p}" if p else ""
    products = f"{pluralize(n, 'product')}, each output of $g$ {pluralize(m, 'product')}"
    return [
        Formula(rf"f(x) = \sigma(W x), \quad W \in \mathbb{{R}}^{{{comparison.f.num_outputs} \times {n}}}"),
        Formula(
            rf"g(x)[c, k] = \sigma ( \sum_{{i=0}}^{{{m - 1}}} w[c, i]\, x[k + i{offset}] ), \quad "
            rf"w \in \mathbb{{R}}^{{{maps} \times {m}}}"
        ),
        Text(
            f"where $x$ is 0 outside its samples. **Outputs.** $f$ has one for each row of $W$. $g$ has $n + 2 p - m + "
            f"1 = {n} + {2 * p} - {m} + 1 = {n}$ in each feature map, with kernel size $m = {m}$ and padding $p = {p}$."
        ),
        Text(
            "**Parameters.** $f$ has a weight for every pair of an input and an output. $g$ has one for every feature "
            "map and every sample of the kernel: all positions share them, so their number does not depend on the "
            "signal's length."
        ),
        Text(
            "**MACs.** The convention: a MAC is a multiplication of a weight with an input, and the addition that "
            "goes with it. Products with the zeros of the padding count, because the layer does them; biases and "
            rf"$\sigma$ do not. Each output of $f$ sums {products}. A FLOP count is twice the MACs."
        ),
        make_sheet_table(
            "What one input costs",
            ("", "outputs", "parameters", "MACs", "FLOPs"),
            [
                [name, format_output_shape(cost), f"{cost.num_parameters:,}", f"{cost.macs:,}", f"{cost.flops:,}"]
                for name, cost in (("$f$", comparison.f), ("$g$", comparison.g))
            ],
        ),
    ]


def convention_blocks(comparison: LayerComparison) -> list[ContentBlock]:
    """What other conventions count."""
    _, g = comparison.sizes.make_layers()
    products_without_padding = layers.count_products(g, comparison.sizes.samples, padding_value=0.0)
    return [
        Text(
            "**Other conventions** give other numbers for the same layers, so an operation count means little "
            "without its convention. A sum of $m$ products takes $m - 1$ additions, a bias one more, and an "
            "activation one evaluation for each output. Without the products with the padding's zeros, $g$ takes "
            f"{products_without_padding:,} multiplications instead of {comparison.g.macs:,}."
        ),
        convention_table(comparison.sizes),
    ]


def matrix_blocks(sizes: LayerSizes) -> list[ContentBlock]:
    """A convolution as the matrix of a fully-connected layer."""
    maps, kernel_size = min(SMALL_MAPS, sizes.maps), min(SMALL_KERNEL_SIZE, sizes.kernel_size)
    return [
        Text(
            "**$g$ is a fully-connected layer with most weights 0 and the others shared.** A convolution is a linear "
            "map, so it can be written as the matrix of a fully-connected layer: locality makes it a band, "
            "stationarity makes every diagonal constant. What $g$ saves is what these two assumptions (question 1(a)) "
            "remove."
        ),
        SheetFigure(
            "matrices",
            f"A small case, with n = {SMALL_SAMPLES}, {pluralize(maps, 'feature map')} and kernel size {kernel_size}: "
            "both layers as matrices. Each color is one weight, white is 0.",
            weight_index_matrices(SMALL_SAMPLES, maps, kernel_size),
        ),
    ]


def scaling_blocks(sizes: LayerSizes) -> list[ContentBlock]:
    """How both costs grow."""
    is_f = sizes.num_outputs == sizes.maps * sizes.samples
    fully_connected = "A fully-connected layer with as many outputs as $g$, $q n$ for $q$ feature maps"
    return [
        Text(
            f"**Scaling.** {'For $q$ feature maps $f$' if is_f else fully_connected} takes $q n^2$ weights and as many MACs. $g$ takes $q m$ weights whatever the length, and $q m n$ MACs. "
            "Twice the length makes the fully-connected layer four times as expensive and $g$ twice."
        ),
        scaling_table(sizes),
        SheetFigure("growth", "MACs against the length of the input, both axes logarithmic.", macs_by_length(sizes)),
    ]


def layer_checks(comparison: LayerComparison, seed: int) -> list[Check]:
    """The checks of every number of this answer."""
    sizes = comparison.sizes
    of_f = f"${sizes.maps} n^2$" if sizes.outputs is None else f"${sizes.outputs} n$"
    return [
        run_sheet_check(
            "outputs: the layers, run on a signal, give as many values as the formulas predict",
            lambda: check_output_shapes(sizes, seed),
        ),
        run_sheet_check(
            f"parameters: counted in the layers, $f$ has {of_f} and $g$ has ${sizes.maps} m$",
            lambda: check_parameter_counts(comparison),
        ),
        run_sheet_check(
            "MACs: `convolab summary`, and a run with all weights and inputs 1 (every product then adds 1 to the "
            "sum), count what the formulas predict",
            lambda: check_mac_counts(sizes),
        ),
        run_sheet_check(
            "$g$, written as a matrix, has few entries that are not 0, and fewer distinct ones; a fully-connected "
            "layer with these weights is $g$",
            lambda: check_convolution_matrix(sizes, seed),
        ),
    ]


def format_output_shape(cost: LayerCost) -> str:
    """The outputs as `10 x 100 = 1,000`."""
    if len(cost.output_shape) == 1:
        return f"{cost.num_outputs:,}"
    return f"{' x '.join(f'{size:,}' for size in cost.output_shape)} = {cost.num_outputs:,}"


def convention_table(sizes: LayerSizes) -> Table:
    """The same layers under other conventions."""
    rows = []
    for bias in (False, True):
        for name, layer in zip("fg", sizes.make_layers(bias), strict=True):
            cost = layers.layer_cost(layer, sizes.samples)
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


def scaling_cases(sizes: LayerSizes) -> list[tuple[int, int, int]]:
    """(length, feature maps, kernel size): the question's, each grown alone, then all together.

    >>> scaling_cases(LayerSizes(4, 2, 1))[-1]
    (400, 8, 3)
    """
    n, maps, m = sizes.samples, sizes.maps, sizes.kernel_size
    longest = n - 1 + n % 2  # the longest odd kernel
    kernel_sizes = [size for size in sorted({m + 2, 3 * m, longest}) if m < size <= longest]
    return [
        (n, maps, m),
        *((factor * n, maps, m) for factor in (2, 4, 10, 100)),
        *((n, factor * maps, m) for factor in (2, 4)),
        *((n, maps, size) for size in kernel_sizes),
        (100 * n, 4 * maps, 3 * m),
    ]


def scaling_table(sizes: LayerSizes) -> Table:
    """How both costs scale with the signal length, the feature maps and the kernel size."""
    rows = []
    for n, maps, kernel_size in scaling_cases(sizes):
        f, g = (layers.layer_cost(layer, n) for layer in layers.course_layers(n, maps, kernel_size))
        counts = (n, maps, kernel_size, f.num_parameters, g.num_parameters, f.macs, g.macs)
        rows.append([*(f"{count:,}" for count in counts), f"{f.macs / g.macs:,.0f}"])
    headers = (
        "$n$",
        "feature maps",
        "kernel size",
        "parameters, fully-connected",
        "parameters, $g$",
        "MACs, fully-connected",
        "MACs, $g$",
        "ratio",
    )
    caption = "$g$ and a fully-connected layer with as many outputs, by signal length, feature maps and kernel size"
    return make_sheet_table(caption, headers, rows)


def macs_by_length(sizes: LayerSizes) -> tuple[MacsByLength, ...]:
    """MACs against the length: with as many outputs as g, with f's number of outputs, and g."""
    maps, outputs = sizes.maps, sizes.num_outputs
    macs_by_layer: dict[str, list[int]] = {
        f"fully-connected, {maps:,} n outputs": [],
        f"fully-connected, {pluralize(outputs, 'output')}": [],
        f"g, {maps:,} n outputs": [],
    }
    lengths = chart_lengths(sizes)
    for n in lengths:
        as_many, g = layers.course_layers(n, maps, sizes.kernel_size)
        fixed, _ = layers.course_layers(n, maps, sizes.kernel_size, outputs=outputs)
        for macs, layer in zip(macs_by_layer.values(), (as_many, fixed, g), strict=True):
            macs.append(layers.layer_cost(layer, n).macs)
    return tuple(MacsByLength(name, lengths, tuple(macs)) for name, macs in macs_by_layer.items())


def chart_lengths(sizes: LayerSizes) -> tuple[int, ...]:
    """A tenth to a hundred times the question's length, in about equal factors; none shorter than the kernel.

    >>> chart_lengths(LayerSizes())
    (10, 30, 100, 300, 1000, 3000, 10000)
    """
    n = sizes.samples
    lengths = {round(n / 10), round(3 * n / 10), n, 3 * n, 10 * n, 30 * n, 100 * n}
    return tuple(sorted(length for length in lengths if length >= sizes.kernel_size))


def weight_index_matrices(n: int, maps: int, kernel_size: int) -> WeightIndexMatrices:
    """Which weight each entry is: number the weights from 1 and write the convolution as a matrix."""
    with torch.device("meta"):  # its own weights are never initialized
        g = nn.Conv1d(1, maps, kernel_size, padding=kernel_size // 2, bias=False)
    numbers = torch.arange(1.0, maps * kernel_size + 1, dtype=torch.float64).view(g.weight.shape)
    g.weight = nn.Parameter(numbers)
    weight_indices = torch.arange(maps * n * n).view(maps * n, n)
    return WeightIndexMatrices(weight_indices.tolist(), (layers.convolution_matrix(g, n).long() - 1).tolist(), n, maps)


def seeded_layers(sizes: LayerSizes, seed: int) -> tuple[nn.Linear, nn.Conv1d]:
    """The question's layers with weights, in float64."""
    f, g = sizes.make_layers()
    for layer in (f, g):
        layer.to_empty(device="cpu").double()
    with isolated_rng():
        initialize_weights(nn.ModuleList([f, g]), seed)
    return f, g


def check_output_shapes(sizes: LayerSizes, seed: int) -> tuple[str, bool]:
    f, g = seeded_layers(sizes, seed)
    x = torch.ones(1, sizes.samples, dtype=torch.float64)
    outputs = (list(f(x).shape[1:]), list(g(x[None]).shape[1:]))
    length = sizes.samples + 2 * (sizes.kernel_size // 2) - sizes.kernel_size + 1
    return f"f: {outputs[0]}, g: {outputs[1]}", outputs == ([sizes.num_outputs], [sizes.maps, length])


def check_parameter_counts(comparison: LayerComparison) -> tuple[str, bool]:
    sizes = comparison.sizes
    counted = (comparison.f.num_parameters, comparison.g.num_parameters)
    expected = (sizes.num_outputs * sizes.samples, sizes.maps * sizes.kernel_size)
    return f"f: {counted[0]:,}, g: {counted[1]:,}", counted == expected


def check_mac_counts(sizes: LayerSizes) -> tuple[str, bool]:
    f, g = sizes.make_layers()
    summary_counts = [layers.layer_cost(layer, sizes.samples).macs for layer in (f, g)]
    run_counts = [layers.count_products(layer, sizes.samples) for layer in (f, g)]
    message = (
        f"summary: {summary_counts[0]:,} and {summary_counts[1]:,}; by running: {run_counts[0]:,} and {run_counts[1]:,}"
    )
    expected = [sizes.num_outputs * sizes.samples, sizes.maps * sizes.samples * sizes.kernel_size]
    return message, summary_counts == run_counts == expected


def check_convolution_matrix(sizes: LayerSizes, seed: int) -> tuple[str, bool]:
    n, maps = sizes.samples, sizes.maps
    _, g = seeded_layers(sizes, seed)
    matrix = layers.convolution_matrix(g, n)
    x = torch.linspace(-1, 1, n, dtype=torch.float64)[None]
    difference = ((x @ matrix.T).view(maps, n) - g(x[None])[0]).abs().max().item()
    nonzero_weights = matrix[matrix != 0]
    counts = (len(nonzero_weights), len(nonzero_weights.unique()))
    message = (
        f"of {matrix.numel():,} entries {counts[0]:,} are not 0, {counts[1]:,} of them distinct; largest difference of "
        f"the outputs {difference:.1g}"
    )
    expected_counts = (layers.count_products(g, n, padding_value=0.0), maps * sizes.kernel_size)
    return message, difference < 1e-12 and counts == expected_counts
