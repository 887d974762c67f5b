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
def make_study() -> Callable[..., Study]:
    """A study of two arms and two seeds whose runs take a twentieth of a second; `overrides` replace its values."""

    def make(**overrides: Any) -> Study:
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
        return Study.from_dict(values | overrides)

    return make


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    """A trial sets one thread in the process that trains it."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class InProcessExecutor:
    """An executor that trains in this process, for tests of the code around executors."""

    def run(
        self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, should_stop: Callable[[], bool]
    ) -> None:
        for job in jobs:
            if not should_stop():
                run_job(job, partial(read_memmap, dataset_folder), on_event, should_stop)


@pytest.fixture
def in_process() -> InProcessExecutor:
    return InProcessExecutor()
