"""A server on this machine with small datasets in their published layouts."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from support.small_sets import archive, checksum, cifar10_files

from convolab.data.catalog import DATASETS
from convolab.data.download import RemoteFile


class Server(ThreadingHTTPServer):
    """Serves `content` by path, and can fail like real servers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.supports_ranges = True
        self.states_length = True
        self.reply_limits: list[int] = []  # the next replies end after this many bytes
        self.ranges: list[str | None] = []  # the Range header of each request

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        requested = self.headers["Range"]
        self.server.ranges.append(requested)
        body = self.server.content.get(self.path[1:])
        if body is None:
            return self.send_error(404)
        start = int(requested.removeprefix("bytes=").rstrip("-")) if requested and self.server.supports_ranges else 0
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.server.states_length:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        with suppress(ConnectionError):  # who has read enough hangs up
            self.wfile.write(body[start:][: self.server.reply_limits.pop(0) if self.server.reply_limits else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def this_machine_counts_as_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Datasets are downloaded from the server here; no other address of this machine may be reached."""
    monkeypatch.setattr("convolab.data.download_stream.is_public_ip", lambda ip: ip == "127.0.0.1")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def publish_dataset(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, bytes]], None]:
    """Put files on the server and make them the downloads of a dataset."""

    def publish(name: str, files: dict[str, bytes]) -> None:
        server.content |= files
        method = DATASETS[name].downloads[0].checksum.split(":")[0]
        downloads = tuple(RemoteFile(server.url(file), checksum(content, method)) for file, content in files.items())
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], downloads=downloads))

    return publish


@pytest.fixture
def published_cifar10_archive(publish_dataset: Callable[[str, dict[str, bytes]], None]) -> bytes:
    """The archive of a small CIFAR-10, which is on the server."""
    content = archive({f"cifar-10-batches-py/{name}": file for name, file in cifar10_files().items()})
    publish_dataset("cifar10", {"cifar-10-python.tar.gz": content})
    return content
