"""A person's own answers: a Markdown file with a heading for each part, read into the blocks of a sheet.

What is read: paragraphs, `$...$` and `$$...$$`, **bold**, *italic*, `code`, code blocks, lists, tables, and headings
below those of the parts. All else, such as raw HTML, links and images, is text. Left out are comments, <!-- ... --> on
lines of their own, the question quoted below its heading, and a title with what is below it, before the first part.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from markdown_it.tree import SyntaxTreeNode

from convolab.core.errors import LabError, require
from convolab.core.files import write_text
from convolab.core.text import join_with_and
from convolab.theory.formula_markdown import make_markdown_parser
from convolab.theory.sheet import (
    CodeBlock,
    ContentBlock,
    Formula,
    Heading,
    ItemList,
    MarkedUpText,
    Span,
    Table,
    Text,
    plain_text,
)

QUESTION_PARTS = ("1(a)", "1(b)", "1(c)")
PART_PATTERN = re.compile(r"(?:question)?1?\(?([abc])\)?[.:]?")  # 1(a), 1a, (a), Question 1(a):
TO_DO = re.compile(r"\W*(?:TODO|TBD)\b")
LIKE_A_PART = re.compile(r"(?:question)?\d*\(?[a-z]?\)?[.:]?")
MAX_BYTES_OF_ANSWERS = 1_000_000
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
PLACEHOLDER_TEXT = "Write your answer here, in place of this line."
TEMPLATE_COMMENT = """<!--
Your answers to question 1, in Markdown: $...$ and $$...$$ for formulas, **bold**, `code`, lists and tables. Headings of
your own begin with ###. Comments like this one are not part of the sheet, and neither are the quoted questions.
Then: convolab theory --answers THIS_FILE --name "YOUR NAME"
-->"""


def read_own_answers(path: Path | str) -> dict[str, tuple[ContentBlock, ...]]:
    """Read a person's answers.

    Args:
        path: a Markdown file in UTF-8, of at most 1 MB, with a heading for each part: `## 1(a)`, `## 1(b)`, `## 1(c)`.

    Returns:
        The blocks of each part of `QUESTION_PARTS`; none where it is not answered yet: where nothing but headings, signs
        or a TODO is there.

    Raises:
        LabError: the file cannot be read, is too large or no text, or has a heading that is not a part's.
    """
    return parse_own_answers(read_small_text(Path(path)), str(path))


def read_small_text(path: Path) -> str:
    """The text of a file. Raises LabError for what is not a file, is larger than 1 MB, or is not text in UTF-8."""
    require(path.exists(), f"there is no file {path}")
    require(path.is_file(), f"{path} is not a file: give a Markdown file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES_OF_ANSWERS + 1)
    except OSError as error:
        raise LabError(f"cannot read {path} ({error.strerror})") from error
    require(
        len(content) <= MAX_BYTES_OF_ANSWERS,
        f"{path} has {path.stat().st_size:,} bytes: give a text of at most {MAX_BYTES_OF_ANSWERS:,}",
    )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(f"{path} is not text in UTF-8 (byte {error.start}): save it in that encoding") from error
    found = CONTROL_CHARACTERS.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise LabError(f"{path}, line {line}: the control character U+{ord(found[0]):04X} is not text: remove it")
    return text


def parse_own_answers(text: str, source: str = "the text") -> dict[str, tuple[ContentBlock, ...]]:
    """The blocks of each part of a person's answers, in Markdown; none where a part is missing.

    Args:
        text: Markdown, with a heading for each part.
        source: how errors name the text.

    Raises:
        LabError: there is no heading of a part, one comes twice, or there is a heading or a text outside of the parts.

    >>> parse_own_answers("## 1(a)\\nLocality.")["1(a)"]
    (Text(text=(Span(kind='text', part='Locality.'),)),)
    """
    blocks: dict[str, list[ContentBlock]] = {}
    lines: dict[str, int] = {}
    part, has_title = "", False
    for node in SyntaxTreeNode(make_markdown_parser(source).parse(text)).children:
        line = node.map[0] + 1 if node.map else 0
        if is_title(node) and not blocks and not has_title:
            has_title = True
        elif node.type == "heading" and node.tag in ("h1", "h2"):
            part = part_of_heading(node.children[0].content, f"{source}, line {line}")
            require(part not in blocks, f"{source}, line {line}: {part} was answered in line {lines.get(part)} already")
            blocks[part], lines[part] = [], line
        elif part:
            is_first = not blocks[part]
            blocks[part] += [] if is_placeholder(node) or (is_first and is_quote(node)) else blocks_of_nodes([node])
        else:
            is_outside = not has_title and node.type != "hr"
            first = QUESTION_PARTS[0]
            require(not is_outside, f"{source}, line {line}: the text is before the first heading '## {first}'")
    first, second, third = QUESTION_PARTS
    require(blocks, f"{source} has no heading of a part: give '## {first}', '## {second}' and '## {third}'")
    return {name: tuple(blocks.get(name, ())) if has_answer(blocks.get(name, ())) else () for name in QUESTION_PARTS}


def has_answer(blocks: Sequence[ContentBlock]) -> bool:
    """Whether there is a word, a formula or code in some blocks, headings and marks of what is to be done apart."""
    for block in blocks:
        match block:
            case Heading():
                continue
            case Text(text):
                is_answer = is_written(plain_text(text))
            case Formula(text) | CodeBlock(text):
                is_answer = is_written(text)
            case ItemList(items):
                is_answer = any(has_answer(item) for item in items)
            case Table(_, _, rows):
                is_answer = any(is_written(plain_text(cell)) for row in rows for cell in row)
            case _:
                is_answer = True
        if is_answer:
            return True
    return False


def is_written(text: str) -> bool:
    """Whether a text has a letter or a number and does not only say that it is to be written.

    >>> is_written("z"), is_written("..."), is_written("TODO: think")
    (True, False, False)
    """
    return any(map(str.isalnum, text)) and not TO_DO.match(text)


def is_title(node: SyntaxTreeNode) -> bool:
    """Whether it is a heading of the first level that could not be meant as a part's, such as 1(d)."""
    return node.tag == "h1" and not LIKE_A_PART.fullmatch("".join(node.children[0].content.lower().split()))


