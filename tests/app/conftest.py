"""What the tests of the page share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from support.page import ORIGIN, client_of

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


@pytest.fixture(scope="session")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with two small networks that have been trained for an epoch."""
    import convolab

    runs = tmp_path_factory.mktemp("looked_at") / "runs"
    overrides = {"data.limit": 300, "model.channels": [8, 16]}
    for seed, name in enumerate(("small", "other")):
        convolab.train("simple_convnet", epochs=1, seed=seed, overrides=overrides, out=runs / name)
    return runs


@pytest.fixture
def looking(looked_at: Path, tmp_path: Path) -> Iterator[TestClient]:
    """Requests to a page of that folder, as its own scripts send them."""
    state = AppState(RunsFolder(looked_at), Jobs(looked_at, tmp_path / "queue"))
    client = client_of(state)
    client.headers.update(ORIGIN)
    yield client
    state.worker.close()
