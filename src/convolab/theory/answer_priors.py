"""Question 1(a), answered and checked: what a convolutional layer assumes, what that gains, and where it fails."""

from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from convolab.core.stats import Interval
from convolab.core.text import pluralize
from convolab.data.splits import DatasetSplits
from convolab.theory import priors
from convolab.theory.answer_equivariance import equivariance_blocks, equivariance_checks, measure_for_sheet
from convolab.theory.arrangements import AS_IS, BLOCKS, MOVED, PERMUTED, PriorsConfig, iterate_arrangements
from convolab.theory.equivariance import ROUNDING_TOLERANCE
from convolab.theory.priors import CONVNET, FULLY_CONNECTED, PriorsResult
from convolab.theory.sheet import (
    Check,
    ContentBlock,
    Formula,
    Heading,
    QuestionAnswer,
    SheetFigure,
    Table,
    Text,
    run_sheet_check,
)

EQUIVALENCE_MARGIN = 0.05  # changes whose interval lies within this margin of 0 count as no change
NETWORK_LABELS = {CONVNET: "convnet", FULLY_CONNECTED: "fully-connected"}


@dataclass(frozen=True)
class ArrangementExample:
    """The same few images in one arrangement."""

    arrangement: str
    images: list[UInt8[Tensor, "c h w"]]


@dataclass(frozen=True)
class AccuracyChartData:
    """Mean test accuracies by arrangement and network, for the figure."""

    intervals: tuple[tuple[str, str, Interval], ...]
    chance_accuracy: float


def answer_question_1a(
    seed: int, result: PriorsResult | None, splits: DatasetSplits | None, kernel_size: int = 3
) -> QuestionAnswer:
    """Question 1(a), answered and checked.

    Args:
        seed: decides the images and the weights of the measurements.
        result: of the experiment; None: the answer says that it was left out.
        splits: the images of the experiment.
        kernel_size: of the question's convolution.

    Returns:
        The answer.
    """
    equivariance_result = measure_for_sheet(seed)
    experiment = None if result is None or splits is None else (result, splits)
    return QuestionAnswer(
        name="1(a)",
        question=question_1a(),
        summary=short_answer_1a(result),
        blocks=(
            Heading("Reasoning"),
            *assumption_blocks(kernel_size),
            *(experiment_blocks(*experiment) if experiment else [Text("**Experiment:** left out.")]),
            *equivariance_blocks(equivariance_result),
            Heading("Checks"),
            *(experiment_checks(*experiment) if experiment else []),
            *equivariance_checks(equivariance_result, seed),
        ),
    )


def question_1a() -> str:
    """The question."""
    return (
        "A fully-connected layer could learn whatever a convolutional one does. Which two assumptions about images does "
        "a convolutional layer make, what is gained by them, and for which data do they fail?"
    )


def short_answer_1a(result: PriorsResult | None) -> str:
    """Both assumptions, the gain, and data where they fail, measured if the experiment was made."""
    example = ", such as the columns of a table or permuted pixels"
    if result is not None:
        before, after = (format_tenths_of_percent(result.mean_convnet_lead(name).mean) for name in (AS_IS, PERMUTED))
        example = (
            f": on {result.dataset_name} with all pixels in one random order, a convnet's lead over a fully-connected "
            f"network goes from {before} to {after} percentage points"
        )
    return (
        "**Locality:** related pixels are close together. **Stationarity** (translation equivariance): a pattern means "
        "the same wherever it is. They save weights and examples, and what is learned at one position applies at every "
        f"position. They fail where the position carries the meaning, and for data whose neighbors are unrelated{example}."
    )


def assumption_blocks(kernel_size: int) -> list[ContentBlock]:
    """What is assumed, what is gained, and where it fails."""
    return [
        Text(
            f"**Locality.** An output sees only the inputs near it. {describe_reach(kernel_size)}; all weights to inputs "
            "further away are 0. It is assumed that what is needed to recognize an edge or a corner lies within a few "
            "pixels, and that what is far apart can wait for deeper layers."
        ),
        Text(
            "**Stationarity.** All outputs use the same weights. It is assumed that an edge is an edge wherever "
            "it is, so that what is worth detecting at one position is worth detecting at every other. With $T_s$ "
            "for a shift by $s$ samples, such a layer $g$ is equivariant to translation: shifting its input "
            "shifts its output by the same amount."
        ),
        Formula(r"g(T_s\, x) = T_s\, g(x)"),
        Text(
            "**What is gained.** Fewer weights: their number no longer grows with the image (question 1(c) counts "
            "them). Fewer examples: every position of every image trains the same weights. And what is learned at "
            "one position applies at all others, without an example there."
        ),
        Text(
            "**Where they fail.** Locality fails where neighbors have nothing to do with each other: the columns "
            "of a table of blood values, or pixels in shuffled order. Stationarity fails where the position "
            "carries the meaning: in a passport photo eyes are above the mouth, in a spectrogram a pattern "
            "further up is another tone. There shared weights cannot treat one position differently from another, "
            "and a fully-connected layer loses nothing."
        ),
    ]


