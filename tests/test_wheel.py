"""The wheel and the source archive, built without the network and used without the checkout."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives, built of a copy of the sources; skips without the build backend."""
    if not find_spec("setuptools"):
        pytest.skip("the build backend is not installed: pip install setuptools")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for kind in ("sdist", "wheel"):
        code = f"from setuptools.build_meta import *; build_{kind}({str(folder)!r})"
        subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel holds: a wheel of pure Python is installed by unpacking it."""
    place = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def test_both_archives_hold_every_file_of_the_package(built: Path) -> None:
    package = ROOT / "src" / "convolab"
    files = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel, tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        assert files <= set(wheel.namelist())
        assert files <= {name.partition("/src/")[2] for name in sdist.getnames()}


def test_what_the_wheel_installs_trains_explains_and_lays_out_the_homework(installed: Path, tmp_path: Path) -> None:
    # Python puts PYTHONPATH before the checkout; the first command says which of them was found.
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def call(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    assert call("-c", "import convolab; print(convolab.__file__)").startswith(str(installed))
    assert call("-m", "convolab", "--version") == f"convolab {version('convolab')}\n"
    assert "convolab train simple_convnet" in call("-m", "convolab")
    assert "finished" in call("-m", "convolab", "train", "simple_convnet", "--epochs", "1", "--out", "run")
    assert "tabby" in call("-m", "convolab", "explain", "chelsea", "--method", "gradient")
    assert json.loads(call("-m", "convolab", "summary", "simple_convnet", "--input", "3x32x32", "--json"))["layers"]
    call("-m", "convolab", "handin", "start", "homework")
    assert "0 of " in call("-m", "convolab", "handin", "check", "homework", code=1)
    assert (tmp_path / "run" / "curves.html").exists()
