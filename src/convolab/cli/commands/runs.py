"""`convolab runs`: list the runs in a folder, or delete one."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from convolab.cli.options import AsJson
from convolab.cli.run_status import folder_overview
from convolab.cli.terminal import print_fitting_table, print_json, print_lines, print_note
from convolab.core.errors import LabError, require
from convolab.core.escape import escape_line
from convolab.core.run_files import SUMMARY_FILE
from convolab.core.text import NO_VALUE, format_percent, pluralize, truncate_list
from convolab.core.types import Json

COLUMNS = ("run", "status", "epochs", "changed", "best validation", "test", "network", "data", "recipe", "parent")
# Where a terminal is too narrow for all.
COLUMN_DROP_ORDER = ("parent", "recipe", "data", "network", "changed", "epochs", "test", "best validation")
MAX_CHANGED = 4  # keys of a recipe in the table; --json has all


def runs_command(
    folder: Annotated[Path, typer.Argument(help="Folder that holds the runs.")] = Path("runs"),
    delete: Annotated[
        Path | None, typer.Option(help="Delete the run in this folder: its own files, and no others.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder: status, epochs, what of the recipe is not the default, best validation accuracy, test."""
    if delete is not None:
        delete_run(delete, yes, as_json)
        return
    from convolab.training.find_runs import list_run_folders

    require(folder.is_dir(), f"there is no folder {folder}: name the folder that holds your runs")
    overviews = [folder_overview(path) for path in list_run_folders(folder)]
    if as_json:
        print_json(overviews)
        return
    require(overviews, f"{folder} holds no runs: train one with convolab train")
    rows = [
        [
            overview["folder"],
            overview["status"],
            f"{overview['epochs_done']}/{overview['epochs']}",
            describe_changed(overview["changed"]),
            format_percent(overview["best_validation_accuracy"]),
            format_percent(overview["test_accuracy"]),
            overview["network"],
            overview["data"],
            overview["recipe_key"],
            overview["parent"] or NO_VALUE,
        ]
        for overview in overviews
    ]
    print_fitting_table(COLUMNS, rows, COLUMN_DROP_ORDER, "give --json")
    for overview in overviews:
        if overview["status"] == "damaged":
            print_note(overview["reason"] or "")


def describe_changed(changed: Mapping[str, Json]) -> str:
    """The keys in which a recipe is not the default one, as a table shows them.

    >>> describe_changed({"optimizer.name": "adam", "optimizer.lr": 0.01, "training.seed": 3}), describe_changed({})
    ('optimizer=adam, lr=0.01, seed=3', '-')
    """
    from convolab.studies.section import format_arm_value

    words = {key: key.removesuffix(".name").rpartition(".")[2] for key in changed}
    parts = [f"{words[key]}={format_arm_value(value)}" for key, value in changed.items()]
    return truncate_list(parts, MAX_CHANGED) if parts else NO_VALUE


def delete_run(folder: Path, yes: bool, as_json: bool) -> None:
    """Ask, and delete a run's own files. Raises LabError if there is no run, or it is being trained."""
    from convolab.training.run import Run

    try:
        run = Run(folder)
    except LabError as error:
        if not (folder / SUMMARY_FILE).exists():
            raise
        raise LabError(
            f"{error}; so it is not known what is the run's own there: look, and delete the folder yourself"
        ) from error
    require(not run.is_training, f"{folder} is being trained by another process: wait for it, or stop it")
    if not yes:
        require(sys.stdin.isatty(), f"{folder} is not deleted without a question: add --yes where nobody can answer")
        done = f"{pluralize(len(run.history), 'epoch')} of {run.recipe.model.name} on {run.recipe.data.name}"
        if not typer.confirm(escape_line(f"Delete {folder} ({done}, {run.status})?"), err=True):
            raise typer.Exit(1)
    remaining = run.delete()
    if as_json:
        print_json({"deleted": str(folder), "remaining": [str(path) for path in remaining]})
    elif remaining:
        print_lines(
            f"deleted the run in {folder}; what is not its own stays: {truncate_list([path.name for path in remaining], 3)}"
        )
    else:
        print_lines(f"deleted {folder}")
