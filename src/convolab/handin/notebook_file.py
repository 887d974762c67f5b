"""A notebook as a person hands it in, read as data: nothing of it is run, drawn or trusted."""

import html
import json
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convolab.core.errors import LabError, require

MAX_NOTEBOOK_BYTES = 40_000_000
MAX_CELLS = 2_000
MAX_CODE_CHARS = 1_000_000  # of all its cells of code, which are parsed
MAX_TEXT_CHARS, MAX_OUTPUT_LINE = 200_000, 2_000  # of what a cell printed, that a comparison looks at
MAX_HTML_CHARS = 2_000_000
MAX_SHOWN = 160  # characters of a text from a notebook that are shown
FIGURE_TYPES = ("image/png", "image/jpeg", "image/svg+xml")
FIGURE_TAGS = ("<img ", "<svg")
TAG = re.compile(r"<[^<>]*>")  # of HTML
TERMINAL_CODE = re.compile("\x1b\\[.*?[@-~]")  # such as a color, as nbconvert reads it
LONG_REFERENCE = re.compile(r"&#[0-9]{10,};?")  # to a character, by a number that no character has


@dataclass(frozen=True)
class HandedInCell:
    """What one cell holds and what came out of it."""

    name: str
    type: str
    source: str
    execution_count: int | None
    error: str  # the first line of the error that it ended with, or empty
    text: str  # what it printed, and its results as text; without stderr
    markdown: str  # what it showed as formatted text
    has_figure: bool
    printed: str = ""  # what it printed, without its results
    html: str = ""  # what it showed as a page
    figures: tuple[tuple[str, str], ...] = ()  # the media type and the content of each
    result_counts: tuple[int | None, ...] = ()  # of its results: the execution that each says it came from
    has_output: bool = False
    is_hidden: bool = False  # whether Jupyter is set not to show its source or its outputs


def read_notebook(path: Path, folder: Path) -> list[HandedInCell]:
    """The cells of a notebook of a folder. Raises LabError, in one line, for what is no notebook of that folder.

    Nothing is read of a file that is too large, no regular file, or a link out of the folder.
    """
    content = read_bounded(path, folder, MAX_NOTEBOOK_BYTES)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else one_line(str(error))
        raise LabError(f"{path} is no notebook: it is not JSON ({reason}); save it again in Jupyter") from error
    cells = values.get("cells") if isinstance(values, dict) else None
    if not isinstance(cells, list):
        raise LabError(f"{path} is no notebook: it has no list of cells; save it again in Jupyter")
    require(len(cells) <= MAX_CELLS, f"{path} has {len(cells):,} cells: at most {MAX_CELLS:,} are read")
    parsed = [parse_cell(cell) for cell in cells if isinstance(cell, dict)]
    num_chars = sum(len(cell.source) for cell in parsed if cell.type == "code")
    require(
        num_chars <= MAX_CODE_CHARS,
        f"{path} has {num_chars:,} characters of code: at most {MAX_CODE_CHARS:,} are read; put data into a file",
    )
    return parsed


def read_bounded(path: Path, folder: Path, max_bytes: int) -> bytes:
    """The bytes of a file of a folder, at most so many. Raises LabError for what is missing, too large or elsewhere."""
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
    except (OSError, RuntimeError) as error:
        raise LabError(
            f"{path} is missing: put it there, or lay out a new folder with `convolab handin start`"
        ) from error
    require(
        resolved.is_relative_to(folder.resolve()),
        f"{path} leads out of {folder}: put the file itself there, in place of the link",
    )
    require(stat.S_ISREG(status.st_mode), f"{path} is not a regular file: put a file there")
    require(
        status.st_size <= max_bytes,
        f"{path} has {status.st_size / 1e6:,.0f} MB: at most {max_bytes / 1e6:,.0f} MB are read; clear large outputs",
    )
    try:
        with resolved.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise LabError(f"cannot read {path} ({error.strerror})") from error
    require(len(content) <= max_bytes, f"{path} grows while it is read: wait until it is saved")
    return content


def parse_cell(cell: Mapping[str, Any]) -> HandedInCell:
    """A cell of the JSON; what has another type than it should have counts as empty."""
    metadata = cell.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    count = cell.get("execution_count")
    listed = cell.get("outputs")
    outputs = [output for output in listed if isinstance(output, dict)] if isinstance(listed, list) else []
    data = [output["data"] for output in outputs if isinstance(output.get("data"), dict)]
    # Warnings and progress bars go to stderr: they hold paths and times, and also cells of definitions have them.
    streams = [output for output in outputs if output.get("output_type") == "stream" and output.get("name") != "stderr"]
    printed = [shown_text(output.get("text")) for output in streams]
    return HandedInCell(
        name=str(name or cell.get("id") or ""),
        type=str(cell.get("cell_type")),
        source=join_lines(cell.get("source")),
        execution_count=count if isinstance(count, int) else None,
        error=next((error_line(output) for output in outputs if output.get("output_type") == "error"), ""),
        text="\n".join([*printed, *(shown_text(entry.get("text/plain")) for entry in data)]),
        markdown="\n".join(join_lines(entry["text/markdown"]) for entry in data if "text/markdown" in entry),
        has_figure=any(shows_figure(entry) for entry in data),
        printed="\n".join(printed),
        html="\n".join(join_lines(entry["text/html"]) for entry in data if "text/html" in entry),
        figures=tuple(
            (kind, "".join(join_lines(entry[kind]).split("\n")))
            for entry in data
            for kind in FIGURE_TYPES
            if kind in entry
        ),
        result_counts=tuple(
            entry if isinstance(entry := output.get("execution_count"), int) else None
            for output in outputs
            if output.get("output_type") == "execute_result"
        ),
        has_output=bool(outputs),
        is_hidden=is_hidden_cell(metadata),
    )


