"""CIFAR-10: accuracy against the seconds of training, of the fast recipe, its anchor, our other recipes and other libraries' examples.

    python benchmarks/fast.py --data-dir DIR --runs FOLDER [--out docs/results/fast] [--seeds 5] [--other-seeds 2] [--only NAME ...]

One training at a time, each in a fresh process on all cores, seed by seed, so that an hour in which the machine is slower falls on all.
Each result is a line of results.jsonl as soon as it is there. What this processor has done is not done again, so the command may be
stopped at any moment, and the table may grow over days; a ratio is of two trainings on one kind of processor. `--seeds 0
--other-seeds 0` trains nothing and prints the table. Seconds are those of training: reading the images, evaluation and checkpoints are
not timed on any side.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import altair as alt
from measure import in_rounds, processor, table, verdict

from convolab import Run
from convolab.core.stats import Interval, mean_interval
from convolab.plots.style import apply_chart_style, chart_data, save_chart

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"
RECIPE = RECIPES / "cifar10_94.toml"
OUT = HERE.parent / "docs" / "results" / "fast"
FAST, SHORT, ANCHOR = "cifar10_94", "cifar10_94, 3 epochs", "anchor"
GOALS = ((FAST, 0.94, 0.5), (SHORT, 0.90, 0.15))  # contender, accuracy, fraction of the anchor's seconds

Result = Mapping[str, Any]
Training = Callable[[Path, int, Path], Result]  # (data_dir, seed, folder of the run) -> its result


def ours(recipe: Path, *arguments: str) -> Training:
    """`convolab train` with a recipe, continued if it was stopped, and the test of its weights."""

    def train(data_dir: Path, seed: int, folder: Path) -> Result:
        convolab = [str(Path(sys.executable).with_name("convolab"))]
        if (folder / "summary.json").exists():
            command = [*convolab, "resume", str(folder), "--data-dir", str(data_dir)]
        else:
            shutil.rmtree(folder, ignore_errors=True)
            command = [*convolab, "train", "--recipe", str(recipe), *arguments, "--set", f"training.seed={seed}"]
            command += ["--out", str(folder), "--data-dir", str(data_dir)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = Run(folder)
        result = {"seconds": sum(epoch.train_seconds for epoch in run.history)}
        record = run.test(data_dir=data_dir)
        result["test_accuracy"] = record.accuracy
        if record.with_views is not None:
            result["test_accuracy_of_6_views"] = record.with_views.accuracy
        return result

    return train


def script(name: str, *arguments: str) -> Training:
    """A script beside this one, which prints its result."""

    def train(data_dir: Path, seed: int, folder: Path) -> Result:
        command = [sys.executable, str(HERE / name), *arguments, "--data-dir", str(data_dir), "--seed", str(seed)]
        return in_rounds({name: command}, 1)[name][0]

    return train


CONTENDERS: dict[str, Training] = {
    FAST: ours(RECIPE),
    SHORT: ours(RECIPE, "--epochs", "3"),
    ANCHOR: script("anchor_cifar10.py"),
    **{name: ours(RECIPES / f"{name}.toml") for name in ("resnet_small", "simple_convnet", "shallow_net")},
    "Keras's example": script("library_examples.py", "keras"),
    "fastai's example": script("library_examples.py", "fastai"),
}


def read_results(path: Path) -> list[Result]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def file_name(text: str) -> str:
    """A text as a part of a path.

    >>> file_name("AMD EPYC (AVX2), 2 cores"), file_name("cifar10_94, 3 epochs")
    ('amd-epyc-avx2-2-cores', 'cifar10_94-3-epochs')
    """
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def keep_result(name: str, seed: int, data_dir: Path, runs: Path, path: Path) -> None:
    """Add the result of a training to the file of results, if it does not have it from this kind of processor."""
    key = {"training": name, "processor": processor(), "seed": seed}
    if any(key.items() <= result.items() for result in read_results(path)):
        return
    # A run that another kind of processor began is not continued here: its seconds would be of both.
    folder = runs / file_name(processor()) / f"{file_name(name)}-{seed}"
    result = key | dict(CONTENDERS[name](data_dir, seed, folder))
    print(json.dumps(result), file=sys.stderr, flush=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("".join(json.dumps(line) + "\n" for line in [*read_results(path), result]))
    unfinished.replace(path)


def percent(interval: Interval) -> str:
    if interval.low is None or interval.high is None or interval.low == interval.high:  # of one value
        return f"{interval.mean:.2%}"
    return f"{interval.mean:.2%} ({interval.low:.2%} to {interval.high:.2%})"


def accuracy_cell(results: Sequence[Result], key: str) -> str:
    return percent(mean_interval([result[key] for result in results])) if key in results[0] else ""


def report(results: Mapping[str, Sequence[Result]]) -> None:
    """The table of one kind of processor, and whether the goals are met."""
    anchor = median(result["seconds"] for result in results[ANCHOR]) if results.get(ANCHOR) else None
    rows = []
    for name, found in results.items():
        seconds = median(result["seconds"] for result in found)
        row = {"training": name, "seeds": len(found), "seconds": f"{seconds:,.0f}"}
        row["of the anchor's"] = f"{seconds / anchor:.2f} x" if anchor else ""
        row["test accuracy"] = accuracy_cell(found, "test_accuracy")
        row["with six views"] = accuracy_cell(found, "test_accuracy_of_6_views")
        rows.append(row)
    print(f"{table(rows)}\n")
    for name, goal, fraction in GOALS:
        if anchor and results.get(name):
            mean = mean_interval([result["test_accuracy_of_6_views"] for result in results[name]]).mean
            ratio = median(result["seconds"] for result in results[name]) / anchor
            met = verdict(mean >= goal and ratio <= fraction)
            print(
                f"- {name}: {mean:.2%} with six views in {ratio:.2f} x the anchor's time (goal {goal:.0%} in {fraction} x: {met})"
            )


def draw(machine: str, results: Mapping[str, Sequence[Result]], stem: Path) -> None:
    """A point a training: its accuracy, with six views where there are, against its seconds."""
    rows = [
        {
            "training": name,
            "seconds": result["seconds"],
            "accuracy": result.get("test_accuracy_of_6_views", result["test_accuracy"]),
        }
        for name, found in results.items()
        for result in found
    ]
    chart = alt.Chart(chart_data(rows), width=480, height=300).mark_point(filled=True, size=60)
    chart = chart.encode(
        x=alt.X("seconds:Q", title="seconds of training", scale=alt.Scale(type="log", nice=False, padding=20)),
        y=alt.Y(
            "accuracy:Q", title="test accuracy", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False, padding=10)
        ),
        color=alt.Color("training:N", title=None, scale=alt.Scale(domain=list(results), scheme="dark2")),
        shape=alt.Shape("training:N", title=None, scale=alt.Scale(domain=list(results))),
    )
    title = "Accuracy on CIFAR-10's test images and seconds of training"
    subtitle = [f"{machine}; a point is a whole training", "accuracy with six views of each image, where there are"]
    save_chart(apply_chart_style(chart, title, subtitle), stem, ["svg"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="holds cifar-10-batches-py")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the trainings themselves")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for results.jsonl and the figure")
    parser.add_argument("--seeds", type=int, default=5, help="of the fast recipe")
    parser.add_argument("--other-seeds", type=int, default=2, help="of all else")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.jsonl"
    for seed in range(max(options.seeds, options.other_seeds)):
        for name in options.only:
            if seed < (options.seeds if name in (FAST, SHORT) else options.other_seeds):
                keep_result(name, seed, options.data_dir, options.runs, path)
    results = read_results(path)
    if not results:
        print(f"{path} has no result yet")
    for machine in dict.fromkeys(result["processor"] for result in results):
        found = {
            name: [result for result in results if (result["training"], result["processor"]) == (name, machine)]
            for name in CONTENDERS
        }
        found = {name: those for name, those in found.items() if those}
        print(f"\n{machine}\n")
        report(found)
        draw(machine, found, options.out / file_name(machine))


if __name__ == "__main__":
    main()
