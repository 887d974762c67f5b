"""How fast are the lenses, against the same maps and attacks of other libraries on the same network and pictures?

    python benchmarks/lenses.py [--rounds 5] [--part integrated,smoothgrad,fooling,dense,command]

runs every contender in turn, each in a fresh process, in rounds, and prints a table a question, as in README.md beside it.
captum and the sliding window "at their best" have the fastest of the chunks they were given, chosen anew in every process. An attack "at its best" is the
fastest of the budgets, steps and batches it was given that fools as many pictures as ours, in the 8 bits that a file holds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from measure import in_rounds, processor, table

CHUNKS = (1, 2, 5, 10, 25)
STEPS, SAMPLES = 50, 25
CAPTUM = {"captum": 4.0, "captum at its best": 1.5}
GOALS = {"integrated": CAPTUM, "smoothgrad": CAPTUM, "dense": {"windows cut out, at their best": 20.0}}  # times ours
FOOLING_GOAL = 0.5  # of the other attack's time, at no larger L2
# How foolbox and torchattacks are called: as they come, and what their best is sought among (the budget; what its steps add up to).
AS_THEY_COME = {"foolbox BIM": (1.0, 10, 2.0), "foolbox PGD": (1.0, 50, 1.25), "torchattacks": (1.0, 10, 2.0)}
SOUGHT = [(size, steps, 2.0) for steps in (3, 4, 6, 8, 12, 20) for size in (2.0, 4.0)]
FOOLERS = ("convolab", *AS_THEY_COME, *(f"{who} at its best" for who in AS_THEY_COME if who != "foolbox PGD"))
COMMAND_GOAL = 4.0  # seconds from the command to the picture


def network_and_picture() -> tuple[Any, Any, int]:
    """EfficientNet-Lite 0 as `pretrained` gives it, and the cat."""
    from convolab.data.image_io import read_image
    from convolab.models.pretrained import pretrained

    net = pretrained("efficientnet_lite0")
    return net, net.preprocess(read_image("chelsea")), net.find_class("Egyptian cat")


def integrated(who: str) -> dict[str, Callable[[], Any]]:
    """Integrated gradients, 50 steps: what to time, by chunk."""
    net, pixels, target = network_and_picture()
    if who == "convolab":
        from convolab.inspection.explain import methods

        return {"": lambda: methods.integrated_gradients(net, pixels, target, steps=STEPS).per_channel}
    import torch
    from captum.attr import IntegratedGradients

    baseline = torch.tensor(net.mean).view(1, 3, 1, 1).expand_as(pixels).contiguous()
    captum = IntegratedGradients(net.respond)
    chunks = CHUNKS if "best" in who else (None,)
    return {
        str(c): lambda c=c: captum.attribute(pixels, baseline, target=target, n_steps=STEPS, internal_batch_size=c)[0]
        for c in chunks
    }


def smoothgrad(who: str) -> dict[str, Callable[[], Any]]:
    """SmoothGrad, 25 samples: what to time, by chunk."""
    net, pixels, target = network_and_picture()
    sigma = 0.15 * float(pixels.max() - pixels.min())
    if who == "convolab":
        from convolab.inspection.explain import methods

        return {"": lambda: methods.smoothgrad(net, pixels, target, samples=SAMPLES).per_channel}
    from captum.attr import NoiseTunnel, Saliency

    captum = NoiseTunnel(Saliency(net.respond))
    how = {"target": target, "nt_type": "smoothgrad", "nt_samples": SAMPLES, "stdevs": sigma, "abs": False}
    chunks = CHUNKS if "best" in who else (None,)
    return {str(c): lambda c=c: captum.attribute(pixels, nt_samples_batch_size=c, **how)[0] for c in chunks}


def dense_map(who: str) -> dict[str, Callable[[], Any]]:
    """The logits of every window of a 1024 x 768 picture at the network's stride: by one dense pass, or by cutting windows out."""
    import torch

    from convolab.data.image_io import read_image
    from convolab.inspection.localization.dense import make_fully_convolutional
    from convolab.inspection.localization.input_scale import InputScale
    from convolab.inspection.localization.sliding_window import window_positions
    from convolab.models.inference import frozen_eval
    from convolab.models.pretrained import pretrained

    net = pretrained("efficientnet_lite0")
    everywhere = make_fully_convolutional(net)
    pixels = InputScale(shorter_side=768).prepare_input(net, read_image("motorcycle_left"))[..., :1024]

    def at_once() -> Any:
        with torch.no_grad(), frozen_eval(net):
            return everywhere.window_logits(everywhere.forward_features(pixels))

    _, corners = window_positions(everywhere, (768, 1024), tuple(at_once().shape[2:]))

    def one_by_one(batch: int) -> Any:
        logits = []
        with torch.no_grad(), frozen_eval(net):
            for first in range(0, len(corners), batch):
                some = [
                    pixels[0, :, top : top + 224, left : left + 224] for top, left in corners[first : first + batch]
                ]
                logits.append(net.forward_unchecked(torch.stack(some).contiguous(memory_format=torch.channels_last)))
        return torch.cat(logits)

    if who == "convolab":
        return {"": at_once}
    return {str(batch): lambda batch=batch: one_by_one(batch) for batch in (1, 4, 16)}


