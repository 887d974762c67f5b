"""What a study can show, and with how many seeds, before it is trained.

Everything follows from the spread of a contrast: the standard deviation, over seeds, of the difference that it is about.
Effects are differences in units of the spread. A contrast is tested at the strictest level of Holm's correction, 5 %
divided by the number of its section's contrasts: others that are decided first can only make it easier.
"""

import math
import reprlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, NamedTuple, cast

from convolab.core.display import Displayable
from convolab.core.environment import count_usable_cores
from convolab.core.errors import LabError, require, suggest
from convolab.core.sequential import FIRST_LOOK, MAX_PAIRS, Estimate, look_levels, planned_looks
from convolab.core.stats import ALPHA, MAX_PLANNED_PAIRS, POWER, t_ppf
from convolab.core.text import format_duration, join_with_and, pluralize
from convolab.studies.contrast import Contrast
from convolab.studies.decide import FIRST_FUTILITY_LOOK, MIN_CHANCE, chance, share_level
from convolab.studies.formatting import display_scale, format_margin
from convolab.studies.metrics import Metric
from convolab.studies.study import Study
from convolab.training.recipe import Recipe, recipe_key

SEED_COUNTS = (3, 5, 8, 12, 20)  # for which the smallest differences are listed, besides the study's own
MAX_SPREAD = 1e9
BOUND_CONFIDENCE = 0.9  # of a spread's upper bound
NUM_SIMULATED = 20_000  # contrasts: the effect's error is about half a percent
ArmKey = tuple[str, str]  # section and arm


@dataclass(frozen=True)
class Spread:
    """The standard deviation of a contrast's difference over seeds, in the metric's own unit: an accuracy's is a fraction.

    >>> round(Spread(0.01, "its own pairs", 2).high, 4)
    0.0308
    """

    value: float
    source: Literal["given", "its own pairs", "all pairs of the metric"]
    degrees_of_freedom: int | None = None  # of the estimate; None where it was given

    @property
    def high(self) -> float:
        """The 90 % upper bound of an estimate, by the chi-square distribution: few seeds say little of a spread."""
        from scipy.special import chdtri

        if self.degrees_of_freedom is None:
            return self.value
        return self.value * math.sqrt(
            self.degrees_of_freedom / float(chdtri(self.degrees_of_freedom, BOUND_CONFIDENCE))
        )


class SequentialEffect(NamedTuple):
    """What a contrast with seeds "until decided" can show."""

    effect: float  # the smallest that is found with the wanted power, in spreads
    mean_seeds: float  # until it is decided or given up, if this is the true effect


@cache
def smallest_effect(seeds: int, level: float, power: float = POWER) -> float:
    """The smallest effect that a two-sided paired t-test of so many pairs finds with this power; infinite for one pair.

    By the noncentral t distribution; rejections in the opposite tail are neglected.

    >>> round(smallest_effect(5, 0.05), 3), round(smallest_effect(5, 0.05 / 4), 3)
    (1.682, 2.477)
    """
    from scipy.special import nctdtrinc

    if seeds < 2:
        return math.inf
    return max(0.0, float(nctdtrinc(seeds - 1, 1 - power, t_ppf(1 - level / 2, seeds - 1)))) / math.sqrt(seeds)


def seeds_to_differ(effect: float, level: float, power: float = POWER) -> int | None:
    """How many pairs find this effect with this power; None: over 1,000.

    >>> seeds_to_differ(1.0, 0.05), seeds_to_differ(0.01, 0.05)
    (10, None)
    """
    counts = range(2, MAX_PLANNED_PAIRS + 1)
    index = bisect_left(counts, -effect, key=lambda seeds: -smallest_effect(seeds, level, power))
    return counts[index] if index < len(counts) else None


def equivalence_power(seeds: int, reach: float, level: float) -> float:
    """How often two one-sided t-tests show that there is no difference beyond `reach` spreads, if there is none at all.

    The mean over the distribution of the estimated spread, at a thousand of its quantiles.

    >>> round(equivalence_power(10, 1.0, 0.05), 3)
    0.795
    """
    import numpy as np
    from scipy.special import chdtri, ndtr

    df = seeds - 1
    estimated = np.sqrt(chdtri(df, (np.arange(1000) + 0.5) / 1000) / df)  # in units of the true spread
    return float(np.maximum(0, 2 * ndtr(reach * math.sqrt(seeds) - t_ppf(1 - level, df) * estimated) - 1).mean())


