"""What a report of a study shows, as values: a card per section, one for the tested run, and the words around them."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from convolab.core.stats import Interval
from convolab.core.text import NO_VALUE, format_duration, format_p_value, pluralize
from convolab.plots.page_style import css_variable
from convolab.plots.studies import best_on_test_figures, section_figures
from convolab.plots.study_figure import StudyFigure
from convolab.plots.study_scales import arm_styles
from convolab.studies import tables
from convolab.studies.formatting import (
    DEFAULT_DECIMALS,
    choose_decimals,
    display_scale,
    format_metric_difference,
    format_metric_value,
    interval_half_width,
)
from convolab.studies.metrics import Metric
from convolab.studies.results import (
    TRIAL_STATUSES,
    Arm,
    BestOnTest,
    ContrastResult,
    SectionResult,
    StudyResult,
    TrialResult,
    Verdict,
)
from convolab.studies.study import Trial

VERDICT_MARKS: dict[Verdict, str] = {"better": "▲", "worse": "▼", "equivalent": "=", "undecided": "?"}
# The page's words that a reader may not know, each in a sentence.
GLOSSARY = {
    "arm": "One of the variants that a section compares: the base recipe with a few changes, trained with every seed.",
    "contrast": "A planned comparison of one arm with a baseline arm in one metric, seed by seed.",
    "seed": "The number that decides a run's random draws: initial weights, order of the images, augmentation.",
    "nats": "The unit of the loss, the mean cross-entropy with natural logarithms; guessing among 10 classes costs 2.303.",
    "t-interval": "The values of the true mean that the seeds are compatible with at 95 %, by Student's t-distribution.",
    "p": "How probable a difference at least this large would be if the arms were equally good.",
    "Holm": "Holm's correction raises the p-values of several tests so that, at 5 %, the chance of any false claim "
    "among them stays below 5 %.",
    "look": 'A planned test after some seeds, where seeds are "until decided". The 5 % are shared out among all looks, so '
    "that looking often finds no more false differences. This is exact for differences that are normal; if they are "
    "skewed, up to 7 of 100 studies may err.",
    "Hedges' g": "A difference in units of its standard deviation over seeds, so that metrics can be compared.",
    "detectable": "The smallest true difference that as many seeds would reveal in four of five studies.",
    "selection bias": "The best of many runs is partly the luckiest, so that its validation accuracy is too high.",
}


@dataclass(frozen=True)
class TableCell:
    """What a cell of a table shows, with smaller lines below it."""

    text: str
    small_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerdictBadge:
    """A contrast's verdict as the page shows it: never by color alone."""

    verdict: Verdict

    @classmethod
    def from_result(cls, result: ContrastResult) -> "VerdictBadge":
        return cls(result.verdict)

    @property
    def mark(self) -> str:
        return VERDICT_MARKS[self.verdict]

    @property
    def css_class(self) -> str:
        """Its name in the style sheet."""
        return self.verdict


@dataclass(frozen=True)
class ArmRow:
    """A row of a section's table of arms."""

    name: str
    runs: int
    failure_counts: tuple[str, ...]
    cells: tuple[TableCell, ...]  # one per metric
    train_time: str


@dataclass(frozen=True)
class LookRow:
    """A row of the table of looks, where seeds are "until decided"."""

    seeds: int
    difference: TableCell
    p: str
    p_equivalent: str
    outcome: str


@dataclass(frozen=True)
class ContrastRow:
    """A row of a section's table of contrasts."""

    arm: str
    baseline: str
    metric: str
    verdict: VerdictBadge
    reason: str | None
    comment: str
    seeds: int
    difference: TableCell = TableCell(NO_VALUE)
    p: str = NO_VALUE
    hedges_g: str = NO_VALUE
    minimum_detectable_effect: str = NO_VALUE
    looks: tuple[LookRow, ...] = ()


