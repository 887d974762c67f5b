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

from convolab.core.errors import need
from convolab.core.rng import generator
from convolab.core.stats import LEVEL, mcnemar, wilson_interval
from convolab.models.classifier import PixelNet, undisturbed

Bytes = UInt8[Tensor, "n c h w"]
Logits = Float[Tensor, "n classes"]
CHUNK = 8  # pictures a pass


@dataclass(frozen=True)
class Share:
    """How many of some pictures, with Wilson's 95 % interval.

    >>> print(Share.of([True, False, False, False]))
    1 of 4 (25 %, 95 % interval 5 to 70 %)
    """

    hits: int
    count: int
    share: float
    low: float
    high: float

    @staticmethod
    def of(hits: Sequence[bool]) -> "Share":
        need(len(hits) > 0, "no pictures: a share needs at least one")
        return Share(sum(hits), len(hits), sum(hits) / len(hits), *wilson_interval(sum(hits), len(hits)))

    def __str__(self) -> str:
        return f"{self.hits} of {self.count} ({self.interval})"

    @property
    def interval(self) -> str:
        return f"{100 * self.share:.0f} %, 95 % interval {100 * self.low:.0f} to {100 * self.high:.0f} %"


@dataclass(frozen=True)
class Discordant:
    """Two treatments of the same pictures: how many succeeded with the first alone, with the second alone, and McNemar's exact p."""

    first: int
    second: int
    p: float

    @property
    def seen(self) -> bool:
        return self.p < LEVEL


def discordant(first: Sequence[bool], second: Sequence[bool]) -> Discordant:
    """The pictures for which two treatments ended differently; the others say nothing of which is better.

    >>> discordant([True] * 6 + [False], [False] * 7)
    Discordant(first=6, second=0, p=0.03125)
    """
    alone = [sum(a and not b for a, b in zip(*order, strict=True)) for order in ((first, second), (second, first))]
    return Discordant(*alone, mcnemar(*alone))


@dataclass(frozen=True)
class Views:
    """What one network makes of pictures that it brought to its own size: for each its class, and the target's place in it."""

    classes: tuple[int, ...]
    confidences: tuple[float, ...]  # the class's probability
    ranks: tuple[int, ...]  # the target's; 1 is the most probable
    probabilities: tuple[float, ...]  # the target's


def views(net: PixelNet, pictures: Bytes, targets: Int64[Tensor, "n"]) -> Views:
    """Pictures through a network's own `fit`, as if they had been read from their files."""
    return judged(respond(net, [net.fit(picture) for picture in pictures]), targets)


def respond(net: PixelNet, pixels: Sequence[Float[Tensor, "1 c h w"]]) -> Logits:
    """The logits of pictures of one size."""
    with undisturbed(net), torch.no_grad():
        return torch.cat(
            [net(torch.cat(list(pixels[i : i + CHUNK])).to(net.scale)) for i in range(0, len(pixels), CHUNK)]
        )


def judged(logits: Logits, targets: Int64[Tensor, "n"]) -> Views:
    """What logits say."""
    shares = logits.double().softmax(1)
    aim = shares.gather(1, targets[:, None])
    best = shares.max(1)
    ranks = (logits > logits.gather(1, targets[:, None])).sum(1) + 1
    return Views(
        tuple(best.indices.tolist()), tuple(best.values.tolist()), tuple(ranks.tolist()), tuple(aim[:, 0].tolist())
    )


@dataclass(frozen=True)
class Row:
    """One kind of pictures before the other networks."""

    kind: str  # clean, noise, fooling, ...
    title: str
    length: float  # their mean L2 from the clean ones
    views: Mapping[str, Views]  # by network


@dataclass(frozen=True)
class Matrix:
    """Kinds of pictures against networks; the first row is the clean ones', which `untargeted` success is measured against."""

    rows: tuple[Row, ...]
    targets: tuple[int, ...]

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(self.rows[0].views)

    def row(self, kind: str) -> Row:
        return next(row for row in self.rows if row.kind == kind)

    def targeted(self, kind: str, network: str) -> list[bool]:
        """Of each picture, whether the network takes it for its target."""
        return [
            found == target for found, target in zip(self.row(kind).views[network].classes, self.targets, strict=True)
        ]

    def untargeted(self, kind: str, network: str) -> list[bool]:
        """Of each picture, whether the network takes it for another class than the clean one."""
        clean = self.rows[0].views[network].classes
        return [found != before for found, before in zip(self.row(kind).views[network].classes, clean, strict=True)]

    def values(self) -> dict[str, Any]:
        """The shares and what goes with them, for JSON."""
        return {
            row.kind: {"title": row.title, "l2": row.length, "networks": {n: self.cell(row, n) for n in self.networks}}
            for row in self.rows
        }

    def cell(self, row: Row, network: str) -> dict[str, Any]:
        seen = row.views[network]
        return {
            "targeted": asdict(Share.of(self.targeted(row.kind, network))),
            "untargeted": asdict(Share.of(self.untargeted(row.kind, network))),
            "target_rank_median": int(torch.tensor(seen.ranks).median()),
            "target_probability_mean": sum(seen.probabilities) / len(seen.probabilities),
        }

    def tests(self) -> list[dict[str, Any]]:
        """The paired comparisons: fooling with noise, and for transfer with plain ascent, on each network and both successes."""
        kinds = [row.kind for row in self.rows]
        found = []
        for network in self.networks:
            for first, second in (("fooling", "noise"), ("fooling", "plain_as_far"), ("fooling", "plain")):
                if first in kinds and second in kinds:
                    for success in (self.targeted, self.untargeted):
                        paired = discordant(success(first, network), success(second, network))
                        found.append(
                            {
                                "network": network,
                                "success": success.__name__,
                                "of": first,
                                "against": second,
                                **asdict(paired),
                            }
                        )
        return found


