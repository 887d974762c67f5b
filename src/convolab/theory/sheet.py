"""What an answer sheet is made of: text, formulae, tables, pictures, and checks that were run.

Text is marked as in Markdown: `$...$` holds a formula in LaTeX, **bold** and `code` are what they say. Bold text may hold formulae.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Mark = Literal["text", "formula", "bold", "code"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Formula:
    """A formula on a line of its own, in LaTeX."""

    latex: str


@dataclass(frozen=True)
class Table:
    """Rows of marked text under headings."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A picture that the front floor draws: `name` says which one, `data` is what it shows."""

    name: str
    caption: str
    data: Any


@dataclass(frozen=True)
class Check:
    """A claim, what was found when it was put to the test just now, and whether that bears it out."""

    claim: str
    found: str
    holds: bool


Block = Text | Formula | Table | Picture | Check


@dataclass(frozen=True)
class Answer:
    """One part of the question, answered."""

    name: str  # such as 1(a)
    question: str
    short: str  # the answer in a sentence or two
    blocks: tuple[Block, ...]

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Check))


@dataclass(frozen=True)
class Sheet:
    """The whole question, answered and checked."""

    title: str
    made: str  # how, so that it can be made again
    answers: tuple[Answer, ...]

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(check for answer in self.answers for check in answer.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.holds)


def check(claim: str, test: Callable[[], tuple[str, bool]]) -> Check:
    """Run a test, which says what it found and whether that is as claimed; one that breaks down bears nothing out.

    >>> check("2 and 2 make 5", lambda: (f"{2 + 2}", 2 + 2 == 5))
    Check(claim='2 and 2 make 5', found='4', holds=False)
    """
    try:
        found, holds = test()
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        found, holds = f"the test broke down: {' '.join(str(error).split()) or type(error).__name__}", False
    return Check(claim, found, bool(holds))


MARKED = re.compile(r"\$(?P<formula>[^$]+)\$|\*\*(?P<bold>[^*]+)\*\*|`(?P<code>[^`]+)`")


def marks(text: str) -> list[tuple[Mark, str]]:
    """Marked text taken apart.

    >>> marks("the $n$ samples of `x`")
    [('text', 'the '), ('formula', 'n'), ('text', ' samples of '), ('code', 'x')]
    """
    parts: list[tuple[Mark, str]] = []
    end = 0
    for match in MARKED.finditer(text):
        if match.start() > end:
            parts.append(("text", text[end : match.start()]))
        parts.append((match.lastgroup, match[match.lastgroup]))
        end = match.end()
    if end < len(text):
        parts.append(("text", text[end:]))
    return parts


def table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table of anything that has a text."""
    return Table(caption, tuple(headings), tuple(tuple(map(str, row)) for row in rows))
