"""What the site adds to the Markdown files: the menu, the reference, the notebooks as pages, formulas, and index.html."""

import ast
import inspect
import json
import re
import textwrap
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import convolab
from convolab.reports.latex import latex_to_mathml

MENU = {  # captions of the menu; below each, pages with their short titles
    "Begin": {
        "docs/install": "Install",
        "docs/guide": "All commands by example",
        "docs/app": "The page in the browser",
        "docs/own": "Your own in ten lines",
        "docs/gallery": "Gallery",
    },
    "The homework": {
        "docs/handin": "From start to hand-in",
        "docs/homework_q1": "Question 1",
        "docs/homework_q2_networks": "Question 2: networks",
        "docs/homework_q2_blocks": "Question 2: blocks",
        "docs/homework_q2_choices": "Question 2: choices",
        "docs/homework_q3": "Question 3",
        "docs/homework_q4": "Question 4",
        "notebooks/student/question2_training": "Notebook of question 2",
        "notebooks/student/question3_4_inspection": "Notebook of questions 3 and 4",
        "docs/marking": "Marking a class",
    },
    "Train": {
        "docs/own_data": "Your own data",
        "docs/own_parts": "Your own parts",
        "docs/trained": "A trained run",
    },
    "Compare": {
        "docs/studies": "Studies and verdicts",
        "docs/ray": "On a Ray cluster",
        "docs/results/README": "Results",
        "docs/results/coursework-cifar10/README": "The coursework on CIFAR-10",
        "docs/results/fast": "The fast recipe on CIFAR-10",
    },
    "Look inside": {
        "docs/explain": "Explain",
        "docs/adversarial": "Fool",
        "docs/localization": "Locate",
        "docs/summary": "Summary",
    },
    "Theory": {
        "docs/theory": "Question 1, checked",
        "docs/question1": "The sheet",
        "docs/lecture": "A lecture of three minutes",
    },
    "Reference": {
        "docs/reference": "Functions and classes",
        "docs/glossary": "Glossary",
        "docs/trust": "What you can rely on",
        "docs/compare": "How it compares",
        "benchmarks/README": "Benchmarks",
        "CONTRIBUTING": "Contributing",
        "docs/documentation": "How the site is made",
        "docs/words": "Words that we kept",
        "CHANGELOG": "Changelog",
        "docs/licenses": "Licenses",
    },
}
NAMES_ALONE = re.compile(r"^(?:`\w+`(?:, )?)+$", re.MULTILINE)  # a line of public names: on the site, their docstrings
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s:]+)\)")  # to a file or a folder
BLOCK = re.compile(r"^```(\w*)\n(.*?^```)$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:convolab|make|pip|ray) ")  # how a block of commands begins
INDEX = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=README.html"><title>convolab</title>'


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (display_formula, None))
    app.connect("source-read", prepare_source)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", add_types, priority=400)  # before napoleon reads it
    app.connect("build-finished", write_index)
    return {"parallel_read_safe": True}


def prepare_source(app: Sphinx, page: str, source: list[str]) -> None:
    """Change the text of a page before it is parsed."""
    folder = (Path(app.srcdir) / page).parent
    if page.startswith("notebooks/"):
        source[0] = notebook_text(source[0])
    else:  # a folder, which a code host shows, is its name alone on the site
        source[0] = LINK.sub(lambda link: link[1] if (folder / link[2]).is_dir() else link[0], source[0])
        source[0] = BLOCK.sub(lambda block: f"```{block[1] or language_of(block[2])}\n{block[2]}", source[0])
    if page == "README":
        source[0] += "".join(menu_of(caption, titles) for caption, titles in MENU.items())
    if page == "docs/reference":
        source[0] = NAMES_ALONE.sub(lambda line: describe(re.findall(r"\w+", line[0])), source[0])


def language_of(text: str) -> str:
    """The language of a block that names none: commands, or what they print."""
    return "bash" if COMMAND.match(text) else "text"


def menu_of(caption: str, titles: dict[str, str]) -> str:
    """The directive that puts pages under a caption of the menu at the side."""
    lines = [f"{title} <{page}>" for page, title in titles.items()]
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", *lines, "```", ""])


def describe(names: list[str]) -> str:
    """The directives that put the docstrings of public names on a page."""
    lines = ["```{eval-rst}"]
    for name in names:
        is_class = inspect.isclass(getattr(convolab, name))
        lines.append(f".. auto{'class' if is_class else 'function'}:: convolab.{name}")
        lines += ["   :members:", "   :exclude-members: model_config"] if is_class else []
        lines.append("")
    return "\n".join([*lines, "```"])


def shorten_signature(
    app: Sphinx, kind: str, name: str, found: object, options: object, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    """Leave out the arguments of a class that is not made by calling it: its docstring has no "Args:"."""
    return ("", None) if kind == "class" and "Args:" not in (inspect.getdoc(found) or "") else None


def add_types(app: Sphinx, kind: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Write the types of a function's arguments into its docstring, as they stand in the source."""
    if kind not in ("function", "method"):
        return
    node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(found)))).body[0]
    arguments = [*node.args.args, *node.args.kwonlyargs]
    types = {argument.arg: ast.unparse(argument.annotation) for argument in arguments if argument.annotation}
    for number, line in enumerate(lines):
        entry = re.match(r"( {4})(\w+): ", line)
        if entry and entry[2] in types:
            lines[number] = f"{entry[1]}{entry[2]} ({types[entry[2]]}): {line[entry.end() :]}"


def notebook_text(content: str) -> str:
    """A notebook as Markdown: its texts, and its code in blocks."""
    texts: list[str] = []
    for cell in json.loads(content)["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            texts.append(f"#{text}" if texts and text.startswith("# ") else text)  # a page has one title
        else:
            texts.append(f"```python\n{text}\n```")
    return "\n\n".join(texts) + "\n"


def inline_formula(writer: HTML5Translator, node: nodes.math) -> None:
    """Write MathML, which browsers draw without a script."""
    writer.body.append(latex_to_mathml(node.astext()))
    raise nodes.SkipNode


def display_formula(writer: HTML5Translator, node: nodes.math_block) -> None:
    """The same for a formula on lines of its own."""
    writer.body.append(f'<div class="formula">{latex_to_mathml(node.astext(), display=True)}</div>')
    raise nodes.SkipNode


def write_index(app: Sphinx, error: Exception | None) -> None:
    """The site's first page is the README, under the name that browsers and servers look for."""
    if error is None:
        Path(app.outdir, "index.html").write_text(INDEX)
