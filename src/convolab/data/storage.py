"""What convolab itself has written to the disk, downloaded datasets and caches, and how to free the space.

A dataset's files are recorded, with size and modification time, when they are downloaded. Only a file that is still as
it was recorded is deleted: what the user put there, changed or linked to stays, and so does a folder with such a file.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from convolab.core.environment import CACHE_TAG, CACHE_TAG_TEXT, data_root
from convolab.core.errors import LabError, require, suggest
from convolab.core.files import read_json, read_text, user_path, write_json

RECORD_FORMAT = 1
RECORD_SUFFIX = ".files.json"  # of .NAME.files.json, in the folder of the files


class FileRecord(TypedDict):
    """A file as it was when it was recorded."""

    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class StoredItem:
    """A downloaded dataset or a cache, which `clean` can delete."""

    name: str
    kind: Literal["dataset", "cache"]
    folder: Path  # where its files are
    files: tuple[Path, ...]
    num_bytes: int  # of all files


def record_files(folder: Path, name: str, files: Iterable[Path]) -> None:
    """Record files below `folder` as convolab's, of dataset `name`; of one that does not exist yet only the path."""
    record = record_path(folder, name)
    entries = read_record(record)
    for path in files:
        entries[path.relative_to(folder).as_posix()] = describe_file(path) if path.exists() else None
    write_json(record, {"format": RECORD_FORMAT, "files": entries})


def list_stored(data_dir: Path | str | None = None) -> list[StoredItem]:
    """The datasets and caches in a folder (by default `data_root()`) that convolab made and `clean` can delete."""
    root = user_path(data_dir or data_root())
    folders = [root, *(path for path in subfolders(root) if path.name != "cache")]
    datasets = [
        stored_item(name_of_record(record), "dataset", folder, unchanged_files(record))
        for folder in folders
        for record in sorted(folder.glob(f".*{RECORD_SUFFIX}"))
    ]
    caches = [
        stored_item(folder.name, "cache", folder, (path for path in folder.rglob("*") if not path.is_dir()))
        for folder in subfolders(root / "cache")
        if is_tagged(folder)
    ]
    return [*(item for item in datasets if item.files), *caches]


def find_stored(names: Iterable[str] | None, data_dir: Path | str | None = None) -> list[StoredItem]:
    """The items of `list_stored` with these names; None: all. Raises LabError for a name that is not stored."""
    root = user_path(data_dir or data_root())
    stored = list_stored(root)
    known = {item.name for item in stored}
    wanted = known if names is None else set(names)
    for name in wanted:
        require(name in known, f"convolab has stored no '{name}' in {root}: {suggest(name, known)}")
    return [item for item in stored if item.name in wanted]


def clean(names: Iterable[str], data_dir: Path | str | None = None) -> int:
    """Delete datasets and caches of `list_stored` by name, and return how many bytes that freed.

    Raises LabError, before anything is deleted, for a name that is not stored; and if a file cannot be deleted or a
    dataset is being downloaded.
    """
    root = user_path(data_dir or data_root())
    freed = 0
    for item in find_stored(names, root):
        freed += item.num_bytes
        try:
            if item.kind == "dataset":
                delete_dataset(item, root)
            else:
                shutil.rmtree(item.folder)
        except OSError as error:
            raise LabError(f"cannot delete {error.filename} ({error.strerror}): check who owns it") from error
    return freed


def stored_item(name: str, kind: Literal["dataset", "cache"], folder: Path, files: Iterable[Path]) -> StoredItem:
    files = tuple(files)
    return StoredItem(name, kind, folder, files, sum(path.lstat().st_size for path in files))


def delete_dataset(item: StoredItem, root: Path) -> None:
    from filelock import FileLock, Timeout

    lock = item.folder / f".{item.name}.lock"
    try:
        with FileLock(lock, timeout=0):
            for path in item.files:
                path.unlink()
            record_path(item.folder, item.name).unlink()
    except Timeout as error:
        raise LabError(f"{item.name} is being downloaded to {item.folder}: wait until it is there") from error
    lock.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in item.files} - {root}, reverse=True):  # inner folders first
        with suppress(OSError):  # it holds something else, which stays
            folder.rmdir()


def record_path(folder: Path, name: str) -> Path:
    return folder / f".{name}{RECORD_SUFFIX}"


def name_of_record(record: Path) -> str:
    return record.name.removesuffix(RECORD_SUFFIX).removeprefix(".")


def read_record(record: Path) -> dict[str, FileRecord | None]:
    """The recorded files by their path; none if there is no record, or one that cannot be understood."""
    try:
        return dict(read_json(record)["files"])
    except (LabError, LookupError, TypeError, ValueError):
        return {}


def describe_file(path: Path) -> FileRecord:
    status = path.lstat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def unchanged_files(record: Path) -> Iterator[Path]:
    """The recorded files that are still there as they were, reached through no link."""
    folder = record.parent.resolve()
    for name, entry in read_record(record).items():
        path = folder / name
        is_inside = path.resolve() == path and path.is_relative_to(folder)
        if is_inside and path.is_file() and entry in (None, describe_file(path)):
            yield record.parent / name


def subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def is_tagged(folder: Path) -> bool:
    """Whether convolab made this cache folder."""
    try:
        return read_text(folder / CACHE_TAG) == CACHE_TAG_TEXT
    except LabError:
        return False
