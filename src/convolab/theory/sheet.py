"""What an answer sheet is made of: text, formulas, tables, figures and checks that were run.

Text is marked up as in Markdown: `$...$` is a formula in LaTeX, `**...**` is bold and may hold formulas, and backquotes
hold code.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

MarkupKind = Literal["text", "formula", "bold", "code"]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Formula:
    """A formula in LaTeX, on a line of its own."""

    latex: str


@dataclass(frozen=True)
class Table:
    """Rows of marked-up text under headers."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SheetFigure:
    """A figure that plots.theory draws: `name` says which one, `chart_data` is what it shows."""

    name: str
    caption: str
    chart_data: object  # what the function of that name in plots.theory takes


@dataclass(frozen=True)
class Check:
    """A claim, the result of testing it when the sheet was made, and whether that confirms it."""

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
    """The question, answered and checked."""

    title: str
    provenance: str  # the command and the versions that made the sheet
    answers: tuple[QuestionAnswer, ...]

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(check for answer in self.answers for check in answer.checks)

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)


def run_sheet_check(claim: str, test: Callable[[], tuple[str, bool]]) -> Check:
    """Run a test, which returns its result in words and whether it confirms the claim; an error counts as failed.

    >>> run_sheet_check("2 and 2 make 5", lambda: (f"{2 + 2}", 2 + 2 == 5))
    Check(claim='2 and 2 make 5', result='4', passed=False)
    """
    try:
        result, passed = test()
    except (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        result, passed = f"the check raised an error: {' '.join(str(error).split()) or type(error).__name__}", False
    return Check(claim, result, bool(passed))


MARKUP_PATTERN = re.compile(r"\$(?P<formula>[^$]+)\$|\*\*(?P<bold>[^*]+)\*\*|`(?P<code>[^`]+)`")


def parse_markup(text: str) -> list[tuple[MarkupKind, str]]:
    """Split marked-up text into (kind, text) pieces.

    >>> parse_markup("the $n$ samples of `x`")
    [('text', 'the '), ('formula', 'n'), ('text', ' samples of '), ('code', 'x')]
    """
    parts: list[tuple[MarkupKind, str]] = []
    position = 0
    for match in MARKUP_PATTERN.finditer(text):
        if match.start() > position:
            parts.append(("text", text[position : match.start()]))
        kind = cast("MarkupKind", match.lastgroup)  # the pattern's groups have these names
        parts.append((kind, match[kind]))
        position = match.end()
    if position < len(text):
        parts.append(("text", text[position:]))
    return parts


def make_sheet_table(caption: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Make a table, converting each cell to a string."""
    return Table(caption, tuple(headers), tuple(tuple(map(str, row)) for row in rows))
