"""The table over a class: for the terminal, as CSV, and as a page that opens without a network."""

from pathlib import Path

from convolab.core.environment import package_version
from convolab.core.errors import require
from convolab.core.escape import escape_line
from convolab.core.files import csv_text
from convolab.core.outputs import require_outputs, write_output
from convolab.core.text import NO_VALUE, format_percent, pluralize, truncate_list
from convolab.handin.homework import Homework
from convolab.handin.verify.signs import READING_CANNOT_SHOW
from convolab.handin.verify.verify import HandInReport, VerifyResult
from convolab.plots.chart_page import page_environment

CLASS_REPORT = "class report"
PAGE, TABLE = "class.html", "class.csv"
CLASS_COLUMNS = ("who", "found", "items", "points", "accuracy", "seeds", "data", "versions", "file")
WORDS = ("found", "data", "versions", "file")  # columns of text
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute


def class_rows(result: VerifyResult) -> list[list[str]]:
    """A row for each hand-in, by `CLASS_COLUMNS`."""
    return [report_row(report) for report in result.reports]


def report_row(report: HandInReport) -> list[str]:
    """One row of the table."""
    if report.refused:
        return [escape_line(report.name), "refused", *([NO_VALUE] * 6), escape_line(report.file)]
    return [
        escape_line(report.name),
        found_words(report),
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


def class_csv(result: VerifyResult) -> str:
    """The table with a column for the points of each item, which the teacher may change, and all that was found."""
    rows: list[dict[str, object]] = []
    for report in result.reports:
        points = {f"points {name}": report.points.get(name, "") for name in items_with_points(result.homework)}
        columns = dict(zip(CLASS_COLUMNS, report_row(report), strict=True)) | {"points": report.total_points}
        lines = {
            "contradictions": " | ".join(sign.line for sign in report.contradictions),
            "notes": " | ".join(sign.line for sign in (*report.skipped, *report.notes)),
            "refused": report.refused,
        }
        rows.append({name: plain_cell(value) for name, value in {**columns, **points, **lines}.items()})
    return csv_text(rows)


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
