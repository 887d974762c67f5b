"""What the tests of the page share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.page import client_of

from convolab.app.folders import RunsFolder
from convolab.app.jobs import Jobs
from convolab.app.server import AppState


@pytest.fixture
def state(tmp_path: Path) -> AppState:
    """What a server keeps, of an empty folder of runs."""
    runs = tmp_path / "runs"
    runs.mkdir()
    return AppState(RunsFolder(runs), Jobs(runs, tmp_path / "queue"))


@pytest.fixture
def client(state: AppState) -> Iterator[TestClient]:
    yield client_of(state)
    state.worker.close()
