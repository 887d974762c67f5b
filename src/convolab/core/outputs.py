"""Files that a command or a `save` leaves: only where nothing was, or onto what the same kind of output wrote before.

Each ends in a marker such as [convolab: explain 0123abcd], in a form that its format allows: the kind of the output,
and the CRC-32 of all that stands before. So a file that a person changed is no longer ours. CSV has no place for a
marker: there the line of headings tells.
"""

import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from convolab.core.errors import LabError, require
from convolab.core.escape import file_name_part
from convolab.core.files import atomic_write, json_text, require_short_names, require_writable, translate_path_errors

# What is written. A finding's files are of the kind of its tool: explain, fool, locate.
CALIBRATION, MISTAKES, NETWORK_EXPORT, PAPER = "calibration", "mistakes", "network", "paper"
PAPER_FIGURE, PLAYBACK = "paper figure", "playback"
COMPARISON, CONFUSION_MATRIX, CONTACT_SHEET = "comparison", "confusion matrix", "contact sheet"
LOCALIZATION_SCORES, NETWORK_SUMMARY, OVERFIT_CHECK = "localization scores", "network summary", "overfit check"
STUDY_POWER = "study power"
SEARCH_TABLE = "search table"
QUESTION_1, STUDY_EXPORT, STUDY_REPORT, TRAINING_CURVES = (
    "question 1",
    "study export",
    "study report",
    "training curves",
)

COMMENTS = {  # around the marker, at the end of a file
    ".html": (b"\n<!-- ", b" -->\n"),
    ".svg": (b"\n<!-- ", b" -->\n"),
    ".md": (b"\n<!-- ", b" -->\n"),
    ".pdf": (b"\n% ", b"\n"),
    ".tex": (b"\n% ", b"\n"),
    ".toml": (b"\n# ", b"\n"),
    ".json": (b',\n  "written_by": "', b'"\n}\n'),  # the last entry
}
CHART_COMMENT = (b',\n  "usermeta": {"written_by": "', b'"}\n}\n')  # the same in a chart of Vega-Lite
PNG_TEXT = b"tEXtSoftware\0"  # the type of a text's chunk, and its keyword
MARKER_SPAN = 200  # bytes at the end of a file, in which its marker is
PNG_END_BYTES = 12  # of the last chunk
MAX_OWN_BYTES = 2_000_000_000  # of a file that is looked at before it is replaced


def require_outputs(kind: str, paths: Iterable[Path], inputs: Iterable[Path | str] = (), csv_header: str = "") -> None:
    """Raise LabError, before any work is done, unless files of a kind can be written without harm.

    Each path must be free or hold what the same kind of output wrote there, in a folder that can be written; and no
    file may be one that the command reads.

    Args:
        kind: what the files are, such as "explain".
        paths: where they go.
        inputs: what the command reads; what is no path of a file is passed over.
        csv_header: the first line of a .csv among them.
    """
    read: list[os.stat_result] = []
    for path in inputs:
        with suppress(LabError):
            read += [status] if (status := file_status(path)) else []
    seen: set[Path] = set()
    for path in paths:
        with translate_path_errors():
            require_short_names(path)
            real = path.parent.resolve() / path.name
        require(real not in seen, f"two outputs would be {path}: give each a name of its own")
        seen.add(real)
        require_writable(path.parent)
        require_replaceable(kind, path, csv_header)
        status = file_status(path)
        require(
            status is None or not any(os.path.samestat(status, other) for other in read),
            f"{path} is read by this command and would be replaced: choose another name",
        )


def own_kind(kind: str, name: str) -> str:
    """The kind of what belongs to one run or study, so that it never replaces another's.

    >>> own_kind(STUDY_REPORT, "lr sweep")
    'study report of lr-sweep'
    """
    return f"{kind} of {file_name_part(name).encode('ascii', 'replace').decode()}"


def require_replaceable(kind: str, path: Path, csv_header: str = "") -> None:
    """Raise LabError unless nothing is at the path, or a file of this kind as it was written."""
    status = file_status(path, follow_symlinks=False)
    if status is None:
        return
    require(not stat.S_ISDIR(status.st_mode), f"{path} is a folder: choose another name")
    require(not stat.S_ISLNK(status.st_mode), f"{path} is a symbolic link: choose another name, or delete it")
    require(stat.S_ISREG(status.st_mode), f"{path} is not a regular file: choose another name")
    if not is_own_output(kind, path, status.st_size, csv_header):
        reason = describe_content(kind, path, status.st_size)
        raise LabError(f"{path} exists, and {reason}: choose another name, or delete the file")


def file_status(path: Path | str, *, follow_symlinks: bool = True) -> os.stat_result | None:
    """The status of a file; None where there is none. Raises LabError for a path that cannot be looked at."""
    try:
        return os.stat(path, follow_symlinks=follow_symlinks)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        with translate_path_errors():
            raise


