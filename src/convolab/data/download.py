"""Downloads, complete and with the right checksum or not at all, and the folder that a dataset's files are in."""

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convolab.core.environment import data_root
from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.files import translate_write_errors, user_path
from convolab.core.text import format_bytes
from convolab.data.download_stream import ConnectionLost, DownloadError, DownloadStream
from convolab.data.storage import record_files

ProgressCallback = Callable[[int, int | None], object]  # called with (done, total); total is None where it is unknown

DOWNLOAD_ATTEMPTS = 3  # how often a broken connection is resumed
MAX_DOWNLOAD_BYTES = 1_000_000_000  # of a file whose size is not known
MAX_ARCHIVE_BYTES = 1_000_000_000  # of all that an archive contains; CIFAR-10's are 186 million
MAX_ARCHIVE_MEMBERS = 1_000


@dataclass(frozen=True)
class RemoteFile:
    """One published file."""

    url: str
    checksum: str  # "sha256:..." or "md5:..."

    @property
    def filename(self) -> str:
        """The file's own name, the end of its URL."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class DatasetFiles:
    """What a dataset is downloaded from, and what it consists of on the disk."""

    name: str
    folder: str = field(default="", kw_only=True)  # the name of the folder it is kept in
    required_files: tuple[str, ...] = field(default=(), kw_only=True)  # what a complete folder holds
    downloads: tuple[RemoteFile, ...] = field(default=(), kw_only=True)  # these files, or one archive of the folder
    download_size_mb: float = field(default=0.0, kw_only=True)  # of all downloads; 0 if there are none

    @property
    def is_archive(self) -> bool:
        """Whether the download is an archive to extract."""
        return len(self.downloads) == 1

    @property
    def max_download_bytes(self) -> int:
        """What no file of the dataset is larger than: the size of all, rounded up."""
        return round((self.download_size_mb + 1) * 1e6)

    def missing_files(self, folder: Path) -> list[str]:
        """The names of the required files that are not in a folder."""
        return [name for name in self.required_files if not (folder / name).is_file()]


def redownload_hint(what: str = "it") -> str:
    """How an error about a damaged download ends.

    >>> redownload_hint("the folder")
    'delete the folder to download it again'
    """
    return f"delete {what} to download it again"


def ensure_downloaded(
    dataset: DatasetFiles, data_dir: Path | str | None, on_progress: ProgressCallback | None, allow_download: bool
) -> Path:
    """The folder of a dataset: as it is on the disk, or from files put there by hand, or downloaded.

    Args:
        dataset: what to have on the disk.
        data_dir: the folder that holds datasets, or the dataset's own folder; None is `data_root()`.
        on_progress: called with (bytes done, bytes in total) while a file is downloaded.
        allow_download: whether the network may be used.

    Raises LabError if the dataset is not there and cannot or may not be downloaded, or its checksum is wrong.
    """
    data_dir = user_path(data_dir or data_root())
    is_dataset_folder = data_dir.name == dataset.folder or not dataset.missing_files(data_dir)
    folder = data_dir if is_dataset_folder else data_dir / dataset.folder
    if not dataset.missing_files(folder):
        return folder

    download_folder = folder.parent if dataset.is_archive else folder
    missing = [file for file in dataset.downloads if not (download_folder / file.filename).exists()]
    require(
        allow_download or not missing,
        f"{dataset.name} is not in {data_dir}: {manual_download_hint(missing, download_folder)}, or allow the download",
    )

    from filelock import FileLock  # takes 0.05 s to import, and most runs find their dataset on the disk

    with translate_write_errors(download_folder):
        download_folder.mkdir(parents=True, exist_ok=True)
        with FileLock(download_folder / f".{dataset.name}.lock"):  # of several runs that start together, one downloads
            if dataset.missing_files(folder):
                download_and_extract(dataset, folder, download_folder, on_progress)
    return folder


def download_and_extract(
    dataset: DatasetFiles, folder: Path, download_folder: Path, on_progress: ProgressCallback | None
) -> None:
    missing = ", ".join(dataset.missing_files(folder))
    require(
        not (dataset.is_archive and folder.exists()),
        f"{folder} is missing {missing}: add what is missing, or {redownload_hint('the folder')}",
    )
    downloaded = []
    for file in dataset.downloads:
        path = download_folder / file.filename
        if os.path.lexists(path):  # a broken link too, which is somebody's
            require(
                matches_checksum(path, file.checksum),
                f"{path} is not the file at {file.url} (its {file.checksum.split(':')[0]} differs): delete it",
            )
            continue
        if not (partial := partial_path(path)).exists():
            record_files(download_folder, dataset.name, [partial])
        try:
            download_file(file.url, path, file.checksum, on_progress, dataset.max_download_bytes)
        except DownloadError as error:
            not_downloaded = [file for file in dataset.downloads if not (download_folder / file.filename).exists()]
            raise LabError(
                f"{error}: try again later, or {manual_download_hint(not_downloaded, download_folder)}"
            ) from error
        record_files(download_folder, dataset.name, [path])
        downloaded.append(path)
    if dataset.is_archive:
        extract_archive(download_folder / dataset.downloads[0].filename, folder)
        record_files(download_folder, dataset.name, [path for path in folder.rglob("*") if path.is_file()])
        for path in downloaded:  # an archive that the user put there stays; a downloaded one only takes up space
            path.unlink()
    missing = ", ".join(dataset.missing_files(folder))
    require(
        not missing,
        f"{folder} is missing {missing}, although it was just downloaded: delete the folder and report this",
    )


def manual_download_hint(files: Sequence[RemoteFile], download_folder: Path) -> str:
    urls = " and ".join(file.url for file in files)
    return f"download {urls} and put {'it' if len(files) == 1 else 'them'} in {download_folder}"


def partial_path(path: Path) -> Path:
    """Where the bytes of a file are kept while its download is incomplete."""
    return path.with_name(path.name + ".part")


def download_file(
    url: str,
    path: Path,
    checksum: str,
    on_progress: ProgressCallback | None = None,
    max_bytes: int | None = None,
) -> Path:
    """Download `url` to `path`, and return `path`; `checksum` is "sha256:..." or "md5:...".

    A file that turns out to be larger than `max_bytes`, by default MAX_DOWNLOAD_BYTES, is not read further than that, and
    not kept.

    What was received is kept in `path`.part until it is complete, and a later call resumes from there, also after a
    kill.
    Raises DownloadError if the URL cannot be reached, does not have the file or breaks off, and LabError if the
    file is too large, its checksum differs or it cannot be written.
    """
    partial = partial_path(path)
    max_bytes = MAX_DOWNLOAD_BYTES if max_bytes is None else max_bytes
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (partial.exists() and matches_checksum(partial, checksum)):
            if not any(resume_download(url, partial, on_progress, max_bytes) for _ in range(DOWNLOAD_ATTEMPTS)):
                raise DownloadError(f"the connection to {url} was lost {DOWNLOAD_ATTEMPTS} times")
            if not matches_checksum(partial, checksum):
                partial.unlink()
                raise LabError(
                    f"the file downloaded from {url} is not the published one (its {checksum.split(':')[0]} differs): "
                    "try again, or from another network"
                )
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    return path


def matches_checksum(path: Path, checksum: str) -> bool:
    """Whether a file has the checksum, e.g. "md5:..."; md5 guards against damage, not against malice."""
    algorithm, _, expected = checksum.partition(":")
    require(path.is_file(), f"{path} is not a file: move it away")
    if path.stat().st_size > MAX_DOWNLOAD_BYTES:  # no published file is so large; this one may have holes
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest() == expected


def resume_download(url: str, partial: Path, on_progress: ProgressCallback | None, max_bytes: int) -> bool:
    """Append to `partial` what is still missing; False if another attempt is worthwhile.

    Raises LabError, with `partial` deleted, as soon as it is known that there are more than `max_bytes`.
    """
    done = partial.stat().st_size if partial.exists() else 0
    with DownloadStream(url, done) as stream:
        if stream.is_past_end:  # the file ends here or before, and its checksum differs: start again
            partial.unlink()
            return False
        with partial.open("ab") as file:
            content_range = stream.headers["Content-Range"] or ""
            if not content_range.startswith(f"bytes {done}-"):  # the server starts from the beginning
                file.truncate(0)
                done = 0
            length = stream.headers["Content-Length"]
            total = done + int(length) if length and len(length) < 20 and length.isdecimal() else None
            require_size(total or done, max_bytes, url, partial)
            try:
                for chunk in stream.chunks():
                    done += len(chunk)
                    require_size(done, max_bytes, url, partial)
                    file.write(chunk)
                    if on_progress:
                        on_progress(done, total)
            except ConnectionLost:
                return False
            return total is None or done == total


def require_size(num_bytes: int, max_bytes: int, url: str, partial: Path) -> None:
    if num_bytes > max_bytes:
        partial.unlink()
        raise LabError(
            f"the file at {url} is larger than {format_bytes(max_bytes)}: it is not the published one; "
            "try again, or from another network"
        )


class BoundedReader(io.RawIOBase):
    """A stream of which no more than so many bytes are read: what is small when compressed may be endless."""

    def __init__(self, stream: io.BufferedIOBase, max_bytes: int, name: Path) -> None:
        self.stream = stream
        self.remaining = max_bytes
        self.too_large = f"{name} unpacks to more than {format_bytes(max_bytes)}: do not trust it, delete it"

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(self.remaining + 1 if size < 0 else min(size, self.remaining + 1))
        self.remaining -= len(content)
        require(self.remaining >= 0, self.too_large)
        return content


def extract_archive(archive: Path, folder: Path) -> None:
    """Extract a tar.gz that contains one folder, named like `folder`, so that `folder` appears whole or not at all.

    One process at a time: what an interrupted one left behind is deleted.
    Raises LabError if the archive is damaged, unpacks to more than `MAX_ARCHIVE_BYTES` or `MAX_ARCHIVE_MEMBERS`,
    contains anything but plain files and folders, or reaches out of its folder.
    """
    import gzip
    import tarfile
    import zlib

    temporary = folder.with_name(f".{folder.name}.part")
    require(not folder.exists(), f"{folder} exists already: delete it to extract {archive.name} again")
    try:
        with translate_write_errors(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            with (
                gzip.open(archive) as compressed,
                BoundedReader(compressed, MAX_ARCHIVE_BYTES, archive) as stream,
                tarfile.open(fileobj=stream, mode="r|") as tar,
            ):
                # Python has this filter from 3.11.4 on; it refuses less than is wanted here.
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                for count, member in enumerate(tar, start=1):
                    name = escape_line(member.name, 100)
                    require(
                        count <= MAX_ARCHIVE_MEMBERS,
                        f"{archive} contains more than {MAX_ARCHIVE_MEMBERS:,} files: do not trust it, delete it",
                    )
                    is_inside = not member.name.startswith("/") and ".." not in Path(member.name).parts
                    require(
                        is_inside,
                        f"{archive} contains '{name}', a path outside its folder: do not trust it, delete it",
                    )
                    require(
                        (member.isfile() and not member.issparse()) or member.isdir(),
                        f"{archive} contains '{name}', a link, a device or a file with holes: do not trust it, delete it",
                    )
                    try:
                        tar.extract(member, temporary)
                    except OSError as error:
                        require(
                            error.errno not in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
                            f"{archive} contains '{name}', which cannot be beside its other files ({error.strerror}): do not "
                            "trust it, delete it",
                        )
                        raise
                while stream.read(1 << 18):  # to the end, where gzip compares its checksum
                    pass
            for path in temporary.rglob("*"):
                if path.is_file():
                    with path.open("rb+") as file:
                        os.fsync(file.fileno())
            require(
                (temporary / folder.name).is_dir(),
                f"{archive} contains no folder {folder.name}: it is a different archive, delete it",
            )
            os.replace(temporary / folder.name, folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as error:
        raise LabError(f"{archive} is damaged ({escape_line(str(error), 200)}): {redownload_hint()}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