QUESTIONS = {"integrated": integrated, "smoothgrad": smoothgrad, "dense": dense_map}
TITLES = {
    "integrated": f"Integrated gradients, {STEPS} steps",
    "smoothgrad": f"SmoothGrad, {SAMPLES} samples",
    "dense": "Dense map of a 1024 x 768 picture, all classes",
}


def pictures_and_targets() -> tuple[Any, Any, Any]:
    """EfficientNet-Lite 0, the six sample pictures as bytes of its size, and for each a class far from it."""
    import torch

    from convolab.data.image_io import SAMPLE_IMAGES, read_image
    from convolab.models.pretrained import pretrained

    net = pretrained("efficientnet_lite0")
    start = torch.cat([(255 * net.preprocess(read_image(name))).round().to(torch.uint8) for name in SAMPLE_IMAGES])
    with torch.no_grad():
        return net, start, (net(start / 255).argmax(1) + 137 * torch.arange(1, len(start) + 1)) % len(net.classes)


def attack(who: str, net: Any, start: Any, targets: Any, size: float, steps: int, way: float, batch: int) -> Any:
    """Fooling pictures of another library, in floats: a budget, how many steps, and how many budgets they add up to."""
    import torch

    rest = list(zip((start / 255).split(batch), targets.split(batch), strict=True))
    if who.startswith("torchattacks"):
        import torchattacks

        theirs = torchattacks.PGDL2(
            net, eps=size, alpha=way * size / steps, steps=steps, random_start="best" not in who
        )
        theirs.set_mode_targeted_by_label(quiet=True)
        return torch.cat([theirs(x, t) for x, t in rest])
    import foolbox

    kind = foolbox.attacks.L2PGD if "PGD" in who else foolbox.attacks.L2BasicIterativeAttack
    theirs, model = kind(rel_stepsize=way / steps, steps=steps), foolbox.PyTorchModel(net, bounds=(0, 1))
    return torch.cat(
        [theirs.run(model, x, foolbox.criteria.TargetedMisclassification(t), epsilon=size) for x, t in rest]
    )


def fooling(who: str, repeats: int = 3) -> dict[str, Any]:
    """The median seconds to fool the pictures, warm; how many are, and their mean L2, in 8 bits."""
    import torch

    from convolab.inspection.adversarial.pgd import run_pgd

    net, start, targets = pictures_and_targets()

    def outcome(pictures: Any) -> tuple[int, float]:
        with torch.no_grad():
            hits = int((net(pictures / 255).argmax(1) == targets).sum())
        return hits, float((pictures.double() - start).flatten(1).norm(dim=1).mean()) / 255

    def ours() -> Any:
        return run_pgd(net, start, targets).images

    def theirs(size: float, steps: int, way: float, batch: int) -> Any:
        return (255 * attack(who, net, start, targets, size, steps, way, batch)).round().clamp(0, 255).to(torch.uint8)

    setting: tuple = ()
    if who == "convolab":
        call = ours
    elif "best" not in who:
        setting = (*AS_THEY_COME[who], len(start))
        call = partial(theirs, *setting)
    else:
        setting = best_of(theirs, lambda pictures: outcome(pictures)[0], outcome(ours())[0])
        call = partial(theirs, *setting)
    seconds = [clocked(call) for _ in range(repeats + 1)][1:]
    hits, length = outcome(call())
    return {
        "seconds": median(seconds),
        "fooled": hits,
        "of": len(start),
        "l2": length,
        "setting": setting,
        "threads": torch.get_num_threads(),
    }


