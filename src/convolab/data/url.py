"""Images from an http(s) URL: bounded in size and time, and never from this machine or its own network.

A URL from a web page or a mail may be malicious: it can lead, or redirect, to a router, a cloud's metadata or a service
on this machine (server-side request forgery). So every connection is made to an IP address that was itself checked; a
host name that resolves to another address later (DNS rebinding) changes nothing.
"""

import ipaddress
import queue
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line

if TYPE_CHECKING:
    import http.client

MAX_RESPONSE_BYTES = 50_000_000
TOTAL_TIMEOUT = 30.0  # seconds for everything: resolving, redirects, all bytes
READ_TIMEOUT = 10.0  # seconds without a byte
MAX_REDIRECTS = 5
MAX_URL_LENGTH = 8_000
RESPONSE_CHUNK_BYTES = 1 << 16
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # all of IPv6 that is given out (RFC 4291)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # addresses whose last 32 bits are an IPv4 address (RFC 6052)
ISATAP = (0x5EFE, 0x200_5EFE)  # bits 64 to 95 of an address whose last 32 bits are an IPv4 address (RFC 5214)
NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's own services, seen from its machines only
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
]

IpFilter = Callable[[str], bool]  # whether an IP address may be connected to


def is_public_ip(ip: str) -> bool:
    """Whether an IP address is on the open internet: not this machine, a private network, link-local or cloud metadata.

    What is not known to be public is not: of IPv6 only global unicast is, and an IPv4 address in one of IPv6 where the
    IPv4 address is.

    >>> [is_public_ip(ip) for ip in ("93.184.215.14", "127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1")]
    [True, False, False, False, False]
    """
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        last_32_bits = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.scope_id is not None:  # a zone names a network card of this machine
            return False
        if address.ipv4_mapped is not None or address in NAT64:
            return is_public_ip(str(last_32_bits))
        if (int(address) >> 32) & 0xFFFFFFFF in ISATAP and not is_public_ip(str(last_32_bits)):
            return False
        if address not in GLOBAL_UNICAST:
            return False
    is_excluded = address.is_multicast or address.is_reserved or any(address in network for network in NOT_PUBLIC)
    return address.is_global and not is_excluded


def fetch_url(
    url: str,
    *,
    max_bytes: int | None = None,
    timeout: float | None = None,
    read_timeout: float | None = None,
    is_allowed: IpFilter = is_public_ip,
) -> bytes:
    """The bytes at an http(s) URL; connections are made directly, without a proxy.

    Args:
        url: the file's URL.
        max_bytes: the largest file that is read; by default MAX_RESPONSE_BYTES.
        timeout: seconds for everything, looking names up and redirects included; by default TOTAL_TIMEOUT.
        read_timeout: seconds without a byte; by default READ_TIMEOUT.
        is_allowed: whether an IP address may be connected to.

    Raises LabError if it is not such a URL, leads to an address that is not allowed, cannot be reached, responds with
    anything but a file, is larger than `max_bytes`, takes longer than `timeout`, or sends nothing for `read_timeout`
    seconds.
    """
    max_bytes = MAX_RESPONSE_BYTES if max_bytes is None else max_bytes
    timeout = TOTAL_TIMEOUT if timeout is None else timeout
    read_timeout = READ_TIMEOUT if read_timeout is None else read_timeout
    fetch = Fetch(url, time.monotonic() + timeout, timeout, read_timeout, max_bytes, is_allowed)
    # No look-up of a name can be interrupted, and a server may send a byte now and then for ever. So another thread
    # waits for them, and at the deadline it is left alone, its connection cut.
    Thread(target=fetch.run, name="fetch_url", daemon=True).start()
    try:
        outcome = fetch.outcome.get(timeout=max(timeout, 0))
    except queue.Empty:
        raise LabError(fetch.timeout_message(escape_line(url, 200))) from None
    finally:
        fetch.cut()
    if isinstance(outcome, bytes):
        return outcome
    raise outcome


