"""The cores that other programs leave free, and the threads that torch then takes."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import convolab
from convolab import api
from convolab.core import environment, free_cores
from convolab.core.environment import count_usable_cores
from convolab.core.errors import LabError
from convolab.core.free_cores import ProcessorTimes, as_many_threads, count_free_cores, spare_busy_cores

needs_two_cores = pytest.mark.skipif(
    count_usable_cores() < 2 or not free_cores.STAT.exists(), reason="one core, or a system that tells no times"
)


def write_stat(path: Path, *cores: tuple[int, int]) -> None:
    """/proc/stat with the user and idle time of each core, in ticks."""
    lines = [f"cpu{core} {user} 0 0 {idle} 0 0 0 0 0 0" for core, (user, idle) in enumerate(cores)]
    path.write_text("\n".join(["cpu 9 9 9 9 9 9 9 9 9 9", *lines, "intr 5 6"]))


@pytest.mark.parametrize(
    ("free_seconds", "own_seconds", "expected"),
    [
        ((1.0, 1.0), 0.0, 2),
        ((0.0, 1.0), 0.0, 1),  # one core is another program's
        ((0.0, 0.7), 0.0, 1),
        ((0.8, 0.9), 0.0, 2),  # a browser that idles
        ((0.0, 1.0), 1.0, 2),  # this process itself
        ((0.0, 0.0), 0.0, 1),
    ],
)
def test_cores_are_free_that_nobody_else_uses(
    free_seconds: tuple[float, float],
    own_seconds: float,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    monkeypatch.setattr(free_cores, "STAT", tmp_path / "stat")
    monkeypatch.setattr(free_cores, "count_usable_cores", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    clock = {"now": 10.0, "own": 3.0}
    monkeypatch.setattr(free_cores.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(free_cores.time, "process_time", lambda: clock["own"])
    write_stat(tmp_path / "stat", (0, 50), (0, 70), (0, 10**6))  # the third is not this process's
    times = ProcessorTimes.now()
    clock.update(now=11.0, own=3.0 + own_seconds)
    free = [round(seconds * ticks) for seconds in free_seconds]
    write_stat(tmp_path / "stat", (ticks - free[0], 50 + free[0]), (ticks - free[1], 70 + free[1]), (0, 10**7))
    assert count_free_cores(times) == expected


def test_a_system_that_tells_no_times_has_all_its_cores_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(free_cores, "STAT", tmp_path / "none")
    assert count_free_cores() == count_usable_cores()


@needs_two_cores
@pytest.mark.timing
def test_beside_busy_programs_one_thread_is_taken_and_the_rest_comes_back(undecided: None) -> None:
    messages: list[str] = []
    with ExitStack() as stack:
        for _ in range(count_usable_cores()):
            loop = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(loop.kill)
        time.sleep(0.5)
        with spare_busy_cores(messages.append):
            assert torch.get_num_threads() < count_usable_cores()
    assert torch.get_num_threads() == count_usable_cores()
    assert ["other programs are busy" in line for line in messages] == [True]


@pytest.mark.parametrize("chosen", ["variable", "torch", "command"])
def test_a_number_that_somebody_chose_is_left(chosen: str, undecided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_cores, "count_free_cores", lambda: 1)
    monkeypatch.setattr(free_cores, "count_physical_cores", lambda: 3)
    torch.set_num_threads(3)
    if chosen == "variable":
        monkeypatch.setenv(free_cores.THREADS_VARIABLE, "3")
    elif chosen == "torch":
        torch.set_num_threads(2)
    else:
        free_cores.use_threads(3)
    expected = torch.get_num_threads()
    with spare_busy_cores(lambda message: pytest.fail(message)):
        assert torch.get_num_threads() == expected


def test_the_threads_of_an_earlier_process_are_taken_for_a_while(undecided: None) -> None:
    before = torch.get_num_threads()
    for count, expected in ((1, 1), (10_000, count_usable_cores()), (None, before)):
        with as_many_threads(count):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == before


@pytest.mark.parametrize("chosen", ["variable", "command"])
def test_threads_that_somebody_chose_are_not_those_of_an_earlier_process(
    chosen: str, undecided: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chosen == "variable":
        monkeypatch.setenv(free_cores.THREADS_VARIABLE, "1")
    else:
        free_cores.use_threads(1)
    expected = torch.get_num_threads()
    with as_many_threads(expected + 1):
        assert torch.get_num_threads() == expected


def test_with_hyper_threading_torchs_half_of_the_cores_is_nobodys_choice(
    undecided: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_cores, "count_free_cores", lambda since: 1)
    monkeypatch.setattr(free_cores, "count_physical_cores", lambda: 2)
    monkeypatch.setattr(free_cores, "count_usable_cores", lambda: 4)
    torch.set_num_threads(2)
    with spare_busy_cores():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_two_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / f"cpu{number}").write_text(siblings)
    monkeypatch.setattr(environment, "SIBLINGS", f"{tmp_path}/cpu{{}}")
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert environment.count_physical_cores() == 2
    monkeypatch.setattr(environment, "SIBLINGS", f"{tmp_path}/none{{}}")
    assert environment.count_physical_cores() == 4


def test_a_loop_of_calls_waits_for_a_sample_once(undecided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if count_usable_cores() < 2 or not free_cores.STAT.exists():
        pytest.skip("one core, or a system that tells no times")
    monkeypatch.setattr(free_cores, "_last_call", None)
    slept: list[float] = []
    pause = time.sleep
    monkeypatch.setattr(free_cores.time, "sleep", slept.append)
    for _ in range(3):
        with spare_busy_cores():
            pause(2 * free_cores.SAMPLE_SECONDS)
    assert slept[0] > 0
    assert [seconds <= 0 for seconds in slept[1:]] == [True, True]


@pytest.mark.parametrize("name", ["explain", "fool", "locate", "receptive_field"])
def test_what_looks_at_a_network_from_python_spares_busy_cores(
    name: str, undecided: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_cores, "count_free_cores", lambda since: 1)
    monkeypatch.setattr(free_cores, "count_usable_cores", torch.get_num_threads)
    torch.set_num_threads(2)
    threads: list[int] = []

    def look(*_: object) -> None:
        threads.append(torch.get_num_threads())
        raise LabError("that is enough")

    monkeypatch.setattr(api, "resolve_classifier", look)
    arguments = {"fool": {"target": "cat"}, "locate": {"targets": "cat"}, "receptive_field": {"pixel": (0, 0)}}
    with pytest.raises(LabError, match="that is enough"):
        getattr(convolab, name)("chelsea", **arguments.get(name, {}))
    assert threads == [1]
    assert torch.get_num_threads() == 2
