"""Trainings that the page starts: ordinary processes, which outlive it, stop so that they can go on, and have the command's bits."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.page import ORIGIN, client_of
from support.run_contents import run_contents

from convolab.app.folders import RunsFolder
from convolab.app.jobs import Jobs
from convolab.app.server import AppState
from convolab.core.errors import LabError
from convolab.training.run import Run


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


STATES: list[AppState] = []  # of one test


def state_of(folder: Path) -> AppState:
    STATES.append(AppState(RunsFolder(folder / "runs"), Jobs(folder / "runs", folder / "queue")))
    return STATES[-1]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    # A training takes as many threads as are free when it starts, and its bits are those of its number of threads.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "runs").mkdir()
    yield tmp_path
    for state in STATES:
        for process in state.jobs.children.values():
            process.kill()
            process.wait()
    STATES.clear()


def post(state: AppState, path: str, **values: str) -> dict[str, str]:
    answer = client_of(state).post(path, json=values, headers=ORIGIN)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.long
@pytest.mark.timing
def test_a_training_survives_its_server_stops_and_goes_on_with_the_commands_bits(place: Path) -> None:
    first = state_of(place)
    form = {"net": "simple_convnet", "epochs": "60", "more": "data.limit=300\ntraining.batch_size=16", "name": "a"}
    post(first, "/api/train/start", **form)
    assert first.jobs.tick()
    folder = place / "runs" / "a"
    wait_until(lambda: (folder / "summary.json").exists() and len(Run(folder).history) > 0)
    # Another server finds it, and stops it.
    second = state_of(place)
    (job,) = second.jobs.entries()
    assert job.state == "running"
    second.jobs.tick()
    assert second.jobs.entries()[0].state == "running"
    listed = client_of(second).get("/api/runs").json()["runs"]
    assert [(run["name"], run["status"], run["job"]) for run in listed] == [("a", "running", job.id)]
    post(second, "/api/jobs/stop", job=job.id)
    first.jobs.children[job.id].wait(timeout=60)  # its parent is still here
    assert not second.jobs.tick()
    assert Run(folder).status == "stopped"
    post(second, "/api/train/resume", run="a")
    second.jobs.tick()
    wait_until(lambda: not second.jobs.tick())
    assert Run(folder).status == "finished"
    command = client_of(second).post("/api/train/check", json={**form, "name": "b"}, headers=ORIGIN).json()["command"]
    words = [sys.executable, "-m", *command.split()]
    subprocess.run(words, check=True, capture_output=True)
    assert run_contents(folder) == run_contents(place / "runs" / "b")


@pytest.mark.long
@pytest.mark.timing
def test_jobs_wait_for_each_other_and_one_that_fails_says_why_in_a_line(place: Path) -> None:
    state = state_of(place)
    (place / "runs" / "taken").mkdir()
    (place / "runs" / "taken" / "notes.txt").write_text("mine")
    state.jobs.add("train", ["train", "shallow_net", "--epochs", "1", "--out", "runs/taken"], "taken")
    post(state, "/api/train/start", net="shallow_net", epochs="1", name="next")
    state.jobs.tick()
    assert [job.state for job in state.jobs.entries()] == ["running", "waiting"]
    wait_until(lambda: not state.jobs.tick())
    first, second = state.jobs.entries()
    assert first.message == "runs/taken is not empty: choose a new or empty folder"
    assert (second.code, second.message) == (0, None)
    assert Run(place / "runs" / "next").status == "finished"
    assert {"run": "taken", "message": first.message} in client_of(state).get("/api/runs").json()["failed"]


def test_what_waits_is_taken_out_and_its_name_is_free_again(place: Path) -> None:
    state = state_of(place)
    names = [post(state, "/api/train/start", net="shallow_net")["name"] for _ in range(2)]
    assert names == ["shallow_net-digits-1", "shallow_net-digits-2"]
    post(state, "/api/jobs/stop", job=state.jobs.entries()[0].id)
    assert [(job.state, job.message) for job in state.jobs.entries()] == [
        ("ended", "taken out of the queue"),
        ("waiting", None),
    ]
    assert post(state, "/api/train/start", net="shallow_net")["name"] == "shallow_net-digits-1"
    with pytest.raises(LabError, match="is trained or waits already"):
        state.jobs.add("train", ["train"], "shallow_net-digits-2")


def test_a_folder_of_runs_brings_no_commands_along(place: Path) -> None:
    jobs = Jobs(place / "runs")
    jobs.add("train", ["train", "shallow_net"], "a")
    assert not list((place / "runs").rglob("*"))
    assert jobs.file.stat().st_mode & 0o77 == 0 or jobs.folder.stat().st_mode & 0o77 == 0


def test_a_process_of_the_same_number_is_no_training(place: Path) -> None:
    jobs = Jobs(place / "runs", place / "queue")
    jobs.add("train", ["train", "shallow_net"], "a")
    with jobs._changing() as entries:
        entries[0].state, entries[0].pid, entries[0].born = "running", os.getpid(), "long ago"
    jobs.stop(entries[0].id)  # this process lives on
    assert not jobs.tick()
    assert jobs.entries()[0].state == "ended"


def test_the_queue_is_bounded_and_a_damaged_one_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convolab.app.jobs.MAX_WAITING", 3)
    jobs = Jobs(place / "runs", place / "queue")
    for number in range(3):
        jobs.add("train", ["train"], str(number))
    with pytest.raises(LabError, match="wait already"):
        jobs.add("train", ["train"], "one more")
    jobs.file.write_text("{")
    with pytest.raises(LabError, match="is not JSON"):
        jobs.entries()
