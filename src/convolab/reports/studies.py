"""The report of a study: one HTML file that holds all it needs, and every figure and table as a file of its own."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from convolab.core.files import write_text
from convolab.core.text import format_duration
from convolab.plots import studies as study_plots
from convolab.plots.style import arm_styles
from convolab.reports.page import VEGA_THEME, css_variable, figure_payload, study_palette
from convolab.studies import tables
from convolab.studies.metrics import Metric
from convolab.studies.narrative import (
    DEFAULT_DECIMALS,
    choose_decimals,
    display_scale,
    format_metric_difference,
    format_metric_value,
    format_p_value,
    interval_half_width,
)
from convolab.studies.outcomes import Arm, ContrastResult, TrialResult, pluralize
from convolab.studies.results import BestOnTest, SectionResult, StudyResult

VERDICT_MARKS = {"better": "▲", "worse": "▼", "no difference seen": "=", "not decided": "?"}


@dataclass(frozen=True)
class TableCell:
    """What stands in a table, with smaller lines below it."""

    text: str
    small_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerdictBadge:
    """A contrast's verdict as the page shows it: never by colour alone."""

    verdict: str

    @classmethod
    def from_result(cls, answer: ContrastResult) -> "VerdictBadge":
        return cls(answer.verdict or "not decided")

    @property
    def mark(self) -> str:
        return VERDICT_MARKS[self.verdict]

    @property
    def css_class(self) -> str:
        """Its name in the style sheet."""
        return self.verdict.replace(" ", "-")


def write_study_report(result: StudyResult, path: Path) -> Path:
    """Write the report as one HTML file that opens without the network. Raises LabError if the place cannot be written.

    The answer comes first, then a card a section, then all that is needed to get the same again.
    """
    write_text(path, study_report_html(result))
    return path


