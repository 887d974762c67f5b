"""Overfit a single batch: the check that a network can learn at all, before hours are spent on training it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from convolab.core.rng import isolated_rng, make_generator, seed_default_generator
from convolab.data.dataset import ImageDataset, Subset
from convolab.data.splits import DatasetSplits
from convolab.training.evaluation import preferred_memory_format
from convolab.training.optim import SGD, Optimizer, without_weight_decay
from convolab.training.recipe import Recipe
from convolab.training.setup import build_trainer
from convolab.training.trainer import require_full_batch
from convolab.training.transforms import to_float01


def check_overfit(recipe: Recipe, splits: DatasetSplits) -> tuple[int | None, list[float]]:
    """The steps that a recipe's network and optimizer need to overfit a single batch; see `overfit_single_batch`."""
    trainer = build_trainer(recipe, splits, "cpu")
    return overfit_single_batch(
        trainer.net,
        trainer.train_set,
        optimizer=recipe.optimizer,
        batch_size=recipe.training.batch_size,
        seed=recipe.training.seed,
        frozen=trainer.frozen,
    )


def overfit_single_batch(
    net: nn.Module,
    train: ImageDataset | Subset,
    *,
    optimizer: Optimizer | None = None,
    batch_size: int = 128,
    seed: int = 0,
    max_steps: int = 2000,
    frozen: Sequence[nn.Module] = (),
) -> tuple[int | None, list[float]]:
    """Train on one batch, in place, until every image of it is classified correctly.

    Layers of the network that are `frozen` stay in evaluation mode. No augmentation, no weight decay, a constant learning rate.

    Returns:
        The steps it took (None: not within `max_steps`), and the accuracy before each step, in [0, 1]. The accuracy is
        that of the training pass itself, whose batch norm uses that batch's statistics.

    Raises LabError if the batch is larger than the set.
    """
    require_full_batch(batch_size, train)
    batch_indices = torch.randperm(len(train), generator=make_generator(seed, "order", 0))[:batch_size]
    images, labels = train.gather(batch_indices)
    memory_format = preferred_memory_format(net)
    pixels = to_float01(images).contiguous(memory_format=memory_format)
    net = net.to(memory_format=memory_format).train()
    for layer in frozen:
        layer.eval()
    optimizer_state = without_weight_decay(optimizer or SGD()).build(net.parameters())
    accuracies: list[float] = []
    with isolated_rng():
        for step in range(max_steps + 1):
            seed_default_generator(pixels.device, seed, "layers", 0, step)
            logits = net(pixels)  # [N, classes]
            accuracies.append(float((logits.argmax(1) == labels).float().mean()))
            if accuracies[-1] == 1:
                return step, accuracies
            optimizer_state.zero_grad()
            F.cross_entropy(logits, labels).backward()
            optimizer_state.step()
    return None, accuracies