def matrix(
    networks: Mapping[str, PixelNet],
    kinds: Mapping[str, tuple[str, Bytes]],
    targets: Int64[Tensor, "n"],
    on_progress: Callable[[str], None] = lambda what: None,
) -> Matrix:
    """Every kind of pictures (`clean` the first) before every network. `kinds` holds a title and the pictures of each."""
    clean = next(iter(kinds.values()))[1]
    rows = []
    for kind, (title, pictures) in kinds.items():
        found = {}
        for name, net in networks.items():
            on_progress(f"{name} sees the pictures: {title}")
            found[name] = views(net, pictures, targets)
        rows.append(Row(kind, title, float(lengths(pictures, clean).mean()), found))
    return Matrix(tuple(rows), tuple(targets.tolist()))


def lengths(pictures: Bytes, clean: Bytes) -> Float[Tensor, "n"]:
    """How far pictures are from others: L2 of pixels in [0, 1]."""
    return (pictures.double() - clean.double()).flatten(1).norm(dim=1) / 255


def noisy(clean: Bytes, wanted: Float[Tensor, "n"], seed: int) -> Bytes:
    """The pictures with normal noise, in 8 bits as long (L2) as wanted; a picture's noise depends on the seed and its number."""
    return torch.stack(
        [noisy_one(one, float(w) * 255, seed, n) for n, (one, w) in enumerate(zip(clean, wanted, strict=True))]
    )


def noisy_one(clean: UInt8[Tensor, "c h w"], wanted: float, seed: int, number: int) -> UInt8[Tensor, "c h w"]:
    drawn = torch.randn(clean.shape, generator=generator(seed, "fool control", number))

    def at(scale: float) -> Tensor:
        return (clean + scale * drawn).round().clamp(0, 255)

    low, high = 0.0, 255.0  # rounding and the ends of [0, 255] change the length, so halving finds the scale
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if float((at(middle) - clean).norm()) < wanted else (low, middle)
    return at(high).to(torch.uint8)


def said(found: Matrix) -> list[str]:
    """The comment: what the numbers say and no more."""
    lines = []
    for network in found.networks:
        hits, moved, noise = (
            Share.of(v)
            for v in (
                found.targeted("fooling", network),
                found.untargeted("fooling", network),
                found.untargeted("noise", network),
            )
        )
        verdict = ": no transfer of the target seen" if hits.hits == 0 else ""
        lines.append(
            f"{network}: takes {hits} for the target{verdict}; before, {sum(found.targeted('clean', network))}"
        )
        paired = discordant(found.untargeted("fooling", network), found.untargeted("noise", network))
        lines.append(
            f"{network}: changes its mind on {moved}, on noise of the same L2 on {noise}: {verdict_of(paired, moved, noise)}"
        )
    return lines


def verdict_of(paired: Discordant, first: Share, second: Share) -> str:
    """Whether two treatments of the same pictures differ, in words."""
    apart = first.low > second.high or second.low > first.high
    overlap = "" if apart else ", the intervals overlap"
    if not paired.seen:
        return f"no difference seen (McNemar's exact p {number(paired.p)}{overlap})"
    more = "more" if paired.first > paired.second else "less"
    return f"{more}, {paired.first} against {paired.second} of the pictures that differ (McNemar's exact p {number(paired.p)}{overlap})"


def number(p: float) -> str:
    """
    >>> number(0.0312), number(1.0), number(0.00001)
    ('0.031', '1', 'below 0.001')
    """
    return "below 0.001" if p < 0.001 else f"{p:.2g}"


def compared(found: Matrix) -> list[str]:
    """The comment on climbing for transfer against plain ascent, if the matrix holds both."""
    kinds = {row.kind: row for row in found.rows}
    lines = []
    for other in ("plain_as_far", "plain"):
        if other not in kinds:
            continue
        lines.append(
            f"for transfer (L2 {kinds['fooling'].length:.2f}) against {kinds[other].title} (L2 {kinds[other].length:.2f}):"
        )
        for network in found.networks:
            for success, name in ((found.targeted, "target"), (found.untargeted, "another class")):
                ours, theirs = success("fooling", network), success(other, network)
                first, second = Share.of(ours), Share.of(theirs)
                lines.append(
                    f"  {network}, {name}: {first.hits} against {second.hits} of {first.count}: {verdict_of(discordant(ours, theirs), first, second)}"
                )
    return lines
