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

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.core.stats import ALPHA, Interval, holm, mcnemar, mean_interval, paired_t_test, wilson_interval
from convolab.data.annotations import BoundingBox, read_annotations
from convolab.data.image_io import read_image
from convolab.inspection.explain.sanity import sobel_edges
from convolab.inspection.localization.alignment import ALIGNMENT_KINDS, AlignmentKind, resize_alignment
from convolab.inspection.localization.boxes import iou, threshold_regions
from convolab.inspection.localization.dense import FullyConvolutional, Granularity, make_fully_convolutional
from convolab.inspection.localization.input_scale import InputScale
from convolab.inspection.localization.locate import ScaleResult, run_at_scale
from convolab.models.classifier import ImageClassifier

POINTING_TOLERANCE = (
    15.0  # pixels that a point may lie beside the box on a photo (of about 500 x 400), as its authors have it
)
BOX_THRESHOLDS = tuple(round(0.1 * i, 1) for i in range(1, 10))
IOU_LEVELS = (0.3, 0.5, 0.7)
BASELINES = ("centre", "random", "edges")
LocalizationMetric = Literal["pointing", "energy", "overlap"]
LOCALIZATION_METRICS: tuple[LocalizationMetric, ...] = get_args(LocalizationMetric)
Heatmap = Float[Tensor, "h w"]


@dataclass(frozen=True)
class ObjectAnnotation:
    """A kind of thing in a picture: the network's classes that it comprises, and where it is."""

    label: str
    classes: tuple[int, ...]
    boxes: tuple[BoundingBox, ...]


@dataclass(frozen=True)
class EvaluationSample:
    """A picture and what is where in it."""

    name: str
    open_image: Callable[[], UInt8[Tensor, "c h w"]]  # opens or makes it
    annotations: tuple[ObjectAnnotation, ...]
    tolerance: float = POINTING_TOLERANCE


def annotated_samples(folder: str, net: ImageClassifier) -> list[EvaluationSample]:
    """The scenes of a folder with boxes.json, see `read_boxed`. Raises LabError for a kind of thing that the network does not know."""
    from convolab.models.class_names import imagenet_class_names

    photos, category_classes = read_annotations(folder)
    is_imagenet = tuple(net.classes) == imagenet_class_names()[0]

    def class_indices(category: str) -> tuple[int, ...]:
        return (
            category_classes[category] if is_imagenet and category in category_classes else (net.find_class(category),)
        )

    return [
        EvaluationSample(
            annotated.path.name,
            lambda path=annotated.path: read_image(path),
            tuple(ObjectAnnotation(k, class_indices(k), boxes) for k, boxes in annotated.objects.items()),
        )
        for annotated in photos
    ]


@dataclass(frozen=True)
class ScoreRecord:
    """One kind of thing in one picture: by the name of each map, whether it points at it, its energy inside, its boxes' overlap."""

    sample: str
    label: str
    pointing_hits: dict[str, bool]
    energy_fractions: dict[str, float]
    ious: dict[str, tuple[float, ...]]  # one a threshold of THRESHOLDS


def evaluate_localization(
    net: ImageClassifier,
    samples: Sequence[EvaluationSample],
    scales: Sequence[InputScale],
    *,
    alignments: Sequence[AlignmentKind] = ALIGNMENT_KINDS,
    granularity: Granularity | None = None,
    seed: int = 0,
    setting_name: str | None = None,
    on_progress: Callable[[str], None] = lambda what: None,
) -> "LocalizationScore":
    """Hold a network's responses against where things are, placed by each of the `kinds`, beside the controls.

    Responses at several scales are averaged where they lie on the picture.
    """
    require(samples, "there is no picture to score on")
    fcn, setting = make_fully_convolutional(net), setting_name or f"scale {' + '.join(map(str, scales))}"
    records = []
    for sample_index, sample in enumerate(samples):
        on_progress(f"{setting}: picture {sample_index + 1} of {len(samples)}")
        records += sample_records(fcn, sample, scales, alignments, granularity or fcn.default_granularity, seed)
    return LocalizationScore(setting, (*alignments, *BASELINES), tuple(records), samples[0].tolerance)


