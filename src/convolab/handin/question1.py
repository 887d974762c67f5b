"""Question 1 of the homework: the file for its answers, and whether it is filled in."""

import re
from pathlib import Path

from convolab.core.errors import LabError
from convolab.core.text import join_with_and
from convolab.handin.homework import Homework
from convolab.handin.notebook_file import one_line, read_bounded
from convolab.theory.own_answers import MAX_BYTES_OF_ANSWERS, own_answers_template, parse_own_answers
from convolab.theory.sheet import OPEN_PARTS_START

MAX_PDF_BYTES = 50_000_000
OPEN_PARTS = re.compile(OPEN_PARTS_START.encode() + rb"((?:1\\?\([abc]\\?\)(?:, )?)+)")


def answers_template(homework: Homework) -> str:
    """The text of the file for the answers, as `convolab theory --answers-template` writes it.

    Raises LabError for sizes that make no sense.
    """
    from convolab.theory.layers import LayerSizes  # imports torch, which a check does not need
    from convolab.theory.question1 import questions

    return own_answers_template(questions(LayerSizes(**homework.question1.sizes.model_dump(exclude_none=True))))


def theory_options(homework: Homework) -> str:
    """The options of `convolab theory` for the sizes of a homework, with a space before each.

    >>> from convolab.handin.homework import load_homework
    >>> theory_options(load_homework())
    ''
    """
    sizes = homework.question1.sizes.model_dump(exclude_none=True)
    return "".join(f" --{name.replace('_', '-')} {size}" for name, size in sizes.items())


def question1_problem(homework: Homework, folder: Path) -> str | None:
    """What is open in question 1; None if nothing is. A PDF is enough, but for one of ours that says what it lacks."""
    pdf = folder / homework.question1.pdf
    try:
        if pdf.exists():
            return pdf_problem(read_bounded(pdf, folder, MAX_PDF_BYTES), pdf.name)
        return answers_problem(folder / homework.question1.answers, folder)
    except LabError as error:
        return one_line(str(error))


def pdf_problem(content: bytes, name: str) -> str | None:
    """What is open in a PDF: `convolab theory --answers` writes into its keywords which parts are not answered yet."""
    if not content.startswith(b"%PDF-"):
        return f"{name} is no PDF"
    found = OPEN_PARTS.search(content)
    if not found:
        return None
    parts = found[1].decode().replace("\\", "")
    return f"{name} has no answer to {parts} yet"


def answers_problem(path: Path, folder: Path) -> str | None:
    """What is open in the file of answers; None if nothing is. Raises LabError if it cannot be read."""
    text = read_bounded(path, folder, MAX_BYTES_OF_ANSWERS).decode("utf-8", errors="replace")
    answers = parse_own_answers(text, path.name)
    unanswered = [part for part, blocks in answers.items() if not blocks]
    if unanswered:
        return f"no answer to {', '.join(unanswered)} yet"
    repeated = [part for part, blocks in answers.items() if list(answers.values()).count(blocks) > 1]
    return f"the same text stands under {join_with_and(repeated)}: answer each" if repeated else None
