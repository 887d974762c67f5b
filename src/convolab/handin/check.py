"""What of the homework is done, item by item, read from the notebooks of a folder without running anything of them."""

import ast
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from convolab.core.errors import LabError, require
from convolab.core.run_files import RECIPE_FILE, SUMMARY_FILE
from convolab.handin.comments import EMPTY, comment_problem, known_digests
from convolab.handin.homework import Homework, HomeworkItem, NotebookInfo, Value
from convolab.handin.notebook_file import (
    HandedInCell,
    cut_at_word,
    one_line,
    printed_settings,
    read_notebook,
    settings_cell,
)
from convolab.handin.notebooks import require_cells
from convolab.handin.question1 import question1_problem

Aspect = Literal["code", "run", "figure", "comment", "value"]
ASPECTS: tuple[Aspect, ...] = ("code", "run", "figure", "comment", "value")
MAX_RUNS = 1_000
MAX_WORDS_CHARS = 100  # of a problem in a line with others
UNFILLED = "a gap is not filled in yet"
NOT_RUN = "it was not run: restart the kernel, run all cells, and save"
OUT_OF_ORDER = "it was run out of order: restart the kernel, run all cells, and save"
FAST_RUN = "this was the fast run: run it again without FAST"
NO_VALUE = "it does not print"
NO_FIGURE = "it shows no figure"
NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"  # as code prints it: whatever it matches is one
GAP_LINE = re.compile(r"(?:[\w,][\w, ]* = )?(?:\.\.\.,?\s*)+(?:#.*)?")  # without the spaces around it
OF_A_NOTEBOOK = {NOT_RUN: "not run", OUT_OF_ORDER: "run out of order", FAST_RUN: "fast run"}  # same in many cells
SHORT_WORDS = {
    **OF_A_NOTEBOOK,
    UNFILLED: "gap",
    NO_FIGURE: "no figure",
    EMPTY: "no comment",
}
CellsByName = dict[str, HandedInCell]


@dataclass(frozen=True)
class Problem:
    """What is open in one aspect of an item, and what to do about it."""

    aspect: Aspect | Literal["notebook"]  # notebook: all aspects, since it cannot be read
    what: str
    remedy: str  # the cell or the command
    short: str = ""  # what is open in a few words; empty: what
    cell: str = ""  # the name of the cell, if it is one

    @property
    def few_words(self) -> str:
        """What is open, to stand in a line with others."""
        return self.short or f"{self.aspect}: {self.what}"


@dataclass(frozen=True)
class ItemResult:
    """An item and what is open in it."""

    id: str
    question: int
    title: str
    aspects: tuple[Aspect, ...]  # that the item asks for
    problems: tuple[Problem, ...]
    notebook: str = ""  # its file, if it has one

    @property
    def is_done(self) -> bool:
        return not self.problems

    def state_of(self, aspect: Aspect) -> str:
        """How a table shows an aspect: done, open, or empty where the item does not ask for it."""
        if aspect not in self.aspects:
            return ""
        return "open" if any(problem.aspect in (aspect, "notebook") for problem in self.problems) else "done"


@dataclass(frozen=True)
class CheckResult:
    """All items of the homework, in order."""

    folder: str
    items: tuple[ItemResult, ...]
    fast: tuple[str, ...] = ()  # the notebooks that hold a fast run

    @property
    def open_items(self) -> list[ItemResult]:
        return [item for item in self.items if not item.is_done]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        items = [{**asdict(item), "done": item.is_done} for item in self.items]
        counts = {"num_items": len(items), "num_open": len(self.open_items)}
        return {"folder": self.folder, "items": items, "fast": list(self.fast), **counts}


def check_folder(homework: Homework, folder: Path) -> CheckResult:
    """Check the homework in a folder. Nothing is run, and nothing is written.

    Raises LabError if there is no such folder, or none of the homework's files is in it; what is wrong with a file in
    it is a problem of its items.
    """
    require(folder.is_dir(), f"{folder} is not a folder: give the one that `convolab handin start` made")
    require_homework_folder(homework, folder)
    require_cells(homework, sources=False)
    problem = question1_problem(homework, folder)
    results = [ItemResult("1", 1, homework.question1.title, ("comment",), () if problem is None else (
        Problem("comment", problem, f"write {homework.question1.answers}, or put your {homework.question1.pdf} there"),
    ))]  # fmt: skip
    known = None if homework.file is None else known_digests(homework)
    for notebook in homework.notebooks:
        results += check_notebook(homework, notebook, folder, known)
    fast_items = {item.id for item in results if any(problem.what == FAST_RUN for problem in item.problems)}
    fast = tuple(
        notebook.name
        for notebook in homework.notebooks
        if any(item.id in fast_items for item in homework.items_of(notebook.name))
    )
    return CheckResult(str(folder), (*results, check_runs(homework, folder)), fast)


