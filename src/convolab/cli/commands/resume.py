"""`convolab resume`: continue a run that was stopped or killed."""

from convolab.cli.options import AsJson, DataDir, RunFolder, Threads, prepare_torch
from convolab.cli.run_status import open_run, report_run, require_curves_outputs
from convolab.core.environment import count_usable_cores


def resume_command(
    folder: RunFolder, data_dir: DataDir = None, threads: Threads = None, as_json: AsJson = False
) -> None:
    """Resume a stopped or killed run; the result is bit-identical to an uninterrupted one."""
    from convolab.reports.live import live_training

    run = open_run(folder)
    require_curves_outputs(run)
    # As many threads as the run began with, if there are so many; resuming says if the bits may differ.
    prepare_torch(run.summary["device"], threads or min(run.summary["threads"] or 1, count_usable_cores()))
    if run.status == "finished":
        run.require_own_files()
    else:
        run.require_resumable()  # before the data are read
        splits = run.load_splits(data_dir)
        with live_training(run.recipe.training.epochs) as callbacks:
            run.resume(splits, callbacks=callbacks)
    report_run(run, as_json)
