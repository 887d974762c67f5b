import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import own_parts, small_jobs
from support.run_contents import run_contents
from support.small_jobs import (
    HAS_PROC,
    TINY_RECIPE,
    count_kinds,
    descendants,
    is_alive,
    make_jobs,
    run_jobs,
    within,
    write_digits,
)

from convolab.core.errors import LabError
from convolab.core.files import atomic_write
from convolab.data.memmap import read_memmap
from convolab.models import registry, zoo
from convolab.studies import ray_executor, ray_task
from convolab.studies.executor import TERMINAL_EVENTS, JobEvent, LocalExecutor
from convolab.studies.ray_executor import RayExecutor
from convolab.training.recipe import Recipe
from convolab.training.run import Run

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'convolab[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402 (after the skip)

pytestmark = pytest.mark.timing

NETS = '''
import os, signal, time
from torch import nn

def Slow(shape, classes, pause_file: str = ""):
    """A network that is slow while a file exists."""
    class Layers(nn.Sequential):
        def forward(self, x):
            if self.training and os.path.exists(pause_file):
                time.sleep(1.5)
            return super().forward(x)
    return Layers(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))

def Fragile(shape, classes, kill: bool = True):
    """A network whose process dies in its first epoch, always or never."""
    class Layers(nn.Sequential):
        def forward(self, x):
            if kill and self.training:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(x)
    return Layers(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
'''


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    """A cluster that lasts for all tests; `cluster` repairs it for each of them."""
    with ray_executor.ray_settings():
        running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        ray.init(running.address, log_to_driver=False, logging_level=logging.ERROR)
    yield running
    ray.shutdown()
    running.shutdown()


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """Two nodes of one core each, both alive and idle, whatever the test before did; this process is on the first."""
    while len(running_cluster.worker_nodes) < 1:
        running_cluster.add_node(num_cpus=1, include_dashboard=False)
    assert within(120, lambda: sum(node["Alive"] for node in ray.nodes()) == 2)
    assert within(120, lambda: ray.available_resources().get("CPU", 0) == 2)
    return running_cluster


@pytest.fixture
def connected(cluster: Cluster) -> RayExecutor:
    """An executor on the cluster; this process is connected already."""
    return RayExecutor(cluster.address)


