"""A hand-in's zip, read with bounds: nothing of it is run, and what could do harm is refused before it is unpacked."""

import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from convolab.core.errors import LabError, require
from convolab.core.files import parse_json, sha256_of_file, translate_path_errors
from convolab.core.text import format_bytes, pluralize
from convolab.data.image_npz import ZIP_ERRORS
from convolab.handin.notebook_file import one_line
from convolab.handin.pack import MAX_MANIFEST_BYTES

MAX_ZIP_BYTES = 200_000_000  # of the file
MAX_MEMBERS = 3_000
MAX_DIRECTORY_BYTES = 1_000_000  # of the zip's list of its members, which is read before they are counted
MAX_UNPACKED_BYTES = 400_000_000  # of all members
MAX_RATIO = 200  # bytes that a member may claim to hold for each of its own, beyond FREE_BYTES
FREE_BYTES = 1_000_000
MAX_DEPTH = 8  # folders in one another
MAX_HAND_INS = 2_000
MANIFEST = "manifest.json"
END_RECORD = b"PK\x05\x06"  # at the end of a zip: where the list of its members is, and how long
END_RECORD_BYTES, MAX_COMMENT_BYTES = 22, 65_535
ZIP64_LOCATOR = b"PK\x06\x07"  # before it in a zip of over 65,535 members or 4 GB
ZIP64_LOCATOR_BYTES = 20
ASK_AGAIN = "ask for the file that `convolab handin pack` writes"
NOT_READ = "nothing of it was read, ask for another"
FIRST_RECORD = b"PK\x03\x04"  # at the start of a zip with members


@dataclass(frozen=True)
class HandIn:
    """What one zip holds."""

    path: Path
    sha256: str  # of the zip
    files: dict[str, bytes]
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """Who handed it in, as the manifest says."""
        return one_line(str(self.manifest.get("name") or "")) or self.path.stem


def find_hand_ins(paths: Sequence[Path]) -> list[Path]:
    """The zips of a command: files as they are, of a folder those in it and in the folders below it, by name.

    Raises LabError if there is none, or a path is missing.
    """
    found: list[Path] = []
    for path in paths:
        with translate_path_errors(path):
            require(path.exists(), f"there is no {path}")
            zips = [path]
            if path.is_dir():
                zips = zips_below(path)
                require(zips, f"{path} holds no zip: give the hand-ins, or the folder that they are in")
        found += zips
    found = list(dict.fromkeys(found))
    require(len(found) <= MAX_HAND_INS, f"{len(found):,} hand-ins: give at most {MAX_HAND_INS:,}")
    return found


def zips_below(folder: Path) -> list[Path]:
    """What ends in .zip in a folder and in the folders below it, by name; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise error  # a folder that cannot be read may hold a hand-in

    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        zips = [name for name in (*folders, *files) if name.lower().endswith(".zip")]
        folders[:] = [name for name in folders if name not in zips]
        found += [Path(parent, name) for name in zips]
    return sorted(found)


def zip_labels(files: Sequence[Path]) -> list[str]:
    """What each zip is called: by its name, and by its folder too where several have that name.

    >>> zip_labels([Path("inbox/ada/handin.zip"), Path("inbox/bela/handin.zip"), Path("inbox/c.zip")])
    ['ada/handin.zip', 'bela/handin.zip', 'c.zip']
    """
    counts = Counter(file.name for file in files)
    return [file.name if counts[file.name] == 1 else f"{file.parent.name}/{file.name}" for file in files]


def read_hand_in(path: Path) -> HandIn:
    """The content of a hand-in. Raises LabError, in one line and before anything is unpacked, for what it cannot be."""
    try:
        status = path.stat()
        require(stat.S_ISREG(status.st_mode), f"{path} is not a regular file: {ASK_AGAIN}")
        require(
            status.st_size <= MAX_ZIP_BYTES,
            f"{path} has {format_bytes(status.st_size)}: at most {format_bytes(MAX_ZIP_BYTES)} are read",
        )
        require_small_directory(path)
        digest = sha256_of_file(path)
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            require_harmless(path, members)
            files = {member.filename: read_member(archive, member) for member in members}
    except OSError as error:
        raise LabError(f"cannot read {path} ({error.strerror or error})") from error
    except ZIP_ERRORS as error:
        raise LabError(f"{path} is a damaged zip ({one_line(str(error))}): {ASK_AGAIN}") from error
    require_packed(path, files)
    require(
        len(files[MANIFEST]) <= MAX_MANIFEST_BYTES,
        f"{MANIFEST} of {path} has {format_bytes(len(files[MANIFEST]))}: at most {format_bytes(MAX_MANIFEST_BYTES)} are read",
    )
    try:
        manifest = parse_json(files[MANIFEST].decode(), f"{MANIFEST} of {path}")
    except UnicodeDecodeError as error:
        raise LabError(f"{MANIFEST} of {path} is not text: {ASK_AGAIN}") from error
    require(isinstance(manifest, dict), f"{MANIFEST} of {path} holds no fields: {ASK_AGAIN}")
    return HandIn(path, digest, files, manifest)


def require_packed(path: Path, names: Collection[str]) -> None:
    """Raise LabError, by what a zip holds in its place, unless it has the manifest of a hand-in."""
    require(names, f"{path} is a zip without files: {ASK_AGAIN}")
    by_hand = any(name.endswith(".ipynb") for name in names)
    require(
        MANIFEST in names or not by_hand,
        f"{path} holds notebooks but was not packed: the student must run `convolab handin pack`",
    )
    require(MANIFEST in names, f"{path} is no hand-in: it has no {MANIFEST}; {ASK_AGAIN}")


def what_it_is(start: bytes) -> str:
    """What is wrong with a file without the end of a zip, by its first bytes.

    >>> what_it_is(b""), what_it_is(b"PK\\x03\\x04")
    ('is empty (0 bytes): ask for it again', 'is cut off: ask for it again')
    """
    if not start:
        return "is empty (0 bytes): ask for it again"
    return "is cut off: ask for it again" if start == FIRST_RECORD else f"is no zip: {ASK_AGAIN}"


def require_small_directory(path: Path) -> None:
    """Raise LabError unless a zip ends in a list of its members that is short enough to be read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        length = min(size, END_RECORD_BYTES + MAX_COMMENT_BYTES + ZIP64_LOCATOR_BYTES)
        file.seek(0)
        start = file.read(len(FIRST_RECORD))
        file.seek(size - length)
        end = file.read(length)
    place = end.rfind(END_RECORD)
    require(place >= 0 and len(end) - place >= END_RECORD_BYTES, f"{path} {what_it_is(start)}")
    is_zip64 = end[max(0, place - ZIP64_LOCATOR_BYTES) : place].startswith(ZIP64_LOCATOR)
    count, num_bytes = (int.from_bytes(end[place + i : place + i + n], "little") for i, n in ((10, 2), (12, 4)))
    require(
        not is_zip64 and count <= MAX_MEMBERS and num_bytes <= MAX_DIRECTORY_BYTES,
        f"{path} has more than {MAX_MEMBERS:,} members or claims more than 4 GB: no hand-in has",
    )


