"""Question 1(a), answered and checked: what a convolutional layer assumes, what that gains, and where it fails."""

import math
from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from convolab.core.stats import Interval
from convolab.data.splits import DatasetSplits
from convolab.theory import equivariance, priors
from convolab.theory.equivariance import EquivarianceMeasurement
from convolab.theory.priors import AS_IS, BLOCKS, CONVNET, FULLY_CONNECTED, MOVED, PERMUTED, PriorsConfig, PriorsResult
from convolab.theory.sheet import (
    ContentBlock,
    Formula,
    QuestionAnswer,
    SheetFigure,
    Table,
    Text,
    make_sheet_table,
    run_sheet_check,
)

EQUIVALENCE_MARGIN = 0.05  # a change of accuracy whose interval lies within this of 0 is taken for none
NETWORK_LABELS = {CONVNET: "convnet", FULLY_CONNECTED: "fully-connected"}


@dataclass(frozen=True)
class ArrangementExample:
    """One picture in one arrangement."""

    arrangement: str
    images: list[UInt8[Tensor, "c h w"]]


@dataclass(frozen=True)
class AccuracyChartData:
    """Test accuracies by arrangement and network, for the picture."""

    intervals: tuple[tuple[str, str, Interval], ...]
    chance_accuracy: float


def answer_question_1a(seed: int, result: PriorsResult | None, splits: DatasetSplits | None) -> QuestionAnswer:
    """Question 1(a); without findings the experiment is left out, and said to be."""
    return QuestionAnswer(
        name="1(a)",
        question="A fully-connected layer could learn whatever a convolutional one does. Which two assumptions about pictures does a "
        "convolutional layer make, what is gained by them, and where do they fail?",
        summary="Locality: what belongs together lies together. Stationarity: a pattern means the same wherever it lies. They save weights "
        "and examples, and make what was learnt at one place good for all; they fail where neighbours or places mean something else.",
        blocks=(
            Text(
                r"**Locality.** An output sees only the inputs near it. For a kernel of 3 samples, $z[k]$ depends on $x[k-1]$, $x[k]$ and "
                r"$x[k+1]$; all weights to inputs further off are 0. It is assumed that what is needed to recognise an edge or a corner "
                r"lies within a few pixels, and that what is far apart can wait for deeper layers."
            ),
            Text(
                r"**Stationarity.** All outputs use the same weights. It is assumed that an edge is an edge wherever it lies, so that what "
                r"is worth detecting at one place is worth detecting at every other. With $T_s$ for a shift by $s$ samples, such a layer "
                r"$g$ is equivariant to translation: shift its input, and its output is shifted likewise."
            ),
            Formula(r"g(T_s\, x) = T_s\, g(x)"),
            Text(
                "**What is gained.** Fewer weights: their number no longer grows with the picture (question 1(c) counts them). Fewer "
                "examples: every place of every picture teaches the same weights. And what was learnt at one place holds at all others, "
                "without having been seen there."
            ),
            Text(
                "**Where they fail.** Locality fails where neighbours have nothing to do with each other: the columns of a table of "
                "blood values, or pixels in shuffled order. Stationarity fails where the place carries the meaning: in a passport photo "
                "eyes are above the mouth, in a spectrogram a pattern further up is another tone. There shared weights "
                "cannot treat one place differently from another, and a fully-connected layer loses nothing."
            ),
            *experiment_blocks(result, splits),
            *equivariance_blocks(seed),
        ),
    )


