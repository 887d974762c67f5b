"""Atomic writes: to a temporary file in the same folder, synced, then renamed; and what a path cannot be, in one line."""

import csv
import errno
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line, plain_cell

MAX_NAME_BYTES = 255  # of a file or folder, on all usual file systems
MAX_JSON_BYTES = 50_000_000  # of a file of values; 100,000 epochs, or the boxes of 100,000 images, have less
MAX_NESTING = 100  # lists and tables in one another in such a file; ours have 10
MAX_PATH_BYTES = 4096  # Linux: PATH_MAX, its last zero included

PATH_ERRNOS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
    errno.ENXIO,
    errno.ENODEV,
}
FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def user_path(path: Path | str) -> Path:
    """A path that a person gave, with `~` expanded. Nothing is looked for on the disk.

    Raises LabError for what no file can be called: a name longer than file systems allow, a NUL character, and `~` of a
    user that does not exist.

    >>> user_path("images/cat.png").name
    'cat.png'
    """
    shown = escape_line(str(path), 120)
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

    A reader sees the old file or the new one, never a part of it. On any error the old one stays and the temporary one is
    deleted. What stands at `path` must be a regular file, or nothing: a device, a pipe or a link stays what it is.
    Raises LabError if the folder cannot be written, the disk is full, or no regular file is at `path`.

    >>> import tempfile; folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as temporary: _ = temporary.write_text("complete")
    >>> (folder / "a.txt").read_text()
    'complete'
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        with translate_write_errors(path):
            if os.path.lexists(path):
                kind = os.lstat(path).st_mode
                require(stat.S_ISREG(kind), f"cannot write {path}, which is not a regular file: choose another path")
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        # Where nothing could be written, nothing is to be deleted: the error above is the one to see.
        with suppress(OSError, ValueError):
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
    # A name of the greatest length must not become too long.
    return path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.part{path.suffix}")


