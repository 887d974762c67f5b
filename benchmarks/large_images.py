"""Large images: what a set beyond memory costs in memory, and how fast networks train on photos, against torchvision's tutorial,
Lightning and fastai.

    python benchmarks/large_images.py memory [--gigabytes 4]
    python benchmarks/large_images.py speed [--images 2000] [--rounds 3] [--steps 20]

Both make their images in a temporary folder and delete it; `memory` needs a little more than its gigabytes on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from measure import compare, in_rounds, processor, table, verdict

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import DataLoader

SIDE = 224  # pixels
BATCH = 32
WARMUP = 2  # batches before the clock starts
MAX_ADDED_BYTES = 1_000_000_000  # the goal for memory, beyond what the network needs on few images
TRANSFORM = """
class Brightness:
    per_image = True

    def __call__(self, image):  # [C, H, W] in [0, 1]
        import torch

        return (image * (0.8 + 0.4 * torch.rand(()))).clamp(0, 1)
"""
CASES = {  # the network, the side of its images, what the recipe has more, the goal as a ratio to the best peer
    "resnet18, last layer only": ("resnet18", 224, {"model.freeze": "all but the last layer"}, 2.0),
    "resnet18, whole": ("resnet18", 224, {}, 1.0),
    "simple_convnet at 64 px": ("simple_convnet", 64, {}, 2.0),
    "simple_convnet at 64 px, own transform": ("simple_convnet", 64, {"own": True}, 1.0),
}


def make_photos(folder: Path, count: int) -> None:
    """JPEGs of smooth noise, 224 px, in ten classes: they compress and decode like photos."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for index in range(count):
        path = folder / "photos" / f"class{index % 10}" / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(draw.integers(0, 256, (28, 28, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)


def make_arrays(path: Path, gigabytes: float) -> None:
    """An .npz file of coarse noise at 224 px, of so many gigabytes; compressed, and a chunk of it is in memory at a time."""
    draw = np.random.default_rng(0)
    count = round(gigabytes * 1e9 / (3 * SIDE * SIDE))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, allowZip64=True, compresslevel=1) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, SIDE, 3)}
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, count, 256):
                coarse = draw.integers(0, 256, (min(256, count - start), SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
                stream.write(coarse.repeat(8, axis=1).repeat(8, axis=2).tobytes())
        with archive.open("labels.npy", "w") as stream:
            np.lib.format.write_array(stream, np.arange(count) % 10)


def ours(folder: Path, case: str, steps: int) -> dict[str, object]:
    """Our own loop as `convolab train` runs it; the first decode is timed apart."""
    from clock import Clock

    from convolab.core.environment import tune_malloc
    from convolab.data.catalog import load
    from convolab.training.recipe import Recipe
    from convolab.training.setup import build_trainer

    network, side, more, _ = CASES[case]
    name = "torchvision/resnet18" if network == "resnet18" else network
    augment = ["flip", f"{folder / 'brightness.py'}:Brightness"] if "own" in more else ["flip"]
    settings = {"data.name": f"folder:{folder / 'photos'}", "data.image_size": side, "data.augment": augment}
    settings |= {"model.name": name, "training.batch_size": BATCH, "optimizer.lr": 0.01, "training.epochs": 1000}
    settings |= {key: value for key, value in more.items() if key != "own"}
    tune_malloc()
    start = time.perf_counter()
    splits = load(settings["data.name"], image_size=side)
    decode_seconds = time.perf_counter() - start
    trainer = build_trainer(Recipe().with_overrides(settings), splits, "cpu")
    clock = Clock(WARMUP + steps)
    for _ in trainer.iter_epochs(clock):
        pass
    return {"images_per_second": images_per_second(clock.ends, steps), "decode_seconds": decode_seconds}


def photo_loader(folder: Path, case: str, workers: int) -> DataLoader:
    """ImageFolder and DataLoader as in docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html: all peers have it."""
    import torch
    from torchvision import datasets, transforms

    _, side, more, _ = CASES[case]
    steps_of_image = [transforms.Resize(side), transforms.CenterCrop(side), transforms.RandomHorizontalFlip()]
    steps_of_image.append(transforms.ToTensor())
    if "own" in more:
        namespace: dict[str, type] = {}
        exec(TRANSFORM, namespace)
        steps_of_image.append(namespace["Brightness"]())
    steps_of_image.append(transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    dataset = datasets.ImageFolder(folder / "photos", transforms.Compose(steps_of_image))
    return torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers, drop_last=True)


def peer_network(case: str) -> nn.Module:
    """The case's network; where only its last layer is trained, the others need no gradient, as in the tutorial."""
    from peers import simple_convnet
    from torch import nn
    from torchvision import models

    network, _, more, _ = CASES[case]
    net: nn.Module = models.resnet18(num_classes=10) if network == "resnet18" else simple_convnet()
    if "model.freeze" in more:
        for parameter in net.parameters():
            parameter.requires_grad = False
        net.fc = nn.Linear(net.fc.in_features, 10)
    return net


def tutorial(folder: Path, case: str, steps: int, workers: int = 0) -> list[float]:
    """The loop of that tutorial. When each batch ended, in seconds, as the other peers give it."""
    import torch
    from torch import nn

    loader, net = photo_loader(folder, case, workers), peer_network(case)
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer, criterion = torch.optim.SGD(trained, lr=0.01, momentum=0.9), nn.CrossEntropyLoss()
    ends: list[float] = []
    running_loss = 0.0
    while True:
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * inputs.size(0)
            ends.append(time.perf_counter())
            if len(ends) >= WARMUP + steps:
                return ends


def lightning(folder: Path, case: str, steps: int) -> list[float]:
    """LightningModule and Trainer of "Lightning in 15 minutes", as in peers.py, on the tutorial's DataLoader."""
    import lightning as L
    import torch
    from torch import nn

    net = peer_network(case)
    ends: list[float] = []

    class Classifier(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch, batch_idx):
            inputs, labels = batch
            loss = nn.functional.cross_entropy(self.net(inputs), labels)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
            return torch.optim.SGD(trained, lr=0.01, momentum=0.9)

    class Clock(L.Callback):
        def on_train_batch_end(self, *args) -> None:
            ends.append(time.perf_counter())

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_steps=WARMUP + steps, accelerator="cpu", callbacks=[Clock()], **quiet)
    trainer.fit(Classifier(), photo_loader(folder, case, 0))
    return ends


def fastai(folder: Path, case: str, steps: int) -> list[float]:
    """Learner on the tutorial's DataLoader (docs.fast.ai/examples/migrating_pytorch.html), as in peers.py."""
    from fastai.vision.all import SGD, Callback, CancelFitException, DataLoaders, Learner
    from torch import nn

    ends: list[float] = []

    class Clock(Callback):
        def after_batch(self) -> None:
            ends.append(time.perf_counter())
            if len(ends) >= WARMUP + steps:
                raise CancelFitException

    loader = photo_loader(folder, case, 0)
    opt_func = partial(SGD, mom=0.9, decouple_wd=False)
    learn = Learner(
        DataLoaders(loader, loader), peer_network(case), loss_func=nn.CrossEntropyLoss(), opt_func=opt_func, cbs=Clock()
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.01, wd=0)
    return ends


PEERS: dict[str, Callable[..., list[float]]] = {
    "tutorial": tutorial,
    "tutorial_2_workers": partial(tutorial, workers=2),
    "lightning": lightning,
    "fastai": fastai,
}
OPTIONAL_PEERS = ("lightning", "fastai")  # left out where they are not installed


def installed_peers() -> list[str]:
    """The peers that can be measured here; it is said which are left out."""
    missing = [name for name in OPTIONAL_PEERS if find_spec(name) is None]
    for name in missing:
        print(f"{name} is left out, because it is not installed: pip install 'convolab[bench]'\n")
    return [name for name in PEERS if name not in missing]


def images_per_second(ends: list[float], steps: int) -> float:
    return BATCH * steps / (ends[WARMUP + steps - 1] - ends[WARMUP - 1])


def train_a_few(data: str, steps: int, limit: int | None) -> dict[str, int]:
    """Train simple_convnet on 224 px; the most memory of its own that the process had, and what RLIMIT_DATA counts."""
    from convolab.core.environment import tune_malloc
    from convolab.data.catalog import load
    from convolab.training.callbacks import Callbacks
    from convolab.training.recipe import Recipe
    from convolab.training.setup import build_trainer

    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    tune_malloc()
    peaks = {"RssAnon": 0, "RssFile": 0, "VmData": 0}

    def measure() -> None:
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], 1024 * int(value.split()[0]))

    splits = load(data, on_progress=lambda done, total: measure() if done % 100 == 0 else None)
    measure()
    settings = {"data.name": data, "data.augment": ["flip"], "model.name": "simple_convnet"}
    settings |= {"training.batch_size": BATCH, "training.epochs": 1000}
    trainer = build_trainer(Recipe().with_overrides(settings), splits, "cpu")
    done = 0

    class Meter(Callbacks):
        def on_step(self, trainer: object) -> None:
            nonlocal done
            done += 1
            measure()

        def should_stop(self) -> bool:
            return done >= steps

    for _ in trainer.iter_epochs(Meter()):
        pass
    return peaks | {"map": sum(dataset.images.nbytes for dataset in splits.by_name.values())}


