"""How a run stands, as `train` and `resume` print it at the end and `runs` lists it."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import typer

from convolab.cli.terminal import STOPPED, print_json, print_lines, print_note
from convolab.core.errors import LabError
from convolab.core.escape import shell_word
from convolab.core.outputs import TRAINING_CURVES, own_kind, require_outputs
from convolab.core.run_files import RECIPE_FILE
from convolab.core.text import format_percent
from convolab.core.types import Json

if TYPE_CHECKING:
    from convolab.training.run import Run, Status


class RunOverview(TypedDict):
    """One row of the table of runs."""

    folder: str
    network: str
    data: str
    recipe_key: str
    changed: dict[str, Json]  # keys in which the recipe is not the default one
    epochs_done: int
    epochs: int
    best_validation_accuracy: float | None  # in [0, 1]
    test_accuracy: float | None
    status: "Status | Literal['damaged']"
    reason: str | None  # why it diverged, or what is damaged
    parent: str | None  # recipe key of the run that it went on from


def open_run(folder: Path) -> "Run":
    """The run in a folder; a note is printed if the file of its own network was edited since it began."""
    from convolab.training.run import Run

    run = Run(folder)
    if note := run.code_note:
        print_note(note)
    return run


def run_overview(run: "Run") -> RunOverview:
    """One row of the table of runs."""
    from convolab.training.recipe_changes import changed_keys

    best = run.best_epoch
    record = run.test_result
    return {
        "folder": str(run.folder),
        "network": run.recipe.model.name,
        "data": run.recipe.data.name,
        "recipe_key": run.summary["recipe_key"],
        "changed": changed_keys(run.recipe),
        "epochs_done": len(run.history),
        "epochs": run.recipe.training.epochs,
        "best_validation_accuracy": best.validation_accuracy if best else None,
        "test_accuracy": record.accuracy if record else None,
        "status": run.status,
        "reason": run.summary["reason"],
        "parent": parent["recipe_key"] if (parent := run.summary.get("parent")) else None,
    }


def folder_overview(folder: Path) -> RunOverview:
    """The row of the run in a folder; a damaged one has a row too, so that it hides no other.

    A run one of whose files is another run's is damaged.
    """
    from convolab.training.run import Run
    from convolab.training.run_folder import require_own_tensors

    try:
        run = Run(folder)
        run.require_same_recipe()
        require_own_tensors(folder, run.run_id)
        return run_overview(run)
    except LabError as error:
        return {
            "folder": str(folder),
            "network": "",
            "data": "",
            "recipe_key": "",
            "changed": {},
            "epochs_done": 0,
            "epochs": 0,
            "best_validation_accuracy": None,
            "test_accuracy": None,
            "status": "damaged",
            "reason": str(error),
            "parent": None,
        }


def curves_kind(run: "Run") -> str:
    """What a run's curves are as outputs."""
    return own_kind(TRAINING_CURVES, run.summary["recipe_key"])


def require_curves_outputs(run: "Run") -> None:
    """Raise LabError, before a run is continued, if other files are where its curves will be."""
    from convolab.plots.style import chart_paths

    require_outputs(curves_kind(run), chart_paths(run.folder / "curves"))


def report_run(run: "Run", as_json: bool) -> None:
    """Plot a run's curves and print its status; exit with STOPPED if it was stopped before its end."""
    from convolab.plots import training as training_plots
    from convolab.plots.style import save_chart

    history = run.history
    overview = run_overview(run)
    if history:
        title = training_plots.curves_title(run.recipe)
        chart = training_plots.training_curves_chart(history, title)
        save_chart(chart, run.folder / "curves", kind=curves_kind(run))
    if as_json:
        print_json(overview)
    else:
        print_status(run, overview)
    if run.status == "stopped":
        raise typer.Exit(STOPPED)


def print_status(run: "Run", overview: RunOverview) -> None:
    """What a run came to, and what may be done next."""
    best = run.best_epoch
    best_text = ""
    if best is not None and best.validation_accuracy is not None:
        best_text = f", best validation accuracy {format_percent(best.validation_accuracy)} in epoch {best.epoch}"
    status = overview["status"]
    print_lines(f"{run.folder}: {status} after {overview['epochs_done']} of {overview['epochs']} epochs{best_text}")
    if run.history:
        print_lines(f"curves: {run.folder / 'curves.html'} (also .svg and .png)")
    print_lines(f"next: {next_command(run)}")


def next_command(run: "Run") -> str:
    """What a person may do next with a run that was trained."""
    if run.status == "diverged":
        return f"convolab train --recipe {shell_word(run.folder / RECIPE_FILE)} --lr {run.recipe.optimizer.lr / 10:g}"
    folder = shell_word(run.folder)
    if run.status != "finished":
        return f"convolab resume {folder}"
    is_to_test = run.test_result is None and run.has_test_images
    return f"convolab test {folder}" if is_to_test else f"convolab predict {folder} IMAGE"
