"""A folder with code of a person's own, and somebody who has trusted nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from convolab.core import trust as trust_module
from convolab.models import own_code
from convolab.training.recipe import Recipe

SMALL = {
    "data": {"limit": 200},
    "model": {"name": "shallow_net", "hidden": 16},
    "training": {"epochs": 3, "batch_size": 32},
}


def become_another_user(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Someone who has trusted nothing, in a new process."""
    monkeypatch.setenv("CONVOLAB_DATA", str(data))
    monkeypatch.setattr(trust_module, "_TRUSTED_HERE", set())
    monkeypatch.setattr(own_code, "_LOADED", {})


def own_code_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, source: str) -> Callable[..., Recipe]:
    """Make a new current folder with one file of source code; returns what makes small recipes there."""
    (folder / "own").mkdir()
    monkeypatch.chdir(folder / "own")
    Path(file).write_text(source)
    become_another_user(folder / "data", monkeypatch)
    return lambda overrides: Recipe.from_dict(SMALL).with_overrides(overrides)
