"""The table over a class: for the terminal, as CSV, and as a page that opens without a network."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from convolab.core.environment import package_version
from convolab.core.errors import require
from convolab.core.escape import escape_line
from convolab.core.files import csv_text
from convolab.core.outputs import require_outputs, write_output
from convolab.core.text import NO_VALUE, format_percent, join_with_and, pluralize, truncate_list
from convolab.handin.homework import Homework
from convolab.handin.verify.copies import hand_in_labels
from convolab.handin.verify.evidence import RunEvidence
from convolab.handin.verify.seeds import has_recipe
from convolab.handin.verify.signs import READING_CANNOT_SHOW, Sign
from convolab.handin.verify.verify import HandInReport, VerifyResult
from convolab.plots.chart_page import page_environment, printable_value

CLASS_REPORT = "class report"
PAGE, TABLE = "class.html", "class.csv"
CLASS_COLUMNS = ("who", "found", "items", "points", "runs", "data", "versions", "file")
TOTAL = "total points"  # the last column of the CSV, after those of the items
MIN_UNNAMED = 20  # of a group that is the whole class: from then on its names say nothing
WHO_COPIED = "at least one of them copied, and the files do not say who"
# What a teacher who has not seen the table before may ask; below it stand those whose words are in it.
MEANINGS = {
    "contradiction": "what no honest hand-in has",
    "shares work": "what several hand-ins have in common and at least one of them copied; the files do not say which one",
    "note": "what is unusual, and has honest reasons too",
    "confirmed": "run again, and the same came out, as exactly as the line says",
    "group": "hand-ins that share something; its number is that of the list of groups",
    "reading": "found in the files as they were handed in",
    "rerun": "found by training a run again (--rerun)",
    "execute": "found by running a notebook again (--execute)",
    "not run again": "asked for, and not possible; the line says why",
    "refused": "not verified; the line says why",
    "runs": "by the homework's recipe: the best epoch's accuracy on the validation images, and the seed, which decides all that is random",
    "data": "what each notebook printed that it trained on; (fast): a short trial run; not printed: its first cell was not run",
    "versions": "the software, the processor and the threads that the runs were trained with",
    "evidence": "the folder of a hand-in that holds the files of its runs: settings, metrics, test",
    "manifest": "manifest.json, the list of a hand-in's files, which `convolab handin pack` writes",
    "recipe": "all settings of a run",
    "SHA-256": "a fingerprint: equal files have the same, others do not",
}


@dataclass(frozen=True)
class FoundPart:
    """One kind of what was found in a hand-in, in a few words."""

    words: str
    css_class: str = ""  # as a verdict's
    mark: str = ""
    groups: tuple[int, ...] = ()  # named after the words

    @property
    def text(self) -> str:
        """The words, and the groups."""
        return self.words + ", ".join(f"group {number}" for number in self.groups)


def class_rows(result: VerifyResult) -> list[list[str]]:
    """A row for each hand-in, by `CLASS_COLUMNS`."""
    return [report_row(result, report) for report in result.reports]


def report_row(result: VerifyResult, report: HandInReport) -> list[str]:
    """One row of the table."""
    if report.refused:
        return [escape_line(report.name), "refused", *([NO_VALUE] * 5), escape_line(report.file)]
    return [
        escape_line(report.name),
        "; ".join(part.text for part in found_parts(result, report)),
        f"{report.num_done} of {report.num_items}",
        f"{report.total_points:g}",
        "; ".join(run_lines(result.homework, report)) or NO_VALUE,
        data_words(report),
        escape_line("; ".join(report.versions)) or NO_VALUE,
        escape_line(report.file),
    ]


def found_parts(result: VerifyResult, report: HandInReport) -> list[FoundPart]:
    """How much was found, in a few words."""
    means = list(dict.fromkeys(sign.means for sign in report.contradictions))
    shared, unusual = (
        tuple(
            number for number in result.group_numbers(report) if (result.groups[number - 1].weight == "note") == is_note
        )
        for is_note in (False, True)
    )
    notes = [sign for sign in report.notes if not sign.shared_by]
    counts = pluralize(len(report.contradictions), "contradiction")
    parts = [
        FoundPart(f"{counts} by {', '.join(means)}", "worse", "\u2716") if means else None,
        FoundPart("shares work: ", "worse", "\u2716", shared) if shared else None,
        FoundPart(f"{len(report.skipped)} not run again", "undecided", "\u25cb") if report.skipped else None,
        FoundPart(pluralize(len(notes), "note"), "undecided", "\u25cb") if notes else None,
        FoundPart("note: ", "undecided", "\u25cb", unusual) if unusual else None,
        FoundPart(f"{len(report.confirmed)} confirmed", "better", "\u2714") if report.confirmed else None,
    ]
    return [part for part in parts if part] or [FoundPart("nothing", "plain")]


def run_lines(homework: Homework, report: HandInReport) -> list[str]:
    """The seed and the best validation accuracy of each run, a line for each of the homework's recipes."""
    by_recipe: dict[str, list[str]] = defaultdict(list)
    for run in report.runs:
        accuracies = [epoch.validation_accuracy or 0 for epoch in run.history]
        best = format_percent(max(accuracies)) if accuracies else "no epochs"
        by_recipe[recipe_name(homework, run)].append(f"{best} (seed {run.seed})")
    names = sorted(by_recipe, key=[*homework.recipes, *by_recipe].index)
    return [f"{escape_line(name)}: {truncate_list(by_recipe[name], 8)}" for name in names]


