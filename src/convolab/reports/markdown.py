"""The writer of Markdown, as GitHub and most viewers read it: escaped text, headings with anchors, tables, lists."""

import re
from collections.abc import Iterable, Sequence

from convolab.core.escape import escape_line

HTML_SIGNS = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
SPECIAL = re.compile(
    r"[<>\\`*\[\]$~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])|(?<=\s)#"
)  # an underscore inside a word is one
SPECIAL_AT_START = re.compile(r"^(\s*)(?:([-+=:|#])|(\d+)(?=[.)](?:\s|$)))")  # what begins a list, a table or a heading


def escape(text: str) -> str:
    r"""Text in one line that is text only: it opens no HTML tag, no [link](of Markdown) and no emphasis.

    >>> escape("a <b>\nline"), escape(r"\<img> ![x](y)"), escape("lr_2 is _new_"), escape("1. one")
    ('a &lt;b&gt; line', '\\\\&lt;img&gt; !\\[x\\](y)', 'lr_2 is \\_new\\_', '1\\. one')
    """
    return escape_part(escape_line(" ".join(text.split())))


def escape_part(text: str) -> str:
    r"""A part of a line, between others, as `escape` writes it, with its white space.

    >>> escape_part(" - a <b> "), escape_part("x_")
    (' \\- a &lt;b&gt; ', 'x\\_')
    """
    escaped = SPECIAL.sub(lambda sign: HTML_SIGNS.get(sign[0], f"\\{sign[0]}"), text)
    return SPECIAL_AT_START.sub(lambda m: f"{m[1]}\\{m[2]}" if m[2] else f"{m[1]}{m[3]}\\", escaped)


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


def item_list(items: Iterable[str], start: int | None = None) -> str:
    """A list with bullets, or numbered from `start`; an item may be of several lines, such as a list within it.

    >>> item_list(["one", "two"]), item_list(["one\\n\\n- inner"], start=3)
    ('- one\\n- two', '3. one\\n\\n   - inner')
    """
    lines = []
    for index, item in enumerate(items):
        marker = "- " if start is None else f"{start + index}. "
        lines += (marker + item.replace("\n", "\n" + " " * len(marker))).split("\n")
    return "\n".join(line.rstrip() for line in lines)


def inline_code(text: str) -> str:
    """Code within a line, between more backquotes than it holds in a row.

    >>> inline_code("lr"), inline_code("a`b")
    ('`lr`', '`` a`b ``')
    """
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (1 + longest_backquotes(text))
    return f"{fence} {text} {fence}"


def code_block(text: str, language: str = "") -> str:
    """Code as it is, fenced by more backticks than it holds in a row.

    >>> print(code_block("lr = 0.1\\n", "toml"))
    ```toml
    lr = 0.1
    ```
    """
    fence = "`" * max(3, longest_backquotes(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def longest_backquotes(text: str) -> int:
    """How many backquotes a text has in a row, at most."""
    return max((len(run) for run in re.findall("`+", text)), default=0)


def document(blocks: Iterable[str]) -> str:
    """A file of blocks with a blank line between two; empty blocks are left out."""
    return "\n\n".join(block for block in blocks if block) + "\n"
