"""How fast are maps, attacks and dense responses, beside other libraries' on the same network and images?

    python benchmarks/inspection.py [--rounds 5] [--part integrated_gradients,smoothgrad,fooling,dense,command,proofs]

runs every contender one after the other, each in a fresh process, in rounds, and prints a table for each question, as
in README.md beside it. captum and the sliding window "at their best" have the fastest of the batch sizes they were
given, chosen in every process. An attack "at its best" is the fastest of the budgets, steps and batch sizes it was
given that fools as many images as ours, in the 8 bits that a file holds. "proofs" is what it costs to prove on the very
image that a shortcut computes what the plain network does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from measure import in_rounds, processor, table, verdict

from convolab.inspection.explain.method_names import METHOD_NAMES

BATCH_SIZES = (1, 2, 5, 10, 25)
STEPS = 50
SAMPLES = 25
MAPS = ("integrated_gradients", "smoothgrad")
assert set(MAPS) <= set(METHOD_NAMES)
CAPTUM = {"captum": 3.0, "captum at its best": 1.5}
GOALS = {  # how many times our seconds
    "integrated_gradients": CAPTUM,
    "smoothgrad": CAPTUM,
    "dense": {"windows cropped one by one, at their best": 20.0},
}
FOOLING_GOAL = 0.5  # of the other attack's time, at no larger L2
COMMAND_GOAL = 4.0  # seconds from the command to the figure
PROOF_GOAL = 0.05  # of the time of a map of 50 passes
CAM_PROOF = "CAM: the head is linear, from the map's own pass"


@dataclass(frozen=True)
class AttackSetting:
    """How another library's attack is called."""

    epsilon: float  # the budget's L2 radius
    steps: int
    path: float  # the steps' lengths add up to this many radii
    batch_size: int = 6


DEFAULT_SETTINGS = {
    "foolbox BIM": AttackSetting(1.0, 10, 2.0),
    "foolbox PGD": AttackSetting(1.0, 50, 1.25),
    "torchattacks": AttackSetting(1.0, 10, 2.0),
}
SEARCHED_SETTINGS = [
    AttackSetting(epsilon, steps, 2.0, batch_size=2) for steps in (3, 4, 6, 8, 12, 20) for epsilon in (2.0, 4.0)
]
FOOLERS = ("convolab", *DEFAULT_SETTINGS, "foolbox BIM at its best", "torchattacks at its best")


def network_and_image() -> tuple[Any, Any, int]:
    """EfficientNet-Lite 0 as `pretrained` gives it, the cat's pixels, and the class to explain."""
    from convolab.data.image_io import read_image
    from convolab.models.pretrained import pretrained

    net = pretrained("efficientnet_lite0")
    return net, net.preprocess(read_image("chelsea")), net.find_class("Egyptian cat")


def integrated_gradients(contender: str) -> dict[str, Callable[[], Any]]:
    """Integrated gradients, 50 steps: what to time, by batch size."""
    net, pixels, target = network_and_image()
    if contender == "convolab":
        from convolab.inspection.explain import methods

        return {"": lambda: methods.integrated_gradients(net, pixels, target, steps=STEPS).per_channel}
    import torch
    from captum.attr import IntegratedGradients

    baseline = torch.tensor(net.mean).view(1, 3, 1, 1).expand_as(pixels).contiguous()
    attribute = partial(IntegratedGradients(net.forward_unchecked).attribute, pixels, baseline, target=target)
    sizes = BATCH_SIZES if "best" in contender else (None,)
    return {str(size): lambda size=size: attribute(n_steps=STEPS, internal_batch_size=size)[0] for size in sizes}


def smoothgrad(contender: str) -> dict[str, Callable[[], Any]]:
    """SmoothGrad, 25 samples: what to time, by batch size."""
    net, pixels, target = network_and_image()
    sigma = 0.15 * float(pixels.max() - pixels.min())
    if contender == "convolab":
        from convolab.inspection.explain import methods

        return {"": lambda: methods.smoothgrad(net, pixels, target, samples=SAMPLES).per_channel}
    from captum.attr import NoiseTunnel, Saliency

    attribute = partial(
        NoiseTunnel(Saliency(net.forward_unchecked)).attribute,
        pixels,
        target=target,
        nt_type="smoothgrad",
        nt_samples=SAMPLES,
        stdevs=sigma,
        abs=False,
    )
    sizes = BATCH_SIZES if "best" in contender else (None,)
    return {str(size): lambda size=size: attribute(nt_samples_batch_size=size)[0] for size in sizes}