def experiment_blocks(result: PriorsResult | None, splits: DatasetSplits | None) -> list[ContentBlock]:
    """What the experiment did and found."""
    if result is None or splits is None:
        return [Text("**Shown by an experiment:** left out of this run, which was a quick one.")]
    config = result.config
    return [
        Text(describe_experiment(result)),
        SheetFigure(
            "arrangements", "The same test pictures in each arrangement.", arrangement_examples(config, splits)
        ),
        Table(
            f"Test accuracy, mean and 95 % interval (Student's t) over {config.num_seeds} seeds; the lead is the convnet's, "
            "by pairs of the same seed",
            ("pictures", "convnet", "fully-connected", "lead"),
            tuple(
                (
                    name,
                    format_accuracy_interval(result.mean_test_accuracy(name, CONVNET)),
                    format_accuracy_interval(result.mean_test_accuracy(name, FULLY_CONNECTED)),
                    format_points_interval(result.mean_convnet_lead(name)),
                )
                for name in config.arrangements
            ),
        ),
        SheetFigure(
            "priors",
            f"Test accuracy of both networks: a dot a mean over {config.num_seeds} seeds, with its 95 % interval.",
            accuracy_chart_data(result),
        ),
        run_sheet_check("on pictures as they are the convnet leads", lambda: check_convnet_lead(result)),
        run_sheet_check(
            "with all pixels permuted the lead is gone: less than a quarter of it is left",
            lambda: check_permutation_removes_lead(result),
        ),
        run_sheet_check(
            "with blocks shifted, which leaves neighbours near but makes every place look different, a part of it is gone",
            lambda: check_block_shifts_reduce_lead(result),
        ),
        run_sheet_check(
            f"the fully-connected network cannot tell: both changes are 0 to within {100 * EQUIVALENCE_MARGIN:.0f} points",
            lambda: check_fully_connected_unchanged(result),
        ),
        Text(
            r"That it cannot is no accident of these pictures. Let $P$ be the matrix that permutes the pixels and $W$ the first weights. "
            r"A network with the weights $W P^\top$ does to permuted pictures what the other does to the pictures as they are:"
        ),
        Formula(r"(W P^\top) (P x) = W x"),
        Text(
            r"Its gradients are permuted likewise, and so is each step of the training. The first weights are drawn independently of each "
            r"other, so $W P^\top$ is as likely a start as $W$, and the accuracies are the same on average, exactly. A convolution has "
            r"no such twin: permuted, its band of shared weights is no band of shared weights."
        ),
        run_sheet_check(
            "a fully-connected network and its twin are the same function, before and after training",
            lambda: check_permutation_invariance(config, splits),
        ),
        *(
            [
                run_sheet_check(
                    "moved to where no training picture was, the convnet is as good as before, and the other guesses",
                    lambda: check_moved_accuracy(result),
                )
            ]
            if MOVED in config.arrangements
            else []
        ),
    ]


def describe_experiment(result: PriorsResult) -> str:
    """What was done, in words."""
    config, sizes = result.config, result.parameter_counts
    placement_text = (
        f", placed anywhere on a black canvas of {config.canvas_size} x {config.canvas_size} pixels"
        if config.canvas_size
        else ""
    )
    moved_text = (
        f" **{MOVED.capitalize()}:** trained with the digits in the left third of the places, tested with them in the right third."
        if config.canvas_size
        else ""
    )
    return (
        f"**Shown by an experiment.** A convnet (`{CONVNET}`, {sizes[CONVNET]:,} parameters) and a fully-connected network "
        f"(`{FULLY_CONNECTED}`, {sizes[FULLY_CONNECTED]:,} parameters) "
        f"learn from {config.train_size:,} pictures of {result.dataset_name}{placement_text}, by the same recipe (Adam, rate {config.lr:g}, {config.epochs} "
        f"epochs), once for each of {config.num_seeds} seeds. **{PERMUTED.capitalize()}:** the pixels of all pictures, in training and in the "
        f"test, in one random order. **{BLOCKS.capitalize()}:** each block of {config.block_size} x {config.block_size} pixels is turned within itself "
        f"by an amount of its own, the same in all pictures. Neither loses any information.{moved_text}"
    )


def arrangement_examples(config: PriorsConfig, splits: DatasetSplits, count: int = 6) -> list[ArrangementExample]:
    """The first test pictures in every arrangement."""
    return [
        ArrangementExample(name, list(test.images[:count]))
        for name, (_, test) in priors.iterate_arrangements(config, splits, config.seed)
    ]


def accuracy_chart_data(result: PriorsResult) -> AccuracyChartData:
    config = result.config
    rows = tuple(
        (name, NETWORK_LABELS[net], result.mean_test_accuracy(name, net))
        for name in config.arrangements
        for net in (CONVNET, FULLY_CONNECTED)
    )
    return AccuracyChartData(rows, 1 / result.num_classes)


def check_convnet_lead(result: PriorsResult) -> tuple[str, bool]:
    lead = result.mean_convnet_lead(AS_IS)
    return f"lead {format_points_interval(lead)}", lead.low > 0


def check_permutation_removes_lead(result: PriorsResult) -> tuple[str, bool]:
    lead, permuted_lead = result.mean_convnet_lead(AS_IS), result.mean_convnet_lead(PERMUTED)
    return (
        f"lead {format_points_interval(permuted_lead)}; before {format_points_interval(lead)}",
        permuted_lead.high < lead.low / 4,
    )


