"""The answer sheet as Markdown, HTML and PDF: one sheet, three output formats.

The HTML embeds its figures and formulas (MathML), so it opens offline; the PDF is typeset by typst with its bundled
fonts. Text and formulas that a person wrote are escaped in each.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from convolab.core.errors import LabError
from convolab.core.escape import html_text
from convolab.core.outputs import QUESTION_1, write_output
from convolab.core.text import join_with_and
from convolab.plots.theory import FIGURE_RENDERERS, RenderedFigure, render_sheet_figure
from convolab.reports.latex import latex_to_mathml, latex_to_typst
from convolab.reports.theory_markdown import sheet_markdown
from convolab.reports.theory_typst import needs_system_fonts, sheet_typst
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

    Args:
        sheet: what to write.
        figures: of `render_sheet_figures`.
        path: a file or a folder.

    Returns:
        The files of the sheet.

    Raises:
        LabError: a package that a format needs is not installed, or a formula cannot be typeset.
    """
    require_format_packages(path)
    match path.suffix.lower():
        case ".md":
            for name, figure in figures.items():
                write_output(path.parent / "figures" / f"{path.stem}-{name}.png", QUESTION_1, figure.png)
            write_output(path, QUESTION_1, sheet_markdown(sheet, sheet_status(sheet), path.stem))
        case ".html":
            write_output(path, QUESTION_1, sheet_html(sheet, figures))
        case ".pdf":
            write_sheet_pdf(sheet, figures, path)
        case _:
            return [file for file in sheet_files(path) for file in write_sheet(sheet, figures, file)]
    return [path]


def sheet_files(path: Path) -> list[Path]:
    """The files of a sheet that is written to a file or a folder."""
    if path.suffix.lower() in REQUIRED_PACKAGES:
        return [path]
    return [path / f"question1{suffix}" for suffix in REQUIRED_PACKAGES]


def figure_files(path: Path) -> list[Path]:
    """The figures that are beside a sheet in Markdown already, and would be written again."""
    paths = (path.parent / "figures" / f"{path.stem}-{name}.png" for name in FIGURE_RENDERERS)
    return [file for file in paths if file.exists()]


def write_sheet_pdf(sheet: AnswerSheet, figures: RenderedFigures, path: Path) -> None:
    """Typeset the sheet by typst; the same sheet gives the same bytes."""
    import typst  # optional, and 80 MB

    document = sheet_typst(sheet, sheet_status(sheet))
    ignore_system_fonts = not needs_system_fonts(document)
    with TemporaryDirectory() as folder:
        for name, figure in figures.items():
            (Path(folder) / f"{name}.png").write_bytes(figure.png)
        source = Path(folder) / "sheet.typ"
        source.write_text(document, encoding="utf-8")
        try:
            pdf = typst.compile(str(source), format="pdf", ignore_system_fonts=ignore_system_fonts, timestamp=0)
        except typst.TypstError as error:
            raise LabError(f"typst cannot typeset {path}: {' '.join(str(error).split())[:200]}") from error
        write_output(path, QUESTION_1, pdf)


def require_typesettable(blocks: Iterable[ContentBlock], path: Path) -> None:
    """Raise LabError, with the formula, if a person's formulas cannot be written to this path. Imports typst if a PDF is.

    Args:
        blocks: a person's answers.
        path: where the sheet will be written.
    """
    formulas = list(dict.fromkeys(formulas_of_blocks(blocks)))
    suffixes = {file.suffix.lower() for file in sheet_files(path)}
    if suffixes & {".html", ".pdf"}:
        for latex in formulas:
            latex_to_mathml(latex)
    if ".pdf" in suffixes and formulas:
        import typst

        for latex in formulas:
            try:
                typst.compile(f"$ {latex_to_typst(latex)} $".encode(), format="svg", ignore_system_fonts=True)
            except typst.TypstError as error:
                reason = " ".join(str(error).split())[:100]
                raise LabError(f"the formula ${latex}$ cannot be typeset in a PDF ({reason}): rewrite it") from error


def formulas_of_blocks(blocks: Iterable[ContentBlock]) -> Iterator[str]:
    """Every formula, in its order."""
    for block in blocks:
        match block:
            case Formula(latex):
                yield latex
            case Heading(text) | Text(text):
                yield from formulas_of_text(text)
            case ItemList(items):
                yield from formulas_of_blocks(inner for item in items for inner in item)
            case Table(_, headers, rows):
                for cell in (*headers, *(cell for row in rows for cell in row)):
                    yield from formulas_of_text(cell)
            case _:
                pass