def dense_map(contender: str) -> dict[str, Callable[[], Any]]:
    """The logits of every window of a 1024 x 768 image at the network's stride: dense, or from cropped windows."""
    import torch

    from convolab.data.image_io import read_image
    from convolab.inspection.localization.dense import make_fully_convolutional
    from convolab.inspection.localization.input_scale import InputScale
    from convolab.inspection.localization.sliding_window import window_positions
    from convolab.models.inference import frozen_eval
    from convolab.models.pretrained import pretrained

    net = pretrained("efficientnet_lite0")
    fcn = make_fully_convolutional(net)
    pixels = InputScale(shorter_side=768).prepare_input(net, read_image("motorcycle_left"))[..., :1024]

    def dense() -> Any:
        with torch.no_grad(), frozen_eval(net):
            return fcn.window_logits(fcn.forward_features(pixels))

    _, corners = window_positions(fcn, (768, 1024), tuple(dense().shape[2:]))

    def one_by_one(batch_size: int) -> Any:
        logits = []
        with torch.no_grad(), frozen_eval(net):
            for first in range(0, len(corners), batch_size):
                batch = corners[first : first + batch_size]
                windows = torch.stack([pixels[0, :, top : top + 224, left : left + 224] for top, left in batch])
                logits.append(net.forward_unchecked(windows.contiguous(memory_format=torch.channels_last)))
        return torch.cat(logits)

    if contender == "convolab":
        return {"": dense}
    return {str(size): partial(one_by_one, size) for size in (1, 4, 16)}


QUESTIONS = {"integrated_gradients": integrated_gradients, "smoothgrad": smoothgrad, "dense": dense_map}
TITLES = {
    "integrated_gradients": f"Integrated gradients, {STEPS} steps",
    "smoothgrad": f"SmoothGrad, {SAMPLES} samples",
    "dense": "Dense map of a 1024 x 768 image, all classes",
}


def images_and_targets() -> tuple[Any, Any, Any]:
    """EfficientNet-Lite 0, the six sample images as bytes of its size, and for each a class far from it."""
    import torch

    from convolab.data.image_io import SAMPLE_IMAGES, read_image
    from convolab.models.pretrained import pretrained

    net = pretrained("efficientnet_lite0")
    clean = torch.cat([(255 * net.preprocess(read_image(name))).round().to(torch.uint8) for name in SAMPLE_IMAGES])
    with torch.no_grad():
        return net, clean, (net(clean / 255).argmax(1) + 137 * torch.arange(1, len(clean) + 1)) % len(net.classes)


def attack(contender: str, net: Any, clean: Any, targets: Any, setting: AttackSetting) -> Any:
    """Fooling images of another library, in 8 bits."""
    import torch

    batches = zip((clean / 255).split(setting.batch_size), targets.split(setting.batch_size), strict=True)
    if contender.startswith("torchattacks"):
        import torchattacks

        step_size = setting.path * setting.epsilon / setting.steps
        pgd = torchattacks.PGDL2(
            net, eps=setting.epsilon, alpha=step_size, steps=setting.steps, random_start="best" not in contender
        )
        pgd.set_mode_targeted_by_label(quiet=True)
        images = [pgd(x, t) for x, t in batches]
    else:
        import foolbox

        attack_class = foolbox.attacks.L2PGD if "PGD" in contender else foolbox.attacks.L2BasicIterativeAttack
        run = attack_class(rel_stepsize=setting.path / setting.steps, steps=setting.steps).run
        model = foolbox.PyTorchModel(net, bounds=(0, 1))
        criterion = foolbox.criteria.TargetedMisclassification
        images = [run(model, x, criterion(t), epsilon=setting.epsilon) for x, t in batches]
    return (255 * torch.cat(images)).round().clamp(0, 255).to(torch.uint8)


