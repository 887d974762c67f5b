"""How a run stands, as `train` and `resume` print it at the end and `runs` lists it."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from convolab.cli.terminal import print_json, print_note
from convolab.core.errors import LabError
from convolab.core.text import format_percent

if TYPE_CHECKING:
    from convolab.training.run import Run, Status


class RunOverview(TypedDict):
    """One row of the table of runs."""

    folder: str
    network: str
    data: str
    recipe_key: str
    epochs_done: int
    epochs: int
    best_validation_accuracy: float | None  # in [0, 1]
    test_accuracy: float | None
    status: "Status | Literal['damaged']"
    reason: str | None  # why it diverged, or what is damaged


def open_run(folder: Path) -> "Run":
    """The run in a folder; it is said if the file of its own network was edited since it began."""
    from convolab.training.run import Run

    run = Run(folder)
    if note := run.code_note:
        print_note(note)
    return run


def run_overview(run: "Run") -> RunOverview:
    """One row of the table of runs."""
    best = run.best_epoch
    record = run.test_result
    return {
        "folder": str(run.folder),
        "network": run.recipe.model.name,
        "data": run.recipe.data.name,
        "recipe_key": run.summary["recipe_key"],
        "epochs_done": len(run.history),
        "epochs": run.recipe.training.epochs,
        "best_validation_accuracy": best.validation_accuracy if best else None,
        "test_accuracy": record.accuracy if record else None,
        "status": run.status,
        "reason": run.summary["reason"],
    }


def folder_overview(folder: Path) -> RunOverview:
    """The row of the run in a folder; a damaged one has a row too, so that it hides no other."""
    from convolab.training.run import Run

    try:
        return run_overview(Run(folder))
    except LabError as error:
        return {
            "folder": str(folder),
            "network": "",
            "data": "",
            "recipe_key": "",
            "epochs_done": 0,
            "epochs": 0,
            "best_validation_accuracy": None,
            "test_accuracy": None,
            "status": "damaged",
            "reason": str(error),
        }


def report_run(run: "Run", as_json: bool) -> None:
    """Plot a run's curves and print its status."""
    from convolab.plots import training as training_plots
    from convolab.plots.style import save_chart

    history = run.history
    overview = run_overview(run)
    if history:
        title = training_plots.curves_title(run.recipe)
        save_chart(training_plots.training_curves_chart(history, title), run.folder / "curves")
    if as_json:
        print_json(overview)
        return
    best = run.best_epoch
    best_text = ""
    if best is not None and best.validation_accuracy is not None:
        best_text = f", best validation accuracy {format_percent(best.validation_accuracy)} in epoch {best.epoch}"
    status = overview["status"]
    print(f"{run.folder}: {status} after {overview['epochs_done']} of {overview['epochs']} epochs{best_text}")
    if history:
        print(f"curves: {run.folder / 'curves.html'} (also .svg and .png)")
    print(f"next: convolab {'test' if status == 'finished' else 'resume'} {run.folder}")