def is_quote(node: SyntaxTreeNode) -> bool:
    """Whether it is a paragraph all of whose lines begin with >, as the question in the template."""
    return node.type == "paragraph" and all(line.startswith(">") for line in node.children[0].content.splitlines())


def is_placeholder(node: SyntaxTreeNode) -> bool:
    """Whether it is the line that an answer takes the place of."""
    return node.type == "paragraph" and node.children[0].content.strip("*_ ") == PLACEHOLDER_TEXT


def part_of_heading(heading: str, place: str) -> str:
    """The part that a heading names. Raises LabError if it is not one.

    >>> part_of_heading("Question 1 (b)", "answers.md, line 1")
    '1(b)'
    """
    match = PART_PATTERN.fullmatch("".join(heading.lower().split()))
    if match is None:
        raise LabError(
            f"{place}: the heading '{' '.join(heading.split())[:60]}' is not one of {join_with_and(QUESTION_PARTS)}: inside of "
            "an answer, begin headings with ###"
        )
    return f"1({match[1]})"


def blocks_of_nodes(nodes: Sequence[SyntaxTreeNode]) -> list[ContentBlock]:
    """The blocks of parsed Markdown; rules between them are left out."""
    blocks: list[ContentBlock] = []
    for node in nodes:
        match node.type:
            case "heading":
                blocks.append(Heading(marked_up_text(node)))
            case "paragraph":
                blocks.append(Text(marked_up_text(node)))
            case "formula_block":
                blocks.append(Formula(node.content))
            case "fence" | "code_block":
                blocks.append(CodeBlock(node.content.rstrip("\n")))
            case "bullet_list" | "ordered_list":
                start = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
                blocks.append(ItemList(tuple(tuple(blocks_of_nodes(item.children)) for item in node.children), start))
            case "table":
                headers, *rows = [
                    tuple(marked_up_text(cell) for cell in row.children)
                    for section in node.children
                    for row in section.children
                ]
                blocks.append(Table("", headers, tuple(rows)))
            case "hr":
                pass
            case kind:
                raise AssertionError(f"the parser gave a {kind}, which it should read as text")
    return blocks


def marked_up_text(node: SyntaxTreeNode) -> MarkedUpText:
    """The spans of a paragraph, a heading or a cell."""
    return tuple(span for inline in node.children for child in inline.children for span in spans_of_node(child))


def spans_of_node(node: SyntaxTreeNode) -> list[Span]:
    """The spans of one inline element."""
    match node.type:
        case "text":
            return [Span("text", node.content)] if node.content else []
        case "softbreak":
            return [Span("text", " ")]
        case "hardbreak":
            return [Span("line break", "")]
        case "code_inline":
            return [Span("code", node.content)]
        case "formula":
            return [Span("formula", node.content)]
        case "strong" | "em":
            inner = tuple(span for child in node.children for span in spans_of_node(child))
            return [Span("bold" if node.type == "strong" else "italic", inner)]
        case kind:
            raise AssertionError(f"the parser gave a {kind}, which it should read as text")


def own_answers_template(questions: Mapping[str, str]) -> str:
    """A file to fill in: a heading for each part, with its question quoted.

    Args:
        questions: the question of each part, by its name.
    """
    sections = [f"## {part}\n\n> {question}\n\n*{PLACEHOLDER_TEXT}*" for part, question in questions.items()]
    return "\n\n".join([TEMPLATE_COMMENT, *sections]) + "\n"


def write_answers_template(path: Path | str, questions: Mapping[str, str]) -> Path:
    """Write `own_answers_template` to a new file.

    Returns:
        The path.

    Raises:
        LabError: there is something already, or the folder cannot be written.
    """
    path = Path(path)
    require(not os.path.lexists(path), f"{path} exists already and is never overwritten: give a new name")
    write_text(path, own_answers_template(questions))
    return path
