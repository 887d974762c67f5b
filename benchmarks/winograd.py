"""What training.winograd brings: steps of a training with it and without, alternating, of images at random.

    python benchmarks/winograd.py [--rounds 5] [--steps 3]

Prints the milliseconds of a step, the ratio, and how far apart the two trainings' weights are after the same number of steps. Then
single convolutions, forward and backward, of images that fill the tiles and of others; in brackets those
that a training leaves to torch.
"""

import argparse
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from clock import Clock
from measure import processor, table

from convolab.core.environment import tune_malloc
from convolab.core.text import pluralize
from convolab.data.dataset import ImageDataset
from convolab.data.splits import DatasetSplits
from convolab.training.recipe import Recipe
from convolab.training.setup import build_trainer
from convolab.training.winograd import WinogradConv2d, suits_winograd

RECIPES: dict[str, Mapping[str, Any]] = {
    "whitened_convnet": {"model": {"name": "whitened_convnet"}, "training": {"batch_size": 500}},
    "resnet_small of 64, 128 and 256 channels": {
        "model": {"name": "resnet_small", "channels": [64, 128, 256]},
        "training": {"batch_size": 128},
    },
}
WARMUP = 2  # steps before any is timed
CHANNELS, SIDES, NUM_IMAGES = (64, 128, 256), (3, 4, 5, 6, 7, 8, 13, 16), 200


class TimedTraining:
    """A training that goes on for some steps at a time."""

    def __init__(self, recipe: Mapping[str, Any], winograd: bool) -> None:
        training = {**recipe["training"], "winograd": winograd, "epochs": 1000}
        pixels = torch.randint(256, (2000, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        images = ImageDataset(pixels, torch.arange(2000) % 10, tuple(map(str, range(10))), "at random")
        values = {**recipe, "training": training, "data": {"validation": 0, "augment": []}}
        self.trainer = build_trainer(Recipe.from_dict(values), DatasetSplits(images, None), "cpu")
        self.clock = Clock()

    def seconds(self, steps: int) -> list[float]:
        """Of each of so many more steps."""
        starts = [time.perf_counter()]
        first = len(self.clock.ends)
        self.clock.last = first + steps
        for _ in self.trainer.iter_epochs(self.clock):
            pass
        ends = self.clock.ends[first:]
        return [end - start for start, end in zip([*starts, *ends[:-1]], ends, strict=True)]

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.trainer.net.parameters()])


def time_convolution(channels: int, side: int, rounds: int) -> str:
    """How many times as fast a convolution is by minimal filtering; in brackets where a training leaves it to torch."""
    images = (
        torch.randn(NUM_IMAGES, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    )
    weight = torch.randn(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(images)
    ways = {
        "direct": lambda: F.conv2d(images, weight, padding=1),
        "filtered": lambda: WinogradConv2d.apply(images, weight, 1),
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(WARMUP + rounds):
        for way, convolve in ways.items():
            images.grad = weight.grad = None
            start = time.perf_counter()
            convolve().backward(gradient)
            if number >= WARMUP:
                taken[way].append(time.perf_counter() - start)
    ratio = f"{median(taken['direct']) / median(taken['filtered']):.2f} x"
    return ratio if suits_winograd(images, weight, 1) else f"({ratio})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of each side in a round")
    given = parser.parse_args()
    tune_malloc()  # as the command line does
    rows = []
    for name, recipe in RECIPES.items():
        sides = {winograd: TimedTraining(recipe, winograd) for winograd in (False, True)}
        taken: dict[bool, list[float]] = {False: [], True: []}
        for side in sides.values():
            side.seconds(WARMUP)
        for _ in range(given.rounds):
            for winograd, side in sides.items():
                taken[winograd].append(median(side.seconds(given.steps)))
        direct, winograd = (sides[side].weights() for side in (False, True))
        ratios = [before / after for before, after in zip(taken[False], taken[True], strict=True)]
        rows.append({
            "network": name,
            "without, ms": f"{1e3 * median(taken[False]):.0f}",
            "with it, ms": f"{1e3 * median(taken[True]):.0f}",
            "as fast": f"{median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})",
            "difference of the weights": f"{float((direct - winograd).norm() / direct.norm()):.1e}",
        })  # fmt: skip
    print(f"{processor()}; {pluralize(given.rounds, 'round')} of {pluralize(given.steps, 'step')}\n\n{table(rows)}\n")
    print(
        table([
            {"channels": f"{channels}", **{f"{side} x {side}": time_convolution(channels, side, given.rounds) for side in SIDES}}
            for channels in CHANNELS
        ])
    )  # fmt: skip


if __name__ == "__main__":
    main()
