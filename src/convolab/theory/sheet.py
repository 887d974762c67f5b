"""What an answer sheet is made of: text, formulas, lists, tables, figures and checks that were run.

Text is marked up as in Markdown: `$...$` is a formula in LaTeX, `**...**` is bold and may hold formulas, and backquotes
hold code. Text that was parsed already, such as a person's own answers, is a tuple of spans.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias, cast

from convolab.core.display import Displayable
from convolab.theory.priors import PriorsResult

OPEN_PARTS_START = "not answered yet: "
MarkupKind = Literal["text", "formula", "bold", "italic", "code", "line break"]


class Span(NamedTuple):
    """A stretch of text of one kind; what is bold or italic may hold other spans."""

    kind: MarkupKind
    part: "str | tuple[Span, ...]"


MarkedUpText: TypeAlias = str | tuple[Span, ...]


@dataclass(frozen=True)
class Heading:
    """A heading inside of an answer."""

    text: MarkedUpText


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: MarkedUpText


@dataclass(frozen=True)
class Formula:
    """A formula in LaTeX, on a line of its own."""

    latex: str


@dataclass(frozen=True)
class CodeBlock:
    """Code on lines of its own."""

    code: str


@dataclass(frozen=True)
class ItemList:
    """A list; its items are numbered from `start`, or have bullets where it is None."""

    items: "tuple[tuple[ContentBlock, ...], ...]"
    start: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows of marked-up text under headers; a person's own table has no caption."""

    caption: str
    headers: tuple[MarkedUpText, ...]
    rows: tuple[tuple[MarkedUpText, ...], ...]

    @property
    def numeric_columns(self) -> list[bool]:
        """Which columns are right-aligned: all but the first in which most cells hold a digit."""
        columns = list(zip(*self.rows, strict=True)) or [() for _ in self.headers]
        with_digits = [sum(any(map(str.isdigit, plain_text(cell))) for cell in column) for column in columns]
        return [
            index > 0 and count > len(column) / 2
            for index, (count, column) in enumerate(zip(with_digits, columns, strict=True))
        ]


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


@dataclass(frozen=True)
class OpenItem:
    """What is still to be done before the sheet can be handed in."""

    text: str


ContentBlock = Heading | Text | Formula | CodeBlock | ItemList | Table | SheetFigure | Check | OpenItem


@dataclass(frozen=True)
class QuestionAnswer(Displayable):
    """One part of the question, answered."""

    name: str  # such as 1(a)
    question: str  # empty in an appendix
    summary: str  # the short answer, in a few sentences; empty where a person answers in their own words
    blocks: tuple[ContentBlock, ...]

    def __repr__(self) -> str:
        return f"<answer to {self.name}: {count_checks(self.checks)}>"

    @cached_property
    def checks(self) -> tuple[Check, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Check))

    @property
    def is_open(self) -> bool:
        """Whether the answer is still missing."""
        return any(isinstance(block, OpenItem) for block in self.blocks)


@dataclass(frozen=True)
class AnswerSheet(Displayable):
    """The question, answered and checked: `save("sheet.pdf")` writes it, and a notebook draws it."""

    title: str
    provenance: MarkedUpText  # the command and the versions that made the sheet
    answers: tuple[QuestionAnswer, ...]  # the appendix is the last one, where there is one
    name: str = ""  # of the person who hands the sheet in
    date: str = ""
    experiment: PriorsResult | None = None  # of 1(a); None: left out
    is_own: bool = False  # whether a person answers in their own words

    def __repr__(self) -> str:
        return f"<{self.title}: {count_checks(self.checks)}>"

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(check for answer in self.answers for check in answer.checks)

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)

    @property
    def open_parts(self) -> tuple[str, ...]:
        """The names of the parts that are not answered yet."""
        return tuple(answer.name for answer in self.answers if answer.is_open)


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


def open_parts_keyword(parts: Sequence[str]) -> str:
    """What a sheet's PDF has among its keywords: the parts that are not answered yet, so that a reader of the file knows.

    >>> open_parts_keyword(["1(a)"])
    'not answered yet: 1(a)'
    """
    return f"{OPEN_PARTS_START}{', '.join(parts)}"


def count_checks(checks: Sequence[Check]) -> str:
    """
    >>> count_checks([Check("a", "b", True), Check("a", "b", False)])
    '1 of 2 checks passed'
    """
    return f"{sum(check.passed for check in checks)} of {len(checks)} checks passed"


MARKUP_PATTERN = re.compile(r"\$(?P<formula>[^$]+)\$|\*\*(?P<bold>[^*]+)\*\*|`(?P<code>[^`]+)`")


def parse_markup(text: MarkedUpText) -> list[Span]:
    """Split marked-up text into spans.

    >>> [tuple(span) for span in parse_markup("the $n$ samples of `x`")]
    [('text', 'the '), ('formula', 'n'), ('text', ' samples of '), ('code', 'x')]
    """
    if not isinstance(text, str):
        return list(text)
    spans: list[Span] = []
    position = 0
    for match in MARKUP_PATTERN.finditer(text):
        if match.start() > position:
            spans.append(Span("text", text[position : match.start()]))
        kind = cast("MarkupKind", match.lastgroup)  # the pattern's groups have these names
        spans.append(Span(kind, match[kind]))
        position = match.end()
    if position < len(text):
        spans.append(Span("text", text[position:]))
    return spans


def plain_text(text: MarkedUpText) -> str:
    """Marked-up text without its marks; formulas stay in LaTeX.

    >>> plain_text("**a $b$** `c`")
    'a b c'
    """
    return "".join(
        plain_text(part) if kind in ("bold", "italic") else " " if kind == "line break" else str(part)
        for kind, part in parse_markup(text)
    )


def make_sheet_table(caption: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Make a table, converting each cell to a string."""
    return Table(caption, tuple(headers), tuple(tuple(map(str, row)) for row in rows))


def evidence_blocks(answer: QuestionAnswer) -> tuple[ContentBlock, ...]:
    """What convolab measured and checked for an answer, without its prose: tables and figures, then the checks."""
    measured = tuple(block for block in answer.blocks if isinstance(block, Table | SheetFigure))
    return (*measured, *answer.checks)
