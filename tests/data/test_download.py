"""Downloads over good and bad connections; safe and unsafe archives."""

import gzip
import io
import os
import re
import socket
import tarfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from support.small_sets import archive, checksum

from convolab.core.errors import LabError
from convolab.data import download as download_module
from convolab.data import download_stream
from convolab.data.catalog import DATASETS, load
from convolab.data.download import DownloadError, RemoteFile, download_file, extract_archive
from convolab.data.url import is_public_ip

pytestmark = pytest.mark.timing

BODY = os.urandom(600_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "file.bin"


@pytest.fixture
def part(path: Path) -> Path:
    path.parent.mkdir()
    return path.with_name("file.bin.part")


def test_a_file_is_downloaded_completely_without_other_files(server, path):
    server.content["file.bin"] = BODY
    assert download_file(server.url("file.bin"), path, checksum(BODY)) == path
    assert path.read_bytes() == BODY
    assert os.listdir(path.parent) == ["file.bin"]


def test_progress_grows_to_the_total(server, path):
    server.content["file.bin"] = BODY
    calls = []
    download_file(server.url("file.bin"), path, checksum(BODY, "md5"), lambda *progress: calls.append(progress))
    assert len(calls) > 1
    assert calls == sorted(calls)
    assert calls[-1] == (len(BODY), len(BODY))
    assert {total for _, total in calls} == {len(BODY)}


def test_a_download_resumes_where_the_connection_was_lost(server, path):
    server.content["file.bin"] = BODY
    server.reply_limits = [100_000, 50_000]
    calls = []
    download_file(server.url("file.bin"), path, checksum(BODY), lambda *progress: calls.append(progress))
    assert path.read_bytes() == BODY
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert calls[-1] == (len(BODY), len(BODY))


def test_a_connection_lost_too_often_is_an_error_and_a_later_call_resumes(server, path):
    server.content["file.bin"] = BODY
    server.reply_limits = [100_000] * 3
    with pytest.raises(DownloadError, match="was lost 3 times"):
        download_file(server.url("file.bin"), path, checksum(BODY))
    assert os.listdir(path.parent) == ["file.bin.part"]
    download_file(server.url("file.bin"), path, checksum(BODY))
    assert path.read_bytes() == BODY
    assert server.ranges[-1] == "bytes=300000-"


def test_a_server_that_sends_nothing_counts_as_a_lost_connection(path, monkeypatch):
    monkeypatch.setattr(download_stream, "STALL_TIMEOUT", 0.1)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DownloadError, match="timed out"):
        download_file(f"http://127.0.0.1:{silent.getsockname()[1]}/file.bin", path, checksum(BODY))


