"""Progress bars and tables for the terminal. In a pipe there are plain lines and no bars."""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from convolab.core.escape import escape_line
from convolab.core.streams import is_terminal, print_progress
from convolab.core.text import is_number

if TYPE_CHECKING:
    from rich.progress import TaskID

MIN_WIDTH = 30  # of a terminal that lines are wrapped for
STOPPED = 130  # exit code after a Ctrl-C, so that what follows in a script or after && does not start


@contextmanager
def loading_bar(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A progress bar of bytes or images on a terminal, created on the first report; None in a pipe."""
    if not is_terminal():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[int | None, TaskID] = {}  # one for each file, by its size

        def advance(done: int, total: int | None) -> None:
            if total not in tasks:
                tasks[total] = bar.add_task(escape(escape_line(name)), total=total)
            bar.update(tasks[total], completed=done)

        yield advance


@contextmanager
def status_spinner(activity: str) -> Iterator[Callable[[str], None]]:
    """A status line on a terminal; call it with the name of each next step. Silent in a pipe."""
    if not is_terminal():
        yield lambda step: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(activity) as status:
        yield lambda step: status.update(escape(escape_line(f"{activity}: {step}")))


def print_lines(*lines: str) -> None:
    """Print each text as one line on standard output, whatever the names in it hold."""
    print("\n".join(map(escape_line, lines)))


def print_wrapped(*lines: str) -> None:
    """Print each text on lines that fit the terminal, those after its first one indented; in a pipe as one line."""
    if not sys.stdout.isatty():
        if lines:
            print_lines(*lines)
        return
    width = max(shutil.get_terminal_size().columns, MIN_WIDTH)
    for line in map(escape_line, lines):
        indent = line[: len(line) - len(line.lstrip())] + "  "
        print(textwrap.fill(line, width, subsequent_indent=indent, break_on_hyphens=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn on a terminal, with tabs between the cells in a pipe."""
    lines = [[escape_line(cell) for cell in row] for row in (headings, *rows)]
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in lines))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    numbers = [bool(lines[1:]) and all(is_number(line[i]) for line in lines[1:]) for i in range(len(lines[0]))]
    # A Text is not markup; a cell that is too wide goes on below, and is never cut.
    columns = [
        Column(Text(heading), justify="right" if is_right else "left", overflow="fold")
        for heading, is_right in zip(lines[0], numbers, strict=True)
    ]
    rich_table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in lines[1:]:
        rich_table.add_row(*map(Text, row))
    Console().print(rich_table)


def print_fitting_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], drop_order: Sequence[str], remedy: str
) -> None:
    """A table with the columns that the terminal is wide enough for, each in full; in a pipe all of them.

    Of too many the first of `drop_order` goes first. A line below names what is missing, and `remedy` where it is.
    """
    columns = list(headings)
    if sys.stdout.isatty():
        from rich.cells import cell_len

        widths = {name: max(cell_len(line[i]) for line in (headings, *rows)) + 3 for i, name in enumerate(headings)}
        terminal_width = shutil.get_terminal_size().columns
        for name in drop_order:
            if sum(widths[column] for column in columns) > terminal_width:
                columns.remove(name)
    print_table(columns, [[line[headings.index(name)] for name in columns] for line in rows])
    if missing := [name for name in headings if name not in columns]:
        print_lines(f"not shown, as the terminal is narrow: {', '.join(missing)} (widen it, or {remedy})")


def print_note(note: str) -> None:
    """Print a note to standard error."""
    print_progress(f"convolab: {note}")


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(value, indent=2))