def formulas_of_text(text: MarkedUpText) -> Iterator[str]:
    """The formulas inside of marked-up text."""
    for kind, part in parse_markup(text):
        if kind == "formula":
            yield str(part)
        elif kind in ("bold", "italic"):
            yield from formulas_of_text(part)


def check_status(check: Check) -> str:
    return "passed" if check.passed else "FAILED"


def checks_summary(sheet: AnswerSheet) -> str:
    """How many checks passed, in a sentence."""
    num_checks, num_failed = len(sheet.checks), len(sheet.failed_checks)
    if sheet.is_own and not num_checks:
        return "Nothing was checked."
    whose = "of convolab's own checks" if sheet.is_own else "checks"
    return f"{num_failed} of {num_checks} {whose} FAILED." if num_failed else f"All {num_checks} {whose} passed."


def sheet_status(sheet: AnswerSheet) -> str:
    """How many checks passed, and what is not answered yet."""
    unanswered = f" Not answered yet: {join_with_and(sheet.open_parts)}." if sheet.open_parts else ""
    return f"{checks_summary(sheet)}{unanswered}"


def strip_markup(text: MarkedUpText) -> str:
    r"""Marked-up text without its markup, for a terminal.

    >>> strip_markup(r"**By $x$.** $(i+k) \bmod n$")
    'By x. (i+k) mod n'
    """

    def strip_span(span: Span) -> str:
        kind, part = span
        if kind in ("bold", "italic"):
            return strip_markup(part)
        if kind == "formula":
            return str(part).replace(r"\bmod", "mod").replace(r"\partial ", "∂").replace(r"\,", " ")
        return str(part) if kind == "code" else str(part).replace("−", "-")

    return "".join(map(strip_span, parse_markup(text)))


# HTML


SHEET_CSS = """
body { font: 17px/1.55 Georgia, 'Times New Roman', serif; color: #222; overflow-wrap: break-word; }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { font-family: Helvetica, Arial, sans-serif; line-height: 1.2; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; } h3 { margin-top: 2rem; font-size: 1.05rem; }
blockquote { margin: 1rem 0; padding: .1rem 1rem; border-left: 4px solid #999; color: #444; }
.author { font-size: 1.1rem; } .provenance { color: #666; font-size: .85rem; }
.summary { background: #f3f3ee; padding: .6rem 1rem; }
.check, .open { font-size: .88rem; padding: .5rem .9rem; margin: .8rem 0; border-left: 4px solid #009E73; }
.check { background: #eef8f4; } .check.failed, .open { border-color: #D55E00; background: #fdf0e7; }
.check b, .open b { font-family: Helvetica, Arial, sans-serif; }
.scroll { overflow-x: auto; margin: .5rem 0 1.5rem; }
table { border-collapse: collapse; font-size: .82rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: bottom; }
td { white-space: nowrap; } td.text-column { white-space: normal; min-width: 8rem; }
.text-column { text-align: left !important; } .caption { font-size: .85rem; color: #555; margin: 1.5rem 0 .4rem; }
figure { margin: 1.5rem 0; } figure .scroll { margin: 0; } figcaption { font-size: .85rem; color: #555; }
figure img { max-width: max(100%, 30rem); }
math { font-family: 'Latin Modern Math', 'STIX Two Math', 'Cambria Math', math; }
.formula { overflow-x: auto; overflow-y: hidden; margin: .8rem 0; padding: .2rem 0; }
code { font-size: .88em; background: #f2f2f2; padding: 0 .2em; }
li > p { margin: .25rem 0; } li > ul, li > ol { margin: .25rem 0; }
pre { background: #f5f5f5; padding: .6rem .9rem; overflow-x: auto; } pre code { padding: 0; }
@media print { body { font-size: 11pt; margin: 0; } h1, h2, h3 { break-after: avoid; } figure, .check, tr { break-inside: avoid; } }
"""


# The page loads nothing and runs nothing.
SHEET_CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; img-src data:"


def sheet_html(sheet: AnswerSheet, figures: RenderedFigures) -> str:
    """The sheet as one HTML file that loads nothing else."""
    author = ", ".join(html_text(text) for text in (sheet.name, sheet.date) if text)
    body = [
        f"<h1>{inline_html(sheet.title)}</h1>",
        f'<p class="author">{author}</p>' if author else "",
        f'<p class="provenance">{inline_html(sheet.provenance)} {html_text(sheet_status(sheet))}</p>',
        *(answer_html(answer, figures) for answer in sheet.answers),
    ]
    head = [
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{SHEET_CSP}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta name="author" content="{html_text(sheet.name)}">' if sheet.name else "",
        f"<title>{html_text(f'{sheet.name}: ' if sheet.name else '')}{html_text(sheet.title)}</title>",
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{"".join(head)}\n<style>{SHEET_CSS}</style></head>\n<body>\n'
        + "\n".join(filter(None, body))
        + "\n</body>\n</html>\n"
    )