def child(*arguments: object, env: dict[str, str] | None = None) -> dict[str, int]:
    command = [sys.executable, __file__, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    return json.loads(result.stdout.splitlines()[-1])


def report_memory(gigabytes: float, steps: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_arrays(folder / "few.npz", 0.05)
        make_arrays(folder / "many.npz", gigabytes)
        env = {"CONVOLAB_DATA": name}
        few = child("train", f"npz:{folder / 'few.npz'}", steps, env=env)
        start = time.perf_counter()
        first = child("train", f"npz:{folder / 'many.npz'}", steps, env=env)
        seconds = time.perf_counter() - start
        again = child("train", f"npz:{folder / 'many.npz'}", steps, env=env)
        # The limit counts the map too, all of it: what is left is the network's own and a gigabyte.
        limit = few["VmData"] - few["map"] + again["map"] + MAX_ADDED_BYTES
        try:
            child("train", f"npz:{folder / 'many.npz'}", steps, limit, env=env)
            held = "held"
        except RuntimeError as error:
            held = f"not held: {str(error).strip().splitlines()[-1:]}"
    own = few["RssAnon"] - few["map"]
    print(
        f"{processor()}; {again['map'] / 1e9:.2f} GB of images, {steps} batches of {BATCH}, simple_convnet at {SIDE} px\n"
    )
    rows = [
        {
            "what": what,
            "RssAnon, MB": f"{peak['RssAnon'] / 1e6:,.0f}",
            "beyond the network's own, MB": f"{(peak['RssAnon'] - own) / 1e6:,.0f}",
            "RssFile, MB": f"{peak['RssFile'] / 1e6:,.0f}",
        }
        for what, peak in (
            ("the network's own, without its 50 MB of images", {**few, "RssAnon": own}),
            ("decode and train", first),
            ("train, decoded before", again),
        )
    ]
    print(table(rows))
    added = max(first["RssAnon"], again["RssAnon"]) - own
    print(
        f"\n- beyond the network's own: {added / 1e6:,.0f} MB (goal at most {MAX_ADDED_BYTES / 1e6:,.0f}: {verdict(added <= MAX_ADDED_BYTES)})"
    )
    print(f"- under RLIMIT_DATA of {limit / 1e9:.2f} GB, the map of {again['map'] / 1e9:.2f} GB included: {held}")
    print(f"- the first training, which decodes: {seconds:.0f} s")


def report_speed(images: int, rounds: int, steps: int, cases: list[str]) -> None:
    print(f"{processor()}; {images:,} JPEGs of {SIDE} px, {rounds} rounds of {steps} batches of {BATCH}\n")
    peers = installed_peers()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photos(folder, images)
        (folder / "brightness.py").write_text(TRANSFORM)
        for case in cases:
            common = [name, case, str(steps)]
            contenders = {"convolab": [sys.executable, __file__, "ours", *common]}
            contenders |= {peer: [sys.executable, __file__, peer, *common] for peer in peers}
            results = in_rounds(contenders, rounds)
            goal = CASES[case][3]
            best = [max(results[peer][i]["images_per_second"] for peer in peers) for i in range(rounds)]
            ratio = median(
                line["images_per_second"] / peer for line, peer in zip(results["convolab"], best, strict=True)
            )
            print(f"### {case}\n\n{table(compare(results, 'convolab'))}\n")
            print(f"- {ratio:.2f} x the best peer (goal {goal:g} x: {verdict(ratio >= goal)})")
            print(
                f"- decoded first, once: {median(line['decode_seconds'] for line in results['convolab']):.1f} s\n",
                flush=True,
            )


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in (
        "train",
        "ours",
        *PEERS,
    ):  # what the processes of a contender are called with
        action, *rest = sys.argv[1:]
        if action == "train":
            data, steps, *limit = rest
            print(json.dumps(train_a_few(data, int(steps), int(limit[0]) if limit else None)))
        elif action == "ours":
            print(json.dumps(ours(Path(rest[0]), rest[1], int(rest[2]))))
        else:
            folder, case, steps = rest
            ends = PEERS[action](Path(folder), case, int(steps))
            print(json.dumps({"images_per_second": images_per_second(ends, int(steps))}))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "speed"))
    parser.add_argument("--gigabytes", type=float, default=4.3, help="of images, for memory")
    parser.add_argument("--images", type=int, default=2000, help="photos, for speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="batches in each process")
    parser.add_argument("--case", choices=CASES, action="append", help="this one only; repeatable")
    given = parser.parse_args()
    # A fifth of the images is for testing, a tenth of the rest for validation; past an epoch ours would validate too.
    if given.what == "speed" and BATCH * (WARMUP + given.steps) > 0.8 * 0.9 * given.images - BATCH:
        parser.error(
            f"{given.steps} batches are more than an epoch of {given.images} images: give fewer, or more images"
        )
    if given.what == "memory":
        report_memory(given.gigabytes, given.steps)
    else:
        report_speed(given.images, given.rounds, given.steps, given.case or [*CASES])


if __name__ == "__main__":
    main()