def find_shared_problems(items: Sequence[ItemResult]) -> dict[str, list[str]]:
    """What is open in every item of a notebook that was to be run, by the notebook's file: named once, not for each."""
    shared = {}
    for file in dict.fromkeys(item.notebook for item in items if item.notebook):
        of_each = [
            {problem.what for problem in item.problems if problem.aspect in ("run", "notebook")}
            for item in items
            if item.notebook == file
        ]
        found = sorted(set.intersection(*of_each))
        if found:
            shared[file] = found
    return shared


def few_words(item: ItemResult, shared: Sequence[str] = ()) -> str:
    """What is open in an item in a few words; of what its whole notebook shares, only if nothing else is open."""
    own = [problem for problem in item.problems if problem.what not in shared] or item.problems[:1]
    words = [cut_at_word(one_line(problem.few_words), MAX_WORDS_CHARS) for problem in own]
    return "; ".join(dict.fromkeys(words)) or "done"


def find_repeated_problems(items: Sequence[ItemResult]) -> dict[tuple[str, str], list[str]]:
    """The cells of what may be open in many cells for one reason, by the notebook's file and the problem."""
    cells: dict[tuple[str, str], list[str]] = {}
    for item in items:
        for problem in item.problems:
            if problem.what in OF_A_NOTEBOOK or problem.aspect == "notebook":
                cells.setdefault((item.notebook, problem.what), []).append(problem.cell)
    return {key: list(dict.fromkeys(filter(None, names))) for key, names in cells.items()}


def require_homework_folder(homework: Homework, folder: Path) -> None:
    """Raise LabError for a folder without any file of the homework."""
    question1 = homework.question1
    names = [question1.answers, question1.pdf, *(f"{notebook.name}.ipynb" for notebook in homework.notebooks)]
    require(
        any((folder / name).exists() or (folder / name).is_symlink() for name in names),
        f"{folder} is no homework folder: make one by `convolab handin start NAME`",
    )


def check_notebook(
    homework: Homework, notebook: NotebookInfo, folder: Path, known: frozenset[str] | None = None
) -> list[ItemResult]:
    """The items of one notebook. Where it cannot be read, each is open for that reason."""
    path = folder / f"{notebook.name}.ipynb"
    items = homework.items_of(notebook.name)
    try:
        cells = read_notebook(path, folder)
    except LabError as error:
        short = "the notebook cannot be read" if path.exists() else "the notebook is missing"
        unreadable = Problem("notebook", one_line(str(error)), f"restore {path.name}", short)
        return [
            ItemResult(item.id, item.question, item.title, aspects_of(item), (unreadable,), path.name) for item in items
        ]
    checker = NotebookChecker(path.name, cells, homework.min_comment_words, known)
    return [checker.check(item) for item in items]


def aspects_of(item: HomeworkItem) -> tuple[Aspect, ...]:
    """What an item asks for."""
    has = {"code": item.code, "run": True, "figure": item.figures, "comment": item.comments, "value": item.values}
    return tuple(aspect for aspect in ASPECTS if has[aspect])


class NotebookChecker:
    """Checks items against the cells of one notebook."""

    def __init__(
        self, file: str, cells: Sequence[HandedInCell], min_comment_words: int, known: frozenset[str] | None = None
    ) -> None:
        self.file = file
        self.known = known  # what others wrote; None: what the course's solution has
        self.cells: CellsByName = {cell.name: cell for cell in reversed(cells)}  # of two of a name the first
        self.out_of_order = find_out_of_order(cells)
        self.min_comment_words = min_comment_words
        self.settings = settings_cell(cells)
        printed = printed_settings(cells)
        self.data = printed.get("data", "")
        self.is_fast = printed.get("fast") == "True"

    def check(self, item: HomeworkItem) -> ItemResult:
        """An item and its problems."""
        problems = [
            *self.problems_of("code", item.code, self.code_problem),
            *self.problems_of("run", (*item.code, *item.checks, *item.figures), self.run_problem),
            *self.fast_problems(),
            *self.problems_of("figure", item.figures, self.figure_problem),
            *self.problems_of("comment", item.comments, self.comment_problem),
            *self.value_problems(item.values),
        ]
        return ItemResult(item.id, item.question, item.title, aspects_of(item), tuple(problems), self.file)

    def problems_of(
        self, aspect: Aspect, names: Sequence[str], find_problem: Callable[[HandedInCell], str]
    ) -> list[Problem]:
        """What is open in one aspect of some cells; only the run's check tells of a missing cell that others need."""
        problems = []
        for name in names:
            cell = self.cells.get(name)
            what = "the cell is missing" if cell is None else find_problem(cell)
            if what:
                problems.append(Problem(aspect, what, f"cell {name} of {self.file}", SHORT_WORDS.get(what, ""), name))
        return problems

    def code_problem(self, cell: HandedInCell) -> str:
        if cell.type != "code":
            return "it is no code"
        return UNFILLED if has_gap(cell.source) else ""

    def run_problem(self, cell: HandedInCell) -> str:
        if cell.error:
            return cell.error
        if cell.execution_count is None:
            return NOT_RUN
        return OUT_OF_ORDER if cell.name in self.out_of_order else ""

    def fast_problems(self) -> list[Problem]:
        """That the notebook holds a trial run, if it does."""
        if self.settings is None or not self.is_fast:
            return []
        name = self.settings.name
        return [Problem("run", FAST_RUN, f"cell {name} of {self.file}", SHORT_WORDS[FAST_RUN], name)]

    def figure_problem(self, cell: HandedInCell) -> str:
        return "" if cell.has_figure else NO_FIGURE

    def comment_problem(self, cell: HandedInCell) -> str:
        text = cell.source if cell.type == "markdown" else cell.markdown
        return comment_problem(text, self.min_comment_words, self.known)

    def value_problems(self, values: Sequence[Value]) -> list[Problem]:
        """What is open in the numbers that an item asks for."""
        problems = []
        for value in values:
            what = self.value_problem(value)
            if what:
                short = "no value" if what.startswith(NO_VALUE) else ""
                problems.append(Problem("value", what, f"cell {value.cell} of {self.file}", short, value.cell))
        return problems

    def value_problem(self, value: Value) -> str:
        """What is wrong with a number that a cell prints, or an empty text."""
        cell = self.cells.get(value.cell)
        number = None if cell is None else printed_value(cell.text, value.label)
        if number is None:
            return f"{NO_VALUE} '{value.label} = NUMBER'"
        low, high = value.ranges.get(self.data, (-math.inf, math.inf))
        return "" if low <= number <= high else f"{value.label} = {number:g} is not plausible: {low:g} to {high:g}"


