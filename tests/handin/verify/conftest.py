"""A teacher's small homework, executed once, and ten honest hand-ins of it."""

from pathlib import Path

import pytest
from cli.conftest import run_cli
from support.small_homework import copy_as, execute_solution, pack, write_teachers_files

from convolab.handin.homework import Homework

__all__ = ["run_cli"]  # a fixture of the tests of the command line
NAMES = ("Ada", "Bela", "Chen", "Dora", "Emil", "Fatima", "Gus", "Hana", "Ivo", "Jun")


@pytest.fixture(scope="session")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Homework:
    """The teacher's own homework."""
    return write_teachers_files(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="session")
def solved(mine: Homework, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the executed solution and its runs."""
    pytest.importorskip("nbclient", reason="notebooks are not installed: pip install 'convolab[notebook]'")
    folder = tmp_path_factory.mktemp("solved") / "work"
    execute_solution(mine, folder)
    return folder


@pytest.fixture(scope="session")
def class_folder(mine: Homework, solved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten honest hand-ins."""
    folder = tmp_path_factory.mktemp("class")
    for number, name in enumerate(NAMES):
        work = copy_as(solved, folder / "work" / name, name, number)
        pack(mine, work, name, folder / f"{name}.zip")
    return folder


@pytest.fixture
def work(solved: Path, tmp_path: Path) -> Path:
    """The folder of one more person, to be changed."""
    return copy_as(solved, tmp_path / "work", "Zoe", 40)
