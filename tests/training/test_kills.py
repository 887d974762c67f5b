"""A run that is killed at any moment, or meets a full disk, resumes as if nothing had happened.

Run as a script this file is the task server: a process that has imported torch once and forks a child for every task,
so that a training to kill costs a twentieth of a second. It uses one thread and computes nothing itself, as forking
requires.
"""

import json
import os
import platform
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.run_contents import run_contents

pytestmark = pytest.mark.timing

RECIPE = {
    "data": {"limit": 100, "augment": ["crop:1"]},
    "model": {"name": "simple_convnet", "channels": [4]},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "training": {"epochs": 2, "batch_size": 32, "ema": 0.5},
}


# ---------------------------------------------------------------- the task server


class KillPoints:
    """Names the moments at which files change; kills this process at one of them, or copies its run at each."""

    def __init__(self, folder: Path, kill_at: int | None = None, snapshots: str | None = None) -> None:
        self.folder, self.kill_at, self.snapshots, self.names = folder, kill_at, snapshots, []
        replace, write_bytes, write_text = os.replace, Path.write_bytes, Path.write_text

        def replacing(source: Path, target: Path) -> None:
            replace(source, target)  # a kill before it would leave what a kill before the sync leaves
            self.reach(f"after {Path(target).name} was put in place")

        def syncing(file: int) -> None:  # without waiting for the disk: what a killed process has written stays written
            self.reach("before a file is synced")

        def writing_bytes(path: Path, content: bytes) -> None:
            write_bytes(path, content[: len(content) // 2])
            self.reach(f"with half of {path.name.split('.')[1]} written")
            write_bytes(path, content)

        def writing_text(path: Path, content: str, **settings: Any) -> None:
            write_text(path, content[: len(content) // 2], **settings)
            self.reach(f"with half of {path.name.split('.')[1]} written")
            write_text(path, content, **settings)

        os.replace, os.fsync, Path.write_bytes, Path.write_text = replacing, syncing, writing_bytes, writing_text

    def reach(self, name: str) -> None:
        if len(self.names) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.snapshots:
            shutil.copytree(self.folder, Path(self.snapshots) / str(len(self.names)))
        self.names.append(name)


def execute(task: dict[str, Any], images: Any) -> dict[str, Any]:
    """Start the run, or resume it if its folder holds one; test it if it is finished then."""
    from support.callbacks import FunctionCallbacks

    from convolab.training.recipe import Recipe
    from convolab.training.run import Run

    folder, messages, steps = Path(task["folder"]), [], iter(range(10**6))

    def after_epoch(epoch: Any) -> None:
        if epoch.epoch == task.get("full_after_epoch"):
            fill_disk(folder, task["max_bytes"])

    callbacks = FunctionCallbacks(
        on_epoch=after_epoch, on_message=messages.append, stop=lambda: next(steps) >= task.get("stop_after", 10**6)
    )
    if task.get("full_after_epoch") == 0:
        fill_disk(folder, task["max_bytes"])
    kill_points = KillPoints(folder, task.get("kill_at"), task.get("snapshots"))
    if (folder / "summary.json").exists():
        run = Run(folder).resume(images, callbacks=callbacks)
    else:
        run = Run.start(Recipe.from_dict(task["recipe"]), images, folder, callbacks=callbacks)
    if run.status == "finished":
        run.test()
    return {"status": run.status, "kill_points": kill_points.names, "messages": messages}


def fill_disk(folder: Path, max_bytes: int | None) -> None:
    """From now on no file may have more than `max_bytes` bytes; or, if it is None, the disk has no free space."""
    if max_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, resource.RLIM_INFINITY))
        return
    with (folder.parent / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass


def serve_tasks() -> None:
    """Read one task per line, fork a child for it, and print one line of JSON: how the child ended."""
    import torch

    from convolab.core.errors import LabError
    from convolab.data.catalog import load
    from convolab.training import run

    torch.set_num_threads(1)
    images = load("digits")
    run.load = lambda *_, **__: images  # read once for all children
    platform.platform()  # called once and cached: it starts a process
    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                result = execute(task, images)
            except LabError as error:
                result = {"error": str(error)}
            except BaseException as error:
                result = {"bug": repr(error)}
            os.write(write_end, json.dumps(result).encode())
            os._exit(0)
        os.close(write_end)
        if "kill_after" in task and not select.select([read_end], [], [], task["kill_after"])[0]:
            os.kill(child, signal.SIGKILL)
        with open(read_end, "rb") as pipe:
            result = pipe.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"killed": True} if os.WIFSIGNALED(status) else json.loads(result)), flush=True)


# ---------------------------------------------------------------- the tests

TRUST_PAGE = (Path(__file__).parents[2] / "docs/trust.md").read_text(encoding="utf-8")

