"""The server of the page: what it keeps, which address answers what, and how it starts and stops."""

import contextlib
import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import FrameType

import uvicorn
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convolab.app.answers import answer_bug, answer_lab_error, json_route
from convolab.app.folders import RunsFolder
from convolab.app.jobs import Jobs
from convolab.app.networks import LoadedNetworks
from convolab.app.progress import ProgressBoard
from convolab.app.safety import UPLOAD_PATH, AllowedHosts, BodyTooLarge, Guard, Tokens, cookie_of, is_loopback
from convolab.app.sessions import SESSION_COOKIE, Sessions
from convolab.app.tabs import load_tabs
from convolab.app.worker import ComputeThread
from convolab.core.errors import LabError, require
from convolab.core.escape import printable_lines

FIRST_PORT, NUM_PORTS = 8360, 20  # that are tried, one after another, before the system chooses
MAX_CONNECTIONS = 500
LONGEST_END = 5.0  # seconds that what is computed may take to notice that the page ends
STATIC_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
STYLE_OF_REPORTS = "frame.css"  # the page has the look of the reports


@dataclass(frozen=True)
class AppState:
    """What a server keeps while it runs.

    Attributes:
        runs: the folder of runs and studies.
        data: datasets of a person's own, as `--data` named them.
        nets: networks of a person's own, as `--net` named them.
        data_dir: where datasets are.
    """

    runs: RunsFolder
    jobs: Jobs
    data: tuple[str, ...] = ()
    nets: tuple[str, ...] = ()
    data_dir: Path | None = None
    sessions: Sessions = field(default_factory=Sessions)
    worker: ComputeThread = field(default_factory=ComputeThread)
    networks: LoadedNetworks = field(default_factory=LoadedNetworks)
    progress: ProgressBoard = field(default_factory=ProgressBoard)


class WithSession:
    """Each browser has a session, whose id it keeps in a cookie that no script reads."""

    def __init__(self, app: ASGIApp, sessions: Sessions, port: int) -> None:
        self.app, self.sessions = app, sessions
        self.cookie = f"{SESSION_COOKIE}_{port}"  # browsers give the cookies of one port to all others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/static/"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = cookie_of(headers, self.cookie)
        session = self.sessions.open(given)
        scope.setdefault("state", {})["session"] = session

        async def send_cookie(message: Message) -> None:
            if message["type"] == "http.response.start" and session != given:
                cookie = f"{self.cookie}={session}; Path=/; HttpOnly; SameSite=Strict".encode()
                message = {**message, "headers": [*message["headers"], (b"set-cookie", cookie)]}
            await send(message)

        await self.app(scope, receive, send_cookie)


def build_app(state: AppState, hosts: AllowedHosts, tokens: Tokens | None = None) -> ASGIApp:
    """The whole application, behind its guard."""
    tabs = load_tabs()
    routes: list[BaseRoute] = [
        Route("/", page, methods=["GET"]),
        Route("/static/{name}", static_file, methods=["GET"]),
        Route(UPLOAD_PATH, upload, methods=["POST"]),
        json_route("/api/here", lambda call: {}),  # a request of an open page, which keeps its session
        *(route for tab in tabs for route in tab.routes),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(state.jobs.start)
        yield
        state.worker.close()
        await run_in_threadpool(state.jobs.close)

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            LabError: answer_lab_error,
            HTTPException: answer_http_error,
            ClientDisconnect: answer_nobody,
            Exception: answer_bug,
        },
    )
    app.state.lab, app.state.tabs = state, tabs
    return Guard(WithSession(app, state.sessions, hosts.port), hosts, tokens)


@cache
def page_environment_of_app() -> Environment:
    """The page's templates. Nothing in them is a script, so no value can become one."""
    return Environment(
        loader=PackageLoader("convolab.app"),
        autoescape=select_autoescape(),
        finalize=lambda value: printable_lines(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


async def page(request: Request) -> Response:
    """The page. Torch, which takes seconds to import, is imported once the first one is sent."""
    state: AppState = request.app.state.lab
    template = page_environment_of_app().get_template("page.html")
    text = template.render(tabs=request.app.state.tabs, runs=str(state.runs.root))
    return Response(text, media_type="text/html", background=BackgroundTask(import_torch))


def import_torch() -> None:
    """So that the first click need not wait for it."""
    import convolab

    _ = convolab.Recipe, convolab.explain


@cache
def static_files() -> dict[str, bytes]:
    """The page's scripts and styles by name, read once: no name leads to another file."""
    own = {path.name: path.read_bytes() for path in files("convolab.app").joinpath("static").iterdir()}
    return own | {STYLE_OF_REPORTS: files("convolab.plots").joinpath("templates", STYLE_OF_REPORTS).read_bytes()}


async def static_file(request: Request) -> Response:
    name = request.path_params["name"]
    content = static_files().get(name)
    kind = STATIC_TYPES.get(Path(name).suffix)
    if content is None or kind is None:
        raise HTTPException(404)
    return Response(content, media_type=kind, headers={"cache-control": "no-cache"})


async def upload(request: Request) -> Response:
    """Keep an image that is the body of the request; its name is in the query."""
    state: AppState = request.app.state.lab
    content = await request.body()
    require(content, "the file is empty: choose an image")
    name = request.query_params.get("name", "image")
    kept = await run_in_threadpool(state.sessions.add, request.state.session, name, content)
    height, width = kept.image.shape[1:]
    return JSONResponse({"id": kept.id, "name": kept.name, "width": width, "height": height})


async def answer_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if isinstance(error, BodyTooLarge):
        return JSONResponse({"error": error.detail}, status)
    reasons = {404: "there is nothing at this address", 405: "this address does not take such a request"}
    return JSONResponse({"error": reasons.get(status, "this request is not understood")}, status)


async def answer_nobody(request: Request, error: Exception) -> Response:
    """The browser broke a request off: no fault, and nobody reads the answer."""
    return Response(status_code=400)


def open_socket(host: str, port: int | None) -> socket.socket:
    """A socket that listens: at the port, at a free one for 0, or near 8360 for None. Raises LabError if none is free."""
    tried = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + NUM_PORTS), 0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in tried:
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Without it a port is not free until a minute after a server has ended.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host.strip("[]"), number))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                raise LabError(
                    f"cannot listen at {host}, port {number} ({error.strerror}): give another one"
                ) from error
        else:
            return listening
    raise LabError(f"port {port} of {host} is taken: give another --port, or none")


def serve_page(
    state: AppState, host: str, port: int | None, on_ready: Callable[[str], None], on_message: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C. `on_ready` gets its address once it answers."""
    listening = open_socket(host, port)
    bound_port: int = listening.getsockname()[1]
    shown_host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    address = f"http://{shown_host}:{bound_port}/"
    tokens = None
    if not is_loopback(host):
        tokens = Tokens(lambda token: on_message(f"opened; for one more browser: {address}?token={token}"))
    app = build_app(state, AllowedHosts(shown_host, bound_port), tokens)
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )

    class PageServer(uvicorn.Server):
        """Says where it is once it answers, and ends without a word."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_ready(address + (f"?token={tokens.next}" if tokens else ""))

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Note a signal. uvicorn would also raise it again at its end, in the middle of whatever is left then."""
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a request that is cut off now is no fault
            state.worker.close()  # who waits for a result gets the answer that there will be none
            await super().shutdown(sockets)

    PageServer(config).run(sockets=[listening])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # one more Ctrl-C ends at once what a thread still does
    state.worker.wait_until_ended(LONGEST_END)
