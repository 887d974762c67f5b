import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support import small_jobs
from support.remains import remains
from support.small_jobs import TINIEST, alive, digits_in, jobs, kinds, told, within

from convolab.data.dataset import ImageDataset
from convolab.data.memmap import write_memmap
from convolab.data.splits import DatasetSplits
from convolab.studies import executor
from convolab.studies.executor import JobEvent, LocalExecutor
from convolab.training.run import Run

pytestmark = pytest.mark.timing

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell what memory is shared"
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_in(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What three runs of eight epochs leave that nothing happens to, by key."""
    todo = jobs(tmp_path_factory.mktemp("undisturbed"), 3, {"training.epochs": 8})
    news = told(LocalExecutor(2), todo, pictures)
    assert kinds(news)["finished"] == 3
    assert kinds(news)["epoch"] == 24
    return {job.recipe.key: remains(job.folder) for job in todo}


@pytest.fixture
def todo(tmp_path: Path) -> Iterator[list[executor.Job]]:
    """The jobs that `undisturbed` has done."""
    yield jobs(tmp_path / "runs", 3, {"training.epochs": 8})
    assert not multiprocessing.active_children()


def kill_worker(sign: signal.Signals) -> None:
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, sign)


def test_a_trial_whose_process_is_killed_is_tried_again_and_is_bit_for_bit_the_undisturbed_one(
    pictures: Path, undisturbed: dict[str, dict], todo: list[executor.Job]
):
    kills = iter([signal.SIGKILL])

    def hear(news: JobEvent) -> None:
        if news.kind == "epoch" and news.epoch.epoch == 2:
            for sign in kills:
                kill_worker(sign)

    news = told(LocalExecutor(1), todo, pictures, hear=hear)
    again = [word for word in news if word.kind == "retrying"]
    assert [(word.key, word.reason) for word in again] == [
        (todo[0].recipe.key, "its process ended by signal SIGKILL (the system may have run out of memory)")
    ]
    assert kinds(news)["finished"] == 3
    assert {job.recipe.key: remains(job.folder) for job in todo} == undisturbed


def test_a_trial_whose_process_dies_twice_has_failed_and_the_others_finish(pictures: Path, todo: list[executor.Job]):
    victim = todo[0].recipe.key

    def hear(news: JobEvent) -> None:
        if news.key == victim and news.kind == "started":
            kill_worker(signal.SIGKILL)

    news = told(LocalExecutor(1), todo, pictures, hear=hear)
    assert [word.kind for word in news if word.key == victim] == ["started", "retrying", "started", "failed"]
    assert {word.key for word in news if word.kind == "finished"} == {job.recipe.key for job in todo[1:]}


def test_a_trial_that_cannot_be_trained_has_failed_with_its_line_and_the_others_finish(pictures: Path, tmp_path: Path):
    todo = jobs(tmp_path / "runs", 2) + jobs(tmp_path / "runs", 1, {"data.limit": 20})
    news = told(LocalExecutor(2), todo, pictures)
    (failed,) = [word for word in news if word.kind == "failed"]
    assert failed.key == todo[-1].recipe.key
    assert failed.reason.startswith("a batch of 32 is larger than the ")
    assert kinds(news)["finished"] == 2


def test_a_finished_run_is_not_trained_again(pictures: Path, tmp_path: Path):
    todo = jobs(tmp_path / "runs", 1)
    told(LocalExecutor(1), todo, pictures)
    before = {path.name: path.stat().st_mtime_ns for path in todo[0].folder.iterdir()}
    news = told(LocalExecutor(1), todo, pictures)
    assert [word.kind for word in news] == ["started", "finished"]
    assert {path.name: path.stat().st_mtime_ns for path in todo[0].folder.iterdir()} == before


@needs_proc
def test_when_the_engine_is_killed_its_workers_die_and_the_same_jobs_go_on_bit_for_bit(
    pictures: Path, undisturbed: dict[str, dict], todo: list[executor.Job]
):
    command = [sys.executable, small_jobs.__file__, "local", pictures, todo[0].folder.parent, "3", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        pids: set[int] = set()
        for line in map(json.loads, engine.stdout):
            pids |= set(line["pids"])
            if line["kind"] == "epoch" and len(pids) == 2:
                break
        assert all(alive(pid) for pid in pids)
        engine.kill()
        assert within(5, lambda: not any(alive(pid) for pid in pids))
    statuses = [Run(job.folder).status for job in todo if (job.folder / "summary.json").exists()]
    assert "killed" in statuses
    assert "running" not in statuses
    assert kinds(told(LocalExecutor(2), todo, pictures))["finished"] == 3
    assert {job.recipe.key: remains(job.folder) for job in todo} == undisturbed


def test_a_stopped_engine_saves_what_it_trains_and_goes_on_later_bit_for_bit(
    pictures: Path, undisturbed: dict[str, dict], todo: list[executor.Job]
):
    heard: list[JobEvent] = []
    news = told(
        LocalExecutor(1), todo, pictures, stop=lambda: any(word.kind == "epoch" for word in heard), hear=heard.append
    )
    assert [(word.key, word.kind) for word in news if word.kind in executor.TERMINAL_EVENTS] == [
        (todo[0].recipe.key, "stopped")
    ]
    run = Run(todo[0].folder)
    assert run.status == "stopped"
    assert 1 <= len(run.history) < 8
    assert not todo[1].folder.exists()
    assert kinds(told(LocalExecutor(2), todo, pictures))["finished"] == 3
    assert {job.recipe.key: remains(job.folder) for job in todo} == undisturbed


def test_a_worker_that_is_stopped_before_it_can_hear_it_is_stopped_and_has_not_failed(
    pictures: Path, todo: list[executor.Job], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(executor, "run_worker", small_jobs.never_listen)
    started = time.monotonic()
    news = told(LocalExecutor(2), todo, pictures, stop=lambda: True)
    assert {(word.key, word.kind) for word in news} == {(job.recipe.key, "stopped") for job in todo[:2]}
    assert time.monotonic() - started < 300  # they slept for 600


def test_the_longest_trials_begin_first(pictures: Path, tmp_path: Path):
    todo = jobs(tmp_path / "runs", 3, base=TINIEST)
    news = told(LocalExecutor(1), [todo[1], todo[2], todo[0]], pictures)
    assert [word.key for word in news if word.kind == "started"] == [job.recipe.key for job in todo]


def test_a_trial_has_one_thread_whatever_this_process_has(pictures: Path, tmp_path: Path):
    todo, threads = jobs(tmp_path / "runs", 1, base=TINIEST), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        told(LocalExecutor(1), todo, pictures)
        assert Run(todo[0].folder).summary["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@needs_proc
def test_the_picture_set_is_shared_by_the_workers_and_not_copied(tmp_path: Path):
    draw = np.random.default_rng(0)
    images, labels = (
        torch.from_numpy(draw.integers(0, 256, (32_000, 3, 32, 32), dtype=np.uint8)),
        torch.arange(32_000) % 10,
    )
    whole = ImageDataset(images, labels, tuple("abcdefghij"), "made")
    write_memmap(DatasetSplits(whole, ImageDataset(images[:10], labels[:10], whole.classes, "made")), tmp_path / "set")
    size = images.numel() // 1024  # kB
    memory: list[tuple[dict[str, int], dict[str, int]]] = []

    def hear(news: JobEvent) -> None:
        if news.kind == "epoch" and news.epoch.epoch == 1:  # every picture was seen
            memory.extend(
                (mapped(child.pid, "train-images.npy"), mapped(child.pid))
                for child in multiprocessing.active_children()
            )

    base = {"data": {"augment": []}, "model": TINIEST["model"], "training": {"epochs": 2, "batch_size": 1000}}
    todo = jobs(tmp_path / "runs", 2, base=base)
    assert kinds(told(LocalExecutor(2), todo, tmp_path / "set", hear=hear))["finished"] == 2
    seen = [(of_set, whole) for of_set, whole in memory if of_set and whole]  # a worker may end while it is looked at
    assert seen
    for of_set, everything in seen:
        assert of_set["Rss"] > 0.9 * size  # it is all there
        assert of_set["Private_Dirty"] == of_set["Anonymous"] == 0  # and no page of it is the worker's own
        assert everything["Private_Dirty"] < size + 50_000


def test_a_thousand_trials_need_no_more_file_handles_than_a_few(pictures: Path, tmp_path: Path):
    todo, soft, hard = jobs(tmp_path / "runs", 1000, base=TINIEST), *resource.getrlimit(resource.RLIMIT_NOFILE)
    told(LocalExecutor(2), todo[:1], pictures)  # so that the server of workers runs, with the limit it was born with
    most, handles = 0, len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0

    def hear(news: JobEvent) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd"))) if handles else 0

    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        news = told(LocalExecutor(2), todo, pictures, hear=hear)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert kinds(news)["finished"] == 1000
    assert most < handles + 30


def mapped(pid: int, name: str | None = None) -> dict[str, int]:
    """kB by kind of a process's memory, or of what it maps of a file; nothing if it is gone."""
    try:
        text = Path(f"/proc/{pid}/{'smaps' if name else 'smaps_rollup'}").read_text()
    except OSError:
        return {}
    sums: dict[str, int] = {}
    here = name is None
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        if " " in key:  # the head of a mapping
            here = name is None or line.endswith(name)
        elif here and rest.endswith(" kB"):
            sums[key] = sums.get(key, 0) + int(rest.split()[0])
    return sums
