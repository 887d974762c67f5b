"""Progress bars and tables for the terminal. In a pipe there are plain lines and no bars."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from convolab.core.escape import escape_line
from convolab.core.streams import is_terminal, print_progress

if TYPE_CHECKING:
    from rich.progress import TaskID


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

    rich_table = Table(*(Column(Text(heading)) for heading in lines[0]), box=box.SIMPLE_HEAD)  # a Text is no markup
    for row in lines[1:]:
        rich_table.add_row(*map(Text, row))
    Console().print(rich_table)


def print_note(note: str) -> None:
    """Print a note to standard error."""
    print_progress(f"convolab: {note}")


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(value, indent=2))
