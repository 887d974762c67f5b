"""The answer sheet as Markdown, HTML and PDF: one sheet, three writers, each a page of rules.

The HTML holds its pictures and its formulae (MathML), so it opens without a network; the PDF is set by typst with the fonts
that it carries itself.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from convolab.core.files import whole_file, write_text
from convolab.plots.theory import Drawing, draw
from convolab.reports.latex import quoted, to_mathml, to_typst
from convolab.theory.sheet import Answer, Block, Check, Formula, Picture, Sheet, Table, Text, marks

Drawings = Mapping[str, Drawing]


def draw_all(sheet: Sheet) -> dict[str, Drawing]:
    """Every picture of the sheet, by name."""
    blocks = (block for answer in sheet.answers for block in answer.blocks)
    return {block.name: draw(block) for block in blocks if isinstance(block, Picture)}


def write(sheet: Sheet, drawings: Drawings, place: Path) -> list[Path]:
    """Write the sheet to a file that ends in .md, .html or .pdf, or in all three forms into a folder; returns the files.

    The pictures of the Markdown lie in pictures/ beside it.
    """
    match place.suffix.lower():
        case ".md":
            for name, drawing in drawings.items():
                write_bytes(place.parent / "pictures" / f"{place.stem}-{name}.png", drawing.png)
            write_text(place, markdown(sheet, place.stem))
        case ".html":
            write_text(place, html(sheet, drawings))
        case ".pdf":
            write_pdf(sheet, drawings, place)
        case _:
            return [
                file
                for ending in ("md", "html", "pdf")
                for file in write(sheet, drawings, place / f"question1.{ending}")
            ]
    return [place]


def write_pdf(sheet: Sheet, drawings: Drawings, path: Path) -> None:
    """Set the sheet by typst; the same sheet gives the same bytes."""
    import typst as setter  # 80 MB, wanted here only

    with TemporaryDirectory() as place:
        for name, drawing in drawings.items():
            (Path(place) / f"{name}.png").write_bytes(drawing.png)
        source = Path(place) / "sheet.typ"
        source.write_text(typst(sheet), encoding="utf-8")
        write_bytes(path, setter.compile(str(source), format="pdf", ignore_system_fonts=True, timestamp=0))


def write_bytes(path: Path, content: bytes) -> None:
    with whole_file(path) as part:
        part.write_bytes(content)


def verdict(check: Check) -> str:
    return "holds" if check.holds else "FAILS"


def summary(sheet: Sheet) -> str:
    """How the checks came out, in a sentence."""
    count, failed = len(sheet.checks), len(sheet.failed)
    return f"All {count} checks hold." if not failed else f"{failed} of {count} checks FAIL."


def plain(text: str) -> str:
    """Marked text without its marks, for a terminal."""
    said = {
        "text": lambda part: part.replace("−", "-"),
        "code": str,
        "bold": plain,
        "formula": lambda latex: latex.replace(r"\bmod", "mod").replace(r"\,", " "),
    }
    return "".join(said[mark](part) for mark, part in marks(text))


# Markdown, as GitHub reads it


def markdown(sheet: Sheet, stem: str = "question1") -> str:
    """The sheet as Markdown; its pictures are pictures/STEM-NAME.png."""
    parts = [f"# {sheet.title}", f"*{sheet.made} {summary(sheet)}*"]
    for answer in sheet.answers:
        parts += [f"## {answer.name}", f"> {answer.question}", f"**In short:** {answer.short}"]
        parts += [markdown_block(block, stem) for block in answer.blocks]
    return "\n\n".join(parts) + "\n"


def markdown_block(block: Block, stem: str) -> str:
    match block:
        case Text(text):
            return text
        case Formula(latex):
            return f"$$\n{latex}\n$$"
        case Table(caption, headings, rows):
            lines = [list(headings), ["---"] * len(headings), *rows]
            return f"**{caption}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture(name, caption):
            return f"![{caption}](pictures/{stem}-{name}.png)\n\n*{caption}*"
        case Check(claim, found, holds):
            return f"> {'✅' if holds else '❌'} **Check, {verdict(block)}:** {claim}. Found: {found}."


# HTML


STYLE = """
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


