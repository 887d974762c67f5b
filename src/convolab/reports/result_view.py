"""How a result is drawn, listed and saved: the base of all views, and the parts of their HTML."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from convolab.core.display import Row
from convolab.core.errors import LabError, require
from convolab.core.escape import html_text
from convolab.core.files import csv_text
from convolab.core.outputs import (
    write_output,
)
from convolab.core.text import NO_VALUE, is_number
from convolab.plots.figure import ChartFigure, ImageFigure

MAX_ROWS = 40  # of a table in a notebook


FIGURE_STYLE = "background:white;border-radius:6px;max-width:100%;overflow-x:auto"


WARNING_STYLE = "border-left:4px solid #D55E00;padding-left:8px"


class ResultView:
    """What all views share. A subclass gives `rows`, `figure` and `html`, and `writers` for the files it can write.

    `kind` is what its files are: `save` replaces only those of the same kind, see `core.outputs`.
    """

    kind = "result"
    figure_endings: tuple[str, ...] = (".png", ".svg", ".html", ".pdf")

    def rows(self) -> Sequence[Row]:
        raise NotImplementedError

    def figure(self) -> ChartFigure | ImageFigure:
        raise LabError("this result has no figure: see its rows()")

    def html(self) -> str:
        raise NotImplementedError

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        """By the ending of a file, what writes it."""
        return {ending: lambda path: self.figure().save(path) for ending in self.figure_endings} | {
            ".csv": lambda path: write_output(path, self.kind, csv_text(self.rows()))
        }

    def save(self, path: Path) -> Path:
        writers = self.writers()
        require(path.suffix.lower() in writers, f"{path}: give a name that ends in {', '.join(writers)}")
        writers[path.suffix.lower()](path)
        return path


def scalar_entries(values: Mapping[str, object]) -> Row:
    """The entries that fit in one cell of a table."""
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def figure_html(figure: ChartFigure | ImageFigure) -> str:
    """A figure on a white ground, because its text is dark in a dark notebook too."""
    return f'<div style="{FIGURE_STYLE}">{figure.html()}</div>'


def paragraph(text: str) -> str:
    return f"<p>{html_text(text)}</p>"


def details(title: str, text: str) -> str:
    """Text that is shown on a click."""
    return f"<details><summary>{html_text(title)}</summary><pre>{html_text(text)}</pre></details>"


def rows_to_html(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as a table, of the first `MAX_ROWS`, its columns those of all rows: text to the left, numbers to the right."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell_text(row.get(name)) for name in columns] for row in rows[:MAX_ROWS]]
    sides = ["right" if all(map(is_number, column)) else "left" for column in zip(*cells, strict=True)]

    def line(tag: str, texts: Iterable[str]) -> str:
        return "".join(
            f'<{tag} style="text-align:{side}">{html_text(text)}</{tag}>'
            for side, text in zip(sides, texts, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in cells)
    rest = paragraph(f"and {len(rows) - MAX_ROWS} more rows: see rows()") if len(rows) > MAX_ROWS else ""
    table = f"<table><thead><tr>{line('th', columns)}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div style="overflow-x:auto">{table}</div>{rest}'


def cell_text(value: object) -> str:
    """A value in a cell: four digits of a fraction.

    >>> cell_text(0.123456), cell_text(None), cell_text(1234)
    ('0.1235', '-', '1234')
    """
    return NO_VALUE if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
