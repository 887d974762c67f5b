"""Shapes in signatures are checked while the tests run, and the real pictures are found where they lie."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("convolab", "beartype.beartype")

SHARED = Path(os.environ.get("CONVOLAB_SHARED", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def cifar10_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds CIFAR-10 in its published layout; skips where the pictures are not at hand."""
    if "CONVOLAB_DATA" in os.environ and (Path(os.environ["CONVOLAB_DATA"]) / "cifar-10-batches-py").is_dir():
        return Path(os.environ["CONVOLAB_DATA"])
    unpack = SHARED / "unpack_cifar10.py"
    if not unpack.exists():
        pytest.skip("CIFAR-10 is not at hand: set CONVOLAB_DATA to a folder that holds cifar-10-batches-py")
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, unpack, folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of photos with their classes and boxes; skips where it is not at hand."""
    if not (SHARED / "photos").is_dir():
        pytest.skip(f"there are no photos in {SHARED}: set CONVOLAB_SHARED to the folder that holds them")
    return SHARED / "photos"


@pytest.fixture(scope="session", autouse=True)
def displacements_apart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where networks look is measured anew for the tests, once, and kept apart from the person's own notes."""
    from convolab.inspection.localization import alignment

    alignment.CACHE_DIR = tmp_path_factory.mktemp("placement")