def describe_reach(kernel_size: int) -> str:
    """Which inputs an output depends on.

    >>> describe_reach(5)
    'For a kernel of 5 samples, $z[k]$ depends on $x[k-2]$ to $x[k+2]$'
    """
    reach = kernel_size // 2
    inputs = f"$x[k-{reach}]$ to $x[k+{reach}]$" if reach else "$x[k]$ alone"
    return f"For a kernel of {pluralize(kernel_size, 'sample')}, $z[k]$ depends on {inputs}"


def experiment_blocks(result: PriorsResult, splits: DatasetSplits) -> list[ContentBlock]:
    """What the experiment did, its results, and why they are no accident of these images."""
    config = result.config
    return [
        Text(describe_experiment(result)),
        SheetFigure("arrangements", arrangements_caption(config), arrangement_examples(config, splits)),
        accuracy_table(result),
        SheetFigure(
            "priors",
            f"Test accuracy of both networks: each dot is the mean over {config.num_seeds} seeds, with its 95 % "
            "confidence interval.",
            accuracy_chart_data(result),
        ),
        Text(
            "**A fully-connected network does not depend on the order of the pixels**, whatever the images. Let $P$ be "
            "the matrix that permutes the pixels and $W$ the weights of the first layer. A network with the weights "
            r"$W P^\top$ gives for permuted images what the other gives for the original images:"
        ),
        Formula(r"(W P^\top) (P x) = W x"),
        Text(
            "Its gradients are permuted in the same way, and so is each step of the training. The initial weights are "
            r"drawn independently of each other, so $W P^\top$ is an equally likely initialization: the expected "
            "accuracy on permuted images is exactly the same. A convolution has no such equivalent: its band of "
            "shared weights, permuted, is no longer a band of shared weights."
        ),
    ]


def arrangements_caption(config: PriorsConfig) -> str:
    """What the figure shows, so that it can be read without the text."""
    moved = f"; {MOVED}: trained on digits at the left, tested on digits at the right" if config.canvas_size else ""
    return (
        "The same test images in each arrangement. A convnet and a fully-connected network of the same size learn from "
        f"{config.train_size:,} images arranged in the same way{moved}."
    )


def accuracy_table(result: PriorsResult) -> Table:
    """A row per arrangement: both accuracies, and the convnet's lead."""
    return Table(
        f"Test accuracy, mean and 95 % confidence interval (Student's t) over {result.config.num_seeds} seeds; the lead "
        "is convnet minus fully-connected, paired by seed",
        ("images", "convnet", "fully-connected", "lead"),
        tuple(
            (
                name,
                format_accuracy_interval(result.mean_test_accuracy(name, CONVNET)),
                format_accuracy_interval(result.mean_test_accuracy(name, FULLY_CONNECTED)),
                format_points_interval(result.mean_convnet_lead(name)),
            )
            for name in result.config.arrangements
        ),
    )


def experiment_checks(result: PriorsResult, splits: DatasetSplits) -> list[Check]:
    """The checks of the experiment."""
    checks = [
        run_sheet_check(
            f"on {describe_unchanged_images(result.config)} the convnet is more accurate",
            lambda: check_convnet_lead(result),
        ),
        run_sheet_check(
            "with all pixels permuted less than a quarter of the lead remains",
            lambda: check_permutation_removes_lead(result),
        ),
        run_sheet_check(
            "with blocks shifted, which keeps neighbors close but makes every position look different, part of the "
            "lead is lost",
            lambda: check_block_shifts_reduce_lead(result),
        ),
        run_sheet_check(
            f"the fully-connected network is unaffected: both changes are within {100 * EQUIVALENCE_MARGIN:.0f} "
            "percentage points of 0",
            lambda: check_fully_connected_unchanged(result),
        ),
        run_sheet_check(
            "a fully-connected network and its input-permuted copy are the same function, before and after training",
            lambda: check_permutation_invariance(result.config, splits),
        ),
    ]
    if MOVED in result.config.arrangements:
        claim = (
            "at positions never seen in training, the convnet keeps its accuracy and the fully-connected network is at "
            "chance level"
        )
        checks.append(run_sheet_check(claim, lambda: check_moved_accuracy(result)))
    return checks