def test_a_cluster_that_loses_a_node_finishes_all_trials_bit_for_bit_like_the_local_executor(
    cluster: Cluster, connected: RayExecutor, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    pause_file = tmp_path / "pause_file"
    pause_file.touch()  # while it exists no trial ends, so two that have started are on two nodes
    base = TINY_RECIPE | {
        "model": {"name": "nets.py:Slow", "pause_file": str(pause_file)},
        "training": {"epochs": 6, "batch_size": 16},
    }
    remote, local = (make_jobs(tmp_path / name, 6, base=base) for name in ("remote", "local"))
    (doomed_node,) = cluster.worker_nodes
    in_training: set[str] = set()

    def lose_a_node(event: JobEvent) -> None:
        if event.kind == "epoch":
            in_training.add(event.key)
        if len(in_training) == 2 and pause_file.exists():
            cluster.remove_node(doomed_node, allow_graceful=False)
            pause_file.unlink()

    events = run_jobs(connected, remote, dataset_folder, on_event=lose_a_node)
    assert [event.reason for event in events if event.kind == "retrying"] == ["its node died"]
    assert sum(event.kind == "finished" for event in events) == 6
    run_jobs(LocalExecutor(2), local, dataset_folder)
    for a, b in zip(remote, local, strict=True):
        assert run_contents(a.folder) == run_contents(b.folder)
        assert Run(a.folder).summary["threads"] == 1


@pytest.mark.long
def test_a_stopped_executor_copies_back_what_it_trained_and_resumes_bit_for_bit_later(
    connected: RayExecutor, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_executor, "SHUTDOWN_TIMEOUT", 60.0)  # a busy machine is no reason to lose the run
    pause_file = tmp_path / "pause_file"
    pause_file.touch()
    base, received = (
        TINY_RECIPE
        | {
            "model": {"name": "nets.py:Slow", "pause_file": str(pause_file)},
            "training": {"epochs": 20, "batch_size": 16},
        },
        [],
    )
    (remote,), (local,) = (make_jobs(tmp_path / name, 1, base=base) for name in ("remote", "local"))
    events = run_jobs(
        connected,
        [remote],
        dataset_folder,
        stop=lambda: any(event.kind == "epoch" for event in received),
        on_event=received.append,
    )
    assert [event.kind for event in events if event.kind in TERMINAL_EVENTS] == ["stopped"]
    run = Run(remote.folder)
    assert run.status == "stopped"
    done = len(run.history)
    assert 1 <= done < 20
    pause_file.unlink()
    events = run_jobs(connected, [remote], dataset_folder)
    assert [event.epoch.epoch for event in events if event.kind == "epoch"] == list(range(done + 1, 21))
    run_jobs(LocalExecutor(1), [local], dataset_folder)
    assert run_contents(remote.folder) == run_contents(local.folder)


def test_a_users_own_network_is_sent_along_and_one_that_kills_its_process_fails_alone(
    connected: RayExecutor, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)  # where the nodes are not: they could not find the file themselves
    base = TINY_RECIPE | {"model": {"name": "nets.py:Fragile", "kill": False}}
    jobs = [
        *make_jobs(tmp_path / "runs", 2, base=base),
        *make_jobs(tmp_path / "runs", 1, {"model.kill": True}, base=base),
    ]
    events = run_jobs(connected, jobs, dataset_folder)
    assert {event.key for event in events if event.kind == "finished"} == {job.recipe.key for job in jobs[:2]}
    assert [
        event.kind for event in events if event.key == jobs[2].recipe.key and event.kind not in ("started", "progress")
    ] == [
        "retrying",
        "failed",
    ]
    assert not (jobs[2].folder / "summary.json").exists()


@pytest.mark.long
def test_own_parts_are_sent_along_and_have_the_bits_of_this_machines_workers(
    connected: RayExecutor, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / own_parts.FILE).write_text(own_parts.SOURCE)
    monkeypatch.chdir(tmp_path)  # where the nodes are not
    data = {**TINY_RECIPE.get("data", {}), "augment": [own_parts.TRANSFORM]}
    base = {**TINY_RECIPE, **own_parts.SECTIONS, "data": data}
    (remote,) = make_jobs(tmp_path / "remote", 1, base=base)
    (local,) = make_jobs(tmp_path / "local", 1, base=base)
    events = run_jobs(connected, [remote], dataset_folder)
    assert [event.kind for event in events if event.kind in TERMINAL_EVENTS] == ["finished"]
    run_jobs(LocalExecutor(1), [local], dataset_folder)
    assert run_contents(remote.folder) == run_contents(local.folder)


def test_a_trial_that_cannot_be_trained_or_is_of_other_versions_fails_with_a_reason(
    connected: RayExecutor, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (failed,) = [
        event
        for event in run_jobs(connected, make_jobs(tmp_path, 1, {"data.limit": 20}), dataset_folder)
        if event.kind == "failed"
    ]
    assert "a batch of 32 is larger than the " in failed.reason
    monkeypatch.setattr(ray_executor, "driver_versions", lambda: {"torch": "1.0"})
    (failed,) = [
        event for event in run_jobs(connected, make_jobs(tmp_path, 1), dataset_folder) if event.kind == "failed"
    ]
    assert failed.reason.startswith("node ")
    assert failed.reason.endswith(", but the driver has 1.0: install the same version on all nodes")


@pytest.mark.long
def test_hundreds_of_trials_are_submitted_a_few_at_a_time(
    connected: RayExecutor, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    waits: list[int] = []
    wait = ray.wait

    def counting(refs: list[Any], **settings: Any) -> Any:
        waits.append(len(refs))
        return wait(refs, **settings)

    monkeypatch.setattr(ray, "wait", counting)
    handles: list[int] = []
    jobs = make_jobs(tmp_path / "runs", 200, base=TINY_RECIPE)
    events = run_jobs(
        connected, jobs, dataset_folder, on_event=lambda _: handles.append(len(os.listdir("/proc/self/fd")))
    )
    assert count_kinds(events)["finished"] == 200
    assert 2 <= max(waits) <= 4  # two for each core
    assert max(handles) < min(handles) + 30


@pytest.mark.long
def test_a_running_cluster_is_left_running_and_silent(
    cluster: Cluster, connected: RayExecutor, dataset_folder: Path, tmp_path: Path
):
    command = [sys.executable, small_jobs.__file__, cluster.address, dataset_folder, tmp_path / "runs", "2", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]  # and nothing else
    assert [line["kind"] for line in lines].count("finished") == 2
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2


@pytest.mark.long
def test_when_a_driver_is_killed_the_ray_that_it_started_ends_and_the_same_jobs_resume_bit_for_bit(
    dataset_folder: Path, tmp_path: Path
):
    runs = tmp_path / "runs"
    command = [sys.executable, small_jobs.__file__, "ray", dataset_folder, runs, "6", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        for line in map(json.loads, driver.stdout):
            if line["kind"] == "finished":
                break
        # All but Ray's two agents, which check only now and then whether they are still needed.
        its_ray_processes = [
            pid for pid in descendants(driver.pid) if b"agent" not in Path(f"/proc/{pid}/cmdline").read_bytes().lower()
        ]
        assert len(its_ray_processes) >= 3 or not HAS_PROC  # its daemons and workers
        driver.kill()
        assert within(60, lambda: not any(is_alive(pid) for pid in its_ray_processes))
    done = {path.parent.name for path in runs.glob("*/summary.json")}
    assert 1 <= len(done) < 6
    assert all(Run(runs / key).status == "finished" for key in done)
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600)
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert {line["key"] for line in lines if line["kind"] == "started"}.isdisjoint(done)
    local = make_jobs(tmp_path / "local", 6, {"training.epochs": 4})
    run_jobs(LocalExecutor(2), local, dataset_folder)
    for job in local:
        assert run_contents(runs / job.recipe.key) == run_contents(job.folder)


# ---------------------------------------------------------------- without a cluster


def test_every_network_of_convolab_is_on_rays_nodes_too() -> None:
    for name in ("shallow_net", "resnet_small", "whitened_convnet", "efficientnet_lite2"):
        assert ray_task.codes_to_send(Recipe.from_dict({"model": {"name": name}})) == {}


def test_the_logs_of_a_run_travel_with_it(tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    for name in ("summary.json", "playback/frames.jsonl", "code/@1/net.py", ".lock"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    ray_task.write_run_files(copy, ray_task.read_run_files(run))
    copied = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert copied == {"summary.json", "playback/frames.jsonl", "code/@1/net.py"}


def test_a_kill_while_files_are_copied_back_leaves_nothing_that_looks_like_a_run(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (job,) = make_jobs(tmp_path / "runs", 1)
    run_jobs(LocalExecutor(1), [job], dataset_folder)
    files, copy = ray_task.read_run_files(job.folder), tmp_path / "copy"
    names_before: list[list[str]] = []  # before each file that is written

    def recording(path: Path) -> Any:
        names_before.append([file.name for file in copy.iterdir()])
        return atomic_write(path)

    ray_task.write_run_files(copy, files)
    (copy / "debris").touch()
    monkeypatch.setattr(ray_task, "atomic_write", recording)
    ray_task.write_run_files(copy, files)
    assert [len(names) for names in names_before] == list(range(len(files)))
    assert not any("summary.json" in names for names in names_before)
    assert {path.name for path in copy.iterdir()} == set(files)
    assert run_contents(copy) == run_contents(job.folder)


def test_arrays_that_cannot_be_written_to_are_trained_on_without_a_copy_or_a_warning(
    dataset_folder: Path, recwarn: pytest.WarningsRecorder
):
    packed = ray_task.splits_to_arrays(read_memmap(dataset_folder))
    for part in packed.values():
        part["images"] = np.array(part["images"])
        part["images"].flags.writeable = part["labels"].flags.writeable = False
    splits = ray_task.splits_from_arrays(packed)
    train, test = splits.train, splits.test
    assert train.images.data_ptr() == packed["train"]["images"].ctypes.data
    assert train.fingerprint == read_memmap(dataset_folder).train.fingerprint
    assert len(test) == 359
    assert not recwarn.list


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "auto", "somewhere", "localhost:port"])
def test_an_address_without_a_cluster_gives_a_one_line_error_and_quickly(
    address: str, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    started = time.monotonic()
    if address == "auto":
        monkeypatch.setattr(ray, "init", refuse_connection)
    with pytest.raises(
        LabError,
        match=r"^(no Ray cluster answers at .*|'.*' is not an address of a Ray cluster.*|cannot use Ray at auto.*)$",
    ):
        run_jobs(RayExecutor(address), make_jobs(tmp_path, 1), dataset_folder)
    assert time.monotonic() - started < 10


def refuse_connection(*_: Any, **__: Any) -> None:
    """What `ray.init` does where no cluster runs."""
    raise ConnectionError("Could not find any running Ray instance.\nPlease specify the one to connect to.")


def test_without_ray_the_error_says_what_to_install(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LabError, match=r"pip install 'convolab\[ray\]'"):
        run_jobs(RayExecutor(), make_jobs(tmp_path, 1), dataset_folder)


def test_a_network_that_only_this_process_knows_is_refused_before_anything_starts(dataset_folder: Path, tmp_path: Path):
    registry.register(lambda shape, classes: zoo.shallow_net(shape, classes), "mine")
    try:
        with pytest.raises(LabError, match=r"^the network 'mine' is registered in this process only"):
            run_jobs(
                RayExecutor(), make_jobs(tmp_path, 1, base=TINY_RECIPE | {"model": {"name": "mine"}}), dataset_folder
            )
    finally:
        del registry.NETWORKS["mine"]


def test_a_run_that_is_finished_is_not_sent_and_one_that_another_process_trains_fails(
    dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done, busy = make_jobs(tmp_path / "runs", 2)
    run_jobs(LocalExecutor(1), [done, busy], dataset_folder)
    summary = json.loads((busy.folder / "summary.json").read_text()) | {"status": "running"}
    (busy.folder / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr(ray_executor, "ray_session", None)
    with Run(busy.folder).lock():
        events = run_jobs(RayExecutor(), [done, busy], dataset_folder)  # it never comes to starting Ray
    assert [(event.key, event.kind) for event in events] == [(done.recipe.key, "finished"), (busy.recipe.key, "failed")]
    assert "is being trained by another process" in events[1].reason
