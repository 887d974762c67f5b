"""Going on with a run that was stopped or killed: its last saved state, restored and trained to the end."""

from typing import TYPE_CHECKING

from convolab.core.errors import require
from convolab.core.files import find_leftovers
from convolab.core.free_cores import as_many_threads
from convolab.core.run_files import PREVIOUS_STATE_FILE, STATE_FILE
from convolab.data.splits import DatasetSplits
from convolab.training.callbacks import TrainingCallbacks, shown_callbacks
from convolab.training.checkpoint import read_state
from convolab.training.epoch_log import LoggedRun, epoch_log, require_logger
from convolab.training.exactness import require_same_parts
from convolab.training.recorder import RunRecorder, note_other_threads
from convolab.training.run_folder import read_summary
from convolab.training.setup import build_trainer, splits_of_run

if TYPE_CHECKING:
    from convolab.training.run import Run


def resume_run(run: "Run", splits: DatasetSplits | None, callbacks: TrainingCallbacks | None, log: str | None) -> None:
    """Train a run on from its last saved state; a finished one is left unchanged. See `Run.resume`."""
    require_logger(log)
    run.require_resumable()
    run.require_same_recipe()
    with shown_callbacks(callbacks, run.recipe.training.epochs, run.history) as shown:
        train_to_the_end(run, splits, shown, log)


def train_to_the_end(run: "Run", splits: DatasetSplits | None, callbacks: TrainingCallbacks, log: str | None) -> None:
    """Restore the last saved state, once nobody else trains the run, and do the epochs that are left."""
    splits = splits_of_run(run, splits, callbacks.on_message)
    with run.lock(), as_many_threads(run.summary["threads"]):
        run.summary = read_summary(run.folder)  # another process may have been here while this one waited
        run.require_same_recipe()
        if run.summary["status"] == "finished":
            return
        for leftover in find_leftovers(run.folder, ".safetensors"):  # what a kill left: nobody else writes these now
            leftover.unlink()
        device, precision = run.summary["device"], run.summary["precision"]
        has_state = any((run.folder / name).exists() for name in (STATE_FILE, PREVIOUS_STATE_FILE))
        # A kill before the first state may leave one line of metrics: the run then begins again.
        continues = len(run.history) > 1 or has_state
        pretrained = run.summary["pretrained"] if continues else None
        trainer = build_trainer(run.recipe, splits, device, precision, run.codes, pretrained)
        recorder = RunRecorder(run.folder, run.recipe, run.summary, trainer)
        if continues:
            tensors, progress, damage = read_state(run.folder)
            path = run.folder / (PREVIOUS_STATE_FILE if damage else STATE_FILE)
            require(
                "recipe_key" in progress and "data_key" in progress,
                f"{path} does not name its run, as no file of convolab's first edition did: it cannot be resumed",
            )
            run.run_id.require_own(path, progress)
            trainer.restore(tensors, progress)
            require_same_parts(trainer, progress)
            recorder.write_metrics()
            if damage:
                callbacks.on_message(f"{damage}: continuing from the state before it")
                (run.folder / STATE_FILE).unlink()  # else the next one written would push it over the good one
        note_other_threads(run.summary, callbacks)
        with epoch_log(LoggedRun(run.folder, run.run_id, run.recipe, trainer), callbacks, log) as logged:
            recorder.train(logged)