def recipe_name(homework: Homework, run: RunEvidence) -> str:
    """The homework's recipe that a run has, or its network."""
    fitting = [name for name, overrides in homework.recipes.items() if has_recipe(run, overrides)]
    network = run.recipe.model.name if run.recipe else "unknown"
    return next(iter(fitting), network)


def data_words(report: HandInReport) -> str:
    """What the notebooks trained on: once if all say the same."""
    return escape_line(", ".join(report.data if len(set(report.data)) > 1 else report.data[:1])) or NO_VALUE


def summary_lines(result: VerifyResult) -> list[str]:
    """How many hand-ins were refused and so on, and what of them was run."""
    reports = result.reports
    refused = sum(bool(report.refused) for report in reports)
    contradicting = sum(bool(report.contradictions) for report in reports)
    sharing = sum(bool(report.shared) for report in reports)
    counts = f"{refused} refused, {contradicting} with contradictions, {sharing} sharing work"
    return [pluralize(len(reports), "hand-in"), counts, run_words(result)]


def run_words(result: VerifyResult) -> str:
    """What of the hand-ins was run."""
    counts = ((result.count_done("rerun"), "run", "trained"), (result.count_done("execute"), "notebook", "executed"))
    done = [f"{pluralize(n, noun)} {'was' if n == 1 else 'were'} {verb} again" for n, noun, verb in counts if n]
    if result.fence:
        return "; ".join([*done, f"code of the hand-ins ran {result.fence}"])
    return f"{join_with_and(done)}; no code of the hand-ins was run" if done else "nothing of them was run"


def group_line(result: VerifyResult, number: int) -> str:
    """What a group shares, and who is in it."""
    group = result.groups[number - 1]
    kind, doubt = (" (a note)", "") if group.weight == "note" else ("", f"; {WHO_COPIED}")
    return f"group {number}{kind}: {group_names(result, group)} share {group.what}{doubt}"


def group_names(result: VerifyResult, group: Sign) -> str:
    """Who is in a group; of the whole class the names are left out."""
    count = len(group.shared_by)
    is_all = count == len(result.reports) and count > MIN_UNNAMED
    return f"all {count}" if is_all else join_with_and(group.shared_by)


def lines_of_several(result: VerifyResult) -> dict[Sign, list[str]]:
    """Who has each sign that is not of a group: equal ones of several hand-ins are listed once."""
    labels = hand_in_labels([(report.name, report.file) for report in result.reports])
    owners: dict[Sign, list[str]] = {}
    for report, label in zip(result.reports, labels, strict=True):
        for sign in (sign for sign in report.signs if not sign.shared_by):
            owners.setdefault(sign, []).append(label)
    return owners


def class_csv(result: VerifyResult) -> str:
    """The table with a column for the points of each item, which the teacher may change, and all that was found."""
    rows: list[dict[str, object]] = []
    for report in result.reports:
        own = [sign for sign in report.signs if not sign.shared_by]
        columns: dict[str, object] = dict(zip(CLASS_COLUMNS, report_row(result, report), strict=True))
        del columns["points"]
        columns |= {
            "shared": " | ".join(group_line(result, number) for number in result.group_numbers(report)),
            "contradictions": " | ".join(sign.line for sign in report.contradictions),
            "notes": " | ".join(sign.line for sign in own if sign.weight in ("skipped", "note")),
            "confirmed": " | ".join(sign.line for sign in report.confirmed),
            "refused": report.refused,
        }
        columns |= {f"points {name}": report.points.get(name, "") for name in items_with_points(result.homework)}
        columns[TOTAL] = "" if report.refused else report.total_points
        rows.append({name: escape_line(value) if isinstance(value, str) else value for name, value in columns.items()})
    return csv_text(rows)


