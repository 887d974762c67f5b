"""Whether a notebook ran from its first cell to its last: its counts, and outputs that its cells cannot have."""

import ast
import base64
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from PIL import Image

from convolab.core.text import pluralize, truncate_list
from convolab.handin.check import find_out_of_order
from convolab.handin.notebook_file import HandedInCell
from convolab.handin.verify.signs import Sign, as_note


def order_signs(notebook: str, cells: Sequence[HandedInCell]) -> Iterator[Sign]:
    """Executions in another order than from top to bottom, or of which a part is not there."""
    code = [cell for cell in cells if cell.type == "code"]
    counts = [cell.execution_count for cell in code if cell.execution_count is not None]
    late = find_out_of_order(code)
    if late:
        yield Sign(notebook, f"run out of order: {truncate_list(sorted(late))} ran before a cell above them")
    twice = [count for count, times in Counter(counts).items() if times > 1]
    if twice:
        yield Sign(notebook, f"two cells have the execution count {truncate_list(list(map(str, sorted(twice))))}")
    if counts and not late and not twice and (counts[0], counts[-1]) != (1, len(counts)):
        missing = counts[-1] - len(counts)
        yield as_note(notebook, f"{pluralize(missing, 'execution')} left no cell: cells were run again or deleted")
    unrun = [cell.name for cell in code if cell.execution_count is None and cell.source.strip() and not cell.has_output]
    if counts and unrun:
        yield as_note(notebook, f"not run: {truncate_list(unrun)}")
    names = [name for name, times in Counter(cell.name for cell in cells if cell.name).items() if times > 1]
    if names:
        yield Sign(notebook, f"two cells are called {truncate_list(names)}: a check reads the first one only")


def output_signs(notebook: str, cells: Sequence[HandedInCell]) -> Iterator[Sign]:
    """Outputs that cannot have come from their cell, and cells that are hidden."""
    for cell in cells:
        place = f"{notebook}, {cell.name or 'a cell without a name'}"
        if cell.is_hidden:
            yield Sign(place, "Jupyter hides it: open it in a text editor")
        if cell.type != "code":
            continue
        if cell.has_output and cell.execution_count is None:
            yield Sign(place, "it has an output and was not run: the output is from elsewhere")
        elif any(count != cell.execution_count for count in cell.result_counts):
            counts = truncate_list([str(count) for count in cell.result_counts])
            yield Sign(place, f"its result is of the execution {counts}, and the cell's is {cell.execution_count}")
        if len(cell.result_counts) > 1:
            yield Sign(place, f"it has {len(cell.result_counts)} results: a cell has one")
        yield from impossible_output_signs(place, cell)
        yield from figure_size_signs(place, cell)


def impossible_output_signs(place: str, cell: HandedInCell) -> Iterator[Sign]:
    """An output of a cell whose code cannot have any: one of definitions, or without an expression at its end."""
    try:
        body = ast.parse(cell.source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # such as a line of IPython's own, %time
    last = body[-1].value if body and isinstance(body[-1], ast.Expr) else None
    is_none = isinstance(last, ast.Call) and isinstance(last.func, ast.Name) and last.func.id in ("print", "display")
    ends_in_value = last is not None and not is_none and not cell.source.rstrip().endswith(";")
    if cell.result_counts and not ends_in_value:
        yield Sign(place, "it has a result, and its code does not end in an expression")
    if (cell.printed or cell.figures) and not any(map(can_show, body)):
        yield Sign(place, "it has an output, and its code only defines things")


def can_show(statement: ast.stmt) -> bool:
    """Whether a statement at a cell's top may print or draw: it calls or imports something, or is a value."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        if isinstance(statement, ast.ClassDef):
            return (
                any(map(can_show, statement.body))
                or bool(statement.decorator_list or statement.keywords)
                or any(isinstance(node, ast.Call) for base in statement.bases for node in ast.walk(base))
            )
        return bool(statement.decorator_list or statement.args.defaults)
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return True  # a text at the end is a result; elsewhere it is a comment
    active = ast.Call | ast.Import | ast.ImportFrom | ast.With | ast.Raise | ast.Assert | ast.Await
    return isinstance(statement, ast.Expr | active) or any(isinstance(node, active) for node in ast.walk(statement))


def figure_size_signs(place: str, cell: HandedInCell) -> Iterator[Sign]:
    """An image of pixels whose size is not the one that its own text says."""
    printed_sizes = {
        (int(width), int(height))
        for width, height in re.findall(r"ImageFigure of (\d{1,9}) x (\d{1,9}) pixels", cell.text)
    }
    pixels = [payload for kind, payload in cell.figures if kind in ("image/png", "image/jpeg")]
    if not printed_sizes or len(pixels) != cell.text.count("ImageFigure of "):
        return
    for payload in pixels:
        try:
            with Image.open(io.BytesIO(base64.b64decode(payload))) as image:  # reads the head alone
                size = image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            yield Sign(place, "its figure is not an image")
            continue
        if size not in printed_sizes:
            width, height = size
            yield Sign(place, f"its figure has {width} x {height} pixels, and its text says otherwise")
