"""Question 1(a), answered and checked: what a convolutional layer assumes, what that gains, and where it fails."""

import math
from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from convolab.core.stats import Interval
from convolab.data.catalog import Pictures
from convolab.theory import equivariance, priors
from convolab.theory.equivariance import Measured
from convolab.theory.priors import AS_IS, BLOCKS, CONNECTED, CONVNET, MOVED, PERMUTED, Experiment, Findings
from convolab.theory.sheet import Answer, Block, Formula, Picture, Table, Text, check, table

SAME = 0.05  # a change of accuracy whose interval lies within this of 0 is taken for none
NAMES = {CONVNET: "convnet", CONNECTED: "fully-connected"}


@dataclass(frozen=True)
class Example:
    """One picture in one arrangement."""

    arrangement: str
    images: list[UInt8[Tensor, "c h w"]]


@dataclass(frozen=True)
class Accuracies:
    """Test accuracies by arrangement and network, for the picture."""

    rows: tuple[tuple[str, str, Interval], ...]
    guessing: float


def answer(seed: int, findings: Findings | None, pictures: Pictures | None) -> Answer:
    """Question 1(a); without findings the experiment is left out, and said to be."""
    return Answer(
        name="1(a)",
        question="A fully-connected layer could learn whatever a convolutional one does. Which two assumptions about pictures does a "
        "convolutional layer make, what is gained by them, and where do they fail?",
        short="Locality: what belongs together lies together. Stationarity: a pattern means the same wherever it lies. They save weights "
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
            *experiment(findings, pictures),
            *shifts(seed),
        ),
    )


