"""Files from the network: whole and with the right checksum, or not at all."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from convolab.core.errors import LabError, require
from convolab.core.files import translate_write_errors

ProgressCallback = Callable[[int, int | None], object]  # told how much is done, and of how much where that is known

STALL_TIMEOUT = 30  # seconds without a byte before a connection counts as broken
DOWNLOAD_ATTEMPTS = 3  # how often a broken connection is taken up again
DOWNLOAD_CHUNK_BYTES = 1 << 18  # bytes between two reports


class DownloadError(LabError):
    """An address does not give its file, for now or from here: another way to the same file may be open."""


def download_file(url: str, path: Path, checksum: str, on_progress: ProgressCallback | None = None) -> Path:
    """Fetch `address` to `path`, and return `path`; `checksum` reads "sha256:..." or "md5:...".

    What has come lies in `path`.part until it is whole, and a later call goes on from there, also after a kill.
    Raises Unreachable if the address cannot be reached, does not hold the file or breaks off, and LabError if the checksum
    differs or the file cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (partial.exists() and matches_checksum(partial, checksum)):
            if not any(_resume_download(url, partial, on_progress) for _ in range(DOWNLOAD_ATTEMPTS)):
                raise DownloadError(f"the connection to {url} broke {DOWNLOAD_ATTEMPTS} times")
            if not matches_checksum(partial, checksum):
                partial.unlink()
                raise LabError(
                    f"what came from {url} is not the published file (its {checksum.split(':')[0]} differs): try again, or on another network"
                )
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    return path


def matches_checksum(path: Path, checksum: str) -> bool:
    """Whether a file has the checksum, e.g. "md5:..."; md5 guards against damage, not against malice."""
    algorithm, _, expected = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest() == expected


def _resume_download(url: str, partial: Path, on_progress: ProgressCallback | None) -> bool:
    """Add to `part` what it still lacks; False if another try is worth it."""
    from http.client import HTTPException  # these two take 0.05 s to import, and most runs fetch nothing
    from urllib import error, request

    done = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "convolab"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        response = request.urlopen(request.Request(url, headers=headers), timeout=STALL_TIMEOUT)
    except error.HTTPError as refusal:
        refusal.close()
        if refusal.code == 416 and done:  # nothing lies past what we have, which is not the file: it is of no use
            partial.unlink()
            return False
        raise DownloadError(f"{url} answers {refusal.code} {refusal.reason}") from refusal
    except (OSError, HTTPException) as failure:
        raise DownloadError(f"cannot reach {url} ({getattr(failure, 'reason', failure)})") from failure

    with response, partial.open("ab") as file:
        if not (response.headers["Content-Range"] or "").startswith(
            f"bytes {done}-"
        ):  # the server starts from the beginning
            file.truncate(0)
            done = 0
        length = response.headers["Content-Length"]
        total = done + int(length) if length else None
        while True:
            try:
                chunk = response.read(DOWNLOAD_CHUNK_BYTES)
            except (OSError, HTTPException):
                return False
            if not chunk:
                return total is None or done == total
            file.write(chunk)
            done += len(chunk)
            if on_progress:
                on_progress(done, total)


def extract_archive(archive: Path, folder: Path) -> None:
    """Unpack a tar.gz that holds one folder, by `folder`'s name, so that `folder` appears whole or not at all.

    One process at a time: what an interrupted one left behind is removed.
    Raises LabError if the archive is damaged, holds anything but plain files and folders, or reaches out of its folder.
    """
    import gzip
    import tarfile
    import zlib

    temporary = folder.with_name(f".{folder.name}.part")
    require(not folder.exists(), f"{folder} is there already: remove it to unpack {archive.name} again")
    try:
        with translate_write_errors(folder):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            with gzip.open(archive) as stream, tarfile.open(fileobj=stream) as tar:
                # Python has this filter from 3.11.4 on, and refuses less with it than is wanted here.
                tar.extraction_filter = getattr(tarfile, "data_filter", None)
                for member in tar:
                    is_inside = not member.name.startswith("/") and ".." not in Path(member.name).parts
                    require(
                        is_inside,
                        f"{archive} holds '{member.name}', which leads out of its folder: do not trust it, remove it",
                    )
                    is_file_or_folder = member.isfile() or member.isdir()
                    require(
                        is_file_or_folder,
                        f"{archive} holds '{member.name}', a link or a device: do not trust it, remove it",
                    )
                    tar.extract(member, temporary)
                while stream.read(DOWNLOAD_CHUNK_BYTES):  # to the end, where gzip compares its checksum
                    pass
            for path in temporary.rglob("*"):
                if path.is_file():
                    with path.open("rb+") as file:
                        os.fsync(file.fileno())
            require(
                (temporary / folder.name).is_dir(),
                f"{archive} holds no folder {folder.name}: it is another archive, remove it",
            )
            os.replace(temporary / folder.name, folder)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabError(f"{archive} is damaged ({error}): remove it and fetch it again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
