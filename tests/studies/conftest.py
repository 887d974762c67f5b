"""Studies that take a second."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from convolab.data.catalog import load
from convolab.data.memmap import read_memmap
from convolab.data.splits import DatasetSplits
from convolab.studies.executor import EventCallback, Job, run_job
from convolab.studies.study import Study


@pytest.fixture(scope="session")
def digits() -> DatasetSplits:
    return load("digits")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Study]:
    """A study of two arms and two seeds whose runs take a twentieth of a second each; its values can be changed."""

    def make(**changes: Any) -> Study:
        values: dict[str, Any] = {
            "name": "tiny",
            "seeds": [0, 1],
            "recipe": {
                "data": {"limit": 200},
                "model": {"name": "shallow_net", "hidden": 8},
                "optimizer": {"lr": 0.1},
                "training": {"epochs": 2, "batch_size": 64},
            },
            "sections": {
                "rates": {
                    "arms": {"fast": {}, "slow": {"optimizer.lr": 0.001}},
                    "contrasts": [{"arm": "fast", "baseline": "slow"}],
                }
            },
        }
        return Study.from_dict(values | changes)

    return make


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """A trial takes one thread in whatever process it is trained."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class InThisProcess:
    """An engine without processes, for tests of what lies around engines."""

    def run(self, jobs: Sequence[Job], pictures: Path, hear: EventCallback, stop: Callable[[], bool]) -> None:
        for job in jobs:
            if not stop():
                run_job(job, partial(read_memmap, pictures), hear, stop)


@pytest.fixture
def here() -> InThisProcess:
    return InThisProcess()
