"""A run that is killed at any moment, or meets a full disk, goes on as if nothing had been.

Run as a script this file is the workshop: a process that has imported torch once and forks a child for every task, so
that a training to kill costs a twentieth of a second. It uses one thread and computes nothing itself, as forking
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

pytestmark = pytest.mark.timing

RECIPE = {
    "data": {"limit": 100, "augment": ["crop:1"]},
    "model": {"name": "simple_convnet", "channels": [4]},
    "optimizer": {"name": "adamw", "lr": 0.01},
    "training": {"epochs": 2, "batch_size": 32, "ema": 0.5},
}


# ---------------------------------------------------------------- the workshop


class Reaper:
    """Counts the moments at which files change; kills this process at one of them, or copies its run at each."""

    def __init__(self, folder: Path, victim: int | None = None, album: str | None = None) -> None:
        self.folder, self.victim, self.album, self.moments = folder, victim, album, []
        replace, write_bytes, write_text = os.replace, Path.write_bytes, Path.write_text

        def replacing(source: Path, target: Path) -> None:
            replace(source, target)  # the moment before it left the same on the disk as the one before the sync
            self.moment(f"after {Path(target).name} was put in place")

        def syncing(file: int) -> None:  # without the disk's wait: what a killed process has written stays written
            self.moment("before a file is synced")

        def writing_bytes(path: Path, content: bytes) -> None:
            write_bytes(path, content[: len(content) // 2])
            self.moment(f"with half of {path.name.split('.')[1]} written")
            write_bytes(path, content)

        def writing_text(path: Path, content: str, **settings: Any) -> None:
            write_text(path, content[: len(content) // 2], **settings)
            self.moment(f"with half of {path.name.split('.')[1]} written")
            write_text(path, content, **settings)

        os.replace, os.fsync, Path.write_bytes, Path.write_text = replacing, syncing, writing_bytes, writing_text

    def moment(self, name: str) -> None:
        if len(self.moments) == self.victim:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.album:
            shutil.copytree(self.folder, Path(self.album) / str(len(self.moments)))
        self.moments.append(name)


def work(task: dict[str, Any], images: Any) -> dict[str, Any]:
    """Start the run, or resume it if its folder holds one; test it if it is finished then."""
    from support.callbacks import FunctionCallbacks

    from convolab.training.recipe import Recipe
    from convolab.training.run import Run

    folder, notes, steps = Path(task["folder"]), [], iter(range(10**6))

    def fill_disk(epoch: Any) -> None:
        if epoch.epoch == task.get("full after"):
            fill(folder, task["room"])

    callbacks = FunctionCallbacks(
        on_epoch=fill_disk, on_message=notes.append, stop=lambda: next(steps) >= task.get("stop", 10**6)
    )
    if task.get("full after") == 0:
        fill(folder, task["room"])
    reaper = Reaper(folder, task.get("moment"), task.get("album"))
    if (folder / "summary.json").exists():
        run = Run(folder).resume(images, callbacks=callbacks)
    else:
        run = Run.start(Recipe.from_dict(task["recipe"]), images, folder, callbacks=callbacks)
    if run.status == "finished":
        run.test()
    return {"status": run.status, "moments": reaper.moments, "notes": notes}


def fill(folder: Path, room: int | None) -> None:
    """From now on no file may have more than `room` bytes; or, without it, the disk has none left."""
    if room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        return
    with (folder.parent / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass


def workshop() -> None:
    """Take a task a line; fork; answer with a line how the child ended."""
    import torch

    from convolab.core.errors import LabError
    from convolab.data.catalog import load
    from convolab.training import run

    torch.set_num_threads(1)
    images = load("digits")
    run.load = lambda *_, **__: images  # read once for all children
    platform.platform()  # asked once: it starts a process
    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                answer = work(task, images)
            except LabError as error:
                answer = {"refused": str(error)}
            except BaseException as error:
                answer = {"bug": repr(error)}
            os.write(theirs, json.dumps(answer).encode())
            os._exit(0)
        os.close(theirs)
        if "kill after" in task and not select.select([ours], [], [], task["kill after"])[0]:
            os.kill(child, signal.SIGKILL)
        with open(ours, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"killed": True} if os.WIFSIGNALED(status) else json.loads(answer)), flush=True)


# ---------------------------------------------------------------- the tests

Do = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def do() -> Iterator[Do]:
    """Have the workshop do a task: start or resume the run in `folder`."""
    tests_folder = Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(tests_folder)}
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as shop:
        assert shop.stdout.readline() == "ready\n"

        def ask(folder: Path, recipe: dict[str, Any] = RECIPE, **task: Any) -> dict[str, Any]:
            print(
                json.dumps(
                    {"folder": str(folder), "recipe": recipe} | {k.replace("_", " "): v for k, v in task.items()}
                ),
                file=shop.stdin,
                flush=True,
            )
            answer = json.loads(shop.stdout.readline())
            assert "bug" not in answer, answer["bug"]
            return answer

        yield ask
        shop.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(do: Do, tmp_path_factory: pytest.TempPathFactory, timeless: Callable[[Path], Any]) -> dict[str, Any]:
    """What a run leaves that nothing happened to; its moments; and how long it took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    started = time.monotonic()
    answer = do(folder)
    assert answer["status"] == "finished"
    return {
        "left": timeless(folder),
        "moments": answer["moments"],
        "seconds": time.monotonic() - started,
        "folder": folder,
    }


