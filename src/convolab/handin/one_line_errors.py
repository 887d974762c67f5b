"""What a check or a figure of a notebook finds wrong, shown in one line in place of a traceback."""

import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import FrameSummary, extract_tb

from convolab.core.errors import LabError

MAX_LINE_CHARS = 80  # of a line of code that is quoted
LIBRARY_FOLDERS = (sysconfig.get_paths()["stdlib"], str(Path(__file__).parents[1]))
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
NOTHING_YET = ("ellipsis", "NoneType", "Ellipsis")  # in Python's words of an error: a gap, or a function's gap


@contextmanager
def one_line_errors(part: str) -> Iterator[None]:
    """Show in one line what is wrong in the block below: an assertion that fails, or a name that is not there yet.

    Any other error in a function that was written in another cell keeps its traceback: it shows the line to mend.

    Args:
        part: the name of the part, which begins the line.

    Raises LabError, which a notebook shows in one line.

    >>> with one_line_errors("part 5"):
    ...     assert 1 + 1 == 3, "the sum is wrong"
    Traceback (most recent call last):
    convolab.core.errors.LabError: part 5: the sum is wrong
    """
    try:
        yield
    except Exception as error:
        _, *frames = extract_tb(error.__traceback__)  # the first one is the line above
        is_message = isinstance(error, AssertionError | LabError) and str(error)
        if not is_message and any(is_students_code(frame, frames[0].filename) for frame in frames):
            raise
        raise LabError(f"{part}: {describe_error(error, frames)}") from None


def is_students_code(frame: FrameSummary, cell: str) -> bool:
    """Whether a line is neither of the cell with the block nor of a library."""
    is_library = frame.filename.startswith(LIBRARY_FOLDERS) or any(name in frame.filename for name in PACKAGE_FOLDERS)
    return frame.filename != cell and not is_library


def describe_error(error: Exception, frames: Sequence[FrameSummary]) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError | LabError) and text:
        return text
    if isinstance(error, NameError) and error.name:
        return f"there is no '{error.name}' yet: fill in and run the cells above"
    what = f"{type(error).__name__}: {text}".removesuffix(": ")
    if any(word in text for word in NOTHING_YET):
        return f"not filled in yet, or a function returns nothing ({what})"
    line = [frame.line for frame in frames if frame.filename == frames[0].filename][-1] or ""
    quoted = line if len(line) <= MAX_LINE_CHARS else line[: MAX_LINE_CHARS - 1] + "…"
    return f"{what}, at `{quoted}`" if quoted else what