def best_of(call: Callable[..., Any], hits: Callable[[Any], int], wanted: int) -> tuple:
    """The fewest steps, then the smallest budget, that fool as many pictures as wanted, and the fastest batch for them."""
    found = next((s for s in SOUGHT if hits(call(*s, 2)) >= wanted), SOUGHT[-1])
    return (*found, min((1, 2, 6), key=lambda batch: clocked(lambda: call(*found, batch))))


def clocked(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show_fooling(rounds: int) -> None:
    here = str(Path(__file__))
    results = in_rounds({who: [sys.executable, here, "--one", "fooling", who] for who in FOOLERS}, rounds)
    us = results["convolab"]
    rows = []
    for who, lines in results.items():
        share = median(ours["seconds"] / line["seconds"] for ours, line in zip(us, lines, strict=True))
        kept = median(ours["l2"] for ours in us) <= median(line["l2"] for line in lines)
        verdict = "met" if share <= FOOLING_GOAL and kept else f"missed{'' if kept else ', at a larger L2'}"
        elsewhere = [line["elsewhere"] for line in lines if line["elsewhere"] is not None]
        setting = lines[-1]["setting"]
        how = (
            f" (L2 {setting[0]:g}, {setting[1]} steps, batches of {setting[3]})"
            if setting
            else " (to the first success)"
        )
        rows.append(
            {
                "contender": who + how,
                "seconds": f"{median(line['seconds'] for line in lines):.2f}",
                "fooled": f"{median(line['fooled'] for line in lines):g} of {lines[0]['of']}",
                "mean L2": f"{median(line['l2'] for line in lines):.2f}",
                "our share of its time": f"{share:.2f}"
                + ("" if who == "convolab" else f" (goal {FOOLING_GOAL:g}: {verdict})"),
                "machine busy elsewhere": f"{max(elsewhere):.0%}" if elsewhere else "unknown",
            }
        )
    print(f"### Fooling to the first success, six pictures\n\n{table(rows)}\n", flush=True)


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
    contenders = {who: [sys.executable, here, "--one", question, who] for who in ("convolab", *GOALS[question])}
    results = in_rounds(contenders, rounds)
    rows = []
    for who, lines in results.items():
        values = [line["seconds"] for line in lines]
        ratio = median(them["seconds"] / us["seconds"] for us, them in zip(results["convolab"], lines, strict=True))
        elsewhere = [line["elsewhere"] for line in lines if line["elsewhere"] is not None]
        rows.append(
            {
                "contender": who
                + (f", chunks of {'/'.join(sorted({line['chunk'] for line in lines}))}" if "best" in who else ""),
                "seconds": f"{median(values):.2f}",
                "range": f"{min(values):.2f} to {max(values):.2f}",
                "times ours": f"{ratio:.2f}"
                + (
                    f" (goal {GOALS[question][who]:g}: {'met' if ratio >= GOALS[question][who] else 'missed'})"
                    if who in GOALS[question]
                    else ""
                ),
                "machine busy elsewhere": f"{max(elsewhere):.0%}" if elsewhere else "unknown",
            }
        )
    print(f"### {TITLES[question]}\n\n{table(rows)}\n", flush=True)


def show_command(rounds: int, out: Path) -> None:
    """`convolab explain chelsea`, from the command to the picture, each time in a fresh process."""
    code = "import sys; from convolab.cli.main import main; sys.argv[0] = 'convolab'; main()"
    lines = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", code, "explain", "chelsea", "--out", str(out)], check=True, capture_output=True
        )
        lines.append(time.perf_counter() - start)
    middle = median(lines)
    verdict = "met" if middle <= COMMAND_GOAL else "missed"
    print(
        f"### convolab explain chelsea\n\n{middle:.2f} s ({min(lines):.2f} to {max(lines):.2f}) from the command to picture, arrays and numbers (goal {COMMAND_GOAL:g} s: {verdict})\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", default="integrated,smoothgrad,fooling,dense,command")
    parser.add_argument(
        "--one", nargs=2, metavar=("QUESTION", "WHO"), help=argparse.SUPPRESS
    )  # what the processes are called with
    given = parser.parse_args()
    if given.one:
        print(json.dumps(fooling(given.one[1]) if given.one[0] == "fooling" else timed(*given.one)))
        return
    print(f"{processor()}; {given.rounds} rounds\n")
    for part in given.part.split(","):
        if part == "fooling":
            show_fooling(given.rounds)
        elif part == "command":
            with tempfile.TemporaryDirectory() as folder:
                show_command(given.rounds, Path(folder) / "chelsea")
        else:
            show(part, given.rounds)


if __name__ == "__main__":
    main()
