"""How fast do we train, against the same network and recipe in other libraries, and against the processor's own peak?

    python benchmarks/training.py --data-dir DIR [--rounds 3] [--steps 100]

runs every contender in turn, each in a fresh process, in rounds, and prints a table a network, as in README.md beside it.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median

from measure import compare, in_rounds, matrix_peak, processor, table, verdict

OURS = {"convolab": "fp32", "convolab bf16": "bf16_forced"}
PEERS = ("tutorial", "tutorial_2_workers", "lightning", "keras", "skorch", "fastai")
# Of ours in fp32: times the best peer, and the share of the fp32 matrix peak.
GOALS = {"simple_convnet": (4.5, 0.60), "shallow_net": (12.0, None), "resnet_small": (2.0, 0.75)}


def ours(data_dir: Path, network: str, steps: int, precision: str) -> dict[str, object]:
    """Our own loop as `convolab train` runs it, timed batch by batch as the peers are; and the FLOPs it did."""
    from convolab.cli.options import prepare_torch

    prepare_torch("cpu", None)
    import torch
    from peers import NETWORKS, Stopwatch
    from torch.utils.flop_counter import FlopCounterMode

    from convolab.data.catalog import load
    from convolab.training.callbacks import Callbacks
    from convolab.training.recipe import Recipe
    from convolab.training.setup import build_trainer

    recipe = Recipe.from_dict(
        {"data": {"name": "cifar10"}, "model": {"name": network}, "training": {"precision": precision}}
    )
    fit = build_trainer(recipe, load("cifar10", data_dir), "cpu")
    watch = Stopwatch(steps)

    class Clock(Callbacks):
        def on_step(self, trainer: object) -> None:
            watch.batch_ends()

        def should_stop(self) -> bool:
            return watch.done

    theirs = sum(p.numel() for p in NETWORKS[network]().parameters())
    assert sum(p.numel() for p in fit.net.parameters()) == theirs, "the contenders train different networks"
    for _ in fit.iter_epochs(Clock()):
        pass
    with FlopCounterMode(display=False) as counter:
        fit.net(torch.zeros(1, 3, 32, 32)).sum().backward()
    return {
        "images_per_second": watch.images_per_second,
        "flops": counter.get_total_flops(),
        "peak": matrix_peak(torch.float32, torch.get_num_threads()),
        "bf16 peak": matrix_peak(torch.bfloat16, torch.get_num_threads()) if precision == "bf16_forced" else None,
    }


def judge(value: float, goal: float, goal_text: str) -> str:
    return f" (goal {goal_text}: {verdict(value >= goal)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="batches timed in each process")
    parser.add_argument("--network", choices=GOALS, help="this one only")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS, help="these only; default: all")
    parser.add_argument(
        "--ours", choices=OURS.values(), help=argparse.SUPPRESS
    )  # what the processes of our side are called with
    given = parser.parse_args()
    if given.ours:
        print(json.dumps(ours(given.data_dir, given.network, given.steps, given.ours)))
        return
    here = Path(__file__).parent
    print(f"{processor()}; {given.rounds} rounds of {given.steps} batches of 128\n")
    for network in [given.network] if given.network else GOALS:
        common = ["--data-dir", str(given.data_dir), "--network", network, "--steps", str(given.steps)]
        with_bf16 = "bf16" in processor()  # where it is emulated, it takes minutes
        contenders = {
            name: [sys.executable, str(here / "training.py"), *common, "--ours", precision]
            for name, precision in OURS.items()
            if precision == "fp32" or with_bf16
        }
        contenders |= {name: [sys.executable, str(here / "peers.py"), name, *common] for name in given.peers}
        results = in_rounds(contenders, given.rounds)
        print(f"### {network}\n\n{table(compare(results, 'convolab'))}\n")
        for name in filter(results.get, OURS):
            # The best peer is chosen again in each round, so the ratio is never flattered by a peer's bad round.
            best = [max(results[peer][i]["images_per_second"] for peer in given.peers) for i in range(given.rounds)]
            ratio = median(line["images_per_second"] / peer for line, peer in zip(results[name], best, strict=True))
            share = median(line["images_per_second"] * line["flops"] / line["peak"] / 1e9 for line in results[name])
            of_ratio, of_share = GOALS[network] if name == "convolab" else (None, None)
            of_share_text = "" if of_share is None else judge(share, of_share, f"{of_share:.0%}")
            peaks = f"{median(line['peak'] for line in results[name]):.0f} GFLOP/s"
            if results[name][0]["bf16 peak"]:
                peaks += f" (bf16's: {median(line['bf16 peak'] for line in results[name]):.0f})"
            print(
                f"- {name}: {ratio:.2f} x the best peer{'' if of_ratio is None else judge(ratio, of_ratio, f'{of_ratio:g} x')}; "
                f"{share:.0%} of the fp32 matrix peak{of_share_text}, which was {peaks}"
            )
        print(flush=True)


if __name__ == "__main__":
    main()