def experiment(findings: Findings | None, pictures: Pictures | None) -> list[Block]:
    """What the experiment did and found."""
    if findings is None or pictures is None:
        return [Text("**Shown by an experiment:** left out of this run, which was a quick one.")]
    plan = findings.experiment
    return [
        Text(described(findings)),
        Picture("arrangements", "The same test pictures in each arrangement.", examples(plan, pictures)),
        Table(
            f"Test accuracy, mean and 95 % interval (Student's t) over {plan.seeds} seeds; the lead is the convnet's, "
            "by pairs of the same seed",
            ("pictures", "convnet", "fully-connected", "lead"),
            tuple(
                (
                    name,
                    accuracy(findings.accuracy(name, CONVNET)),
                    accuracy(findings.accuracy(name, CONNECTED)),
                    points(findings.lead(name)),
                )
                for name in plan.arrangements
            ),
        ),
        Picture(
            "priors",
            f"Test accuracy of both networks: a dot a mean over {plan.seeds} seeds, with its 95 % interval.",
            accuracies(findings),
        ),
        check("on pictures as they are the convnet leads", lambda: of_lead(findings)),
        check(
            "with all pixels permuted the lead is gone: less than a quarter of it is left",
            lambda: of_permutation(findings),
        ),
        check(
            "with blocks shifted, which leaves neighbours near but makes every place look different, a part of it is gone",
            lambda: of_blocks(findings),
        ),
        check(
            f"the fully-connected network cannot tell: both changes are 0 to within {100 * SAME:.0f} points",
            lambda: of_indifference(findings),
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
        check(
            "a fully-connected network and its twin are the same function, before and after training",
            lambda: of_sameness(plan, pictures),
        ),
        *(
            [
                check(
                    "moved to where no training picture was, the convnet is as good as before, and the other guesses",
                    lambda: of_move(findings),
                )
            ]
            if MOVED in plan.arrangements
            else []
        ),
    ]


def described(findings: Findings) -> str:
    """What was done, in words."""
    plan, sizes = findings.experiment, findings.parameters
    placed = f", placed anywhere on a black canvas of {plan.side} x {plan.side} pixels" if plan.side else ""
    moved = (
        f" **{MOVED.capitalize()}:** trained with the digits in the left third of the places, tested with them in the right third."
        if plan.side
        else ""
    )
    return (
        f"**Shown by an experiment.** A convnet (`{CONVNET}`, {sizes[CONVNET]:,} parameters) and a fully-connected network "
        f"(`{CONNECTED}`, {sizes[CONNECTED]:,} parameters) "
        f"learn from {plan.train:,} pictures of {findings.data}{placed}, by the same recipe (Adam, rate {plan.lr:g}, {plan.epochs} "
        f"epochs), once for each of {plan.seeds} seeds. **{PERMUTED.capitalize()}:** the pixels of all pictures, in training and in the "
        f"test, in one random order. **{BLOCKS.capitalize()}:** each block of {plan.block} x {plan.block} pixels is turned within itself "
        f"by an amount of its own, the same in all pictures. Neither loses any information.{moved}"
    )


def examples(plan: Experiment, pictures: Pictures, count: int = 6) -> list[Example]:
    """The first test pictures in every arrangement."""
    return [Example(name, list(test.images[:count])) for name, (_, test) in priors.arranged(plan, pictures, plan.seed)]


def accuracies(findings: Findings) -> Accuracies:
    plan = findings.experiment
    rows = tuple(
        (name, NAMES[net], findings.accuracy(name, net)) for name in plan.arrangements for net in (CONVNET, CONNECTED)
    )
    return Accuracies(rows, 1 / findings.classes)


def of_lead(findings: Findings) -> tuple[str, bool]:
    lead = findings.lead(AS_IS)
    return f"lead {points(lead)}", lead.low > 0


def of_permutation(findings: Findings) -> tuple[str, bool]:
    lead, left = findings.lead(AS_IS), findings.lead(PERMUTED)
    return f"lead {points(left)}; before {points(lead)}", left.high < lead.low / 4


def of_blocks(findings: Findings) -> tuple[str, bool]:
    lost = findings.lost(BLOCKS)
    return f"the lead is smaller by {points(lost)}", lost.low > 0


def of_indifference(findings: Findings) -> tuple[str, bool]:
    changes = {name: findings.change(name, CONNECTED) for name in (PERMUTED, BLOCKS)}
    said = "; ".join(f"{name}: {points(change)}" for name, change in changes.items())
    return said, all(change.low > -SAME and change.high < SAME for change in changes.values())


def of_move(findings: Findings) -> tuple[str, bool]:
    kept, other = findings.change(MOVED, CONVNET), findings.accuracy(MOVED, CONNECTED)
    guess = 1 / findings.classes
    said = f"convnet {points(kept)}; fully-connected {accuracy(other)}, where guessing gives {100 * guess:.0f} %"
    return said, kept.low > -SAME and other.high < 2 * guess


def of_sameness(plan: Experiment, pictures: Pictures) -> tuple[str, bool]:
    same = priors.sameness(plan, pictures)
    after = f"{same.after:.1e} after {same.epochs} epochs in float32, of logits up to {same.scale:.1f}"
    said = f"largest difference of any logit {same.before:.1e} before, {after}"
    return said, same.before < equivariance.ROUNDING * max(1.0, same.scale) and same.after < 1e-3 * same.scale


def shifts(seed: int) -> list[Block]:
    """Equivariance, measured by kind of layer."""
    found = equivariance.measure_all(seed)
    by = {(m.kind, m.shift): m for m in found}
    kinds = list(dict.fromkeys(m.kind for m in found))
    rows = []
    for kind in kinds:
        errors = [relative(by[kind, shift].error) for shift in (1, 2, 4, 8)]
        rows.append(
            [
                kind,
                by[kind, 1].stride if by[kind, 1].stride < equivariance.SIDE else "whole picture",
                *errors,
                share(by[kind, 1].places),
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
        table(
            "Error of equivariance, by layer and shift",
            ("layer", "stride", "s = 1", "s = 2", "s = 4", "s = 8", "values that differ at s = 1"),
            rows,
        ),
        Picture("equivariance", "Error of equivariance against the shift.", found),
        Text(
            "**Zero padding** breaks equivariance at the border only, because there the layer sees the edge of the picture; layer upon "
            "layer the border grows inwards. **Stride and pooling** keep it for shifts by multiples of the stride, and break it between "
            "them: other pixels are sampled, or grouped otherwise. A blur before the stride softens that. **Global pooling** makes "
            "invariance out of equivariance: the place is gone, what was seen is kept."
        ),
        check(
            "a convolution with circular padding, ReLU, batch norm and pooling of stride 1 are equivariant under every shift",
            lambda: of_equivariant(found),
        ),
        check(
            "zero padding breaks it at the border only: the values that differ lie in columns next to an edge or to where it was moved",
            lambda: of_padding(seed),
        ),
        check(
            "stride and pooling keep it for multiples of the stride, and for no other shift", lambda: of_stride(found)
        ),
        check(
            "a global average does not change at all; a fully-connected layer knows no shift",
            lambda: of_extremes(found),
        ),
    ]


def of_equivariant(found: list[Measured]) -> tuple[str, bool]:
    names = ("convolution 3x3, circular padding", "ReLU", "batch norm", "max pooling 3x3, stride 1, circular padding")
    errors = [m.error for m in found if m.kind in names and m.shift]
    return f"{len(errors)} shifts of {len(names)} layers: largest error {max(errors):.1g}", max(
        errors
    ) < equivariance.ROUNDING


def of_padding(seed: int) -> tuple[str, bool]:
    """Which columns differ: the first and the last see the edge of the picture, and a shift by s moves them to s and s - 1."""
    side, x = equivariance.SIDE, equivariance.pixels(seed)
    layer = next(kind for kind in equivariance.kinds(seed) if kind.name == equivariance.ZERO_PADDED)
    found = {}
    for shift in range(1, 9):
        differs = equivariance.difference(layer, x, shift).abs().amax((0, 1, 2)) > equivariance.ROUNDING
        found[shift] = set(differs.nonzero().flatten().tolist())
    said = f"shift 1: columns {', '.join(map(str, sorted(found[1])))}; shift 8: {', '.join(map(str, sorted(found[8])))} of 0 to {side - 1}"
    return said, all(columns == {0, side - 1, shift - 1, shift} for shift, columns in found.items())


def of_stride(found: list[Measured]) -> tuple[str, bool]:
    strided = [
        m for m in found if 1 < m.stride < equivariance.SIDE and m.kind != "features of simple_convnet" and m.shift
    ]
    on = [m.error for m in strided if m.shift % m.stride == 0]
    off = [m.error for m in strided if m.shift % m.stride]
    kinds = len({m.kind for m in strided})
    said = f"{kinds} layers: at multiples of their strides at most {max(on):.1g}, at other shifts at least {relative(min(off))}"
    return said, max(on) < equivariance.ROUNDING and min(off) > 0.05


def of_extremes(found: list[Measured]) -> tuple[str, bool]:
    averages = [m.error for m in found if m.kind == "global average pooling"]
    connected = [m.error for m in found if m.kind == "fully-connected" and m.shift]
    said = f"average: largest error {max(averages):.1g}; fully-connected: {relative(min(connected))} to {relative(max(connected))}"
    return said, max(averages) < equivariance.ROUNDING and min(connected) > 1


def accuracy(interval: Interval) -> str:
    """As `97.0 % (96.3 to 97.6)`."""
    return f"{tenths(interval.mean)} % ({tenths(interval.low)} to {tenths(interval.high)})"


def points(interval: Interval) -> str:
    """A difference of accuracies, as `48.0 points (46.3 to 49.8)`."""
    return f"{tenths(interval.mean)} points ({tenths(interval.low)} to {tenths(interval.high)})"


def tenths(value: float) -> str:
    """A share as percent, without the sign of a 0 that was a little less."""
    return f"{round(100 * value, 1) + 0.0:.1f}".replace("-", "−")


def relative(error: float) -> str:
    """As a percentage; what rounding alone leaves is 0."""
    return (
        "0" if error < equivariance.ROUNDING else f"{100 * error:.0f} %" if error >= 0.005 else f"{100 * error:.1g} %"
    )


def share(places: float) -> str:
    return "none" if places == 0 else f"{math.ceil(100 * places)} %"
