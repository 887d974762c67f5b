"""Progress bars and tables for the terminal. In a pipe there are plain lines and no bars."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID


@contextmanager
def loading_bar(name: str) -> Iterator[Callable[[int, int | None], None] | None]:
    """A progress bar of bytes or images on a terminal, created on the first report; None in a pipe."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[int | None, TaskID] = {}  # one for each file, by its size

        def advance(done: int, total: int | None) -> None:
            if total not in tasks:
                tasks[total] = bar.add_task(name, total=total)
            bar.update(tasks[total], completed=done)

        yield advance


@contextmanager
def status_spinner(activity: str) -> Iterator[Callable[[str], None]]:
    """A status line on a terminal; call it with the name of each next step. Silent in a pipe."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console

    with Console(stderr=True).status(activity) as status:
        yield lambda step: status.update(f"{activity}: {step}")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn on a terminal, with tabs between the cells in a pipe."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in (headings, *rows)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rich_table = Table(*headings, box=box.SIMPLE_HEAD)
    for row in rows:
        rich_table.add_row(*row)
    Console().print(rich_table)


def print_note(note: str) -> None:
    """Print a note to standard error."""
    print(f"convolab: {note}", file=sys.stderr)


def print_json(value: object) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(value, indent=2))
