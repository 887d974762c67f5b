"""Whether a comment is the person's own: not empty, and neither the task's text nor the solution's comment.

The solution's comments are made from the numbers of a run, so no two are equal. What is compared are runs of five
words, numbers left out, by their digests.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Set
from contextlib import suppress
from functools import cache

from convolab.core.errors import LabError
from convolab.handin.homework import Homework, load_homework
from convolab.handin.notebooks import PLACEHOLDER, PROMPT_LINE, NotebookCell, read_source

RUN_LENGTH = 5  # words that are compared at a time
MAX_COPIED = 0.4  # of a comment's runs may be someone else's
MIN_DIFFERENT = 0.6  # of the words that an answer takes at least, how many differ
EMPTY = "it is empty"
MAX_COMMENT_CHARS = 100_000
QUOTE_LINE = re.compile(r"(?m)^[^\S\n]*>.*$")
HTML_COMMENT = re.compile(r"(?s)<!--.*?(?:-->|\Z)")  # one that is not closed hides all that follows it
WORD = re.compile(r"[^\W\d_]+")


def comment_problem(text: str, min_words: int, known: Set[str] | None = None) -> str:
    """What is wrong with a comment, or an empty text. `known` are the digests of others' texts; None: the course's.

    >>> comment_problem("> Your comment?", 12)
    'it is empty'
    >>> comment_problem("Good.", 12)
    'it has 1 word: an answer takes at least 12'
    """
    own = own_text(text)
    words = WORD.findall(own)
    if not words:
        return EMPTY
    if len(words) < min_words:
        return f"it has {len(words)} word{'' if len(words) == 1 else 's'}: an answer takes at least {min_words}"
    num_different = len({word.lower() for word in words})
    if num_different < MIN_DIFFERENT * min_words:
        return f"it repeats {num_different} word{'' if num_different == 1 else 's'}: write what you see in your run"
    if copied_fraction(own, known) > MAX_COPIED:
        return "it is the text of the solution or of the task: write what you see in your run"
    return ""


def own_text(text: str) -> str:
    """What a person wrote into a comment's cell: without the quoted question and the line to be replaced."""
    shown = HTML_COMMENT.sub("", QUOTE_LINE.sub("", text[:MAX_COMMENT_CHARS]))
    return shown.replace(PLACEHOLDER, "").strip()


def copied_fraction(text: str, known: Set[str] | None = None) -> float:
    """The fraction of a text's runs of words that the solution or the task has too; 0 of a text without any run."""
    digests = run_digests(text)
    others = course_digests() if known is None else known
    return len(digests & others) / len(digests) if digests else 0.0


def run_digests(text: str) -> set[str]:
    """A digest of each run of words of a text."""
    words = [word.lower() for word in WORD.findall(text)]
    runs = (" ".join(words[i : i + RUN_LENGTH]) for i in range(len(words) - RUN_LENGTH + 1))
    return {hashlib.sha256(run.encode()).hexdigest()[:16] for run in runs}


@cache
def course_digests() -> frozenset[str]:
    """The runs of words of all tasks, questions and comments of the course's solution."""
    return known_digests(load_homework())


def known_digests(homework: Homework) -> frozenset[str]:
    """The same of a homework; of a notebook whose source is not here, as in a student's folder, nothing is known."""
    digests: set[str] = set()
    for notebook in homework.notebooks:
        with suppress(LabError):
            for cell in read_source(notebook.name, homework):
                digests.update(digest for text in written_texts(cell) for digest in run_digests(text))
    return frozenset(digests)


def written_texts(cell: NotebookCell) -> Iterator[str]:
    """The texts of a cell of the source that a person might copy as a comment."""
    if cell.type == "markdown":
        yield cell.text
    if cell.tag == "comment":
        yield from PROMPT_LINE.findall(cell.text)
        for node in ast.walk(ast.parse(cell.text)):
            if isinstance(node, ast.JoinedStr):
                yield " ".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
