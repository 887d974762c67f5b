"""Lift a limit: each is a constant of the module that checks it, listed in docs/trust.md."""

import ast
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

from convolab.core.errors import LabError, require, suggest

VARIABLE = "CONVOLAB_LIMITS"  # of the environment, which the command line and a study's workers read
ENTRY = re.compile(r"([a-z_0-9.]+)\.([A-Z_0-9]+)=([0-9][0-9_.e+]*)")
FIXED = {  # part of what a recipe's, a study's or a weights file's value is, from the import on
    "training.sections.MAX_EPOCHS", "training.checkpoint.MAX_SIDE", "studies.section.MAX_WIDENING",
    "studies.contrast.MAX_NAME_LENGTH", "models.zoo.MAX_WIDTH", "models.zoo.MAX_STAGES", "models.zoo.MAX_DEPTH",
    "models.zoo.MAX_KERNEL", "models.zoo.MAX_BLOCKS",
}  # fmt: skip
LIMIT = re.compile(r"MAX_\w+|\w+_TIMEOUT|MIN_DOWNLOAD_SPEED|DOWNLOAD_ATTEMPTS")


def lift_limits(text: str) -> None:
    """Set limits for this process, such as "studies.study.MAX_RUNS=20000, models.registry.MAX_PARAMETERS=2e9".

    A whole number stays one. Raises LabError, naming the entry, for what is not a limit or cannot be its number.

    >>> lift_limits("studies.study.MAX_RUNZ=20000")
    Traceback (most recent call last):
    convolab.core.errors.LabError: CONVOLAB_LIMITS: studies.study has no limit 'MAX_RUNZ': did you mean 'MAX_RUNS'?
    """
    for entry in re.split(r"[,\s]+", text.strip()):
        if not entry:
            continue
        found = ENTRY.fullmatch(entry)
        require(
            found, f"{VARIABLE}: '{entry}' is no limit: write module.NAME=number, such as studies.study.MAX_RUNS=20000"
        )
        assert found is not None
        module, name, number = found.groups()
        require(f"{module}.{name}" not in FIXED, f"{VARIABLE}: {module}.{name} is part of the format and fixed")
        try:
            home = importlib.import_module(f"convolab.{module}")
            value = float(number)
        except (ImportError, ValueError) as error:
            raise LabError(f"{VARIABLE}: {entry}: {error}") from error
        known = [key for key, old in vars(home).items() if LIMIT.fullmatch(key) and isinstance(old, int | float)]
        require(name in known, f"{VARIABLE}: {module} has no limit '{name}': {suggest(name, known)}")
        before = getattr(home, name)
        largest = 1e9 if name.endswith("_TIMEOUT") else 1e18  # what the system takes for seconds, and for bytes
        require(value <= largest, f"{VARIABLE}: {entry}: give a number up to {largest:g}")
        if isinstance(before, int):
            require(value.is_integer(), f"{VARIABLE}: {entry}: give a whole number")
            value = int(value)
        for other, loaded in list(sys.modules.items()):  # those that have imported it by its name too
            if loaded is home or (
                other.startswith("convolab.") and vars(loaded).get(name) == before and has_import(loaded, home, name)
            ):
                setattr(loaded, name, value)


def has_import(module: ModuleType, home: ModuleType, name: str) -> bool:
    """Whether a module takes a name from `home`: another may have a limit of its own that is called the same."""
    assert module.__file__ is not None
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == home.__name__
        and name in {alias.name for alias in node.names}
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8")))
    )
