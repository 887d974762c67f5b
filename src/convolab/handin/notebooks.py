"""The homework's notebooks, made from one source: the form to fill in, and the form with the solution.

The source of a notebook is a Python file of cells (jupytext's percent format). A cell's tag says what it is: `gap` has
lines between `# BEGIN SOLUTION: hint` and `# END SOLUTION` that the student form lacks, `check` asserts, `figure`
shows one, and `comment` is code that writes a comment from the run's numbers, in place of which the student form has
an empty text. A cell without a tag is in both forms as it is. Equal sources give equal bytes.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pprint import pformat
from typing import Literal

from convolab.core.errors import LabError, require, suggest
from convolab.handin.homework import Form, Homework, load_homework, read_notebook_source

CellType = Literal["code", "markdown"]
CELL_HEADER = re.compile(r'# %%( \[markdown\])?(?: name="([\w.-]+)")?(?: tags=\["(\w+)"\])?')
SOLUTION_LINES = re.compile(r"(?ms)^( *)# BEGIN SOLUTION: ([^\n]*)\n(.*?)^ *# END SOLUTION$")
MARKER_LINE = re.compile(r"(?m)^ *# (?:BEGIN SOLUTION: |INSTEAD:|END SOLUTION|PROMPT: ).*\n?")
INSTEAD_LINE = re.compile(r"(?m)^ *# INSTEAD:(?: (.*))?$")
PROMPT_LINE = re.compile(r"(?m)^# PROMPT: (.*)$")
DATA_LINE = re.compile(r'(?m)^DATA = "[^"\n]*"(?: *# *(?:or "[^"\n]*" ?)*:? *(.*))?$')  # with a remark, or none
BLANK_LINES = re.compile(r"\n{4,}")  # more than two, where a mark was
GIVEN = ("DATA", "FAST")  # lines that no homework changes
PLACEHOLDER = "*Write your comment here, in place of this line.*"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@dataclass(frozen=True)
class NotebookCell:
    """One cell of a notebook."""

    type: CellType
    name: str
    tag: str  # gap, check, figure, comment, or empty
    text: str


def build_notebook(homework: Homework, name: str, form: Form, data: str) -> list[NotebookCell]:
    """The cells of a notebook in one form, set to train on a dataset. Raises LabError for an unknown dataset.

    >>> from convolab.handin.homework import load_homework
    >>> build_notebook(load_homework(), "question2_training", "student", "digits")[0].name
    'q2-title'
    """
    require(data in homework.datasets, f"there is no homework on '{data}': {suggest(data, homework.datasets)}")
    # What no item asks for is given: later cells may need it.
    asked = {cell for item in homework.items_of(name) for cell in (*item.code, *item.comments)}
    filled = [replace(cell, text=fill_in(cell.text, homework, name, data)) for cell in read_source(name, homework)]
    return [
        solution_cell(cell)
        if form == "solution" or (cell.tag in ("gap", "comment") and cell.name not in asked)
        else student_cell(cell)
        for cell in filled
    ]


def read_source(name: str, homework: Homework | None = None) -> list[NotebookCell]:
    """The cells of a notebook's source, with both forms in them; without a homework one of the course's."""
    return list(parse_cells(read_notebook_source(homework or load_homework(), name)))


def require_cells(homework: Homework, *, sources: bool = True) -> None:
    """Raise LabError for what a homework says of cells that its notebooks do not have.

    An item's cells must be there, and of their kind; an arm must be a line of a cell, with a value of its kind. Without
    `sources` the teacher's own notebooks, whose source may lie elsewhere by now, are left out.
    """
    name = homework.file or "homework.toml"
    texts = []
    for notebook in homework.notebooks:
        if notebook.source and not sources:
            continue
        cells = {cell.name: cell for cell in read_source(notebook.name, homework)}
        texts += [cell.text for cell in cells.values() if cell.type == "code"]
        for item in homework.items_of(notebook.name):
            printed = [value.cell for value in (*item.values, *item.evidence)]
            wanted = (
                ("gap", item.code),
                ("check", item.checks),
                ("", item.figures),
                ("comment", item.comments),
                ("", printed),
            )
            for tag, cell_names in wanted:
                for cell in cell_names:
                    place = f"{name}: item {item.id}: {notebook.name}"
                    if cell not in cells:  # the nearest name takes as long as all else here
                        raise LabError(f"{place} has no cell '{cell}': {suggest(cell, cells, 10)}")
                    require(cells[cell].tag == tag or not tag, f"{place}: the cell '{cell}' has no tag {tag}")
                    require(tag == "comment" or cells[cell].type == "code", f"{place}: the cell '{cell}' is a text")
        has_choice = len(homework.datasets) > 1 and any(cell.endswith("-settings") for cell in cells)
        require(
            not has_choice or any(DATA_LINE.search(cell.text) for cell in cells.values()),
            f'{name}: {notebook.name} has no line DATA = "{homework.datasets[0]}": add one, which `start --data` sets',
        )
        counts_seeds = any('range(BUDGET["seeds"])' in cell.text for cell in cells.values())
        for budget, number in notebook.num_runs.items() if counts_seeds else ():
            seeds = homework.budgets[budget].seeds if budget in homework.budgets else number
            require(
                number == seeds,
                f"{name}: {notebook.name} leaves a run for each seed: num_runs.{budget} is {number}, "
                f"budgets.{budget}.seeds {seeds}",
            )
    for arm, value in homework.arms.items():
        require(arm not in GIVEN, f"{name}: arms.{arm}: the student chooses it: leave it out")
        lines = [line[0] for text in texts for line in arm_line(arm).finditer(text)]
        require(
            lines or not sources,
            f"{name}: arms.{arm}: no notebook has a line `{arm} = ...` outside of functions: check the name",
        )
        for line in lines:
            require(
                plain_kind(value) == plain_kind(written_value(line)),
                f"{name}: arms.{arm} = {value!r}: give what can take the place of `{line}`",
            )


def written_value(line: str) -> object:
    """The value in a line `NAME = VALUE`; None if it is no plain value."""
    try:
        return ast.literal_eval(line.partition(" = ")[2].partition("  #")[0])
    except (ValueError, SyntaxError):
        return None


def plain_kind(value: object) -> str:
    """What may take a value's place: a number, a text, or a list of one of these.

    >>> plain_kind([0.1, 1]), plain_kind("sgd"), plain_kind([])
    ('list of number', 'text', 'list of nothing')
    """
    if isinstance(value, list | tuple):
        return f"list of {' or '.join(sorted({plain_kind(entry) for entry in value})) or 'nothing'}"
    return "text" if isinstance(value, str) else "number" if isinstance(value, int | float) else "nothing"


def arm_line(name: str) -> re.Pattern[str]:
    """The line of a cell that gives a name its value."""
    return re.compile(rf"(?m)^{re.escape(name)} = [^\n]*$")


def parse_cells(text: str) -> Iterator[NotebookCell]:
    """The cells of a text in percent format.

    >>> [cell] = parse_cells('# %% name="a" tags=["check"]\\nassert True\\n')
    >>> cell.name, cell.tag, cell.text
    ('a', 'check', 'assert True')
    """
    lines = text.splitlines()
    headers = [(number, match) for number, line in enumerate(lines) if (match := CELL_HEADER.fullmatch(line))]
    ends = [number for number, _ in headers[1:]] + [len(lines)]
    for (number, header), end in zip(headers, ends, strict=True):
        is_text = header[1] is not None
        body = [line.removeprefix("#").removeprefix(" ") if is_text else line for line in lines[number + 1 : end]]
        yield NotebookCell("markdown" if is_text else "code", header[2] or "", header[3] or "", "\n".join(body).strip())


def fill_in(text: str, homework: Homework, name: str, data: str) -> str:
    """A cell's text with the values of homework.toml in it."""
    info = homework.find_notebook(name)
    budgets = {key: budget.model_dump() for key, budget in homework.budgets.items()}
    for variable, values in (("BUDGETS", budgets), ("RECIPE", homework.recipes.get(info.recipe, {}))):
        line = f"{variable} = {{}}  # from homework.toml"
        if line in text:
            text = text.replace(line, f"{variable} = {pformat(values, width=100, sort_dicts=False)}")
    for name, value in homework.arms.items():
        text = arm_line(name).sub(lambda _, line=f"{name} = {value!r}": line, text)
    return DATA_LINE.sub(lambda line: data_line(homework, data, line[1] or ""), text)


