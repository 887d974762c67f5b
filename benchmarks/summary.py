"""How long does a summary take, and how much memory, against the tools that count too?

    python benchmarks/summary.py [--rounds 5]

runs every contender in turn, each in a fresh process, in rounds, on ResNet-50 at 224 x 224: ours with every receptive field,
torchinfo and fvcore as in their documentation, torchinfo and torch's own counter on the meta device too. Prints the
table in README.md beside it, and then what a network of a billion parameters takes, including building it.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

from measure import in_rounds, peak_mb, processor, ratios, run, table, verdict

GOALS = {"torchinfo": 1.0, "fvcore": 1.5}  # so many times faster
BILLION_SECONDS, ADDED_MEGABYTES = 5.0, 50.0
REPEATS = 5  # in a process; the first one, which imports what it needs, apart


def contender(name: str) -> Callable[[], object]:
    """What one contender does with ResNet-50, its network made beforehand."""
    import torch
    from torchvision.models import resnet50

    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    on_meta = name.endswith("meta")
    with torch.device("meta" if on_meta else "cpu"):
        net, images = resnet50().eval(), torch.zeros(1, 3, 224, 224)
    if name.startswith("convolab"):
        from convolab.analysis.summary import summarize_network

        return lambda: summarize_network(net, (3, 224, 224))
    if name.startswith("torchinfo"):
        from torchinfo import summary

        return lambda: summary(net, input_data=images, verbose=0, device="meta" if on_meta else "cpu")
    if name.startswith("fvcore"):
        from fvcore.nn import FlopCountAnalysis

        return lambda: (
            FlopCountAnalysis(net, images).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
        )
    from torch.utils.flop_counter import FlopCounterMode

    def count() -> int:
        with FlopCounterMode(display=False) as counter:
            net(images)
        return counter.get_total_flops()

    return count


CONTENDERS = ("convolab", "torchinfo", "fvcore", "convolab on meta", "torchinfo on meta", "FlopCounterMode on meta")


def time_one(name: str) -> dict[str, float]:
    """Milliseconds of the fastest call but the first, and what all calls added to the process's peak memory."""
    call = contender(name)
    before = peak_mb()
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return {"milliseconds": 1e3 * min(seconds[1:]), "first": 1e3 * seconds[0], "added_megabytes": peak_mb() - before}


def time_billion() -> dict[str, float]:
    """A vision transformer of a billion parameters, built and summarized."""
    from torch import nn

    from convolab.analysis.summary import summarize_network

    class Tokens(nn.Module):
        """ViT-g/14's width, depth and patches (Zhai et al. 2022, arXiv:2106.04560)."""

        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 1408, 14, 14)
            self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(1408, 16, 6144, batch_first=True) for _ in range(40))
            self.head = nn.Linear(1408, 1000)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(1))

    before, start = peak_mb(), time.perf_counter()
    cost = summarize_network(Tokens, (3, 224, 224))
    return {
        "seconds": time.perf_counter() - start,
        "added_megabytes": peak_mb() - before,
        "parameters": cost.num_parameters,
        "macs": cost.macs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--one", choices=[*CONTENDERS, "billion"], help=argparse.SUPPRESS
    )  # what the processes are called with
    args = parser.parse_args()
    if args.one:
        print(json.dumps(time_billion() if args.one == "billion" else time_one(args.one)))
        return
    script = [sys.executable, str(Path(__file__))]
    results = in_rounds({name: [*script, "--one", name] for name in CONTENDERS}, args.rounds)
    print(f"{processor()}; {args.rounds} rounds, each the fastest of {REPEATS} calls in a fresh process\n")
    faster = {name: 1 / ratio for name, ratio in ratios(results, "convolab", "milliseconds").items()}
    rows = []
    for name, lines in results.items():
        times = [line["milliseconds"] for line in lines]
        elsewhere = [line["elsewhere"] for line in lines if line["elsewhere"] is not None]
        rows.append(
            {
                "contender": name,
                "milliseconds": f"{median(times):.0f}",
                "range": f"{min(times):.0f} to {max(times):.0f}",
                "convolab is so many times faster": f"{faster[name]:.2f}",
                "memory added, MB": f"{median(line['added_megabytes'] for line in lines):.0f}",
                "machine busy elsewhere": f"{max(elsewhere):.0%}" if elsewhere else "unknown",
            }
        )
    print(table(rows))
    print()
    for name, goal in GOALS.items():
        print(f"- {faster[name]:.2f} x {name} (goal {goal:g} x: {verdict(faster[name] >= goal)})")
    added = max(line["added_megabytes"] for line in results["convolab"])
    print(f"- memory added: {added:.0f} MB (goal at most {ADDED_MEGABYTES:g}: {verdict(added <= ADDED_MEGABYTES)})")
    lines = [run("billion", [*script, "--one", "billion"]) for _ in range(args.rounds)]
    seconds, added = median(line["seconds"] for line in lines), max(line["added_megabytes"] for line in lines)
    print(
        f"- a vision transformer of {lines[0]['parameters']:,} parameters, built and summarized: {seconds:.2f} s (goal at most {BILLION_SECONDS:g}: {verdict(seconds <= BILLION_SECONDS)}), {added:.0f} MB added, where its weights would take {4 * lines[0]['parameters'] / 1e6:,.0f}"
    )


if __name__ == "__main__":
    main()
