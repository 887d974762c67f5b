"""Standard streams that break: on a full disk, closed, a pipe without a reader, or with few characters."""

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from convolab.core.errors import LabError
from convolab.core.escape import ASCII_ERRORS

if TYPE_CHECKING:
    from typing_extensions import Buffer


class DroppingFile(io.FileIO):
    """An open file that drops what it cannot write; `error` is the first reason."""

    error: OSError | None = None

    def write(self, content: "Buffer", /) -> int | None:
        try:
            return super().write(content)
        except OSError as error:
            self.error = self.error or error
            return memoryview(content).nbytes


class GuardedStreams:
    """Standard output and error that raise nothing when they are written to: their work comes first.

    What is lost of standard error is progress. What is lost of standard output is the result: `require_printed` says
    so at the end. Signs that the encoding lacks are written in ASCII.
    """

    def __init__(self) -> None:
        self.output: DroppingFile | None = None
        # Missing descriptors are filled, so that no file that is opened becomes a standard stream.
        missing = [number for number in range(3) if not is_open(number)]
        while missing and os.open(os.devnull, os.O_RDWR) < max(missing):
            pass
        if sys.stdin is None:
            sys.stdin = open(os.devnull)  # noqa: SIM115 (as long as the process)
        if sys.stderr is None or sys.stderr is sys.__stderr__:
            sys.stderr, _ = guarded_stream(sys.stderr, 2)
        if sys.stdout is None:
            raise LabError("standard output is closed: the result could not be printed; send it to a file or /dev/null")
        if sys.stdout is sys.__stdout__:
            sys.stdout, self.output = guarded_stream(sys.stdout, 1)

    def require_printed(self) -> None:
        """Raise LabError unless all that was printed to standard output was written."""
        sys.stdout.flush()
        if self.output is not None and self.output.error is not None:
            reason = self.output.error.strerror
            raise LabError(f"not all of the result could be printed ({reason}): files that were written are complete")


def is_open(number: int) -> bool:
    """Whether a descriptor is open."""
    with suppress(OSError):
        os.fstat(number)
        return True
    return False


def guarded_stream(stream: TextIO | None, number: int) -> tuple[TextIO, DroppingFile]:
    """A stream to a descriptor that raises nothing, buffered as the one it replaces."""
    file = DroppingFile(number, "wb", closefd=False)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    is_line_buffered = number == 2 or getattr(stream, "line_buffering", False)
    text = io.TextIOWrapper(io.BufferedWriter(file), encoding, ASCII_ERRORS, line_buffering=is_line_buffered)
    return text, file
