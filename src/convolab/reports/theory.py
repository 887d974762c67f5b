"""The answer sheet as Markdown, HTML and PDF: one sheet, three writers, each a page of rules.

The HTML holds its pictures and its formulae (MathML), so it opens without a network; the PDF is set by typst with the fonts
that it carries itself.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from convolab.core.files import atomic_write, write_text
from convolab.plots.theory import RenderedFigure, render_sheet_figure
from convolab.reports.latex import latex_to_mathml, latex_to_typst, typst_string
from convolab.theory.sheet import (
    AnswerSheet,
    Check,
    ContentBlock,
    Formula,
    QuestionAnswer,
    SheetFigure,
    Table,
    Text,
    parse_markup,
)

RenderedFigures = Mapping[str, RenderedFigure]


def render_sheet_figures(sheet: AnswerSheet) -> dict[str, RenderedFigure]:
    """Every picture of the sheet, by name."""
    blocks = (block for answer in sheet.answers for block in answer.blocks)
    return {block.name: render_sheet_figure(block) for block in blocks if isinstance(block, SheetFigure)}


def write_sheet(sheet: AnswerSheet, figures: RenderedFigures, path: Path) -> list[Path]:
    """Write the sheet to a file that ends in .md, .html or .pdf, or in all three forms into a folder; returns the files.

    The pictures of the Markdown lie in pictures/ beside it.
    """
    match path.suffix.lower():
        case ".md":
            for name, figure in figures.items():
                atomic_write_bytes(path.parent / "pictures" / f"{path.stem}-{name}.png", figure.png)
            write_text(path, sheet_markdown(sheet, path.stem))
        case ".html":
            write_text(path, sheet_html(sheet, figures))
        case ".pdf":
            write_sheet_pdf(sheet, figures, path)
        case _:
            return [
                file
                for ending in ("md", "html", "pdf")
                for file in write_sheet(sheet, figures, path / f"question1.{ending}")
            ]
    return [path]


def write_sheet_pdf(sheet: AnswerSheet, figures: RenderedFigures, path: Path) -> None:
    """Set the sheet by typst; the same sheet gives the same bytes."""
    import typst as setter  # 80 MB, wanted here only

    with TemporaryDirectory() as folder:
        for name, figure in figures.items():
            (Path(folder) / f"{name}.png").write_bytes(figure.png)
        source = Path(folder) / "sheet.typ"
        source.write_text(sheet_typst(sheet), encoding="utf-8")
        atomic_write_bytes(path, setter.compile(str(source), format="pdf", ignore_system_fonts=True, timestamp=0))


def atomic_write_bytes(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def check_status(check: Check) -> str:
    return "holds" if check.passed else "FAILS"


def checks_summary(sheet: AnswerSheet) -> str:
    """How the checks came out, in a sentence."""
    num_checks, failed = len(sheet.checks), len(sheet.failed_checks)
    return f"All {num_checks} checks hold." if not failed else f"{failed} of {num_checks} checks FAIL."


def strip_markup(text: str) -> str:
    """Marked text without its marks, for a terminal."""
    converters = {
        "text": lambda part: part.replace("−", "-"),
        "code": str,
        "bold": strip_markup,
        "formula": lambda latex: latex.replace(r"\bmod", "mod").replace(r"\,", " "),
    }
    return "".join(converters[mark](part) for mark, part in parse_markup(text))


# Markdown, as GitHub reads it


def sheet_markdown(sheet: AnswerSheet, stem: str = "question1") -> str:
    """The sheet as Markdown; its pictures are pictures/STEM-NAME.png."""
    parts = [f"# {sheet.title}", f"*{sheet.provenance} {checks_summary(sheet)}*"]
    for answer in sheet.answers:
        parts += [f"## {answer.name}", f"> {answer.question}", f"**In short:** {answer.summary}"]
        parts += [block_markdown(block, stem) for block in answer.blocks]
    return "\n\n".join(parts) + "\n"


def block_markdown(block: ContentBlock, stem: str) -> str:
    match block:
        case Text(text):
            return text
        case Formula(latex):
            return f"$$\n{latex}\n$$"
        case Table(caption, headings, rows):
            lines = [list(headings), ["---"] * len(headings), *rows]
            return f"**{caption}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case SheetFigure(name, caption):
            return f"![{caption}](pictures/{stem}-{name}.png)\n\n*{caption}*"
        case Check(claim, found, holds):
            return f"> {'✅' if holds else '❌'} **Check, {check_status(block)}:** {claim}. Found: {found}."


# HTML


SHEET_CSS = """
body { font: 17px/1.55 Georgia, 'Times New Roman', serif; color: #222; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { font-family: Helvetica, Arial, sans-serif; line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: 4px solid #999; color: #444; }
.short { background: #f3f3ee; padding: .6rem 1rem; } .made { color: #666; font-size: .85rem; }
.check { font-size: .88rem; padding: .5rem .9rem; margin: .8rem 0; border-left: 4px solid #009E73; background: #eef8f4; }
.check.fails { border-color: #D55E00; background: #fdf0e7; } .check b { font-family: Helvetica, Arial, sans-serif; }
table { border-collapse: collapse; font-size: .82rem; margin: .5rem 0 1.5rem; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: bottom; }
.words { text-align: left !important; } caption { text-align: left; padding: .4rem 0; color: #444; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; } figcaption { font-size: .85rem; color: #555; }
math { font-family: 'Latin Modern Math', 'STIX Two Math', 'Cambria Math', math; } math[display=block] { margin: .8rem 0; }
code { font-size: .88em; background: #f2f2f2; padding: 0 .2em; }
"""


def sheet_html(sheet: AnswerSheet, figures: RenderedFigures) -> str:
    """The sheet as one HTML file that needs nothing beside it."""
    body = [
        f"<h1>{inline_html(sheet.title)}</h1>",
        f'<p class="made">{inline_html(f"{sheet.provenance} {checks_summary(sheet)}")}</p>',
    ]
    for answer in sheet.answers:
        body += [f"<h2>{escape(answer.name)}</h2>", f"<blockquote><p>{inline_html(answer.question)}</p></blockquote>"]
        body += [f'<p class="short"><b>In short:</b> {inline_html(answer.summary)}</p>']
        body += [block_html(block, figures) for block in answer.blocks]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(sheet.title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}\n<style>{SHEET_CSS}</style></head>\n<body>\n'
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def block_html(block: ContentBlock, figures: RenderedFigures) -> str:
    match block:
        case Text(text):
            return f"<p>{inline_html(text)}</p>"
        case Formula(latex):
            return latex_to_mathml(latex, display=True)
        case Table(caption, headings, rows):
            column_classes = ["" if numbers else ' class="words"' for numbers in numeric_columns(rows)]
            head = "".join(
                f"<th{kind}>{inline_html(cell)}</th>" for kind, cell in zip(column_classes, headings, strict=True)
            )
            cells = [
                [f"<td{kind}>{inline_html(cell)}</td>" for kind, cell in zip(column_classes, row, strict=True)]
                for row in rows
            ]
            lines = "\n".join(f"<tr>{''.join(row)}</tr>" for row in cells)
            return f"<table><caption>{inline_html(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table>"
        case SheetFigure(name, caption):
            figure = figures[name]
            kind, content = ("png", figure.png) if figure.svg is None else ("svg+xml", figure.svg.encode())
            source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
            content_html = inline_html(caption)
            return (
                f'<figure><img alt="{escape(caption)}" src="{source}"><figcaption>{content_html}</figcaption></figure>'
            )
        case Check(claim, found, holds):
            content_html = f"<b>Check, {check_status(block)}:</b> {inline_html(claim)}.<br>Found: {inline_html(found)}."
            return f'<div class="check{"" if holds else " fails"}">{content_html}</div>'


def inline_html(text: str) -> str:
    converters = {
        "text": escape,
        "bold": lambda part: f"<b>{inline_html(part)}</b>",
        "code": lambda part: f"<code>{escape(part)}</code>",
        "formula": latex_to_mathml,
    }
    return "".join(converters[mark](part) for mark, part in parse_markup(text))


def numeric_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns are set to the right: all but the first in which most cells hold a digit."""
    columns = list(zip(*rows, strict=True))
    return [
        index > 0 and sum(any(character.isdigit() for character in cell) for cell in column) > len(column) / 2
        for index, column in enumerate(columns)
    ]


# PDF


TYPST_PREAMBLE = """#set document(title: {title})
#set page(paper: "a4", margin: (x: 2.3cm, y: 2.2cm), numbering: "1 / 1")
#set text(font: "New Computer Modern", size: 10.5pt, lang: "en")
#set par(justify: true, leading: 0.62em, spacing: 1em)
#set table(stroke: (x, y) => (bottom: if y == 0 {{ 0.8pt }} else {{ 0.3pt + luma(200) }}), inset: (x: 5pt, y: 3.5pt))
#show heading: set text(font: "New Computer Modern")
#show heading.where(level: 1): set block(below: 1em)
#show table: set par(justify: false)
#show figure.where(kind: table): set figure.caption(position: top)
#show figure.caption: set text(size: 9pt, fill: luma(70))
#show figure: set block(above: 1.4em, below: 1.4em)
#let asked(body) = block(inset: (left: 10pt, y: 4pt), stroke: (left: 2pt + luma(150)), text(fill: luma(60), body))
#let short(body) = block(fill: rgb("#f3f3ee"), inset: 9pt, width: 100%, body)
#let checked(holds, body) = block(
  fill: rgb(if holds {{ "#eef8f4" }} else {{ "#fdf0e7" }}), inset: 8pt, width: 100%, breakable: false,
  stroke: (left: 2.5pt + rgb(if holds {{ "#009E73" }} else {{ "#D55E00" }})), text(size: 9.3pt, par(justify: false, body)),
)
"""
FIGURE_WIDTH_PERCENT = {"equivariance": 92}  # of pictures that are wide, as a percentage of the page's width


def sheet_typst(sheet: AnswerSheet) -> str:
    """The sheet as a typst document; its pictures are `NAME.png`."""
    parts = [TYPST_PREAMBLE.format(title=typst_string(sheet.title)), f"= {inline_typst(sheet.title)}"]
    parts += [f"#text(size: 9pt, fill: luma(90))[{inline_typst(f'{sheet.provenance} {checks_summary(sheet)}')}]"]
    parts += [answer_typst(answer) for answer in sheet.answers]
    return "\n\n".join(parts) + "\n"


def answer_typst(answer: QuestionAnswer) -> str:
    parts = [f"== {inline_typst(answer.name)}", f"#asked[{inline_typst(answer.question)}]"]
    parts += [f"#short[*In short:* {inline_typst(answer.summary)}]", *map(block_typst, answer.blocks)]
    return "\n\n".join(parts)


def block_typst(block: ContentBlock) -> str:
    match block:
        case Text(text):
            return inline_typst(text)
        case Formula(latex):
            return f"$ {latex_to_typst(latex)} $"
        case Table(caption, headings, rows):
            head = f"table.header({', '.join(f'[*{inline_typst(cell)}*]' for cell in headings)})"
            cells = ",\n  ".join(", ".join(f"[{inline_typst(cell)}]" for cell in row) for row in rows)
            alignments = ", ".join("right" if numbers else "left" for numbers in numeric_columns(rows))
            body = f"table(columns: {len(headings)}, align: ({alignments},), {head},\n  {cells})"
            return f"#figure(caption: [{inline_typst(caption)}], text(size: 8.5pt, {body}))"
        case SheetFigure(name, caption):
            return f'#figure(caption: [{inline_typst(caption)}], kind: image, image("{name}.png", width: {FIGURE_WIDTH_PERCENT.get(name, 68)}%, alt: {typst_string(caption)}))'
        case Check(claim, found, holds):
            content = (
                f"*Check, {check_status(block)}:* {inline_typst(claim)}. #linebreak() Found: {inline_typst(found)}."
            )
            return f"#checked({str(holds).lower()})[{content}]"


def inline_typst(text: str) -> str:
    """Marked text; as strings, so that nothing in it is taken for typst's own syntax."""
    converters = {
        "text": lambda part: f"#{typst_string(part)};",
        "bold": lambda part: f"#strong[{inline_typst(part)}];",
        "code": lambda part: f"#raw({typst_string(part)});",
        "formula": lambda part: f"${latex_to_typst(part)}$",
    }
    return "".join(converters[mark](part) for mark, part in parse_markup(text))
