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

from convolab.core.errors import LabError, need
from convolab.core.files import writing_to
from convolab.core.rng import generator
from convolab.data.catalog import Pictures
from convolab.data.dataset import ImageSet, Part, mean_and_std, stratified_split
from convolab.models import zoo
from convolab.models.classifier import PixelNet
from convolab.training.recipe import Recipe
from convolab.training.trainer import Fit, steps_to_overfit


def prepare(recipe: Recipe, pictures: Pictures, device: str, precision: str | None = None) -> Fit:
    """A recipe's training before its first step. Raises LabError if it cannot be trained on these pictures."""
    keep_freed_memory()
    train, validation = training_pictures(recipe, pictures)
    mean, std = mean_and_std(train)
    return Fit(
        PixelNet(network_for(recipe, train), mean=mean, std=std, size=train.shape[1:], classes=train.classes),
        train,
        validation,
        optimizer=recipe.optimizer,
        schedule=recipe.schedule,
        training=recipe.training.model_copy(update={"precision": precision} if precision else {}),
        augmentations=recipe.data.augment,
        metrics=recipe.metrics,
        device=device,
    )


def keep_freed_memory() -> None:
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


def overfit_one_batch(recipe: Recipe, pictures: Pictures) -> tuple[int | None, list[float]]:
    """The steps a recipe's network and optimiser need to learn one batch by heart; see `steps_to_overfit`."""
    fit = prepare(recipe, pictures, "cpu")
    return steps_to_overfit(
        fit.net, fit.train, optimizer=recipe.optimizer, batch_size=recipe.training.batch_size, seed=recipe.training.seed
    )


def training_pictures(recipe: Recipe, pictures: Pictures) -> tuple[ImageSet | Part, Part | None]:
    """What a recipe trains and validates on: stratified shares of the training pictures, fixed by its seed, never the test."""
    chosen, limit, seed = pictures.train, recipe.data.limit, recipe.training.seed
    if limit is not None:
        need(limit <= len(chosen), f"data.limit is {limit}, but {chosen.name} has {len(chosen)} training pictures")
        if limit < len(chosen):
            chosen = in_proportion(chosen, limit, seed)
    if recipe.data.validation == 0:
        return chosen, None
    return stratified_split(chosen, recipe.data.validation, seed)


def in_proportion(pictures: ImageSet | Part, count: int, seed: int) -> Part:
    """Exactly `count` of the pictures, each class within one of its share: whoever loses most by rounding down gets one more."""
    labels = pictures.labels
    members = [(labels == label).nonzero().squeeze(1) for label in range(len(pictures.classes))]
    wanted = [divmod(len(rows) * count, len(labels)) for rows in members]
    neediest = sorted(range(len(members)), key=lambda label: -wanted[label][1])[
        : count - sum(whole for whole, _ in wanted)
    ]
    chosen = [
        rows[
            torch.randperm(len(rows), generator=generator(seed, "limit", label))[
                : wanted[label][0] + (label in neediest)
            ]
        ]
        for label, rows in enumerate(members)
    ]
    return pictures.part(torch.cat(chosen).sort().values)


def network_for(recipe: Recipe, train: ImageSet | Part) -> torch.nn.Module:
    """The recipe's network with its first weights. Raises LabError if it does not take the pictures."""
    network = zoo.build(
        recipe.model.name, train.shape, len(train.classes), seed=recipe.training.seed, **recipe.model.options
    )
    probe(network, train)
    return network


def probe(network: torch.nn.Module, train: ImageSet | Part) -> None:
    """Let the network see two pictures, so that one that does not fit is found before work starts."""
    mode = network.training
    with torch.inference_mode():
        try:
            logits: Tensor = network.eval()(train.take(torch.arange(min(2, len(train))))[0] / 255)
        except RuntimeError as error:
            raise LabError(
                f"the network cannot take pictures of {'x'.join(map(str, train.shape))}: {str(error).splitlines()[0]}"
            ) from error
    network.train(mode)
    wanted = (min(2, len(train)), len(train.classes))
    need(
        tuple(logits.shape) == wanted,
        f"the network gives {list(logits.shape)} for {wanted[0]} pictures of {wanted[1]} classes: it must give one logit a class",
    )


def refuse_used(out: Path | str | None) -> None:
    """Raise LabError if the place for a new run is taken or cannot be written, before any work is done."""
    if out is None:
        return
    folder = Path(out)
    need(not (folder / "summary.json").exists(), f"{folder} holds a run already: resume it, or choose another --out")
    need(not folder.exists() or folder.is_dir(), f"{folder} is a file: choose a folder for --out")
    need(
        not folder.exists() or not any(folder.iterdir()),
        f"{folder} is not empty: choose a new or empty folder for --out",
    )
    above = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    need(
        above.is_dir() and os.access(above, os.W_OK),
        f"cannot write {folder}: {above} is not a folder you may write to; choose another --out",
    )


def new_folder(recipe: Recipe, out: Path | str | None) -> Path:
    """Make the run's folder; without `out` under runs/, named by network, data and time."""
    if out is not None:
        with writing_to(Path(out)):
            Path(out).mkdir(parents=True, exist_ok=True)
        return Path(out)
    data = Path(recipe.data.name.removeprefix("folder:")).name
    name = f"{recipe.model.name.rpartition(':')[2]}-{data}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1000):
        folder = Path("runs") / (f"{name}-{number}" if number else name)
        try:
            with writing_to(folder):
                folder.mkdir(parents=True)
            return folder
        except LabError:
            if not folder.exists():
                raise
    raise LabError(f"runs/ holds a thousand runs called {name}: give --out")


def machine() -> dict[str, Any]:
    """What a run's figures depend on besides its recipe."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
