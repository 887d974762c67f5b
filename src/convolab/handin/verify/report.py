"""The table over a class: for the terminal, as CSV, and as a page that opens without a network."""

from collections.abc import Sequence
from pathlib import Path

from convolab.core.environment import package_version
from convolab.core.errors import require
from convolab.core.escape import escape_line
from convolab.core.files import csv_text
from convolab.core.outputs import require_outputs, write_output
from convolab.core.text import NO_VALUE, format_percent, pluralize, truncate_list
from convolab.handin.homework import Homework
from convolab.handin.verify.copies import hand_in_labels
from convolab.handin.verify.signs import READING_CANNOT_SHOW, Sign
from convolab.handin.verify.verify import HandInReport, VerifyResult
from convolab.plots.chart_page import page_environment

CLASS_REPORT = "class report"
PAGE, TABLE = "class.html", "class.csv"
CLASS_COLUMNS = ("who", "found", "groups", "items", "points", "accuracy", "seeds", "data", "versions", "file")
WORDS = ("found", "data", "versions", "file")  # columns of text
MIN_UNNAMED = 20  # of a group that is the whole class: from then on its names say nothing
# What a teacher who has not seen the table before may ask; below it stand those whose words are in it.
MEANINGS = {
    "contradiction": "what no honest hand-in has",
    "note": "what is unusual, and has honest reasons too",
    "groups": "hand-ins that share something; the numbers are those of the list of groups",
    "reading": "found in the files as they were handed in; nothing of them was run",
    "rerun": "found by training a run again (--rerun)",
    "execute": "found by running a notebook again (--execute)",
    "not run again": "asked for, and not possible; the line says why",
    "refused": "not read at all; the line says why",
    "accuracy": "of each run on the validation images, at its best epoch",
    "seeds": "the numbers that decide all that is random in a run, one for each run",
    "data": "what each notebook printed that it trained on; (fast): a short trial run; not printed: its first cell was not run",
    "versions": "the software, the processor and the threads that the runs were trained with",
    "evidence": "the folder of a hand-in that holds the files of its runs: settings, metrics, test",
    "manifest": "manifest.json, the list of a hand-in's files, which `convolab handin pack` writes",
    "recipe": "all settings of a run",
    "SHA-256": "a fingerprint: equal files have the same, others do not",
}
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


def class_rows(result: VerifyResult) -> list[list[str]]:
    """A row for each hand-in, by `CLASS_COLUMNS`."""
    return [report_row(report, result.group_numbers(report)) for report in result.reports]


def report_row(report: HandInReport, groups: Sequence[int] = ()) -> list[str]:
    """One row of the table; `groups` are the numbers of those that it is in."""
    if report.refused:
        return [escape_line(report.name), "refused", *([NO_VALUE] * 7), escape_line(report.file)]
    return [
        escape_line(report.name),
        found_words(report),
        ", ".join(map(str, groups)) or NO_VALUE,
        f"{report.num_done} of {report.num_items}",
        f"{report.total_points:g}",
        truncate_list([format_percent(accuracy) for accuracy in report.accuracies]),
        truncate_list([str(seed) for seed in report.seeds], 8),
        escape_line(", ".join(report.data)),
        escape_line("; ".join(report.versions)) or NO_VALUE,
        escape_line(report.file),
    ]


def found_words(report: HandInReport) -> str:
    """How much was found, in a few words.

    >>> found_words(HandInReport("a.zip"))
    'nothing'
    """
    means = list(dict.fromkeys(sign.means for sign in report.contradictions))
    found = [f"{pluralize(len(report.contradictions), 'contradiction')} by {', '.join(means)}"] if means else []
    found += [pluralize(len(report.notes), "note")] if report.notes else []
    found += [f"{len(report.skipped)} not run again"] if report.skipped else []
    return "; ".join(found) or "nothing"


