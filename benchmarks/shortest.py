"""How short is a perturbation that fools as saved in 8 bits, beside foolbox's DDN?

    python benchmarks/shortest.py PHOTOS [--first 9] [--every 20]

takes every 20th photo of a folder from the tenth on, in the order of their names, each with a random target, and prints
the L2 of what fools EfficientNet-Lite 0: ours by default, with `shortest` at 40 and at 8 gradients, and DDN at as many,
as floats and rounded to 8 bits. What was tuned was tuned on other photos: `--first 3`.
"""

import argparse
import math
from pathlib import Path
from statistics import median

import foolbox
import torch
from measure import processor, table, verdict
from torch import Tensor

import convolab
from convolab.inspection.adversarial.budget import l2_norms

GRADIENTS = (40, 8)
GOALS = {40: 0.45, 8: 0.95}  # the median L2 of all images; an image that is not fooled counts as infinitely far


def row(contender: str, fooled: list[bool], l2: list[float], gradients: str, passes: str, goal: float | None) -> dict:
    middle = median(length if hit else math.inf for hit, length in zip(fooled, l2, strict=True))
    met = "" if goal is None else f" (goal {goal:g}: {verdict(middle <= goal)})"
    return {
        "contender": contender,
        "fooled": f"{sum(fooled)} of {len(fooled)}",
        "median L2": f"{'none' if middle == math.inf else f'{middle:.2f}'}{met}",
        "gradients": gradients,
        "forward passes": passes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--first", type=int, default=9)
    parser.add_argument("--every", type=int, default=20)
    arguments = parser.parse_args()
    photos = sorted(map(str, arguments.photos.glob("*.jpg")))[arguments.first :: arguments.every]
    net = convolab.pretrained("efficientnet_lite0")

    default = convolab.fool(photos, "random", net)
    clean, targets = default.arrays["clean"] / 255, default.arrays["target"]

    def judge(images: Tensor) -> tuple[list[bool], list[float]]:
        with torch.no_grad():
            hits = torch.cat([net(image[None]) for image in images]).argmax(1) == targets
        return hits.tolist(), l2_norms(images - clean).tolist()

    def ours(name: str, finding: convolab.Finding, goal: float | None) -> dict:
        found = finding.metrics["images"]
        steps = [image["steps"] for image in found]
        # The default judges each step by the pass of its gradient, and once more in 8 bits where that succeeds.
        passes = [image["forward_passes"] for image in found if "forward_passes" in image]
        gradients = f"{min(steps)} to {max(steps)}" if min(steps) < max(steps) else str(steps[0])
        return row(
            name, *judge(finding.arrays["fooling"] / 255), gradients, f"{median(passes):g}" if passes else "", goal
        )

    rows = [ours("convolab", default, None)]
    for gradients in GRADIENTS:
        finding = convolab.fool(photos, "random", net, shortest=True, max_steps=gradients)
        rows.append(ours("convolab, shortest", finding, GOALS[gradients]))
    model = foolbox.PyTorchModel(net, bounds=(0, 1))
    for gradients in GRADIENTS:
        attack = foolbox.attacks.DDNAttack(steps=gradients)
        criterion = foolbox.criteria.TargetedMisclassification
        pairs = zip(clean.split(2), targets.split(2), strict=True)
        images = torch.cat([attack.run(model, x, criterion(target)) for x, target in pairs])
        rows.append(row("foolbox DDN, as floats", *judge(images), str(gradients), "", None))
        rounded = (255 * images).round() / 255
        rows.append(row("foolbox DDN, in 8 bits", *judge(rounded), str(gradients), "", None))
    print(f"{processor()}\n\n### The shortest perturbation, {len(photos)} photos\n\n{table(rows)}", flush=True)


if __name__ == "__main__":
    main()