def sample_records(
    fcn: FullyConvolutional,
    sample: EvaluationSample,
    scales: Sequence[InputScale],
    alignments: Sequence[AlignmentKind],
    granularity: Granularity,
    seed: int,
) -> Iterator[ScoreRecord]:
    image = sample.open_image()
    scale_results = [run_at_scale(fcn, image, scale, granularity) for scale in scales]
    size = tuple(image.shape[1:])
    for annotation in sample.annotations:
        target_class = max(
            annotation.classes, key=lambda index: float(scale_results[0].logits[index])
        )  # of several breeds of dog the likeliest
        heatmaps = {
            kind: torch.stack([a.upsampled_response(target_class, kind, size) for a in scale_results]).mean(0)
            for kind in alignments
        }
        heatmaps |= baseline_maps(scale_results[0], image, seed, sample.name, annotation.label)
        yield ScoreRecord(
            sample.name,
            annotation.label,
            {name: pointing_game_hit(heat, annotation.boxes, sample.tolerance) for name, heat in heatmaps.items()},
            {name: energy_pointing_game(heat, annotation.boxes) for name, heat in heatmaps.items()},
            {name: ious_by_threshold(heat, annotation.boxes) for name, heat in heatmaps.items()},
        )


def baseline_maps(scale_result: ScaleResult, image: UInt8[Tensor, "c h w"], seed: int, *key: str) -> dict[str, Heatmap]:
    """Maps that know nothing of the network: the picture's middle, random cells, and the picture's edges."""
    size = tuple(image.shape[1:])
    down, across = (1 - torch.linspace(-1, 1, side).abs() for side in size)
    cells = torch.rand(scale_result.response(0).shape, generator=make_generator(seed, "random response", *key))
    alignment = resize_alignment(scale_result.fcn, size, tuple(cells.shape), "cells")
    edge_map = sobel_edges(image.unsqueeze(0).float() / 255, cells)
    return {
        "centre": torch.minimum(down[:, None], across[None]),
        "random": alignment.upsample_to_image(cells, size),
        "edges": alignment.upsample_to_image(edge_map, size),
    }


def is_uninformative(heatmap: Heatmap) -> bool:
    return not bool(heatmap.isfinite().all()) or float(heatmap.max()) == float(heatmap.min())


def pointing_game_hit(heatmap: Heatmap, boxes: Sequence[BoundingBox], tolerance: float = POINTING_TOLERANCE) -> bool:
    """Whether a map's largest value lies in a box, or within some pixels of one; never that of a map that is constant or not finite.

    >>> heat = torch.zeros(50, 50); heat[10, 30] = 1.0
    >>> points_at(heat, [(0, 0, 16, 50)]), points_at(heat, [(0, 0, 10, 50)]), points_at(torch.zeros(9, 9), [(0, 0, 9, 9)])
    (True, False, False)
    """
    if is_uninformative(heatmap):
        return False
    row, column = divmod(int(heatmap.argmax()), heatmap.shape[1])
    offsets = [(max(l - column, column - (r - 1), 0), max(t - row, row - (b - 1), 0)) for l, t, r, b in boxes]  # noqa: E741
    return min((x * x + y * y) ** 0.5 for x, y in offsets) <= tolerance


