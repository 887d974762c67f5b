"""The sheet in its three forms: all of it is there, nothing is needed beside it, and a failed check is seen."""

import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from convolab.core.stats import Interval
from convolab.plots.theory import FIGURE_RENDERERS, render_sheet_figure
from convolab.reports import theory as theory_report
from convolab.theory import answer_correlation, answer_layers, equivariance
from convolab.theory.answer_priors import AccuracyChartData, ArrangementExample
from convolab.theory.priors import AS_IS, MOVED, PERMUTED
from convolab.theory.sheet import AnswerSheet, Check, Formula, QuestionAnswer, SheetFigure, Text, make_sheet_table

SHEET = AnswerSheet(
    'A "title" with <tags> & #marks',
    "Made by hand.",
    (
        QuestionAnswer(
            "1(x)",
            "What is $x_1$?",
            "It is $x_1$.",
            (
                Text("**Bold $y$**, `code_1` and #hash [brackets] *stars* \\ backslash; 100 % of $z$."),
                Formula(r"\frac{a}{b}"),
                make_sheet_table("A table", ("kind", "$n$"), [("first kind", "1,000"), ("second kind", "2")]),
                SheetFigure("jacobians", "Some <picture>", answer_correlation.jacobian_indices(3)),
                Check("it is so", "0.1 < 0.2", True),
                Check("it is otherwise", "1 > 2 & 3", False),
            ),
        ),
    ),
)


@pytest.fixture(scope="module")
def drawings():
    return theory_report.render_sheet_figures(SHEET)


class Reader(HTMLParser):
    """The text of a page, and what its tags refer to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.sources = "", [], []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_the_html_needs_nothing_beside_it(drawings) -> None:
    page = Reader(theory_report.sheet_html(SHEET, drawings))
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.tags.count("math") == 6
    assert 'A "title" with <tags> & #marks' in page.text
    assert "#hash [brackets] *stars* \\ backslash; 100 % of " in page.text


def test_markdown_keeps_formulae_tables_and_pictures_as_github_reads_them() -> None:
    page = theory_report.sheet_markdown(SHEET, "stem")
    assert "$$\n\\frac{a}{b}\n$$" in page
    assert "| kind | $n$ |\n| --- | --- |\n| first kind | 1,000 |" in page
    assert "](pictures/stem-jacobians.png)" in page
    assert "> What is $x_1$?" in page


@pytest.mark.parametrize("form", ["markdown", "html", "typst"])
def test_every_form_says_which_check_failed(form, drawings) -> None:
    page = {
        "markdown": theory_report.sheet_markdown(SHEET),
        "html": theory_report.sheet_html(SHEET, drawings),
        "typst": theory_report.sheet_typst(SHEET),
    }[form]
    assert page.count("Check, holds:") == 1
    assert page.count("Check, FAILS:") == 1
    assert "1 of 2 checks FAIL." in page


def test_the_pdf_is_set_and_the_same_sheet_gives_the_same_bytes(tmp_path, drawings) -> None:
    for name in ("a.pdf", "b.pdf"):
        theory_report.write_sheet(SHEET, drawings, tmp_path / name)
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_a_folder_gets_all_forms_and_a_file_its_own(tmp_path, drawings) -> None:
    files = theory_report.write_sheet(SHEET, drawings, tmp_path / "sheet")
    assert [file.name for file in files] == ["question1.md", "question1.html", "question1.pdf"]
    for source in re.findall(r"\]\((.+?)\)", files[0].read_text()):
        assert (tmp_path / "sheet" / source).is_file()
    assert theory_report.write_sheet(SHEET, drawings, tmp_path / "one.html") == [tmp_path / "one.html"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.html", "sheet"]


def test_plain_text_has_no_marks() -> None:
    assert (
        theory_report.strip_markup(r"**By $x$.** `f` at $y[(i+k) \bmod n]$ is −1") == "By x. f at y[(i+k) mod n] is -1"
    )


def test_columns_of_numbers_are_set_to_the_right() -> None:
    assert theory_report.numeric_columns(
        [("100", "none", "words"), ("200", "10 %", "more"), ("300", "20 %", "words")]
    ) == [
        False,
        True,
        False,
    ]


def shown():
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


@pytest.mark.parametrize("name", FIGURE_RENDERERS)
def test_every_picture_of_the_sheet_is_drawn(name) -> None:
    drawing = render_sheet_figure(SheetFigure(name, "caption", shown()[name]))
    with Image.open(io.BytesIO(drawing.png)) as image:
        assert min(image.size) > 60
        assert len(image.convert("RGB").getcolors(1 << 24)) > 2
    assert (drawing.svg is None) == (name == "arrangements")
    words = {
        "jacobians": "y[3]",
        "growth": "MACs",
        "priors": "pixels permuted",
        "equivariance": "fully-connected",
        "matrices": "input",
    }
    if name in words:
        assert words[name] in drawing.svg