def check_block_shifts_reduce_lead(result: PriorsResult) -> tuple[str, bool]:
    lead_loss = result.mean_lead_loss(BLOCKS)
    return f"the lead is smaller by {format_points_interval(lead_loss)}", lead_loss.low > 0


def check_fully_connected_unchanged(result: PriorsResult) -> tuple[str, bool]:
    changes = {name: result.mean_accuracy_change(name, FULLY_CONNECTED) for name in (PERMUTED, BLOCKS)}
    message = "; ".join(f"{name}: {format_points_interval(change)}" for name, change in changes.items())
    return message, all(
        change.low > -EQUIVALENCE_MARGIN and change.high < EQUIVALENCE_MARGIN for change in changes.values()
    )


def check_moved_accuracy(result: PriorsResult) -> tuple[str, bool]:
    convnet_change, fully_connected_accuracy = (
        result.mean_accuracy_change(MOVED, CONVNET),
        result.mean_test_accuracy(MOVED, FULLY_CONNECTED),
    )
    chance_accuracy = 1 / result.num_classes
    message = f"convnet {format_points_interval(convnet_change)}; fully-connected {format_accuracy_interval(fully_connected_accuracy)}, where guessing gives {100 * chance_accuracy:.0f} %"
    return message, convnet_change.low > -EQUIVALENCE_MARGIN and fully_connected_accuracy.high < 2 * chance_accuracy


def check_permutation_invariance(config: PriorsConfig, splits: DatasetSplits) -> tuple[str, bool]:
    invariance = priors.measure_permutation_invariance(config, splits)
    trained_text = f"{invariance.trained_difference:.1e} after {invariance.epochs} epochs in float32, of logits up to {invariance.max_abs_logit:.1f}"
    message = f"largest difference of any logit {invariance.untrained_difference:.1e} before, {trained_text}"
    return message, invariance.untrained_difference < equivariance.ROUNDING_TOLERANCE * max(
        1.0, invariance.max_abs_logit
    ) and invariance.trained_difference < 1e-3 * invariance.max_abs_logit


def equivariance_blocks(seed: int) -> list[ContentBlock]:
    """Equivariance, measured by kind of layer."""
    measurements = equivariance.measure_all_layers(seed)
    by_layer_and_shift = {(m.layer, m.shift): m for m in measurements}
    layer_names = list(dict.fromkeys(m.layer for m in measurements))
    rows = []
    for layer_name in layer_names:
        errors = [format_relative_error(by_layer_and_shift[layer_name, shift].relative_error) for shift in (1, 2, 4, 8)]
        rows.append(
            [
                layer_name,
                by_layer_and_shift[layer_name, 1].stride
                if by_layer_and_shift[layer_name, 1].stride < equivariance.IMAGE_SIZE
                else "whole picture",
                *errors,
                format_changed_fraction(by_layer_and_shift[layer_name, 1].changed_fraction),
            ]
        )
    return [
        Text(
            r"**Shift in, shift out, measured.** The input of each layer is shifted by $s$ pixels, circularly, and its output compared "
            r"with the shifted output it had before. The error is the norm of the difference, as a share of the norm of the output about "
            r"its mean: 0 is equivariant, and two unrelated outputs come to 141 %. A layer of stride 2 can move its output only by whole "
            r"output pixels, of two input pixels each; of the two nearest shifts the better counts. The input is random pixels, the "
            r"hardest case; in photos neighbours are alike and the errors smaller."
        ),
        make_sheet_table(
            "Error of equivariance, by layer and shift",
            ("layer", "stride", "s = 1", "s = 2", "s = 4", "s = 8", "values that differ at s = 1"),
            rows,
        ),
        SheetFigure("equivariance", "Error of equivariance against the shift.", measurements),
        Text(
            "**Zero padding** breaks equivariance at the border only, because there the layer sees the edge of the picture; layer upon "
            "layer the border grows inwards. **Stride and pooling** keep it for shifts by multiples of the stride, and break it between "
            "them: other pixels are sampled, or grouped otherwise. A blur before the stride softens that. **Global pooling** makes "
            "invariance out of equivariance: the place is gone, what was seen is kept."
        ),
        run_sheet_check(
            "a convolution with circular padding, ReLU, batch norm and pooling of stride 1 are equivariant under every shift",
            lambda: check_stride_one_equivariance(measurements),
        ),
        run_sheet_check(
            "zero padding breaks it at the border only: the values that differ lie in columns next to an edge or to where it was moved",
            lambda: check_zero_padding_border(seed),
        ),
        run_sheet_check(
            "stride and pooling keep it for multiples of the stride, and for no other shift",
            lambda: check_stride_multiples(measurements),
        ),
        run_sheet_check(
            "a global average does not change at all; a fully-connected layer knows no shift",
            lambda: check_pooling_and_linear(measurements),
        ),
    ]