def energy_pointing_game(heatmap: Heatmap, boxes: Sequence[BoundingBox]) -> float:
    """The share of a map's positive values that lies in the boxes; 0 for a map without any."""
    if is_uninformative(heatmap):
        return 0.0
    inside = torch.zeros_like(heatmap, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        inside[round(top) : round(bottom), round(left) : round(right)] = True
    positive = heatmap.clamp(min=0).double()
    total = float(positive.sum())
    return float(positive[inside].sum()) / total if total > 0 else 0.0


def ious_by_threshold(heatmap: Heatmap, boxes: Sequence[BoundingBox]) -> tuple[float, ...]:
    """For each threshold, how well the box around the map's strongest region fits the best of the boxes; 0 without a region."""
    strongest_regions = [threshold_regions(heatmap, threshold)[:1] for threshold in BOX_THRESHOLDS]
    return tuple(
        max((iou(region.box, box) for region in region_list for box in boxes), default=0.0)
        for region_list in strongest_regions
    )


@dataclass(frozen=True)
class MapComparison:
    """Two maps on the same things."""

    metric: LocalizationMetric
    first: str
    second: str
    difference: float  # of the shares or means: the first's less the second's
    discordant_counts: (
        tuple[int, int] | None
    )  # of the pointing game: things that only the first points at, and only the second
    p_value: float  # exact McNemar test of the pointing game, else paired t-test; by Holm for the measure's comparisons

    @property
    def is_significant(self) -> bool:
        return self.p_value <= ALPHA

    @property
    def better(self) -> str:
        return self.first if self.difference > 0 else self.second

    @property
    def worse(self) -> str:
        return self.second if self.better == self.first else self.first


@dataclass(frozen=True)
class LocalizationScore:
    """What was scored in one setting, such as a scale of the pictures."""

    setting: str
    map_names: tuple[str, ...]
    records: tuple[ScoreRecord, ...]
    tolerance: float = POINTING_TOLERANCE

    def pointing_game(self, name: str) -> tuple[int, tuple[float, float]]:
        """How many things a map points at, and Wilson's interval of their share."""
        hits = sum(item.pointing_hits[name] for item in self.records)
        return hits, wilson_interval(hits, len(self.records))

    def pointing_game_macro_mean(self, name: str) -> Interval:
        """The mean of each kind's share, every kind counting alike; the interval is over kinds."""
        hits_by_category: dict[str, list[bool]] = {}
        for item in self.records:
            hits_by_category.setdefault(item.label, []).append(item.pointing_hits[name])
        return mean_interval([sum(hits) / len(hits) for hits in hits_by_category.values()])

    def mean_energy(self, name: str) -> Interval:
        return mean_interval([item.energy_fractions[name] for item in self.records])

    @cached_property
    def folds(self) -> tuple[tuple[ScoreRecord, ...], tuple[ScoreRecord, ...]]:
        """The things of every second picture, and the others: what one half chooses is used on the other."""
        names = list(dict.fromkeys(item.sample for item in self.records))
        even = set(names[::2])
        return tuple(i for i in self.records if i.sample in even), tuple(
            i for i in self.records if i.sample not in even
        )

    def fold_thresholds(self, name: str) -> tuple[float, float]:
        """The threshold for each half: the one with the largest mean overlap on the other half."""
        return tuple(best_threshold(half, name) for half in self.folds[::-1])

    def cross_fitted_ious(self, name: str) -> list[float]:
        """Each thing's overlap, with the threshold chosen on the half that it is not in; in the halves' order."""
        pairs = zip(self.folds, self.fold_thresholds(name), strict=True)
        return [item.ious[name][BOX_THRESHOLDS.index(threshold)] for half, threshold in pairs for item in half]

    @cached_property
    def comparisons(self) -> tuple[MapComparison, ...]:
        """The placements with each other, and each of them with the control that points best, by every measure."""
        alignment_names = [name for name in self.map_names if name not in BASELINES]
        best_baseline = max(BASELINES, key=lambda name: self.pointing_game(name)[0])
        pairs = [(a, b) for i, a in enumerate(alignment_names) for b in alignment_names[i + 1 :]] + [
            (name, best_baseline) for name in alignment_names
        ]
        found = []
        for metric in LOCALIZATION_METRICS:
            uncorrected = [self.compare_maps(metric, *pair) for pair in pairs]
            found += [replace(c, p=p) for c, p in zip(uncorrected, holm([c.p_value for c in uncorrected]), strict=True)]
        return tuple(found)

    def compare_maps(self, metric: LocalizationMetric, first: str, second: str) -> MapComparison:
        """Two maps by one measure, not corrected for others."""
        if metric == "pointing":
            hits = [(item.pointing_hits[first], item.pointing_hits[second]) for item in self.records]
            discordant_counts = hits.count((True, False)), hits.count((False, True))
            return MapComparison(
                metric,
                first,
                second,
                (discordant_counts[0] - discordant_counts[1]) / len(hits),
                discordant_counts,
                mcnemar(*discordant_counts),
            )
        values = [
            [i.energy_fractions[n] for i in self.records] if metric == "energy" else self.cross_fitted_ious(n)
            for n in (first, second)
        ]
        test = paired_t_test(*values)  # None where nothing spreads: nothing is to be seen
        difference = sum(values[0]) / len(values[0]) - sum(values[1]) / len(values[1])
        return MapComparison(metric, first, second, difference, None, test.p if test else 1.0)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "setting": self.setting,
            "things": len(self.records),
            "kinds": len({item.label for item in self.records}),
            "tolerance": self.tolerance,
            "maps": {name: self.map_metrics(name) for name in self.map_names},
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "items": [asdict(item) for item in self.records],
        }

    def map_metrics(self, name: str) -> dict[str, Any]:
        hits, interval = self.pointing_game(name)
        ious = self.cross_fitted_ious(name)
        return {
            "hits": hits,
            "share": hits / len(self.records),
            "interval": list(interval),
            "mean_over_classes": asdict(self.pointing_game_macro_mean(name)),
            "energy": asdict(self.mean_energy(name)),
            "thresholds": list(self.fold_thresholds(name)),
            "overlap": asdict(mean_interval(ious)),
            "boxes": {
                str(level): {
                    "count": sum(f >= level for f in ious),
                    "interval": list(wilson_interval(sum(f >= level for f in ious), len(ious))),
                }
                for level in IOU_LEVELS
            },
        }


