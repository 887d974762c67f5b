"""Where does the time of a training step go, and which ratio to the tutorial's loop is possible at all?

    python benchmarks/limits.py --data-dir DIR [--network simple_convnet] [--steps 60]

takes our own step apart with torch's profiler, in fp32 and bf16, and times the two halves of the tutorial's loop, images
and network, each alone; medians over steps. Prints the parts of a step in ms, and the ratios that would remain if all but some of ours were free.
Then what an image costs in a validation pass, as a fraction of what it costs in training.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from statistics import median

import torch
from clock import Clock
from measure import matrix_peak, processor, table, verdict
from peers import BATCH, LR, MOMENTUM, NETWORKS, WEIGHT_DECAY, training_loader
from torch.profiler import ProfilerActivity, profile, record_function

from convolab.core.environment import tune_malloc
from convolab.data.catalog import load
from convolab.training import trainer
from convolab.training.evaluation import evaluate
from convolab.training.recipe import Recipe
from convolab.training.setup import build_trainer

WARMUP = 10  # steps before any is timed
VALIDATION_GOAL = 0.4  # of an image's cost in training
VALIDATION_IMAGES, VALIDATION_PASSES = 5120, 5
PARTS = {
    "convolutions and matrix products": (
        "aten::mkldnn_convolution",
        "aten::convolution_backward",
        "aten::addmm",
        "aten::mm",
    ),
    "pooling": (
        "aten::max_pool2d_with_indices",
        "aten::max_pool2d_with_indices_backward",
        "aten::avg_pool2d",
        "aten::avg_pool2d_backward",
    ),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "ReLU": ("aten::relu", "aten::relu_", "aten::threshold_backward"),
    "taking and augmenting images": ("images",),
    "optimizer": ("aten::_fused_sgd_",),
}


def our_step(data_dir: Path, network: str, precision: str, steps: int) -> dict[str, float]:
    """A part of our step -> ms; `whole` is measured without the profiler, and what no part covers is what remains of it."""
    recipe = Recipe.from_dict(
        {"data": {"name": "cifar10"}, "model": {"name": network}, "training": {"precision": precision}}
    )
    tune_malloc()  # as the command line does
    fit = build_trainer(recipe, load("cifar10", data_dir), "cpu")
    clock = Clock()

    def train(count: int) -> None:
        clock.last = len(clock.ends) + count
        for _ in fit.iter_epochs(clock):
            pass

    augment, take = trainer.apply_transforms, type(fit.train_set).gather
    train(WARMUP + steps)
    whole = median(after - before for before, after in pairwise(clock.ends[WARMUP - 1 :]))
    try:
        trainer.apply_transforms, type(fit.train_set).gather = recorded(augment, "images"), recorded(take, "images")
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            train(steps)
    finally:
        trainer.apply_transforms, type(fit.train_set).gather = augment, take
    events = sorted(profiled.events(), key=lambda event: event.time_range.start)
    parts = {}
    for part, names in PARTS.items():
        spent = [
            event.cpu_time_total / 1e3 for event in events if event.name in names
        ]  # with all that the operator calls
        parts[part] = torch.tensor(spent).view(steps, -1).sum(1).median().item()
    return {"whole": 1e3 * whole, **parts, "all else": 1e3 * whole - sum(parts.values())}


def our_validation(data_dir: Path, network: str) -> float:
    """A validation pass of our network in ms, for as many images as a step has."""
    recipe = Recipe.from_dict({"data": {"name": "cifar10"}, "model": {"name": network}})
    splits = load("cifar10", data_dir)
    fit, images = build_trainer(recipe, splits, "cpu"), splits.train.subset(torch.arange(VALIDATION_IMAGES))
    passes = list(islice(times(lambda: evaluate(fit.net, images)), 1 + VALIDATION_PASSES))[1:]
    return median(passes) * BATCH / VALIDATION_IMAGES


def recorded(function: Callable, part: str) -> Callable:
    """The function, its time written down as that of a part."""

    def call(*given: object) -> object:
        with record_function(part):
            return function(*given)

    return call


def their_step(data_dir: Path, network: str, steps: int) -> dict[str, float]:
    """The halves of the tutorial's loop, each alone, in ms: a batch from its loader, and a step of its network on one batch."""
    batches = iter(training_loader(data_dir, workers=0))
    inputs, labels = next(batches)
    net, criterion = NETWORKS[network](), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def step() -> None:
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        loss.item()

    return {
        "images": median(islice(times(lambda: next(batches)), steps)),
        "network": median(islice(times(step), WARMUP, WARMUP + steps)),
    }


def times(act: Callable[[], object]) -> Iterator[float]:
    """How long `act` takes, again and again, in ms."""
    while True:
        start = time.perf_counter()
        act()
        yield 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--network", choices=NETWORKS, default="simple_convnet")
    parser.add_argument("--steps", type=int, default=60, help="steps timed of each")
    given = parser.parse_args()
    precisions = {"fp32": ("fp32", torch.float32)}
    if "bf16" in processor():  # where it is emulated, it takes minutes
        precisions["bf16"] = ("bf16_forced", torch.bfloat16)
    ours = {
        name: our_step(given.data_dir, given.network, precision, given.steps)
        for name, (precision, _) in precisions.items()
    }
    validation = our_validation(given.data_dir, given.network)
    theirs = their_step(given.data_dir, given.network, given.steps)
    peaks = {name: matrix_peak(dtype, torch.get_num_threads()) for name, (_, dtype) in precisions.items()}
    print(f"{processor()}; {given.network}, batch {BATCH}; {given.steps} steps\n")
    print(table([{"part of our step, ms": part, **{p: f"{ours[p][part]:.2f}" for p in ours}} for part in ours["fp32"]]))
    total = sum(theirs.values())
    print(
        f"\n- the tutorial's loop: {theirs['images']:.1f} ms for the images and {theirs['network']:.1f} ms for the network"
    )
    for precision, step in ours.items():
        free = step["whole"] - step["taking and augmenting images"]
        print(
            f"- {precision}: {total / step['whole']:.2f} x as fast as that; with images at no cost {total / free:.2f} x; "
            f"with nothing left but convolutions and matrix products {total / step['convolutions and matrix products']:.2f} x"
        )
    share = validation / ours["fp32"]["whole"]
    met = verdict(share <= VALIDATION_GOAL)
    print(
        f"- an image costs {share:.2f} x as much in a validation pass as in training (goal {VALIDATION_GOAL} x: {met})"
    )
    print(f"- matrix peak, GFLOP/s: {', '.join(f'{name} {peak:.0f}' for name, peak in peaks.items())}")


if __name__ == "__main__":
    main()
