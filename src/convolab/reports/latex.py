"""Convert LaTeX formulas to MathML, which browsers draw without help, and into typst's own notation.

latex2mathml parses the LaTeX; typst's notation is written from the MathML, so both come from one parser. A formula may
be a stranger's: of the MathML only known elements and attributes are kept, and all text is escaped.
"""

import re
from collections.abc import Callable, Sequence
from xml.etree.ElementTree import Element, tostring

from convolab.core.errors import LabError, require

TYPST_SPACES = {
    "0.167em": "thin",
    "0.2222em": "med",
    "0.222em": "med",
    "0.2778em": "thick",
    "0.278em": "thick",
    "1em": "quad",
    "2em": "wide",
}
TYPST_ACCENTS = {
    "―": "overline",
    "¯": "macron",
    "~": "tilde",
    "^": "hat",
    "→": "arrow",
    "˙": "dot",
    "¨": "dot.double",
    "⏞": "overbrace",
}
CHILDREN = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
KNOWN_ELEMENTS = {
    *("math", "mrow", "mstyle", "mpadded", "mi", "mn", "mo", "mtext", "mspace", "msqrt", "mtable", "mtr", "mtd"),
    *("mphantom", *CHILDREN),
}
KNOWN_ATTRIBUTES = {
    *("xmlns", "display", "displaystyle", "scriptlevel", "mathvariant", "stretchy", "fence", "form", "separator"),
    *("accent", "accentunder", "linethickness", "width", "height", "depth", "lspace", "rspace", "voffset", "minsize"),
    *("maxsize", "movablelimits", "largeop", "linebreak", "columnalign", "columnspacing", "rowspacing"),
}
DEFINITION = re.compile(r"\\(?:re)?new(?:command|environment)|\\(?:def|let|providecommand|DeclareMathOperator)\b")
ALIGNED_ENVIRONMENT = re.compile(r"\\(begin|end)\{(?:aligned|split|align|gather(?:ed)?\*?)\}")
OPERATOR_NAME = re.compile(r"\\operatorname\*?\{([^{}]*)\}")  # latex2mathml reads letters only
OPERATOR_SPACE = r"\\[,;:! ]|\s"
EMPTY = '""'  # an argument of typst that draws nothing
CHARACTER_REFERENCE = re.compile(r"&#x([0-9A-Fa-f]{1,6});")


def latex_to_mathml(latex: str, display: bool = False) -> str:
    r"""A formula as a MathML element.

    Raises LabError for a formula that cannot be parsed.

    >>> latex_to_mathml("x")
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><mi>x</mi></mrow></math>'
    """
    return tostring(parse_latex(latex, display), encoding="unicode")


def latex_to_typst(latex: str) -> str:
    r"""A formula in typst's notation, without its dollar signs.

    Raises LabError for a formula that cannot be parsed, or that has no counterpart here.

    >>> latex_to_typst(r"\frac{a}{b} + x[i]^{2}")
    'frac(a, b) + x \\[ i attach(\\], t: 2)'
    """
    return mathml_to_typst(parse_latex(latex))


def parse_latex(latex: str, display: bool = False) -> Element:
    """A formula as a tree of known MathML. Raises LabError, with the formula, where it cannot be parsed."""
    from latex2mathml.converter import convert_to_element

    source = ALIGNED_ENVIRONMENT.sub(r"\\\1{align*}", latex)
    source = OPERATOR_NAME.sub(lambda match: rf"\operatorname{{{re.sub(OPERATOR_SPACE, '', match[1])}}}", source)
    try:
        require(not DEFINITION.search(latex), "it defines a command: write what the command stands for")
        root = convert_to_element(source, display="block" if display else "inline")
        for element in root.iter():
            clean_element(element)
    except LabError as error:
        raise LabError(f"the formula {shorten(latex)} cannot be typeset: {error}") from error
    except Exception as error:  # latex2mathml has many kinds of its own, and lets Python's through
        reason = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower().removesuffix(" error")
        raise LabError(f"the formula {shorten(latex)} cannot be parsed ({reason})") from error
    return root


def shorten(latex: str) -> str:
    """A formula for an error message: in one line, and not all of a long one."""
    text = " ".join(latex.split())
    return f"${text[:60]}...$" if len(text) > 60 else f"${text}$"


def clean_element(element: Element) -> None:
    """Decode what latex2mathml leaves encoded, and drop unknown attributes. Raises LabError for what is no formula."""
    require(element.tag in KNOWN_ELEMENTS, f"'{element.tag}' is not known here")
    require(len(element) == CHILDREN.get(element.tag, len(element)), "an argument is missing")
    element.attrib = {name: value for name, value in element.attrib.items() if name in KNOWN_ATTRIBUTES}
    text = element.text or ""
    require(element.tag != "mi" or not re.match(r"\\[A-Za-z]", text), f"the command {text[:40]} is not known")
    require(element.tag != "mi" or text != "&", "an & is outside of a matrix or aligned equations")
    element.text = CHARACTER_REFERENCE.sub(lambda match: decode_character(int(match[1], 16)), text)


def decode_character(code: int) -> str:
    """A character by its code. Raises LabError for what is not one that can be printed."""
    character = chr(code) if code < 0x110000 else ""
    require(character.isprintable() or character.isspace(), f"U+{code:04X} is not a character that can be printed")
    return character


