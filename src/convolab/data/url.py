"""Images from an http(s) URL: bounded in size and time, and never from this machine or its own network.

A URL from a web page or a mail may be malicious: it can lead, or redirect, to a router, a cloud's metadata or a service
on this machine (server-side request forgery). So every connection is made to an IP address that was itself checked; a
host name that resolves to another address later (DNS rebinding) changes nothing.
"""

import ipaddress
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Timer
from urllib.parse import urljoin, urlsplit

from convolab.core.errors import LabError, require

MAX_RESPONSE_BYTES = 50_000_000
TOTAL_TIMEOUT = 30.0  # seconds for everything: resolving, redirects, all bytes
READ_TIMEOUT = 10.0  # seconds without a byte
MAX_REDIRECTS = 5
RESPONSE_CHUNK_BYTES = 1 << 16
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # addresses whose last 32 bits are an IPv4 address (RFC 6052)

IpFilter = Callable[[str], bool]  # whether an IP address may be connected to


def is_public_ip(ip: str) -> bool:
    """Whether an IP address is on the open internet: not this machine, a private network, link-local or cloud metadata.

    >>> [is_public_ip(ip) for ip in ("93.184.215.14", "127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1")]
    [True, False, False, False, False]
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    if address.version == 6:  # an IPv4 address may be embedded in one of IPv6
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public_ip(str(inner)) and (
                address.ipv4_mapped is not None or address in NAT64 or address.is_global
            )
    return address.is_global and not address.is_multicast


def fetch_url(
    url: str,
    *,
    max_bytes: int = MAX_RESPONSE_BYTES,
    timeout: float = TOTAL_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
    is_allowed: IpFilter = is_public_ip,
) -> bytes:
    """The bytes at an http(s) URL; connections are made directly, without a proxy.

    Args:
        url: the file's URL.
        max_bytes: the largest file that is read.
        timeout: seconds for everything, redirects included.
        read_timeout: seconds without a byte.
        is_allowed: whether an IP address may be connected to.

    Raises LabError if it is not such a URL, leads to an address that is not allowed, cannot be reached, responds with
    anything but a file, is larger than `max_bytes`, takes longer than `timeout`, or sends nothing for `read_timeout`
    seconds.
    """
    deadline = time.monotonic() + timeout
    original_url = url
    for _ in range(MAX_REDIRECTS + 1):
        content, redirect = request_once(url, original_url, deadline, timeout, read_timeout, max_bytes, is_allowed)
        if redirect is None:
            return content
        url = urljoin(url, redirect)
    raise LabError(f"{original_url} redirects more than {MAX_REDIRECTS} times: give the image's direct URL")


def request_once(
    url: str,
    original_url: str,
    deadline: float,
    timeout: float,
    read_timeout: float,
    max_bytes: int,
    is_allowed: IpFilter,
) -> tuple[bytes, str | None]:
    """One request: the content and None, or nothing and where the response redirects to."""
    import http.client  # takes 0.05 s to import, and most images are files
    import ssl

    subject = original_url if url == original_url else f"{original_url} redirects to {url[:200]}, which"
    try:
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        port = parts.port or (443 if scheme == "https" else 80)
    except ValueError as error:
        raise LabError(f"{subject} is not a valid URL ({error}): check it") from error
    require(scheme in ("http", "https"), f"{subject} is not an http(s) URL: give one, or download the image yourself")
    host = parts.hostname
    if not host:
        raise LabError(f"{subject} has no host name: check it")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    require(
        target.isascii() and target.isprintable() and " " not in target,
        f"{subject} has characters that are not allowed in a URL: escape them (%20)",
    )

    timeout_message = (
        f"{subject} timed out (more than {timeout:g} s in total, or {read_timeout:g} s without data): "
        "download the image yourself"
    )
    connection = None
    timer = None
    try:
        raw = connect(host, port, subject, deadline, read_timeout, is_allowed)
        # A server that sends a byte now and then never reaches the read timeout: at the deadline it is disconnected.
        timer = Timer(max(0.0, deadline - time.monotonic()), lambda: shut_down(raw))
        timer.daemon = True
        timer.start()
        connection = http.client.HTTPConnection(host, port)
        connection.sock = (
            ssl.create_default_context().wrap_socket(raw, server_hostname=host) if scheme == "https" else raw
        )
        connection.request(
            "GET", target, headers={"User-Agent": "convolab", "Accept": "image/*,*/*;q=0.5", "Connection": "close"}
        )
        response = connection.getresponse()
        if response.status in (301, 302, 303, 307, 308):
            redirect = response.headers["Location"]
            require(redirect, f"{subject} redirects without a target: give the image's direct URL")
            return b"", redirect
        require(response.status == 200, f"{subject} responded with {response.status} {response.reason}: check it")
        content = bytearray()
        while chunk := response.read1(RESPONSE_CHUNK_BYTES):
            content += chunk
            require(
                len(content) <= max_bytes,
                f"{subject} is more than {max_bytes:,} bytes: download it yourself, and make it smaller",
            )
        missing = response.length  # of the stated length
        require(not missing, f"{subject} was cut off after {len(content):,} bytes: try again")
        require(time.monotonic() < deadline, timeout_message)
        return bytes(content), None
    except TimeoutError as error:
        raise LabError(timeout_message) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        require(time.monotonic() < deadline, timeout_message)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LabError(f"{subject} cannot be reached ({reason}): check it, or download the image yourself") from error
    finally:
        if timer:
            timer.cancel()
        if connection:
            connection.close()


def connect(
    host: str, port: int, subject: str, deadline: float, read_timeout: float, is_allowed: IpFilter
) -> socket.socket:
    """A connection to an allowed IP address of the host: to exactly the address that was checked."""
    candidates = dict.fromkeys(
        (family, str(address[0]))
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    permitted = [(family, ip) for family, ip in candidates if is_allowed(ip)]
    require(
        permitted,
        f"{subject} resolves to {', '.join(ip for _, ip in candidates)}, on this machine or a private network: "
        "download the image yourself",
    )
    failure: OSError = TimeoutError()
    for family, ip in permitted:
        remaining = min(read_timeout, deadline - time.monotonic())
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
            sock.settimeout(read_timeout)
            return sock
    raise failure


def shut_down(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