def fooling(contender: str, repeats: int = 3) -> dict[str, Any]:
    """The median seconds to fool the images, warm; how many are fooled, and their mean L2, in 8 bits."""
    import torch

    from convolab.inspection.adversarial.budget import l2_distances
    from convolab.inspection.adversarial.pgd import run_pgd

    net, clean, targets = images_and_targets()

    def num_fooled(images: Any) -> int:
        with torch.no_grad():
            return int((net(images / 255).argmax(1) == targets).sum())

    def ours() -> Any:
        return run_pgd(net, clean, targets).images

    def theirs(setting: AttackSetting) -> Any:
        return attack(contender, net, clean, targets, setting)

    setting = None
    if contender == "convolab":
        call = ours
    else:
        setting = DEFAULT_SETTINGS.get(contender) or best_setting(theirs, num_fooled, num_fooled(ours()))
        call = partial(theirs, setting)
    seconds = [timed_once(call) for _ in range(repeats + 1)][1:]
    images = call()
    return {
        "seconds": median(seconds),
        "fooled": num_fooled(images),
        "images": len(clean),
        "l2": float(l2_distances(images, clean).mean()),
        "setting": setting and asdict(setting),
        "threads": torch.get_num_threads(),
    }


def best_setting(call: Callable[[AttackSetting], Any], num_fooled: Callable[[Any], int], wanted: int) -> AttackSetting:
    """The fewest steps, then the smallest budget, that fool as many images as wanted; then the fastest batch size."""
    sufficient = (setting for setting in SEARCHED_SETTINGS if num_fooled(call(setting)) >= wanted)
    setting = next(sufficient, SEARCHED_SETTINGS[-1])
    sizes = [replace(setting, batch_size=size) for size in (1, 2, 6)]
    return min(sizes, key=lambda candidate: timed_once(lambda: call(candidate)))


