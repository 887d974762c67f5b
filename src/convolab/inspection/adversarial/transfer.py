"""Transfer: does a picture that fools one network fool another, which sees it through its own preprocessing?

Beside every share stand its Wilson interval and two controls: the clean picture, and noise of the same length, which tells a
network that was fooled from one that is merely fragile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.core.stats import ALPHA, mcnemar, wilson_interval
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits

UInt8Images = UInt8[Tensor, "n c h w"]
Logits = Float[Tensor, "n classes"]
BATCH_SIZE = 8  # pictures a pass


@dataclass(frozen=True)
class Proportion:
    """How many of some pictures, with Wilson's 95 % interval.

    >>> print(Share.of([True, False, False, False]))
    1 of 4 (25 %, 95 % interval 5 to 70 %)
    """

    hits: int
    count: int
    fraction: float
    low: float
    high: float

    @staticmethod
    def from_hits(hits: Sequence[bool]) -> "Proportion":
        require(len(hits) > 0, "no pictures: a share needs at least one")
        return Proportion(sum(hits), len(hits), sum(hits) / len(hits), *wilson_interval(sum(hits), len(hits)))

    def __str__(self) -> str:
        return f"{self.hits} of {self.count} ({self.interval_text})"

    @property
    def interval_text(self) -> str:
        return f"{100 * self.fraction:.0f} %, 95 % interval {100 * self.low:.0f} to {100 * self.high:.0f} %"


@dataclass(frozen=True)
class McNemarResult:
    """Two treatments of the same pictures: how many succeeded with the first alone, with the second alone, and McNemar's exact p."""

    first_only: int
    second_only: int
    p_value: float

    @property
    def is_significant(self) -> bool:
        return self.p_value < ALPHA


def mcnemar_result(first: Sequence[bool], second: Sequence[bool]) -> McNemarResult:
    """The pictures for which two treatments ended differently; the others say nothing of which is better.

    >>> discordant([True] * 6 + [False], [False] * 7)
    Discordant(first=6, second=0, p=0.03125)
    """
    discordant_counts = [
        sum(a and not b for a, b in zip(*order, strict=True)) for order in ((first, second), (second, first))
    ]
    return McNemarResult(*discordant_counts, mcnemar(*discordant_counts))


@dataclass(frozen=True)
class Predictions:
    """What one network makes of pictures that it brought to its own size: for each its class, and the target's place in it."""

    classes: tuple[int, ...]
    top_probabilities: tuple[float, ...]  # the class's probability
    target_ranks: tuple[int, ...]  # the target's; 1 is the most probable
    target_probabilities: tuple[float, ...]  # the target's


def predict_images(net: ImageClassifier, images: UInt8Images, targets: Int64[Tensor, "n"]) -> Predictions:
    """Pictures through a network's own `fit`, as if they had been read from their files."""
    pixels = [net.preprocess(picture) for picture in images]
    return predictions_from_logits(compute_logits(net, pixels, BATCH_SIZE), targets)


def predictions_from_logits(logits: Logits, targets: Int64[Tensor, "n"]) -> Predictions:
    """What logits say."""
    probabilities = logits.double().softmax(1)
    target_probabilities = probabilities.gather(1, targets[:, None])
    best = probabilities.max(1)
    ranks = (logits > logits.gather(1, targets[:, None])).sum(1) + 1
    return Predictions(
        tuple(best.indices.tolist()),
        tuple(best.values.tolist()),
        tuple(ranks.tolist()),
        tuple(target_probabilities[:, 0].tolist()),
    )


@dataclass(frozen=True)
class TransferRow:
    """One kind of pictures before the other networks."""

    condition: str  # clean, noise, fooling, ...
    title: str
    mean_l2: float  # their mean L2 from the clean ones
    predictions: Mapping[str, Predictions]  # by network


