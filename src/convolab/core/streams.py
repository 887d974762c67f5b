"""Lines on standard error, which is for people to watch: what cannot be written is dropped, and the work goes on."""

import sys
from contextlib import suppress

from convolab.core.escape import ASCII_ERRORS, escape_line


def is_terminal() -> bool:
    """Whether somebody watches standard error; it may be missing or closed."""
    with suppress(OSError, ValueError, AttributeError):
        return sys.stderr.isatty()
    return False


def print_progress(line: str) -> None:
    """Print a line to standard error; a full disk, a closed stream or a broken pipe never stops what reports it."""
    if sys.stderr is None:  # print would write to standard output
        return
    text = escape_line(line)
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with suppress(OSError, ValueError):
        print(text.encode(encoding, ASCII_ERRORS).decode(encoding), file=sys.stderr, flush=True)
