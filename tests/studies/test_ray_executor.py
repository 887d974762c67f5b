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
from support import small_jobs
from support.remains import remains
from support.small_jobs import PROC, TINIEST, alive, descendants, digits_in, jobs, kinds, told, within

from convolab.core.errors import LabError
from convolab.core.files import atomic_write
from convolab.data.memmap import read_memmap
from convolab.models import registry, zoo
from convolab.studies import ray_executor, ray_task
from convolab.studies.executor import TERMINAL_EVENTS, JobEvent, LocalExecutor
from convolab.studies.ray_executor import RayExecutor
from convolab.training.run import Run

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'convolab[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402 (after the skip)

pytestmark = pytest.mark.timing

NETS = '''
import os, signal, time
from torch import nn

def Slow(shape, classes, brake: str = ""):
    """A network that takes its time while there is a file."""
    class Layers(nn.Sequential):
        def forward(self, x):
            if self.training and os.path.exists(brake):
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
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_in(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    """A cluster that lasts for all tests; `cluster` makes it whole for each of them."""
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


def test_a_cluster_that_loses_a_node_ends_complete_and_bit_for_bit_like_the_local_engine(
    cluster: Cluster, connected: RayExecutor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    brake = tmp_path / "brake"
    brake.touch()  # while it is there no trial ends, so two that have begun are on two nodes
    base = TINIEST | {
        "model": {"name": "nets.py:Slow", "brake": str(brake)},
        "training": {"epochs": 6, "batch_size": 16},
    }
    far, local = (jobs(tmp_path / name, 6, base=base) for name in ("far", "local"))
    (doomed_node,) = cluster.worker_nodes
    in_training: set[str] = set()

    def lose_a_node(event: JobEvent) -> None:
        if event.kind == "epoch":
            in_training.add(event.key)
        if len(in_training) == 2 and brake.exists():
            cluster.remove_node(doomed_node, allow_graceful=False)
            brake.unlink()

    events = told(connected, far, pictures, hear=lose_a_node)
    assert [event.reason for event in events if event.kind == "retrying"] == ["its node died"]
    assert sum(event.kind == "finished" for event in events) == 6
    told(LocalExecutor(2), local, pictures)
    for a, b in zip(far, local, strict=True):
        assert remains(a.folder) == remains(b.folder)
        assert Run(a.folder).summary["threads"] == 1


def test_a_stopped_engine_brings_home_what_it_trained_and_goes_on_later_bit_for_bit(
    connected: RayExecutor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_executor, "SHUTDOWN_TIMEOUT", 60.0)  # a busy machine is no reason to lose the run
    brake = tmp_path / "brake"
    brake.touch()
    base, heard = (
        TINIEST
        | {"model": {"name": "nets.py:Slow", "brake": str(brake)}, "training": {"epochs": 20, "batch_size": 16}},
        [],
    )
    (far,), (here,) = jobs(tmp_path / "far", 1, base=base), jobs(tmp_path / "here", 1, base=base)
    news = told(connected, [far], pictures, stop=lambda: any(word.kind == "epoch" for word in heard), hear=heard.append)
    assert [word.kind for word in news if word.kind in TERMINAL_EVENTS] == ["stopped"]
    run = Run(far.folder)
    assert run.status == "stopped"
    done = len(run.history)
    assert 1 <= done < 20
    brake.unlink()
    news = told(connected, [far], pictures)
    assert [word.epoch.epoch for word in news if word.kind == "epoch"] == list(range(done + 1, 21))
    told(LocalExecutor(1), [here], pictures)
    assert remains(far.folder) == remains(here.folder)


def test_a_network_of_ones_own_comes_along_and_one_that_kills_its_process_fails_alone(
    connected: RayExecutor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)  # where the nodes are not: they could not find the file themselves
    base = TINIEST | {"model": {"name": "nets.py:Fragile", "kill": False}}
    todo = [*jobs(tmp_path / "runs", 2, base=base), *jobs(tmp_path / "runs", 1, {"model.kill": True}, base=base)]
    news = told(connected, todo, pictures)
    assert {word.key for word in news if word.kind == "finished"} == {job.recipe.key for job in todo[:2]}
    assert [
        word.kind for word in news if word.key == todo[2].recipe.key and word.kind not in ("started", "progress")
    ] == [
        "retrying",
        "failed",
    ]
    assert not (todo[2].folder / "summary.json").exists()


def test_a_trial_that_cannot_be_trained_or_is_of_other_versions_fails_with_its_line(
    connected: RayExecutor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (failed,) = [
        word for word in told(connected, jobs(tmp_path, 1, {"data.limit": 20}), pictures) if word.kind == "failed"
    ]
    assert "a batch of 32 is larger than the " in failed.reason
    monkeypatch.setattr(ray_executor, "driver_versions", lambda: {"torch": "1.0"})
    (failed,) = [word for word in told(connected, jobs(tmp_path, 1), pictures) if word.kind == "failed"]
    assert failed.reason.startswith("node ")
    assert failed.reason.endswith(", but the driver has 1.0: install the same version on all nodes")


def test_hundreds_of_trials_are_handed_over_a_few_at_a_time(
    connected: RayExecutor, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    waits: list[int] = []
    wait = ray.wait

    def counting(refs: list[Any], **settings: Any) -> Any:
        waits.append(len(refs))
        return wait(refs, **settings)

    monkeypatch.setattr(ray, "wait", counting)
    handles: list[int] = []
    todo = jobs(tmp_path / "runs", 200, base=TINIEST)
    news = told(connected, todo, pictures, hear=lambda _: handles.append(len(os.listdir("/proc/self/fd"))))
    assert kinds(news)["finished"] == 200
    assert 2 <= max(waits) <= 4  # two for each core
    assert max(handles) < min(handles) + 30


def test_a_running_cluster_is_left_running_and_silent(
    cluster: Cluster, connected: RayExecutor, pictures: Path, tmp_path: Path
):
    command = [sys.executable, small_jobs.__file__, cluster.address, pictures, tmp_path / "runs", "2", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = [json.loads(line) for line in done.stdout.splitlines()]  # and nothing else
    assert [line["kind"] for line in lines].count("finished") == 2
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2


def test_a_killed_driver_takes_its_own_ray_with_it_and_the_same_jobs_go_on_bit_for_bit(pictures: Path, tmp_path: Path):
    runs = tmp_path / "runs"
    command = [sys.executable, small_jobs.__file__, "ray", pictures, runs, "6", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        for line in map(json.loads, driver.stdout):
            if line["kind"] == "finished":
                break
        # All but two agents of Ray's, who look only now and then whether they are still needed.
        ray_of_its_own = [
            pid for pid in descendants(driver.pid) if b"agent" not in Path(f"/proc/{pid}/cmdline").read_bytes().lower()
        ]
        assert len(ray_of_its_own) >= 3 or not PROC  # its daemons and workers
        driver.kill()
        assert within(60, lambda: not any(alive(pid) for pid in ray_of_its_own))
    done = {path.parent.name for path in runs.glob("*/summary.json")}
    assert 1 <= len(done) < 6
    assert all(Run(runs / key).status == "finished" for key in done)
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600)
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert {line["key"] for line in lines if line["kind"] == "started"}.isdisjoint(done)
    here = jobs(tmp_path / "here", 6, {"training.epochs": 4})
    told(LocalExecutor(2), here, pictures)
    for job in here:
        assert remains(runs / job.recipe.key) == remains(job.folder)


# ---------------------------------------------------------------- without a cluster


def test_a_kill_while_files_come_home_leaves_nothing_that_looks_like_a_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (job,) = jobs(tmp_path / "runs", 1)
    told(LocalExecutor(1), [job], pictures)
    files, copy = ray_task.read_run_files(job.folder), tmp_path / "copy"
    there: list[list[str]] = []  # before each file that is written

    def watching(path: Path) -> Any:
        there.append([file.name for file in copy.iterdir()])
        return atomic_write(path)

    ray_task.write_run_files(copy, files)
    (copy / "debris").touch()
    monkeypatch.setattr(ray_task, "atomic_write", watching)
    ray_task.write_run_files(copy, files)
    assert [len(names) for names in there] == list(range(len(files)))
    assert not any("summary.json" in names for names in there)
    assert {path.name for path in copy.iterdir()} == set(files)
    assert remains(copy) == remains(job.folder)


def test_arrays_that_cannot_be_written_to_are_trained_on_without_a_copy_or_a_warning(
    pictures: Path, recwarn: pytest.WarningsRecorder
):
    packed = ray_task.splits_to_arrays(read_memmap(pictures))
    for part in packed.values():
        part["images"] = np.array(part["images"])
        part["images"].flags.writeable = part["labels"].flags.writeable = False
    train, test = ray_task.splits_from_arrays(packed)[:2]
    assert train.images.data_ptr() == packed["train"]["images"].ctypes.data
    assert train.fingerprint == read_memmap(pictures).train.fingerprint
    assert len(test) == 359
    assert not recwarn.list


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "auto", "somewhere", "localhost:port"])
def test_an_address_where_no_cluster_is_is_one_line_and_quick(
    address: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    started = time.monotonic()
    if address == "auto":
        monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(
        LabError,
        match=r"^(no Ray cluster answers at .*|'.*' is not an address of a Ray cluster.*|cannot use Ray at auto.*)$",
    ):
        told(RayExecutor(address), jobs(tmp_path, 1), pictures)
    assert time.monotonic() - started < 10


def refuse(*_: Any, **__: Any) -> None:
    """What `ray.init` says where no cluster runs."""
    raise ConnectionError("Could not find any running Ray instance.\nPlease specify the one to connect to.")


def test_without_ray_one_line_says_what_to_install(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LabError, match=r"pip install 'convolab\[ray\]'"):
        told(RayExecutor(), jobs(tmp_path, 1), pictures)


def test_a_network_that_only_this_process_knows_is_refused_before_anything_starts(pictures: Path, tmp_path: Path):
    registry.register(lambda shape, classes: zoo.shallow_net(shape, classes), "mine")
    try:
        with pytest.raises(LabError, match=r"^the network 'mine' is registered in this process only"):
            told(RayExecutor(), jobs(tmp_path, 1, base=TINIEST | {"model": {"name": "mine"}}), pictures)
    finally:
        del registry.NETWORKS["mine"]


def test_a_run_that_is_finished_is_not_sent_and_one_in_other_hands_fails(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done, busy = jobs(tmp_path / "runs", 2)
    told(LocalExecutor(1), [done, busy], pictures)
    summary = json.loads((busy.folder / "summary.json").read_text()) | {"status": "running"}
    (busy.folder / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr(ray_executor, "ray_session", None)
    with Run(busy.folder).lock():
        news = told(RayExecutor(), [done, busy], pictures)  # it never comes to starting Ray
    assert [(word.key, word.kind) for word in news] == [(done.recipe.key, "finished"), (busy.recipe.key, "failed")]
    assert "is being trained by another process" in news[1].reason
