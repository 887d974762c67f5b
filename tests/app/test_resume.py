"""How a run goes on from the page: as a job, as a command and as Python, all with the same folder."""

import shlex
from pathlib import Path

import pytest
from support.page import ORIGIN, client_of
from support.same_as import require_command, run_python

import convolab
from convolab.app.folders import RunsFolder
from convolab.app.jobs import Jobs
from convolab.app.server import AppState

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("epochs", "more"), [("", {}), ("007", {"epochs": 7, "out": "small-1"})])
def test_the_job_the_command_and_the_python_of_a_run_that_goes_on_are_the_same(
    looked_at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: str, more: dict[str, object]
) -> None:
    state = AppState(RunsFolder(looked_at), Jobs(looked_at, tmp_path / "queue"))
    client, run = client_of(state), looked_at / "small"
    same = client.get("/api/train/same-as-resume", params={"run": "small", "epochs": epochs}).json()
    assert require_command(same["command"]) == "resume"
    out = str(looked_at / "small-1")
    options = ["--epochs", "7", "--out", out] if more else []
    assert shlex.split(same["command"]) == ["convolab", "resume", str(run), *options]
    calls: list[object] = []
    monkeypatch.setattr(convolab.Run, "resume", lambda run: calls.append((run.folder,)))
    monkeypatch.setattr(convolab.Run, "extend", lambda run, epochs, out: calls.append((run.folder, epochs, out)))
    run_python(same["python"])
    assert calls == [(run, 7, out) if more else (run,)]
    started = client.post("/api/train/resume", json={"run": "small", "epochs": epochs}, headers=ORIGIN).json()
    assert started["name"] == ("small-1" if more else "small")
    assert state.jobs.entries()[0].arguments == ["resume", str(run), *options]


def test_a_finished_run_that_was_not_tested_has_the_command_and_the_python_of_its_test(
    looked_at: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, run = client_of(AppState(RunsFolder(looked_at), Jobs(looked_at, tmp_path / "queue"))), looked_at / "small"
    (row,) = [row for row in client.get("/api/runs").json()["runs"] if row["name"] == "small"]
    assert row["is_to_test"] == (convolab.Run(run).test_result is None)
    same = client.get("/api/train/same-as-test", params={"run": "small"}).json()
    assert require_command(same["command"]) == "test"
    assert shlex.split(same["command"]) == ["convolab", "test", str(run)]
    calls: list[object] = []
    monkeypatch.setattr(convolab.Run, "test", lambda run: calls.append(run.folder))
    run_python(same["python"])
    assert calls == [run]