@dataclass
class Fetch:
    """One URL on its way here, through its redirects."""

    url: str
    deadline: float  # of `time.monotonic()`
    timeout: float  # seconds that it was from the start
    read_timeout: float
    max_bytes: int
    is_allowed: IpFilter
    outcome: "queue.SimpleQueue[bytes | BaseException]" = field(default_factory=queue.SimpleQueue)
    sock: socket.socket | None = None  # of the present connection

    def run(self) -> None:
        """Put the content, or what went wrong, into `outcome`."""
        try:
            self.outcome.put(self._follow())
        except BaseException as error:  # also a bug's: the caller raises it
            self.outcome.put(error)

    def cut(self) -> None:
        """End the present connection, if there still is one, also while another thread waits for it."""
        sock = self.sock
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which may not run beside a read

    def timeout_message(self, subject: str) -> str:
        return (
            f"{subject} timed out (more than {self.timeout:g} s in total, or {self.read_timeout:g} s without data): "
            "download the image yourself"
        )

    def _follow(self) -> bytes:
        url = self.url
        for _ in range(MAX_REDIRECTS + 1):
            subject = escape_line(self.url, 200)
            if url != self.url:
                subject += f" redirects to {escape_line(url, 200)}, which"
            content, redirect = self._request(url, subject)
            if redirect is None:
                return content
            try:
                url = urljoin(url, redirect)
            except ValueError as error:
                raise LabError(
                    f"{subject} redirects to {escape_line(redirect, 200)}, which is not a valid URL "
                    f"({escape_line(str(error), 200)}): give the image's direct URL"
                ) from error
        raise LabError(
            f"{escape_line(self.url, 200)} redirects more than {MAX_REDIRECTS} times: give the image's direct URL"
        )

    def _request(self, url: str, subject: str) -> tuple[bytes, str | None]:
        """One request: the content and None, or nothing and where the response redirects to."""
        import http.client  # takes 0.05 s to import, and most images are files
        import ssl

        scheme, host, port, target = parse_url(url, subject)
        with ExitStack() as stack:
            try:
                connection = http.client.HTTPConnection(host, port)
                stack.callback(connection.close)
                sock = stack.enter_context(self._connect(host, port, subject))
                if scheme == "https":
                    context = ssl.create_default_context()
                    # The handshake waits for the server, so it comes once `cut` knows the socket.
                    sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
                    self.sock = stack.enter_context(sock)
                    sock.do_handshake()
                self.sock = connection.sock = sock
                headers = {"User-Agent": "convolab", "Accept": "image/*,*/*;q=0.5", "Connection": "close"}
                connection.request("GET", target, headers=headers)
                return self._read(stack.enter_context(connection.getresponse()), subject)
            except TimeoutError as error:
                raise LabError(self.timeout_message(subject)) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = escape_line(" ".join(str(error).split()) or type(error).__name__, 200)
                raise LabError(
                    f"{subject} cannot be reached ({reason}): check it, or download the image yourself"
                ) from error

    def _read(self, response: "http.client.HTTPResponse", subject: str) -> tuple[bytes, str | None]:
        """What a response holds: its content and None, or nothing and where it redirects to."""
        if response.status in (301, 302, 303, 307, 308):
            redirect = response.headers["Location"]
            require(redirect, f"{subject} redirects without a target: give the image's direct URL")
            return b"", redirect
        reason = escape_line(response.reason, 80)
        require(response.status == 200, f"{subject} responded with {response.status} {reason}: check it")
        content = bytearray()
        while chunk := response.read1(RESPONSE_CHUNK_BYTES):
            content += chunk
            require(
                len(content) <= self.max_bytes,
                f"{subject} is more than {self.max_bytes:,} bytes: download it yourself, and make it smaller",
            )
        missing = response.length  # of the stated length
        require(not missing, f"{subject} was cut off after {len(content):,} bytes: try again")
        return bytes(content), None

    def _connect(self, host: str, port: int, subject: str) -> socket.socket:
        """A connection to an allowed IP address of the host: to exactly the address that was checked."""
        candidates = dict.fromkeys(
            (family, str(address[0]))
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        permitted = [(family, ip) for family, ip in candidates if self.is_allowed(ip)]
        require(
            permitted,
            f"{subject} resolves to {', '.join(ip for _, ip in candidates)}, on this machine or a private network: "
            "download the image yourself",
        )
        failure: OSError = TimeoutError()
        for family, ip in permitted:
            remaining = min(self.read_timeout, self.deadline - time.monotonic())
            if remaining <= 0:
                raise TimeoutError
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.settimeout(remaining)
            try:
                sock.connect((ip, port))
            except OSError as error:
                sock.close()
                failure = error
            else:
                sock.settimeout(self.read_timeout)
                return sock
        raise failure


def parse_url(url: str, subject: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and target of an http(s) URL. Raises LabError, beginning with the subject, for any other."""
    require(
        len(url) <= MAX_URL_LENGTH, f"{subject} has {len(url):,} characters: give a URL of at most {MAX_URL_LENGTH:,}"
    )
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        port = parts.port or (443 if scheme == "https" else 80)
        host = parts.hostname
    except ValueError as error:
        raise LabError(f"{subject} is not a valid URL ({escape_line(str(error), 200)}): check it") from error
    require(scheme in ("http", "https"), f"{subject} is not an http(s) URL: give one, or download the image yourself")
    if not host:
        raise LabError(f"{subject} has no host name: check it")
    require("%" not in host, f"{subject} names a network card of this machine (%): download the image yourself")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    require(
        target.isascii() and target.isprintable() and " " not in target,
        f"{subject} has characters that are not allowed in a URL: escape them (%20)",
    )
    return scheme, host, port, target
