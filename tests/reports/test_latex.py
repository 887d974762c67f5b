"""Formulas: LaTeX converted to MathML and to typst."""

from xml.etree.ElementTree import fromstring

import pytest
import typst

from convolab.core.errors import LabError
from convolab.reports.latex import KNOWN_ATTRIBUTES, KNOWN_ELEMENTS, latex_to_mathml, latex_to_typst
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
    (r"\sqrt[3]{x}", r"root(3, x)"),
    (r"\sqrt{}", r'sqrt("")'),
    (r"\binom{n}{k}", r"lr(\( mat(delim: #none, n; k) \))"),
    (r"\left( \frac{a}{b} \right)", r"lr(\( frac(a, b) \))"),
    (r"\begin{pmatrix} a & b \end{pmatrix} x", r"lr(\( mat(delim: #none, a, b) \)) x"),
    (r"\begin{aligned} a &= b \\ &= c \end{aligned}", r"a & = b \  & = c"),
    (r"\begin{cases} a & b \end{cases}", r"\{ mat(delim: #none, align: #left, a, b)"),
    (r"\underbrace{a+b}_{n}", r"underbrace(a + b, n)"),
    (r"\overbrace{a}^{n}", r"overbrace(a, n)"),
    (r"\boldsymbol{w}", r"bold(w)"),
    (r"\operatorname*{arg\,max}_x", r'attach(op("argmax", limits: #true), b: x)'),
    (r"\|x\|", r'class("normal", ‖) x class("normal", ‖)'),
    (r"\#read(x)", r"\# r e a d \( x \)"),
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


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{</script><img src=x onerror=alert(1)>}",
        r"\href{javascript:alert(1)}{x}",
        r"\style{background:url(//evil)}{x}",
        r"\class{evil}{x}",
        r"\mbox{<b onclick='x()'>}",
        r"\unicode{x3c}script\unicode{x3e}",
        "a < b > c \"d'",
    ],
)
def test_a_formula_opens_no_tag_and_has_no_link_style_or_handler(latex: str) -> None:
    mathml = latex_to_mathml(latex)
    root = fromstring(mathml)  # so every < and & in it is escaped or begins a known element
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= KNOWN_ELEMENTS
    assert {name for element in root.iter() for name in element.attrib} <= KNOWN_ATTRIBUTES
    assert not KNOWN_ATTRIBUTES & {"href", "style", "class", "id", "src"}
    assert typst.compile(f"$ {latex_to_typst(latex)} $".encode(), format="svg", ignore_system_fonts=True)


@pytest.mark.parametrize(
    ("latex", "message"),
    [
        (r"\frac{a", r"the formula $\frac{a$ cannot be typeset: an argument is missing"),
        (r"\foo x", r"the formula $\foo x$ cannot be typeset: the command \foo is not known"),
        ("a_{", "the formula $a_{$ cannot be parsed (missing super script or subscript)"),
        (r"\begin{foo} a", r"cannot be parsed (missing end)"),
        ("a & b", "an & is outside of a matrix or aligned equations"),
        (r"\newcommand{\x}{y} \x", "it defines a command: write what the command stands for"),
        (r"\def\x{\y\y}\x", "it defines a command"),
        (r"\unicode{x0}", "U+0000 is not a character that can be printed"),
        (r"\boxed{x}", "'menclose' is not known here"),
        ("{" * 3000 + "}" * 3000, "cannot be parsed (recursion)"),
    ],
)
def test_a_formula_that_cannot_be_typeset_is_refused_in_one_line(latex: str, message: str) -> None:
    for convert in (latex_to_mathml, latex_to_typst):
        with pytest.raises(LabError) as caught:
            convert(latex)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


def test_an_element_that_cannot_be_converted_is_named_in_the_error() -> None:
    with pytest.raises(LabError, match="MathML element 'mphantom' cannot be converted to typst"):
        latex_to_typst(r"\phantom{x}")
