"""Where the time of the fast recipe goes: a step at each of its image sizes, taken apart.

    python benchmarks/fast_steps.py [--steps 4]

Steps of recipes/cifar10_94.toml on images at random, as large as in each stage of its training. The median step is timed without
the profiler, which slows it; what its parts take of it is measured with it. Prints what each size takes of a whole training, too.
"""

import argparse
import time
from collections.abc import Mapping
from statistics import median

import torch
from clock import Clock
from fast import RECIPE
from limits import recorded
from measure import processor, table
from torch.profiler import ProfilerActivity, profile

from convolab.core.environment import tune_malloc
from convolab.data.dataset import ImageDataset
from convolab.data.splits import DatasetSplits
from convolab.training import trainer
from convolab.training.augmentation import parse_transform
from convolab.training.recipe import Recipe
from convolab.training.setup import build_trainer
from convolab.training.transforms import Progressive

SIDE, TRAINING_IMAGES = 32, 50_000
WARMUP = 2  # steps before any is timed
PARTS = {
    "convolutions by minimal filtering": ("WinogradConv2d", "WinogradConv2dBackward"),
    "other convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward"),
    "pooling": ("aten::max_pool2d_with_indices", "aten::max_pool2d_with_indices_backward"),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "GELU": ("aten::gelu", "aten::gelu_backward"),
    "taking and augmenting images": ("images",),
    "optimizer": ("optimizer",),
}


def time_step(recipe: Recipe, fraction: float, steps: int) -> tuple[float, Mapping[str, float]]:
    """The seconds of a step on images of a fraction of their sides, and the fraction of it that each part takes."""
    pixels = torch.randint(256, (4 * recipe.training.batch_size, 3, SIDE, SIDE), dtype=torch.uint8)
    images = ImageDataset(pixels, torch.arange(len(pixels)) % 10, tuple(map(str, range(10))), "at random")
    others = [entry for entry in recipe.data.augment if not entry.startswith("progressive")]
    of_size = [f"progressive:{fraction}:0.99"] if fraction < 1 else []  # the first of many epochs have this size
    recipe = recipe.with_overrides({"data.augment": [*others, *of_size], "training.epochs": 1000})
    fit = build_trainer(recipe, DatasetSplits(images, None), "cpu")

    def train(count: int) -> list[float]:
        clock = Clock(count)
        for _ in fit.iter_epochs(clock):
            pass
        return [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]

    seconds = median(train(WARMUP + steps)[WARMUP - 1 :])
    augment, gather, step = trainer.apply_transforms, type(fit.train_set).gather, fit.optimizer_state.step
    try:
        trainer.apply_transforms = recorded(augment, "images")
        type(fit.train_set).gather = recorded(gather, "images")
        fit.optimizer_state.step = recorded(step, "optimizer")
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            start = time.perf_counter()
            train(steps)
            profiled_microseconds = 1e6 * (time.perf_counter() - start)
    finally:
        trainer.apply_transforms, type(fit.train_set).gather, fit.optimizer_state.step = augment, gather, step
    events = profiled.events()
    shares = {
        part: sum(event.cpu_time_total for event in events if event.name in names) / profiled_microseconds
        for part, names in PARTS.items()
    }
    return seconds, {**shares, "all else": 1 - sum(shares.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="timed at each size, with and without the profiler")
    given = parser.parse_args()
    tune_malloc()  # as the command line does
    recipe = Recipe.read(RECIPE)
    (growing,) = (one for one in map(parse_transform, recipe.data.augment) if isinstance(one, Progressive))
    sizes = [growing.size(SIDE, SIDE, percent / 100)[0] for percent in range(100)]
    taken = {side: time_step(recipe, side / SIDE, given.steps) for side in dict.fromkeys(sizes)}
    rows = [
        {"part of a step": part, **{f"{side} px": f"{shares[part]:.1%}" for side, (_, shares) in taken.items()}}
        for part in taken[SIDE][1]
    ]
    print(f"{processor()}; batches of {recipe.training.batch_size}; {given.steps} steps\n\n{table(rows)}\n")
    steps = recipe.training.epochs * TRAINING_IMAGES // recipe.training.batch_size
    for side, (seconds, _) in taken.items():
        share = sizes.count(side) / len(sizes)
        print(
            f"- {side} px: {share:.0%} of the {steps:,} steps, of {1e3 * seconds:.0f} ms each: {share * steps * seconds:,.0f} s"
        )


if __name__ == "__main__":
    main()
