"""Images from URLs: within limits of size and time, and never from this machine or a private network."""

import contextlib
import io
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolab.core.errors import LabError
from convolab.data import url as url_module
from convolab.data.image_io import decode_image, read_image
from convolab.data.url import fetch_url, is_public_ip

pytestmark = pytest.mark.timing


def allow_any_ip(ip: str) -> bool:
    """For these tests only: connect to any address. No command allows it."""
    return True


Reply = Callable[[BaseHTTPRequestHandler], None]


class LocalServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, Reply] = {}
        self.requested: list[str] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: LocalServer

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.replies[self.path[1:]](self)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def content(body: bytes, *, length: int | None = None) -> Reply:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if length != 0:
            request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return reply


def redirect(to: str, status: int = 302) -> Reply:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return reply


PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2001:db8::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:0:127.0.0.1",
    "fec0::1",
    "100::1",
    "64:ff9b:1::10.0.0.1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "2001:2::1",
    "2001:10::1",
    "2002:808:808::1",
    "2600:1900::5efe:10.0.0.1",
    "2600:1900::200:5efe:127.0.0.1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "ff0e::1",
    "2606:4700::1111%eth0",
    "0.1.2.3",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.8",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "239.255.255.250",
    "localhost",
    "0177.0.0.1",
    "2130706433",
    "",
]


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_are_allowed(ip: str) -> None:
    assert is_public_ip(ip)


@pytest.mark.parametrize("ip", NOT_PUBLIC)
def test_this_machine_and_private_networks_are_not_allowed(ip: str) -> None:
    assert not is_public_ip(ip)


def test_an_image_is_fetched_completely_with_and_without_a_stated_length(server: LocalServer) -> None:
    body = bytes(range(256)) * 1000
    server.replies |= {"a": content(body), "b": content(body, length=0)}
    assert (
        fetch_url(server.url("a"), is_allowed=allow_any_ip)
        == fetch_url(server.url("b"), is_allowed=allow_any_ip)
        == body
    )


def test_a_fetched_image_is_decoded_like_a_file(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    server.replies["cat.png?size=1"] = content(file.getvalue())
    fetched = fetch_url(server.url("cat.png?size=1"), is_allowed=allow_any_ip)
    assert np.array_equal(decode_image(io.BytesIO(fetched), "cat", 100).permute(1, 2, 0).numpy(), pixels)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "2130706433",
        "0x7f000001",
        "127.1",
        "[::ffff:127.0.0.1]",
        "0177.0.0.1",
        "0x7f.1",
        "127.0.0.1.",
    ],
)
def test_this_machine_is_refused_under_each_of_its_names(server: LocalServer, host: str) -> None:
    server.replies["a"] = content(b"secret")
    with pytest.raises(LabError, match=r"on this machine or a private network|cannot be reached"):
        read_image(f"http://{host}:{server.server_port}/a")
    assert server.requested == []


