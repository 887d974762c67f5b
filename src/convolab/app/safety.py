"""Which requests the page's server answers, and the headers of every answer.

A page of another site can send requests to this machine, and a name of its own may point here (DNS rebinding). So the
names in Host and Origin are checked on every request, and what changes something must come from this page.
"""

import hmac
import ipaddress
import json
import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 100_000  # of a request that uploads nothing
MAX_UPLOAD_BYTES = 25_000_000
MAX_ADDRESS_BYTES = 16_000  # the path and what follows it
UPLOAD_PATH = "/api/uploads"
TOKEN_COOKIE = "convolab_token"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
READING = ("GET", "HEAD")
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Refusal(Exception):
    """A request that is not answered: why, in a line, and HTTP's number for it."""

    status: int
    reason: str


class BodyTooLarge(HTTPException):
    """More came than a request may have, whatever length it claimed."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"a request may have {limit:,} bytes here: send less")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class AllowedHosts:
    """The names under which a server may be called: what a browser sends as Host.

    A server for this machine has only this machine's names. Another one is called by an address, by the name that was
    given to --host, or by the machine's own name: never by a name that somebody else chose.
    """

    host: str
    port: int

    def __contains__(self, value: str) -> bool:
        """Whether a Host header names this server.

        >>> local = AllowedHosts("127.0.0.1", 8360)
        >>> "localhost:8360" in local, "evil.example:8360" in local, "127.0.0.1:80" in local
        (True, False, False)
        """
        name, colon, port = value.lower().rpartition(":")
        if not colon or port != str(self.port):
            return False
        if name in (*LOOPBACK, self.host.lower()):
            return True
        return not is_loopback(self.host) and (is_address(name) or name == socket.gethostname().lower())


def is_address(name: str) -> bool:
    """Whether a name is a number's: nobody can point it elsewhere."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class Tokens:
    """The password of a page that other machines may open: each works once, and the next one is then printed."""

    def __init__(self, on_next: Callable[[str], None]) -> None:
        self.on_next = on_next
        self.next = secrets.token_urlsafe(16)
        self.cookie = secrets.token_urlsafe(32)  # what a browser keeps that has opened the page

    def redeem(self, token: str) -> bool:
        """Whether it is the next token, which is then used up."""
        if not hmac.compare_digest(token.encode(), self.next.encode()):
            return False
        self.next = secrets.token_urlsafe(16)
        self.on_next(self.next)
        return True

    def is_known(self, cookie: str) -> bool:
        return hmac.compare_digest(cookie.encode(), self.cookie.encode())


class Guard:
    """In front of the whole application: refuses what is not this page's, bounds what comes, sets the headers."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, tokens: Tokens | None = None) -> None:
        self.app, self.hosts, self.tokens = app, hosts, tokens
        self.cookie = f"{TOKEN_COOKIE}_{hosts.port}"  # browsers give the cookies of one port to all others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        with_headers = add_headers(send)
        try:
            headers = read_headers(scope["headers"])
            self.require_own(scope, headers)
            if location := self.redeemed_location(scope, headers):
                cookie = f"{self.cookie}={self.tokens.cookie if self.tokens else ''}; Path=/; HttpOnly; SameSite=Strict"
                await send_answer(with_headers, 303, b"", [(b"location", location), (b"set-cookie", cookie.encode())])
                return
            limit = MAX_UPLOAD_BYTES if scope["path"] == UPLOAD_PATH else MAX_BODY_BYTES
            length = headers.get("content-length", "0")
            if not length.isdecimal() or int(length[:20]) > limit:
                raise Refusal(413, BodyTooLarge(limit).detail)
            await self.app(scope, bounded(receive, limit), with_headers)
        except Refusal as refusal:
            await refuse(with_headers, refusal)

    def require_own(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raise Refusal for a request under another name, from another page, or without the token."""
        host, origin, site = (headers.get(name) for name in ("host", "origin", "sec-fetch-site"))
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_ADDRESS_BYTES:
            raise Refusal(414, f"an address may have {MAX_ADDRESS_BYTES:,} bytes: shorten it")
        if host is None or host not in self.hosts:
            raise Refusal(421, "this page is not known under that name: open the address that `convolab app` printed")
        is_reading = scope["method"] in READING
        if origin is not None and origin != f"http://{host}":
            raise Refusal(403, "this request comes from another page, and is refused")
        if not is_reading and origin is None:
            raise Refusal(403, "a request that changes something must say that this page sends it: it has no Origin")
        # A link on another page may open this one; nothing else of it may be asked for from there.
        is_opening = scope["path"] == "/" and is_reading and headers.get("sec-fetch-mode", "navigate") == "navigate"
        if site not in (None, "same-origin", "none") and not is_opening:
            raise Refusal(403, "this request comes from another page, and is refused")
        if self.tokens and not self.tokens.is_known(cookie_of(headers, self.cookie)) and not self.token_of(scope):
            raise Refusal(403, "this page needs its token: open the address that `convolab app` printed last")

    def token_of(self, scope: Scope) -> str:
        """The token in the address; only the page itself is opened with one."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return ""
        return next(iter(parse_qs(scope["query_string"].decode("latin-1")).get("token", [])), "")

    def redeemed_location(self, scope: Scope, headers: dict[str, str]) -> bytes | None:
        """Where a browser goes that came with a token: the same address without it. Raises Refusal for a used one."""
        if not self.tokens or not (token := self.token_of(scope)):
            return None
        if not self.tokens.is_known(cookie_of(headers, self.cookie)) and not self.tokens.redeem(token):
            raise Refusal(403, "this token was used already: open the address that `convolab app` printed last")
        rest = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        del rest["token"]
        return f"/?{urlencode(rest, doseq=True)}".rstrip("?").encode("ascii", "replace")


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """A request's headers. Raises Refusal for one that is given twice, which two readers may read differently."""
    headers: dict[str, str] = {}
    for raw_name, value in pairs:
        name = raw_name.decode("latin-1").lower()
        if name in headers and name in ("host", "origin", "content-length", "sec-fetch-site"):
            raise Refusal(400, f"the header {name} is given twice")
        headers[name] = value.decode("latin-1")
    return headers


def cookie_of(headers: dict[str, str], name: str) -> str:
    """A cookie's value; empty if there is none.

    >>> cookie_of({"cookie": "a=1; b=2"}, "b")
    '2'
    """
    try:
        morsel = SimpleCookie(headers.get("cookie", "")[:8192]).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def bounded(receive: Receive, limit: int) -> Receive:
    """What comes, up to a limit, whatever length was claimed."""
    total = 0

    async def receive_some() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise BodyTooLarge(limit)
        return message

    return receive_some


def add_headers(send: Send) -> Send:
    """Every answer has the headers, unless it has one of the name itself."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message["headers"]}
            added = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in own]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return send_with_headers


async def refuse(send: Send, refusal: Refusal) -> None:
    body = json.dumps({"error": refusal.reason}).encode()
    await send_answer(send, refusal.status, body, [(b"content-type", b"application/json"), (b"connection", b"close")])


async def send_answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
