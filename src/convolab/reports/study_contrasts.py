"""The rows of a report's tables of contrasts and looks, as values."""

import re
from dataclasses import dataclass

import numpy as np

from convolab.core.stats import Interval
from convolab.core.text import NO_VALUE, format_p_cell
from convolab.studies.formatting import (
    choose_decimals,
    display_scale,
    format_metric_difference,
    interval_half_width,
)
from convolab.studies.metrics import Metric
from convolab.studies.results import (
    ContrastResult,
    Verdict,
)

VERDICT_MARKS: dict[Verdict, str] = {"better": "▲", "worse": "▼", "equivalent": "=", "undecided": "?"}


@dataclass(frozen=True)
class TableCell:
    """What a cell of a table shows, with smaller lines below it."""

    text: str
    small_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerdictBadge:
    """A contrast's verdict as the page shows it: never by color alone."""

    verdict: Verdict

    @property
    def mark(self) -> str:
        return VERDICT_MARKS[self.verdict]


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


def contrast_row(result: ContrastResult) -> ContrastRow:
    """A row of the table of contrasts; an interaction compares the differences of two pairs."""
    metric = result.contrast.parsed_metric
    arm, baseline = result.contrast.arm, result.contrast.baseline
    if result.contrast.interaction:
        arm, baseline = f"{arm} − {baseline}", " − ".join(result.contrast.interaction)
    difference = TableCell(NO_VALUE)
    p = hedges_g = minimum_detectable_effect = NO_VALUE
    if paired := result.paired_test:
        difference = difference_cell(metric, paired.difference)
        if result.looks:
            p = format_p_cell(result.looks[-1].p)
        elif result.p_adjusted is not None:
            p = format_p_cell(result.p_adjusted)
        if len(result.seeds) > 2:
            hedges_g = typographic_minus(f"{paired.hedges_g:+.1f}")
        effect = paired.minimum_detectable_effect
        minimum_detectable_effect = format_metric_difference(metric, effect, choose_decimals(metric, effect))
    return ContrastRow(
        arm=arm,
        baseline=baseline,
        metric=metric.title,
        verdict=VerdictBadge(result.verdict),
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
                p=format_p_and_level(look.p, look.level),
                p_equivalent=(
                    NO_VALUE
                    if look.p_equivalent is None or look.level_equivalent is None
                    else format_p_and_level(look.p_equivalent, look.level_equivalent)
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


def typographic_minus(text: str) -> str:
    """Numbers with the minus sign that is as wide as plus."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def format_p_and_level(p: float, level: float) -> str:
    """A p-value and what it had to be at most, in two digits and without powers of ten.

    >>> format_p_and_level(0.0000484, 0.01875)
    '0.000048 (0.019)'
    """
    shown, needed = (np.format_float_positional(float(f"{value:.2g}"), trim="-") for value in (p, level))
    return f"{shown} ({needed})"
