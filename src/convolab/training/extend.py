"""More epochs for a finished run: a new run, which begins where the other one ended and names it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from convolab.core.errors import require
from convolab.core.escape import shell_word
from convolab.core.files import write_json
from convolab.core.free_cores import as_many_threads
from convolab.core.run_files import RECIPE_FILE, STATE_FILE, SUMMARY_FILE
from convolab.core.text import pluralize
from convolab.core.types import python_values
from convolab.data.splits import DatasetSplits
from convolab.training.callbacks import TrainingCallbacks, shown_callbacks
from convolab.training.checkpoint import read_state
from convolab.training.epoch_log import LoggedRun, epoch_log, require_logger
from convolab.training.exactness import require_same_parts
from convolab.training.recipe import Recipe
from convolab.training.recorder import RunRecorder, note_other_threads
from convolab.training.run_code import code_folder
from convolab.training.run_folder import new_run_folder, require_new_folder
from convolab.training.run_records import ParentRecord, RunId, new_summary
from convolab.training.setup import build_trainer, splits_of_run
from convolab.training.trainer import Trainer
from convolab.training.transforms import Progressive

if TYPE_CHECKING:
    from convolab.training.run import Run


def extend_run(
    run: "Run",
    epochs: int,
    out: Path | str | None,
    splits: DatasetSplits | None,
    callbacks: TrainingCallbacks | None,
    log: str | None,
) -> Path:
    """Train a finished run on until it has `epochs` in all, in the new folder that is returned. See `Run.extend`."""
    epochs = python_values(epochs)
    require_extendable(run, epochs)
    require_new_folder(out)
    require_logger(log)
    with shown_callbacks(callbacks, epochs, run.history) as shown:
        splits = splits_of_run(run, splits, shown.on_message)
        with as_many_threads(run.summary["threads"]):
            return train_on(run, longer_recipe(run, epochs), splits, out, shown, log)


def train_on(
    run: "Run",
    recipe: Recipe,
    splits: DatasetSplits,
    out: Path | str | None,
    callbacks: TrainingCallbacks,
    log: str | None,
) -> Path:
    """Train the longer recipe from the run's last state to its end, in a new folder."""
    tensors, progress, damage = read_state(run.folder)
    require(damage is None, f"{damage}; only a whole last state can go on: give another run")
    run.run_id.require_own(run.folder / STATE_FILE, progress)
    best_net, best_epoch = run.load_weights("best")
    last_net, last_epoch = run.load_weights("last")
    device, precision = run.summary["device"], run.summary["precision"]
    codes = run.codes
    trainer = build_trainer(recipe, splits, device, precision, codes, run.summary["pretrained"])
    trainer.restore(tensors, progress)
    require_same_parts(trainer, progress)
    require(
        not trainer.is_finished,
        f"{run.folder} stopped by itself after {pluralize(len(run.history), 'epoch')} (training.goal or "
        "training.patience), and with more epochs it would stop there too: start a new run without that key",
    )
    parent: ParentRecord = {
        "recipe_key": run.summary["recipe_key"],
        "data_key": run.summary["data_key"],
        "epochs": len(run.history),
        "state_sha256": fingerprint_of(tensors),
        "is_exact": is_same_schedule(trainer, run.recipe.training.epochs) and is_exact_so_far(run),
    }
    callbacks.on_message(exactness_line(parent, recipe.training.epochs))
    note_other_threads(run.summary, callbacks)
    with new_run_folder(recipe, out) as folder:
        for part, code in codes.items():
            code.write(code_folder(folder, part))
        recipe.write(folder / RECIPE_FILE)
        summary = new_summary(recipe, splits, trainer, run.summary["data"]["dir"], device, codes)
        summary["parent"] = parent
        recorder = RunRecorder(folder, recipe, summary, trainer)
        recorder.write_weights("last", last_net, last_epoch)
        recorder.write_weights("best", best_net, best_epoch)
        recorder.write_metrics()
        recorder.write_state()
        write_json(folder / SUMMARY_FILE, summary)  # the last file: what has it can be resumed
        run_id = RunId(summary["recipe_key"], summary["data_key"])
        with epoch_log(LoggedRun(folder, run_id, recipe, trainer), callbacks, log) as logged:
            recorder.train(logged)
    return folder


def require_extendable(run: "Run", epochs: int) -> None:
    """Raise LabError, before the data are read, for a run that cannot go on to so many epochs."""
    run.require_resumable()
    run.require_same_recipe()
    require(
        run.status == "finished",
        f"{run.folder} is {run.status}: only a finished run is given more epochs; "
        + (
            "start a new one with a lower rate"
            if run.status == "diverged"
            else f"first convolab resume {shell_word(run.folder)}"
        ),
    )
    done = len(run.history)
    require(
        epochs > run.recipe.training.epochs,
        f"{epochs} epochs in all are not more than the {run.recipe.training.epochs} of {run.folder} ({done} done): "
        "give the number of epochs that it should have at the end",
    )
    longer_recipe(run, epochs)


def longer_recipe(run: "Run", epochs: int) -> Recipe:
    """The recipe of a run with more epochs. Raises LabError if they are more than a training may have."""
    return run.recipe.parse_overrides({"training.epochs": epochs}, stored=Recipe.model_fields)


def is_same_schedule(trainer: Trainer, fewer_epochs: int) -> bool:
    """Whether each step that was done had the learning rate that it has in this longer training.

    That holds for constant, step and exponential schedules, and for none that ends with the training, such as cosine; nor
    where the images grow with the training.
    """
    if any(isinstance(transform, Progressive) for transform in trainer.transforms):
        return False
    history, steps = trainer.progress.history, trainer.steps_per_epoch
    rates = trainer.schedule.rates(trainer.optimizer.lr, steps, fewer_epochs)
    return all(
        rates(epoch, step, history[:epoch]) == trainer.rates(epoch, step, history[:epoch])
        for epoch in range(len(history))
        for step in range(steps)
    )


def is_exact_so_far(run: "Run") -> bool:
    """Whether the run is itself what its recipe gives from scratch, and goes on with as many threads as it began with."""
    parent, threads = run.summary.get("parent"), run.summary["threads"]
    is_exact = (parent is None or parent["is_exact"]) and run.recipe.training.exact is not False
    return is_exact and threads in (None, torch.get_num_threads())


def exactness_line(parent: ParentRecord, epochs: int) -> str:
    """What a person should know of the new run, in one line."""
    done = pluralize(parent["epochs"], "epoch")
    if parent["is_exact"]:
        return f"going on after {done}: bit for bit what {epochs} epochs from scratch give, as the schedule is the same"
    return (
        f"going on after {done}: not what {epochs} epochs from scratch give, because the learning rates or the images' sizes so "
        "far depend on the number of epochs in all, a part is not exact, or the number of threads differs"
    )


def fingerprint_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over named tensors: equal for equal states, wherever they are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
