"""Transfer: does an image that fools one network fool another, which preprocesses it in its own way?

Every proportion comes with its Wilson interval and two controls: the clean image, and noise of the same L2, which
tells a network that was fooled from one that is merely fragile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.rng import make_generator
from convolab.core.stats import ALPHA, mcnemar, wilson_interval
from convolab.core.text import format_p_value
from convolab.core.types import Json, MessageCallback
from convolab.inspection.adversarial.budget import l2_distances
from convolab.inspection.types import ClassIndices, Logits, UInt8Image, UInt8Images
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits

PAIRED_CONDITIONS = (("fooling", "noise"), ("fooling", "plain_same_l2"), ("fooling", "plain_first_success"))


@dataclass(frozen=True)
class Proportion:
    """How many of some images, with Wilson's 95 % interval.

    >>> print(Proportion.from_hits([True, False, False, False]))
    1 of 4 (25 %, 95 % interval 5 to 70 %)
    """

    hits: int
    count: int
    fraction: float
    low: float
    high: float

    @staticmethod
    def from_hits(hits: Sequence[bool]) -> "Proportion":
        require(len(hits) > 0, "no images: a proportion needs at least one")
        return Proportion(sum(hits), len(hits), sum(hits) / len(hits), *wilson_interval(sum(hits), len(hits)))

    def __str__(self) -> str:
        return f"{self.hits} of {self.count} ({self.interval_text})"

    @property
    def interval_text(self) -> str:
        return f"{100 * self.fraction:.0f} %, 95 % interval {100 * self.low:.0f} to {100 * self.high:.0f} %"


@dataclass(frozen=True)
class McNemarResult:
    """Two treatments of the same images: on how many only one of them succeeded, and McNemar's exact p."""

    first_only: int
    second_only: int
    p_value: float

    @property
    def is_significant(self) -> bool:
        return self.p_value <= ALPHA


def mcnemar_result(first: Sequence[bool], second: Sequence[bool]) -> McNemarResult:
    """Compare two treatments by the images on which only one of them succeeded.

    >>> mcnemar_result([True] * 6 + [False], [False] * 7)
    McNemarResult(first_only=6, second_only=0, p_value=0.03125)
    """
    first_only = sum(a and not b for a, b in zip(first, second, strict=True))
    second_only = sum(b and not a for a, b in zip(first, second, strict=True))
    return McNemarResult(first_only, second_only, mcnemar(first_only, second_only))


@dataclass(frozen=True)
class Predictions:
    """What one network predicts for images.

    Attributes:
        classes: the index of the most probable class of each.
        top_probabilities: that class's probability.
        target_ranks: the target's rank; 1 is the most probable class.
        target_probabilities: the target's probability.
    """

    classes: tuple[int, ...]
    top_probabilities: tuple[float, ...]
    target_ranks: tuple[int, ...]
    target_probabilities: tuple[float, ...]


def predict_images(net: ImageClassifier, images: UInt8Images, targets: ClassIndices) -> Predictions:
    """Predict images one by one through a network's own `preprocess`, as if they had been read from their files.

    Raises LabError for logits that are not finite.
    """
    pixels = [net.preprocess(image) for image in images]
    return predictions_from_logits(compute_logits(net, pixels, 1), targets)


def predictions_from_logits(logits: Logits, targets: ClassIndices) -> Predictions:
    probabilities = logits.double().softmax(1)
    best = probabilities.max(1)
    ranks = (logits > logits.gather(1, targets[:, None])).sum(1) + 1
    return Predictions(
        classes=tuple(best.indices.tolist()),
        top_probabilities=tuple(best.values.tolist()),
        target_ranks=tuple(ranks.tolist()),
        target_probabilities=tuple(probabilities.gather(1, targets[:, None])[:, 0].tolist()),
    )


@dataclass(frozen=True)
class TransferRow:
    """The predictions of several networks for the images of one condition."""

    condition: str  # clean, noise, fooling, ...
    title: str
    mean_l2: float  # their mean L2 distance from the clean images
    predictions: Mapping[str, Predictions]  # by network


@dataclass(frozen=True)
class TransferMatrix:
    """Conditions by networks. The first row is that of the clean images, which define untargeted success."""

    rows: tuple[TransferRow, ...]
    targets: tuple[int, ...]

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(self.rows[0].predictions)

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(row.condition for row in self.rows)

    def row(self, condition: str) -> TransferRow:
        return next(row for row in self.rows if row.condition == condition)

    def targeted_success(self, condition: str, network: str) -> list[bool]:
        """Of each image, whether the network classifies it as its target."""
        predicted = self.row(condition).predictions[network].classes
        return [label == target for label, target in zip(predicted, self.targets, strict=True)]

    def untargeted_success(self, condition: str, network: str) -> list[bool]:
        """Of each image, whether the network predicts another class than for the clean one."""
        clean = self.rows[0].predictions[network].classes
        predicted = self.row(condition).predictions[network].classes
        return [label != before for label, before in zip(predicted, clean, strict=True)]

    def to_dict(self) -> dict[str, Json]:
        """The proportions and what goes with them, for JSON."""
        return {
            row.condition: {
                "title": row.title,
                "l2": row.mean_l2,
                "networks": {network: self.network_metrics(row, network) for network in self.networks},
            }
            for row in self.rows
        }

    def network_metrics(self, row: TransferRow, network: str) -> dict[str, Json]:
        predictions = row.predictions[network]
        return {
            "targeted": asdict(Proportion.from_hits(self.targeted_success(row.condition, network))),
            "untargeted": asdict(Proportion.from_hits(self.untargeted_success(row.condition, network))),
            "target_rank_median": int(torch.tensor(predictions.target_ranks).median()),
            "target_probability_mean": sum(predictions.target_probabilities) / len(predictions.target_probabilities),
        }

    def paired_tests(self) -> list[dict[str, Json]]:
        """The comparisons of conditions on each network, for both kinds of success, for JSON."""
        results: list[dict[str, Json]] = []
        for network in self.networks:
            for first, second in PAIRED_CONDITIONS:
                if first not in self.conditions or second not in self.conditions:
                    continue
                for name, success in (("targeted", self.targeted_success), ("untargeted", self.untargeted_success)):
                    test = mcnemar_result(success(first, network), success(second, network))
                    results.append(
                        {"network": network, "success": name, "first": first, "second": second, **asdict(test)}
                    )
        return results


