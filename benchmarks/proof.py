"""What does it cost to prove that the shortcuts of a map of many passes change nothing, and what do they save?

    python benchmarks/proof.py [--rounds 5] [--net efficientnet_lite0]

times three ways of computing a map in turn, in one process, and prints the medians over rounds of the ratios within a
round: proven shortcuts, as `explain` computes it; the same shortcuts taken unproven; and the plain network, one image
in a pass. The goal is that the proof takes at most 5 % of the time of a map of 50 passes or more.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from unittest.mock import patch

import torch
from measure import processor, table

from convolab.data.image_io import read_image
from convolab.inspection import passes
from convolab.inspection.explain import methods
from convolab.inspection.explain.deletion_insertion import curves_in_random_order
from convolab.models.bn_folding import fold_batch_norms
from convolab.models.hooks import record_calls
from convolab.models.pretrained import pretrained

GOAL = 0.05  # of the map's time with unproven shortcuts
MIN_PASSES = 50  # of a map that the goal is about

Map = Callable[..., object]  # of a network, pixels and a target
MAPS: dict[str, tuple[int, Map]] = {
    "smoothgrad, 25 samples": (25, methods.smoothgrad),
    "integrated_gradients, 50 steps": (50, methods.integrated_gradients),
    "integrated_gradients, 200 steps": (200, lambda *of: methods.integrated_gradients(*of, steps=200)),
    "occlusion, 28 px square": (256, methods.occlusion),
    "deletion and insertion, 5 random orders": (330, curves_in_random_order),
}


@contextmanager
def unproven_passes(net, x, target) -> Iterator[passes.ManyPasses]:
    """The shortcuts of `many_passes` without their proof."""
    with torch.no_grad(), record_calls(net.network) as recorder:
        logits = net.forward_unchecked(x)
    with passes.ExitStack() as shortcuts:
        shortcuts.enter_context(fold_batch_norms(net.network, recorder))
        yield passes.ManyPasses(net, target, logits, shortcuts, True)


@contextmanager
def plain_passes(net, x, target) -> Iterator[passes.ManyPasses]:
    """The plain network, one image in a pass."""
    with torch.no_grad():
        logits = net.forward_unchecked(x)
    yield passes.ManyPasses(net, target, logits, passes.ExitStack(), False)


WAYS = {"proven": passes.many_passes, "unproven": unproven_passes, "plain": plain_passes}


def seconds_of(way: str, compute: Map, *arguments: object) -> float:
    """The seconds of a map whose passes go one way."""
    with (
        patch("convolab.inspection.explain.methods.many_passes", WAYS[way]),
        patch("convolab.inspection.explain.deletion_insertion.many_passes", WAYS[way]),
    ):
        start = time.perf_counter()
        compute(*arguments)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--net", default="efficientnet_lite0")
    arguments = parser.parse_args()
    net = pretrained(arguments.net)
    pixels, target = net.preprocess(read_image("chelsea")), net.find_class("Egyptian cat")
    print(f"{processor()}, {torch.get_num_threads()} threads; {arguments.net}; {arguments.rounds} rounds\n")
    rows = []
    for name, (count, compute) in MAPS.items():
        rounds = []
        for number in range(arguments.rounds + 1):  # the first warms up
            ways = list(WAYS)[:: -1 if number % 2 else 1]
            rounds.append({way: seconds_of(way, compute, net, pixels, target) for way in ways})
        rounds = rounds[1:]
        cost = median(line["proven"] / line["unproven"] for line in rounds) - 1
        goal = "" if count < MIN_PASSES else f" (goal {GOAL:.0%}: {'met' if cost <= GOAL else 'missed'})"
        rows.append(
            {
                "map": name,
                "passes": count,
                "proven, s": f"{median(line['proven'] for line in rounds):.2f}",
                "unproven, s": f"{median(line['unproven'] for line in rounds):.2f}",
                "the proof costs": f"{cost:+.1%}{goal}",
                "of the plain network's time": f"{median(line['proven'] / line['plain'] for line in rounds):.2f}",
            }
        )
    print(table(rows))


if __name__ == "__main__":
    main()
