"""The answer sheet in its three formats: it is complete, needs no other file, and shows a failed check."""

import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typst
from markdown_it import MarkdownIt
from PIL import Image

from convolab.core.errors import LabError
from convolab.core.stats import Interval
from convolab.plots.theory import FIGURE_RENDERERS, RenderedFigure, render_sheet_figure
from convolab.reports import theory as theory_report
from convolab.reports import theory_markdown, theory_typst
from convolab.theory import answer_correlation, answer_layers, answer_priors, equivariance
from convolab.theory.answer_priors import AccuracyChartData, ArrangementExample
from convolab.theory.arrangements import AS_IS, MOVED, PERMUTED
from convolab.theory.layers import LayerSizes
from convolab.theory.own_answers import parse_own_answers
from convolab.theory.question1 import answer_sheet
from convolab.theory.sheet import (
    AnswerSheet,
    Check,
    CodeBlock,
    Formula,
    Heading,
    ItemList,
    OpenItem,
    QuestionAnswer,
    SheetFigure,
    Span,
    Table,
    Text,
    make_sheet_table,
)

SHEET = AnswerSheet(
    'A "title" with <tags> & #marks',
    "Written by a test.",
    (
        QuestionAnswer(
            "1(x)",
            "What is $x_1$?",
            "It is $x_1$.",
            (
                Text("**Bold $y$**, `code_1` and #hash [brackets] *stars* \\ backslash; 100 % of $z$."),
                Formula(r"\frac{a}{b}"),
                make_sheet_table("A table", ("kind", "$n$"), [("first kind", "1,000"), ("second kind", "2")]),
                SheetFigure("jacobians", "Some <figure>", answer_correlation.jacobian_indices(3)),
                Check("it is so", "0.1 < 0.2", True),
                Check("it is otherwise", "1 > 2 & 3", False),
            ),
        ),
    ),
)


@pytest.fixture(scope="module")
def figures() -> dict[str, RenderedFigure]:
    """A placeholder figure; the real ones are rendered in the tests further down."""
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    return {"jacobians": RenderedFigure(png.getvalue(), '<svg xmlns="http://www.w3.org/2000/svg"/>')}


