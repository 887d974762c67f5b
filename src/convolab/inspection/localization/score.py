"""A localization score: what each map reached in one setting, and which differences between maps are significant.

The threshold of a box is always chosen on the other half of the images: Choe et al. 2020 (arXiv:2001.07437) show what
choosing it on the same ones hides.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Literal, TypedDict, get_args

from convolab.core.stats import ALPHA, Interval, holm, mcnemar, mean_interval, paired_t_test, wilson_interval
from convolab.core.text import format_p_value
from convolab.core.types import Json
from convolab.inspection.localization.metrics import BOX_THRESHOLDS, IOU_LEVELS
from convolab.inspection.localization.samples import EvaluationSetting

BASELINES = ("center", "random", "edges")
LocalizationMetric = Literal["pointing_game", "energy_in_box", "iou"]
LOCALIZATION_METRICS: tuple[LocalizationMetric, ...] = get_args(LocalizationMetric)


@dataclass(frozen=True)
class ScoreRecord:
    """The objects of one category in one image: what each map, by its name, reached on them."""

    sample: str
    label: str
    pointing_hits: dict[str, bool]
    energy_fractions: dict[str, float]
    ious: dict[str, tuple[float, ...]]  # one for each of BOX_THRESHOLDS


@dataclass(frozen=True)
class MapComparison:
    """Two maps on the same objects."""

    metric: LocalizationMetric
    first: str
    second: str
    difference: float  # of the fractions or means: first minus second
    discordant_counts: tuple[int, int] | None  # pointing game: objects that only the first, only the second map hits
    p_value: float  # exact McNemar test of the pointing game, else paired t-test; Holm-corrected within the metric

    @property
    def is_significant(self) -> bool:
        return self.p_value <= ALPHA

    @property
    def better(self) -> str:
        return self.first if self.difference > 0 else self.second

    @property
    def worse(self) -> str:
        return self.second if self.better == self.first else self.first


class BoxAccuracy(TypedDict):
    """How many boxes reach an IoU."""

    count: int
    interval: list[float]  # Wilson's, of the fraction


class MapMetrics(TypedDict):
    """What one map reached in a setting. Fractions are in [0, 1]; intervals are 95 % intervals."""

    hits: int  # of the pointing game
    fraction: float
    interval: list[float]
    pointing_game_macro_mean: Interval
    energy: Interval
    thresholds: list[float]
    iou: Interval
    box_accuracy: dict[str, BoxAccuracy]  # by the IoU that a box must reach


@dataclass(frozen=True)
class LocalizationScore:
    """A network's maps and the baselines in one setting."""

    setting: EvaluationSetting
    map_names: tuple[str, ...]
    records: tuple[ScoreRecord, ...]

    @property
    def alignment_names(self) -> list[str]:
        """The network's maps, one for each alignment."""
        return [name for name in self.map_names if name not in BASELINES]

    def pointing_game(self, name: str) -> tuple[int, tuple[float, float]]:
        """How many objects a map hits, and Wilson's interval of their fraction."""
        hits = sum(record.pointing_hits[name] for record in self.records)
        return hits, wilson_interval(hits, len(self.records))

    def pointing_game_macro_mean(self, name: str) -> Interval:
        """The mean over categories of the fraction that a map hits; the interval is over categories."""
        hits_by_category: dict[str, list[bool]] = {}
        for record in self.records:
            hits_by_category.setdefault(record.label, []).append(record.pointing_hits[name])
        return mean_interval([sum(hits) / len(hits) for hits in hits_by_category.values()])

    def mean_energy(self, name: str) -> Interval:
        """The mean fraction of a map's positive values that lies in the boxes."""
        return mean_interval([record.energy_fractions[name] for record in self.records])

    @cached_property
    def folds(self) -> tuple[tuple[ScoreRecord, ...], tuple[ScoreRecord, ...]]:
        """The objects of every second image, and the others: what is chosen on one half is used on the other."""
        names = list(dict.fromkeys(record.sample for record in self.records))
        even = set(names[::2])
        first = tuple(record for record in self.records if record.sample in even)
        second = tuple(record for record in self.records if record.sample not in even)
        return first, second

    def fold_thresholds(self, name: str) -> tuple[float, float]:
        """The threshold for each half: the one with the largest mean IoU on the other half."""
        first, second = self.folds
        return best_threshold(second, name), best_threshold(first, name)

    def cross_fitted_ious(self, name: str) -> list[float]:
        """Each object's IoU, with the threshold chosen on the half that it is not in; in the order of the halves."""
        return [
            record.ious[name][BOX_THRESHOLDS.index(threshold)]
            for fold, threshold in zip(self.folds, self.fold_thresholds(name), strict=True)
            for record in fold
        ]

    @cached_property
    def comparisons(self) -> tuple[MapComparison, ...]:
        """The alignments with each other, and each of them with the baseline that hits most, by every metric."""
        names = self.alignment_names
        best_baseline = max(BASELINES, key=lambda name: self.pointing_game(name)[0])
        pairs = [(first, second) for i, first in enumerate(names) for second in names[i + 1 :]]
        pairs += [(name, best_baseline) for name in names]
        comparisons: list[MapComparison] = []
        for metric in LOCALIZATION_METRICS:
            uncorrected = [self.compare_maps(metric, *pair) for pair in pairs]
            p_values = holm([comparison.p_value for comparison in uncorrected])
            comparisons += [replace(c, p_value=p) for c, p in zip(uncorrected, p_values, strict=True)]
        return tuple(comparisons)

    def compare_maps(self, metric: LocalizationMetric, first: str, second: str) -> MapComparison:
        """Two maps by one metric, not corrected for other comparisons."""
        if metric == "pointing_game":
            hits = [(record.pointing_hits[first], record.pointing_hits[second]) for record in self.records]
            only_first = hits.count((True, False))
            only_second = hits.count((False, True))
            difference = (only_first - only_second) / len(hits)
            p_value = mcnemar(only_first, only_second)
            return MapComparison(metric, first, second, difference, (only_first, only_second), p_value)
        first_values = self._values(metric, first)
        second_values = self._values(metric, second)
        test = paired_t_test(first_values, second_values)  # None where nothing varies: no difference can be seen
        difference = sum(first_values) / len(first_values) - sum(second_values) / len(second_values)
        return MapComparison(metric, first, second, difference, None, test.p if test else 1.0)

    def _values(self, metric: LocalizationMetric, name: str) -> list[float]:
        if metric == "energy_in_box":
            return [record.energy_fractions[name] for record in self.records]
        return self.cross_fitted_ious(name)

    def map_metrics(self, name: str) -> MapMetrics:
        """What one map reached."""
        hits, interval = self.pointing_game(name)
        ious = self.cross_fitted_ious(name)
        return {
            "hits": hits,
            "fraction": hits / len(self.records),
            "interval": list(interval),
            "pointing_game_macro_mean": self.pointing_game_macro_mean(name),
            "energy": self.mean_energy(name),
            "thresholds": list(self.fold_thresholds(name)),
            "iou": mean_interval(ious),
            "box_accuracy": {str(level): box_accuracy(ious, level) for level in IOU_LEVELS},
        }

    def to_dict(self) -> dict[str, Json]:
        """The score as values that JSON can hold."""
        setting = self.setting
        return {
            "setting": setting.name,
            "background": setting.background,
            "object_size": setting.object_size,
            "shorter_side": setting.shorter_side,
            "num_objects": len(self.records),
            "num_categories": len({record.label for record in self.records}),
            "tolerance": setting.tolerance,
            "maps": {name: plain_values(self.map_metrics(name)) for name in self.map_names},
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "records": [asdict(record) for record in self.records],
        }


