"""How fast are the lenses, against the same maps of other libraries on the same network and picture?

    python benchmarks/lenses.py [--rounds 5] [--part integrated,smoothgrad,command]

runs every contender in turn, each in a fresh process, in rounds, and prints a table a question, as in README.md beside it.
captum "at its best" is the fastest of the chunks it was given, chosen anew in every process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from measure import in_rounds, processor, table

CHUNKS = (1, 2, 5, 10, 25)
STEPS, SAMPLES = 50, 25
GOALS = {"captum": 4.0, "captum at its best": 1.5}
COMMAND_GOAL = 4.0  # seconds from the command to the picture


def network_and_picture() -> tuple[Any, Any, int]:
    """EfficientNet-Lite 0 as `pretrained` gives it, and the cat."""
    from convolab.images.photo import open_photo
    from convolab.nets.pretrained import pretrained

    net = pretrained("efficientnet_lite0")
    return net, net.fit(open_photo("chelsea")), net.find_class("Egyptian cat")


def integrated(who: str) -> dict[str, Callable[[], Any]]:
    """Integrated gradients, 50 steps: what to time, by chunk."""
    net, pixels, target = network_and_picture()
    if who == "convolab":
        from convolab.lenses import saliency

        return {"": lambda: saliency.integrated(net, pixels, target, steps=STEPS).detail}
    import torch
    from captum.attr import IntegratedGradients

    baseline = torch.tensor(net.mean).view(1, 3, 1, 1).expand_as(pixels).contiguous()
    captum = IntegratedGradients(net.respond)
    chunks = CHUNKS if "best" in who else (None,)
    return {str(c): lambda c=c: captum.attribute(pixels, baseline, target=target, n_steps=STEPS, internal_batch_size=c)[0] for c in chunks}


def smoothgrad(who: str) -> dict[str, Callable[[], Any]]:
    """SmoothGrad, 25 samples: what to time, by chunk."""
    net, pixels, target = network_and_picture()
    sigma = 0.15 * float(pixels.max() - pixels.min())
    if who == "convolab":
        from convolab.lenses import saliency

        return {"": lambda: saliency.smoothgrad(net, pixels, target, samples=SAMPLES).detail}
    from captum.attr import NoiseTunnel, Saliency

    captum = NoiseTunnel(Saliency(net.respond))
    how = {"target": target, "nt_type": "smoothgrad", "nt_samples": SAMPLES, "stdevs": sigma, "abs": False}
    chunks = CHUNKS if "best" in who else (None,)
    return {str(c): lambda c=c: captum.attribute(pixels, nt_samples_batch_size=c, **how)[0] for c in chunks}


QUESTIONS = {"integrated": integrated, "smoothgrad": smoothgrad}
TITLES = {"integrated": f"Integrated gradients, {STEPS} steps", "smoothgrad": f"SmoothGrad, {SAMPLES} samples"}


def timed(question: str, who: str, repeats: int = 3) -> dict[str, Any]:
    """The median seconds of a map, warm; of several chunks the fastest's."""
    import torch

    seconds = {}
    for chunk, call in QUESTIONS[question](who).items():
        call()
        spent = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
        seconds[chunk] = median(spent)
    best = min(seconds, key=seconds.__getitem__)
    return {"seconds": seconds[best], "chunk": best, "threads": torch.get_num_threads()}


def show(question: str, rounds: int) -> None:
    here = str(Path(__file__))
    contenders = {who: [sys.executable, here, "--one", question, who] for who in ("convolab", *GOALS)}
    results = in_rounds(contenders, rounds)
    rows = []
    for who, lines in results.items():
        values = [line["seconds"] for line in lines]
        ratio = median(them["seconds"] / us["seconds"] for us, them in zip(results["convolab"], lines, strict=True))
        elsewhere = [line["elsewhere"] for line in lines if line["elsewhere"] is not None]
        rows.append(
            {
                "contender": who + (f", chunks of {'/'.join(sorted({line['chunk'] for line in lines}))}" if "best" in who else ""),
                "seconds": f"{median(values):.2f}",
                "range": f"{min(values):.2f} to {max(values):.2f}",
                "times ours": f"{ratio:.2f}"
                + (f" (goal {GOALS[who]:g}: {'met' if ratio >= GOALS[who] else 'missed'})" if who in GOALS else ""),
                "machine busy elsewhere": f"{max(elsewhere):.0%}" if elsewhere else "unknown",
            }
        )
    print(f"### {TITLES[question]}\n\n{table(rows)}\n", flush=True)


def show_command(rounds: int, out: Path) -> None:
    """`convolab explain chelsea`, from the command to the picture, each time in a fresh process."""
    code = "import sys; from convolab.front.cli import main; sys.argv[0] = 'convolab'; main()"
    lines = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, "explain", "chelsea", "--out", str(out)], check=True, capture_output=True)
        lines.append(time.perf_counter() - start)
    middle = median(lines)
    verdict = "met" if middle <= COMMAND_GOAL else "missed"
    print(
        f"### convolab explain chelsea\n\n{middle:.2f} s ({min(lines):.2f} to {max(lines):.2f}) from the command to picture, arrays and numbers (goal {COMMAND_GOAL:g} s: {verdict})\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", default="integrated,smoothgrad,command")
    parser.add_argument("--one", nargs=2, metavar=("QUESTION", "WHO"), help=argparse.SUPPRESS)  # what the processes are called with
    given = parser.parse_args()
    if given.one:
        print(json.dumps(timed(*given.one)))
        return
    print(f"{processor()}; {given.rounds} rounds\n")
    for part in given.part.split(","):
        if part == "command":
            with tempfile.TemporaryDirectory() as folder:
                show_command(given.rounds, Path(folder) / "chelsea")
        else:
            show(part, given.rounds)


if __name__ == "__main__":
    main()