@dataclass(frozen=True)
class SectionCard:
    """A section: its comment, figures and tables."""

    id: str
    name: str
    title: str
    note: str
    comment: str
    summary: str  # the first sentences of the comment
    verdict_counts: tuple[tuple[VerdictBadge, int], ...]
    figures: tuple[StudyFigure, ...]
    first_figure: int  # the index of its first figure on the page
    legend: tuple[tuple[str, str, list[int]], ...]  # arm, color on the page, dashes
    metrics: tuple[str, ...]
    arms: tuple[ArmRow, ...]
    contrasts: tuple[ContrastRow, ...]
    overrides: str
    arm_overrides: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BestOnTestCard:
    """The run that was tested."""

    id: str
    trial: Trial
    accuracy: str
    interval: str
    correct: str
    validation_accuracy: str
    num_validation_images: str
    num_candidates: int
    selection_bias: str
    epoch: int
    comment: str
    figures: tuple[StudyFigure, ...]
    first_figure: int


@dataclass(frozen=True)
class SectionTime:
    """A row of the table of seeds and times; a run that sections share counts in each."""

    title: str
    arms: int
    seeds: str
    runs: int
    train_time: str


def section_cards(result: StudyResult) -> tuple[SectionCard, ...]:
    """A card per section, their figures numbered through."""
    cards: list[SectionCard] = []
    num_figures = 0
    for section in result.sections:
        cards.append(section_card(section, num_figures))
        num_figures += len(cards[-1].figures)
    return tuple(cards)


def section_card(result: SectionResult, first_figure: int = 0) -> SectionCard:
    """What a section's card shows."""
    verdicts = Counter(VerdictBadge.from_result(contrast) for contrast in result.contrast_results)
    metrics = tables.table_metrics(result)
    decimals = {metric: shared_decimals(result.arms, metric) for metric in metrics}
    arms = [
        ArmRow(
            name=arm.name,
            runs=len(arm.results),
            failure_counts=failure_counts(arm),
            cells=tuple(metric_cell(arm, metric, decimals[metric]) for metric in metrics),
            train_time=format_duration(tables.mean_train_seconds(arm)),
        )
        for arm in result.arms
    ]
    styles = arm_styles(result.section)
    return SectionCard(
        id=f"section-{result.name}",
        name=result.name,
        title=result.section.title or result.name,
        note=result.section.note,
        comment=result.comment,
        summary=first_sentences(result.comment),
        verdict_counts=tuple(
            (VerdictBadge(verdict), verdicts[VerdictBadge(verdict)])
            for verdict in VERDICT_MARKS
            if VerdictBadge(verdict) in verdicts
        ),
        figures=tuple(section_figures(result)),
        first_figure=first_figure,
        legend=tuple((arm, css_variable(color), dash) for arm, (color, dash) in styles.items()),
        metrics=tuple(metric.title for metric in metrics),
        arms=tuple(arms),
        contrasts=tuple(contrast_row(contrast) for contrast in result.contrast_results),
        overrides=format_overrides(result.section.overrides),
        arm_overrides=tuple(
            (arm.name, format_overrides(result.section.arm_overrides[arm.name])) for arm in result.arms
        ),
    )


def contrast_row(result: ContrastResult) -> ContrastRow:
    """A row of the table of contrasts."""
    metric = result.contrast.parsed_metric
    difference = TableCell(NO_VALUE)
    p = hedges_g = minimum_detectable_effect = NO_VALUE
    if paired := result.paired_test:
        difference = difference_cell(metric, paired.difference)
        if result.p_adjusted is not None:
            p = format_p_value(result.p_adjusted).removeprefix("p ").removeprefix("= ")
        if len(result.seeds) > 2:
            hedges_g = typographic_minus(f"{paired.hedges_g:+.1f}")
        effect = paired.minimum_detectable_effect
        minimum_detectable_effect = format_metric_difference(metric, effect, choose_decimals(metric, effect))
    return ContrastRow(
        arm=result.contrast.arm,
        baseline=result.contrast.baseline,
        metric=metric.title,
        verdict=VerdictBadge.from_result(result),
        reason=result.reason,
        comment=result.comment,
        seeds=len(result.seeds),
        difference=difference,
        p=p,
        hedges_g=hedges_g,
        minimum_detectable_effect=minimum_detectable_effect,
        looks=tuple(
            LookRow(
                seeds=look.seeds,
                difference=difference_cell(metric, look.difference),
                p=f"{look.p:.2g} ({look.level:.2g})",
                p_equivalent=(
                    NO_VALUE if look.p_equivalent is None else f"{look.p_equivalent:.2g} ({look.level_equivalent:.2g})"
                ),
                outcome={"open": "goes on", "futile": "given up", "exhausted": "no more seeds"}.get(
                    look.outcome, look.outcome
                ),
            )
            for look in result.looks
        ),
    )