def need_same(folder: Path, undisturbed: dict[str, Any], timeless: Callable[[Path], Any], when: str) -> None:
    left = timeless(folder)
    assert left == undisturbed["left"], (
        f"killed {when}: {[part for part in left if left[part] != undisturbed['left'].get(part)]} differ"
    )
    assert not [path.name for path in folder.iterdir() if path.name.endswith(".part.safetensors")], f"killed {when}"


def test_the_moments_are_all_there(undisturbed: dict[str, Any]):
    moments = undisturbed["moments"]
    for name in ("last", "state"):
        assert moments.count(f"after {name}.safetensors was put in place") >= 1
        assert moments.count(f"with half of {name} written") >= 1
    assert "after best.safetensors was put in place" in moments  # a second name for last's file: there is no half of it
    for name in ("recipe.toml", "metrics.jsonl", "summary.json", "test.json", "state.previous.safetensors"):
        assert f"after {name} was put in place" in moments
    assert moments.count("before a file is synced") == len([m for m in moments if "half" in m])


def test_a_recipe_has_the_same_key_in_another_process_with_another_hash_seed(undisturbed: dict[str, Any]):
    from convolab.training.recipe import Recipe

    assert undisturbed["left"]["summary"]["recipe_key"] == Recipe.from_dict(RECIPE).key


def test_a_run_killed_at_any_moment_of_its_writing_continues_bit_for_bit(
    do: Do, undisturbed: dict[str, Any], tmp_path: Path, timeless: Callable[[Path], Any]
):
    begun = undisturbed["moments"].index("after summary.json was put in place")
    for moment, when in enumerate(undisturbed["moments"]):
        folder = tmp_path / str(moment)
        assert do(folder, moment=moment) == {"killed": True}
        answer = do(folder)
        if moment < begun and "refused" in answer:  # nothing has been trained yet, and nobody is told to resume it
            assert answer["refused"].endswith("is not empty: choose a new or empty folder for --out")
            continue
        assert (answer.get("status"), answer.get("notes")) == ("finished", []), f"killed {when}: {answer}"
        need_same(folder, undisturbed, timeless, when)


def test_a_run_stopped_within_an_epoch_and_killed_at_any_moment_of_continuing_continues_bit_for_bit(
    do: Do, undisturbed: dict[str, Any], tmp_path: Path, timeless: Callable[[Path], Any]
):
    assert do(tmp_path / "run", stop=4)["status"] == "stopped"  # of 3 steps an epoch
    album = (
        tmp_path / "album"
    )  # what a kill would have left at each moment: all that a process has written, and nothing else
    moments = do(tmp_path / "run", album=str(album))["moments"]
    assert "after state.previous.safetensors was put in place" in moments
    for moment, when in enumerate(moments):
        answer = do(album / str(moment))
        assert (answer.get("status"), answer.get("notes")) == ("finished", []), f"killed {when}: {answer}"
        need_same(album / str(moment), undisturbed, timeless, when)


def test_a_run_killed_again_and_again_at_any_time_continues_bit_for_bit(
    do: Do, undisturbed: dict[str, Any], tmp_path: Path, timeless: Callable[[Path], Any]
):
    draw, kills = random.Random(0), 0
    for number in range(5):
        folder, finished = tmp_path / str(number), False
        for _ in range(8):
            answer = do(folder, kill_after=draw.uniform(0, undisturbed["seconds"] / 2))
            finished = answer.get("status") == "finished"
            if finished:
                break
            assert answer == {"killed": True}
            kills += 1
            if not (folder / "summary.json").exists():
                shutil.rmtree(folder, ignore_errors=True)  # as a person would, who is told that it is not empty
        assert finished or do(folder)["status"] == "finished"
        need_same(folder, undisturbed, timeless, "again and again")
    assert kills >= 5