def mathml_to_typst(element: Element) -> str:
    """One MathML element in typst's notation."""
    children, text = list(element), (element.text or "").strip()
    match element.tag:
        case "math" | "mstyle" | "mpadded" | "mtd":
            return join_typst(children)
        case "mrow":
            is_fenced = len(children) > 1 and children[0].get("fence") == children[-1].get("fence") == "true"
            return f"lr({join_typst(children)})" if is_fenced else join_typst(children)
        case "mi":
            return typst_identifier(text, element.get("mathvariant", ""))
        case "mn":
            return text if re.fullmatch(r"\d+(\.\d+)?", text) else typst_string(text)
        case "mo":
            return typst_operator(text)
        case "mtext":
            return typst_string(element.text or "")
        case "mspace":
            return "\\ " if element.get("linebreak") else TYPST_SPACES.get(element.get("width", ""), "")
        case "mtable":
            return typst_table(element)
        case "mfrac":
            return typst_fraction(children, has_line=element.get("linethickness") != "0")
        case tag if tag in TYPST_OF_ELEMENT:
            return TYPST_OF_ELEMENT[tag](children)
        case tag:
            raise LabError(f"MathML element '{tag}' cannot be converted to typst: rewrite the formula without it")


def join_typst(elements: Sequence[Element]) -> str:
    """Elements side by side; brackets around a matrix or a binomial coefficient grow with it."""
    parts = list(map(mathml_to_typst, elements))
    tags = [element.tag for element in elements]
    for middle in range(1, len(parts) - 1):
        is_tall = tags[middle] == "mtable" or elements[middle].get("linethickness") == "0"
        if is_tall and tags[middle - 1] == tags[middle + 1] == "mo":
            parts[middle - 1 : middle + 2] = [f"lr({' '.join(parts[middle - 1 : middle + 2])})", "", ""]
    return " ".join(filter(None, parts))


def typst_fraction(children: Sequence[Element], has_line: bool) -> str:
    above, below = map(typst_argument, children)
    return f"frac({above}, {below})" if has_line else f"mat(delim: #none, {above}; {below})"


def typst_scripts(children: Sequence[Element], names: str) -> str:
    """A base with what is below and above it, by the letters of `names`."""
    base, *scripts = map(typst_argument, children)
    named = ", ".join(f"{name}: {script}" for name, script in zip(names, scripts, strict=True))
    return f"attach({base}, {named})"


def typst_under(children: Sequence[Element]) -> str:
    """What is below something: a brace, the brace's label, or a limit."""
    base, below = children
    is_brace = (below.text or "").strip() == "⏟"
    if is_brace:
        return f"underbrace({typst_argument(base)})"
    if base.tag == "munder" and (base[1].text or "").strip() == "⏟":
        return f"underbrace({typst_argument(base[0])}, {typst_argument(below)})"
    return typst_scripts(children, "b")


def typst_accent(children: Sequence[Element]) -> str:
    base, accent = children
    symbol = (accent.text or "").strip()
    if base.tag == "mover" and (base[1].text or "").strip() == "⏞":
        return f"overbrace({typst_argument(base[0])}, {typst_argument(accent)})"
    if symbol in TYPST_ACCENTS:
        return f"{TYPST_ACCENTS[symbol]}({typst_argument(base)})"
    return typst_scripts(children, "t")


def typst_table(table: Element) -> str:
    """A matrix, or aligned equations, which latex2mathml marks by a column spacing of 0."""
    rows = [list(map(mathml_to_typst, row)) for row in table]
    if table.get("columnspacing", "").startswith("0em"):
        return " \\ ".join(" & ".join(row) for row in rows)
    aligned = "align: #left, " if any(cell.get("columnalign") == "left" for cell in table.iter("mtd")) else ""
    return f"mat(delim: #none, {aligned}{'; '.join(', '.join(row) for row in rows)})"


def typst_argument(element: Element) -> str:
    """An element as an argument of a function."""
    return mathml_to_typst(element) or EMPTY


def typst_identifier(text: str, variant: str) -> str:
    """A variable; names of several letters, such as log, are upright."""
    if len(text) > 1:
        return f"op({typst_string(text)})"
    if variant == "normal":
        return f"upright({typst_string(text)})"
    return f"bold({typst_operator(text)})" if variant.startswith("bold") else typst_operator(text)


def typst_operator(text: str) -> str:
    """A symbol: what typst would read as its own syntax is escaped, and words are operators."""
    if len(text) > 1 and any(character.isalnum() for character in text):
        is_binary = text in ("mod", "bmod")
        return f'class("binary", {typst_string(text)})' if is_binary else f"op({typst_string(text)}, limits: #true)"
    if text == "‖":  # typst would set it apart, as a relation
        return 'class("normal", ‖)'
    text = text.replace("*", "∗")
    return "".join(
        f"\\{sign}" if sign.isascii() and not sign.isalnum() and sign not in "=+-<> " else sign for sign in text
    )


def typst_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


TYPST_OF_ELEMENT: dict[str, Callable[[Sequence[Element]], str]] = {
    "msqrt": lambda children: f"sqrt({join_typst(children) or EMPTY})",
    "mroot": lambda children: f"root({typst_argument(children[1])}, {typst_argument(children[0])})",
    "msub": lambda children: typst_scripts(children, "b"),
    "msup": lambda children: typst_scripts(children, "t"),
    "msubsup": lambda children: typst_scripts(children, "bt"),
    "munder": typst_under,
    "mover": typst_accent,
    "munderover": lambda children: typst_scripts(children, "bt"),
}
