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
from convolab.core.text import duration
from convolab.plots import studies as study_plots
from convolab.plots.style import looks
from convolab.reports.page import PAGE_LOOK, figure_of, palette, variable
from convolab.studies import tables
from convolab.studies.metrics import Metric
from convolab.studies.narrative import DIGITS, apart, digits_for, half, number, p_value, scale_of
from convolab.studies.outcomes import Answer, Arm, Outcome, plural
from convolab.studies.results import BestOnTest, SectionResult, StudyResult

MARKS = {"better": "▲", "worse": "▼", "no difference seen": "=", "not decided": "?"}


@dataclass(frozen=True)
class Cell:
    """What stands in a table, with smaller lines below it."""

    text: str
    below: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """A contrast's verdict as the page shows it: never by colour alone."""

    word: str

    @classmethod
    def of(cls, answer: Answer) -> "Verdict":
        return cls(answer.verdict or "not decided")

    @property
    def mark(self) -> str:
        return MARKS[self.word]

    @property
    def kind(self) -> str:
        """Its name in the style sheet."""
        return self.word.replace(" ", "-")


def write_report(result: StudyResult, path: Path) -> Path:
    """Write the report as one HTML file that opens without the network. Raises LabError if the place cannot be written.

    The answer comes first, then a card a section, then all that is needed to get the same again.
    """
    write_text(path, render(result))
    return path