def seeds_to_match(reach: float, level: float, power: float = POWER) -> int | None:
    """How many pairs show equivalence within `reach` spreads with this power, if there is no difference; None: over 1,000.

    >>> seeds_to_match(1.0, 0.05)
    11
    """
    counts = range(2, MAX_PLANNED_PAIRS + 1)
    index = bisect_left(counts, power, key=lambda seeds: equivalence_power(seeds, reach, level))
    return counts[index] if index < len(counts) else None


@cache
def sequential_effect(looks: tuple[int, ...], num_tests: int, power: float = POWER) -> SequentialEffect:
    """What a contrast can show that is looked at after these numbers of seeds, as `decide_contrasts` does.

    By simulation, without a draw for each effect: a contrast's difference is found if the effect is above what a look
    needs, and above what the looks before needed to go on. Verdicts of equivalence, which concern differences below the
    margin, are left out.

    >>> effect, mean_seeds = sequential_effect((3, 4, 5, 6, 8, 10), 1)
    >>> round(effect, 1), round(mean_seeds, 1)
    (1.2, 6.9)
    """
    import numpy as np

    values = np.random.default_rng(0).standard_normal((NUM_SIMULATED, looks[-1]))
    counts, last = np.array(looks), looks[-1]
    means = values.cumsum(1)[:, counts - 1] / counts  # [contrasts, looks]
    errors = np.sqrt(((values**2).cumsum(1)[:, counts - 1] / counts - means**2) / (counts - 1))  # of the means
    levels = look_levels(looks, share_level(num_tests))
    found_from = [t_ppf(1 - level / 2, look - 1) for level, look in zip(levels, looks, strict=True)] * errors - means
    goes_on_from = [futility_bound(look, last, levels[-1]) for look in looks] * errors - means
    went_on_from = np.maximum.accumulate(goes_on_from, axis=1)[:, :-1]
    needed = np.maximum(found_from, np.hstack([np.full((NUM_SIMULATED, 1), -np.inf), went_on_from])).min(1)
    effect = max(0.0, float(np.quantile(needed, power)))
    stops = (found_from <= effect) | (goes_on_from > effect)
    stops[:, -1] = True
    return SequentialEffect(effect, float(counts[stops.argmax(1)].mean()))


@cache
def futility_bound(look: int, last: int, last_level: float) -> float:
    """Below which |t| a contrast is given up at a look; minus infinity where none is."""
    from scipy.optimize import brentq

    if not FIRST_FUTILITY_LOOK <= look < last:
        return -math.inf

    def excess_chance(t: float) -> float:
        return chance(Estimate(t, 1.0, look), None, last, last_level, last_level) - MIN_CHANCE

    return cast("float", brentq(excess_chance, 0, 100))


@dataclass(frozen=True)
class ContrastPower:
    """What one contrast can show. Differences are in the metric's own unit, or in spreads if the spread is unknown."""

    section: str
    contrast: Contrast
    num_tests: int  # contrasts of the section
    seeds: int  # that the study plans, at most
    is_sequential: bool  # whether they are "until decided"
    looks: tuple[int, ...]  # those of the plan, or what they would be
    spread: Spread | None
    margin: float | None  # the largest difference that does not matter
    power: float

    @property
    def level(self) -> float:
        return ALPHA / self.num_tests

    @property
    def sequential(self) -> SequentialEffect:
        return sequential_effect(self.looks, self.num_tests, self.power)

    def smallest_difference(self, seeds: int | None = None) -> float:
        """With so many seeds, or "until decided"."""
        effect = self.sequential.effect if seeds is None else smallest_effect(seeds, self.level, self.power)
        return effect * (self.spread.value if self.spread else 1)

    def shows_margin(self, spread: float) -> bool:
        """Whether the planned seeds show a difference of the margin's size."""
        effect = self.sequential.effect if self.is_sequential else smallest_effect(self.seeds, self.level, self.power)
        return self.margin is not None and effect * spread <= self.margin

    def seeds_to_differ(self, spread: float) -> int | None:
        """How many fixed seeds show a difference of the margin's size; None: over 1,000, or there is no margin."""
        return seeds_to_differ(self.margin / spread, self.level, self.power) if self.margin else None

    def seeds_to_match(self, spread: float) -> int | None:
        """How many fixed seeds show equivalence if there is no difference; None as before."""
        return seeds_to_match(self.margin / spread, self.level, self.power) if self.margin else None