def answer_slowly(listener: socket.socket, content: bytes, pause: float, start: bytes = b"") -> Thread:
    """Send a start at once and then one byte after another, to every caller, until it hangs up."""

    def answer() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(10_000)
                    connection.sendall(start)
                    for byte in content:
                        connection.sendall(bytes([byte]))
                        time.sleep(pause)

    thread = Thread(target=answer, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("start", "rest", "message"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n" * 50, "timed out"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000, "was lost 3 times"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0" * 1000, "was lost 3 times"),
    ],
)
def test_a_server_that_sends_a_byte_now_and_then_holds_nobody(path, monkeypatch, start, rest, message):
    monkeypatch.setattr(download_stream, "STALL_TIMEOUT", 0.2)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer_slowly(listener, rest, 0.05 if message == "timed out" else 0.002, start)
        with pytest.raises(DownloadError, match=message):
            download_file(f"http://127.0.0.1:{listener.getsockname()[1]}/file.bin", path, checksum(BODY))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/file.bin", "http://[::1]:{port}/a", "http://[", "ftp://a/b"]
)
def test_a_redirect_to_a_private_address_or_no_address_is_refused(path, monkeypatch, target):
    monkeypatch.setenv("no_proxy", "127.0.0.1,127.0.0.2,::1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        location = target.format(port=port).encode()
        answer_slowly(listener, b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n", 0)
        with pytest.raises(LabError, match=r"a private network|cannot reach|responded with 302") as caught:
            download_file(f"http://127.0.0.1:{port}/file.bin", path, checksum(BODY))
    assert ("private network" in str(caught.value)) == target.startswith(("http://1", "http://[:"))
    assert not path.exists()


def test_a_published_address_on_a_private_network_is_refused(path, monkeypatch):
    monkeypatch.setattr(download_stream, "is_public_ip", is_public_ip)
    with pytest.raises(LabError, match=r"leads to 127\.0\.0\.1, on this machine or a private network"):
        download_file("http://127.0.0.1:9/file.bin", path, checksum(BODY))


def test_from_a_server_without_ranges_the_whole_file_is_downloaded(server, path, part):
    server.content["file.bin"], server.supports_ranges = BODY, False
    part.write_bytes(b"x" * 1000)
    download_file(server.url("file.bin"), path, checksum(BODY))
    assert server.ranges == ["bytes=1000-"]
    assert path.read_bytes() == BODY


def test_a_complete_partial_file_needs_no_network(path, part):
    part.write_bytes(BODY)
    download_file("http://127.0.0.1:9/file.bin", path, checksum(BODY))
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("extra_bytes", [0, 10])
def test_a_wrong_partial_file_as_long_as_the_file_or_longer_is_deleted(server, path, part, extra_bytes):
    server.content["file.bin"] = BODY
    part.write_bytes(b"x" * (len(BODY) + extra_bytes))
    download_file(server.url("file.bin"), path, checksum(BODY))
    assert path.read_bytes() == BODY
    assert server.ranges == [f"bytes={len(BODY) + extra_bytes}-", None]


def test_a_different_file_is_refused_and_deleted(server, path):
    server.content["file.bin"] = BODY[:-1] + bytes([BODY[-1] ^ 1])
    with pytest.raises(LabError, match=r"file\.bin is not the published one \(its sha256 differs\)"):
        download_file(server.url("file.bin"), path, checksum(BODY))
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("states_length", [True, False])
def test_a_file_larger_than_the_published_one_is_refused_while_it_streams(server, path, states_length, monkeypatch):
    server.content["file.bin"], server.states_length = BODY, states_length
    monkeypatch.setattr(download_stream, "DOWNLOAD_CHUNK_BYTES", 1000)
    calls = []
    with pytest.raises(LabError, match=r"file\.bin is larger than 100\.0 kB: it is not the published one"):
        download_file(server.url("file.bin"), path, checksum(BODY), lambda *p: calls.append(p), max_bytes=100_000)
    assert os.listdir(path.parent) == []
    if states_length:
        assert calls == []
    else:  # up to the last whole piece, and pieces may arrive in parts
        assert 99_000 < calls[-1][0] <= 100_000
    assert download_file(server.url("file.bin"), path, checksum(BODY), max_bytes=len(BODY)).exists()


@pytest.mark.parametrize("name", [name for name, info in DATASETS.items() if info.downloads])
def test_no_download_of_a_dataset_can_be_larger_than_the_dataset(name, server, tmp_path, monkeypatch):
    info = DATASETS[name]
    assert info.download_size_mb * 1e6 < info.max_download_bytes < info.download_size_mb * 1e6 + 2e6
    content = archive({"other": b"x"})
    server.content = {"big": content}
    files = tuple(RemoteFile(server.url("big"), checksum(content)) for _ in info.downloads)
    monkeypatch.setitem(DATASETS, name, replace(info, downloads=files, download_size_mb=-1.0))  # which allows no byte
    with pytest.raises(LabError, match="is larger than 0: it is not the published one"):
        load(name, tmp_path)


def test_a_servers_answer_reaches_no_terminal_as_control_characters(path):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 404 \x1b[31mgone\x07\r\nContent-Length: 0\r\n\r\n")

        thread = Thread(target=answer)
        thread.start()
        with pytest.raises(DownloadError, match="responded with 404") as caught:
            download_file(f"http://127.0.0.1:{listener.getsockname()[1]}/a", path, checksum(BODY))
        thread.join()
    assert str(caught.value).isprintable()


def test_a_url_without_the_file_is_reported(server, path):
    with pytest.raises(DownloadError, match=r"http.*/gone\.bin responded with 404"):
        download_file(server.url("gone.bin"), path, checksum(BODY))
    assert not path.exists()


def test_a_closed_port_is_reported_with_the_url(path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as closed_socket:
        port = closed_socket.getsockname()[1]
    with pytest.raises(DownloadError, match=rf"cannot reach http://127\.0\.0\.1:{port}/file\.bin \(.*refused"):
        download_file(f"http://127.0.0.1:{port}/file.bin", path, checksum(BODY))


def test_an_archive_is_extracted_to_its_folder_and_no_other_file_is_left(tmp_path):
    path = tmp_path / "set.tar.gz"
    path.write_bytes(archive({"set/a": b"one", "set/inner/b": b"two"}))
    extract_archive(path, tmp_path / "set")
    assert (tmp_path / "set" / "inner" / "b").read_bytes() == b"two"
    assert sorted(os.listdir(tmp_path)) == ["set", "set.tar.gz"]


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "unsafe_member",
    [
        member("../escaped"),
        member("set/../../escaped"),
        member("/tmp/escaped-from-an-archive"),
        member("set/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("set/link", tarfile.SYMTYPE, "a"),
        member("set/link", tarfile.LNKTYPE, "set/a"),
        member("set/device", tarfile.CHRTYPE),
        member("set/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda unsafe_member: f"{unsafe_member.name} {unsafe_member.linkname}",
)
def test_an_archive_with_an_unsafe_member_is_refused_by_its_name(tmp_path, unsafe_member):
    inner = tmp_path / "inner"
    inner.mkdir()
    with tarfile.open(inner / "set.tar.gz", "w:gz") as tar:
        tar.addfile(member("set/a"), io.BytesIO())
        tar.addfile(unsafe_member, io.BytesIO())
    with pytest.raises(LabError, match=f"contains '{unsafe_member.name}', "):
        extract_archive(inner / "set.tar.gz", inner / "set")
    assert os.listdir(inner) == ["set.tar.gz"]
    assert os.listdir(tmp_path) == ["inner"]
    assert not Path("/tmp/escaped-from-an-archive").exists()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            member("set/a/b"),
            "contains 'set/a/b', which cannot be beside its other files (Not a directory): do not trust",
        ),
        (member("set"), "contains 'set', which cannot be beside its other files (Is a directory): do not trust it"),
        (member("set/" + "x" * 300), "which cannot be beside its other files (File name too long): do not trust it"),
    ],
)
def test_an_archive_whose_members_exclude_each_other_is_refused_by_the_name(tmp_path, second, message):
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.addfile(member("set/a"), io.BytesIO())
        tar.addfile(second, io.BytesIO())
    with pytest.raises(LabError, match=re.escape(message)):
        extract_archive(tmp_path / "set.tar.gz", tmp_path / "set")
    assert os.listdir(tmp_path) == ["set.tar.gz"]


def test_an_archive_with_a_time_that_no_clock_shows_is_damaged(tmp_path):
    late = member("set/a")
    late.mtime = 2**70
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(late, io.BytesIO())
    with pytest.raises(LabError, match="is damaged"):
        extract_archive(tmp_path / "set.tar.gz", tmp_path / "set")
    assert os.listdir(tmp_path) == ["set.tar.gz"]


def test_an_archive_that_unpacks_to_too_much_is_refused_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "MAX_ARCHIVE_BYTES", 1_000_000)
    bomb = archive({f"set/{i}": bytes(400_000) for i in range(4)})
    for content in (bomb, gzip.compress(bytes(2_000_000)), archive({"set/a": b"x"}) + gzip.compress(bytes(2_000_000))):
        (tmp_path / "set.tar.gz").write_bytes(content)
        with pytest.raises(LabError, match=r"unpacks to more than 1\.0 MB: do not trust it|is damaged"):
            extract_archive(tmp_path / "set.tar.gz", tmp_path / "set")
        assert os.listdir(tmp_path) == ["set.tar.gz"]


def test_an_archive_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "MAX_ARCHIVE_MEMBERS", 3)
    (tmp_path / "set.tar.gz").write_bytes(archive({f"set/{i}": b"" for i in range(4)}))
    with pytest.raises(LabError, match="contains more than 3 files"):
        extract_archive(tmp_path / "set.tar.gz", tmp_path / "set")
    assert os.listdir(tmp_path) == ["set.tar.gz"]


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.3, 0.9, 0.99999])
def test_a_truncated_archive_is_damaged_and_leaves_nothing(tmp_path, fraction):
    content = archive({f"set/{i}": os.urandom(5000) for i in range(4)})
    path = tmp_path / "set.tar.gz"
    path.write_bytes(content[: int(fraction * (len(content) - 20))])
    with pytest.raises(LabError, match=r"set\.tar\.gz is damaged"):
        extract_archive(path, tmp_path / "set")
    assert os.listdir(tmp_path) == ["set.tar.gz"]


