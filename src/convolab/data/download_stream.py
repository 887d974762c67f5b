"""The bytes of a published file as they arrive: from public addresses only, and not slower than a minimal speed.

A connection waits in a thread of its own, because a server can hold a reader for ever: by a byte now and then, also
within headers. Nobody waits longer for that thread than the time without data that is allowed.
"""

import queue
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.data.url import is_public_ip

if TYPE_CHECKING:
    from email.message import Message
    from http.client import HTTPMessage

STALL_TIMEOUT = 30.0  # seconds without a byte, or until the answer begins, before a connection counts as broken
MIN_DOWNLOAD_SPEED = 1_000  # bytes per second, on average, once `STALL_TIMEOUT` has passed; a slower one is broken
DOWNLOAD_CHUNK_BYTES = 1 << 18  # bytes between two progress reports
QUEUE_LENGTH = 16  # chunks that wait for a slow disk


class DownloadError(LabError):
    """A file cannot be downloaded from its URL, for now or from here: another way to it may work."""


class ConnectionLost(Exception):
    """The connection broke off, stands still or is too slow. No OSError, because the disk has those."""


class DownloadStream:
    """One request for the rest of a file.

    Use it in a `with` block; `headers` are there at once, and `chunks` yields the bytes.

    Args:
        url: of the file. Where it redirects is checked like the URL itself.
        offset: how many bytes are there already; the server may start from the beginning all the same.

    Raises DownloadError if the URL cannot be reached or does not have the file, and LabError if it leads to an address
    that is not public. `is_past_end` where the file has no more than `offset`
    bytes.
    """

    headers: "Message"

    def __init__(self, url: str, offset: int) -> None:
        self.url = url
        self.offset = offset
        self.started = time.monotonic()
        self.items: queue.Queue[Any] = queue.Queue(QUEUE_LENGTH)  # headers, then chunks, b"" at the end, or an error
        self.sock: socket.socket | None = None  # a second descriptor of the connection: TLS takes the first
        self.is_closed = False
        self.is_past_end = False

    def __enter__(self) -> "DownloadStream":
        Thread(target=self._run, name="download", daemon=True).start()
        try:
            self.headers = self._next()
        except ConnectionLost as error:
            self.close()
            raise DownloadError(f"cannot reach {self.url} (timed out)") from error
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, also while the thread waits for it."""
        self.is_closed = True
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()
        with suppress(queue.Empty):  # the thread may wait for room
            while True:
                self.items.get_nowait()

    def chunks(self) -> Iterator[bytes]:
        """The bytes. Raises ConnectionLost if they do not arrive, or too slowly."""
        num_bytes = 0
        while chunk := self._next():
            num_bytes += len(chunk)
            seconds = time.monotonic() - self.started
            if seconds > STALL_TIMEOUT and num_bytes < MIN_DOWNLOAD_SPEED * seconds:
                raise ConnectionLost
            yield chunk

    def _next(self) -> Any:  # noqa: ANN401 (headers or bytes)
        try:
            item = self.items.get(timeout=STALL_TIMEOUT)
        except queue.Empty:
            raise ConnectionLost from None
        if isinstance(item, BaseException):
            raise item
        return item

    def _run(self) -> None:
        """Put into `items` what arrives, or what went wrong."""
        try:
            self._receive()
        except BaseException as error:  # also a bug's: the caller raises it
            self._put(error)

    def _put(self, item: object) -> None:
        while not self.is_closed:
            with suppress(queue.Full):
                self.items.put(item, timeout=1)
                return

    def _receive(self) -> None:
        from http.client import HTTPException  # these two take 0.05 s to import, and most runs download nothing
        from urllib import error, request

        headers = {"User-Agent": "convolab"} | ({"Range": f"bytes={self.offset}-"} if self.offset else {})
        try:
            response = self._opener().open(request.Request(self.url, headers=headers), timeout=STALL_TIMEOUT)
        except error.HTTPError as http_error:
            http_error.close()
            if http_error.code == 416 and self.offset:
                self.is_past_end = True
                return self._put(http_error.headers)
            reason = escape_line(http_error.reason, 80)
            raise DownloadError(f"{self.url} responded with {http_error.code} {reason}") from http_error
        except (OSError, HTTPException, ValueError) as failure:  # ValueError: of a redirect to what is no URL
            reason = escape_line(str(getattr(failure, "reason", failure)), 200)
            raise DownloadError(f"cannot reach {self.url} ({reason})") from failure
        with response:
            self._put(response.headers)
            try:
                while chunk := response.read1(DOWNLOAD_CHUNK_BYTES):
                    self._put(chunk)
                self._put(b"")
            except (OSError, HTTPException) as lost:
                raise ConnectionLost from lost
            finally:
                if self.sock is not None:
                    self.sock.close()

    def _opener(self) -> Any:  # noqa: ANN401 (urllib is imported in functions only)
        """What opens http and https, redirects included, through connections of `_connect`."""
        from http import client
        from urllib import request

        def checked(kind: type[client.HTTPConnection]) -> Any:  # noqa: ANN401 (as above)
            def make(host: str, **settings: Any) -> client.HTTPConnection:  # noqa: ANN401 (passed on)
                connection = kind(host, **settings)
                vars(connection)["_create_connection"] = self._connect
                return connection

            return make

        class Http(request.HTTPHandler):
            def http_open(self, req: request.Request) -> Any:  # noqa: ANN401 (passed on)
                return self.do_open(checked(client.HTTPConnection), req)

        class Https(request.HTTPSHandler):
            def https_open(self, req: request.Request) -> Any:  # noqa: ANN401 (passed on)
                return self.do_open(checked(client.HTTPSConnection), req)

        class Redirect(request.HTTPRedirectHandler):
            def http_error_302(self, req: request.Request, fp: Any, code: int, msg: str, headers: "HTTPMessage") -> Any:  # noqa: ANN401 (passed on)
                try:
                    return super().http_error_302(req, fp, code, msg, headers)
                except BaseException:  # it leads nowhere; urllib would leave the connection open
                    fp.close()
                    raise

            http_error_301 = http_error_302
            http_error_303 = http_error_302
            http_error_307 = http_error_302
            http_error_308 = http_error_302

        opener = request.OpenerDirector()
        for handler in (
            request.ProxyHandler(), request.UnknownHandler(), Http(), Https(), request.HTTPDefaultErrorHandler(),
            Redirect(), request.HTTPErrorProcessor(),
        ):  # fmt: skip
            opener.add_handler(handler)
        return opener

    def _connect(self, address: tuple[str, int], timeout: float, *_: object) -> socket.socket:
        """A connection to an IP address that was itself checked; a proxy that the user has set may be anywhere."""
        host, port = address
        ips = list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        permitted = ips if host in proxy_hosts() else [ip for ip in ips if is_public_ip(ip)]
        require(
            permitted,
            f"{self.url} leads to {escape_line(host, 100)}, on this machine or a private network: "
            "try from another network",
        )
        failure: OSError = TimeoutError()
        for ip in permitted:
            try:
                sock = socket.create_connection((ip, port), timeout)
            except OSError as error:
                failure = error
            else:
                if self.sock is not None:  # of the address that redirected here
                    self.sock.close()
                self.sock = sock.dup()
                return sock
        raise failure


def proxy_hosts() -> set[str | None]:
    """The hosts of the proxies that the user has set."""
    from urllib.request import getproxies

    return {urlsplit(url if "//" in url else f"//{url}").hostname for name, url in getproxies().items() if name != "no"}
