"""Formulae: LaTeX to MathML and to typst's notation."""

from xml.etree.ElementTree import fromstring

import pytest
import typst

from convolab.core.errors import LabError
from convolab.reports.latex import latex_to_mathml, latex_to_typst
from convolab.theory import answer_correlation, answer_layers, answer_priors
from convolab.theory.sheet import Check, Formula, Table, Text, parse_markup

WRITTEN = [
    (r"x[i]", r"x \[ i \]"),
    (r"\frac{\partial z}{\partial x}", r"frac(∂ z, ∂ x)"),
    (r"\sum_{i=0}^{n-1} i", r"attach(∑, b: i = 0, t: n − 1) i"),
    (r"(i+k) \bmod n", r'\( i + k \) class("binary", "mod") n'),
    (r"W P^\top", r"W attach(P, t: ⊤)"),
    (r"a, b; c", r"a \, b \; c"),
    (r"\tilde{x} * y", r"tilde(x) ∗ y"),
    (r"\mathrm{ab}x", r'upright("a") upright("b") x'),
    (r"\text{MACs}", r'"MACs"'),
    (r"n \log n", r'n op("log") n'),
    (r"\begin{matrix} a & b \\ c & d \end{matrix}", r"mat(delim: #none, a, b; c, d)"),
    (r"\sqrt{x}", r"sqrt(x)"),
    (r"x\,y \quad z", r"x thin y quad z"),
]


@pytest.mark.parametrize(("latex", "wanted"), WRITTEN)
def test_a_formula_is_written_in_typsts_notation(latex, wanted) -> None:
    assert latex_to_typst(latex) == wanted


@pytest.mark.parametrize("latex", [latex for latex, _ in WRITTEN])
def test_typst_sets_every_formula_that_is_written(latex) -> None:
    assert typst.compile(f"$ {latex_to_typst(latex)} $".encode(), format="svg", ignore_system_fonts=True)


def formulae() -> list[str]:
    found = []
    for answer in (
        answer_correlation.answer_question_1b(0),
        answer_layers.answer_question_1c(0),
        answer_priors.answer_question_1a(0, None, None),
    ):
        texts = [answer.question, answer.summary]
        for block in answer.blocks:
            match block:
                case Formula(latex):
                    found.append(latex)
                case Text(text):
                    texts.append(text)
                case Check(claim, said):
                    texts += [claim, said]
                case Table(caption, headings, rows):
                    texts += [caption, *headings, *(cell for row in rows for cell in row)]
        for text in texts:
            bold = [inner for kind, part in parse_markup(text) if kind == "bold" for inner in parse_markup(part)]
            found += [part for kind, part in [*parse_markup(text), *bold] if kind == "formula"]
    return list(dict.fromkeys(found))


def test_every_formula_of_the_sheet_is_well_formed_in_both() -> None:
    found = formulae()
    assert len(found) > 30
    for latex in found:
        assert fromstring(latex_to_mathml(latex)).tag.endswith("math")
        assert "\\" not in "".join(fromstring(latex_to_mathml(latex)).itertext())  # no command was left unread
    page = "\n\n".join(f"$ {latex_to_typst(latex)} $" for latex in found)
    assert typst.compile(page.encode(), format="pdf", ignore_system_fonts=True).startswith(b"%PDF")


def test_what_cannot_be_set_is_refused_by_name() -> None:
    with pytest.raises(LabError, match="the formula has a mphantom"):
        latex_to_typst(r"\phantom{x}")
