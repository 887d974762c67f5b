"""Formulas: LaTeX converted to MathML and to typst."""

from xml.etree.ElementTree import fromstring

import pytest
import typst

from convolab.core.errors import LabError
from convolab.reports.latex import latex_to_mathml, latex_to_typst
from convolab.theory import answer_correlation, answer_layers, answer_priors
from convolab.theory.sheet import Check, Formula, Table, Text, parse_markup

TYPST_OF_LATEX = [
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


@pytest.mark.parametrize(("latex", "expected"), TYPST_OF_LATEX)
def test_a_formula_is_converted_to_the_notation_of_typst(latex, expected) -> None:
    assert latex_to_typst(latex) == expected


@pytest.mark.parametrize("latex", [latex for latex, _ in TYPST_OF_LATEX])
def test_typst_compiles_every_formula(latex) -> None:
    assert typst.compile(f"$ {latex_to_typst(latex)} $".encode(), format="svg", ignore_system_fonts=True)


def formulas_of_the_sheet() -> list[str]:
    formulas = []
    for answer in (
        answer_correlation.answer_question_1b(0),
        answer_layers.answer_question_1c(0),
        answer_priors.answer_question_1a(0, None, None),
    ):
        texts = [answer.question, answer.summary]
        for block in answer.blocks:
            match block:
                case Formula(latex):
                    formulas.append(latex)
                case Text(text):
                    texts.append(text)
                case Check(claim, result):
                    texts += [claim, result]
                case Table(caption, headers, rows):
                    texts += [caption, *headers, *(cell for row in rows for cell in row)]
        for text in texts:
            bold = [inner for kind, part in parse_markup(text) if kind == "bold" for inner in parse_markup(part)]
            formulas += [part for kind, part in [*parse_markup(text), *bold] if kind == "formula"]
    return list(dict.fromkeys(formulas))


@pytest.mark.slow
def test_every_formula_of_the_sheet_is_valid_mathml_and_typst() -> None:
    formulas = formulas_of_the_sheet()
    assert len(formulas) > 30
    for latex in formulas:
        assert fromstring(latex_to_mathml(latex)).tag.endswith("math")
        assert "\\" not in "".join(fromstring(latex_to_mathml(latex)).itertext())  # no command was left unparsed
    page = "\n\n".join(f"$ {latex_to_typst(latex)} $" for latex in formulas)
    assert typst.compile(page.encode(), format="pdf", ignore_system_fonts=True).startswith(b"%PDF")


def test_an_element_that_cannot_be_converted_is_named_in_the_error() -> None:
    with pytest.raises(LabError, match="MathML element 'mphantom' cannot be converted to typst"):
        latex_to_typst(r"\phantom{x}")
