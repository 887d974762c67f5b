"""How well responses are placed: pointing game, energy in the box and boxes' overlap, each beside maps that know nothing.

Pointing game: Zhang et al. 2016 (arXiv:1608.00507). Energy: Wang et al. 2020 (arXiv:1910.01279). Boxes from a threshold, which is
always chosen on the other half of the pictures: Choe et al. 2020 (arXiv:2001.07437) show what choosing it on the same ones hides.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.errors import need
from convolab.core.rng import generator
from convolab.core.stats import LEVEL, Interval, holm, mcnemar, mean_interval, paired, wilson_interval
from convolab.data.annotations import Corners, read_boxed
from convolab.data.image_io import open_photo
from convolab.inspection.explain.sanity import edges
from convolab.inspection.localization.alignment import KINDS, Kind, stretched
from convolab.inspection.localization.boxes import overlap, regions
from convolab.inspection.localization.dense import Dense, Over, dense
from convolab.inspection.localization.input_scale import Scale
from convolab.inspection.localization.locate import Answer, answer
from convolab.models.classifier import PixelNet

TOLERANCE = 15.0  # pixels that a point may lie beside the box on a photo (of about 500 x 400), as its authors have it
THRESHOLDS = tuple(round(0.1 * i, 1) for i in range(1, 10))
OVERLAPS = (0.3, 0.5, 0.7)
CONTROLS = ("centre", "random", "edges")
Measure = Literal["pointing", "energy", "overlap"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
Heat = Float[Tensor, "h w"]


@dataclass(frozen=True)
class Target:
    """A kind of thing in a picture: the network's classes that it comprises, and where it is."""

    label: str
    classes: tuple[int, ...]
    boxes: tuple[Corners, ...]


@dataclass(frozen=True)
class Scene:
    """A picture and what is where in it."""

    name: str
    photo: Callable[[], UInt8[Tensor, "c h w"]]  # opens or makes it
    targets: tuple[Target, ...]
    tolerance: float = TOLERANCE


def boxed_scenes(folder: str, net: PixelNet) -> list[Scene]:
    """The scenes of a folder with boxes.json, see `read_boxed`. Raises LabError for a kind of thing that the network does not know."""
    from convolab.models.class_names import imagenet

    photos, comprised = read_boxed(folder)
    thousand = tuple(net.classes) == imagenet()[0]

    def classes(kind: str) -> tuple[int, ...]:
        return comprised[kind] if thousand and kind in comprised else (net.find_class(kind),)

    return [
        Scene(
            boxed.path.name,
            lambda path=boxed.path: open_photo(path),
            tuple(Target(k, classes(k), boxes) for k, boxes in boxed.things.items()),
        )
        for boxed in photos
    ]


@dataclass(frozen=True)
class Item:
    """One kind of thing in one picture: by the name of each map, whether it points at it, its energy inside, its boxes' overlap."""

    scene: str
    label: str
    hit: dict[str, bool]
    energy: dict[str, float]
    overlaps: dict[str, tuple[float, ...]]  # one a threshold of THRESHOLDS


def score(
    net: PixelNet,
    scenes: Sequence[Scene],
    scales: Sequence[Scale],
    *,
    kinds: Sequence[Kind] = KINDS,
    over: Over | None = None,
    seed: int = 0,
    name: str | None = None,
    on_progress: Callable[[str], None] = lambda what: None,
) -> "Score":
    """Hold a network's responses against where things are, placed by each of the `kinds`, beside the controls.

    Responses at several scales are averaged where they lie on the picture.
    """
    need(scenes, "there is no picture to score on")
    everywhere, setting = dense(net), name or f"scale {' + '.join(map(str, scales))}"
    items = []
    for number, scene in enumerate(scenes):
        on_progress(f"{setting}: picture {number + 1} of {len(scenes)}")
        items += items_of(everywhere, scene, scales, kinds, over or everywhere.over, seed)
    return Score(setting, (*kinds, *CONTROLS), tuple(items), scenes[0].tolerance)


def items_of(
    everywhere: Dense, scene: Scene, scales: Sequence[Scale], kinds: Sequence[Kind], over: Over, seed: int
) -> Iterator[Item]:
    photo = scene.photo()
    given = [answer(everywhere, photo, scale, over) for scale in scales]
    size = tuple(photo.shape[1:])
    for target in scene.targets:
        meant = max(
            target.classes, key=lambda index: float(given[0].logits[index])
        )  # of several breeds of dog the likeliest
        heats = {kind: torch.stack([a.laid(meant, kind, size) for a in given]).mean(0) for kind in kinds}
        heats |= controls(given[0], photo, seed, scene.name, target.label)
        yield Item(
            scene.name,
            target.label,
            {name: points_at(heat, target.boxes, scene.tolerance) for name, heat in heats.items()},
            {name: energy_inside(heat, target.boxes) for name, heat in heats.items()},
            {name: overlaps(heat, target.boxes) for name, heat in heats.items()},
        )