def best_threshold(items: Sequence[ScoreRecord], name: str) -> float:
    """The threshold with the largest mean overlap; the middle one where there is nothing to choose by."""
    if not items:
        return BOX_THRESHOLDS[len(BOX_THRESHOLDS) // 2]
    means = [sum(item.ious[name][i] for item in items) / len(items) for i in range(len(BOX_THRESHOLDS))]
    return BOX_THRESHOLDS[means.index(max(means))]


def describe_score(score: LocalizationScore) -> list[str]:
    """A score in words: how many things each map points at, and which differences are seen."""

    def pointing_text(name: str) -> str:
        hits, (low, high) = score.pointing_game(name)
        return f"{name} {hits} ({100 * low:.0f} to {100 * high:.0f} %)"

    alignment_names = [name for name in score.map_names if name not in BASELINES]
    lines = [
        f"{score.setting}, {len(score.records)} things, points at: {', '.join(map(pointing_text, alignment_names))}; controls: {', '.join(map(pointing_text, BASELINES))}"
    ]
    means = {
        measure: [f"{name} {100 * score.map_metrics(name)[measure]['mean']:.1f} %" for name in score.map_names]
        for measure in ("energy", "overlap")
    }
    return [
        *lines,
        f"  {describe_differences(score, 'pointing')}",
        f"  positive response inside: {', '.join(means['energy'])}; {describe_differences(score, 'energy')}",
        f"  overlap of boxes, thresholds from the other half: {', '.join(means['overlap'])}; {describe_differences(score, 'overlap')}",
    ]


def describe_differences(score: LocalizationScore, metric: LocalizationMetric) -> str:
    """Which maps differ in a measure, and which do not as far as can be seen."""
    comparisons = [c for c in score.comparisons if c.metric == metric]
    better = [f"{c.better} over {c.worse} (p = {c.p_value:.2g})" for c in comparisons if c.is_significant]
    undecided = [f"{c.first} and {c.second}" for c in comparisons if not c.is_significant]
    return f"differences seen: {', '.join(better) or 'none'}" + f"; none between {', '.join(undecided)}" * bool(
        undecided
    )
