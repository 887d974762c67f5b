import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support import small_jobs
from support.run_contents import run_contents
from support.small_jobs import TINY_RECIPE, count_kinds, is_alive, make_jobs, run_jobs, within, write_digits

from convolab.core.errors import LabError
from convolab.data.dataset import ImageDataset
from convolab.data.memmap import write_memmap
from convolab.data.splits import DatasetSplits
from convolab.studies import executor
from convolab.studies.executor import JobEvent, LocalExecutor
from convolab.training.run import Run

pytestmark = pytest.mark.timing

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="the system does not report shared memory"
)

EPOCHS = 40  # so many that a worker is not through when a busy machine comes to stop it


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def uninterrupted(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What three runs leave when nothing interrupts them, by key."""
    jobs = make_jobs(tmp_path_factory.mktemp("uninterrupted"), 3, {"training.epochs": EPOCHS})
    events = run_jobs(LocalExecutor(2), jobs, dataset_folder)
    assert count_kinds(events)["finished"] == 3
    assert count_kinds(events)["epoch"] == 3 * EPOCHS
    return {job.recipe.key: run_contents(job.folder) for job in jobs}


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[list[executor.Job]]:
    """The jobs that `uninterrupted` has trained, in other folders."""
    yield make_jobs(tmp_path / "runs", 3, {"training.epochs": EPOCHS})
    assert not multiprocessing.active_children()


def kill_worker(number: signal.Signals) -> None:
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, number)


def test_a_trial_whose_process_is_killed_is_retried_and_its_result_is_the_same_bit_for_bit(
    dataset_folder: Path, uninterrupted: dict[str, dict], jobs: list[executor.Job]
):
    kills = iter([signal.SIGKILL])

    def on_event(event: JobEvent) -> None:
        if event.kind == "epoch" and event.epoch.epoch == 2:
            for number in kills:
                kill_worker(number)

    events = run_jobs(LocalExecutor(1), jobs, dataset_folder, on_event=on_event)
    retries = [event for event in events if event.kind == "retrying"]
    assert [(event.key, event.reason) for event in retries] == [
        (jobs[0].recipe.key, "its process ended by signal SIGKILL (the system may have run out of memory)")
    ]
    assert count_kinds(events)["finished"] == 3
    assert {job.recipe.key: run_contents(job.folder) for job in jobs} == uninterrupted


def test_a_trial_whose_process_dies_twice_has_failed_and_the_others_finish(
    dataset_folder: Path, jobs: list[executor.Job]
):
    killed_key = jobs[0].recipe.key

    def on_event(event: JobEvent) -> None:
        if event.key == killed_key and event.kind == "started":
            kill_worker(signal.SIGKILL)

    events = run_jobs(LocalExecutor(1), jobs, dataset_folder, on_event=on_event)
    assert [event.kind for event in events if event.key == killed_key] == ["started", "retrying", "started", "failed"]
    assert {event.key for event in events if event.kind == "finished"} == {job.recipe.key for job in jobs[1:]}


def test_a_trial_that_cannot_be_trained_has_failed_with_a_reason_and_the_others_finish(
    dataset_folder: Path, tmp_path: Path
):
    jobs = make_jobs(tmp_path / "runs", 2) + make_jobs(tmp_path / "runs", 1, {"data.limit": 20})
    events = run_jobs(LocalExecutor(2), jobs, dataset_folder)
    (failed,) = [event for event in events if event.kind == "failed"]
    assert failed.key == jobs[-1].recipe.key
    assert failed.reason.startswith("a batch of 32 is larger than the ")
    assert count_kinds(events)["finished"] == 2


def test_a_finished_run_is_not_trained_again(dataset_folder: Path, tmp_path: Path):
    jobs = make_jobs(tmp_path / "runs", 1)
    run_jobs(LocalExecutor(1), jobs, dataset_folder)
    before = {path.name: path.stat().st_mtime_ns for path in jobs[0].folder.iterdir()}
    events = run_jobs(LocalExecutor(1), jobs, dataset_folder)
    assert [event.kind for event in events] == ["started", "finished"]
    assert {path.name: path.stat().st_mtime_ns for path in jobs[0].folder.iterdir()} == before


@needs_proc
def test_when_the_executor_is_killed_its_workers_die_and_the_same_jobs_resume_bit_for_bit(
    dataset_folder: Path, uninterrupted: dict[str, dict], jobs: list[executor.Job]
):
    command = [sys.executable, small_jobs.__file__, "local", dataset_folder, jobs[0].folder.parent, "3", str(EPOCHS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        for line in map(json.loads, driver.stdout):
            pids = line["pids"]
            if line["kind"] == "epoch" and len(pids) == 2 and all(map(is_alive, pids)):
                break
        else:
            pytest.fail("no two workers were seen at once")
        driver.kill()
        assert within(60, lambda: not any(is_alive(pid) for pid in pids))
    statuses = [Run(job.folder).status for job in jobs if (job.folder / "summary.json").exists()]
    assert {"killed", "new"} & {*statuses}  # after an epoch, or in its first
    assert "running" not in statuses
    assert count_kinds(run_jobs(LocalExecutor(2), jobs, dataset_folder))["finished"] == 3
    assert {job.recipe.key: run_contents(job.folder) for job in jobs} == uninterrupted


def test_a_stopped_executor_saves_what_it_trains_and_resumes_bit_for_bit_later(
    dataset_folder: Path, uninterrupted: dict[str, dict], jobs: list[executor.Job]
):
    received: list[JobEvent] = []
    events = run_jobs(
        LocalExecutor(1),
        jobs,
        dataset_folder,
        stop=lambda: any(event.kind == "epoch" for event in received),
        on_event=received.append,
    )
    assert [(event.key, event.kind) for event in events if event.kind in executor.TERMINAL_EVENTS] == [
        (jobs[0].recipe.key, "stopped")
    ]
    run = Run(jobs[0].folder)
    assert run.status == "stopped"
    assert 1 <= len(run.history) < EPOCHS
    assert not jobs[1].folder.exists()
    assert count_kinds(run_jobs(LocalExecutor(2), jobs, dataset_folder))["finished"] == 3
    assert {job.recipe.key: run_contents(job.folder) for job in jobs} == uninterrupted


def test_a_worker_that_is_stopped_before_it_can_handle_the_signal_is_stopped_and_has_not_failed(
    dataset_folder: Path, jobs: list[executor.Job], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(executor, "run_worker", small_jobs.sleep_before_work)
    started = time.monotonic()
    events = run_jobs(LocalExecutor(2), jobs, dataset_folder, stop=lambda: True)
    assert {(event.key, event.kind) for event in events} == {(job.recipe.key, "stopped") for job in jobs[:2]}
    assert time.monotonic() - started < 300  # they slept for 600


def test_when_an_error_ends_the_call_its_workers_end_too_with_their_runs_saved(
    dataset_folder: Path, jobs: list[executor.Job]
):
    def on_event(event: JobEvent) -> None:
        if event.kind == "epoch":
            raise ValueError("a display that fails")

    with pytest.raises(ValueError, match="a display that fails"):
        run_jobs(LocalExecutor(2), jobs, dataset_folder, on_event=on_event)
    assert not multiprocessing.active_children()
    runs = [Run(job.folder) for job in jobs if (job.folder / "summary.json").exists()]
    assert {run.status for run in runs} <= {"stopped", "finished", "new"}
    assert "stopped" in {run.status for run in runs}


def test_when_a_worker_cannot_be_started_the_others_end(
    dataset_folder: Path, jobs: list[executor.Job], monkeypatch: pytest.MonkeyPatch
):
    before, started = executor.start_worker, list[executor.Job]()

    def start_one(job: executor.Job, folder: Path):
        if started:
            raise OSError(24, "Too many open files")
        started.append(job)
        return before(job, folder)

    monkeypatch.setattr(executor, "start_worker", start_one)
    with pytest.raises(OSError, match="Too many open files"):
        run_jobs(LocalExecutor(2), jobs, dataset_folder)
    assert not multiprocessing.active_children()


def test_the_longest_trials_start_first(dataset_folder: Path, tmp_path: Path):
    jobs = make_jobs(tmp_path / "runs", 3, base=TINY_RECIPE)
    events = run_jobs(LocalExecutor(1), [jobs[1], jobs[2], jobs[0]], dataset_folder)
    assert [event.key for event in events if event.kind == "started"] == [job.recipe.key for job in jobs]


def test_a_trial_has_one_thread_whatever_this_process_has(dataset_folder: Path, tmp_path: Path):
    jobs, threads = make_jobs(tmp_path / "runs", 1, base=TINY_RECIPE), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run_jobs(LocalExecutor(1), jobs, dataset_folder)
        assert Run(jobs[0].folder).summary["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_a_trial_is_trained_on_the_executor_s_device_and_resumed_on_its_own(
    dataset_folder: Path, tmp_path: Path
) -> None:
    (job,) = make_jobs(tmp_path, 1, {"training.epochs": 2})
    run_jobs(LocalExecutor(1, "cpu:0"), [replace(job, pause_after=1)], dataset_folder)  # another name of the processor
    assert run_jobs(LocalExecutor(1), [job], dataset_folder)[-1].kind == "finished"
    assert Run(job.folder).summary["device"] == "cpu:0"


@needs_proc
def test_the_dataset_is_shared_by_the_workers_and_not_copied(tmp_path: Path):
    rng = np.random.default_rng(0)
    images, labels = (
        torch.from_numpy(rng.integers(0, 256, (32_000, 3, 32, 32), dtype=np.uint8)),
        torch.arange(32_000) % 10,
    )
    train = ImageDataset(images, labels, tuple("abcdefghij"), "made")
    write_memmap(
        DatasetSplits(train, ImageDataset(images[:10], labels[:10], train.classes, "made")), tmp_path / "dataset"
    )
    size = images.numel() // 1024  # kB
    memory: list[tuple[dict[str, int], dict[str, int]]] = []

    def on_event(event: JobEvent) -> None:
        if event.kind == "epoch" and event.epoch.epoch == 1:  # every image was read
            memory.extend(
                (memory_of(child.pid, "train-images.npy"), memory_of(child.pid))
                for child in multiprocessing.active_children()
            )

    base = {"data": {"augment": []}, "model": TINY_RECIPE["model"], "training": {"epochs": 2, "batch_size": 1000}}
    jobs = make_jobs(tmp_path / "runs", 2, base=base)
    assert count_kinds(run_jobs(LocalExecutor(2), jobs, tmp_path / "dataset", on_event=on_event))["finished"] == 2
    measured = [(of_file, total) for of_file, total in memory if of_file and total]  # a worker may end meanwhile
    assert measured
    for of_file, total in measured:
        assert of_file["Rss"] > 0.9 * size  # all of it is in memory
        assert of_file["Private_Dirty"] == of_file["Anonymous"] == 0  # and no page of it is the worker's own
        assert total["Private_Dirty"] < size + 50_000


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.long)])
def test_many_trials_need_no_more_file_handles_than_a_few(dataset_folder: Path, tmp_path: Path, count: int):
    jobs, soft, hard = (
        make_jobs(tmp_path / "runs", count, base=TINY_RECIPE),
        *resource.getrlimit(resource.RLIMIT_NOFILE),
    )
    run_jobs(LocalExecutor(2), jobs[:1], dataset_folder)  # starts the fork server, which keeps the limit of its start
    most, handles = 0, len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0

    def on_event(event: JobEvent) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd"))) if handles else 0

    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        events = run_jobs(LocalExecutor(2), jobs, dataset_folder, on_event=on_event)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert count_kinds(events)["finished"] == count
    assert most < handles + 30


def memory_of(pid: int, name: str | None = None) -> dict[str, int]:
    """kB of a process's memory by kind, or only of a file that it maps; empty if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/{'smaps' if name else 'smaps_rollup'}").read_text()
    except OSError:
        return {}
    sums: dict[str, int] = {}
    counted = name is None
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if " " in key:  # the first line of a mapping
            counted = name is None or line.endswith(name)
        elif counted and rest.endswith(" kB"):
            sums[key] = sums.get(key, 0) + int(rest.split()[0])
    return sums


@pytest.mark.parametrize("workers", [0, -1, 1000, 10**9])
def test_more_workers_than_cores_can_carry_are_refused_by_their_number(workers: int):
    with pytest.raises(LabError, match=rf"{workers} workers: this machine has .*, and a study takes at most 4"):
        LocalExecutor(workers)
