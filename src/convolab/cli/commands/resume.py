"""`convolab resume`: continue a run that was stopped or killed."""

from convolab.cli.options import AsJson, DataDir, RunFolder, Threads, prepare_torch
from convolab.cli.run_status import report_run
from convolab.cli.terminal import InterruptHandler, TrainingBar


def resume_command(
    folder: RunFolder, data_dir: DataDir = None, threads: Threads = None, as_json: AsJson = False
) -> None:
    """Resume a stopped or killed run; the result is bit-identical to an uninterrupted one."""
    from convolab.training.run import Run

    run = Run(folder)
    prepare_torch(run.summary["device"], threads or run.summary["threads"])
    if run.status != "finished":
        run.require_resumable()  # before the data are read
        splits = run.load_splits(data_dir)
        with InterruptHandler() as interrupts, TrainingBar(run.recipe.training.epochs, interrupts) as bar:
            run.resume(splits, callbacks=bar)
    report_run(run, as_json)
