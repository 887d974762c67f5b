"""The runs and studies below one folder: found, named and opened, and no path outside it is ever touched."""

import json
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import MAX_NAME_BYTES
from convolab.core.run_files import SUMMARY_FILE

if TYPE_CHECKING:
    from convolab.training.run import Run

MAX_DEPTH = 8  # folders below the runs folder in which runs are looked for
MAX_FOLDERS = 20_000  # that are looked at
MAX_LISTED = 500  # runs of a list, the latest ones
STUDY_FILE = "study.toml"
NEW_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
MAX_NEW_NAME = 80
MAX_KEPT_BYTES = 200_000_000  # as JSON, of what was read of runs; what was looked at longest ago goes
Cached = TypeVar("Cached")
Signature = tuple[tuple[int, int, int], ...]  # of files: inode, bytes and time of each


@dataclass(frozen=True)
class CachedRead:
    """What was read of a folder."""

    signature: Signature  # of the files then
    value: object
    num_bytes: int  # as JSON


@dataclass(frozen=True)
class Found:
    """What is below the folder."""

    runs: tuple[str, ...]  # names: paths from the folder, with /
    studies: tuple[str, ...]  # the runs of a study are not among the runs


class RunsFolder:
    """The folder whose runs the page shows.

    Args:
        root: the folder, which need not exist yet.

    A run is named by its path from there, such as "digits" or "rates/runs/0f3a". Links are not followed.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.cache: OrderedDict[tuple[str, str], CachedRead] = OrderedDict()
        self.num_bytes = 0  # of the cache
        self.lock = threading.Lock()

    def find(self) -> Found:
        """All runs and studies by name; damaged ones are among them."""
        runs, studies = [], []
        for folder, names in walk(self.root):
            name = folder.relative_to(self.root).as_posix()
            if STUDY_FILE in names:
                studies.append(name)
            elif SUMMARY_FILE in names and name != ".":
                runs.append(name)
        inside = tuple(f"{study}/" for study in studies)
        return Found(tuple(sorted(n for n in runs if not n.startswith(inside))), tuple(sorted(studies)))

    def latest(self) -> list[str]:
        """All runs, that first whose summary was written last."""
        times = {name: file_signature(self.root / name / SUMMARY_FILE)[2] for name in self.find().runs}
        return sorted(times, key=lambda name: times[name], reverse=True)

    def path(self, name: str) -> Path:
        """The folder of a run or study of that name.

        Raises LabError for a name that leads out of the folder or over a link, and where there is no such folder.
        """
        shown = escape_line(name, 120)
        parts = PurePosixPath(name).parts
        is_plain = (
            bool(name) and "\0" not in name and "\\" not in name and not name.startswith("/") and ".." not in parts
        )
        is_short = len(parts) <= MAX_DEPTH and all(len(os.fsencode(part)) <= MAX_NAME_BYTES for part in parts)
        require(is_plain and is_short, f"'{shown}' is not the name of a run here: choose one of the list")
        path = self.root
        for part in parts:
            path /= part
            try:
                kind = path.lstat().st_mode
            except OSError:
                raise LabError(
                    f"there is no '{shown}' in {self.root}: it may have been deleted; choose another"
                ) from None
            require(stat.S_ISDIR(kind), f"'{shown}' is a link or a file, and not the folder of a run: choose another")
        return path

    def run(self, name: str) -> "Run":
        """A run. Raises LabError if there is none, or one of its files is a link to elsewhere."""
        from convolab.training.run import Run

        return Run(require_no_links(self.path(name)))

    def study(self, name: str) -> Path:
        """The folder of a study. Raises LabError as `run` does."""
        path = require_no_links(self.path(name))
        require((path / STUDY_FILE).is_file(), f"'{escape_line(name, 120)}' holds no study: choose one of the list")
        for run in (path / "runs").glob("*/"):
            require_no_links(run)
        return path

    def new(self, name: str) -> Path:
        """The folder that a new run or study of that name would have.

        Raises LabError for a name that is none, and for one that is taken.
        """
        fits = 0 < len(name) <= MAX_NEW_NAME and set(name) <= NEW_NAME_CHARACTERS and name[0] not in ".-"
        require(
            fits,
            f"'{escape_line(name, 120)}' cannot be the name of a new folder: give up to {MAX_NEW_NAME} letters, digits, "
            "points, hyphens and underscores, a letter or digit first",
        )
        require(not os.path.lexists(self.root / name), f"{self.root / name} is there already: give another name")
        return self.root / name

    def free_name(self, stem: str, taken: Collection[str] = ()) -> str:
        """A name that no folder has yet, nor any of those that are taken by what is still to begin.

        >>> RunsFolder("nowhere").free_name("a net/digits")
        'a-net-digits-1'
        """
        stem = "".join(letter if letter in NEW_NAME_CHARACTERS else "-" for letter in stem).strip(".-")[:60] or "run"
        return next(
            name
            for number in range(1, 10_000)
            if not os.path.lexists(self.root / (name := f"{stem}-{number}")) and name not in taken
        )

    def cached(self, kind: str, name: str, files: tuple[str, ...], read: Callable[[], Cached]) -> Cached:
        """What `read` gives, read again only when one of the files of a folder has changed.

        It is a value of JSON. Of all that was read so many bytes are kept, what was asked for last.
        """
        key, signature = (kind, name), tuple(file_signature(self.root / name / file) for file in files)
        with self.lock:
            known = self.cache.get(key)
            if known and known.signature == signature:
                self.cache.move_to_end(key)
                return known.value  # pyright: ignore[reportReturnType]
        value = read()
        new = CachedRead(signature, value, len(json.dumps(value)))
        with self.lock:
            if old := self.cache.pop(key, None):
                self.num_bytes -= old.num_bytes
            self.cache[key] = new
            self.num_bytes += new.num_bytes
            while self.num_bytes > MAX_KEPT_BYTES:
                self.num_bytes -= self.cache.popitem(last=False)[1].num_bytes
        return value


def file_signature(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written again; zeros if there is none."""
    try:
        status = path.lstat()
    except OSError:
        return (0, 0, 0)
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def walk(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """The folders below one, each with the names in it; hidden ones and links are left out."""
    waiting = [(root, 0)]
    for _ in range(MAX_FOLDERS):
        if not waiting:
            return
        folder, depth = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:  # it was deleted meanwhile, or may not be read
            continue
        yield folder, {entry.name for entry in entries}
        if depth < MAX_DEPTH:
            waiting += [
                (folder / entry.name, depth + 1)
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            ]


def require_no_links(folder: Path) -> Path:
    """The folder. Raises LabError if one of its files is a link, which might lead anywhere."""
    try:
        links = [entry.name for entry in os.scandir(folder) if entry.is_symlink()]
    except OSError as error:
        raise LabError(f"{folder} cannot be read ({error.strerror}): check its permissions") from error
    require(not links, f"{folder} holds a link, {escape_line(', '.join(links), 80)}: the page opens no links")
    return folder
