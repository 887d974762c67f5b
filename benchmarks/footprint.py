"""What does a run cost beside its training: the start, the memory, the checkpoints?

    python benchmarks/footprint.py --data-dir DIR [--rounds 5]

measures each in fresh processes, and prints the table in README.md beside it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from measure import in_rounds, peak_mb, processor, table, verdict


def one_run(data_dir: Path, network: str) -> dict[str, float]:
    """Two epochs of CIFAR-10 in this process, as `convolab train` does them."""
    from clock import Clock

    from convolab.core.environment import tune_malloc
    from convolab.data.catalog import load
    from convolab.training.recipe import Recipe
    from convolab.training.recorder import RunRecorder
    from convolab.training.run import Run

    imported = peak_mb()
    start, clock, writing = time.perf_counter(), Clock(), []
    recipe = Recipe.from_dict({"data": {"name": "cifar10"}, "model": {"name": network}, "training": {"epochs": 2}})
    images = load("cifar10", data_dir)
    write_epoch = RunRecorder.write_epoch

    def timed(recorder: RunRecorder) -> None:
        begun = time.perf_counter()
        write_epoch(recorder)
        writing.append(time.perf_counter() - begun)

    RunRecorder.write_epoch = timed
    tune_malloc()  # as the command line does
    with tempfile.TemporaryDirectory() as folder:
        run = Run.start(recipe, images, Path(folder) / "run", callbacks=clock)
        epochs = [epoch.train_seconds for epoch in run.history]
    pixels = sum(part.images.nbytes for part in (images.train, images.test)) / 1e6
    return {
        "first step": clock.ends[0] - start,
        "imported": imported,
        "beyond the set": peak_mb() - pixels,
        "checkpoint share": sum(writing) / sum(epochs),
    }


def help_seconds() -> float:
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "convolab"), "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", help=argparse.SUPPRESS)  # what the measuring processes are called with
    given = parser.parse_args()
    if given.network:
        print(json.dumps(one_run(given.data_dir, given.network)))
        return
    command = [sys.executable, __file__, "--data-dir", str(given.data_dir), "--network"]
    results = in_rounds({name: [*command, name] for name in ("simple_convnet", "shallow_net")}, given.rounds)
    starts = [help_seconds() for _ in range(2 * given.rounds + 1)][1:]  # the first one reads the disk
    rows = [row("`convolab --help`, s", starts, 0.25)]
    for name, lines in results.items():
        rows.append(
            row(f"{name}: from imports done to the first step done, s", [line["first step"] for line in lines], 2.0)
        )
        rows.append(
            row(f"{name}: peak memory beyond the uint8 set, MB", [line["beyond the set"] for line in lines], 700)
        )
        rows.append(row(f"{name}: of which imports alone, MB", [line["imported"] for line in lines]))
        rows.append(
            row(f"{name}: checkpoints' share of the epoch, %", [100 * line["checkpoint share"] for line in lines], 2.0)
        )
    print(f"{processor()}; {given.rounds} rounds\n\n{table(rows)}")


def row(what: str, values: list[float], goal: float | None = None) -> dict[str, str]:
    middle = median(values)
    return {
        "what": what,
        "median": f"{middle:.3g}",
        "range": f"{min(values):.3g} to {max(values):.3g}",
        "goal, at most": "" if goal is None else f"{goal:g}: {verdict(middle <= goal)}",
    }


if __name__ == "__main__":
    main()
