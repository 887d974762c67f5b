"""Formulae in LaTeX, made into MathML, which browsers draw without help, and into typst's own notation.

latex2mathml reads the LaTeX; typst's notation is written from the MathML, so both come from one reading.
"""

from collections.abc import Sequence
from xml.etree.ElementTree import Element, fromstring

from convolab.core.errors import LabError

MATHML = "{http://www.w3.org/1998/Math/MathML}"
SPACES = {
    "0.167em": "thin",
    "0.2222em": "med",
    "0.222em": "med",
    "0.2778em": "thick",
    "0.278em": "thick",
    "1em": "quad",
    "2em": "wide",
}
OVER = {"―": "overline", "¯": "macron", "~": "tilde", "^": "hat", "→": "arrow"}


def to_mathml(latex: str, display: bool = False) -> str:
    r"""A formula as a MathML element.

    >>> to_mathml("x^2")
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>'
    """
    from latex2mathml.converter import convert

    return convert(latex, display="block" if display else "inline")


def to_typst(latex: str) -> str:
    r"""A formula in typst's notation, without its dollar signs.

    Raises LabError for what typst is not told here how to write.

    >>> to_typst(r"\frac{a}{b} + x[i]^{2}")
    'frac(a, b) + x \\[ i attach(\\], t: 2)'
    """
    return written(fromstring(to_mathml(latex)))


def written(element: Element) -> str:
    """One MathML element in typst's notation."""
    parts, text = list(element), (element.text or "").strip()
    match element.tag.removeprefix(MATHML):
        case "math" | "mrow" | "mstyle" | "mpadded":
            return row(parts)
        case "mi":
            return letter(text, upright=element.get("mathvariant") == "normal")
        case "mn":
            return text
        case "mo":
            return operator(text)
        case "mtext":
            return quoted(element.text or "")
        case "mspace":
            return SPACES.get(element.get("width", ""), "")
        case "mfrac":
            return f"frac({written(parts[0])}, {written(parts[1])})"
        case "msqrt":
            return f"sqrt({row(parts)})"
        case "msub" | "munder":
            return f"attach({written(parts[0])}, b: {written(parts[1])})"
        case "msup":
            return f"attach({written(parts[0])}, t: {written(parts[1])})"
        case "mover":
            return over(*parts)
        case "msubsup" | "munderover":
            return f"attach({written(parts[0])}, b: {written(parts[1])}, t: {written(parts[2])})"
        case "mtable":
            return f"mat(delim: #none, {'; '.join(', '.join(written(cell) for cell in line) for line in parts)})"
        case "mtd":
            return row(parts)
        case tag:
            raise LabError(f"the formula has a {tag}, which is not among what can be set here: write it otherwise")


def row(parts: Sequence[Element]) -> str:
    return " ".join(filter(None, map(written, parts)))


def letter(text: str, upright: bool) -> str:
    """A variable; names of several letters, such as log, are upright."""
    if len(text) > 1:
        return f"op({quoted(text)})"
    return f"upright({quoted(text)})" if upright else operator(text)


def operator(text: str) -> str:
    """A symbol by itself: what typst would read as its own syntax is escaped, a word such as mod stands between two numbers."""
    if text.isalpha() and len(text) > 1:
        return f'class("binary", {quoted(text)})'
    text = text.replace("*", "∗")
    return "".join(
        f"\\{sign}" if sign.isascii() and not sign.isalnum() and sign not in "=+-<> " else sign for sign in text
    )


def over(base: Element, mark: Element) -> str:
    sign = (mark.text or "").strip()
    if sign in OVER:
        return f"{OVER[sign]}({written(base)})"
    return f"attach({written(base)}, t: {written(mark)})"


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
