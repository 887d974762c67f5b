"""What is checked and made before a run's first step: its pictures, its network, its place."""

import ctypes
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.files import translate_write_errors
from convolab.core.rng import make_generator
from convolab.data.catalog import DatasetSplits
from convolab.data.dataset import ImageDataset, Subset, channel_mean_std, stratified_split
from convolab.models import zoo
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import eval_mode
from convolab.training.recipe import Recipe
from convolab.training.trainer import Trainer, overfit_single_batch


def build_trainer(recipe: Recipe, splits: DatasetSplits, device: str, precision: str | None = None) -> Trainer:
    """A recipe's training before its first step. Raises LabError if it cannot be trained on these pictures."""
    tune_malloc()
    train, validation = train_validation_split(recipe, splits)
    mean, std = channel_mean_std(train)
    return Trainer(
        ImageClassifier(
            build_network(recipe, train), mean=mean, std=std, input_size=train.shape[1:], classes=train.classes
        ),
        train,
        validation,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        training=recipe.training.model_copy(update={"precision": precision} if precision else {}),
        transforms=recipe.data.augment,
        metrics=recipe.metrics,
        device=device,
    )


def tune_malloc() -> None:
    """Let this process keep the memory that tensors give back, for the tensors of the next step.

    glibc by default maps a large block anew for each tensor and gives back what is free at the end, and the system then
    fills every page with zeros again: a fifth of a step of simple_convnet at batch 512. Other C libraries are left as they are.
    """
    if sys.platform == "linux" and hasattr(c := ctypes.CDLL(None), "mallopt"):
        for option, value in (
            (-4, 0),
            (-1, 2**31 - 1),
        ):  # M_MMAP_MAX: no block of its own; M_TRIM_THRESHOLD: give back past 2 GB
            c.mallopt(option, value)


def check_overfit(recipe: Recipe, splits: DatasetSplits) -> tuple[int | None, list[float]]:
    """The steps a recipe's network and optimiser need to learn one batch by heart; see `steps_to_overfit`."""
    trainer = build_trainer(recipe, splits, "cpu")
    return overfit_single_batch(
        trainer.net,
        trainer.train_set,
        optimizer=recipe.optimizer,
        batch_size=recipe.training.batch_size,
        seed=recipe.training.seed,
    )


def train_validation_split(recipe: Recipe, splits: DatasetSplits) -> tuple[ImageDataset | Subset, Subset | None]:
    """What a recipe trains and validates on: stratified shares of the training pictures, fixed by its seed, never the test."""
    train, limit, seed = splits.train, recipe.data.limit, recipe.training.seed
    if limit is not None:
        require(limit <= len(train), f"data.limit is {limit}, but {train.name} has {len(train)} training pictures")
        if limit < len(train):
            train = stratified_subsample(train, limit, seed)
    if recipe.data.validation == 0:
        return train, None
    return stratified_split(train, recipe.data.validation, seed)


def stratified_subsample(dataset: ImageDataset | Subset, count: int, seed: int) -> Subset:
    """Exactly `count` of the pictures, each class within one of its share: whoever loses most by rounding down gets one more."""
    labels = dataset.labels
    indices_by_class = [(labels == label).nonzero().squeeze(1) for label in range(len(dataset.classes))]
    quotas = [divmod(len(indices) * count, len(labels)) for indices in indices_by_class]
    rounded_up = sorted(range(len(indices_by_class)), key=lambda label: -quotas[label][1])[
        : count - sum(whole for whole, _ in quotas)
    ]
    chosen = [
        rows[
            torch.randperm(len(rows), generator=make_generator(seed, "limit", label))[
                : quotas[label][0] + (label in rounded_up)
            ]
        ]
        for label, rows in enumerate(indices_by_class)
    ]
    return dataset.subset(torch.cat(chosen).sort().values)


def build_network(recipe: Recipe, train: ImageDataset | Subset) -> torch.nn.Module:
    """The recipe's network with its first weights. Raises LabError if it does not take the pictures."""
    network = zoo.build(
        recipe.model.name, train.shape, len(train.classes), seed=recipe.training.seed, **recipe.model.options
    )
    check_forward(network, train)
    return network


def check_forward(network: torch.nn.Module, train: ImageDataset | Subset) -> None:
    """Let the network see two pictures, so that one that does not fit is found before work starts."""
    with torch.inference_mode(), eval_mode(network):
        try:
            logits: Tensor = network(train.gather(torch.arange(min(2, len(train))))[0] / 255)
        except RuntimeError as error:
            raise LabError(
                f"the network cannot take pictures of {'x'.join(map(str, train.shape))}: {str(error).splitlines()[0]}"
            ) from error
    expected = (min(2, len(train)), len(train.classes))
    require(
        tuple(logits.shape) == expected,
        f"the network gives {list(logits.shape)} for {expected[0]} pictures of {expected[1]} classes: it must give one logit a class",
    )


def require_new_folder(out: Path | str | None) -> None:
    """Raise LabError if the place for a new run is taken or cannot be written, before any work is done."""
    if out is None:
        return
    folder = Path(out)
    require(not (folder / "summary.json").exists(), f"{folder} holds a run already: resume it, or choose another --out")
    require(not folder.exists() or folder.is_dir(), f"{folder} is a file: choose a folder for --out")
    require(
        not folder.exists() or not any(folder.iterdir()),
        f"{folder} is not empty: choose a new or empty folder for --out",
    )
    existing_parent = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    require(
        existing_parent.is_dir() and os.access(existing_parent, os.W_OK),
        f"cannot write {folder}: {existing_parent} is not a folder you may write to; choose another --out",
    )


def make_run_folder(recipe: Recipe, out: Path | str | None) -> Path:
    """Make the run's folder; without `out` under runs/, named by network, data and time."""
    if out is not None:
        with translate_write_errors(Path(out)):
            Path(out).mkdir(parents=True, exist_ok=True)
        return Path(out)
    data = Path(recipe.data.name.removeprefix("folder:")).name
    name = f"{recipe.model.name.rpartition(':')[2]}-{data}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1000):
        folder = Path("runs") / (f"{name}-{number}" if number else name)
        try:
            with translate_write_errors(folder):
                folder.mkdir(parents=True)
            return folder
        except LabError:
            if not folder.exists():
                raise
    raise LabError(f"runs/ holds a thousand runs called {name}: give --out")


def hardware_info() -> dict[str, Any]:
    """What a run's figures depend on besides its recipe."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def processor_name() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
