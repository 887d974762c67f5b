"""The one thread that computes: fair, cancelled within a pass, and never blocked by one browser."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from convolab.app.worker import Cancelled, ComputeThread
from convolab.core.errors import LabError


@pytest.fixture
def worker() -> Iterator[ComputeThread]:
    made = ComputeThread()
    yield made
    made.close()
    if made.thread:
        made.thread.join(timeout=5.0)
        assert not made.thread.is_alive()


def endless(started: threading.Event) -> Callable[[], None]:
    """What runs a network again and again."""
    net = nn.Linear(4, 4)

    def compute() -> None:
        started.set()
        while True:
            net(torch.zeros(1, 4))

    return compute


async def run_endless(worker: ComputeThread, session: str, channel: str) -> "asyncio.Task[None]":
    started = threading.Event()
    task = asyncio.ensure_future(worker.run(session, channel, endless(started)))
    while not started.is_set():
        await asyncio.sleep(0.01)
    return task


def test_a_newer_click_cancels_the_one_before_within_a_second(worker: ComputeThread) -> None:
    async def main() -> float:
        first = await run_endless(worker, "a", "explain")
        begun = time.monotonic()
        assert await worker.run("a", "explain", lambda: 3) == 3
        with pytest.raises(Cancelled):
            await first
        return time.monotonic() - begun

    assert asyncio.run(main()) < 1


def test_who_does_not_wait_any_more_stops_the_work(worker: ComputeThread) -> None:
    async def main() -> None:
        first = await run_endless(worker, "a", "explain")
        first.cancel()
        assert await asyncio.wait_for(worker.run("b", "explain", lambda: 4), 1) == 4

    asyncio.run(main())


def test_another_browser_or_channel_cancels_nothing(worker: ComputeThread) -> None:
    async def main() -> list[int]:
        calls = [
            worker.run(session, channel, lambda n=n: n)
            for n, (session, channel) in enumerate([("a", "x"), ("a", "y"), ("b", "x")])
        ]
        return list(await asyncio.gather(*calls))

    assert asyncio.run(main()) == [0, 1, 2]


def test_browsers_take_turns_however_much_one_of_them_wants(worker: ComputeThread) -> None:
    order: list[str] = []

    async def main() -> None:
        gate = threading.Event()
        calls = [asyncio.ensure_future(worker.run("first", "gate", gate.wait))]
        await asyncio.sleep(0.01)
        names = [("greedy", str(n)) for n in range(5)] + [("modest", "0")]
        calls += [asyncio.ensure_future(worker.run(s, c, lambda s=s: order.append(s))) for s, c in names]
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*calls)

    asyncio.run(main())
    assert order.index("modest") <= 1


def test_an_error_is_of_the_one_who_asked(worker: ComputeThread) -> None:
    def fail() -> None:
        raise LabError("no such class")

    async def main() -> None:
        with pytest.raises(LabError, match="no such class"):
            await worker.run("a", "x", fail)
        assert await worker.run("a", "x", lambda: 1) == 1

    asyncio.run(main())


def test_a_network_of_somebody_else_is_not_stopped(worker: ComputeThread) -> None:
    async def main() -> None:
        task = await run_endless(worker, "a", "explain")
        assert worker.running is not None
        worker.running.cancelled.set()
        nn.Linear(2, 2)(torch.zeros(1, 2))  # in this thread
        with pytest.raises(Cancelled):
            await task

    asyncio.run(main())


def test_a_closed_thread_takes_no_more_work_and_ends(worker: ComputeThread) -> None:
    async def main() -> None:
        first = await run_endless(worker, "a", "explain")
        worker.close()
        with pytest.raises(Cancelled):
            await first
        with pytest.raises(Cancelled):
            await worker.run("a", "explain", lambda: 3)

    asyncio.run(main())
    worker.wait_until_ended(5.0)
    assert worker.thread is not None
    assert not worker.thread.is_alive()