def study_report_html(result: StudyResult) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("convolab.reports"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    colors = study_palette(result)
    cards = [section_card(section, colors) for section in result.sections]
    test = best_on_test_card(result.best_on_test, colors) if result.best_on_test else None
    # Every figure's place in the page is its number in this list.
    figures = [figure for part in [*cards, *([test] if test else [])] for figure in part["figures"]]
    for place, figure in enumerate(figures):
        figure["place"] = place
    payload = {"look": VEGA_THEME, "figures": [figure.pop("data") for figure in figures]}
    return environment.get_template("report.html").render(
        study=result.study,
        cards=cards,
        test=test,
        facts=study_overview(result),
        base=result.study.base_recipe.to_toml(),
        notes=failure_notes(result),
        times=section_train_times(result),
        origins=provenance(result.trial_results.values()),
        colours={colour: (css_variable(colour), dark) for colour, dark in colors.items()},
        payload=Markup(json.dumps(payload, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")),
        libraries=Markup(vl_convert.javascript_bundle().replace("</script", "<\\/script")),
        convolab=version("convolab"),
    )


# ---- the parts of the page


def section_card(result: SectionResult, colors: dict[str, str]) -> dict[str, Any]:
    """What a section's card shows."""
    verdicts = [VerdictBadge.from_result(answer) for answer in result.contrast_results]
    metrics = tables.table_metrics(result)
    digits = {metric: shared_decimals(result.arms, metric) for metric in metrics}
    return {
        "id": f"section-{result.name}",
        "name": result.name,
        "title": result.section.title or result.name,
        "note": result.section.note,
        "comment": result.comment,
        "opening": first_sentences(result.comment),
        "tally": [
            (VerdictBadge(word), verdicts.count(VerdictBadge(word)))
            for word in VERDICT_MARKS
            if VerdictBadge(word) in verdicts
        ],
        "figures": [figure_payload(figure, colors) for figure in study_plots.section_figures(result)],
        "legend": [(arm, css_variable(colour), dash) for arm, (colour, dash) in arm_styles(result.section).items()],
        "metrics": [metric.title for metric in metrics],
        "arms": [
            {
                "name": arm.name,
                "fate": failure_counts(arm),
                "runs": len(arm.results),
                "cells": [metric_cell(arm, metric, digits[metric]) for metric in metrics],
                "time": format_duration(tables.mean_train_seconds(arm)),
            }
            for arm in result.arms
        ],
        "answers": [contrast_row(answer) for answer in result.contrast_results],
        "change": format_overrides(result.section.overrides),
        "changes": [(arm, format_overrides(changes)) for arm, changes in result.section.arm_overrides.items()],
    }


def contrast_row(answer: ContrastResult) -> dict[str, Any]:
    """A row of the table of contrasts."""
    metric, paired = answer.contrast.parsed_metric, answer.paired_test
    row = {
        "contrast": answer.contrast,
        "metric": metric.title,
        "verdict": VerdictBadge.from_result(answer),
        "reason": answer.reason,
        "comment": answer.comment,
    }
    if not paired:
        return row | {
            "difference": TableCell("–"),
            "p": "–",
            "effect": "–",
            "smallest": "–",
            "seeds": len(answer.seeds),
        }
    digits, of = choose_decimals(metric, interval_half_width(paired.difference)), paired.difference
    low, high = (typographic_minus(f"{display_scale(metric) * end:+.{digits}f}") for end in (of.low, of.high))
    return row | {
        "difference": TableCell(
            typographic_minus(f"{'+' if of.mean > 0 else ''}{format_metric_difference(metric, of.mean, digits)}"),
            (f"{low} to {high}",),
        ),
        "p": "–"
        if answer.p_adjusted is None
        else format_p_value(answer.p_adjusted).removeprefix("p ").removeprefix("= "),
        "effect": typographic_minus(f"{paired.hedges_g:+.1f}") if len(answer.seeds) > 2 else "–",
        "smallest": format_metric_difference(
            metric, paired.minimum_detectable_effect, choose_decimals(metric, paired.minimum_detectable_effect)
        ),
        "seeds": len(answer.seeds),
    }


def metric_cell(arm: Arm, metric: Metric, digits: int) -> TableCell:
    """An arm's mean of a metric with its interval, and how many runs of an `until` metric never got there."""
    of = tables.finished_metric_interval(arm, metric)
    if not of:
        return TableCell("–")
    never_reached = sum(not metric.reached(outcome.history) for outcome in arm.finished)
    never_reached_lines = (f"{never_reached} of {of.count} never got there",) if never_reached else ()
    if of.count == 1:
        return TableCell(
            format_metric_value(metric, of.mean, max(digits, DEFAULT_DECIMALS[metric.unit])),
            ("one run", *never_reached_lines),
        )
    low, high = (f"{display_scale(metric) * end:.{digits}f}" for end in (of.low, of.high))
    return TableCell(
        format_metric_value(metric, of.mean, digits), (typographic_minus(f"{low} to {high}"), *never_reached_lines)
    )


def shared_decimals(arms: Iterable[Arm], metric: Metric) -> int:
    """Decimals that suit the intervals of all arms."""
    return choose_decimals(
        metric, *(interval_half_width(of) for arm in arms if (of := tables.finished_metric_interval(arm, metric)))
    )


def failure_counts(arm: Arm) -> list[str]:
    """What became of an arm's runs that are not finished: "diverged 2 of 3"."""
    counts = Counter(outcome.status for outcome in arm.results)
    return [
        f"{status} {counts[status]} of {len(arm.results)}" for status in tables.TRIAL_STATUSES[1:] if counts[status]
    ]


def best_on_test_card(best: BestOnTest, colors: dict[str, str]) -> dict[str, Any]:
    """What the card of the tested run shows."""
    low, high = best.test_result["interval"]
    return {
        "id": "best-on-test",
        "trial": best.trial_result.trial,
        "accuracy": f"{100 * best.test_result['accuracy']:.2f} %",
        "interval": f"{100 * low:.2f} to {100 * high:.2f} %",
        "correct": f"{best.test_result['correct']:,} of {best.test_result['count']:,}",
        "validation": f"{100 * best.validation_accuracy:.2f} %",
        "pictures": f"{best.num_validation_images:,}",
        "candidates": best.num_candidates,
        "inflation": f"{100 * best.selection_bias:.2f} %-points",
        "epoch": best.test_result["epoch"],
        "comment": best.comment,
        "figures": [figure_payload(figure, colors) for figure in study_plots.best_on_test_figures(best)],
    }


def study_overview(result: StudyResult) -> list[str]:
    """What the study was, in a few words each."""
    outcomes = result.trial_results.values()
    statuses = Counter(outcome.status for outcome in outcomes)
    data = sorted({outcome.trial.recipe.data.name for outcome in outcomes})
    return [
        pluralize(len(outcomes), "run")
        + ": "
        + ", ".join(f"{statuses[s]:,} {s}" for s in tables.TRIAL_STATUSES if statuses[s]),
        describe_seeds(result),
        f"pictures of {', '.join(data)}",
        f"{format_duration(total_train_seconds(outcomes))} of training",
    ]


def describe_seeds(result: StudyResult) -> str:
    """The seeds in a few words; sections may have seeds of their own."""
    chosen = {section.section.seeds or result.study.seeds for section in result.sections}
    if len(chosen) > 1:
        counts = sorted({len(seeds) for seeds in chosen})
        return (
            f"{counts[0]} to {counts[-1]} seeds an arm" if len(counts) > 1 else f"{pluralize(counts[0], 'seed')} an arm"
        )
    (seeds,) = chosen
    return f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"one seed, {seeds[0]}"


def failure_notes(result: StudyResult) -> list[str]:
    """What went wrong, a line each: the study's own notes, then the runs that diverged."""
    diverged = [
        f"{section.name}, {arm.name}, seed {outcome.trial.seed}: diverged after {pluralize(len(outcome.history), 'epoch')}"
        + (f": {outcome.reason}" if outcome.reason else "")
        for section in result.sections
        for arm in section.arms
        for outcome in arm.diverged
    ]
    return [*result.notes, *diverged]


def section_train_times(result: StudyResult) -> list[dict[str, Any]]:
    """A row a section: its arms, seeds, runs and their time; a run that sections share counts in each."""
    return [
        {
            "title": section.section.title or section.name,
            "arms": len(section.arms),
            "seeds": ", ".join(map(str, section.section.seeds or result.study.seeds)),
            "runs": sum(len(arm.results) for arm in section.arms),
            "time": format_duration(total_train_seconds(outcome for arm in section.arms for outcome in arm.results)),
        }
        for section in result.sections
    ]


def provenance(outcomes: Iterable[TrialResult]) -> list[tuple[str, int]]:
    """On what the runs were made, with the number of runs: machine, threads, precision and versions."""
    run_counts: Counter[str] = Counter()
    for outcome in outcomes:
        if summary := outcome.summary:
            machine, threads = summary["machine"], summary["threads"]
            versions = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
            machine_text = f"{machine['processor']}, {pluralize(machine['cores'], 'core')}, {machine['system']}, Python {machine['python']}"
            run_counts[
                f"{machine_text}; {pluralize(threads, 'thread')} a run on {summary['device']}, {summary['precision']}; {versions}"
            ] += 1
    return run_counts.most_common()


# ---- words


def first_sentences(text: str, max_length: int = 420) -> str:
    """The first sentences of a text, as many as fit, at least one.

    >>> opening("One is 0.5. Two follows. Three.", 24)
    'One is 0.5. Two follows.'
    """
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z'])", text)
    kept = sentences[0]
    for sentence in sentences[1:]:
        if len(kept) + 1 + len(sentence) > max_length:
            break
        kept += f" {sentence}"
    return kept


def total_train_seconds(outcomes: Iterable[TrialResult]) -> float:
    """Seconds of training, of every epoch done."""
    return math.fsum(epoch.train_seconds for outcome in outcomes for epoch in outcome.history)


def typographic_minus(text: str) -> str:
    """Numbers with the sign for minus that is as wide as plus."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def format_overrides(overrides: dict[str, Any]) -> str:
    """Changes to a recipe as its file has them.

    >>> written({"optimizer.lr": 0.1, "data.augment": ["flip"]})
    'optimizer.lr = 0.1, data.augment = ["flip"]'
    """
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in overrides.items())