def test_a_kill_leaves_the_lock_open_and_the_run_says_that_it_was_killed(
    do: Do, undisturbed: dict[str, Any], tmp_path: Path
):
    from convolab.training.run import Run

    last = max(i for i, name in enumerate(undisturbed["moments"]) if name == "after state.safetensors was put in place")
    assert do(tmp_path / "run", moment=last) == {"killed": True}
    run = Run(tmp_path / "run")
    assert (run.status, run.is_training, len(run.history)) == ("killed", False, 2)


def test_an_epoch_whose_state_a_kill_prevented_is_not_in_the_metrics_until_it_is_done_again(
    do: Do, undisturbed: dict[str, Any], tmp_path: Path, timeless: Callable[[Path], Any]
):
    from convolab.training.run import Run

    last = max(i for i, name in enumerate(undisturbed["moments"]) if name == "after metrics.jsonl was put in place")
    assert do(tmp_path / "run", moment=last) == {"killed": True}
    assert len(Run(tmp_path / "run").history) == 2
    assert do(tmp_path / "run", stop=0)["status"] == "stopped"
    assert len(Run(tmp_path / "run").history) == 1
    assert do(tmp_path / "run")["status"] == "finished"
    need_same(tmp_path / "run", undisturbed, timeless, "before a state")


# ---------------------------------------------------------------- a full disk


def sizes(undisturbed: dict[str, Any]) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in undisturbed["folder"].iterdir()}


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_state_that_does_not_fit_on_the_disk_is_reported_and_the_run_continues_later_bit_for_bit(
    do: Do, undisturbed: dict[str, Any], tmp_path: Path, timeless: Callable[[Path], Any], epoch: int
):
    from convolab.training.run import Run

    room = (sizes(undisturbed)["last.safetensors"] + sizes(undisturbed)["state.safetensors"]) // 2
    answer = do(tmp_path / "run", full_after=epoch, room=room)
    path = tmp_path / "run" / "state.safetensors"
    assert answer == {
        "refused": f"the disk is full while writing {path}: free some space; the files written before are intact"
    }
    run = Run(tmp_path / "run")
    assert len(run.history) == epoch + 1
    for which in ("best", "last"):
        run.net(which)
    assert do(tmp_path / "run") | {"moments": []} == {"status": "finished", "moments": [], "notes": []}
    need_same(tmp_path / "run", undisturbed, timeless, "by a full disk")


def test_weights_that_do_not_fit_on_the_disk_leave_all_files_of_the_epoch_before(
    do: Do, tmp_path: Path, timeless: Callable[[Path], Any]
):
    recipe = RECIPE | {"data": RECIPE["data"] | {"validation": 0.0}}  # so that both epochs write their best weights
    answer = do(tmp_path / "run", recipe, full_after=1, room=100)
    assert answer["refused"].startswith(f"the disk is full while writing {tmp_path / 'run' / 'last.safetensors'}: ")
    assert do(tmp_path / "one", recipe | {"training": recipe["training"] | {"epochs": 1}})["status"] == "finished"
    (tmp_path / "one" / "test.json").unlink()
    full, one = timeless(tmp_path / "run"), timeless(tmp_path / "one")
    assert {record.pop("recipe_key") for record in (*full["metrics"], full["about state"])} != {
        record.pop("recipe_key") for record in (*one["metrics"], one["about state"])
    }  # the number of epochs is part of the recipe
    for part in ("metrics", "best", "last", "state", "about state"):
        assert full[part] == one[part], part


def test_a_disk_that_runs_full_is_reported_and_the_run_continues_when_there_is_room(
    do: Do, undisturbed: dict[str, Any], tmp_path: Path, timeless: Callable[[Path], Any]
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
        answer = do(disk / "run", full_after=1, room=None)
        assert answer.get("refused", answer).startswith(f"the disk is full while writing {disk / 'run'}")
        for name in ("best", "last", "state"):
            assert timeless(disk / "run")[name]
        (disk / "filler").unlink()
        assert do(disk / "run")["status"] == "finished"
        need_same(disk / "run", undisturbed, timeless, "by a full disk")
    finally:
        subprocess.run(["umount", disk], check=True)


if __name__ == "__main__":
    workshop()
