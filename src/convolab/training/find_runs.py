"""The runs below a folder."""

import os
from pathlib import Path

from convolab.core.run_files import SUMMARY_FILE
from convolab.training.lock import is_locked
from convolab.training.run import Run
from convolab.training.run_folder import RUN_MARKS


def list_run_folders(folder: Path | str) -> list[Path]:
    """The folders of all runs in a folder and the folders below it, by name; damaged runs are among them."""
    # os.walk passes over folders that another process deletes meanwhile.
    found = (Path(parent) for parent, _, names in os.walk(folder) if len({*names} & {*RUN_MARKS}) > 1)
    # What has no summary and is locked is about to start.
    return sorted(path for path in found if (path / SUMMARY_FILE).exists() or not is_locked(path))


def find_runs(folder: Path | str) -> list[Run]:
    """All runs in a folder and the folders below it, by name. Raises LabError if one of them is damaged."""
    return [Run(path) for path in list_run_folders(folder)]