def difference_cell(metric: Metric, interval: Interval) -> TableCell:
    """A mean difference with its sign and its interval."""
    decimals = choose_decimals(metric, interval_half_width(interval))
    low, high = (f"{display_scale(metric) * end:+.{decimals}f}" for end in (interval.low, interval.high))
    mean = format_metric_difference(metric, interval.mean, decimals)
    signed = typographic_minus(f"+{mean}" if interval.mean > 0 else mean)
    return TableCell(signed, (typographic_minus(f"{low} to {high}"),))


def metric_cell(arm: Arm, metric: Metric, decimals: int) -> TableCell:
    """An arm's mean of a metric with its interval, and how many runs never reached the level of a time-to metric."""
    interval = tables.finished_metric_interval(arm, metric)
    if not interval:
        return TableCell(NO_VALUE)
    num_missed = sum(not metric.reached(result.history) for result in arm.finished)
    missed = (f"{num_missed} of {interval.count} never reached it",) if num_missed else ()
    if interval.count == 1:
        value = format_metric_value(metric, interval.mean, max(decimals, DEFAULT_DECIMALS[metric.unit]))
        return TableCell(typographic_minus(value), ("one run", *missed))
    low, high = (f"{display_scale(metric) * end:.{decimals}f}" for end in (interval.low, interval.high))
    mean = format_metric_value(metric, interval.mean, decimals)
    return TableCell(typographic_minus(mean), (typographic_minus(f"{low} to {high}"), *missed))


def shared_decimals(arms: Iterable[Arm], metric: Metric) -> int:
    """Decimals that suit the intervals of all arms."""
    intervals = [tables.finished_metric_interval(arm, metric) for arm in arms]
    return choose_decimals(metric, *(interval_half_width(interval) for interval in intervals if interval))


def failure_counts(arm: Arm) -> tuple[str, ...]:
    """How many of an arm's runs are not finished, by status: "diverged 2 of 3"."""
    counts = Counter(result.status for result in arm.results)
    return tuple(f"{status} {counts[status]} of {len(arm.results)}" for status in TRIAL_STATUSES[1:] if counts[status])


def best_on_test_card(best: BestOnTest, first_figure: int = 0) -> BestOnTestCard:
    """What the card of the tested run shows."""
    test = best.test_result
    low, high = test.interval
    return BestOnTestCard(
        id="best-on-test",
        trial=best.trial_result.trial,
        accuracy=f"{100 * test.accuracy:.2f} %",
        interval=f"{100 * low:.2f} to {100 * high:.2f} %",
        correct=f"{test.correct:,} of {test.count:,}",
        validation_accuracy=f"{100 * best.validation_accuracy:.2f} %",
        num_validation_images=f"{best.num_validation_images:,}",
        num_candidates=best.num_candidates,
        selection_bias=f"{100 * best.selection_bias:.2f} percentage points",
        epoch=test.epoch,
        comment=best.comment,
        figures=tuple(best_on_test_figures(best)),
        first_figure=first_figure,
    )


def study_overview(result: StudyResult) -> list[str]:
    """The study in a few words: its runs, seeds, images and time."""
    results = list(result.trial_results.values())
    statuses = Counter(result.status for result in results)
    datasets = sorted({result.trial.recipe.data.name for result in results})
    counts = ", ".join(f"{statuses[status]:,} {status}" for status in TRIAL_STATUSES if statuses[status])
    return [
        f"{pluralize(len(results), 'run')}: {counts}",
        describe_seeds(result),
        f"images of {', '.join(datasets)}",
        f"{format_duration(total_train_seconds(results))} of training",
    ]