def group_line(result: VerifyResult, number: int) -> str:
    """What a group shares, and who is in it; of the whole class the names are left out."""
    group = result.groups[number - 1]
    count = len(group.shared_by)
    is_all = count == len(result.reports)
    names = "" if is_all and count > MIN_UNNAMED else f": {', '.join(group.shared_by)}"
    who = f"all {count}" if is_all else f"these {count}"
    return f"group {number}{' (a note)' if group.weight == 'note' else ''}: {who} share {group.what}{names}"


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
    listed: set[int] = set()  # groups that a row above has in full
    for report in result.reports:
        numbers = result.group_numbers(report)
        own = {number: group_line(result, number) for number in numbers if number not in listed}
        listed |= own.keys()
        points = {f"points {name}": report.points.get(name, "") for name in items_with_points(result.homework)}
        columns = dict(zip(CLASS_COLUMNS, report_row(report, numbers), strict=True)) | {"points": report.total_points}
        lines = {
            "shared": " | ".join(own.values()),
            "contradictions": " | ".join(sign.line for sign in report.contradictions if not sign.shared_by),
            "notes": " | ".join(sign.line for sign in (*report.skipped, *report.notes) if not sign.shared_by),
            "refused": report.refused,
        }
        rows.append({name: plain_cell(value) for name, value in {**columns, **points, **lines}.items()})
    return csv_text(rows)


def meanings_of(result: VerifyResult) -> dict[str, str]:
    """The explanations of the words that this table, and what was found, use."""
    cells = [cell for row in class_rows(result) for cell in row]
    has_groups = bool(result.groups)
    lines = [group_line(result, number) for number in range(1, len(result.groups) + 1)]
    lines += [sign.line for sign in lines_of_several(result)]
    text = " ".join([*CLASS_COLUMNS, *cells, *lines])
    return {word: meaning for word, meaning in MEANINGS.items() if word in text and (word != "groups" or has_groups)}


def items_with_points(homework: Homework) -> list[str]:
    """The items that have points, in order."""
    return [*(["1"] if homework.question1.points else []), *(item.id for item in homework.items if item.points)]


def plain_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula.

    >>> plain_cell("=1+1"), plain_cell("Ada"), plain_cell(3.5)
    ("'=1+1", 'Ada', 3.5)
    """
    if not isinstance(value, str):
        return value
    line = escape_line(value)
    return f"'{line}" if line.startswith(FORMULA_STARTS) and line != NO_VALUE else line


def class_page(result: VerifyResult) -> str:
    """The page: the table, then what was found in each hand-in."""
    template = page_environment("convolab.handin", "convolab.reports").get_template("class.html")
    return template.render(
        title=result.homework.title,
        reports=result.reports,
        num_suspicious=len(result.suspicious),
        fence=result.fence,
        headings=CLASS_COLUMNS,
        words=WORDS,
        rows=list(zip(result.reports, class_rows(result), strict=True)),
        groups=[group_line(result, number) for number in range(1, len(result.groups) + 1)],
        meanings=meanings_of(result),
        max_points=f"{result.homework.points:g}",
        limits=READING_CANNOT_SHOW,
        convolab=package_version("convolab"),
    )


def require_report_folder(out: Path) -> None:
    """Raise LabError, before any work is done, unless the report can be written without harm."""
    require(not out.exists() or out.is_dir(), f"--out {out} is a file: give a folder")
    table = out / TABLE
    is_free = not table.exists() and not table.is_symlink()
    require(
        is_free, f"{table} exists, and its points may have been changed by hand: give another folder, or move it away"
    )
    require_outputs(CLASS_REPORT, [out / PAGE])


def write_class_report(result: VerifyResult, out: Path) -> list[Path]:
    """Write page and table into a folder; gives their paths. Raises LabError if they cannot be written."""
    write_output(out / PAGE, CLASS_REPORT, class_page(result))
    write_output(out / TABLE, CLASS_REPORT, class_csv(result))
    return [out / PAGE, out / TABLE]
