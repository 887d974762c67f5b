"""What an answer sheet is made of: text, formulae, tables, pictures, and checks that were run.

Text is marked as in Markdown: `$...$` holds a formula in LaTeX, **bold** and `code` are what they say. Bold text may hold formulae.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

MarkupKind = Literal["text", "formula", "bold", "code"]


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
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SheetFigure:
    """A picture that the front floor draws: `name` says which one, `data` is what it shows."""

    name: str
    caption: str
    chart_data: Any


@dataclass(frozen=True)
class Check:
    """A claim, what was found when it was put to the test just now, and whether that bears it out."""

    claim: str
    result: str
    passed: bool


ContentBlock = Text | Formula | Table | SheetFigure | Check


@dataclass(frozen=True)
class QuestionAnswer:
    """One part of the question, answered."""

    name: str  # such as 1(a)
    question: str
    summary: str  # the answer in a sentence or two
    blocks: tuple[ContentBlock, ...]

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Check))


@dataclass(frozen=True)
class AnswerSheet:
    """The whole question, answered and checked."""

    title: str
    provenance: str  # how, so that it can be made again
    answers: tuple[QuestionAnswer, ...]

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(check for answer in self.answers for check in answer.checks)

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)


def run_sheet_check(claim: str, test: Callable[[], tuple[str, bool]]) -> Check:
    """Run a test, which says what it found and whether that is as claimed; one that breaks down bears nothing out.

    >>> check("2 and 2 make 5", lambda: (f"{2 + 2}", 2 + 2 == 5))
    Check(claim='2 and 2 make 5', found='4', holds=False)
    """
    try:
        result, passed = test()
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        result, passed = f"the test broke down: {' '.join(str(error).split()) or type(error).__name__}", False
    return Check(claim, result, bool(passed))


MARKUP_PATTERN = re.compile(r"\$(?P<formula>[^$]+)\$|\*\*(?P<bold>[^*]+)\*\*|`(?P<code>[^`]+)`")


def parse_markup(text: str) -> list[tuple[MarkupKind, str]]:
    """Marked text taken apart.

    >>> marks("the $n$ samples of `x`")
    [('text', 'the '), ('formula', 'n'), ('text', ' samples of '), ('code', 'x')]
    """
    parts: list[tuple[MarkupKind, str]] = []
    position = 0
    for match in MARKUP_PATTERN.finditer(text):
        if match.start() > position:
            parts.append(("text", text[position : match.start()]))
        parts.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    if position < len(text):
        parts.append(("text", text[position:]))
    return parts


def make_sheet_table(caption: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table of anything that has a text."""
    return Table(caption, tuple(headers), tuple(tuple(map(str, row)) for row in rows))