def test_a_changed_archive_is_damaged(tmp_path):
    content = bytearray(archive({"set/a": bytes(100_000)}))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "set.tar.gz").write_bytes(content)
    with pytest.raises(LabError, match="damaged"):
        extract_archive(tmp_path / "set.tar.gz", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_interrupted_extraction_leaves_no_folder_and_the_next_one_cleans_up(tmp_path, monkeypatch):
    path = tmp_path / "set.tar.gz"
    path.write_bytes(archive({"set/a": b"one", "set/b": b"two"}))
    names = []

    def interrupt(*_: object) -> None:
        names.extend(sorted(os.listdir(tmp_path)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download_module.os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            extract_archive(path, tmp_path / "set")
    assert names == [".set.part", "set.tar.gz"]
    assert os.listdir(tmp_path) == ["set.tar.gz"]

    (tmp_path / ".set.part" / "set").mkdir(parents=True)  # what a kill leaves
    (tmp_path / ".set.part" / "set" / "stale").write_text("old")
    extract_archive(path, tmp_path / "set")
    assert sorted(os.listdir(tmp_path / "set")) == ["a", "b"]
    assert sorted(os.listdir(tmp_path)) == ["set", "set.tar.gz"]


def test_a_different_archive_is_refused(tmp_path):
    (tmp_path / "set.tar.gz").write_bytes(archive({"other/a": b"one"}))
    with pytest.raises(LabError, match="contains no folder set"):
        extract_archive(tmp_path / "set.tar.gz", tmp_path / "set")


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set.tar.gz").write_bytes(archive({"set/a": b"one"}))
    with pytest.raises(LabError, match="exists already"):
        extract_archive(tmp_path / "set.tar.gz", tmp_path / "set")
    assert os.listdir(tmp_path / "set") == []
