"""The lock of a run's folder: one process trains a run, and looking whether one does hinders nobody."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from convolab.core.errors import LabError
from convolab.core.files import translate_write_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = ".lock"
LOOK_TIMEOUT = 1.0  # seconds; how long a training waits for those who only look


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Only one process trains a run; the lock is released when its process ends."""
    lock = FileLock(folder / LOCK_FILE, timeout=LOOK_TIMEOUT, poll_interval=0.02)
    try:
        with translate_write_errors(folder):
            lock.acquire()
    except Timeout as error:
        raise LabError(f"{folder} is being trained by another process: wait for it, or stop it") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of a run.

    Looking writes nothing and refuses nobody: it shares the lock for an instant, which `run_lock` waits out.
    """
    if fcntl is None:
        try:
            with FileLock(folder / LOCK_FILE, timeout=0):
                return False
        except Timeout:
            return True
    try:
        # A pipe in its place, on which opening would wait, is not a lock.
        with open(os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:  # there is no lock, or it can't be read
        return False
