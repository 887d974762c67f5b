"""What a report of a study shows, as values: a card per section, one for the tested run, and the words around them."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from convolab.core.text import NO_VALUE, format_duration
from convolab.plots.page_style import css_variable
from convolab.plots.studies import best_on_test_figures, section_figures
from convolab.plots.study_figure import StudyFigure
from convolab.plots.study_scales import arm_styles
from convolab.reports.study_contrasts import (
    VERDICT_MARKS,
    ContrastRow,
    TableCell,
    VerdictBadge,
    contrast_row,
    typographic_minus,
)
from convolab.studies import tables
from convolab.studies.formatting import (
    DEFAULT_DECIMALS,
    choose_decimals,
    display_scale,
    format_metric_value,
    interval_half_width,
)
from convolab.studies.metrics import Metric
from convolab.studies.results import (
    TRIAL_STATUSES,
    Arm,
    BestOnTest,
    SectionResult,
    StudyResult,
)
from convolab.studies.study import Trial


@dataclass(frozen=True)
class ArmRow:
    """A row of a section's table of arms."""

    name: str
    runs: int
    failure_counts: tuple[str, ...]
    cells: tuple[TableCell, ...]  # one per metric
    train_time: str


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
    verdicts = Counter(VerdictBadge(contrast.verdict) for contrast in result.contrast_results)
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


def format_overrides(overrides: Mapping[str, object]) -> str:
    """Changes to a recipe as its file has them.

    >>> format_overrides({"optimizer.lr": 0.1, "data.augment": ["flip"]})
    'optimizer.lr = 0.1, data.augment = ["flip"]'
    """
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in overrides.items())