def data_line(homework: Homework, data: str, remark: str) -> str:
    """The line of a notebook that chooses its dataset, and names the others."""
    others = " or ".join(f'"{name}"' for name in homework.datasets if name != data)
    remarks = [text for text in (others and f"or {others}", remark) if text]
    return f'DATA = "{data}"' + (f"  # {': '.join(remarks)}" if remarks else "")


def solution_cell(cell: NotebookCell) -> NotebookCell:
    """A cell of the form with the solution: the source without its marks."""
    return replace(cell, text=BLANK_LINES.sub("\n\n\n", MARKER_LINE.sub("", cell.text)).strip())


def student_cell(cell: NotebookCell) -> NotebookCell:
    """A cell of the form to fill in: gaps in place of the solution's lines, an empty text in place of a comment."""
    if cell.tag == "comment":
        prompt = PROMPT_LINE.search(cell.text)
        question = f"> **Your comment.** {prompt[1]}\n\n" if prompt else ""
        return replace(cell, type="markdown", text=question + PLACEHOLDER)
    return replace(cell, text=SOLUTION_LINES.sub(gap_lines, cell.text))


def gap_lines(block: re.Match[str]) -> str:
    """What the student form has in place of some lines of the solution: what to write, and a statement to replace."""
    indent, hint, body = block[1], block[2], block[3]
    given = INSTEAD_LINE.findall(body) or ["..."]
    return "\n".join(indent + line for line in (f"# TODO: {hint}", *given))


def notebook_json(cells: Sequence[NotebookCell]) -> str:
    """The text of an .ipynb file, format 4.5, without outputs; equal cells give an equal text."""
    content = {"cells": [cell_json(cell) for cell in cells], "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def cell_json(cell: NotebookCell) -> dict[str, object]:
    """A cell as an .ipynb file holds it."""
    metadata: dict[str, object] = {"name": cell.name}
    if cell.tag:
        metadata["tags"] = [cell.tag]
    run: dict[str, object] = {"execution_count": None, "outputs": []} if cell.type == "code" else {}
    source = cell.text.splitlines(keepends=True)
    return {"cell_type": cell.type, "id": cell.name, "metadata": metadata, **run, "source": source}


def percent_text(cells: Sequence[NotebookCell]) -> str:
    """The text of a .py file with the same cells, which jupytext and editors read as a notebook."""
    return "\n\n".join(percent_cell(cell) for cell in cells) + "\n"


def percent_cell(cell: NotebookCell) -> str:
    """A cell in percent format."""
    kind = " [markdown]" if cell.type == "markdown" else ""
    tags = f' tags=["{cell.tag}"]' if cell.tag else ""
    body = cell.text
    if cell.type == "markdown":
        body = "\n".join(f"# {line}".rstrip() for line in cell.text.splitlines())
    return f'# %%{kind} name="{cell.name}"{tags}\n{body}'
