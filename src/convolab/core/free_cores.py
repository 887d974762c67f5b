"""As many threads as other programs leave cores free: threads that wait for a busy core cost more than they bring.

Torch takes a thread for each core and lets them spin while they wait for each other. With another program on one of two
cores, a training then had a third of its speed, and with one thread nine tenths of what a free core gives.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from convolab.core.environment import count_physical_cores, count_usable_cores
from convolab.core.text import pluralize

STAT = Path("/proc/stat")
SAMPLE_SECONDS = 0.1  # the system counts in hundredths of a second
RECENT_SECONDS = 10.0  # since an earlier call began, which then is the sample: a loop of calls waits once
THREADS_VARIABLE = "OMP_NUM_THREADS"
_decided = False  # whether a person or a command has chosen this process's threads
_last_call: "ProcessorTimes | None" = None  # of `spare_busy_cores`


@dataclass(frozen=True)
class ProcessorTimes:
    """How long this process's cores were free for it so far, and how long it used them itself, in seconds."""

    at: float
    free: float
    own: float

    @classmethod
    def now(cls) -> "ProcessorTimes | None":
        """The times until now; None where the system does not tell them."""
        if not STAT.exists():
            return None
        cores = os.sched_getaffinity(0)
        ticks = 0
        for line in STAT.read_text().splitlines():
            name, *times = line.split()
            if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cores:
                _user, nice, _system, idle, io_wait = map(int, times[:5])
                ticks += nice + idle + io_wait  # a program that is nice gives way
        return cls(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


def count_free_cores(since: ProcessorTimes | None = None) -> int:
    """The cores that other programs left free on average since then, at least 1; by default for a tenth of a second from now.

    A core that another program uses for less than half of the time counts as free. Where the system does not tell, all
    cores do.
    """
    cores = count_usable_cores()
    since = since or ProcessorTimes.now()
    if cores == 1 or since is None:
        return cores
    time.sleep(max(0.0, since.at + SAMPLE_SECONDS - time.monotonic()))
    now = ProcessorTimes.now()
    assert now is not None
    free = (now.free - since.free + now.own - since.own) / (now.at - since.at)
    return min(cores, max(1, round(free)))


def use_threads(count: int) -> None:
    """Let torch take this many threads in this process, whatever else is running: for a command, or a person's choice."""
    import torch

    global _decided
    _decided = True
    torch.set_num_threads(count)


@contextmanager
def threads_lent(count: int) -> Iterator[None]:
    """Let torch take this many threads inside the block, and as many as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def spare_busy_cores(on_message: Callable[[str], None] | None = None) -> Iterator[None]:
    """Let torch take only as many threads as cores are free inside the block, unless somebody chose their number."""
    import torch

    global _last_call
    before = torch.get_num_threads()
    if is_chosen():
        yield
        return
    now = ProcessorTimes.now()
    is_sample = now and _last_call and SAMPLE_SECONDS <= now.at - _last_call.at <= RECENT_SECONDS
    threads = min(before, count_free_cores(_last_call if is_sample else now))
    _last_call = now
    if threads < before and on_message:
        on_message(describe_busy(threads, before))
    with threads_lent(threads):
        yield


@contextmanager
def as_many_threads(count: int | None) -> Iterator[None]:
    """Let torch take so many threads inside the block, as an earlier process did, unless somebody chose their number.

    There are never more than cores. None leaves their number as it is.
    """
    if count is None or is_chosen():
        yield
        return
    with threads_lent(min(count, count_usable_cores())):
        yield


def is_chosen() -> bool:
    """Whether a person or a command has chosen how many threads torch takes in this process."""
    import torch

    # Torch takes a thread for each core, or with hyper-threading for each of its two; fewer are somebody's choice.
    return _decided or THREADS_VARIABLE in os.environ or torch.get_num_threads() < count_physical_cores()


def describe_busy(threads: int, cores: int) -> str:
    """The line about threads that are left out.

    >>> describe_busy(1, 2)
    'other programs are busy: 1 thread on 2 cores, which is faster than more (OMP_NUM_THREADS=2 takes all)'
    """
    return (
        f"other programs are busy: {pluralize(threads, 'thread')} on {pluralize(cores, 'core')}, which is faster than more "
        f"({THREADS_VARIABLE}={cores} takes all)"
    )