RunTask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run_task() -> Iterator[RunTask]:
    """Have the task server start or resume the run in `folder`, and return how that ended."""
    tests_folder = Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(tests_folder)}
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout.readline() == "ready\n"

        def send_task(folder: Path, recipe: dict[str, Any] = RECIPE, **task: Any) -> dict[str, Any]:
            print(
                json.dumps({"folder": str(folder), "recipe": recipe} | task),
                file=server.stdin,
                flush=True,
            )
            result = json.loads(server.stdout.readline())
            assert "bug" not in result, result["bug"]
            return result

        yield send_task
        server.stdin.close()


@pytest.fixture(scope="module")
def uninterrupted(run_task: RunTask, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that nothing interrupted: what it leaves in its folder, its kill points and how long it took."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    started = time.monotonic()
    result = run_task(folder)
    assert result["status"] == "finished"
    return {
        "contents": run_contents(folder),
        "kill_points": result["kill_points"],
        "seconds": time.monotonic() - started,
        "folder": folder,
    }


def assert_same(folder: Path, uninterrupted: dict[str, Any], when: str) -> None:
    contents = run_contents(folder)
    assert contents == uninterrupted["contents"], (
        f"killed {when}: {[part for part in contents if contents[part] != uninterrupted['contents'].get(part)]} differ"
    )
    assert not [path.name for path in folder.iterdir() if path.name.endswith(".part.safetensors")], f"killed {when}"


def test_every_kind_of_write_is_among_the_kill_points(uninterrupted: dict[str, Any]):
    points = uninterrupted["kill_points"]
    for name in ("last", "state"):
        assert points.count(f"after {name}.safetensors was put in place") >= 1
        assert points.count(f"with half of {name} written") >= 1
    assert "after best.safetensors was put in place" in points  # a second name for last's file: there is no half of it
    for name in ("recipe.toml", "metrics.jsonl", "summary.json", "test.json", "state.previous.safetensors"):
        assert f"after {name} was put in place" in points
    assert points.count("before a file is synced") == len([point for point in points if "half" in point])


def test_a_recipe_has_the_same_key_in_another_process_with_another_hash_seed(uninterrupted: dict[str, Any]):
    from convolab.training.recipe import Recipe

    assert uninterrupted["contents"]["summary"]["recipe_key"] == Recipe.from_dict(RECIPE).key


def test_a_run_killed_at_any_moment_of_its_writing_resumes_bit_for_bit(
    run_task: RunTask, uninterrupted: dict[str, Any], tmp_path: Path
):
    first_summary = uninterrupted["kill_points"].index("after summary.json was put in place")
    assert f"{len(uninterrupted['kill_points'])} moments of a run's writing" in TRUST_PAGE
    for number, when in enumerate(uninterrupted["kill_points"]):
        folder = tmp_path / str(number)
        assert run_task(folder, kill_at=number) == {"killed": True}
        result = run_task(folder)
        if (
            number < first_summary and "error" in result
        ):  # nothing has been trained yet, and no message says to resume it
            assert result["error"].endswith("is not empty: choose a new or empty folder")
            continue
        assert (result.get("status"), result.get("messages")) == ("finished", []), f"killed {when}: {result}"
        assert_same(folder, uninterrupted, when)


@pytest.mark.long
def test_a_run_stopped_within_an_epoch_and_killed_at_any_moment_of_resuming_resumes_bit_for_bit(
    run_task: RunTask, uninterrupted: dict[str, Any], tmp_path: Path
):
    assert run_task(tmp_path / "run", stop_after=4)["status"] == "stopped"  # of 3 steps an epoch
    # What a kill would have left at each moment: all that the process had written, and nothing else.
    snapshots = tmp_path / "snapshots"
    points = run_task(tmp_path / "run", snapshots=str(snapshots))["kill_points"]
    assert "after state.previous.safetensors was put in place" in points
    assert f"{len(points)} of a resume's" in TRUST_PAGE
    for number, when in enumerate(points):
        result = run_task(snapshots / str(number))
        assert (result.get("status"), result.get("messages")) == ("finished", []), f"killed {when}: {result}"
        assert_same(snapshots / str(number), uninterrupted, when)


@pytest.mark.long
def test_a_run_killed_again_and_again_at_any_time_resumes_bit_for_bit(
    run_task: RunTask, uninterrupted: dict[str, Any], tmp_path: Path
):
    rng, kills, number = random.Random(0), 0, 0
    shortest = uninterrupted["seconds"]  # so far: beside other programs a run may take several times as long as later
    while number < 5 or (kills < 5 and number < 20):
        folder, finished = tmp_path / str(number), False
        for _ in range(8):
            started = time.monotonic()
            result = run_task(folder, kill_after=rng.uniform(0, shortest / 2))
            finished = result.get("status") == "finished"
            if finished:
                shortest = min(shortest, time.monotonic() - started)
                break
            assert result == {"killed": True}
            kills += 1
            if not (folder / "summary.json").exists():
                shutil.rmtree(folder, ignore_errors=True)  # as a person would who reads that it is not empty
        assert finished or run_task(folder)["status"] == "finished"
        assert_same(folder, uninterrupted, "again and again")
        number += 1
    assert kills >= 5


def test_a_kill_leaves_the_lock_open_and_the_status_of_the_run_is_killed(
    run_task: RunTask, uninterrupted: dict[str, Any], tmp_path: Path
):
    from convolab.training.run import Run

    last = max(
        i for i, name in enumerate(uninterrupted["kill_points"]) if name == "after state.safetensors was put in place"
    )
    assert run_task(tmp_path / "run", kill_at=last) == {"killed": True}
    run = Run(tmp_path / "run")
    assert (run.status, run.is_training, len(run.history)) == ("killed", False, 2)


def test_an_epoch_that_was_killed_before_its_state_was_saved_is_not_in_the_metrics_until_it_is_trained_again(
    run_task: RunTask, uninterrupted: dict[str, Any], tmp_path: Path
):
    from convolab.training.run import Run

    last = max(
        i for i, name in enumerate(uninterrupted["kill_points"]) if name == "after metrics.jsonl was put in place"
    )
    assert run_task(tmp_path / "run", kill_at=last) == {"killed": True}
    assert len(Run(tmp_path / "run").history) == 2
    assert run_task(tmp_path / "run", stop_after=0)["status"] == "stopped"
    assert len(Run(tmp_path / "run").history) == 1
    assert run_task(tmp_path / "run")["status"] == "finished"
    assert_same(tmp_path / "run", uninterrupted, "before a state")


# ---------------------------------------------------------------- a full disk


def sizes(uninterrupted: dict[str, Any]) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in uninterrupted["folder"].iterdir()}


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_state_that_does_not_fit_on_the_disk_is_reported_and_the_run_resumes_bit_for_bit_later(
    run_task: RunTask, uninterrupted: dict[str, Any], tmp_path: Path, epoch: int
):
    from convolab.training.run import Run

    max_bytes = (sizes(uninterrupted)["last.safetensors"] + sizes(uninterrupted)["state.safetensors"]) // 2
    result = run_task(tmp_path / "run", full_after_epoch=epoch, max_bytes=max_bytes)
    path = tmp_path / "run" / "state.safetensors"
    assert result == {
        "error": f"the disk is full while writing {path}: free some space; the files written before are intact"
    }
    run = Run(tmp_path / "run")
    assert len(run.history) == epoch + 1
    for which in ("best", "last"):
        run.net(which)
    assert run_task(tmp_path / "run") | {"kill_points": []} == {"status": "finished", "kill_points": [], "messages": []}
    assert_same(tmp_path / "run", uninterrupted, "by a full disk")


