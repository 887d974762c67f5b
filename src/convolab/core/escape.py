"""Text from elsewhere, made harmless for where it goes: names of classes, arms, files and layers may hold anything.

| where it goes | function |
|---|---|
| a terminal, an error, a log, a cell of a table | `escape_line` |
| text of several lines | `printable_lines` |
| HTML, as text or in an attribute | `html_text`; templates do it by themselves |
| JSON inside a <script> element | `script_json` |
| a chart, as SVG, PNG, PDF or on a page | `chart_spec` |
| a part of a file's name | `file_name_part` |
| a cell of a CSV file, which a spreadsheet opens | `plain_cell`; `csv_text` does it by itself |
| a command that a person copies | `shell_word` |
"""

import codecs
import html
import json
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

JOINERS = "\u200c\u200d"  # without these many Persian words and emoji cannot be written
# Signs that we print, as a terminal shows them that has no others than ASCII.
ASCII_SIGNS = str.maketrans(
    {
        "×": "x", "−": "-", "–": "-", "±": "+-", "≥": ">=", "≤": "<=", "→": "->", "…": "...", "∂": "d",
        "▲": "^", "▼": "v", "·": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "°": " deg",
    }
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet computes
MAX_FILE_NAME_PART = 80  # bytes: a file's whole name has at most 255


def printable_lines(text: str) -> str:
    r"""Text whose invisible characters are written as escapes, except line ends and tabs.

    Those are control characters, changes of direction, lone surrogates and whatever else does not print.

    >>> printable_lines("a\x1b[31m\u202eb\nc")
    'a\\x1b[31m\\u202eb\nc'
    """
    return text if text.isprintable() else "".join(map(printable_character, text))


def printable_character(character: str) -> str:
    if character.isprintable() or character in "\n\t" or character in JOINERS:
        return character
    if unicodedata.category(character) == "Zs":  # a space of another width
        return " "
    return character.encode("unicode_escape").decode()


def escape_line(text: str, max_length: int | None = None) -> str:
    r"""Text in one line, whose invisible characters are written as escapes, cut to a length if one is given.

    >>> escape_line("cat\r\n\x1b]0;title\x07"), escape_line("abcdefgh", max_length=6)
    ('cat\\r\\n\\x1b]0;title\\x07', 'abc...')
    """
    if not text.isprintable():
        text = printable_lines(text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t"))
    return text if max_length is None or len(text) <= max_length else text[: max_length - 3] + "..."


def html_text(text: str) -> str:
    r"""Text for an HTML element or an attribute in quotes.

    >>> html_text("<b>\x1b'")
    '&lt;b&gt;\\x1b&#x27;'
    """
    return html.escape(printable_lines(text))


def script_json(value: object) -> str:
    r"""A value as JSON that ends no <script> element and opens no comment there.

    >>> script_json({"arm": "</script><!--"})
    '{"arm":"\\u003c/script\\u003e\\u003c!--"}'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&]", lambda sign: f"\\u{ord(sign[0]):04x}", text)


def chart_spec(spec: Any, *, is_title: bool = False) -> Any:  # noqa: ANN401 (whatever JSON can hold)
    r"""A chart's specification whose strings, names of columns too, hold nothing that SVG cannot hold.

    The renderer ends the whole process for a character that XML forbids. Vega-Lite puts the title of an axis into an
    expression and escapes its quotes alone, so that a backslash in it would end the string or make such a character again:
    titles have another sign that looks like it.

    >>> chart_spec({"values": [{"class": "cat\x1b"}], "sort": ["cat\x1b"], "title": "cat\x1b"})
    {'values': [{'class': 'cat\\x1b'}], 'sort': ['cat\\x1b'], 'title': 'cat∖x1b'}
    """
    match spec:
        case str():
            text = printable_lines(spec)
            return text.replace("\\", "∖") if is_title else text
        case Mapping():
            return {
                printable_lines(name): chart_spec(value, is_title=is_title or name == "title")
                for name, value in spec.items()
            }
        case list() | tuple():
            return [chart_spec(value, is_title=is_title) for value in spec]
        case _:
            return spec


def file_name_part(name: str, default: str = "unnamed") -> str:
    """A name as a part of a file's: letters, digits and hyphens.

    >>> file_name_part("crane (bird)"), file_name_part("../.."), file_name_part("a" * 300) == "a" * 80
    ('crane-bird', 'unnamed', True)
    """
    part = re.sub(r"[^\w]+", "-", name).strip("-")
    return part.encode("utf-8", "ignore")[:MAX_FILE_NAME_PART].decode("utf-8", "ignore") or default


def shell_word(word: object) -> str:
    r"""A word of a command that a person copies: in quotes where it needs them, and what does not print as escapes.

    Those are octal numbers in $'...', which bash and zsh read, and sh since POSIX 2024: always of three digits, so that
    a digit may follow.

    >>> print(shell_word("runs/a"), shell_word("a b"), shell_word("it's\n\x1b[31m"))
    runs/a 'a b' $'it\'s\012\033[31m'
    """
    text = str(word)
    return shlex.quote(text) if text.isprintable() else f"$'{''.join(map(shell_character, text))}'"


def command_line(words: Sequence[str]) -> str:
    """A command as a person types it.

    >>> command_line(["train", "simple_convnet", "--set", "model.channels=[8, 16]"])
    "convolab train simple_convnet --set 'model.channels=[8, 16]'"
    """
    return " ".join(["convolab", *map(shell_word, words)])


def shell_character(character: str) -> str:
    """A character inside $'...'."""
    if character.isprintable():
        return f"\\{character}" if character in "\\'" else character
    is_raw_byte = "\udc80" <= character <= "\udcff"  # of a file's name that is no UTF-8
    content = character.encode("utf-8", "surrogateescape" if is_raw_byte else "surrogatepass")
    return "".join(f"\\{byte:03o}" for byte in content)


def replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """How a stream writes what its encoding lacks: ASCII signs for ours, else escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return text.translate(ASCII_SIGNS).encode("ascii", "backslashreplace").decode(), error.end


ASCII_ERRORS = "convolab-ascii"  # the name of that way, for a stream's `errors`
codecs.register_error(ASCII_ERRORS, replace_unencodable)


def plain_cell(value: object) -> object:
    """A cell that no spreadsheet takes for a formula: a text that begins like one has an apostrophe before it.

    >>> plain_cell("=1+1"), plain_cell("-x"), plain_cell("-1.5"), plain_cell("Ada"), plain_cell(-3.5)
    ("'=1+1", "'-x", '-1.5', 'Ada', -3.5)
    """
    if not isinstance(value, str) or not value.startswith(FORMULA_STARTS) or len(value) == 1:
        return value
    return value if re.fullmatch(r"[+-]\d+(\.\d+)?", value) else f"'{value}"
