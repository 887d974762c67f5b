"""What is typed into the page's controls, as numbers; what is empty is left to the default."""

from convolab.app.answers import PageCall
from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line


def number_of(call: PageCall, name: str, title: str) -> float | None:
    """A number; None if nothing is typed. Raises LabError for something else."""
    text = call.text(name).strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise LabError(
            f"{title}: '{escape_line(text, 40)}' is not a number; give one such as 0.5, or nothing"
        ) from None
    require(abs(value) < 1e12, f"{title}: {escape_line(text, 40)} is not a number that makes sense here; give another")
    return value


def whole_number_of(call: PageCall, name: str, title: str) -> int | None:
    """A whole number; None if nothing is typed. Raises LabError for something else."""
    value = number_of(call, name, title)
    require(value is None or value == int(value), f"{title}: {call.text(name)[:40]} is not whole; give a whole number")
    return None if value is None else int(value)