def answer_html(answer: QuestionAnswer, figures: RenderedFigures) -> str:
    """One part: the question, the short answer, and all else."""
    parts = [f"<h2>{html_text(answer.name)}</h2>"]
    if answer.question:
        parts.append(f"<blockquote><p>{inline_html(answer.question)}</p></blockquote>")
    if answer.summary:
        parts.append(f'<p class="summary"><b>Short answer:</b> {inline_html(answer.summary)}</p>')
    return "\n".join([*parts, *(block_html(block, figures) for block in answer.blocks)])


def block_html(block: ContentBlock, figures: RenderedFigures) -> str:
    match block:
        case Heading(text):
            return f"<h3>{inline_html(text)}</h3>"
        case Text(text):
            return f"<p>{inline_html(text)}</p>"
        case Formula(latex):
            return f'<div class="formula" {scrolled_part("Formula")}>{latex_to_mathml(latex, display=True)}</div>'
        case CodeBlock(code):
            return f"<pre {scrolled_part('Code')}><code>{html_text(code)}</code></pre>"
        case ItemList():
            return list_html(block, figures)
        case Table():
            return sheet_table_html(block)
        case SheetFigure(name, caption):
            figure = figures[name]
            kind, content = ("png", figure.png) if figure.svg is None else ("svg+xml", figure.svg.encode())
            source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
            image = f'<img alt="{html_text(caption)}" src="{source}">'
            view = f'<div class="scroll" {scrolled_part("Figure")}>{image}</div>'  # the caption does not scroll
            return f"<figure>{view}<figcaption>{inline_html(caption)}</figcaption></figure>"
        case Check(claim, result, passed):
            content = f"<b>Check {check_status(block)}:</b> {inline_html(claim)}.<br>Result: {inline_html(result)}."
            return f'<div class="check{"" if passed else " failed"}">{content}</div>'
        case OpenItem(text):
            return f'<div class="open"><b>Open:</b> {inline_html(text)}</div>'


def scrolled_part(name: str) -> str:
    """The attributes of a part that may be wider than the page: the keyboard reaches it, to scroll it, under a name."""
    return f'tabindex="0" role="region" aria-label="{html_text(name)}"'


def list_html(items: ItemList, figures: RenderedFigures) -> str:
    """A list, whose items may hold other blocks."""
    tag, start = ("ul", "") if items.start is None else ("ol", f' start="{items.start}"')
    contents = ["".join(block_html(block, figures) for block in blocks) for blocks in items.items]
    return f"<{tag}{start}>{''.join(f'<li>{content}</li>' for content in contents)}</{tag}>"


def sheet_table_html(table: Table) -> str:
    classes = ["" if is_numeric else ' class="text-column"' for is_numeric in table.numeric_columns]

    def row_html(tag: str, row: Sequence[MarkedUpText], attributes: str = "") -> str:
        cells = zip(classes, row, strict=True)
        return (
            f"<tr>{''.join(f'<{tag}{attributes}{column}>{inline_html(cell)}</{tag}>' for column, cell in cells)}</tr>"
        )

    name = scrolled_part(strip_markup(table.caption) or "Table")
    caption = f'<p class="caption">{inline_html(table.caption)}</p>' if table.caption else ""  # it does not scroll
    headers = row_html("th", table.headers, ' scope="col"')
    body = "\n".join(row_html("td", row) for row in table.rows)
    return f'{caption}<div class="scroll" {name}><table><thead>{headers}</thead>\n<tbody>{body}</tbody></table></div>'


def inline_html(text: MarkedUpText) -> str:
    return "".join(map(span_html, parse_markup(text)))


def span_html(span: Span) -> str:
    kind, part = span
    match kind:
        case "text":
            return html_text(str(part))
        case "bold":
            return f"<b>{inline_html(part)}</b>"
        case "italic":
            return f"<i>{inline_html(part)}</i>"
        case "code":
            return f"<code>{html_text(str(part))}</code>"
        case "formula":
            return latex_to_mathml(str(part))
        case "line break":
            return "<br>"