def test_weights_that_do_not_fit_on_the_disk_leave_all_files_of_the_epoch_before(run_task: RunTask, tmp_path: Path):
    recipe = RECIPE | {"data": RECIPE["data"] | {"validation": 0.0}}  # so that both epochs write their best weights
    result = run_task(tmp_path / "run", recipe, full_after_epoch=1, max_bytes=100)
    assert result["error"].startswith(f"the disk is full while writing {tmp_path / 'run' / 'last.safetensors'}: ")
    assert run_task(tmp_path / "one", recipe | {"training": recipe["training"] | {"epochs": 1}})["status"] == "finished"
    (tmp_path / "one" / "test.json").unlink()
    full, one = run_contents(tmp_path / "run"), run_contents(tmp_path / "one")
    assert {record.pop("recipe_key") for record in (*full["metrics"], full["about state"])} != {
        record.pop("recipe_key") for record in (*one["metrics"], one["about state"])
    }  # the number of epochs is part of the recipe
    for part in ("metrics", "best", "last", "state", "about state"):
        assert full[part] == one[part], part


def test_a_full_disk_is_reported_and_the_run_resumes_when_there_is_space_again(
    run_task: RunTask, uninterrupted: dict[str, Any], tmp_path: Path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
        if shutil.which("mount")
        else None
    )
    if mounted is None or mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        result = run_task(disk / "run", full_after_epoch=1, max_bytes=None)
        assert result.get("error", result).startswith(f"the disk is full while writing {disk / 'run'}")
        for name in ("best", "last", "state"):
            assert run_contents(disk / "run")[name]
        (disk / "filler").unlink()
        assert run_task(disk / "run")["status"] == "finished"
        assert_same(disk / "run", uninterrupted, "by a full disk")
    finally:
        subprocess.run(["umount", disk], check=True)


if __name__ == "__main__":
    serve_tasks()
