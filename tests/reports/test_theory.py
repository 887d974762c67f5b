"""The answer sheet in its three formats: it is complete, needs no other file, and shows a failed check."""

import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from convolab.core.errors import LabError
from convolab.core.stats import Interval
from convolab.plots.theory import FIGURE_RENDERERS, RenderedFigure, render_sheet_figure
from convolab.reports import theory as theory_report
from convolab.theory import answer_correlation, answer_layers, answer_priors, equivariance
from convolab.theory.answer_priors import AccuracyChartData, ArrangementExample
from convolab.theory.arrangements import AS_IS, MOVED, PERMUTED
from convolab.theory.sheet import AnswerSheet, Check, Formula, QuestionAnswer, SheetFigure, Text, make_sheet_table

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


def test_markdown_has_formulas_tables_and_figures_in_the_syntax_of_github() -> None:
    page = theory_report.sheet_markdown(SHEET, "stem")
    assert "$$\n\\frac{a}{b}\n$$" in page
    assert "| kind | $n$ |\n|---|---|\n| first kind | 1,000 |" in page
    assert "](figures/stem-jacobians.png)" in page
    assert "> What is $x_1$?" in page


@pytest.mark.parametrize("output_format", ["markdown", "html", "typst"])
def test_every_format_shows_which_check_failed(output_format, figures) -> None:
    page = {
        "markdown": theory_report.sheet_markdown(SHEET),
        "html": theory_report.sheet_html(SHEET, figures),
        "typst": theory_report.sheet_typst(SHEET),
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
    assert "| x\\|y | 1 |" in theory_report.block_markdown(table, "stem")


def test_plain_text_has_no_markup() -> None:
    text = r"**By $x$.** `f` at $y[(i+k) \bmod n]$ is −1"
    assert theory_report.strip_markup(text) == "By x. f at y[(i+k) mod n] is -1"


def test_columns_of_numbers_are_right_aligned() -> None:
    assert theory_report.numeric_columns(
        [("100", "none", "words"), ("200", "10 %", "more"), ("300", "20 %", "words")]
    ) == [
        False,
        True,
        False,
    ]


def chart_data_by_figure():
    image = equivariance.random_images()[0].mul(255).byte()
    interval = Interval(0.5, 0.4, 0.6, 3)
    return {
        "jacobians": answer_correlation.jacobian_indices(4),
        "matrices": answer_layers.weight_index_matrices(6, 2, 3),
        "growth": answer_layers.macs_by_length(),
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
    path = Path(__file__).resolve().parents[2] / "docs" / "theory.md"
    page = path.read_text()
    answers = (
        answer_priors.answer_question_1a(0, None, None),
        answer_correlation.answer_question_1b(0),
        answer_layers.answer_question_1c(0),
    )
    for answer in answers:
        assert f"> {answer.question}\n\n**Summary:** {answer.summary}\n" in page
        for block in answer.blocks:
            if isinstance(block, Check):
                assert f"> ✅ **Check passed:** {block.claim}. Result: " in page
            elif block != Text("**Experiment:** left out."):
                assert theory_report.block_markdown(block, "theory") in page
    images = re.findall(r"\]\((figures/.+?)\)", page)
    assert len(images) == 6
    assert all((path.parent / image).is_file() for image in images)
