"""One thread that computes what people click: one after another, fairly between browsers, and cancelled within a pass.

Networks share the processor's threads, so two maps at once would only be slower. A click of the same kind takes the place
of the one before it. What computes is stopped between two layers: a hook on every module's forward raises there.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from convolab.core.errors import require

MAX_WAITING = 100  # jobs of all browsers
Computed = TypeVar("Computed")


class Cancelled(BaseException):
    """What runs is not wanted any more. No `except Exception` on the way catches it."""


@dataclass(eq=False)
class Task:
    """One thing to compute."""

    session: str
    channel: str  # what it is for; a newer one of the same session and channel takes its place
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    cancelled: threading.Event = field(default_factory=threading.Event)

    def settle(self, value: object, error: BaseException | None) -> None:
        """Give the result to who waits for it, in their own thread."""

        def set_result() -> None:
            if self.future.done():
                return
            if error is None:
                self.future.set_result(value)
            else:
                self.future.set_exception(error)

        try:
            self.loop.call_soon_threadsafe(set_result)
        except RuntimeError:  # the server has stopped
            return


class ComputeThread:
    """The thread, started at its first task and ended by `close`."""

    def __init__(self) -> None:
        self.queues: dict[str, deque[Task]] = {}  # by session; they take turns in the order of this dict
        self.running: Task | None = None
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.is_closed = False

    async def run(self, session: str, channel: str, function: Callable[[], Computed]) -> Computed:
        """The value of a function, computed in the thread.

        Raises Cancelled when another one of the same session and channel was asked for meanwhile or the thread is closed,
        and what the function raises. Whoever stops waiting (`asyncio.Task.cancel`) cancels it.
        """
        loop = asyncio.get_running_loop()
        task = Task(session, channel, function, loop, loop.create_future())
        with self.changed:
            if self.is_closed:
                raise Cancelled
            self._cancel(session, channel)
            waiting = sum(map(len, self.queues.values()))
            require(waiting < MAX_WAITING, f"{waiting} things wait to be computed already: try again in a moment")
            self.queues.setdefault(session, deque()).append(task)
            if self.thread is None:
                self.thread = threading.Thread(target=self._work, name="convolab-worker", daemon=True)
                self.thread.start()
            self.changed.notify()
        try:
            return await task.future
        except asyncio.CancelledError:
            self._drop(task)
            raise

    def close(self) -> None:
        """End the thread, after the pass that runs."""
        with self.changed:
            self.is_closed = True
            for session in [*self.queues, *([self.running.session] if self.running else [])]:
                self._cancel(session, None)
            self.changed.notify()

    def wait_until_ended(self, timeout: float) -> None:
        """Wait some seconds for the thread, after `close`: Python may abort if it ends while torch computes in a thread."""
        if self.thread is not None:
            self.thread.join(timeout)

    def _cancel(self, session: str, channel: str | None) -> None:
        for task in [*self.queues.get(session, ()), *([self.running] if self.running else [])]:
            if task.session == session and channel in (None, task.channel):
                self._drop_locked(task)

    def _drop(self, task: Task) -> None:
        with self.changed:
            self._drop_locked(task)

    def _drop_locked(self, task: Task) -> None:
        task.cancelled.set()
        queue = self.queues.get(task.session)
        if queue and task in queue:
            queue.remove(task)
        task.settle(None, Cancelled())

    def _next(self) -> Task | None:
        """Wait for the next task, of the session whose turn it is; None when the worker is closed."""
        with self.changed:
            self.running = None
            while not self.is_closed:
                for session, queue in list(self.queues.items()):
                    del self.queues[session]  # it goes to the end
                    if queue:
                        self.running = queue.popleft()
                        self.queues[session] = queue
                        return self.running
                self.changed.wait()
            return None

    def _work(self) -> None:
        from torch.nn.modules.module import register_module_forward_pre_hook

        hook = register_module_forward_pre_hook(lambda module, inputs: self.check())
        while task := self._next():
            try:
                value, error = task.function(), None
            except BaseException as raised:  # whoever waits gets it
                value, error = None, raised
            task.settle(value, error)
        hook.remove()

    def check(self) -> None:
        """Raise Cancelled if what runs in this thread is not wanted any more."""
        task = self.running
        if task is not None and threading.current_thread() is self.thread and task.cancelled.is_set():
            raise Cancelled
