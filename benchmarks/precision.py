"""Does bf16 change the accuracy beyond what the seed does?

    python benchmarks/precision.py --data-dir DIR [--seeds 5] [--epochs 10] [--network simple_convnet]

trains the default recipe on all of CIFAR-10 in fp32 and in bf16 with the same seeds (same split, same initial weights, same
batches), a run a core, and compares the final validation accuracies in pairs by a t-interval.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

from measure import cores, processor


def final_accuracy(data_dir: Path, network: str, epochs: int, seed: int, precision: str) -> float:
    """Validation accuracy after the last epoch, by the command a person types, on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "train",
            network,
            "--data",
            "cifar10",
            "--data-dir",
            str(data_dir),
            "--seed",
            str(seed),
            "--threads",
            "1",
        ]
        changes = [
            "--set",
            f"training.epochs={epochs}",
            "--set",
            f"training.precision={'bf16_forced' if precision == 'bf16' else precision}",
            "--out",
            f"{folder}/run",
        ]
        subprocess.run(
            [str(Path(sys.executable).parent / "convolab"), *words, *changes], check=True, capture_output=True
        )
        return json.loads(Path(folder, "run", "metrics.jsonl").read_text().splitlines()[-1])["validation_accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--network", default="simple_convnet")
    given = parser.parse_args()
    from scipy.stats import t

    trials = [(seed, precision) for seed in range(given.seeds) for precision in ("fp32", "bf16")]
    with ThreadPoolExecutor(cores()) as pool:
        found = dict(
            zip(
                trials,
                pool.map(lambda trial: final_accuracy(given.data_dir, given.network, given.epochs, *trial), trials),
                strict=True,
            )
        )
    print(f"{given.network}, {given.epochs} epochs of CIFAR-10, {given.seeds} seeds; {processor()}\n")
    for precision in ("fp32", "bf16"):
        values = [100 * found[seed, precision] for seed in range(given.seeds)]
        print(
            f"- {precision}: final validation accuracy {mean(values):.2f} %, standard deviation over seeds {stdev(values):.2f}"
        )
    differences = [100 * (found[seed, "bf16"] - found[seed, "fp32"]) for seed in range(given.seeds)]
    half = t.ppf(0.975, given.seeds - 1) * stdev(differences) / given.seeds**0.5
    low, high = mean(differences) - half, mean(differences) + half
    verdict = "no significant difference" if low < 0 < high else "a difference"
    print(
        f"- bf16 - fp32, paired by seed: {mean(differences):+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}: {verdict}"
    )


if __name__ == "__main__":
    main()
