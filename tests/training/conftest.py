"""Small recipes, runs and images."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.data.catalog import load
from convolab.data.splits import DatasetSplits
from convolab.training.recipe import Recipe


@pytest.fixture(scope="session")
def digits() -> DatasetSplits:
    return load("digits")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread: small networks are fastest with it, and the other cores stay free."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Recipe]:
    """A recipe that trains in a twentieth of a second: 6 steps an epoch; `overrides` change its keys."""
    base = {
        "data": {"limit": 200},
        "model": {"name": "shallow_net", "hidden": 16},
        "optimizer": {"lr": 0.1},
        "training": {"epochs": 3, "batch_size": 32},
    }
    return lambda overrides=None: Recipe.from_dict(base).with_overrides(overrides or {})


@pytest.fixture
def write_pet_images() -> Callable[[Path], Path]:
    """Write a dataset folder: noise in three colors, 12 images each."""

    def write(folder: Path) -> Path:
        rng = np.random.default_rng(0)
        for channel, name in enumerate(("canary", "frog", "jay")):
            (folder / name).mkdir(parents=True)
            for number in range(12):
                pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
        return folder

    return write
