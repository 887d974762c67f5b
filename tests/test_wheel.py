"""The wheel and the source archive, built without the network and used without the checkout; what they depend on."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOR_DEVELOPERS = {"test", "dev", "bench", "docs"}  # extras that a person who uses the package does not install


def canonical(name: str) -> str:
    """The name of a distribution, in the one form that all its spellings have."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: Sequence[str]) -> set[str]:
    """The distributions that requirements name, without versions and extras."""
    return {canonical(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """The first part of each module that a module imports, in a function too; what only a type checker reads is left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("import_module", "importlib.import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.args[0].value.partition(".")[0]
        yield from imported_modules(node)


@pytest.mark.slow
def test_every_module_that_the_package_imports_is_of_a_declared_dependency_or_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = names_of(project["dependencies"])
    declared |= {name for extra in extras.keys() - FOR_DEVELOPERS for name in names_of(extras[extra])}
    homes = packages_distributions()
    undeclared: dict[str, set[str]] = {}
    for path in (ROOT / "src").rglob("*.py"):
        for module in set(imported_modules(ast.parse(path.read_text()))) - sys.stdlib_module_names - {"convolab"}:
            if not declared & {canonical(name) for name in (module, *homes.get(module, ()))}:
                undeclared.setdefault(module, set()).add(path.name)
    assert undeclared == {}, "add its package to pyproject.toml"


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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_the_wheel_with_its_dependencies_and_nothing_else_trains_explains_and_lays_out_the_homework(
    built: Path, tmp_path: Path
) -> None:
    # The environment of this test is hidden: what the package imports without declaring it is missing there.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([python, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)

    if call("-m", "pip", "download", "--quiet", "--no-deps", "--dest", "index", "typing-extensions").returncode:
        pytest.skip("pip finds no index of packages")
    (wheel,) = built.glob("*.whl")
    installing = call("-m", "pip", "install", "--quiet", str(wheel))
    assert installing.returncode == 0, installing.stderr
    for arguments, words in (
        (["--version"], f"convolab {version('convolab')}"),
        (["train", "simple_convnet", "--epochs", "1", "--out", "run"], "finished"),
        (["explain", "chelsea", "--method", "gradient"], "tabby"),
        (["handin", "start", "homework"], "README.md"),
    ):
        done = call("-m", "convolab", *arguments)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout, arguments