def describe_unchanged_images(config: PriorsConfig) -> str:
    """The images whose pixels nothing reorders: those of the dataset, or those with a canvas around them.

    >>> describe_unchanged_images(PriorsConfig(canvas_size=None))
    'the original images'
    """
    size = config.canvas_size
    return f"the images on their canvas of {size} x {size} pixels, not permuted," if size else "the original images"


def describe_experiment(result: PriorsResult) -> str:
    """What was done: networks, images, arrangements."""
    config, sizes = result.config, result.parameter_counts
    placement_text = (
        f", placed anywhere on a black canvas of {config.canvas_size} x {config.canvas_size} pixels"
        if config.canvas_size
        else ""
    )
    moved_text = (
        f" **{MOVED.capitalize()}:** trained with the digits in the left third of the positions, tested with them in "
        "the right third."
        if config.canvas_size
        else ""
    )
    return (
        f"**Experiment.** A convnet (`{CONVNET}`, {sizes[CONVNET]:,} parameters) and a fully-connected network "
        f"(`{FULLY_CONNECTED}`, {sizes[FULLY_CONNECTED]:,} parameters) learn from {config.train_size:,} images of "
        f"{result.dataset_name}{placement_text}, by the same recipe (Adam, learning rate {config.lr:g}, "
        f"{config.epochs} epochs), once for each of {config.num_seeds} seeds. **{PERMUTED.capitalize()}:** the pixels "
        f"of all images, in training and in the test, in one random order. **{BLOCKS.capitalize()}:** each block of "
        f"{config.block_size} x {config.block_size} pixels is shifted circularly by its own random offset, the same "
        f"in all images. Neither loses information.{moved_text}"
    )


def arrangement_examples(config: PriorsConfig, splits: DatasetSplits, count: int = 6) -> list[ArrangementExample]:
    """The first test images in every arrangement."""
    return [
        ArrangementExample(name, list(test.images[:count]))
        for name, (_, test) in iterate_arrangements(config, splits, config.seed)
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
    convnet_change = result.mean_accuracy_change(MOVED, CONVNET)
    fully_connected_accuracy = result.mean_test_accuracy(MOVED, FULLY_CONNECTED)
    chance_accuracy = 1 / result.num_classes
    message = (
        f"convnet {format_points_interval(convnet_change)}; fully-connected "
        f"{format_accuracy_interval(fully_connected_accuracy)}, chance level {100 * chance_accuracy:.0f} %"
    )
    return message, convnet_change.low > -EQUIVALENCE_MARGIN and fully_connected_accuracy.high < 2 * chance_accuracy


def check_permutation_invariance(config: PriorsConfig, splits: DatasetSplits) -> tuple[str, bool]:
    invariance = priors.measure_permutation_invariance(config, splits)
    message = (
        f"largest difference of any logit {invariance.untrained_difference:.1e} before, "
        f"{invariance.trained_difference:.1e} after {invariance.epochs} epochs in float32, of logits up to "
        f"{invariance.max_abs_logit:.1f}"
    )
    is_same_untrained = invariance.untrained_difference < ROUNDING_TOLERANCE * max(1.0, invariance.max_abs_logit)
    is_same_trained = invariance.trained_difference < 1e-3 * invariance.max_abs_logit
    return message, is_same_untrained and is_same_trained


def format_accuracy_interval(interval: Interval) -> str:
    """As `97.0 % (96.3 to 97.6)`."""
    mean, low, high = map(format_tenths_of_percent, (interval.mean, interval.low, interval.high))
    return f"{mean} % ({low} to {high})"


def format_points_interval(interval: Interval) -> str:
    """A difference of accuracies, as `48.0 percentage points (46.3 to 49.8)`."""
    mean, low, high = map(format_tenths_of_percent, (interval.mean, interval.low, interval.high))
    return f"{mean} percentage points ({low} to {high})"


def format_tenths_of_percent(value: float) -> str:
    """A fraction in percent; what rounds to 0 has no sign."""
    return f"{round(100 * value, 1) + 0.0:.1f}".replace("-", "−")