def transfer_matrix(
    networks: Mapping[str, ImageClassifier],
    conditions: Mapping[str, tuple[str, UInt8Images]],
    targets: ClassIndices,
    on_progress: MessageCallback = lambda message: None,
) -> TransferMatrix:
    """The predictions of every network for the images of every condition.

    Args:
        networks: by name.
        conditions: a title and the images of each, `clean` first.
        targets: the class of each image, [N].
        on_progress: called with a line of text before each step.

    Returns:
        A row for each condition, with the predictions of each network.
    """
    clean = next(iter(conditions.values()))[1]
    rows = []
    for condition, (title, images) in conditions.items():
        predictions = {}
        for name, net in networks.items():
            on_progress(f"{name} classifies: {title}")
            try:
                predictions[name] = predict_images(net, images, targets)
            except LabError as error:
                raise LabError(f"{name}: {error}") from error
        rows.append(TransferRow(condition, title, float(l2_distances(images, clean).mean()), predictions))
    return TransferMatrix(tuple(rows), tuple(targets.tolist()))


def norm_matched_noise(clean: UInt8Images, l2: Float[Tensor, "n"], seed: int) -> UInt8Images:
    """The images with normal noise, in 8 bits at the L2 distances `l2`; the noise depends on seed and index."""
    pairs = zip(clean, l2.tolist(), strict=True)
    return torch.stack([norm_matched_noise_image(one, distance, seed, n) for n, (one, distance) in enumerate(pairs)])


def norm_matched_noise_image(clean: UInt8Image, l2: float, seed: int, image_index: int) -> UInt8Image:
    """One image with normal noise, in 8 bits at an L2 distance in pixels of [0, 1]."""
    noise = torch.randn(clean.shape, generator=make_generator(seed, "fool control", image_index))

    def noisy_at(scale: float) -> Tensor:
        return (clean + scale * noise).round().clamp(0, 255)

    low, high = 0.0, 255.0  # rounding and clipping to [0, 255] change the distance, so bisection finds the scale
    for _ in range(25):
        middle = (low + high) / 2
        too_near = float((noisy_at(middle) - clean).norm()) < 255 * l2
        low, high = (middle, high) if too_near else (low, middle)
    return noisy_at(high).to(torch.uint8)


def describe_transfer(results: TransferMatrix) -> list[str]:
    """The transfer in words."""
    lines = []
    for network in results.networks:
        targeted = Proportion.from_hits(results.targeted_success("fooling", network))
        targeted_before = sum(results.targeted_success("clean", network))
        verdict = ": no targeted transfer" if targeted.hits == 0 else ""
        lines.append(f"{network}: classifies {targeted} as the target{verdict}; before the attack, {targeted_before}")
        changed, changed_by_noise = (results.untargeted_success(kind, network) for kind in ("fooling", "noise"))
        lines.append(
            f"{network}: prediction changes (untargeted success) on {Proportion.from_hits(changed)}, "
            f"with noise of the same L2 on {Proportion.from_hits(changed_by_noise)}: "
            f"{describe_paired_test(changed, changed_by_noise)}"
        )
    return lines


def describe_paired_test(first: Sequence[bool], second: Sequence[bool]) -> str:
    """Whether two treatments of the same images differ, in words."""
    test = mcnemar_result(first, second)
    a, b = Proportion.from_hits(first), Proportion.from_hits(second)
    overlap_text = "" if a.low > b.high or b.low > a.high else ", the intervals overlap"
    if not test.is_significant:
        return f"no significant difference (exact McNemar {format_p_value(test.p_value)}{overlap_text})"
    comparison = "more" if test.first_only > test.second_only else "fewer"
    return (
        f"{comparison}, {test.first_only} vs {test.second_only} of the discordant images "
        f"(exact McNemar {format_p_value(test.p_value)}{overlap_text})"
    )


def describe_attack_comparison(results: TransferMatrix) -> list[str]:
    """The attack for transfer compared with plain PGD in words, if the matrix holds both."""
    lines = []
    for condition in ("plain_same_l2", "plain_first_success"):
        if condition not in results.conditions:
            continue
        fooling, plain = results.row("fooling"), results.row(condition)
        lines.append(f"L2 {fooling.mean_l2:.2f}, {fooling.title}, vs L2 {plain.mean_l2:.2f}, {plain.title}:")
        for network in results.networks:
            lines.append(comparison_line(results.targeted_success, condition, network, "target"))
            lines.append(comparison_line(results.untargeted_success, condition, network, "another class"))
    return lines


def comparison_line(success: Callable[[str, str], list[bool]], condition: str, network: str, kind: str) -> str:
    first, second = success("fooling", network), success(condition, network)
    test_text = describe_paired_test(first, second)
    return f"  {network}, {kind}: {sum(first)} vs {sum(second)} of {len(first)}: {test_text}"