@dataclass(frozen=True, repr=False)
class StudyPower(Displayable):
    """What a study can show, contrast by contrast, and how long that takes."""

    study: Study
    contrasts: tuple[ContrastPower, ...]
    run_seconds: Mapping[ArmKey, float] | None  # of a run on one core; None: not known
    notes: tuple[str, ...] = ()  # where the spreads are from

    def __repr__(self) -> str:
        return f"StudyPower({self.study.name!r}: {pluralize(len(self.contrasts), 'contrast')})\n{self.conclusion}"

    @cached_property
    def seed_counts(self) -> list[int]:
        """The numbers of seeds for which the smallest differences are listed."""
        own = {contrast.seeds for contrast in self.contrasts if not contrast.is_sequential and contrast.seeds > 1}
        return sorted({*SEED_COUNTS, *own})

    def duration(self, seeds: Mapping[str, int]) -> float | None:
        """Seconds of training on all cores with so many seeds of each section; runs that sections share count once."""
        if self.run_seconds is None:
            return None
        runs: dict[tuple[str, int], float] = {}  # by recipe and seed
        for arm, recipe in arm_recipes(self.study).items():
            planned = self.study.seeds_of(arm[0])
            further = range(max(planned) + 1, max(planned) + 1 + seeds[arm[0]])
            trained = [*planned, *further][: seeds[arm[0]]]
            runs |= {(recipe_without_seed(recipe), seed): self.run_seconds[arm] for seed in trained}
        return sum(runs.values()) / max(1, min(count_usable_cores(), len(runs)))

    @property
    def conclusion(self) -> str:
        """All in a sentence."""
        judged = [(c, c.spread) for c in self.contrasts if c.spread and c.margin]
        planned = {name: len(self.study.seeds_of(name)) for name in self.study.sections}
        if not judged:
            return (
                "No contrast has both a margin and a known spread, the standard deviation of its difference over seeds"
                f"{self._describe_duration('; the planned seeds take ', planned)}."
            )
        plans = {(c.seeds, c.is_sequential): pluralize(c.seeds, "seed") for c, _ in judged}
        plan = next(f'at most {text}, "until decided"' if late else text for (_, late), text in plans.items())
        able = sum(c.shows_margin(spread.value) for c, spread in judged)
        bound = f" ({sum(c.shows_margin(spread.high) for c, spread in judged)} at the 90 % upper bound of the spreads)"
        margins = dict.fromkeys(format_margin(c.contrast.parsed_metric, c.margin or 0) for c, _ in judged)
        size = next(iter(margins)) if len(margins) == 1 else f"its margin's size ({' or '.join(margins)})"
        short: dict[str, list[int | None]] = {}
        for c, spread in judged:
            if not c.shows_margin(spread.value):
                short.setdefault(c.section, []).append(c.seeds_to_differ(spread.value))
        needed = {name: None if None in counts else max(filter(None, counts)) for name, counts in short.items()}
        wants = [
            f"{name} needs {seeds or 'over 1,000'}{' fixed seeds' * bool(self.study.looks(name))}"
            for name, seeds in needed.items()
        ]
        return (
            f"With {plan if len(plans) == 1 else 'the planned seeds'}, {able} of {pluralize(len(judged), 'contrast')}"
            f"{bound if any(spread.degrees_of_freedom for _, spread in judged) else ''} can show a difference of {size}"
            f"{self._describe_duration(', in ', planned)}{'; ' if wants else ''}{join_with_and(wants) if wants else ''}"
            f"{self._describe_duration(': ', {**planned, **needed}) if wants else ''}."
        )

    def _describe_duration(self, beginning: str, seeds: Mapping[str, int | None]) -> str:
        """How long so many seeds take, in words; nothing if that is not known, or it is over 1,000 seeds, None."""
        counts = {name: count for name, count in seeds.items() if count is not None}
        if len(counts) < len(seeds) or (seconds := self.duration(counts)) is None:
            return ""
        about = "at most" if any(map(self.study.looks, counts)) else "about"
        return f"{beginning}{about} {format_duration(seconds)} of training on {pluralize(count_usable_cores(), 'core')}"


