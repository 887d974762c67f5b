"""A parser of Markdown that knows formulas, `$...$` and `$$...$$`, and reads HTML, links and images as text."""

import re

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

from convolab.core.errors import require

READ_AS_TEXT = ("html_block", "html_inline", "link", "image", "autolink", "reference", "blockquote", "lheading")
DISPLAY_FORMULA = re.compile(r"\$\$(.+?)(?<!\\)\$\$", re.DOTALL)
INLINE_FORMULA = re.compile(r"\$((?:\\.|[^$\\])+)\$(?!\d)", re.DOTALL)  # "$5 and $6" is money


def make_markdown_parser(source: str) -> MarkdownIt:
    """A parser whose tokens are those of CommonMark, and tables, `formula` and `formula_block`.

    Its `parse` raises LabError for a `$$` that is not closed.

    Args:
        source: how the error names the text.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(READ_AS_TEXT)
    interrupts: RuleOptionsType = {"alt": ["paragraph", "list"]}

    def display_formula(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
        return read_display_formula(state, start_line, end_line, silent, source)

    parser.block.ruler.before("fence", "comment", skip_comment, interrupts)
    parser.block.ruler.before("fence", "formula_block", display_formula, interrupts)
    parser.inline.ruler.before("escape", "formula", read_inline_formula)
    return parser


def line_start(state: StateBlock, line: int) -> int:
    """Where the text of a line begins, behind its indentation."""
    return state.bMarks[line] + state.tShift[line]


def skip_comment(state: StateBlock, start_line: int, end_line: int, silent: bool) -> bool:
    """Leave out a comment that begins and ends a line."""
    if state.is_code_block(start_line) or not state.src.startswith("<!--", line_start(state, start_line)):
        return False
    for line in range(start_line, end_line):
        text = state.src[line_start(state, line) : state.eMarks[line]]
        if text.rstrip().endswith("-->"):
            state.line = start_line if silent else line + 1
            return True
    return False


def read_display_formula(state: StateBlock, start_line: int, end_line: int, silent: bool, source: str) -> bool:
    """Read a formula between `$$` that begins a line and `$$` that ends one."""
    first = state.src[line_start(state, start_line) : state.eMarks[start_line]].rstrip()
    if state.is_code_block(start_line) or not first.startswith("$$"):
        return False
    line, lines = start_line, [first[2:]]
    while "$$" not in lines[-1] and line + 1 < end_line:
        line += 1
        lines.append(state.src[line_start(state, line) : state.eMarks[line]].strip())
    formula, closing, rest = " ".join(lines).strip().partition("$$")
    if rest and line == start_line:
        return False  # "$$a$$ and $$b$$": a paragraph that begins with a formula
    place = f"{source}, line {start_line + 1}: the formula's $$"
    require(closing, f"{place} is not closed: end it with $$")
    require(not rest, f"{place} is closed in the middle of line {line + 1}: put what follows on a new line")
    require(formula.strip(), f"{place} holds no formula: remove it")
    if not silent:
        state.line = line + 1
        token = state.push("formula_block", "", 0)
        token.content, token.map = formula.strip(), [start_line, state.line]
    return True


def read_inline_formula(state: StateInline, silent: bool) -> bool:
    """Read a formula inside of a paragraph."""
    if state.src[state.pos] != "$":
        return False
    match = DISPLAY_FORMULA.match(state.src, state.pos) or INLINE_FORMULA.match(state.src, state.pos)
    formula = " ".join(match[1].split()) if match else ""
    if match is None or not formula:
        return False
    if not silent:
        state.push("formula", "", 0).content = formula
    state.pos = match.end()
    return True
