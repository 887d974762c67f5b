"""The fast recipe against the default one in the same seconds, on data that it was not made for.

    python benchmarks/fast_elsewhere.py --data digits
    python benchmarks/fast_elsewhere.py --data cifar10 --images 5000 --data-dir DIR
    python benchmarks/fast_elsewhere.py --data cifar100 --data-dir DIR
    python benchmarks/fast_elsewhere.py --data fashion_mnist --data-dir DIR

The default recipe gets as many epochs as take the seconds that the fast one took with the same seed, going by an epoch of its own
that is timed first, and one at least; its rate falls after half of them, as it does in the recipe's own ten. On another dataset than
its own the fast recipe augments as is usual for that dataset, as with `convolab train --recipe recipes/cifar10_94.toml --data NAME`.
Both train on all training images, or on the same --images of them, and are tested once.
Seconds are those of training. Images that are not in --data-dir are fetched, where that is possible.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from fast import RECIPE, accuracy_cell
from measure import processor, table, verdict

import convolab
from convolab.core.stats import paired_t_test
from convolab.core.types import Json
from convolab.training.callbacks import Callbacks
from convolab.training.recipe import Recipe

DEFAULT, FAST = "default recipe", RECIPE.stem
Result = Mapping[str, float]


def train(recipe: Recipe, data_dir: Path | None, overrides: Mapping[str, Json]) -> Result:
    """Train and test once: seconds, epochs and accuracies."""
    with tempfile.TemporaryDirectory() as folder:
        run = convolab.train(
            recipe, out=Path(folder) / "run", data_dir=data_dir, overrides=overrides, callbacks=Callbacks()
        )
        record = run.test(data_dir=data_dir)
        views = {"test_accuracy_of_6_views": record.with_views.accuracy} if record.with_views else {}
        seconds = sum(epoch.train_seconds for epoch in run.history)
        return {"seconds": seconds, "epochs": len(run.history), "test_accuracy": record.accuracy, **views}


def compare_once(data: Mapping[str, Json], data_dir: Path | None, seed: int) -> dict[str, Result]:
    overrides = {**data, "training.seed": seed, "data.validation": 0}
    fast = train(Recipe.read(RECIPE), data_dir, overrides)
    one = train(Recipe(), data_dir, {**overrides, "training.epochs": 2})
    epochs = max(1, round(fast["seconds"] / (one["seconds"] / 2)))
    # By default the rate falls every 5 epochs of 10: it would be nearly 0 for most of many epochs.
    length = {"training.epochs": epochs, "schedule.step_size": max(1, round(epochs / 2))}
    return {FAST: fast, DEFAULT: train(Recipe(), data_dir, {**overrides, **length})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="name of a dataset")
    parser.add_argument("--images", type=int, help="train on this many only")
    parser.add_argument("--data-dir", type=Path, help="folder of the dataset")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    data: dict[str, Json] = {"data.name": options.data}
    if options.images is not None:
        data["data.limit"] = options.images
    results = [compare_once(data, options.data_dir, seed) for seed in range(options.seeds)]
    rows = []
    for name in (FAST, DEFAULT):
        found = [result[name] for result in results]
        row = {"recipe": name, "epochs": f"{median(one['epochs'] for one in found):,.0f}"}
        row["seconds"] = f"{median(one['seconds'] for one in found):,.1f}"
        row["test accuracy"] = accuracy_cell(found, "test_accuracy")
        row["with six views"] = accuracy_cell(found, "test_accuracy_of_6_views")
        rows.append(row)
    images = "" if options.images is None else f", {options.images:,} training images"
    print(f"{processor()}; {options.data}{images}, {options.seeds} seeds\n\n{table(rows)}")
    fast, default = ([result[name]["test_accuracy"] for result in results] for name in (FAST, DEFAULT))
    if test := paired_t_test(fast, default):
        met = verdict(test.difference.low is not None and test.difference.low > 0)
        print(
            f"\n- {100 * test.difference.mean:+.2f} percentage points of test accuracy, one view each, p = {test.p:.2g} (goal better: {met})"
        )


if __name__ == "__main__":
    main()
