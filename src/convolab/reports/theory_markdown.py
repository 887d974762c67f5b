"""The answer sheet as Markdown, as GitHub reads it. Text that a person wrote is escaped: it opens no HTML and no link."""

from convolab.reports import markdown
from convolab.theory.sheet import (
    AnswerSheet,
    Check,
    CodeBlock,
    ContentBlock,
    Formula,
    Heading,
    ItemList,
    MarkedUpText,
    OpenItem,
    QuestionAnswer,
    SheetFigure,
    Span,
    Table,
    Text,
)


def sheet_markdown(sheet: AnswerSheet, status: str, stem: str = "question1") -> str:
    """The sheet as Markdown.

    Args:
        sheet: what to write.
        status: how many checks passed, for the head.
        stem: the figures are figures/STEM-NAME.png.
    """
    author = ", ".join(markdown.escape_part(text) for text in (sheet.name, sheet.date) if text)
    parts = [markdown.heading(sheet.title), author, f"*{inline_markdown(sheet.provenance)} {status}*"]
    for answer in sheet.answers:
        parts += answer_markdown(answer, stem)
    return markdown.document(parts)


def answer_markdown(answer: QuestionAnswer, stem: str) -> list[str]:
    """One part: the question, the short answer, and all else."""
    question = f"> {answer.question}" if answer.question else ""
    summary = f"**Short answer:** {answer.summary}" if answer.summary else ""
    return [markdown.heading(answer.name, 2), question, summary, *(block_markdown(b, stem) for b in answer.blocks)]


def block_markdown(block: ContentBlock, stem: str) -> str:
    match block:
        case Heading(text):
            return f"### {inline_markdown(text)}"
        case Text(text):
            return inline_markdown(text)
        case Formula(latex):
            return f"$$\n{formula_markdown(latex)}\n$$"
        case CodeBlock(code):
            return markdown.code_block(code)
        case ItemList(items, start):
            return markdown.item_list(("\n\n".join(block_markdown(b, stem) for b in item) for item in items), start)
        case Table(caption, headers, rows):
            cells = [[markdown.cell(inline_markdown(text)) for text in row] for row in (headers, *rows)]
            table = markdown.table(cells[0], cells[1:])
            return f"**{caption}**\n\n{table}" if caption else table
        case SheetFigure(name, caption):
            return f"{markdown.image(caption, f'figures/{stem}-{name}.png')}\n\n*{markdown.escape(caption)}*"
        case Check(claim, result, passed):
            status = "✅ **Check passed:**" if passed else "❌ **Check FAILED:**"
            return f"> {status} {claim}. Result: {result}."
        case OpenItem(text):
            return f"> ⬜ **Open:** {text}"


def inline_markdown(text: MarkedUpText) -> str:
    """Marked-up text, which is Markdown already; a person's own, which was parsed, is written and escaped again."""
    return text if isinstance(text, str) else "".join(map(span_markdown, text))


def span_markdown(span: Span) -> str:
    kind, part = span
    match kind:
        case "text":
            return markdown.escape_part(str(part))
        case "formula":
            return f"${formula_markdown(str(part))}$"
        case "bold":
            return f"**{inline_markdown(part)}**"
        case "italic":
            return f"*{inline_markdown(part)}*"
        case "code":
            return markdown.inline_code(str(part))
        case "line break":
            return "\\\n"


def formula_markdown(latex: str) -> str:
    """A formula in which no HTML tag can begin."""
    return latex.replace("<", r"\lt ")
