"""One trial in the present process: whatever its folder holds, the result is a finished run with the same bits."""

import shutil
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from convolab.analysis.formulas import closed_form
from convolab.core.errors import LabError, require
from convolab.core.free_cores import threads_lent
from convolab.core.run_files import METRICS_FILE, RECIPE_FILE, STATE_FILE, SUMMARY_FILE, WEIGHTS_FILES
from convolab.core.types import Json
from convolab.data.splits import DatasetSplits
from convolab.training.augmentation import check_first_size, parse_transform
from convolab.training.callbacks import NO_CALLBACKS, TrainingCallbacks
from convolab.training.checkpoint import read_metadata, read_state
from convolab.training.network_check import check_forward, check_network, require_storable
from convolab.training.other_transform import is_other_entry
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.run_folder import epoch_from_record
from convolab.training.run_records import COMPLETED
from convolab.training.setup import build_network, train_validation_split
from convolab.training.trainer import Diverged, require_full_batch
from convolab.training.transfer import set_up_transfer

EndStatus = Literal["finished", "diverged", "stopped"]
IMAGE_COST = 200_000  # MACs that loading and augmenting one image takes as long as


def train_trial(
    recipe: Recipe,
    splits: DatasetSplits,
    folder: Path,
    *,
    device: str = "cpu",
    callbacks: TrainingCallbacks = NO_CALLBACKS,
    log: str | None = None,
) -> tuple[EndStatus, str | None]:
    """Train a recipe in a folder, or resume the run that is there, on one thread.

    One thread, because as many trials in parallel as there are cores are faster than one after another on all cores,
    and because a run's bits depend on the number of threads.

    Returns how it ended, and why it diverged. Raises LabError if the recipe cannot be trained, or the folder not be
    written.
    """
    with threads_lent(1):
        try:
            if not (folder / SUMMARY_FILE).exists():
                shutil.rmtree(folder, ignore_errors=True)  # a run that was killed before its first epoch
                run = Run.start(recipe, splits, folder, device=device, callbacks=callbacks, log=log)
            else:
                run = Run(folder)
                if run.status not in COMPLETED:
                    run.resume(splits, callbacks=callbacks, log=log)
        except Diverged as error:
            return "diverged", str(error)
    return cast("EndStatus", run.status), run.summary["reason"]


def find_corruption(folder: Path, recipe: Recipe) -> str | None:
    """What is wrong with the run in a trial's folder, in one line; None if nothing is.

    A missing folder, or one that a kill left incomplete, is not corrupt: training completes it.
    """
    if not (folder / SUMMARY_FILE).exists():
        return None
    try:
        run = Run(folder)
        key = run.recipe.key
        require(key == recipe.key, f"{folder / RECIPE_FILE} was edited: its key is {key}, not {recipe.key}")
        run.require_same_recipe()
        if note := run.code_note:
            return note.replace(
                "the run's own copy in code/ is used", "it was trained with another version of the code"
            )
        if run.status not in COMPLETED and len(run.history) > 0 and (folder / STATE_FILE).exists():
            read_state(folder)  # what it would go on from
        # An unfinished run may be one line of metrics ahead of its state, and resuming it corrects that.
        if run.status in COMPLETED and run.summary["epochs_done"]:
            require((folder / STATE_FILE).exists(), f"there is no {folder / STATE_FILE}")
            require_saved_metrics(run)
            for name in WEIGHTS_FILES:
                run.run_id.require_own(folder / name, read_metadata(folder / name))
    except LabError as error:
        return str(error)
    except (KeyError, TypeError) as error:
        return f"{folder} is damaged: {error} is missing or has the wrong type"
    return None


def require_saved_metrics(run: Run) -> None:
    """Raise LabError if a completed run's metrics are not those of its saved state, where it still has one."""
    path = run.folder / STATE_FILE
    if run.status not in COMPLETED or not run.summary["epochs_done"] or not path.exists():
        return
    state = read_metadata(path)
    run.run_id.require_own(path, state)
    try:
        saved = [epoch_from_record(record) for record in cast("list[dict[str, Json]]", state["history"])]
    except (KeyError, TypeError) as error:
        raise LabError(f"{path} is damaged: {error} is missing or has the wrong type") from error
    require(saved == run.history, f"{run.folder / METRICS_FILE} was edited: it disagrees with the run's saved state")


def estimate_training_cost(recipe: Recipe, splits: DatasetSplits) -> float:
    """Check that a recipe can be trained on these images, and estimate what that costs, in MACs.

    The estimate orders trials by their length. It counts linear and convolutional layers, and a constant per image.
    Raises LabError if the recipe cannot be trained.
    """
    train, _ = train_validation_split(recipe, splits)
    require_full_batch(recipe.training.batch_size, train)
    network = build_network(recipe, train)
    check_network(network, train, recipe.training.batch_size)
    require_storable(network)
    ours = [entry for entry in recipe.data.augment if not is_other_entry(entry)]
    check_first_size(network, [parse_transform(entry) for entry in ours], train.shape)
    set_up_transfer(recipe.model, network, train.classes, train.shape[0])
    batch_macs: list[float] = []

    def add_macs(
        layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, torch.Tensor], output: torch.Tensor
    ) -> None:
        # A transposed convolution may be called with a size too.
        taken: torch.Tensor = inputs[0] if inputs else named["input"]
        if cost := closed_form(layer, taken.shape, output.shape):
            batch_macs.append(cost.macs / len(output))

    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            layer.register_forward_hook(add_macs, with_kwargs=True)
    check_forward(network, train)
    return float(recipe.training.epochs * len(train) * (IMAGE_COST + sum(batch_macs)))
