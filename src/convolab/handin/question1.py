"""Question 1 of the homework: the file for its answers, and whether it is filled in."""

from pathlib import Path

from convolab.core.errors import LabError
from convolab.handin.comments import own_text
from convolab.handin.homework import Homework
from convolab.handin.notebook_file import one_line, read_bounded

MAX_ANSWERS_BYTES = 2_000_000
MAX_PDF_BYTES = 50_000_000
PLACEHOLDER = "*Write your answer here, in place of this line.*"


def answers_template(homework: Homework) -> str:
    """The text of the file for the answers: a section for each part of the question."""
    parts = [f"## {name}\n> {task}\n\n{PLACEHOLDER}\n" for name, task in homework.question1.parts.items()]
    head = (
        f"# Question 1: {homework.question1.title}\n\n"
        f"Write your answers here, or put a PDF beside this file and call it {homework.question1.pdf}.\n"
    )
    return "\n".join([head, *parts])


def question1_problem(homework: Homework, folder: Path) -> str | None:
    """What is open in question 1; None if nothing is. A PDF is enough, whatever it holds."""
    pdf = folder / homework.question1.pdf
    try:
        if pdf.exists():
            content = read_bounded(pdf, folder, MAX_PDF_BYTES)
            return None if content.startswith(b"%PDF-") else f"{pdf.name} is no PDF"
        content = read_bounded(folder / homework.question1.answers, folder, MAX_ANSWERS_BYTES)
    except LabError as error:
        return one_line(str(error))
    text = content.decode("utf-8", errors="replace")
    unanswered = [name for name in homework.question1.parts if not answer_to(text, name)]
    return f"no answer to {', '.join(unanswered)} yet" if unanswered else None


def answer_to(text: str, part: str) -> str:
    """What a person wrote below a part's heading."""
    _, _, rest = text.partition(f"## {part}\n")
    return own_text(rest.partition("\n## ")[0].replace(PLACEHOLDER, ""))
