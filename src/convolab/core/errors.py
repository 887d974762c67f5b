"""One kind of error for everything that the user can correct."""

import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from convolab.core.escape import escape_line
from convolab.core.text import truncate_list

MAX_MESSAGE_LENGTH = 10_000
NEARLY_THE_SAME = 0.8  # of two names, as difflib measures it
MEMORY_WORDS = ("can't allocate memory", "out of memory", "not enough memory", "Storage size calculation overflowed")


class LabError(Exception):
    """A user error, reported in one line: what was given, what was expected, what to do.

    The command line prints it to stderr and exits 2; any other exception is a bug and shows its traceback.
    What names and paths in it hold that does not print is written as escapes, so the line stays one line.

    >>> try:
    ...     raise LabError("there is no dataset 'cifar01': did you mean 'cifar10'?")
    ... except LabError as error:
    ...     print(error)
    there is no dataset 'cifar01': did you mean 'cifar10'?
    """

    def __init__(self, message: str) -> None:
        super().__init__(escape_line(message)[:MAX_MESSAGE_LENGTH])

    def _render_traceback_(self) -> list[str]:
        """What IPython, and so a notebook, shows instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]


def require(condition: object, message: str) -> None:
    """Raise `LabError(message)` unless the condition holds.

    >>> require(3 > 2, "never raised")
    """
    if not condition:
        raise LabError(message)


@contextmanager
def errors_name(path: Path | str) -> Iterator[None]:
    """Put a file's name before each LabError that is raised inside, for what a person mends in that file.

    >>> with errors_name("fast.toml"): raise LabError("unknown schedule 'cosin': did you mean 'cosine'?")
    Traceback (most recent call last):
    convolab.core.errors.LabError: fast.toml: unknown schedule 'cosin': did you mean 'cosine'?
    """
    try:
        yield
    except LabError as error:
        raise LabError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


@contextmanager
def translate_memory_errors(advice: str) -> Iterator[None]:
    """Raise LabError with an advice in place of Python's and torch's errors that memory is not enough.

    >>> with translate_memory_errors("lower training.batch_size"): raise MemoryError
    Traceback (most recent call last):
    convolab.core.errors.LabError: there is not enough memory: lower training.batch_size
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        raise LabError(f"there is not enough memory: {advice}") from error


def is_memory_error(error: BaseException) -> bool:
    """Whether an error says that memory is not enough: Python's, or torch's, which is a RuntimeError."""
    is_torchs = isinstance(error, RuntimeError) and any(word in str(error) for word in MEMORY_WORDS)
    return isinstance(error, MemoryError) or is_torchs


def describe_exception(error: BaseException) -> str:
    """Somebody else's exception in a line: its kind, its message, and the last line of a person's own code before it.

    RuntimeError, which is torch's for everything, is left out.

    >>> describe_exception(ValueError("too few\\nsecond line"))
    'ValueError: too few'
    """
    message = next(iter(str(error).splitlines()), "")
    kind = type(error).__name__
    text = message if message and isinstance(error, RuntimeError) else f"{kind}: {message}" if message else kind
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if is_own_file(frame.filename)]
    return text + (f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else "")


def is_own_file(filename: str) -> bool:
    """Whether a file of source code is a person's own: neither convolab's, nor Python's, nor an installed package's."""
    path = Path(filename)
    others = (Path(__file__).parents[1], *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")))
    is_named = path.suffix == ".py" and not filename.startswith("<")
    return is_named and not any(path.is_relative_to(other) for other in others)


def letters_and_digits(name: str) -> str:
    """A name without what people write differently: capitals, dashes and underscores."""
    return name.casefold().replace("-", "").replace("_", "")


def suggest(name: str, known: Iterable[str], max_listed: int | None = None) -> str:
    """How an error about an unknown name ends: the closest known name, or all of them.

    A name that is a word of one known name alone means that one, unless another is nearly the same. Of more than
    `max_listed` names only the first three are listed, and the number of the others.

    >>> suggest("cifar01", ["cifar10", "digits"])
    "did you mean 'cifar10'?"
    >>> suggest("steps", ["step_size", "max_steps"])
    "did you mean 'max_steps'?"
    >>> suggest("CIFAR-10", ["cifar10", "digits"]), suggest("SimpleConvNet", ["simple_convnet"])
    ("did you mean 'cifar10'?", "did you mean 'simple_convnet'?")
    >>> suggest("x", ["cifar10", "digits"])
    'known: cifar10, digits'
    >>> suggest("x", ["a", "b", "c", "d", "e"], max_listed=4)
    'known: a, b, c and 2 more'
    """
    known = sorted(known)
    with_word = [other for other in known if name in other.split("_")]
    same = [other for other in known if letters_and_digits(other) == letters_and_digits(name)]
    close = (
        same
        or get_close_matches(name, known, n=1, cutoff=NEARLY_THE_SAME)
        or (with_word if len(with_word) == 1 else get_close_matches(name, known, n=1))
    )
    if close:
        return f"did you mean '{close[0]}'?"
    is_long = max_listed is not None and len(known) > max_listed
    return f"known: {truncate_list(known, 3 if is_long else len(known))}"