def best_threshold(records: Sequence[ScoreRecord], name: str) -> float:
    """The threshold with the largest mean IoU; the middle one where there is nothing to choose by."""
    if not records:
        return BOX_THRESHOLDS[len(BOX_THRESHOLDS) // 2]
    means = [sum(record.ious[name][i] for record in records) / len(records) for i in range(len(BOX_THRESHOLDS))]
    return BOX_THRESHOLDS[means.index(max(means))]


def box_accuracy(ious: Sequence[float], level: float) -> BoxAccuracy:
    """How many of some boxes reach an IoU."""
    count = sum(value >= level for value in ious)
    return {"count": count, "interval": list(wilson_interval(count, len(ious)))}


def plain_values(metrics: MapMetrics) -> dict[str, Json]:
    """A map's metrics with its intervals as dicts."""
    return {
        "hits": metrics["hits"],
        "fraction": metrics["fraction"],
        "interval": metrics["interval"],
        "pointing_game_macro_mean": asdict(metrics["pointing_game_macro_mean"]),
        "energy": asdict(metrics["energy"]),
        "thresholds": metrics["thresholds"],
        "iou": asdict(metrics["iou"]),
        "box_accuracy": {
            level: {"count": a["count"], "interval": a["interval"]} for level, a in metrics["box_accuracy"].items()
        },
    }


def describe_score(score: LocalizationScore) -> list[str]:
    """A score in words: how many objects each map hits, and which differences are significant."""

    def hits_text(names: Sequence[str]) -> str:
        texts = []
        for name in names:
            hits, (low, high) = score.pointing_game(name)
            texts.append(f"{name} {hits} ({100 * low:.0f} to {100 * high:.0f} %)")
        return ", ".join(texts)

    metrics = {name: score.map_metrics(name) for name in score.map_names}
    energies = ", ".join(f"{name} {100 * values['energy'].mean:.1f} %" for name, values in metrics.items())
    ious = ", ".join(f"{name} {100 * values['iou'].mean:.1f} %" for name, values in metrics.items())
    return [
        f"{score.setting.name}, {len(score.records)} objects, pointing game hits: {hits_text(score.alignment_names)}; "
        f"baselines: {hits_text(BASELINES)}",
        f"  {describe_differences(score, 'pointing_game')}",
        f"  energy in the box: {energies}; {describe_differences(score, 'energy_in_box')}",
        f"  IoU, thresholds from the other fold: {ious}; {describe_differences(score, 'iou')}",
    ]


def describe_differences(score: LocalizationScore, metric: LocalizationMetric) -> str:
    """Which maps differ significantly in a metric, and which do not."""
    comparisons = [comparison for comparison in score.comparisons if comparison.metric == metric]
    better = [f"{c.better} over {c.worse} ({format_p_value(c.p_value)})" for c in comparisons if c.is_significant]
    undecided = [f"{c.first} and {c.second}" for c in comparisons if not c.is_significant]
    text = f"significant differences: {', '.join(better) or 'none'}"
    return f"{text}; not significant: {', '.join(undecided)}" if undecided else text
