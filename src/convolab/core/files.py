"""Atomic writes: to a temporary file in the same folder, synced, then renamed."""

import csv
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from convolab.core.errors import LabError, require
from convolab.core.text import printable

MAX_NAME_BYTES = 255  # of a file or folder, on all usual file systems
MAX_PATH_BYTES = 4096  # Linux: PATH_MAX, its last zero included

UNWRITABLE_ERRNOS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}


def user_path(path: Path | str) -> Path:
    """A path that a person gave, with `~` expanded. Nothing is looked for on the disk.

    Raises LabError for what no file can be called: a name longer than file systems allow, a NUL character, and `~` of a
    user that does not exist.

    >>> user_path("images/cat.png").name
    'cat.png'
    """
    shown = printable(str(path), 120)
    try:
        expanded = Path(path).expanduser()
        longest = max((len(os.fsencode(part)) for part in expanded.parts), default=0)
        in_bytes = os.fsencode(expanded)
    except RuntimeError as error:
        raise LabError(f"{shown}: this user's home folder is not known: write the whole path") from error
    except ValueError as error:
        raise LabError(f"{shown} has characters that no file name can have: check the name") from error
    require(b"\0" not in in_bytes, f"{shown} has a NUL character, which no file name can have: check the name")
    require(
        longest <= MAX_NAME_BYTES and len(in_bytes) < MAX_PATH_BYTES,
        f"{shown}: a name in this path has {longest} bytes, the path {len(in_bytes)}; file systems allow "
        f"{MAX_NAME_BYTES} and {MAX_PATH_BYTES - 1}: check the name",
    )
    return expanded


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder to write to; on success it is synced and renamed to `path`.

    A reader sees the old file or the new one, never a part of it. On any error the old one stays and the temporary one
    is deleted.
    Raises LabError if the folder cannot be written or the disk is full.

    >>> import tempfile; folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as temporary: _ = temporary.write_text("complete")
    >>> (folder / "a.txt").read_text()
    'complete'
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        with translate_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        # Where nothing could be written, nothing is to be deleted: the error above is the one to see.
        with suppress(OSError):
            temporary.unlink()


def link_or_copy(path: Path | str, source: Path | str) -> None:
    """Give `path` the content of `source`, atomically, without writing it again where the disk has hard links.

    Only for files that are replaced and never changed in place, as all are that this module writes.
    """
    temporary = temporary_path(Path(path))
    try:
        os.link(source, temporary)
        os.replace(temporary, path)  # the content was synced under its first name
    except OSError:
        with atomic_write(path) as copy:
            shutil.copyfile(source, copy)
    finally:
        with suppress(OSError):  # a rename onto the same file leaves the temporary name
            temporary.unlink()


def temporary_path(path: Path) -> Path:
    """A new name in the folder of a file; the suffix stays last, because image writers choose their format by it."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a LabError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise LabError(
                f"the disk is full while writing {path}: free some space; the files written before are intact"
            ) from error
        if error.errno in UNWRITABLE_ERRNOS:
            raise LabError(f"cannot write {path} ({error.strerror}): choose another path") from error
        raise


def require_writable(folder: Path) -> None:
    """Raise LabError, before any work is done, unless files can be written in a folder, which need not exist yet."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    require(
        existing.is_dir() and os.access(existing, os.W_OK),
        f"cannot write {folder}: {existing} is not a folder you may write to; choose another folder",
    )


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """Write a JSON file atomically; NaN and infinity are refused, because they are not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path | str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows with the same columns, at least one, as a CSV file atomically; None is an empty cell."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: Path | str) -> Any:  # noqa: ANN401 (only the caller knows what its file holds)
    """Read a JSON file. Raises LabError if it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"cannot read {path} ({error.strerror})") from error
    except ValueError as error:
        raise LabError(f"{path} is not JSON: {error}") from error