def controls(given: Answer, photo: UInt8[Tensor, "c h w"], seed: int, *key: str) -> dict[str, Heat]:
    """Maps that know nothing of the network: the picture's middle, random cells, and the picture's edges."""
    size = tuple(photo.shape[1:])
    down, across = (1 - torch.linspace(-1, 1, side).abs() for side in size)
    cells = torch.rand(given.response(0).shape, generator=generator(seed, "random response", *key))
    laid = stretched(given.dense, size, tuple(cells.shape), "cells")
    sharp = edges(photo.unsqueeze(0).float() / 255, cells)
    return {
        "centre": torch.minimum(down[:, None], across[None]),
        "random": laid.lay(cells, size),
        "edges": laid.lay(sharp, size),
    }


def worthless(heat: Heat) -> bool:
    return not bool(heat.isfinite().all()) or float(heat.max()) == float(heat.min())


def points_at(heat: Heat, boxes: Sequence[Corners], tolerance: float = TOLERANCE) -> bool:
    """Whether a map's largest value lies in a box, or within some pixels of one; never that of a map that is constant or not finite.

    >>> heat = torch.zeros(50, 50); heat[10, 30] = 1.0
    >>> points_at(heat, [(0, 0, 16, 50)]), points_at(heat, [(0, 0, 10, 50)]), points_at(torch.zeros(9, 9), [(0, 0, 9, 9)])
    (True, False, False)
    """
    if worthless(heat):
        return False
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    away = [(max(l - column, column - (r - 1), 0), max(t - row, row - (b - 1), 0)) for l, t, r, b in boxes]  # noqa: E741
    return min((x * x + y * y) ** 0.5 for x, y in away) <= tolerance


