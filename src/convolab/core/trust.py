"""Which code of other people's files may run: exactly the bytes that this user has named or trusted.

A file's SHA-256 is recorded in a private file of the user. What a person names in a command or a call is recorded as it
is named; all else is refused until it is trusted.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from convolab.core.environment import data_root
from convolab.core.errors import LabError

LEDGER = "trusted_code"  # in convolab's folder: a SHA-256 in each line
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # and no waiting for a pipe
_TRUSTED_HERE: set[str] = set()  # by this process, which may have no folder that it can write to
_TRUST_ALL: ContextVar[bool] = ContextVar("trust_all", default=False)


def trust_here(digests: Iterable[str]) -> None:
    """Let code with these SHA-256 run in this process, and record nothing."""
    _TRUSTED_HERE.update(digests)


def trusted_here() -> frozenset[str]:
    """What this process was given to trust, for the processes that it starts: the record may not be writable."""
    return frozenset(_TRUSTED_HERE)


def trust(digests: Iterable[str]) -> None:
    """Record that code with these SHA-256 may run, for this user, from now on."""
    known = trusted_digests()
    new = [digest for digest in digests if digest not in known]
    if not new:
        return
    trust_here(new)
    path = data_root() / LEDGER
    with suppress(OSError):  # where it cannot be recorded, it is trusted by this process only
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NO_LINK, 0o600), "w") as file:
            file.write("".join(f"{digest}\n" for digest in new))


def trusted_digests() -> set[str]:
    """The SHA-256 of all code that may run. A record that other users could have written is not read."""
    with suppress(OSError), open(os.open(data_root() / LEDGER, os.O_RDONLY | NO_LINK)) as file:
        about = os.fstat(file.fileno())
        is_own = not hasattr(os, "getuid") or about.st_uid == os.getuid()
        if is_own and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return {*file.read().split(), *_TRUSTED_HERE}
    return set(_TRUSTED_HERE)


def require_trusted(files: Iterable[tuple[Path, str]]) -> None:
    """Raise LabError, naming file and SHA-256, unless the code in all files may run."""
    files = list(files)
    if _TRUST_ALL.get():
        trust(digest for _, digest in files)
        return
    known = trusted_digests()
    for path, digest in files:
        if digest not in known:
            raise LabError(
                f"{path} is code that you have not trusted yet (SHA-256 {digest}): read it, then repeat the command "
                "with --trust (in Python: trust=True)"
            )


@contextmanager
def trust_all(wanted: bool = True) -> Iterator[None]:
    """Let the block run whatever code it opens, and record it as trusted; with `wanted` off nothing changes."""
    token = _TRUST_ALL.set(wanted or _TRUST_ALL.get())
    try:
        yield
    finally:
        _TRUST_ALL.reset(token)
