"""Pictures from an http(s) address: bounded in size and time, and never from this machine or its own network.

Whoever writes an address into a web page or a mail may not have the reader in mind: it can lead, or redirect, to a router, a
cloud's metadata or a service on this machine. So every connection is made to an IP address that was itself checked; a name that
resolves anew to another one changes nothing.
"""

import ipaddress
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Timer
from urllib.parse import urljoin, urlsplit

from convolab.core.errors import LabError, need

MAX_BYTES = 50_000_000
SECONDS = 30.0  # for everything: resolving, redirects, all bytes
SILENCE = 10.0  # without a byte
REDIRECTS = 5
CHUNK = 1 << 16
NAT64 = ipaddress.ip_network("64:ff9b::/96")

Allowed = Callable[[str], bool]  # whether an IP address may be connected to


def is_public(ip: str) -> bool:
    """Whether an IP address lies on the open internet: not this machine, a private network, link-local or a cloud's metadata.

    >>> [is_public(ip) for ip in ("93.184.215.14", "127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1")]
    [True, False, False, False, False, False]
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    if address.version == 6:  # an IPv4 address may be wrapped into one of IPv6
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner)) and (address.ipv4_mapped is not None or address in NAT64 or address.is_global)
    return address.is_global and not address.is_multicast


def fetch(
    address: str,
    *,
    max_bytes: int = MAX_BYTES,
    seconds: float = SECONDS,
    silence: float = SILENCE,
    allowed: Allowed = is_public,
) -> bytes:
    """What lies at an http(s) address; connections are made directly, without a proxy.

    Raises LabError if it is no such address, leads to one that is not `allowed`, cannot be reached, answers anything but a
    file, is larger than `max_bytes`, takes longer than `seconds` or falls silent.
    """
    deadline, asked = time.monotonic() + seconds, address
    for _ in range(REDIRECTS + 1):
        content, onward = _ask(address, asked, deadline, seconds, silence, max_bytes, allowed)
        if onward is None:
            return content
        address = urljoin(address, onward)
    raise LabError(f"{asked} redirects more than {REDIRECTS} times: give the picture's own address")


def _ask(
    address: str, asked: str, deadline: float, seconds: float, silence: float, max_bytes: int, allowed: Allowed
) -> tuple[bytes, str | None]:
    """One request: the content, or where the reply redirects to."""
    import http.client  # takes 0.05 s to import, and most pictures are files
    import ssl

    said = asked if address == asked else f"{asked} redirects to {address[:200]}, which"
    try:
        parts = urlsplit(address)
        scheme, host, port = (
            parts.scheme.lower(),
            parts.hostname,
            parts.port or (443 if parts.scheme.lower() == "https" else 80),
        )
    except ValueError as error:
        raise LabError(f"{said} is no address ({error}): check it") from error
    need(scheme in ("http", "https"), f"{said} is not an http(s) address: give one, or download the picture yourself")
    need(host, f"{said} names no server: check it")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    need(
        target.isascii() and target.isprintable() and " " not in target,
        f"{said} has characters that no address has: escape them (%20)",
    )

    late = f"{said} is too slow (more than {seconds:g} s in all, or {silence:g} s without a byte): download the picture yourself"
    connection, timer = None, None
    try:
        raw = _connected(host, port, said, deadline, silence, allowed)
        # A server that sends a byte now and then never falls silent: at the deadline its line is cut.
        timer = Timer(max(0.0, deadline - time.monotonic()), lambda: _cut(raw))
        timer.daemon = True
        timer.start()
        connection = http.client.HTTPConnection(host, port)
        connection.sock = (
            ssl.create_default_context().wrap_socket(raw, server_hostname=host) if scheme == "https" else raw
        )
        connection.request(
            "GET", target, headers={"User-Agent": "convolab", "Accept": "image/*,*/*;q=0.5", "Connection": "close"}
        )
        reply = connection.getresponse()
        if reply.status in (301, 302, 303, 307, 308):
            onward = reply.headers["Location"]
            need(onward, f"{said} redirects to nowhere: give the picture's own address")
            return b"", onward
        need(reply.status == 200, f"{said} answers {reply.status} {reply.reason}: check it")
        content = bytearray()
        while chunk := reply.read1(CHUNK):
            content += chunk
            need(
                len(content) <= max_bytes,
                f"{said} is more than {max_bytes:,} bytes: download it yourself, and make it smaller",
            )
        need(
            not reply.length, f"{said} broke off after {len(content):,} bytes: try again"
        )  # length is what is still to come
        need(time.monotonic() < deadline, late)
        return bytes(content), None
    except TimeoutError as error:
        raise LabError(late) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        need(time.monotonic() < deadline, late)
        raise LabError(
            f"{said} cannot be reached ({' '.join(str(error).split()) or type(error).__name__}): check it, or download the picture yourself"
        ) from error
    finally:
        if timer:
            timer.cancel()
        if connection:
            connection.close()


def _connected(host: str, port: int, said: str, deadline: float, silence: float, allowed: Allowed) -> socket.socket:
    """A connection to an allowed IP address of the host: to the very address that was checked."""
    candidates = dict.fromkeys(
        (family, address[0]) for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    chosen = [(family, ip) for family, ip in candidates if allowed(ip)]
    need(
        chosen,
        f"{said} leads to {', '.join(ip for _, ip in candidates)}, this machine or a network of its own: download the picture yourself",
    )
    failure: OSError = TimeoutError()
    for family, ip in chosen:
        left = min(silence, deadline - time.monotonic())
        if left <= 0:
            raise TimeoutError
        link = socket.socket(family, socket.SOCK_STREAM)
        link.settimeout(left)
        try:
            link.connect((ip, port))
        except OSError as error:
            link.close()
            failure = error
        else:
            link.settimeout(silence)
            return link
    raise failure


def _cut(link: socket.socket) -> None:
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