def is_hidden_cell(metadata: object) -> bool:
    """Whether a cell's metadata tell Jupyter, or nbconvert by its usual tags, to hide it or a part of it."""
    if not isinstance(metadata, dict):
        return False
    jupyter, tags = metadata.get("jupyter"), metadata.get("tags")
    hides = isinstance(jupyter, dict) and (jupyter.get("source_hidden") or jupyter.get("outputs_hidden"))
    has_tag = isinstance(tags, list) and any(str(tag).startswith(("hide", "remove")) for tag in tags)
    return bool(hides or has_tag or metadata.get("hide_input"))


def shorten_cell(cell: HandedInCell) -> HandedInCell:
    """A cell with outputs of bounded length, so that the time to look at them is bounded too."""

    def shorten(text: str) -> str:
        return "\n".join(line[:MAX_OUTPUT_LINE] for line in text[:MAX_TEXT_CHARS].splitlines())

    return replace(
        cell, text=shorten(cell.text), printed=shorten(cell.printed), markdown=shorten(cell.markdown),
        html=cell.html[:MAX_HTML_CHARS],
    )  # fmt: skip


def settings_cell(cells: Sequence[HandedInCell]) -> HandedInCell | None:
    """A notebook's cell of settings; None if it has none."""
    return next((cell for cell in cells if cell.name.endswith("-settings")), None)


def printed_settings(cells: Sequence[HandedInCell]) -> dict[str, str]:
    """What it printed of data, fast and torch; of a name that comes twice the first."""
    cell = settings_cell(cells)
    found: list[tuple[str, str]] = re.findall(r"(?m)^(data|fast|torch) = (.+)$", cell.text) if cell else []
    return dict(reversed(found))


def join_lines(value: object) -> str:
    """A text of the format, which is a string or a list of lines."""
    return "".join(line for line in value if isinstance(line, str)) if isinstance(value, list) else str(value or "")


def shown_text(value: object) -> str:
    """A text of an output without a terminal's codes, such as colors.

    >>> shown_text(["\\x1b[1;32mloss\\x1b[0m = ", "0.3"])
    'loss = 0.3'
    """
    return TERMINAL_CODE.sub("", join_lines(value))


def unescape_html(text: str) -> str:
    """A text of a page as it is shown: its references to characters resolved, and one of thousands of digits too.

    >>> unescape_html("a &lt; b&#33;"), unescape_html(f"&#{'9' * 5000};")
    ('a < b!', '\ufffd')
    """
    return html.unescape(LONG_REFERENCE.sub("\ufffd", text))


def shows_figure(data: Mapping[str, object]) -> bool:
    """Whether an output is an image, a chart, or HTML with one in it."""
    page = join_lines(data.get("text/html")).lower()
    is_chart = any(str(kind).startswith("application/vnd.vega") for kind in data)
    return is_chart or any(kind in data for kind in FIGURE_TYPES) or any(tag in page for tag in FIGURE_TAGS)


def error_line(output: Mapping[str, object]) -> str:
    """The error of an output in one line; that of a check is its message alone."""
    name, message = output.get("ename", "error"), join_lines(output.get("evalue"))
    return one_line(message if name == "LabError" and message else f"{name}: {message}")


def one_line(text: str) -> str:
    """A text from elsewhere in one short line that a terminal can show.

    >>> one_line("a\\x1b[31m\\nb")
    'a?[31m b'
    """
    return cut_at_word("".join(char if char.isprintable() else "?" for char in " ".join(text[: 4 * MAX_SHOWN].split())))


def cut_at_word(line: str, max_chars: int = MAX_SHOWN) -> str:
    """A line cut at a word, with a mark, if it is too long; a long word is cut too.

    >>> cut_at_word("the loss must be smaller", 16), cut_at_word("antidisestablishment", 8)
    ('the loss must…', 'antidis…')
    """
    if len(line) <= max_chars:
        return line
    cut = line[:max_chars]  # one character more than there is room for: a word may end there
    words = cut.rpartition(" ")[0].rstrip(" ,;:(")
    return (words if len(words) > max_chars // 2 else cut[:-1]) + "…"
