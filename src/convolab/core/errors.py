"""One kind of error for everything a person can put right."""

from collections.abc import Iterable
from difflib import get_close_matches


class LabError(Exception):
    """A wrong input, said in one line: what came, what was wanted, what to do.

    The command line prints it to stderr and exits 2; any other exception is a bug and shows its traceback.
    """


def require(condition: object, message: str) -> None:
    """Raise `LabError(message)` unless the condition holds.

    >>> need(3 > 2, "never said")
    """
    if not condition:
        raise LabError(message)


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, or all of them.

    >>> nearest("cifar01", ["cifar10", "digits"])
    "did you mean 'cifar10'?"
    >>> nearest("x", ["cifar10", "digits"])
    'known: cifar10, digits'
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
