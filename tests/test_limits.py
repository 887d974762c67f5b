"""The limits that docs/trust.md names are those of the code, and it names all that a person may meet."""

import ast
import importlib
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "trust.md"
PACKAGE = PAGE.parents[1] / "src" / "convolab"
# By module, for what reason: nothing that a person gives is refused for these.
INTERNAL = {
    "how much is shown, the rest being elsewhere": """cli.commands.handin.MAX_SHOWN_SIGNS cli.commands.handin.MAX_SHOWN_NAMES 
        cli.commands.runs.MAX_CHANGED
        cli.findings.MAX_NET_NAME cli.searches.MAX_LISTED core.calls.MAX_LISTED core.errors.MAX_MESSAGE_LENGTH
        core.escape.MAX_FILE_NAME_PART handin.check.MAX_WORDS_CHARS handin.notebook_file.MAX_SHOWN
        handin.one_line_errors.MAX_LINE_CHARS handin.verify.verify.MAX_LISTED inspection.adversarial.finding.MAX_PANEL_ROWS
        inspection.adversarial.finding.MAX_DESCRIBED inspection.adversarial.finding.MAX_NAMED
        inspection.adversarial.finding.MAX_TITLE_LENGTH inspection.explain.explain.MAX_DESCRIBED
        inspection.explain.explain.MAX_COLUMNS inspection.localization.finding.MAX_SHOWN models.libraries.MAX_LISTED
        plots.chart_page.MAX_FLEXIBLE_NAMES plots.figure.MAX_PNG_BYTES plots.panels.MAX_DOTTED_STEPS plots.study_scales.MAX_DISTINCT_ARMS plots.summary.MAX_BARS
        plots.training.MAX_LABELED_CLASSES reports.playback.MAX_SHOWN reports.result_view.MAX_ROWS reports.views.MAX_SHEET_CLASSES
        studies.compare.MAX_OVERRIDES_LENGTH studies.single_runs.MAX_KEYS studies.results.MAX_REPR_COMMENT studies.sweep.MAX_NAMED_KEYS
        app.comparison.MAX_DIFFERENCES app.counting.MAX_FOUND app.counting.MAX_STAGES app.folders.MAX_LISTED
        app.run_rows.MAX_POINTS app.same_as.MAX_LINE app.sessions.MAX_NAME
        app.shown_images.MAX_SHOWN_SIDE""",
    "how much is compared or kept, the rest being left out": """training.playback.MAX_FILTERS
        training.playback.MAX_FILTER_VALUES training.playback.MAX_FRAMES data.copies.MAX_DIFFERENCE data.copies.MAX_GROUPS
        data.copies.MAX_PAIRS data.copies.MAX_NEIGHBORS handin.comments.MAX_COPIED handin.comments.MAX_COMMENT_CHARS
        handin.notebook_file.MAX_TEXT_CHARS handin.notebook_file.MAX_OUTPUT_LINE handin.notebook_file.MAX_HTML_CHARS
        handin.verify.copies.MAX_SHARED handin.verify.digests.MAX_PAGE_BYTES handin.verify.digests.MAX_LINES
        handin.verify.evidence.MAX_IMAGES handin.verify.fence.MAX_LOG_BYTES handin.verify.numbers.MAX_POINTS
        handin.verify.numbers.MAX_NUMBERS handin.verify.numbers.MAX_CLAIMS inspection.localization.detection.MAX_BOXES""",
    "how long the page keeps something": """app.folders.MAX_KEPT_BYTES app.jobs.MAX_ENDED app.networks.MAX_LOADED app.networks.MAX_LOADED_BYTES
        app.progress.MAX_KEPT app.sessions.MAX_QUIET""",
    "how something is computed": """analysis.summary.MAX_MACS_TO_MEASURE core.stats.MAX_PLANNED_PAIRS
        data.readers.pickled_arrays.MAX_COPIED_BYTES handin.verify.archive.MAX_COMMENT_BYTES inspection.adversarial.pgd.MAX_BATCH_SIZE
        inspection.localization.detection.MAX_CANVAS_PIXELS studies.coursework.MAX_SEEDS studies.decide.MAX_EXACT_SHARES
        studies.executor.MAX_ATTEMPTS studies.forkserver.MAX_SOCKET_FOLDER_BYTES studies.ray_executor.MAX_NODE_FAILURES
        studies.search.MAX_DRAWS studies.trend.MAX_EXPONENT""",
    "what a number of the machine can be": "studies.section.MAX_NUMBER training.history.MAX_METRIC",
}
ROWS = re.findall(r"^\| [^|]+ \| ([\d,]+)[^|]* \| `([\w.]+)\.(\w+)` \|$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("number", "module", "name"), ROWS)
def test_a_limit_in_docs_is_that_of_the_code(number: str, module: str, name: str) -> None:
    assert getattr(importlib.import_module(f"convolab.{module}"), name) == int(number.replace(",", ""))


def test_all_rows_of_the_table_are_read_and_every_test_that_it_names_is_there() -> None:
    text = PAGE.read_text()
    assert len(ROWS) == text.split("## Limits")[1].split("## What")[0].count("| `")
    for path in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (PAGE.parents[1] / path).exists(), path


def numbers_named_max(path: Path) -> set[str]:
    """The module's numbers called MAX_...: what is a text or a table is none."""
    names: set[str] = set()
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            value = statement.value
            is_text = isinstance(value, ast.Dict) or (isinstance(value, ast.Constant) and isinstance(value.value, str))
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found = {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            names |= set() if is_text else {name for name in found if name.lstrip("_").startswith("MAX_")}
    return names


@pytest.mark.slow
def test_every_limit_of_the_code_has_a_row_or_a_reason_why_nobody_meets_it() -> None:
    limits = {
        f"{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}.{name}"
        for path in PACKAGE.rglob("*.py")
        for name in numbers_named_max(path)
    }
    in_table = {f"{module}.{name}" for _, module, name in ROWS}
    internal = {name for names in INTERNAL.values() for name in names.split()}
    assert sorted(limits - in_table - internal) == []
    assert sorted(internal - limits | internal & in_table) == []  # none that is gone or stands twice