def find_leftovers(folder: Path, suffix: str = "") -> list[Path]:
    """The temporary files that a killed process left in a folder: those that `temporary_path` named, and no others.

    Only those of one suffix, where it is given.
    """
    ours = re.compile(r"\..*\.[0-9a-f]{8}\.part" + (re.escape(suffix) or r"(\.[^.]*)?"), re.DOTALL)
    return [path for path in folder.iterdir() if ours.fullmatch(path.name) and path.is_file()]


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into a LabError that says what to do."""
    try:
        with translate_path_errors(path):
            yield
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise LabError(
                f"the disk is full while writing {path}: free some space; the files written before are intact"
            ) from error
        raise


@contextmanager
def translate_path_errors(path: Path | None = None) -> Iterator[None]:
    """Turn what the operating system says of a path, or a path that cannot be, into a LabError that says what to do.

    Without `path` the error's own is named.

    >>> with translate_path_errors(): open("/proc/none")
    Traceback (most recent call last):
    convolab.core.errors.LabError: cannot use /proc/none (No such file or directory): choose another path
    """
    try:
        yield
    except OSError as error:
        named = error.filename if path is None else path
        if named is None or error.errno not in PATH_ERRNOS:
            raise
        name = os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else str(named)
        doing = "use" if path is None else "write"
        raise LabError(f"cannot {doing} {shorten_middle(name)} ({error.strerror}): choose another path") from error
    except ValueError as error:  # of open, and of os
        if "null byte" in str(error) or "null character" in str(error):
            raise LabError("a path holds a NUL character: choose another path") from error
        if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
            raise LabError(f"{shorten_middle(error.object)} holds half a character: write it again") from error
        raise
    except RuntimeError as error:  # of Path.expanduser and Path.home
        if "home directory" in str(error):
            raise LabError(f"{str(error).rstrip('.')}: write the whole path in place of ~, or set HOME") from error
        raise


@contextmanager
def translate_system_errors() -> Iterator[None]:
    """Turn what a person can mend in the system, a path, a full disk or too few open files, into a LabError."""
    try:
        with translate_path_errors():
            yield
    except OSError as error:
        if error.errno in FULL_ERRNOS:
            raise LabError("the disk is full: free some space; the files written before are intact") from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise LabError("too many files are open at once: raise the limit, for example ulimit -n 1024") from error
        raise


def shorten_middle(name: str, max_length: int = 120) -> str:
    """A long text without its middle.

    >>> shorten_middle("abcdefghij", 7)
    'abc...j'
    """
    if len(name) <= max_length:
        return name
    kept = (max_length - 3) // 2
    return f"{name[: max_length - 3 - kept + 1]}...{name[len(name) - kept + 1 :]}"


def require_writable(folder: Path) -> None:
    """Raise LabError, before any work is done, unless files can be written in a folder, which need not exist yet."""
    with translate_path_errors(folder):
        require_short_names(folder)
        existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        require(
            existing.is_dir() and os.access(existing, os.W_OK | os.X_OK),
            f"cannot write {folder}: {existing} is not a folder you may write to; choose another folder",
        )


def require_no_link(folder: Path) -> None:
    """Raise LabError for a folder of a run or a study that is a symbolic link: it would lead out of theirs."""
    require(
        not folder.is_symlink(),
        f"{folder} is a symbolic link to a path outside its folder: put the folder itself in its place",
    )


def require_short_names(path: Path) -> None:
    """Raise LabError if a part of a path is longer than a name can be."""
    for part in path.parts:
        if len(os.fsencode(part)) > MAX_NAME_BYTES:
            too_long = f"a name has over {MAX_NAME_BYTES} bytes"
            raise LabError(f"cannot write {shorten_middle(str(path))}: {too_long}; choose another path")


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
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """A value as the content of a JSON file."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as the content of a CSV file, its columns those of all rows; None is an empty cell.

    A text that a spreadsheet would take for a formula has an apostrophe before it, see `plain_cell`.

    >>> csv_text([{"arm": "=a", "p": 0.5}, {"arm": "b", "p": None}])
    "arm,p\\n'=a,0.5\\nb,\\n"
    """
    file = io.StringIO(newline="")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(plain_cell, columns))
    writer.writerows([plain_cell(row.get(name, "")) for name in columns] for row in rows)
    return file.getvalue()


def read_json(path: Path | str) -> Any:  # noqa: ANN401 (only the caller knows what its file holds)
    """Read a JSON file. Raises LabError if it is missing, too large, nested too deeply or not JSON."""
    return parse_json(read_text(path), path)


def size_of_file(path: Path | str) -> int:
    """The bytes of a file, before it is opened. Raises LabError for a folder, and for a pipe, a socket or a device: what
    is read of these may never come, or never end. Raises OSError if there is nothing.
    """
    status = os.stat(path)
    require(stat.S_ISREG(status.st_mode), f"{shorten_middle(str(path))} is not a file")
    return status.st_size


def sha256_of(content: bytes) -> str:
    """The SHA-256 of some bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file, which is not held in memory as a whole. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path | str, max_bytes: int | None = None) -> str:
    """Read a text file. Raises LabError if it is missing, has more than `max_bytes` (MAX_JSON_BYTES), or is not UTF-8."""
    name = shorten_middle(str(path))
    max_bytes = MAX_JSON_BYTES if max_bytes is None else max_bytes
    try:
        require(os.path.isfile(path) or not os.path.exists(path), f"{name} is not a file")
        with open(path, "rb") as file:
            content = file.read(max_bytes + 1)
        require(len(content) <= max_bytes, f"{name} has more than {max_bytes:,} bytes: it is too large to be read")
        return content.decode("utf-8")
    except OSError as error:
        raise LabError(f"cannot read {name} ({error.strerror})") from error
    except ValueError as error:
        raise LabError(f"{name} is not text in UTF-8: {error}") from error


def parse_json(text: str, source: Path | str) -> Any:  # noqa: ANN401 (as above)
    """The values in a JSON text, which may be a stranger's. Raises LabError, naming its source, if there are none.

    >>> parse_json("[" * 10_000 + "]" * 10_000, "a.json")
    Traceback (most recent call last):
    convolab.core.errors.LabError: a.json is nested too deeply to be read (more than 100 levels)
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise LabError(f"{source} is nested too deeply to be read (more than {MAX_NESTING} levels)") from None
    except ValueError as error:
        raise LabError(f"{source} is not JSON: {error}") from error
    require_shallow(value, source)
    return value


def require_shallow(value: object, source: Path | str) -> None:
    """Raise LabError if lists and tables are nested deeper than the functions that walk through them can go."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [
            entry
            for holder in level
            if isinstance(holder, dict | list)
            for entry in (holder.values() if isinstance(holder, dict) else holder)
        ]
        if not level:
            return
    raise LabError(f"{source} is nested too deeply to be read (more than {MAX_NESTING} levels)")