def meanings_of(result: VerifyResult) -> dict[str, str]:
    """The explanations of the words that this table, and what was found, use."""
    cells = [cell for row in class_rows(result) for cell in row]
    lines = [group_line(result, number) for number in range(1, len(result.groups) + 1)]
    lines += [sign.line for sign in lines_of_several(result)]
    text = " ".join([*CLASS_COLUMNS, *cells, *lines])
    return {word: meaning for word, meaning in MEANINGS.items() if word in text}


def items_with_points(homework: Homework) -> list[str]:
    """The items that have points, in order."""
    return [*(["1"] if homework.question1.points else []), *(item.id for item in homework.items if item.points)]


def class_page(result: VerifyResult) -> str:
    """The page: the table, what was found in each hand-in, then what the words mean."""
    environment = page_environment("convolab.handin", "convolab.reports")
    environment.filters["code"] = mark_code
    reports = result.reports
    usual = next((version for version, _ in Counter(v for r in reports for v in r.versions).most_common(1)), "")
    return environment.get_template("class.html").render(
        title=result.homework.title,
        summary=summary_lines(result),
        rows=[page_row(result, report, usual) for report in reports],
        usual=usual,
        all_agree=all(report.versions in ([], [usual]) for report in reports),
        groups=[(group_names(result, group), group) for group in result.groups],
        who_copied=WHO_COPIED,
        meanings=meanings_of(result),
        max_points=f"{result.homework.points:g}",
        limits=READING_CANNOT_SHOW,
        convolab=package_version("convolab"),
    )


def page_row(result: VerifyResult, report: HandInReport, usual: str) -> dict[str, object]:
    """What the page shows of a hand-in."""
    cells = dict(zip(CLASS_COLUMNS, report_row(result, report), strict=True))
    numbers = result.group_numbers(report)
    return {
        "report": report,
        "who": cells["who"],
        "found": found_parts(result, report),
        "groups": numbers,
        "cells": [(name, cells[name]) for name in ("items", "points")],
        "runs": run_lines(result.homework, report),
        "versions": [version for version in report.versions if version != usual],
        "data": cells["data"],
    }


def mark_code(text: str) -> Markup:
    """A text of anyone for the page, what stands between backticks as code.

    >>> mark_code("see `a<b`")
    Markup('see <code>a&lt;b</code>')
    """
    safe = str(escape(printable_value(text)))
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", safe).replace("`", "&#39;"))


def require_report_folder(out: Path) -> None:
    """Raise LabError, before any work is done, unless the report can be written without harm."""
    require(not out.exists() or out.is_dir(), f"--out {out} is a file: give a folder")
    require_free_table(out / TABLE, "give another folder")
    require_outputs(CLASS_REPORT, [out / PAGE])


def require_class_table(path: Path) -> None:
    """Raise LabError, before any work is done, unless the table can be written to this file without harm."""
    require(path.suffix.lower() == ".csv", f"--csv {path}: give a name ending in .csv, or - to print the table")
    require_free_table(path, "give another name")
    require_outputs(CLASS_REPORT, [path])


def require_free_table(path: Path, advice: str) -> None:
    """Raise LabError if a table is there already, which is never replaced."""
    is_free = not path.exists() and not path.is_symlink()
    require(is_free, f"{path} exists, and its points may have been changed by hand: {advice}, or move it away")


def write_class_report(result: VerifyResult, out: Path) -> list[Path]:
    """Write page and table into a folder; gives their paths. Raises LabError if they cannot be written."""
    write_output(out / PAGE, CLASS_REPORT, class_page(result))
    return [out / PAGE, write_class_table(result, out / TABLE)]


def write_class_table(result: VerifyResult, path: Path) -> Path:
    """Write the table as CSV; gives its path."""
    write_output(path, CLASS_REPORT, class_csv(result).encode("utf-8-sig"))  # Excel needs the mark to read names
    return path