def is_own_output(kind: str, path: Path, size: int, csv_header: str) -> bool:
    """Whether a file is as this kind of output wrote it."""
    if size > MAX_OWN_BYTES:
        return False
    with translate_path_errors():
        content = path.read_bytes()
    if path.suffix.lower() == ".csv":
        return content.partition(b"\n")[0] == csv_header.encode() != b""
    marker = content[-MARKER_SPAN:].rpartition(f"[convolab: {kind} ".encode())
    if not marker[1]:
        return False
    start = content[: len(content) - len(marker[1] + marker[2])]
    return marker[2].startswith(checksum(start))


def describe_content(kind: str, path: Path, size: int) -> str:
    """Whose a file is that an output of this kind must not replace: a person's, or convolab's of another kind or run."""
    with translate_path_errors(), path.open("rb") as file:
        file.seek(max(0, size - MARKER_SPAN))
        marker = re.search(rb"\[convolab: ([^\[\]\n]+) [0-9a-f]{8}\]", file.read(MARKER_SPAN))
    if marker is None:
        return f"has no sign that convolab wrote it as {named_kind(kind)}"
    found = marker[1].decode("ascii", "replace")
    if found == kind:
        return f"was changed since convolab wrote it as {named_kind(kind)}"
    return f"convolab wrote it as {named_kind(found)}, not as {named_kind(kind)}"


def named_kind(kind: str) -> str:
    """A kind for people, who do not know that twelve hexadecimal digits are the key of a run's recipe.

    >>> named_kind("training curves of 0123456789ab"), named_kind("study report of lr-sweep")
    ('training curves of a run of recipe 0123456789ab', 'study report of lr-sweep')
    """
    return re.sub(r" of ([0-9a-f]{12})$", r" of a run of recipe \1", kind)


def checksum(content: bytes) -> bytes:
    return f"{zlib.crc32(content):08x}]".encode()


def add_marker(content: bytes, suffix: str, kind: str) -> bytes:
    """The content of a file with the marker of its kind at the end."""
    if suffix == ".csv":
        return content
    length = len(f"[convolab: {kind} 01234567]")
    start, end = content, b""
    if suffix == ".png":
        start, end = content[:-PNG_END_BYTES], content[-PNG_END_BYTES:]
        start += (len(PNG_TEXT) - 4 + length).to_bytes(4, "big") + PNG_TEXT
    elif suffix == ".onnx":  # a field that no reader of ONNX knows, and that all of them skip: 1000, of bytes
        start += b"\xc2\x3e" + length.to_bytes(1, "little")
    elif suffix in (".npz", ".zip", ".pt2"):
        start = content[:-2] + length.to_bytes(2, "little")  # an archive ends in the length of its comment, and that
    elif suffix in COMMENTS:
        before, end = CHART_COMMENT if suffix == ".json" and b'"$schema"' in content else COMMENTS[suffix]
        start = content.rstrip()
        start = (start.removesuffix(b"}").rstrip() if suffix == ".json" else start) + before
    marker = f"[convolab: {kind} ".encode() + checksum(start)
    if suffix == ".png":
        end = zlib.crc32(PNG_TEXT + marker).to_bytes(4, "big") + end
    return start + marker + end


@contextmanager
def output_file(path: Path | str, kind: str) -> Iterator[Path]:
    """Yield a temporary path to write an output to; it is marked and appears at `path` whole or not at all.

    Raises LabError if something else is there, or the file cannot be written.

    >>> import tempfile; path = Path(tempfile.mkdtemp()) / "notes.md"
    >>> for text in ("first", "second"):
    ...     with output_file(path, "notes") as temporary: _ = temporary.write_text(text)
    >>> path.read_text().splitlines()
    ['second', '<!-- [convolab: notes fc059546] -->']
    >>> with output_file(path, "report") as temporary: pass
    Traceback (most recent call last):
    convolab.core.errors.LabError: ...notes.md exists, and convolab wrote it as notes, not as report: choose another name, ...
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix != ".csv":  # its headings are known when it is written
        require_replaceable(kind, path)
    with atomic_write(path) as temporary:
        yield temporary
        content = temporary.read_bytes()
        if suffix == ".csv":
            require_replaceable(kind, path, content.decode().partition("\n")[0])
        temporary.write_bytes(add_marker(content, suffix, kind))


def write_output(path: Path | str, kind: str, content: str | bytes) -> None:
    """Write an output of a kind."""
    with output_file(path, kind) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json_output(path: Path | str, kind: str, values: Mapping[str, object]) -> None:
    """Write values as JSON, the kind as their last entry."""
    write_output(path, kind, json_text(values))
