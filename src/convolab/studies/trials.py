"""One trial in the present process: whatever is in its folder, a finished run comes of it, with the same bits."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from convolab.core.errors import LabError, require
from convolab.data.splits import DatasetSplits
from convolab.training.checkpoint import STATE_FILE, read_metadata
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.setup import build_network, check_forward, train_validation_split
from convolab.training.trainer import Diverged, EpochMetrics, Trainer, require_full_batch

EndStatus = Literal["finished", "diverged", "stopped"]


def train_trial(
    recipe: Recipe,
    splits: DatasetSplits,
    folder: Path,
    *,
    on_step: Callable[[Trainer], None] | None = None,
    on_epoch: Callable[[EpochMetrics], None] = lambda epoch: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[EndStatus, str | None]:
    """Train a recipe in a folder, or go on with the run that is there, on one thread; how it ended, and why it diverged.

    One thread, because that many trials as there are cores are faster side by side than one after another on all cores, and
    because a run's bits depend on the number. Raises LabError if the recipe cannot be trained or its place not be written.
    """
    torch.set_num_threads(1)
    callbacks: dict[str, Any] = {"on_step": on_step, "on_epoch": on_epoch, "stop": stop}
    try:
        if not (folder / "summary.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # a run that was killed before its first line
            run = Run.start(recipe, splits, folder, **callbacks)
        elif Run(folder).status not in ("finished", "diverged"):
            run = Run(folder).resume(splits, **callbacks)
        else:
            run = Run(folder)
    except Diverged as error:
        return "diverged", str(error)
    return run.status, run.summary["reason"]


def find_corruption(folder: Path, recipe: Recipe) -> str | None:
    """What is wrong with the run in a trial's folder, in one line; None if nothing is.

    A folder that is not there, or that a kill left half-made, is not damaged: training makes it whole.
    """
    if not (folder / "summary.json").exists():
        return None
    try:
        run = Run(folder)
        require(
            run.recipe.key == recipe.key,
            f"{folder / 'recipe.toml'} was changed by hand: its key is {run.recipe.key}, not {recipe.key}",
        )
        run.require_same_recipe()
        # A run under way may be one line of metrics ahead of its state, and resuming it sets that right.
        if run.status in ("finished", "diverged") and run.summary["epochs_done"]:
            state = read_metadata(folder / STATE_FILE)
            require(
                [EpochMetrics(**line) for line in state["history"]] == run.history,
                f"{folder / 'metrics.jsonl'} was changed by hand: the run's state says otherwise",
            )
            for name in ("best", "last"):
                metadata = read_metadata(folder / f"{name}.safetensors")
                require(
                    metadata.get("recipe_key") == recipe.key, f"{folder / name}.safetensors holds another run's weights"
                )
    except LabError as error:
        return str(error)
    except (KeyError, TypeError) as error:
        return f"{folder} is damaged: {error} is missing or of the wrong kind"
    return None


def estimate_training_cost(recipe: Recipe, splits: DatasetSplits) -> float:
    """Make sure that a recipe can be trained on these pictures, before any work; what its training costs, in MACs.

    The cost counts layers with weights, and a share for every picture's own handling: it serves to begin with the longest.
    Raises LabError if the recipe cannot be trained.
    """
    train, _ = train_validation_split(recipe, splits)
    require_full_batch(recipe.training.batch_size, train)
    network, macs = build_network(recipe, train), [200_000]  # taking a picture and augmenting it
    for layer in network.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim > 1:
            layer.register_forward_hook(
                lambda layer, _, output: macs.append(output[0].numel() * layer.weight[0].numel())
            )
    check_forward(network, train)
    return float(recipe.training.epochs * len(train) * sum(macs))