def check_stride_one_equivariance(measurements: list[EquivarianceMeasurement]) -> tuple[str, bool]:
    names = ("convolution 3x3, circular padding", "ReLU", "batch norm", "max pooling 3x3, stride 1, circular padding")
    errors = [m.relative_error for m in measurements if m.layer in names and m.shift]
    return f"{len(errors)} shifts of {len(names)} layers: largest error {max(errors):.1g}", max(
        errors
    ) < equivariance.ROUNDING_TOLERANCE


def check_zero_padding_border(seed: int) -> tuple[str, bool]:
    """Which columns differ: the first and the last see the edge of the picture, and a shift by s moves them to s and s - 1."""
    image_size, x = equivariance.IMAGE_SIZE, equivariance.random_images(seed)
    zero_padded_conv = next(
        kind for kind in equivariance.layers_to_measure(seed) if kind.name == equivariance.ZERO_PADDED_CONV
    )
    columns_by_shift = {}
    for shift in range(1, 9):
        is_changed = (
            equivariance.equivariance_residual(zero_padded_conv, x, shift).abs().amax((0, 1, 2))
            > equivariance.ROUNDING_TOLERANCE
        )
        columns_by_shift[shift] = set(is_changed.nonzero().flatten().tolist())
    message = f"shift 1: columns {', '.join(map(str, sorted(columns_by_shift[1])))}; shift 8: {', '.join(map(str, sorted(columns_by_shift[8])))} of 0 to {image_size - 1}"
    return message, all(columns == {0, image_size - 1, shift - 1, shift} for shift, columns in columns_by_shift.items())


def check_stride_multiples(measurements: list[EquivarianceMeasurement]) -> tuple[str, bool]:
    strided = [
        m
        for m in measurements
        if 1 < m.stride < equivariance.IMAGE_SIZE and m.layer != "features of simple_convnet" and m.shift
    ]
    aligned_errors = [m.relative_error for m in strided if m.shift % m.stride == 0]
    misaligned_errors = [m.relative_error for m in strided if m.shift % m.stride]
    num_layers = len({m.layer for m in strided})
    message = f"{num_layers} layers: at multiples of their strides at most {max(aligned_errors):.1g}, at other shifts at least {format_relative_error(min(misaligned_errors))}"
    return message, max(aligned_errors) < equivariance.ROUNDING_TOLERANCE and min(misaligned_errors) > 0.05


def check_pooling_and_linear(measurements: list[EquivarianceMeasurement]) -> tuple[str, bool]:
    averages = [m.relative_error for m in measurements if m.layer == "global average pooling"]
    fully_connected = [m.relative_error for m in measurements if m.layer == "fully-connected" and m.shift]
    message = f"average: largest error {max(averages):.1g}; fully-connected: {format_relative_error(min(fully_connected))} to {format_relative_error(max(fully_connected))}"
    return message, max(averages) < equivariance.ROUNDING_TOLERANCE and min(fully_connected) > 1


def format_accuracy_interval(interval: Interval) -> str:
    """As `97.0 % (96.3 to 97.6)`."""
    return f"{format_tenths_of_percent(interval.mean)} % ({format_tenths_of_percent(interval.low)} to {format_tenths_of_percent(interval.high)})"


def format_points_interval(interval: Interval) -> str:
    """A difference of accuracies, as `48.0 points (46.3 to 49.8)`."""
    return f"{format_tenths_of_percent(interval.mean)} points ({format_tenths_of_percent(interval.low)} to {format_tenths_of_percent(interval.high)})"


def format_tenths_of_percent(value: float) -> str:
    """A share as percent, without the sign of a 0 that was a little less."""
    return f"{round(100 * value, 1) + 0.0:.1f}".replace("-", "−")


def format_relative_error(error: float) -> str:
    """As a percentage; what rounding alone leaves is 0."""
    return (
        "0"
        if error < equivariance.ROUNDING_TOLERANCE
        else f"{100 * error:.0f} %"
        if error >= 0.005
        else f"{100 * error:.1g} %"
    )


def format_changed_fraction(changed_fraction: float) -> str:
    return "none" if changed_fraction == 0 else f"{math.ceil(100 * changed_fraction)} %"