@dataclass(frozen=True)
class TransferMatrix:
    """Kinds of pictures against networks; the first row is the clean ones', which `untargeted` success is measured against."""

    rows: tuple[TransferRow, ...]
    targets: tuple[int, ...]

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(self.rows[0].predictions)

    def row(self, condition: str) -> TransferRow:
        return next(row for row in self.rows if row.condition == condition)

    def targeted_success(self, condition: str, network: str) -> list[bool]:
        """Of each picture, whether the network takes it for its target."""
        return [
            found == target
            for found, target in zip(self.row(condition).predictions[network].classes, self.targets, strict=True)
        ]

    def untargeted_success(self, condition: str, network: str) -> list[bool]:
        """Of each picture, whether the network takes it for another class than the clean one."""
        clean = self.rows[0].predictions[network].classes
        return [
            found != before
            for found, before in zip(self.row(condition).predictions[network].classes, clean, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The shares and what goes with them, for JSON."""
        return {
            row.condition: {
                "title": row.title,
                "l2": row.mean_l2,
                "networks": {n: self.network_metrics(row, n) for n in self.networks},
            }
            for row in self.rows
        }

    def network_metrics(self, row: TransferRow, network: str) -> dict[str, Any]:
        predictions = row.predictions[network]
        return {
            "targeted": asdict(Proportion.from_hits(self.targeted_success(row.condition, network))),
            "untargeted": asdict(Proportion.from_hits(self.untargeted_success(row.condition, network))),
            "target_rank_median": int(torch.tensor(predictions.target_ranks).median()),
            "target_probability_mean": sum(predictions.target_probabilities) / len(predictions.target_probabilities),
        }

    def paired_tests(self) -> list[dict[str, Any]]:
        """The paired comparisons: fooling with noise, and for transfer with plain ascent, on each network and both successes."""
        conditions = [row.condition for row in self.rows]
        results = []
        for network in self.networks:
            for first, second in (("fooling", "noise"), ("fooling", "plain_as_far"), ("fooling", "plain")):
                if first in conditions and second in conditions:
                    for name, success in (("targeted", self.targeted_success), ("untargeted", self.untargeted_success)):
                        test_result = mcnemar_result(success(first, network), success(second, network))
                        results.append(
                            {
                                "network": network,
                                "success": name,
                                "of": first,
                                "against": second,
                                **asdict(test_result),
                            }
                        )
        return results


def transfer_matrix(
    networks: Mapping[str, ImageClassifier],
    conditions: Mapping[str, tuple[str, UInt8Images]],
    targets: Int64[Tensor, "n"],
    on_progress: Callable[[str], None] = lambda what: None,
) -> TransferMatrix:
    """Every kind of pictures (`clean` the first) before every network. `kinds` holds a title and the pictures of each."""
    clean = next(iter(conditions.values()))[1]
    rows = []
    for condition, (title, images) in conditions.items():
        predictions = {}
        for name, net in networks.items():
            on_progress(f"{name} sees the pictures: {title}")
            predictions[name] = predict_images(net, images, targets)
        rows.append(TransferRow(condition, title, float(l2_distances(images, clean).mean()), predictions))
    return TransferMatrix(tuple(rows), tuple(targets.tolist()))


def l2_distances(images: UInt8Images, clean: UInt8Images) -> Float[Tensor, "n"]:
    """How far pictures are from others: L2 of pixels in [0, 1]."""
    return (images.double() - clean.double()).flatten(1).norm(dim=1) / 255


def norm_matched_noise(clean: UInt8Images, l2: Float[Tensor, "n"], seed: int) -> UInt8Images:
    """The pictures with normal noise, in 8 bits as long (L2) as wanted; a picture's noise depends on the seed and its number."""
    return torch.stack(
        [
            norm_matched_noise_image(one, float(w) * 255, seed, n)
            for n, (one, w) in enumerate(zip(clean, l2, strict=True))
        ]
    )


def norm_matched_noise_image(
    clean: UInt8[Tensor, "c h w"], l2: float, seed: int, image_index: int
) -> UInt8[Tensor, "c h w"]:
    noise = torch.randn(clean.shape, generator=make_generator(seed, "fool control", image_index))

    def noisy_at(scale: float) -> Tensor:
        return (clean + scale * noise).round().clamp(0, 255)

    low, high = 0.0, 255.0  # rounding and the ends of [0, 255] change the length, so halving finds the scale
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if float((noisy_at(middle) - clean).norm()) < l2 else (low, middle)
    return noisy_at(high).to(torch.uint8)


def describe_transfer(results: TransferMatrix) -> list[str]:
    """The comment: what the numbers say and no more."""
    lines = []
    for network in results.networks:
        hits, untargeted, noise = (
            Proportion.from_hits(v)
            for v in (
                results.targeted_success("fooling", network),
                results.untargeted_success("fooling", network),
                results.untargeted_success("noise", network),
            )
        )
        verdict = ": no transfer of the target seen" if hits.hits == 0 else ""
        lines.append(
            f"{network}: takes {hits} for the target{verdict}; before, {sum(results.targeted_success('clean', network))}"
        )
        paired = mcnemar_result(
            results.untargeted_success("fooling", network), results.untargeted_success("noise", network)
        )
        lines.append(
            f"{network}: changes its mind on {untargeted}, on noise of the same L2 on {noise}: {describe_paired_test(paired, untargeted, noise)}"
        )
    return lines


def describe_paired_test(test_result: McNemarResult, first: Proportion, second: Proportion) -> str:
    """Whether two treatments of the same pictures differ, in words."""
    intervals_disjoint = first.low > second.high or second.low > first.high
    overlap = "" if intervals_disjoint else ", the intervals overlap"
    if not test_result.is_significant:
        return f"no difference seen (McNemar's exact p {p_value_text(test_result.p_value)}{overlap})"
    more = "more" if test_result.first_only > test_result.second_only else "less"
    return f"{more}, {test_result.first_only} against {test_result.second_only} of the pictures that differ (McNemar's exact p {p_value_text(test_result.p_value)}{overlap})"


def p_value_text(p: float) -> str:
    """
    >>> number(0.0312), number(1.0), number(0.00001)
    ('0.031', '1', 'below 0.001')
    """
    return "below 0.001" if p < 0.001 else f"{p:.2g}"


def describe_attack_comparison(results: TransferMatrix) -> list[str]:
    """The comment on climbing for transfer against plain ascent, if the matrix holds both."""
    rows_by_condition = {row.condition: row for row in results.rows}
    lines = []
    for other in ("plain_as_far", "plain"):
        if other not in rows_by_condition:
            continue
        lines.append(
            f"for transfer (L2 {rows_by_condition['fooling'].mean_l2:.2f}) against {rows_by_condition[other].title} (L2 {rows_by_condition[other].mean_l2:.2f}):"
        )
        for network in results.networks:
            for success, name in ((results.targeted_success, "target"), (results.untargeted_success, "another class")):
                transfer_success, plain_success = success("fooling", network), success(other, network)
                first, second = Proportion.from_hits(transfer_success), Proportion.from_hits(plain_success)
                lines.append(
                    f"  {network}, {name}: {first.hits} against {second.hits} of {first.count}: {describe_paired_test(mcnemar_result(transfer_success, plain_success), first, second)}"
                )
    return lines
