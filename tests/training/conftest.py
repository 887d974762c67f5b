"""Small runs and small made images, and what two runs are compared by."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.run_contents import run_contents

from convolab.data.catalog import load
from convolab.data.splits import DatasetSplits
from convolab.training.recipe import Recipe


@pytest.fixture(scope="session")
def digits() -> DatasetSplits:
    return load("digits")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks are fastest so, and leave the other core to others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def quick() -> Callable[..., Recipe]:
    """A recipe that trains in a twentieth of a second: 6 steps an epoch; its keys can be changed."""
    base = {
        "data": {"limit": 200},
        "model": {"name": "shallow_net", "hidden": 16},
        "optimizer": {"lr": 0.1},
        "training": {"epochs": 3, "batch_size": 32},
    }
    return lambda changes=None: Recipe.from_dict(base).with_overrides(changes or {})


@pytest.fixture
def paint_pets() -> Callable[[Path], Path]:
    """Write an image set of one's own: noise in three colors, 12 images each."""

    def paint(folder: Path) -> Path:
        draw = np.random.default_rng(0)
        for channel, name in enumerate(("canary", "frog", "jay")):
            (folder / name).mkdir(parents=True)
            for number in range(12):
                pixels = draw.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
        return folder

    return paint


@pytest.fixture(scope="session")
def timeless() -> Callable[[Path], dict[str, Any]]:
    """All that a run left in its folder and that does not depend on the clock, bit for bit."""
    return run_contents