def study_power(
    study: Study,
    spreads: Mapping[tuple[str, Contrast], Spread],
    power: float = POWER,
    run_seconds: Mapping[ArmKey, float] | None = None,
    notes: Sequence[str] = (),
) -> StudyPower:
    """What a study can show.

    Args:
        study: of which nothing need be trained.
        spreads: of its contrasts, by section and contrast, as far as they are known.
        power: how often a true difference should be found.
        run_seconds: how long a run takes on one core, by section and arm.
        notes: where these are from.

    Raises LabError for a power outside (0, 1), and for a study without contrasts.

    >>> lr = {"arms": {"a": {}, "b": {"optimizer.lr": 0.1}}, "contrasts": [{"arm": "a", "baseline": "b"}]}
    >>> study = Study.from_dict({"name": "x", "seeds": [0, 1, 2], "sections": {"lr": lr}})
    >>> print(study_power(study, given_spreads(study, 0.7)).conclusion)
    With 3 seeds, 0 of 1 contrast can show a difference of 1 percentage point; lr needs 7.
    """
    require(isinstance(power, int | float), f"power = {power!r}: give a fraction between 0 and 1, such as {POWER}")
    require(0 < power < 1, f"a power of {power:g}: give a fraction between 0 and 1, such as {POWER}")
    contrasts = [
        ContrastPower(
            section=name,
            contrast=contrast,
            num_tests=len(section.contrasts),
            seeds=len(study.seeds_of(name)),
            is_sequential=bool(study.looks(name)),
            looks=study.looks(name)
            or planned_looks(
                min(max(study.max_seeds if section.max_seeds is None else section.max_seeds, FIRST_LOOK), MAX_PAIRS)
            ),
            spread=spreads.get((name, contrast)),
            margin=study.margins.of(contrast),
            power=power,
        )
        for name, section in study.sections.items()
        for contrast in section.contrasts
    ]
    require(contrasts, f"the study '{study.name}' has no contrast, so there is nothing to show: add one to a section")
    return StudyPower(study, tuple(contrasts), run_seconds, tuple(notes))


def given_spreads(study: Study, spread: float | Mapping[str, float]) -> dict[tuple[str, Contrast], Spread]:
    """The spreads that a person gives, for all metrics or by metric, in the unit of a report: an accuracy's in % points.

    Raises LabError for a spread that is none, an unknown metric, and one spread for metrics of several units.
    """
    asked = {(name, c): c.metric for name, section in study.sections.items() for c in section.contrasts}
    if not isinstance(spread, Mapping):
        require(isinstance(spread, int | float), f"spread = {spread!r}: give a number, or a dict of numbers by metric")
        units = {Metric.parse(metric).unit: metric for metric in asked.values()}
        examples = ", ".join(f"{metric}={spread:g}" for metric in units.values())
        require(len(units) < 2, f"one spread for metrics in {join_with_and(list(units))}: give each, as in {examples}")
        spread = dict.fromkeys(asked.values(), spread)
    for metric, value in spread.items():
        if metric not in asked.values():
            raise LabError(f"no contrast of '{study.name}' is about '{metric}': {suggest(metric, set(asked.values()))}")
        is_number = isinstance(value, int | float) and 0 < value <= MAX_SPREAD
        require(
            is_number, f"a spread of {reprlib.repr(value)} for {metric}: give a number above 0, up to {MAX_SPREAD:g}"
        )
    return {
        key: Spread(spread[metric] / display_scale(Metric.parse(metric)), "given")
        for key, metric in asked.items()
        if metric in spread
    }


def arm_recipes(study: Study) -> dict[ArmKey, Recipe]:
    """A recipe of each arm, with one of its seeds."""
    return {(trial.section, trial.arm): trial.recipe for trial in study.trials}


def recipe_without_seed(recipe: Recipe) -> str:
    """A key that recipes share which differ in nothing but their seed."""
    values = recipe.to_dict()
    return recipe_key({**values, "training": {**values["training"], "seed": 0}})


def question_key(section: str, contrast: Contrast) -> tuple[str, str]:
    """What a contrast of another study asks too, if it is the same question: without margin and wording."""
    return section, contrast.model_dump_json(exclude={"margin", "subject"})


def require_spreads(study: Study, spreads: Mapping[tuple[str, Contrast], Spread], pilot: Path | str) -> None:
    """Raise LabError for the first contrast whose spread neither a person nor the runs of a pilot gave."""
    for name, section in study.sections.items():
        for contrast in section.contrasts:
            require(
                (name, contrast) in spreads,
                f"{pilot} has no two arms with two seeds in common that have {contrast.metric}: train these, or give the "
                f"spread of {contrast.metric} yourself",
            )