def timed_once(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def busy_elsewhere(lines: list[dict[str, Any]]) -> str:
    fractions = [line["elsewhere"] for line in lines if line["elsewhere"] is not None]
    return f"{max(fractions):.0%}" if fractions else "unknown"


def show_fooling(rounds: int) -> None:
    script = str(Path(__file__))
    installed = [
        contender for contender in FOOLERS if not contender.startswith("torchattacks") or find_spec("torchattacks")
    ]
    if len(installed) < len(FOOLERS):
        print("torchattacks is not installed and left out: what it needs excludes what others need\n")
    commands = {contender: [sys.executable, script, "--one", "fooling", contender] for contender in installed}
    results = in_rounds(commands, rounds)
    ours = results["convolab"]
    rows = []
    for contender, lines in results.items():
        fraction = median(us["seconds"] / them["seconds"] for us, them in zip(ours, lines, strict=True))
        no_larger = median(line["l2"] for line in ours) <= median(line["l2"] for line in lines)
        met = verdict(fraction <= FOOLING_GOAL and no_larger) + ("" if no_larger else ", at a larger L2")
        setting = lines[-1]["setting"]
        how = (
            f" (L2 {setting['epsilon']:g}, {setting['steps']} steps, batches of {setting['batch_size']})"
            if setting
            else " (to the first success)"
        )
        goal = "" if contender == "convolab" else f" (goal {FOOLING_GOAL:g}: {met})"
        rows.append(
            {
                "contender": contender + how,
                "seconds": f"{median(line['seconds'] for line in lines):.2f}",
                "fooled": f"{median(line['fooled'] for line in lines):g} of {lines[0]['images']}",
                "mean L2": f"{median(line['l2'] for line in lines):.2f}",
                "our fraction of its time": f"{fraction:.2f}{goal}",
                "machine busy elsewhere": busy_elsewhere(lines),
            }
        )
    print(f"### Fooling to the first success, six images\n\n{table(rows)}\n", flush=True)


def timed(question: str, contender: str, repeats: int = 3) -> dict[str, Any]:
    """The median seconds of a map, warm; of several batch sizes the fastest's."""
    import torch

    seconds = {}
    for batch_size, call in QUESTIONS[question](contender).items():
        call()
        seconds[batch_size] = median(timed_once(call) for _ in range(repeats))
    best = min(seconds, key=seconds.__getitem__)
    return {"seconds": seconds[best], "batch_size": best, "threads": torch.get_num_threads()}


def show(question: str, rounds: int) -> None:
    script = str(Path(__file__))
    contenders = ("convolab", *GOALS[question])
    results = in_rounds({name: [sys.executable, script, "--one", question, name] for name in contenders}, rounds)
    rows = []
    for contender, lines in results.items():
        seconds = [line["seconds"] for line in lines]
        ratio = median(them["seconds"] / us["seconds"] for us, them in zip(results["convolab"], lines, strict=True))
        goal = GOALS[question].get(contender)
        goal_text = "" if goal is None else f" (goal {goal:g}: {verdict(ratio >= goal)})"
        sizes = "/".join(sorted({line["batch_size"] for line in lines}))
        rows.append(
            {
                "contender": contender + (f", batches of {sizes}" if "best" in contender else ""),
                "seconds": f"{median(seconds):.2f}",
                "range": f"{min(seconds):.2f} to {max(seconds):.2f}",
                "times ours": f"{ratio:.2f}{goal_text}",
                "machine busy elsewhere": busy_elsewhere(lines),
            }
        )
    print(f"### {TITLES[question]}\n\n{table(rows)}\n", flush=True)


def show_command(rounds: int, out: Path) -> None:
    """`convolab explain chelsea`, from the command to the figure, each time in a fresh process."""
    code = "import sys; from convolab.cli.main import main; sys.argv[0] = 'convolab'; main()"
    command = [sys.executable, "-c", code, "explain", "chelsea", "--out", str(out)]
    seconds = [timed_once(partial(subprocess.run, command, check=True, capture_output=True)) for _ in range(rounds)]
    print(
        f"### convolab explain chelsea\n\n{median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}) from the "
        f"command to figure, arrays and numbers (goal {COMMAND_GOAL:g} s: {verdict(median(seconds) <= COMMAND_GOAL)})\n"
    )


def proof_seconds(repeats: int = 9) -> dict[str, float]:
    """The median seconds of a map of 50 passes, and of each proof on the same network and image, warm."""
    from unittest.mock import patch

    import torch

    from convolab.inspection.explain import methods
    from convolab.inspection.passes import is_batch_independent, noisy_copy, require_proven_head
    from convolab.models.feature_head import create_feature_extractor
    from convolab.models.inference import frozen_eval

    net, pixels, target = network_and_image()
    extractor = create_feature_extractor(net)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    pair = torch.cat([pixels, noisy_copy(pixels)])

    def cam_without_proof() -> None:
        with patch.object(methods, "require_close_head"):
            methods.cam(net, pixels, target, extractor=extractor)

    calls: dict[str, Callable[[], Any]] = {
        "map": lambda: methods.integrated_gradients(net, pixels, target, steps=STEPS),
        "locate: nothing but the head follows the feature map": lambda: require_proven_head(
            extractor, pixels, target, "the benchmark"
        ),
        "fool: the images of a batch do not change one another": lambda: is_batch_independent(net, pair),
        CAM_PROOF: lambda: methods.cam(net, pixels, target, extractor=extractor),
        "CAM without": cam_without_proof,
    }
    with frozen_eval(net):
        for call in calls.values():
            call()
        rounds = [{name: timed_once(call) for name, call in calls.items()} for _ in range(repeats)]
    seconds = {name: median(line[name] for line in rounds) for name in calls}
    seconds[CAM_PROOF] = max(0.0, median(line[CAM_PROOF] - line["CAM without"] for line in rounds))
    del seconds["CAM without"]
    return seconds


def show_proofs(rounds: int) -> None:
    lines = in_rounds({"all": [sys.executable, str(Path(__file__)), "--one", "proofs", "all"]}, rounds)["all"]
    rows = []
    for name in lines[0]["seconds"]:
        share = median(line["seconds"][name] / line["seconds"]["map"] for line in lines)
        met = f" (goal {PROOF_GOAL:.0%}: {verdict(share <= PROOF_GOAL)})"
        rows.append(
            {
                "what": f"integrated gradients, {STEPS} steps" if name == "map" else name,
                "seconds": f"{median(line['seconds'][name] for line in lines):.3f}",
                "share of the map": "1" if name == "map" else f"{share:.1%}{met}",
                "machine busy elsewhere": busy_elsewhere(lines),
            }
        )
    print(f"### Proofs on the very image\n\n{table(rows)}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", default=",".join((*MAPS, "fooling", "dense", "command", "proofs")))
    # What the processes are called with.
    parser.add_argument("--one", nargs=2, metavar=("QUESTION", "CONTENDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        question, contender = arguments.one
        others = {"fooling": lambda: fooling(contender), "proofs": lambda: {"seconds": proof_seconds()}}
        print(json.dumps(others[question]() if question in others else timed(question, contender)))
        return
    print(f"{processor()}; {arguments.rounds} rounds\n")
    for part in arguments.part.split(","):
        if part == "fooling":
            show_fooling(arguments.rounds)
        elif part == "command":
            with tempfile.TemporaryDirectory() as folder:
                show_command(arguments.rounds, Path(folder) / "chelsea")
        elif part == "proofs":
            show_proofs(arguments.rounds)
        else:
            show(part, arguments.rounds)


if __name__ == "__main__":
    main()