def render(result: StudyResult) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("convolab.reports"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    colours = palette(result)
    cards = [card(section, colours) for section in result.sections]
    test = best_card(result.best, colours) if result.best else None
    # Every figure's place in the page is its number in this list.
    figures = [figure for part in [*cards, *([test] if test else [])] for figure in part["figures"]]
    for place, figure in enumerate(figures):
        figure["place"] = place
    payload = {"look": PAGE_LOOK, "figures": [figure.pop("data") for figure in figures]}
    return environment.get_template("report.html").render(
        study=result.study,
        cards=cards,
        test=test,
        facts=facts(result),
        base=result.study.base.to_toml(),
        notes=mishap_notes(result),
        times=times(result),
        origins=origins(result.outcomes.values()),
        colours={colour: (variable(colour), dark) for colour, dark in colours.items()},
        payload=Markup(json.dumps(payload, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")),
        libraries=Markup(vl_convert.javascript_bundle().replace("</script", "<\\/script")),
        convolab=version("convolab"),
    )


# ---- the parts of the page


def card(result: SectionResult, colours: dict[str, str]) -> dict[str, Any]:
    """What a section's card shows."""
    verdicts = [Verdict.of(answer) for answer in result.answers]
    metrics = tables.metrics_of(result)
    digits = {metric: digits_of(result.arms, metric) for metric in metrics}
    return {
        "id": f"section-{result.name}",
        "name": result.name,
        "title": result.section.title or result.name,
        "note": result.section.note,
        "comment": result.comment,
        "opening": opening(result.comment),
        "tally": [(Verdict(word), verdicts.count(Verdict(word))) for word in MARKS if Verdict(word) in verdicts],
        "figures": [figure_of(figure, colours) for figure in study_plots.figures(result)],
        "legend": [(arm, variable(colour), dash) for arm, (colour, dash) in looks(result.section).items()],
        "metrics": [metric.title for metric in metrics],
        "arms": [
            {
                "name": arm.name,
                "fate": fate(arm),
                "runs": len(arm.outcomes),
                "cells": [value_cell(arm, metric, digits[metric]) for metric in metrics],
                "time": duration(tables.seconds_of(arm)),
            }
            for arm in result.arms
        ],
        "answers": [answer_row(answer) for answer in result.answers],
        "change": written(result.section.change),
        "changes": [(arm, written(changes)) for arm, changes in result.section.named_arms.items()],
    }


def answer_row(answer: Answer) -> dict[str, Any]:
    """A row of the table of contrasts."""
    metric, paired = answer.contrast.measure, answer.paired
    row = {
        "contrast": answer.contrast,
        "metric": metric.title,
        "verdict": Verdict.of(answer),
        "reason": answer.reason,
        "comment": answer.comment,
    }
    if not paired:
        return row | {"difference": Cell("–"), "p": "–", "effect": "–", "smallest": "–", "seeds": len(answer.seeds)}
    digits, of = digits_for(metric, half(paired.difference)), paired.difference
    low, high = (signed(f"{scale_of(metric) * end:+.{digits}f}") for end in (of.low, of.high))
    return row | {
        "difference": Cell(
            signed(f"{'+' if of.mean > 0 else ''}{apart(metric, of.mean, digits)}"), (f"{low} to {high}",)
        ),
        "p": "–" if answer.adjusted is None else p_value(answer.adjusted).removeprefix("p ").removeprefix("= "),
        "effect": signed(f"{paired.effect:+.1f}") if len(answer.seeds) > 2 else "–",
        "smallest": apart(metric, paired.smallest, digits_for(metric, paired.smallest)),
        "seeds": len(answer.seeds),
    }


def value_cell(arm: Arm, metric: Metric, digits: int) -> Cell:
    """An arm's mean of a metric with its interval, and how many runs of an `until` metric never got there."""
    of = tables.interval_of(arm, metric)
    if not of:
        return Cell("–")
    missed = sum(not metric.reached(outcome.history) for outcome in arm.finished)
    short = (f"{missed} of {of.count} never got there",) if missed else ()
    if of.count == 1:
        return Cell(number(metric, of.mean, max(digits, DIGITS[metric.unit])), ("one run", *short))
    low, high = (f"{scale_of(metric) * end:.{digits}f}" for end in (of.low, of.high))
    return Cell(number(metric, of.mean, digits), (signed(f"{low} to {high}"), *short))


def digits_of(arms: Iterable[Arm], metric: Metric) -> int:
    """Decimals that suit the intervals of all arms."""
    return digits_for(metric, *(half(of) for arm in arms if (of := tables.interval_of(arm, metric))))


def fate(arm: Arm) -> list[str]:
    """What became of an arm's runs that are not finished: "diverged 2 of 3"."""
    counts = Counter(outcome.status for outcome in arm.outcomes)
    return [f"{status} {counts[status]} of {len(arm.outcomes)}" for status in tables.STATUSES[1:] if counts[status]]


def best_card(best: BestOnTest, colours: dict[str, str]) -> dict[str, Any]:
    """What the card of the tested run shows."""
    low, high = best.record["interval"]
    return {
        "id": "best-on-test",
        "trial": best.outcome.trial,
        "accuracy": f"{100 * best.record['accuracy']:.2f} %",
        "interval": f"{100 * low:.2f} to {100 * high:.2f} %",
        "correct": f"{best.record['correct']:,} of {best.record['count']:,}",
        "validation": f"{100 * best.validation_accuracy:.2f} %",
        "pictures": f"{best.validation_count:,}",
        "candidates": best.candidates,
        "inflation": f"{100 * best.inflation:.2f} %-points",
        "epoch": best.record["epoch"],
        "comment": best.comment,
        "figures": [figure_of(figure, colours) for figure in study_plots.best_figures(best)],
    }


def facts(result: StudyResult) -> list[str]:
    """What the study was, in a few words each."""
    outcomes = result.outcomes.values()
    statuses = Counter(outcome.status for outcome in outcomes)
    data = sorted({outcome.trial.recipe.data.name for outcome in outcomes})
    return [
        plural(len(outcomes), "run") + ": " + ", ".join(f"{statuses[s]:,} {s}" for s in tables.STATUSES if statuses[s]),
        seeds_of(result),
        f"pictures of {', '.join(data)}",
        f"{duration(trained(outcomes))} of training",
    ]


def seeds_of(result: StudyResult) -> str:
    """The seeds in a few words; sections may have seeds of their own."""
    chosen = {section.section.seeds or result.study.seeds for section in result.sections}
    if len(chosen) > 1:
        counts = sorted({len(seeds) for seeds in chosen})
        return f"{counts[0]} to {counts[-1]} seeds an arm" if len(counts) > 1 else f"{plural(counts[0], 'seed')} an arm"
    (seeds,) = chosen
    return f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"one seed, {seeds[0]}"


def mishap_notes(result: StudyResult) -> list[str]:
    """What went wrong, a line each: the study's own notes, then the runs that diverged."""
    diverged = [
        f"{section.name}, {arm.name}, seed {outcome.trial.seed}: diverged after {plural(len(outcome.history), 'epoch')}"
        + (f": {outcome.reason}" if outcome.reason else "")
        for section in result.sections
        for arm in section.arms
        for outcome in arm.diverged
    ]
    return [*result.notes, *diverged]


def times(result: StudyResult) -> list[dict[str, Any]]:
    """A row a section: its arms, seeds, runs and their time; a run that sections share counts in each."""
    return [
        {
            "title": section.section.title or section.name,
            "arms": len(section.arms),
            "seeds": ", ".join(map(str, section.section.seeds or result.study.seeds)),
            "runs": sum(len(arm.outcomes) for arm in section.arms),
            "time": duration(trained(outcome for arm in section.arms for outcome in arm.outcomes)),
        }
        for section in result.sections
    ]


def origins(outcomes: Iterable[Outcome]) -> list[tuple[str, int]]:
    """On what the runs were made, with the number of runs: machine, threads, precision and versions."""
    told: Counter[str] = Counter()
    for outcome in outcomes:
        if summary := outcome.summary:
            machine, threads = summary["machine"], summary["threads"]
            versions = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
            where = f"{machine['processor']}, {plural(machine['cores'], 'core')}, {machine['system']}, Python {machine['python']}"
            told[
                f"{where}; {plural(threads, 'thread')} a run on {summary['device']}, {summary['precision']}; {versions}"
            ] += 1
    return told.most_common()


# ---- words


def opening(text: str, most: int = 420) -> str:
    """The first sentences of a text, as many as fit, at least one.

    >>> opening("One is 0.5. Two follows. Three.", 24)
    'One is 0.5. Two follows.'
    """
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z'])", text)
    kept = sentences[0]
    for sentence in sentences[1:]:
        if len(kept) + 1 + len(sentence) > most:
            break
        kept += f" {sentence}"
    return kept


def trained(outcomes: Iterable[Outcome]) -> float:
    """Seconds of training, of every epoch done."""
    return math.fsum(epoch.seconds for outcome in outcomes for epoch in outcome.history)


def signed(text: str) -> str:
    """Numbers with the sign for minus that is as wide as plus."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def written(changes: dict[str, Any]) -> str:
    """Changes to a recipe as its file has them.

    >>> written({"optimizer.lr": 0.1, "data.augment": ["flip"]})
    'optimizer.lr = 0.1, data.augment = ["flip"]'
    """
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in changes.items())