def describe_seeds(result: StudyResult) -> str:
    """The seeds in a few words; sections may have seeds of their own."""
    if any(result.study.looks(section.name) for section in result.sections):
        counts = sorted({len(arm.results) for section in result.sections for arm in section.arms})
        return f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds per arm"
    seeds_of_sections = {result.study.seeds_of(section.name) for section in result.sections}
    if len(seeds_of_sections) == 1:
        (seeds,) = seeds_of_sections
        numbers = ", ".join(map(str, seeds))
        return f"seeds {numbers}" if len(seeds) > 1 else f"one seed, {numbers}"
    counts = sorted({len(seeds) for seeds in seeds_of_sections})
    if len(counts) > 1:
        return f"{counts[0]} to {counts[-1]} seeds per arm"
    return f"{pluralize(counts[0], 'seed')} per arm"


def failure_notes(result: StudyResult) -> list[str]:
    """What went wrong, one line each: the study's own notes, then the runs that diverged."""
    diverged = [
        f"{section.name}, {arm.name}, seed {run.trial.seed}: diverged after {pluralize(len(run.history), 'epoch')}"
        + (f": {run.reason}" if run.reason else "")
        for section in result.sections
        for arm in section.arms
        for run in arm.diverged
    ]
    return [*result.notes, *diverged]


def section_times(result: StudyResult) -> list[SectionTime]:
    """A row per section."""
    return [
        SectionTime(
            title=section.section.title or section.name,
            arms=len(section.arms),
            seeds=result.study.seeds_text(section.name),
            runs=sum(len(arm.results) for arm in section.arms),
            train_time=format_duration(total_train_seconds(run for arm in section.arms for run in arm.results)),
        )
        for section in result.sections
    ]


def provenance(results: Iterable[TrialResult]) -> list[tuple[str, int]]:
    """How the runs were made, with the number of runs: hardware, threads, precision and versions."""
    run_counts: Counter[str] = Counter()
    for result in results:
        if summary := result.summary:
            threads = f"{pluralize(summary['threads'], 'thread')} per run" if summary["threads"] else "any threads"
            versions = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
            hardware = describe_hardware(summary["hardware"])
            run_counts[f"{hardware}; {threads} on {summary['device']}, {summary['precision']}; {versions}"] += 1
    return run_counts.most_common()


def describe_hardware(hardware: Mapping[str, object]) -> str:
    """Processor, cores, system and Python, as far as they were recorded."""
    cores = hardware.get("cores")
    parts = (
        hardware.get("processor"),
        pluralize(cores, "core") if isinstance(cores, int) else None,
        hardware.get("system"),
        f"Python {hardware['python']}" if "python" in hardware else None,
    )
    return ", ".join(str(part) for part in parts if part) or "unknown hardware"


def first_sentences(text: str, max_length: int = 420) -> str:
    """The first sentences of a text, as many as fit, at least one.

    >>> first_sentences("One is 0.5. Two follows. Three.", 24)
    'One is 0.5. Two follows.'
    """
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z'])", text)
    kept = sentences[0]
    for sentence in sentences[1:]:
        if len(kept) + 1 + len(sentence) > max_length:
            break
        kept += f" {sentence}"
    return kept


def total_train_seconds(results: Iterable[TrialResult]) -> float:
    """Seconds of training, of every completed epoch."""
    return math.fsum(epoch.train_seconds for result in results for epoch in result.history)


def typographic_minus(text: str) -> str:
    """Numbers with the minus sign that is as wide as plus."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def format_overrides(overrides: Mapping[str, object]) -> str:
    """Changes to a recipe as its file has them.

    >>> format_overrides({"optimizer.lr": 0.1, "data.augment": ["flip"]})
    'optimizer.lr = 0.1, data.augment = ["flip"]'
    """
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in overrides.items())
