"""The answer sheet as Markdown, HTML and PDF: one sheet, three output formats.

The HTML embeds its figures and formulas (MathML), so it opens offline; the PDF is typeset by typst with its bundled
fonts.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from convolab.core.errors import LabError
from convolab.core.files import write_bytes, write_text
from convolab.core.text import join_with_and
from convolab.plots.theory import RenderedFigure, render_sheet_figure
from convolab.reports import markdown
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

REQUIRED_PACKAGES = {".md": (), ".html": ("latex2mathml",), ".pdf": ("latex2mathml", "typst")}  # by format


def require_format_packages(path: Path) -> None:
    """Raise LabError if a package that `write_sheet` needs for this path is not installed. Imports none of them."""
    suffix = path.suffix.lower()
    formats = [suffix] if suffix in REQUIRED_PACKAGES else list(REQUIRED_PACKAGES)
    packages = {package for name in formats for package in REQUIRED_PACKAGES[name]}
    missing = sorted(package for package in packages if find_spec(package) is None)
    if missing:
        raise LabError(
            f"writing {path} needs {join_with_and(missing)}: pip install 'convolab[pdf]', or write a file ending in .md"
        )


def render_sheet_figures(sheet: AnswerSheet) -> dict[str, RenderedFigure]:
    """Every figure of the sheet, by name."""
    blocks = (block for answer in sheet.answers for block in answer.blocks)
    return {block.name: render_sheet_figure(block) for block in blocks if isinstance(block, SheetFigure)}


def write_sheet(sheet: AnswerSheet, figures: RenderedFigures, path: Path) -> list[Path]:
    """Write the sheet to a file that ends in .md, .html or .pdf, or in all three formats into a folder.

    The figures of the Markdown are in figures/ beside it.
    Returns the files of the sheet. Raises LabError if a package that a format needs is not installed.
    """
    require_format_packages(path)
    match path.suffix.lower():
        case ".md":
            for name, figure in figures.items():
                write_bytes(path.parent / "figures" / f"{path.stem}-{name}.png", figure.png)
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
    """Typeset the sheet by typst; the same sheet gives the same bytes."""
    import typst  # optional, and 80 MB

    with TemporaryDirectory() as folder:
        for name, figure in figures.items():
            (Path(folder) / f"{name}.png").write_bytes(figure.png)
        source = Path(folder) / "sheet.typ"
        source.write_text(sheet_typst(sheet), encoding="utf-8")
        write_bytes(path, typst.compile(str(source), format="pdf", ignore_system_fonts=True, timestamp=0))


def check_status(check: Check) -> str:
    return "passed" if check.passed else "FAILED"


def checks_summary(sheet: AnswerSheet) -> str:
    """How many checks passed, in a sentence."""
    num_checks, num_failed = len(sheet.checks), len(sheet.failed_checks)
    return f"{num_failed} of {num_checks} checks FAILED." if num_failed else f"All {num_checks} checks passed."


def strip_markup(text: str) -> str:
    r"""Marked-up text without its markup, for a terminal.

    >>> strip_markup(r"**By $x$.** $(i+k) \bmod n$")
    'By x. (i+k) mod n'
    """
    converters = {
        "text": lambda part: part.replace("−", "-"),
        "code": str,
        "bold": strip_markup,
        "formula": lambda latex: latex.replace(r"\bmod", "mod").replace(r"\,", " "),
    }
    return "".join(converters[kind](part) for kind, part in parse_markup(text))


# Markdown, as GitHub reads it


def sheet_markdown(sheet: AnswerSheet, stem: str = "question1") -> str:
    """The sheet as Markdown; its figures are figures/STEM-NAME.png."""
    parts = [markdown.heading(sheet.title), f"*{sheet.provenance} {checks_summary(sheet)}*"]
    for answer in sheet.answers:
        parts += [markdown.heading(answer.name, 2), f"> {answer.question}", f"**Summary:** {answer.summary}"]
        parts += [block_markdown(block, stem) for block in answer.blocks]
    return markdown.document(parts)


def block_markdown(block: ContentBlock, stem: str) -> str:
    match block:
        case Text(text):
            return text
        case Formula(latex):
            return f"$$\n{latex}\n$$"
        case Table(caption, headers, rows):
            cells = [[markdown.cell(text) for text in row] for row in (headers, *rows)]
            return f"**{caption}**\n\n{markdown.table(cells[0], cells[1:])}"
        case SheetFigure(name, caption):
            return f"{markdown.image(caption, f'figures/{stem}-{name}.png')}\n\n*{markdown.escape(caption)}*"
        case Check(claim, result, passed):
            return f"> {'✅' if passed else '❌'} **Check {check_status(block)}:** {claim}. Result: {result}."


# HTML


SHEET_CSS = """
body { font: 17px/1.55 Georgia, 'Times New Roman', serif; color: #222; }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { font-family: Helvetica, Arial, sans-serif; line-height: 1.2; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: 4px solid #999; color: #444; }
.summary { background: #f3f3ee; padding: .6rem 1rem; } .provenance { color: #666; font-size: .85rem; }
.check { font-size: .88rem; padding: .5rem .9rem; margin: .8rem 0; }
.check { border-left: 4px solid #009E73; background: #eef8f4; }
.check.failed { border-color: #D55E00; background: #fdf0e7; } .check b { font-family: Helvetica, Arial, sans-serif; }
table { border-collapse: collapse; font-size: .82rem; margin: .5rem 0 1.5rem; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: bottom; }
.text-column { text-align: left !important; } caption { text-align: left; padding: .4rem 0; color: #444; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; } figcaption { font-size: .85rem; color: #555; }
math { font-family: 'Latin Modern Math', 'STIX Two Math', 'Cambria Math', math; }
math[display=block] { margin: .8rem 0; }
code { font-size: .88em; background: #f2f2f2; padding: 0 .2em; }
"""


def sheet_html(sheet: AnswerSheet, figures: RenderedFigures) -> str:
    """The sheet as one HTML file that loads nothing else."""
    body = [
        f"<h1>{inline_html(sheet.title)}</h1>",
        f'<p class="provenance">{inline_html(f"{sheet.provenance} {checks_summary(sheet)}")}</p>',
    ]
    for answer in sheet.answers:
        body += [f"<h2>{escape(answer.name)}</h2>", f"<blockquote><p>{inline_html(answer.question)}</p></blockquote>"]
        body += [f'<p class="summary"><b>Summary:</b> {inline_html(answer.summary)}</p>']
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
        case Table():
            return table_html(block)
        case SheetFigure(name, caption):
            figure = figures[name]
            kind, content = ("png", figure.png) if figure.svg is None else ("svg+xml", figure.svg.encode())
            source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
            image = f'<img alt="{escape(caption)}" src="{source}">'
            return f"<figure>{image}<figcaption>{inline_html(caption)}</figcaption></figure>"
        case Check(claim, result, passed):
            content = f"<b>Check {check_status(block)}:</b> {inline_html(claim)}.<br>Result: {inline_html(result)}."
            return f'<div class="check{"" if passed else " failed"}">{content}</div>'


def table_html(table: Table) -> str:
    classes = ["" if numeric else ' class="text-column"' for numeric in numeric_columns(table.rows)]

    def row_html(tag: str, row: Sequence[str]) -> str:
        cells = zip(classes, row, strict=True)
        return f"<tr>{''.join(f'<{tag}{column}>{inline_html(cell)}</{tag}>' for column, cell in cells)}</tr>"

    head = f"<caption>{inline_html(table.caption)}</caption><thead>{row_html('th', table.headers)}</thead>"
    body = "\n".join(row_html("td", row) for row in table.rows)
    return f"<table>{head}\n<tbody>{body}</tbody></table>"


def inline_html(text: str) -> str:
    converters = {
        "text": escape,
        "bold": lambda part: f"<b>{inline_html(part)}</b>",
        "code": lambda part: f"<code>{escape(part)}</code>",
        "formula": latex_to_mathml,
    }
    return "".join(converters[kind](part) for kind, part in parse_markup(text))


def numeric_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns are right-aligned: all but the first in which most cells hold a digit."""
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
#let question(body) = block(inset: (left: 10pt, y: 4pt), stroke: (left: 2pt + luma(150)), text(fill: luma(60), body))
#let summary(body) = block(fill: rgb("#f3f3ee"), inset: 9pt, width: 100%, body)
#let check(passed, body) = block(
  fill: rgb(if passed {{ "#eef8f4" }} else {{ "#fdf0e7" }}), inset: 8pt, width: 100%, breakable: false,
  stroke: (left: 2.5pt + rgb(if passed {{ "#009E73" }} else {{ "#D55E00" }})),
  text(size: 9.3pt, par(justify: false, body)),
)
"""
FIGURE_WIDTH_PERCENT = {"equivariance": 92}  # of the text's width; other figures take 68


def sheet_typst(sheet: AnswerSheet) -> str:
    """The sheet as a typst document; its figures are `NAME.png`."""
    parts = [TYPST_PREAMBLE.format(title=typst_string(sheet.title)), f"= {inline_typst(sheet.title)}"]
    parts += [f"#text(size: 9pt, fill: luma(90))[{inline_typst(f'{sheet.provenance} {checks_summary(sheet)}')}]"]
    parts += [answer_typst(answer) for answer in sheet.answers]
    return "\n\n".join(parts) + "\n"


def answer_typst(answer: QuestionAnswer) -> str:
    parts = [f"== {inline_typst(answer.name)}", f"#question[{inline_typst(answer.question)}]"]
    parts += [f"#summary[*Summary:* {inline_typst(answer.summary)}]", *map(block_typst, answer.blocks)]
    return "\n\n".join(parts)


def block_typst(block: ContentBlock) -> str:
    match block:
        case Text(text):
            return inline_typst(text)
        case Formula(latex):
            return f"$ {latex_to_typst(latex)} $"
        case Table(caption, headers, rows):
            head = f"table.header({', '.join(f'[*{inline_typst(cell)}*]' for cell in headers)})"
            cells = ",\n  ".join(", ".join(f"[{inline_typst(cell)}]" for cell in row) for row in rows)
            alignments = ", ".join("right" if numeric else "left" for numeric in numeric_columns(rows))
            body = f"table(columns: {len(headers)}, align: ({alignments},), {head},\n  {cells})"
            return f"#figure(caption: [{inline_typst(caption)}], text(size: 8.5pt, {body}))"
        case SheetFigure(name, caption):
            width = FIGURE_WIDTH_PERCENT.get(name, 68)
            image = f'image("{name}.png", width: {width}%, alt: {typst_string(caption)})'
            return f"#figure(caption: [{inline_typst(caption)}], kind: image, {image})"
        case Check(claim, result, passed):
            content = (
                f"*Check {check_status(block)}:* {inline_typst(claim)}. #linebreak() Result: {inline_typst(result)}."
            )
            return f"#check({str(passed).lower()})[{content}]"


def inline_typst(text: str) -> str:
    """Marked-up text in typst; as strings, so that nothing in it is parsed as typst syntax."""
    converters = {
        "text": lambda part: f"#{typst_string(part)};",
        "bold": lambda part: f"#strong[{inline_typst(part)}];",
        "code": lambda part: f"#raw({typst_string(part)});",
        "formula": lambda part: f"${latex_to_typst(part)}$",
    }
    return "".join(converters[kind](part) for kind, part in parse_markup(text))
