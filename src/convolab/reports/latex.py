"""Convert LaTeX formulas to MathML, which browsers draw without help, and into typst's own notation.

latex2mathml parses the LaTeX; typst's notation is written from the MathML, so both come from one parser.
"""

from collections.abc import Sequence
from xml.etree.ElementTree import Element, fromstring

from convolab.core.errors import LabError

MATHML_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
TYPST_SPACES = {
    "0.167em": "thin",
    "0.2222em": "med",
    "0.222em": "med",
    "0.2778em": "thick",
    "0.278em": "thick",
    "1em": "quad",
    "2em": "wide",
}
TYPST_ACCENTS = {"―": "overline", "¯": "macron", "~": "tilde", "^": "hat", "→": "arrow"}


def latex_to_mathml(latex: str, display: bool = False) -> str:
    r"""A formula as a MathML element.

    >>> latex_to_mathml("x")
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><mi>x</mi></mrow></math>'
    """
    from latex2mathml.converter import convert

    return convert(latex, display="block" if display else "inline")


def latex_to_typst(latex: str) -> str:
    r"""A formula in typst's notation, without its dollar signs.

    Raises LabError for a MathML element that has no counterpart here.

    >>> latex_to_typst(r"\frac{a}{b} + x[i]^{2}")
    'frac(a, b) + x \\[ i attach(\\], t: 2)'
    """
    return mathml_to_typst(fromstring(latex_to_mathml(latex)))


def mathml_to_typst(element: Element) -> str:
    """One MathML element in typst's notation."""
    children, text = list(element), (element.text or "").strip()
    match element.tag.removeprefix(MATHML_NAMESPACE):
        case "math" | "mrow" | "mstyle" | "mpadded":
            return join_typst(children)
        case "mi":
            return typst_identifier(text, upright=element.get("mathvariant") == "normal")
        case "mn":
            return text
        case "mo":
            return typst_operator(text)
        case "mtext":
            return typst_string(element.text or "")
        case "mspace":
            return TYPST_SPACES.get(element.get("width", ""), "")
        case "mfrac":
            return f"frac({mathml_to_typst(children[0])}, {mathml_to_typst(children[1])})"
        case "msqrt":
            return f"sqrt({join_typst(children)})"
        case "msub" | "munder":
            return f"attach({mathml_to_typst(children[0])}, b: {mathml_to_typst(children[1])})"
        case "msup":
            return f"attach({mathml_to_typst(children[0])}, t: {mathml_to_typst(children[1])})"
        case "mover":
            return typst_accent(*children)
        case "msubsup" | "munderover":
            base, below, above = map(mathml_to_typst, children)
            return f"attach({base}, b: {below}, t: {above})"
        case "mtable":
            rows = [", ".join(map(mathml_to_typst, row)) for row in children]
            return f"mat(delim: #none, {'; '.join(rows)})"
        case "mtd":
            return join_typst(children)
        case tag:
            raise LabError(f"MathML element '{tag}' cannot be converted to typst: rewrite the formula without it")


def join_typst(elements: Sequence[Element]) -> str:
    return " ".join(filter(None, map(mathml_to_typst, elements)))


def typst_identifier(text: str, upright: bool) -> str:
    """A variable; names of several letters, such as log, are upright."""
    if len(text) > 1:
        return f"op({typst_string(text)})"
    return f"upright({typst_string(text)})" if upright else typst_operator(text)


def typst_operator(text: str) -> str:
    """A symbol: what typst would read as its own syntax is escaped, and a word such as mod is a binary operator."""
    if text.isalpha() and len(text) > 1:
        return f'class("binary", {typst_string(text)})'
    text = text.replace("*", "∗")
    return "".join(
        f"\\{sign}" if sign.isascii() and not sign.isalnum() and sign not in "=+-<> " else sign for sign in text
    )


def typst_accent(base: Element, accent: Element) -> str:
    symbol = (accent.text or "").strip()
    if symbol in TYPST_ACCENTS:
        return f"{TYPST_ACCENTS[symbol]}({mathml_to_typst(base)})"
    return f"attach({mathml_to_typst(base)}, t: {mathml_to_typst(accent)})"


def typst_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
