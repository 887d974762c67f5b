"""`convolab resume`: continue a run that was stopped or killed, or give a finished one more epochs."""

from pathlib import Path
from typing import Annotated

import typer

from convolab.cli.options import AsJson, DataDir, Log, RunFolder, Threads, prepare_torch
from convolab.cli.run_status import next_command, open_run, report_run, require_curves_outputs
from convolab.cli.terminal import print_note
from convolab.core.environment import count_usable_cores
from convolab.core.errors import require


def resume_command(
    folder: RunFolder,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Give a finished run more epochs, so many in all, as a new run.", show_default="none"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the new run of --epochs; must be new or empty.", show_default="one in runs/"),
    ] = None,
    log: Log = None,
    data_dir: DataDir = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Resume a stopped or killed run; the result is bit-identical to an uninterrupted one.

    With --epochs a finished run goes on in a new run, which names it; a note says whether that is bit-identical to so
    many epochs from scratch.
    """
    from convolab.reports.live import live_training
    from convolab.training.epoch_log import require_logger
    from convolab.training.extend import require_extendable
    from convolab.training.run_folder import require_new_folder

    require(out is None or epochs is not None, "--out is for a new run: give --epochs too, the epochs in all")
    require_logger(log)
    run = open_run(folder)
    require(
        log is None or epochs is not None or run.status != "finished",
        f"{folder} is finished, and --log is for epochs that are trained: give --epochs too, the epochs in all",
    )
    if epochs is None:
        require_curves_outputs(run)
    # As many threads as the run began with, if there are so many; resuming says if the bits may differ.
    prepare_torch(run.summary["device"], threads or min(run.summary["threads"] or 1, count_usable_cores()))
    if epochs is not None:
        require_extendable(run, epochs)
        require_new_folder(out)
        splits = run.load_splits(data_dir, on_message=print_note)
        with live_training(epochs, run.history) as callbacks:
            run = run.extend(epochs, out, splits=splits, callbacks=callbacks, log=log)
    elif run.status == "finished":
        run.require_own_files()
        print_note(f"{folder} is finished: nothing was left to train (--epochs gives it more)")
    else:
        require(
            run.status != "diverged",
            f"{folder} diverged, and would take the same steps again: start a new run ({next_command(run)})",
        )
        run.require_resumable()  # before the data are read
        splits = run.load_splits(data_dir, on_message=print_note)
        with live_training(run.recipe.training.epochs) as callbacks:
            run.resume(splits, callbacks=callbacks, log=log)
    report_run(run, as_json)