def printed_value(text: str, label: str) -> float | None:
    """The last number that a text gives a label.

    >>> printed_value("test accuracy = 0.9\\ntest accuracy = 0.8", "test accuracy")
    0.8
    """
    digits = printed_digits(text, label)
    return float(digits) if digits else None


def printed_digits(text: str, label: str) -> str:
    """The last number that a text gives a label, with the digits that it shows; empty if there is none."""
    # In front of the label no ends of lines: each of a million empty lines would be a start that reads all the others.
    found = re.findall(rf"(?m)^[^\w\n]*{re.escape(label)} = ({NUMBER})", text)
    return found[-1] if found else ""


def has_gap(source: str) -> bool:
    """Whether a cell's code still has a `...` to be replaced.

    >>> has_gap("def f():\\n    ..."), has_gap("x = ..."), has_gap("x = a[..., 0]")
    (True, True, False)
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return any(GAP_LINE.fullmatch(line.strip()) for line in source.splitlines())
    return any(is_gap(node) for node in ast.walk(tree))


def is_gap(node: ast.AST) -> bool:
    """Whether a statement is `...`, or gives `...` to a name."""
    if not isinstance(node, ast.Expr | ast.Assign):
        return False
    values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    return any(isinstance(value, ast.Constant) and value.value is ... for value in values)


def find_out_of_order(cells: Sequence[HandedInCell]) -> set[str]:
    """The names of the cells that were run before a cell above them."""
    names, highest = set(), 0
    for cell in cells:
        if cell.execution_count is not None:
            if cell.execution_count <= highest:
                names.add(cell.name)
            highest = max(highest, cell.execution_count)
    return names


def check_runs(homework: Homework, folder: Path) -> ItemResult:
    """Whether the runs that the notebooks leave are there: in runs/, or in evidence/ of an unpacked zip."""
    wanted = min(
        sum(notebook.num_runs.get(budget, 0) for notebook in homework.notebooks) for budget in homework.budgets
    )
    found = max(len(find_run_folders(folder / name)) for name in ("runs", "evidence"))
    what = f"{'1 run is' if found == 1 else f'{found} runs are'} in runs/, and the notebooks leave {wanted} or more"
    makers = [f"{notebook.name}.ipynb" for notebook in homework.notebooks if notebook.recipe]
    places = "part 13 of question 2 and part 4.3 make them, beside the notebooks"
    if homework.file is not None:
        places = f"{' and '.join(makers)} make them, beside the notebooks"
    problem = Problem("run", what, places)
    return ItemResult("runs", 2, "the runs of convolab", ("run",), (problem,) if found < wanted else ())


def find_run_folders(root: Path) -> list[Path]:
    """The folders in a folder that hold a run, by name; links are not followed. Raises LabError for too many."""
    if root.is_symlink() or not root.is_dir():
        return []
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.is_symlink()]
    require(len(folders) <= MAX_RUNS, f"{root} has {len(folders):,} folders: at most {MAX_RUNS:,} are read")
    return [path for path in folders if (path / SUMMARY_FILE).is_file() and (path / RECIPE_FILE).is_file()]
