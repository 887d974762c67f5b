"""Question 1 of the homework: the file for its answers, and whether it is filled in."""

from pathlib import Path

from convolab.core.errors import LabError
from convolab.handin.homework import Homework
from convolab.handin.notebook_file import one_line, read_bounded
from convolab.theory.own_answers import MAX_BYTES_OF_ANSWERS, own_answers_template, parse_own_answers

MAX_PDF_BYTES = 50_000_000


def answers_template() -> str:
    """The text of the file for the answers, as `convolab theory --answers-template` writes it."""
    from convolab.theory.question1 import questions  # imports torch, which a check does not need

    return own_answers_template(questions())


def question1_problem(homework: Homework, folder: Path) -> str | None:
    """What is open in question 1; None if nothing is. A PDF is enough, whatever it holds."""
    pdf = folder / homework.question1.pdf
    try:
        if pdf.exists():
            content = read_bounded(pdf, folder, MAX_PDF_BYTES)
            return None if content.startswith(b"%PDF-") else f"{pdf.name} is no PDF"
        return answers_problem(folder / homework.question1.answers, folder)
    except LabError as error:
        return one_line(str(error))


def answers_problem(path: Path, folder: Path) -> str | None:
    """What is open in the file of answers; None if nothing is. Raises LabError if it cannot be read."""
    text = read_bounded(path, folder, MAX_BYTES_OF_ANSWERS).decode("utf-8", errors="replace")
    unanswered = [part for part, blocks in parse_own_answers(text, path.name).items() if not blocks]
    return f"no answer to {', '.join(unanswered)} yet" if unanswered else None
