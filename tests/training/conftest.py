"""Small runs and small made pictures, and what two runs are compared by."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.images.sources import Pictures, load
from convolab.training.checkpoint import read_tensors
from convolab.training.recipe import Recipe
from convolab.training.run import Run

TIMES = ("seconds", "images_per_second")


@pytest.fixture(scope="session")
def digits() -> Pictures:
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
    return lambda changes=None: Recipe.parse(base).changed(changes or {})


@pytest.fixture
def paint_pets() -> Callable[[Path], Path]:
    """Write a picture set of one's own: noise in three colours, 12 pictures each."""

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
    """All that a run left in its folder and that does not hang on the clock, bit for bit."""

    def read(folder: Path) -> dict[str, Any]:
        left: dict[str, Any] = {
            "metrics": [without_times(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        }
        for name in ("best", "last", "state"):
            tensors, about = read_tensors(folder / f"{name}.safetensors")
            left[name] = {
                k: (t.dtype, tuple(t.shape), t.contiguous().view(-1).view(torch.uint8).numpy().tobytes()) for k, t in tensors.items()
            }
            left[f"about {name}"] = without_times(about) | {"history": [without_times(line) for line in about.get("history", [])]}
        if (folder / "test.json").exists():
            left["test"] = {k: v for k, v in json.loads((folder / "test.json").read_text()).items() if k != "tested"}
        summary = Run(folder).summary
        left["summary"] = {k: summary[k] for k in ("status", "recipe_key", "data", "parameters", "precision", "epochs_done")}
        return left

    return read


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in TIMES}