def energy_inside(heat: Heat, boxes: Sequence[Corners]) -> float:
    """The share of a map's positive values that lies in the boxes; 0 for a map without any."""
    if worthless(heat):
        return 0.0
    inside = torch.zeros_like(heat, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        inside[round(top) : round(bottom), round(left) : round(right)] = True
    positive = heat.clamp(min=0).double()
    total = float(positive.sum())
    return float(positive[inside].sum()) / total if total > 0 else 0.0


def overlaps(heat: Heat, boxes: Sequence[Corners]) -> tuple[float, ...]:
    """For each threshold, how well the box around the map's strongest region fits the best of the boxes; 0 without a region."""
    found = [regions(heat, threshold)[:1] for threshold in THRESHOLDS]
    return tuple(max((overlap(region.corners, box) for region in some for box in boxes), default=0.0) for some in found)


@dataclass(frozen=True)
class Comparison:
    """Two maps on the same things."""

    measure: Measure
    first: str
    second: str
    difference: float  # of the shares or means: the first's less the second's
    alone: tuple[int, int] | None  # of the pointing game: things that only the first points at, and only the second
    p: float  # exact McNemar test of the pointing game, else paired t-test; by Holm for the measure's comparisons

    @property
    def seen(self) -> bool:
        return self.p <= LEVEL

    @property
    def better(self) -> str:
        return self.first if self.difference > 0 else self.second

    @property
    def worse(self) -> str:
        return self.second if self.better == self.first else self.first


@dataclass(frozen=True)
class Score:
    """What was scored in one setting, such as a scale of the pictures."""

    setting: str
    maps: tuple[str, ...]
    items: tuple[Item, ...]
    tolerance: float = TOLERANCE

    def pointing(self, name: str) -> tuple[int, tuple[float, float]]:
        """How many things a map points at, and Wilson's interval of their share."""
        hits = sum(item.hit[name] for item in self.items)
        return hits, wilson_interval(hits, len(self.items))

    def mean_over_classes(self, name: str) -> Interval:
        """The mean of each kind's share, every kind counting alike; the interval is over kinds."""
        kinds: dict[str, list[bool]] = {}
        for item in self.items:
            kinds.setdefault(item.label, []).append(item.hit[name])
        return mean_interval([sum(hits) / len(hits) for hits in kinds.values()])

    def energy(self, name: str) -> Interval:
        return mean_interval([item.energy[name] for item in self.items])

    @cached_property
    def halves(self) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
        """The things of every second picture, and the others: what one half chooses is used on the other."""
        names = list(dict.fromkeys(item.scene for item in self.items))
        even = set(names[::2])
        return tuple(i for i in self.items if i.scene in even), tuple(i for i in self.items if i.scene not in even)

    def thresholds(self, name: str) -> tuple[float, float]:
        """The threshold for each half: the one with the largest mean overlap on the other half."""
        return tuple(chosen(half, name) for half in self.halves[::-1])

    def held_out(self, name: str) -> list[float]:
        """Each thing's overlap, with the threshold chosen on the half that it is not in; in the halves' order."""
        pairs = zip(self.halves, self.thresholds(name), strict=True)
        return [item.overlaps[name][THRESHOLDS.index(threshold)] for half, threshold in pairs for item in half]

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The placements with each other, and each of them with the control that points best, by every measure."""
        placed = [name for name in self.maps if name not in CONTROLS]
        strongest = max(CONTROLS, key=lambda name: self.pointing(name)[0])
        pairs = [(a, b) for i, a in enumerate(placed) for b in placed[i + 1 :]] + [(name, strongest) for name in placed]
        found = []
        for measure in MEASURES:
            raw = [self.compared(measure, *pair) for pair in pairs]
            found += [replace(c, p=p) for c, p in zip(raw, holm([c.p for c in raw]), strict=True)]
        return tuple(found)

    def compared(self, measure: Measure, first: str, second: str) -> Comparison:
        """Two maps by one measure, not corrected for others."""
        if measure == "pointing":
            hits = [(item.hit[first], item.hit[second]) for item in self.items]
            alone = hits.count((True, False)), hits.count((False, True))
            return Comparison(measure, first, second, (alone[0] - alone[1]) / len(hits), alone, mcnemar(*alone))
        values = [
            [i.energy[n] for i in self.items] if measure == "energy" else self.held_out(n) for n in (first, second)
        ]
        test = paired(*values)  # None where nothing spreads: nothing is to be seen
        difference = sum(values[0]) / len(values[0]) - sum(values[1]) / len(values[1])
        return Comparison(measure, first, second, difference, None, test.p if test else 1.0)

    def values(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "setting": self.setting,
            "things": len(self.items),
            "kinds": len({item.label for item in self.items}),
            "tolerance": self.tolerance,
            "maps": {name: self.facts(name) for name in self.maps},
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "items": [asdict(item) for item in self.items],
        }

    def facts(self, name: str) -> dict[str, Any]:
        hits, interval = self.pointing(name)
        fits = self.held_out(name)
        return {
            "hits": hits,
            "share": hits / len(self.items),
            "interval": list(interval),
            "mean_over_classes": asdict(self.mean_over_classes(name)),
            "energy": asdict(self.energy(name)),
            "thresholds": list(self.thresholds(name)),
            "overlap": asdict(mean_interval(fits)),
            "boxes": {
                str(level): {
                    "count": sum(f >= level for f in fits),
                    "interval": list(wilson_interval(sum(f >= level for f in fits), len(fits))),
                }
                for level in OVERLAPS
            },
        }


def chosen(items: Sequence[Item], name: str) -> float:
    """The threshold with the largest mean overlap; the middle one where there is nothing to choose by."""
    if not items:
        return THRESHOLDS[len(THRESHOLDS) // 2]
    means = [sum(item.overlaps[name][i] for item in items) / len(items) for i in range(len(THRESHOLDS))]
    return THRESHOLDS[means.index(max(means))]


def said(score: Score) -> list[str]:
    """A score in words: how many things each map points at, and which differences are seen."""

    def points(name: str) -> str:
        hits, (low, high) = score.pointing(name)
        return f"{name} {hits} ({100 * low:.0f} to {100 * high:.0f} %)"

    placed = [name for name in score.maps if name not in CONTROLS]
    lines = [
        f"{score.setting}, {len(score.items)} things, points at: {', '.join(map(points, placed))}; controls: {', '.join(map(points, CONTROLS))}"
    ]
    means = {
        measure: [f"{name} {100 * score.facts(name)[measure]['mean']:.1f} %" for name in score.maps]
        for measure in ("energy", "overlap")
    }
    return [
        *lines,
        f"  {differences(score, 'pointing')}",
        f"  positive response inside: {', '.join(means['energy'])}; {differences(score, 'energy')}",
        f"  overlap of boxes, thresholds from the other half: {', '.join(means['overlap'])}; {differences(score, 'overlap')}",
    ]


def differences(score: Score, measure: Measure) -> str:
    """Which maps differ in a measure, and which do not as far as can be seen."""
    some = [c for c in score.comparisons if c.measure == measure]
    better = [f"{c.better} over {c.worse} (p = {c.p:.2g})" for c in some if c.seen]
    unseen = [f"{c.first} and {c.second}" for c in some if not c.seen]
    return f"differences seen: {', '.join(better) or 'none'}" + f"; none between {', '.join(unseen)}" * bool(unseen)
