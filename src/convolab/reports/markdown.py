"""The writer of Markdown, as GitHub and most viewers read it: escaped text, headings with anchors, tables, lists."""

import re
from collections.abc import Iterable, Sequence

from convolab.core.escape import escape_line

HTML_SIGNS = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
SPECIAL = re.compile(r"[<>\\`*\[\]$~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word is one
SPECIAL_AT_START = re.compile(r"^(?:[-+=:|#]|\d+(?=[.)](?:\s|$)))")  # what begins a list, a table or a heading


def escape(text: str) -> str:
    r"""Text in one line that is text only: it opens no HTML tag, no link and no emphasis.

    >>> escape("a <b>\nline"), escape(r"\<img> ![x](y)"), escape("lr_2 is _new_"), escape("1. one")
    ('a &lt;b&gt; line', '\\\\&lt;img&gt; !\\[x\\](y)', 'lr_2 is \\_new\\_', '1\\. one')
    """
    line = escape_line(" ".join(text.split()))
    escaped = SPECIAL.sub(lambda sign: HTML_SIGNS.get(sign[0], f"\\{sign[0]}"), line)
    return SPECIAL_AT_START.sub(lambda start: f"{start[0]}\\" if start[0].isdigit() else f"\\{start[0]}", escaped)


def heading(text: str, level: int = 1) -> str:
    """
    >>> heading("Results", 2)
    '## Results'
    """
    return f"{'#' * level} {escape(text)}"


def heading_anchor(text: str) -> str:
    """The name by which links find a heading.

    >>> heading_anchor("Can each network overfit one batch?")
    'can-each-network-overfit-one-batch'
    """
    return re.sub(r"[^\w\- ]", "", " ".join(text.split()).lower()).replace(" ", "-")


def heading_link(text: str) -> str:
    """A link to a heading of the same file.

    >>> heading_link("In short")
    '[In short](#in-short)'
    """
    return f"[{escape(text)}](#{heading_anchor(text)})"


def image(alt_text: str, path: str) -> str:
    """An image beside the file. `path` is relative, with / between its parts.

    >>> image("training loss", "lr sgd/train_loss.svg")
    '![training loss](lr%20sgd/train_loss.svg)'
    """
    return f"![{escape(alt_text)}]({path.replace(' ', '%20')})"


def cell(*lines: str) -> str:
    """The content of a table's cell, one line below the other. The lines are Markdown already.

    >>> cell("72.1 %", "70 to 74"), cell("a|b")
    ('72.1 %<br>70 to 74', 'a\\\\|b')
    """
    return "<br>".join(line.replace("|", "\\|").replace("\n", " ") for line in lines)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells come from `cell`.

    >>> print(table(["arm", "runs"], [["plain", "3"]]))
    | arm | runs |
    |---|---|
    | plain | 3 |
    """
    lines = [headings, *rows]
    written = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(headings), *written[1:]])


def bullets(items: Iterable[str]) -> str:
    """
    >>> bullets(["one", "two"])
    '- one\\n- two'
    """
    return "\n".join(f"- {item}" for item in items)


def code_block(code: str, language: str = "") -> str:
    """Code as it is, fenced by more backticks than it holds in a row.

    >>> print(code_block("lr = 0.1\\n", "toml"))
    ```toml
    lr = 0.1
    ```
    """
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code.rstrip()}\n{fence}"


def document(blocks: Iterable[str]) -> str:
    """A file of blocks with a blank line between two; empty blocks are left out."""
    return "\n\n".join(block for block in blocks if block) + "\n"