def require_harmless(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise LabError unless all members are files of modest size with plain paths inside of the archive."""
    require(len(members) <= MAX_MEMBERS, f"{path} has {len(members):,} members: at most {MAX_MEMBERS:,} are read")
    total = sum(member.file_size for member in members)
    require(
        total <= MAX_UNPACKED_BYTES,
        f"{path} would unpack to {format_bytes(total)}: at most {format_bytes(MAX_UNPACKED_BYTES)} are read",
    )
    seen: set[str] = set()
    for member in members:
        name, shown = member.filename, one_line(member.orig_filename)
        problem = path_problem(name) or path_problem(member.orig_filename)
        require(not problem, f"{path} holds {shown!r}, {problem}: {NOT_READ}")
        require(name.casefold() not in seen, f"{path} holds {shown!r} twice: {NOT_READ}")
        seen.add(name.casefold())
        kind = stat.S_IFMT(member.external_attr >> 16)
        require(kind in (0, stat.S_IFREG), f"{path} holds {shown!r}, which is a link or a device: {NOT_READ}")
        require(not member.flag_bits & 1, f"{path} holds {shown!r} encrypted: {ASK_AGAIN}")
        require(
            member.file_size <= FREE_BYTES + MAX_RATIO * member.compress_size,
            f"{path} holds {shown!r}, which would unpack to {format_bytes(member.file_size)}, over {MAX_RATIO} bytes for "
            f"each of its own: {NOT_READ}",
        )
    folders = {str(parent).casefold() for member in members for parent in PurePosixPath(member.filename).parents}
    both = next((member for member in members if member.filename.casefold() in folders), None)
    require(
        both is None,
        f"{path} holds {one_line(both.orig_filename)!r} as a file and as a folder: {NOT_READ}" if both else "",
    )


def path_problem(name: str) -> str:
    """Why a member's path may not be used, or an empty text.

    >>> path_problem("evidence/run/recipe.toml"), path_problem("../../etc/passwd")
    ('', 'a path that leads out of it')
    """
    parts = name.split("/")
    if not name.isprintable() or "\\" in name:
        return "a path with characters that a hand-in does not have"
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        return "a path that leads out of it"
    if len(parts) - 1 > MAX_DEPTH:
        return f"more than {pluralize(MAX_DEPTH, 'folder')} deep"
    return (
        ""
        if all(part not in ("", ".") and len(part.encode()) <= 255 for part in parts)
        else "which is not a file's path"
    )


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member. Raises BadZipFile if it holds more than it claims."""
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise zipfile.BadZipFile(f"{one_line(member.filename)} has another size than it claims")
    return content


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Write the members into an empty folder of our own."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
