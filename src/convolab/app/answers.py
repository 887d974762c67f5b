"""An endpoint's arguments and its answer, both as JSON; what a person can mend is an answer of one line."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from convolab.app.worker import Cancelled
from convolab.core.errors import LabError, require
from convolab.core.files import parse_json, translate_system_errors

if TYPE_CHECKING:
    from convolab.app.server import AppState

MAX_VALUES = 500  # of a query
Values = Mapping[str, Any]


@dataclass(frozen=True)
class PageCall:
    """What an endpoint's function gets."""

    app: "AppState"  # the folder of runs, the jobs, the uploads
    session: str
    values: Values  # of the query, or of the body

    def text(self, name: str, default: str = "") -> str:
        """A value that is text. Raises LabError if it is something else, or very long."""
        value = self.values.get(name, default)
        require(isinstance(value, str) and len(value) <= 10_000, f"{name} must be a text of at most 10,000 characters")
        return value

    def texts(self, name: str) -> list[str]:
        """A value that is a list of texts; one text is a list of one."""
        value = self.values.get(name, [])
        value = [value] if isinstance(value, str) else value
        is_list = isinstance(value, list) and len(value) <= MAX_VALUES and all(isinstance(v, str) for v in value)
        require(is_list, f"{name} must be a list of at most {MAX_VALUES} texts")
        return value


@dataclass(frozen=True)
class Tab:
    """One tab of the page: see `convolab.app`."""

    name: str
    title: str
    routes: tuple[BaseRoute, ...] = ()


def json_route(path: str, function: Callable[[PageCall], Any], *, posts: bool = False, checks: bool = False) -> Route:
    """An endpoint whose function runs in a thread of its own: for what takes milliseconds, or waits for the disk.

    With `checks` what is wrong with the values is its answer, and no failure.
    """

    async def endpoint(request: Request) -> Response:
        call = await read_call(request)
        with_errors = translate_system_errors()(function)
        try:
            return to_response(await run_in_threadpool(with_errors, call))
        except LabError as error:
            if not checks:
                raise
            return to_response({"error": str(error)})

    return Route(path, endpoint, methods=["POST" if posts else "GET"])


def computed_route(path: str, function: Callable[[PageCall], Any], *, channel: str, posts: bool = True) -> Route:
    """An endpoint whose function runs in the one thread that computes: for whatever runs a network, or draws a chart.

    The next request of the same browser and channel cancels it; so does a browser that does not wait any more.
    """

    async def endpoint(request: Request) -> Response:
        call = await read_call(request)
        with_errors = translate_system_errors()(function)
        work = asyncio.ensure_future(call.app.worker.run(call.session, channel, lambda: with_errors(call)))
        gone = asyncio.ensure_future(wait_until_gone(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            return to_response(work.result()) if work.done() else answer_cancelled()
        except Cancelled:
            return answer_cancelled()
        finally:
            work.cancel()
            gone.cancel()

    return Route(path, endpoint, methods=["POST" if posts else "GET"])


async def wait_until_gone(request: Request) -> None:
    """Return when the browser has gone away."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


async def read_call(request: Request) -> PageCall:
    """The values of a query, or of a body that is a JSON object; a name given twice is a list."""
    values: dict[str, Any] = {}
    if request.method == "POST":
        body = await request.body()
        parsed = parse_json(body.decode("utf-8", "replace"), "the request") if body else {}
        require(isinstance(parsed, dict), "the request must be a JSON object")
        values = parsed
    else:
        pairs = request.query_params.multi_items()
        require(len(pairs) <= MAX_VALUES, f"an address may have {MAX_VALUES} values: choose fewer")
        for name, value in pairs:
            known = values.get(name)
            values[name] = value if known is None else [*([known] if isinstance(known, str) else known), value]
    return PageCall(request.app.state.lab, request.state.session, values)


def to_response(value: object) -> Response:
    """JSON, in which NaN and infinity, which it does not know, are null; a response is left as it is."""
    if isinstance(value, Response):
        return value
    return JSONResponse(plain_json(value))


def plain_json(value: Any) -> Any:  # noqa: ANN401 (whatever JSON can hold)
    r"""
    >>> plain_json({"loss": [float("nan"), 1.0], "name": "bad\udcff"})
    {'loss': [None, 1.0], 'name': 'bad\\udcff'}
    """
    match value:
        case float():
            return value if value - value == 0 else None
        case str():  # a file's name may hold bytes that are no UTF-8
            return value.encode("utf-8", "backslashreplace").decode()
        case Mapping():
            return {name: plain_json(entry) for name, entry in value.items()}
        case list() | tuple():
            return [plain_json(entry) for entry in value]
        case _:
            return value


async def answer_lab_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def answer_cancelled() -> Response:
    return JSONResponse({"cancelled": True})


async def answer_bug(request: Request, error: Exception) -> Response:
    """A bug: the page says so in a line, and the terminal shows where."""
    return JSONResponse({"error": f"a fault of convolab's own ({type(error).__name__}): the terminal shows where"}, 500)
