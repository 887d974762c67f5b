"""Shapes in signatures are checked while the tests run if asked for, and real images are found where they are on this machine."""

import gc
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Before torch is imported: bits are the same on the same number of threads only, and beside busy programs it changes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Only `make shapes` asks for it: the tests take a quarter longer with it, and imports four times as long.
if os.environ.get("CONVOLAB_SHAPE_CHECKS") == "1":
    install_import_hook("convolab", "beartype.beartype")

SHARED = Path(os.environ.get("CONVOLAB_SHARED", Path(__file__).resolve().parents[2] / "shared" / "data"))
USER_DATA = os.environ.get("CONVOLAB_DATA")


def pytest_sessionstart() -> None:
    """Thousands of tests are collected that stay until the end: to search them for garbage takes a fifth of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first, so that no worker still has one of them when the other is done."""
    weights = Counter(item.path for item in items for kind in ("slow", "timing") if item.get_closest_marker(kind))
    items.sort(key=lambda item: -weights[item.path])  # stable: the tests of a file stay in their order


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process whose threads nobody has chosen: torch's default."""
    import torch

    from convolab.core import free_cores

    monkeypatch.delenv(free_cores.THREADS_VARIABLE, raising=False)
    monkeypatch.setattr(free_cores, "_decided", False)
    before = torch.get_num_threads()
    torch.set_num_threads(free_cores.count_usable_cores())
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cifar10_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds CIFAR-10 in its published layout; skips where it is not available."""
    if USER_DATA and (Path(USER_DATA) / "cifar-10-batches-py").is_dir():
        return Path(USER_DATA)
    unpack = SHARED / "unpack_cifar10.py"
    if not unpack.exists():
        pytest.skip("CIFAR-10 is not available: set CONVOLAB_DATA to a folder that holds cifar-10-batches-py")
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, unpack, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of photos with their classes and boxes; skips where it is not available."""
    if not (SHARED / "photos").is_dir():
        pytest.skip(f"there are no photos in {SHARED}: set CONVOLAB_SHARED to the folder that holds them")
    return SHARED / "photos"


@pytest.fixture(scope="session", autouse=True)
def own_data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches and downloads of the tests, and of the processes they start, are kept apart from the person's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVOLAB_DATA", str(tmp_path_factory.mktemp("convolab-data")))
        yield