def test_a_name_that_resolves_to_this_machine_is_refused_before_connecting(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = []

    def resolve(host: str, port: int, **_: object) -> list:
        hosts.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(url_module.socket, "getaddrinfo", resolve)
    with pytest.raises(LabError, match=r"harmless\.example.* resolves to 127\.0\.0\.1, on this machine"):
        fetch_url(f"http://harmless.example:{server.server_port}/a")
    assert hosts == ["harmless.example"]  # resolved once, so the checked address is the one that is used
    assert server.requested == []


def test_of_several_addresses_only_the_allowed_ones_are_connected_to(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies["a"] = content(b"image")
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(url_module.socket, "getaddrinfo", lambda *_, **__: addresses)
    allowed = []

    def only_the_second(ip: str) -> bool:
        allowed.append(ip)
        return ip == "127.0.0.1"

    assert fetch_url(f"http://two.example:{server.server_port}/a", is_allowed=only_the_second) == b"image"
    assert allowed == ["127.0.0.2", "127.0.0.1"]


def test_redirects_are_followed_also_relative_ones(server: LocalServer) -> None:
    server.replies |= {"a": redirect("/b"), "b": redirect(server.url("c"), 308), "c": content(b"image")}
    assert fetch_url(server.url("a"), is_allowed=allow_any_ip) == b"image"


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://example.org/a.png", "data:image/png;base64,AAAA", "gopher://x/"]
)
def test_a_redirect_to_a_file_or_another_protocol_is_refused(server: LocalServer, to: str) -> None:
    server.replies["a"] = redirect(to)
    with pytest.raises(LabError, match=r"redirects to .* which is not an http"):
        fetch_url(server.url("a"), is_allowed=allow_any_ip)


def test_a_redirect_to_this_machine_is_refused_even_if_the_first_address_was_allowed(server: LocalServer) -> None:
    server.replies |= {"a": redirect(f"http://127.0.0.3:{server.server_port}/secret"), "secret": content(b"secret")}
    with pytest.raises(LabError, match=r"redirects to http://127\.0\.0\.3.*on this machine or a private network"):
        fetch_url(server.url("a"), is_allowed=lambda ip: ip == "127.0.0.1")
    assert server.requested == ["/a"]


@pytest.mark.parametrize("to", ["http://[", "http://[::1", "//[", "http://x:port/", "http://x:99999999/"])
def test_a_redirect_to_what_is_no_url_gives_one_line(server: LocalServer, to: str) -> None:
    server.replies["a"] = redirect(to)
    with pytest.raises(LabError, match=r"redirects to .* not a valid URL") as caught:
        fetch_url(server.url("a"), is_allowed=allow_any_ip)
    assert str(caught.value).isprintable()


def test_what_a_server_says_reaches_no_terminal_as_control_characters(server: LocalServer) -> None:
    def say(reason: str) -> Reply:
        return lambda request: request.wfile.write(f"HTTP/1.1 404 {reason}\r\n\r\n".encode("latin1"))

    server.replies["a"] = say("\x1b]0;owned\x07\x9b31m" + "x" * 10_000)
    with pytest.raises(LabError, match="responded with 404 ") as caught:
        fetch_url(server.url("a"), is_allowed=allow_any_ip)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("url", ["http://[fe80::1%25lo]/a", "http://[fe80::1%lo]/a", "http://x/" + "a" * 10_000])
def test_zones_and_endless_urls_are_refused_in_a_short_line(url: str) -> None:
    with pytest.raises(LabError, match=r"network card|characters|not a valid URL") as caught:
        fetch_url(url)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_endless_redirects_are_stopped(server: LocalServer) -> None:
    server.replies["a"] = redirect("/a")
    with pytest.raises(LabError, match="redirects more than 5 times"):
        fetch_url(server.url("a"), is_allowed=allow_any_ip)
    assert len(server.requested) == 6


@pytest.mark.parametrize("stated_length", [None, 0])
def test_more_bytes_than_the_limit_are_refused_whether_stated_or_not(
    server: LocalServer, stated_length: int | None
) -> None:
    server.replies["a"] = content(b"x" * 1001, length=stated_length)
    with pytest.raises(LabError, match="more than 1,000 bytes"):
        fetch_url(server.url("a"), max_bytes=1000, is_allowed=allow_any_ip)
    server.replies["a"] = content(b"x" * 1000, length=stated_length)
    assert len(fetch_url(server.url("a"), max_bytes=1000, is_allowed=allow_any_ip)) == 1000


def test_limits_that_are_lifted_or_lowered_are_in_force_for_every_later_address(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_module, "MAX_RESPONSE_BYTES", 10)
    server.replies["a"] = content(b"x" * 11)
    with pytest.raises(LabError, match="more than 10 bytes"):
        fetch_url(server.url("a"), is_allowed=allow_any_ip)
    monkeypatch.setattr(url_module, "TOTAL_TIMEOUT", 20.0)
    monkeypatch.setattr(url_module, "READ_TIMEOUT", 0.2)
    server.replies["a"] = send_nothing
    with pytest.raises(LabError, match=r"more than 20 s in total, or 0\.2 s without data"):
        fetch_url(server.url("a"), is_allowed=allow_any_ip)


def test_a_response_that_is_cut_off_is_reported(server: LocalServer) -> None:
    server.replies["a"] = content(b"x" * 100, length=200)
    with pytest.raises(LabError, match=r"was cut off after 100 bytes|cannot be reached"):
        fetch_url(server.url("a"), is_allowed=allow_any_ip)


def send_nothing(request: BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def send_slowly(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b"x")
        time.sleep(0.05)


def send_headers_slowly(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(100):
        request.wfile.write(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize("reply", [send_nothing, send_slowly, send_headers_slowly])
def test_a_slow_server_gives_a_timeout(server: LocalServer, reply: Reply) -> None:
    server.replies["a"] = reply
    start = time.monotonic()
    with pytest.raises(LabError, match="timed out"):
        fetch_url(server.url("a"), timeout=0.6, read_timeout=0.4, is_allowed=allow_any_ip)
    assert time.monotonic() - start < 2.5


def timed_out(url: str) -> float:
    """The seconds until a fetch with half a second of time was given up."""
    start = time.monotonic()
    with pytest.raises(LabError, match="timed out"):
        fetch_url(url, timeout=0.5, read_timeout=0.4, is_allowed=allow_any_ip)
    return time.monotonic() - start


def test_a_name_server_that_does_not_answer_gives_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(url_module.socket, "getaddrinfo", lambda *_, **__: answered.wait(10))
    assert timed_out("http://slow.example/a") < 2
    answered.set()


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """The local server with TLS; its certificate is trusted."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("there is no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]
    subprocess.run([openssl, "req", "-x509", *names, *new_key, "-out", certificate], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with LocalServer() as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("reply", [send_nothing, send_slowly, send_headers_slowly])
def test_a_slow_server_with_tls_gives_a_timeout_too(tls_server: LocalServer, reply: Reply) -> None:
    tls_server.replies |= {"a": reply, "b": content(b"image")}
    address = f"https://127.0.0.1:{tls_server.server_port}"
    assert fetch_url(f"{address}/b", is_allowed=allow_any_ip) == b"image"
    assert timed_out(f"{address}/a") < 2


def test_a_tls_handshake_that_never_ends_gives_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands_slowly() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00")  # a handshake message of 16 kB begins
                for _ in range(100):
                    connection.sendall(b"\x02")
                    time.sleep(0.05)

        thread = threading.Thread(target=shake_hands_slowly)
        thread.start()
        assert timed_out(f"https://127.0.0.1:{listener.getsockname()[1]}/a") < 2
        thread.join(1)
        assert not thread.is_alive()  # the connection was cut


def test_an_error_response_and_a_closed_port_give_a_one_line_error(server: LocalServer) -> None:
    server.replies["a"] = lambda request: request.send_error(404)
    with pytest.raises(LabError, match=r"/a responded with 404 Not Found"):
        fetch_url(server.url("a"), is_allowed=allow_any_ip)
    with socket.socket() as closed_socket:
        closed_socket.bind(("127.0.0.1", 0))
        port = closed_socket.getsockname()[1]
    with pytest.raises(LabError, match="cannot be reached") as caught:
        fetch_url(f"http://127.0.0.1:{port}/a", is_allowed=allow_any_ip)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.png",
        "http://[::1/a",
        "http://host:port/a",
        "http://x/a b",
        "ftp://x/a",
        "file:///etc/passwd",
    ],
)
def test_a_url_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(LabError, match=r"not a valid URL|has no host name|characters|not an http"):
        read_image(url)


def test_a_server_that_does_not_use_http_gives_a_one_line_error(server: LocalServer) -> None:
    server.replies["a"] = lambda request: request.wfile.write(b"garbage\r\n\r\n")
    with pytest.raises(LabError, match="cannot be reached"):
        fetch_url(server.url("a"), is_allowed=allow_any_ip)
