"""The answer sheet as a typst document. All text goes in as strings, so that nothing in it is read as typst."""

import re

from convolab.reports.latex import latex_to_typst, typst_string
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
    open_parts_keyword,
    parse_markup,
)

TYPST_PREAMBLE = """#set document(title: {title}, author: {author}, keywords: ({keywords}))
#set page(
  paper: "a4", margin: (x: 2.3cm, y: 2.2cm), numbering: "1 / 1",
  header: context if counter(page).get().first() > 1 {{ align(right, text(size: 8.5pt, fill: luma(90), {author})) }},
)
#set text(font: ("New Computer Modern", "Libertinus Serif"), size: 10.5pt, lang: "en")
#set par(justify: true, leading: 0.62em, spacing: 1em)
#set table(stroke: (x, y) => (bottom: if y == 0 {{ 0.8pt }} else {{ 0.3pt + luma(200) }}), inset: (x: 5pt, y: 3.5pt))
#set list(indent: 0.6em)
#set enum(indent: 0.6em)
#show heading.where(level: 1): set block(below: 1em)
#show heading.where(level: 2): set block(above: 2em, below: 1em)
#show heading.where(level: 3): set block(above: 1.6em, below: 0.9em)
#show table: set par(justify: false)
#show figure.where(kind: table): set figure.caption(position: top)
#show figure.caption: set text(size: 9pt, fill: luma(70))
#show figure: set block(above: 1.4em, below: 1.4em)
#show raw.where(block: true): it => block(fill: luma(245), inset: 7pt, width: 100%, text(size: 9pt, it))
#let fitted(body) = layout(size => {{
  let width = measure(body).width
  if width > size.width {{ align(center, scale(size.width / width * 100%, reflow: true, body)) }} else {{ body }}
}})
#let question(body) = block(inset: (left: 10pt, y: 4pt), stroke: (left: 2pt + luma(150)), text(fill: luma(60), body))
#let summary(body) = block(fill: rgb("#f3f3ee"), inset: 9pt, width: 100%, body)
#let note(fill, line, body) = block(
  fill: rgb(fill), inset: 8pt, width: 100%, breakable: false, stroke: (left: 2.5pt + rgb(line)),
  text(size: 9.3pt, par(justify: false, body)),
)
#let check(passed, body) = if passed {{ note("#eef8f4", "#009E73", body) }} else {{ note("#fdf0e7", "#D55E00", body) }}
"""
FIGURE_WIDTH_PERCENT = {"equivariance": 95, "jacobians": 80, "matrices": 75, "arrangements": 60}  # of the text's width
DEFAULT_FIGURE_WIDTH_PERCENT = 70
LONG_WORD = re.compile(r"\S{40,}")


def sheet_typst(sheet: AnswerSheet, status: str) -> str:
    """The sheet as a typst document; its figures are `NAME.png`.

    Args:
        sheet: what to write.
        status: how many checks passed, for the head.
    """
    author = ", ".join(text for text in (sheet.name, sheet.date) if text)
    keywords = f"{typst_string(open_parts_keyword(sheet.open_parts))}," if sheet.open_parts else ""
    parts = [TYPST_PREAMBLE.format(title=typst_string(sheet.title), author=breakable_string(author), keywords=keywords)]
    parts += [f"= {inline_typst(sheet.title)}", f"#text(size: 11.5pt, {breakable_string(author)})" if author else ""]
    parts += [f"#text(size: 9pt, fill: luma(90))[{inline_typst(sheet.provenance)} {inline_typst(status)}]"]
    parts += [answer_typst(answer) for answer in sheet.answers]
    return "\n\n".join(filter(None, parts)) + "\n"


def answer_typst(answer: QuestionAnswer) -> str:
    """One part: the question, the short answer, and all else."""
    parts = [f"== {inline_typst(answer.name)}"]
    if answer.question:
        parts.append(f"#question[{inline_typst(answer.question)}]")
    if answer.summary:
        parts.append(f"#summary[*Short answer:* {inline_typst(answer.summary)}]")
    return "\n\n".join([*parts, *map(block_typst, answer.blocks)])


def block_typst(block: ContentBlock) -> str:
    match block:
        case Heading(text):
            return f"=== {inline_typst(text)}"
        case Text(text):
            return inline_typst(text)
        case Formula(latex):
            return f"#fitted($ {latex_to_typst(latex)} $)"
        case CodeBlock(code):
            return f"#raw(block: true, {breakable_string(code)})"
        case ItemList():
            return list_typst(block)
        case Table():
            return table_typst(block)
        case SheetFigure(name, caption):
            width = FIGURE_WIDTH_PERCENT.get(name, DEFAULT_FIGURE_WIDTH_PERCENT)
            image = f'image("{name}.png", width: {width}%, alt: {typst_string(caption)})'
            return f"#figure(caption: [{inline_typst(caption)}], kind: image, {image})"
        case Check(claim, result, passed):
            status = "passed" if passed else "FAILED"
            content = f"*Check {status}:* {inline_typst(claim)}. #linebreak() Result: {inline_typst(result)}."
            return f"#check({str(passed).lower()})[{content}]"
        case OpenItem(text):
            return f'#note("#fdf0e7", "#D55E00")[*Open:* {inline_typst(text)}]'


def list_typst(items: ItemList) -> str:
    """A list, whose items may hold other blocks."""
    contents = ["\n\n".join(map(block_typst, blocks)) for blocks in items.items]
    function = "list(" if items.start is None else f"enum(start: {items.start}, "
    return f"#{function}{', '.join(f'[{content}]' for content in contents)})"


def table_typst(table: Table) -> str:
    """A table; a person's own has no caption and no number."""
    head = f"table.header({', '.join(f'[*{inline_typst(cell)}*]' for cell in table.headers)})"
    cells = ",\n  ".join(", ".join(f"[{inline_typst(cell)}]" for cell in row) for row in table.rows)
    alignments = ", ".join("right" if is_numeric else "left" for is_numeric in table.numeric_columns)
    body = f"table(columns: {len(table.headers)}, align: ({alignments},), {head},\n  {cells})"
    caption = f"caption: [{inline_typst(table.caption)}], " if table.caption else ""
    return f"#figure({caption}text(size: 8.5pt, {body}))" if caption else f"#align(center, text(size: 9pt, {body}))"


def inline_typst(text: MarkedUpText) -> str:
    """Marked-up text in typst."""
    return "".join(map(span_typst, parse_markup(text)))


def span_typst(span: Span) -> str:
    kind, part = span
    match kind:
        case "text":
            return f"#{breakable_string(str(part))};"
        case "bold":
            return f"#strong[{inline_typst(part)}];"
        case "italic":
            return f"#emph[{inline_typst(part)}];"
        case "code":
            return f"#raw({breakable_string(str(part))});"
        case "formula":
            return f"${latex_to_typst(str(part))}$"
        case "line break":
            return "#linebreak();"


def breakable_string(text: str) -> str:
    """Text as a string of typst that may break within a word too long for a line."""
    return typst_string(LONG_WORD.sub(lambda word: "\u200b".join(re.findall(".{1,20}", word[0])), text))


def needs_system_fonts(source: str) -> bool:
    """Whether a document has letters that typst's bundled fonts do not draw, such as Chinese ones.

    >>> needs_system_fonts("Łukasz Ωμέγα"), needs_system_fonts("李明")
    (False, True)
    """
    return any(
        ord(letter) >= 0x0590 and not 0x1E00 <= ord(letter) < 0x2E00 and not 0x1D400 <= ord(letter) < 0x1D800
        for letter in source
    )