class PageReader(HTMLParser):
    """The text of a page, its tags and the URLs that they refer to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.sources = "", [], []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_the_html_loads_no_other_file(figures) -> None:
    page = PageReader(theory_report.sheet_html(SHEET, figures))
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.tags.count("math") == 6
    assert 'A "title" with <tags> & #marks' in page.text
    assert "#hash [brackets] *stars* \\ backslash; 100 % of " in page.text


def test_what_scrolls_sideways_in_the_html_is_reached_by_keyboard_and_has_a_name(figures) -> None:
    answer = QuestionAnswer("1(y)", "q", "", (CodeBlock("x" * 400), Table("", ("a",), (("1",),))))
    page = theory_report.sheet_html(AnswerSheet("t", "m", (*SHEET.answers, answer)), figures)
    scrolling = re.findall(r'<(?:pre|div class="(?:scroll|formula)")[^>]*>', page)
    names = [re.search(r' tabindex="0" role="region" aria-label="([^"]+)">', part)[1] for part in scrolling]
    assert names == ["Formula", "A table", "Figure", "Code", "Table"]
    assert re.findall(r"([^{}\n]+) {[^}]*overflow-x: auto", theory_report.SHEET_CSS) == [".scroll", ".formula", "pre"]
    assert page.count("<th") - page.count("<thead") == page.count('<th scope="col"') == 3


def test_markdown_has_formulas_tables_and_figures_in_the_syntax_of_github() -> None:
    page = theory_markdown.sheet_markdown(SHEET, "2 checks.", "stem")
    assert "$$\n\\frac{a}{b}\n$$" in page
    assert "| kind | $n$ |\n|---|---|\n| first kind | 1,000 |" in page
    assert "](figures/stem-jacobians.png)" in page
    assert "> What is $x_1$?" in page


@pytest.mark.parametrize("output_format", ["markdown", "html", "typst"])
def test_every_format_shows_which_check_failed(output_format, figures) -> None:
    page = {
        "markdown": theory_markdown.sheet_markdown(SHEET, theory_report.sheet_status(SHEET)),
        "html": theory_report.sheet_html(SHEET, figures),
        "typst": theory_typst.sheet_typst(SHEET, theory_report.sheet_status(SHEET)),
    }[output_format]
    assert page.count("Check passed:") == 1
    assert page.count("Check FAILED:") == 1
    assert "1 of 2 checks FAILED." in page


def test_the_pdf_of_the_same_sheet_has_the_same_bytes(tmp_path, figures) -> None:
    for name in ("a.pdf", "b.pdf"):
        theory_report.write_sheet(SHEET, figures, tmp_path / name)
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_a_folder_gets_all_formats_and_a_file_only_its_own(tmp_path, figures) -> None:
    files = theory_report.write_sheet(SHEET, figures, tmp_path / "sheet")
    assert [file.name for file in files] == ["question1.md", "question1.html", "question1.pdf"]
    for source in re.findall(r"\]\((.+?)\)", files[0].read_text()):
        assert (tmp_path / "sheet" / source).is_file()
    assert theory_report.write_sheet(SHEET, figures, tmp_path / "one.html") == [tmp_path / "one.html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.html", "sheet"]


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("a.pdf", ["typst"], "a.pdf needs typst: pip install 'convolab[pdf]', or write a file ending in .md"),
        ("a.html", ["latex2mathml"], "a.html needs latex2mathml: pip install 'convolab[pdf]'"),
        ("folder", ["latex2mathml", "typst"], "folder needs latex2mathml and typst: pip install 'convolab[pdf]'"),
    ],
)
def test_a_format_whose_packages_are_missing_is_refused_in_one_line(
    tmp_path, figures, monkeypatch, name, missing, message
) -> None:
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LabError) as caught:
        theory_report.write_sheet(SHEET, figures, tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_markdown_needs_no_optional_package(tmp_path, figures, monkeypatch) -> None:
    for package in ("latex2mathml", "typst"):
        monkeypatch.setitem(sys.modules, package, None)
    assert theory_report.write_sheet(SHEET, figures, tmp_path / "a.md") == [tmp_path / "a.md"]


def test_html_needs_no_typst(tmp_path, figures, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    assert theory_report.write_sheet(SHEET, figures, tmp_path / "a.html") == [tmp_path / "a.html"]


def test_a_vertical_bar_in_a_cell_is_escaped() -> None:
    table = make_sheet_table("c", ("a", "b"), [("x|y", "1")])
    assert "| x\\|y | 1 |" in theory_markdown.block_markdown(table, "stem")


def test_plain_text_has_no_markup() -> None:
    text = r"**By $x$.** `f` at $y[(i+k) \bmod n]$ is −1"
    assert theory_report.strip_markup(text) == "By x. f at y[(i+k) mod n] is -1"


HOSTILE = (
    "<script>alert(1)</script>",
    "</script></style></body>",
    '<img src="x" onerror="alert(1)">',
    "[name](file:///etc/passwd)",
    "![image](file:///etc/passwd)",
    '#read("/etc/passwd")',
    '#eval("1")',
    '"; #panic("x")',
    "&lt;b&gt; &amp;",
    "`$x$` **b** *i* ~~s~~ | a | b |",
    "# no heading",
    "- no list",
    "1. no list",
    "1) no list",
    "--- | ---",
    ": no table",
    r"\backslash \$ \\",
)


def own_answers_of(text: str) -> tuple[QuestionAnswer, ...]:
    """A sheet's answers whose text is hostile wherever a person's text can be."""
    formula = r"\text{</script><b onclick='x()'>}"
    spans = (Span("text", text), Span("code", f"`{text}`"), Span("formula", formula))
    bold, italic = (Text((Span(kind, spans),)) for kind in ("bold", "italic"))
    blocks = (
        Heading(spans),
        Text(spans),
        bold,
        italic,
        CodeBlock(f"```\n{text}\n```"),
        ItemList(((Text(spans), ItemList(((Text(spans),),))), (Text(spans), Formula(formula))), start=3),
        Table("", (spans, spans), ((spans, spans),)),
        OpenItem("1(a) is not answered yet."),
    )
    return (QuestionAnswer("1(a)", "What?", "", blocks),)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text_in_the_html(text: str) -> None:
    sheet = AnswerSheet("t", (Span("code", text),), own_answers_of(text), name=text, date=text)
    page = PageReader(theory_report.sheet_html(sheet, {}))
    assert page.sources == []
    assert not {"script", "img", "a", "link", "iframe"} & set(page.tags)
    assert page.tags.count("b") == 2  # the bold paragraph, and the label of the open part
    assert page.text.count(text) >= 16
    assert page.text.replace("\xa0", " ").count("</script><b onclick='x()'>") >= 10


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text_in_the_markdown(text: str) -> None:
    sheet = AnswerSheet("t", (Span("code", text),), own_answers_of(text), name=text, date=text)
    source = theory_markdown.sheet_markdown(sheet, "status")
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(source)
    inner = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in [*tokens, *inner]}
    assert not {"html_block", "html_inline", "link_open", "image"} & kinds
    assert [token.type for token in tokens].count("heading_open") == 3
    assert [token.type for token in tokens].count("table_open") == 1
    code = [child.content for child in inner if child.type == "code_inline"]
    assert code.count(f"`{text}`") >= 8
    assert "".join(child.content for child in inner if child.type == "text").count(text) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text_in_the_pdf(text: str, tmp_path: Path) -> None:
    sheet = AnswerSheet(text, (Span("code", text),), own_answers_of(text), name=text, date=text)
    source = theory_typst.sheet_typst(sheet, text)
    assert typst.query(source.encode(), "strong", field="body", ignore_system_fonts=True)  # it compiles
    (file,) = theory_report.write_sheet(sheet, {}, tmp_path / "a.pdf")
    assert file.read_bytes().startswith(b"%PDF")


def test_a_text_of_the_markdown_is_the_one_that_was_read() -> None:
    """What is read, written and read again is the same."""
    text = (
        "**b $x_1$** *i* `c`` d` $a*b$ 1\\. \\# x_y_z \\* \\[l\\](u)\n\n- one\n\n  $$\n  z\n  $$\n- two\n\n2. x\n3. y\n\n"
        "| a | b |\n|---|---|\n| `c` | $d$ |\n\n```\n```x\n```\n\n### h *i*\n\nlast  \nline"
    )
    blocks = parse_own_answers(f"## 1(a)\n{text}")["1(a)"]
    written = "\n\n".join(theory_markdown.block_markdown(block, "stem") for block in blocks)
    assert parse_own_answers(f"## 1(a)\n{written}")["1(a)"] == blocks


@pytest.mark.parametrize("output_format", ["markdown", "html", "typst"])
def test_name_date_and_open_parts_are_at_the_head_of_every_format(output_format: str) -> None:
    sheet = AnswerSheet("Title", "Made.", own_answers_of("x"), name="Ada Łovelace", date="1 May 2026")
    status = theory_report.sheet_status(sheet)
    assert status == "All 0 checks passed. Not answered yet: 1(a)."
    page = {
        "markdown": theory_markdown.sheet_markdown(sheet, status),
        "html": theory_report.sheet_html(sheet, {}),
        "typst": theory_typst.sheet_typst(sheet, status),
    }[output_format]
    keyword = '"not answered yet: 1(a)"'  # of the PDF's metadata
    assert (keyword in page) == (output_format == "typst")
    head, _, rest = page.replace(keyword, "").partition("1(a)")
    assert "Ada Łovelace, 1 May 2026" in head
    assert "Not answered yet: " in head
    assert "Open:" in rest


def test_without_a_name_the_head_has_no_empty_line() -> None:
    assert "# t\n\n*m status*" in theory_markdown.sheet_markdown(AnswerSheet("t", "m", ()), "status")
    assert "author" not in theory_report.sheet_html(AnswerSheet("t", "m", ()), {}).split("<body>")[1]


@pytest.mark.parametrize(
    ("latex", "name", "message"),
    [
        (r"\frac{a", "a.html", r"the formula $\frac{a$ cannot be typeset"),
        (r"\foo", "a.pdf", r"the command \foo is not known"),
        (r"\phantom{x}", "folder", "'mphantom' cannot be converted to typst"),
    ],
)
def test_a_formula_that_cannot_be_typeset_is_refused_with_the_formula(latex: str, name: str, message: str) -> None:
    nested = ItemList(((Table("", ("a",), (((Span("bold", (Span("formula", latex),)),),),)),),))
    with pytest.raises(LabError) as caught:
        theory_report.require_typesettable([Text("fine $x$"), nested], Path(name))
    assert message in str(caught.value)
    theory_report.require_typesettable([nested], Path("a.md"))  # GitHub's renderer knows more


def inked_columns(source: str) -> tuple[int, int, int]:
    """The first and last column with ink, and the width, over all pages of a typst document."""
    boxes, width = [], 0
    pages = typst.compile(source.encode(), format="png", ppi=40, ignore_system_fonts=True)
    for page in [pages] if isinstance(pages, bytes) else pages:
        with Image.open(io.BytesIO(page)) as image:
            boxes.append(image.convert("L").point(lambda value: 255 * (value < 200)).getbbox())
            width = image.width
    return min(box[0] for box in boxes if box), max(box[2] for box in boxes if box), width


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [
        Text((Span("text", "x" * 400),)),
        Text((Span("code", "x" * 400),)),
        CodeBlock("x" * 400),
        Formula(" + ".join(["x[i]"] * 60)),
        Table("", tuple("abcdefghij"), (tuple(["words in a cell"] * 10),)),
    ],
)
def test_long_words_formulas_and_tables_stay_on_the_page(block) -> None:
    sheet = AnswerSheet("t", "m", (QuestionAnswer("1(a)", "q", "", (block,)),), name="x" * 200)
    left, right, width = inked_columns(theory_typst.sheet_typst(sheet, "status"))
    margin = width * 2.3 / 21
    assert left >= margin - 3
    assert right <= width - margin + 3


@pytest.mark.slow
def test_the_pdf_has_no_empty_page_and_is_light(tmp_path: Path) -> None:
    sheet = answer_sheet(data=None, name="Ada")
    figures = theory_report.render_sheet_figures(sheet)
    (file,) = theory_report.write_sheet(sheet, figures, tmp_path / "a.pdf")
    assert file.stat().st_size < 1_000_000
    for name, figure in figures.items():
        (tmp_path / f"{name}.png").write_bytes(figure.png)
    source = tmp_path / "sheet.typ"
    source.write_text(theory_typst.sheet_typst(sheet, theory_report.sheet_status(sheet)))
    pages = typst.compile(str(source), format="png", ppi=30, ignore_system_fonts=True)
    assert len(pages) >= 5
    for page in pages:
        with Image.open(io.BytesIO(page)) as image:
            text_area = image.convert("L").crop((0, 30, image.width, image.height - 30))
            assert text_area.point(lambda value: 255 * (value < 200)).getbbox() is not None


def chart_data_by_figure():
    image = equivariance.random_images()[0].mul(255).byte()
    interval = Interval(0.5, 0.4, 0.6, 3)
    return {
        "jacobians": answer_correlation.jacobian_indices(4),
        "matrices": answer_layers.weight_index_matrices(6, 2, 3),
        "growth": answer_layers.macs_by_length(LayerSizes()),
        "priors": AccuracyChartData(
            tuple((a, n, interval) for a in (AS_IS, PERMUTED, MOVED) for n in ("convnet", "fully-connected")), 0.1
        ),
        "equivariance": equivariance.measure_all_layers(0, (0, 1, 2)),
        "arrangements": [ArrangementExample(AS_IS, [image, image]), ArrangementExample(PERMUTED, [image, image])],
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURE_RENDERERS)
def test_every_figure_of_the_sheet_is_rendered(name) -> None:
    figure = render_sheet_figure(SheetFigure(name, "caption", chart_data_by_figure()[name]))
    with Image.open(io.BytesIO(figure.png)) as image:
        assert min(image.size) > 60
        assert len(image.convert("RGB").getcolors(1 << 24)) > 2
    assert (figure.svg is None) == (name == "arrangements")
    expected_texts = {
        "jacobians": "y[3]",
        "growth": "MACs",
        "priors": "pixels permuted",
        "equivariance": "fully-connected",
        "matrices": "input",
    }
    if name in expected_texts:
        assert expected_texts[name] in figure.svg


@pytest.mark.slow
def test_the_sheet_in_docs_is_the_one_that_the_code_writes() -> None:
    """All but the experiment, which takes minutes, and the last digits of the checks, which depend on the processor."""
    path = Path(__file__).resolve().parents[2] / "docs" / "question1.md"
    page = path.read_text()
    answers = (
        answer_priors.answer_question_1a(0, None, None),
        answer_correlation.answer_question_1b(0),
        answer_layers.answer_question_1c(0),
    )
    for answer in answers:
        summary, *_ = answer.summary.split(", such as")  # the docs have an example that the experiment measured
        assert f"> {answer.question}\n\n**Short answer:** {summary}" in page
        for block in answer.blocks:
            if isinstance(block, Check):
                assert f"> ✅ **Check passed:** {block.claim}. Result: " in page
            elif block != Text("**Experiment:** left out."):
                assert theory_markdown.block_markdown(block, "question1") in page
    images = re.findall(r"\]\((figures/.+?)\)", page)
    assert len(images) == 6
    assert all((path.parent / image).is_file() for image in images)