def html(sheet: Sheet, drawings: Drawings) -> str:
    """The sheet as one HTML file that needs nothing beside it."""
    body = [
        f"<h1>{inline_html(sheet.title)}</h1>",
        f'<p class="made">{inline_html(f"{sheet.made} {summary(sheet)}")}</p>',
    ]
    for answer in sheet.answers:
        body += [f"<h2>{escape(answer.name)}</h2>", f"<blockquote><p>{inline_html(answer.question)}</p></blockquote>"]
        body += [f'<p class="short"><b>In short:</b> {inline_html(answer.short)}</p>']
        body += [html_block(block, drawings) for block in answer.blocks]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(sheet.title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}\n<style>{STYLE}</style></head>\n<body>\n'
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def html_block(block: Block, drawings: Drawings) -> str:
    match block:
        case Text(text):
            return f"<p>{inline_html(text)}</p>"
        case Formula(latex):
            return to_mathml(latex, display=True)
        case Table(caption, headings, rows):
            kinds = ["" if numbers else ' class="words"' for numbers in of_numbers(rows)]
            head = "".join(f"<th{kind}>{inline_html(cell)}</th>" for kind, cell in zip(kinds, headings, strict=True))
            cells = [
                [f"<td{kind}>{inline_html(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)] for row in rows
            ]
            lines = "\n".join(f"<tr>{''.join(row)}</tr>" for row in cells)
            return f"<table><caption>{inline_html(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table>"
        case Picture(name, caption):
            drawing = drawings[name]
            kind, content = ("png", drawing.png) if drawing.svg is None else ("svg+xml", drawing.svg.encode())
            source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
            said = inline_html(caption)
            return f'<figure><img alt="{escape(caption)}" src="{source}"><figcaption>{said}</figcaption></figure>'
        case Check(claim, found, holds):
            said = f"<b>Check, {verdict(block)}:</b> {inline_html(claim)}.<br>Found: {inline_html(found)}."
            return f'<div class="check{"" if holds else " fails"}">{said}</div>'


def inline_html(text: str) -> str:
    written = {
        "text": escape,
        "bold": lambda part: f"<b>{inline_html(part)}</b>",
        "code": lambda part: f"<code>{escape(part)}</code>",
        "formula": to_mathml,
    }
    return "".join(written[mark](part) for mark, part in marks(text))


def of_numbers(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns are set to the right: all but the first in which most cells hold a digit."""
    columns = list(zip(*rows, strict=True))
    return [
        number > 0 and sum(any(sign.isdigit() for sign in cell) for cell in column) > len(column) / 2
        for number, column in enumerate(columns)
    ]


# PDF


PREAMBLE = """#set document(title: {title})
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
WIDTHS = {"equivariance": 92}  # of pictures that are wide, as a percentage of the page's width


def typst(sheet: Sheet) -> str:
    """The sheet as a typst document; its pictures are `NAME.png`."""
    parts = [PREAMBLE.format(title=quoted(sheet.title)), f"= {inline_typst(sheet.title)}"]
    parts += [f"#text(size: 9pt, fill: luma(90))[{inline_typst(f'{sheet.made} {summary(sheet)}')}]"]
    parts += [typst_answer(answer) for answer in sheet.answers]
    return "\n\n".join(parts) + "\n"


def typst_answer(answer: Answer) -> str:
    parts = [f"== {inline_typst(answer.name)}", f"#asked[{inline_typst(answer.question)}]"]
    parts += [f"#short[*In short:* {inline_typst(answer.short)}]", *map(typst_block, answer.blocks)]
    return "\n\n".join(parts)


def typst_block(block: Block) -> str:
    match block:
        case Text(text):
            return inline_typst(text)
        case Formula(latex):
            return f"$ {to_typst(latex)} $"
        case Table(caption, headings, rows):
            head = f"table.header({', '.join(f'[*{inline_typst(cell)}*]' for cell in headings)})"
            cells = ",\n  ".join(", ".join(f"[{inline_typst(cell)}]" for cell in row) for row in rows)
            sides = ", ".join("right" if numbers else "left" for numbers in of_numbers(rows))
            body = f"table(columns: {len(headings)}, align: ({sides},), {head},\n  {cells})"
            return f"#figure(caption: [{inline_typst(caption)}], text(size: 8.5pt, {body}))"
        case Picture(name, caption):
            return f'#figure(caption: [{inline_typst(caption)}], kind: image, image("{name}.png", width: {WIDTHS.get(name, 68)}%, alt: {quoted(caption)}))'
        case Check(claim, found, holds):
            said = f"*Check, {verdict(block)}:* {inline_typst(claim)}. #linebreak() Found: {inline_typst(found)}."
            return f"#checked({str(holds).lower()})[{said}]"


def inline_typst(text: str) -> str:
    """Marked text; as strings, so that nothing in it is taken for typst's own syntax."""
    written = {
        "text": lambda part: f"#{quoted(part)};",
        "bold": lambda part: f"#strong[{inline_typst(part)}];",
        "code": lambda part: f"#raw({quoted(part)});",
        "formula": lambda part: f"${to_typst(part)}$",
    }
    return "".join(written[mark](part) for mark, part in marks(text))
