"""A teacher's own homework, small enough to be executed in a test, and hand-ins of it: honest ones, and changed ones."""

import json
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convolab.core.files import sha256_of
from convolab.handin.homework import Homework, read_homework
from convolab.handin.notebooks import build_notebook, notebook_json
from convolab.handin.pack import pack_homework, write_zip
from convolab.handin.start import start_homework

NOTEBOOK = "question5_width"
TOML = """
format = 1
title = "How wide a network must be"
min_comment_words = 12

[question1]
title = "what a convolution costs, in other sizes"
answers = "question1_answers.md"
pdf = "question1.pdf"
points = 10
sizes = { samples = 64, maps = 4, kernel_size = 5 }

[budgets.digits]
limit = 300
epochs = 2
batch_size = 64
seeds = 2
small_epochs = 2

[budgets.digits-fast]
limit = 200
epochs = 1
batch_size = 64
seeds = 2
small_epochs = 1

[recipes.own]
"data.validation" = 0.2
"data.augment" = []
"optimizer.name" = "adam"
"optimizer.lr" = 0.01
"schedule.name" = "constant"

[arms]
WIDTHS = [8, 32]

[[notebooks]]
name = "question5_width"
title = "Question 5: how wide must it be?"
source = "question5_width.py"
recipe = "own"
num_runs = { digits = 2, digits-fast = 2 }
charts_repeat = true

[[items]]
id = "5.1"
question = 5
title = "the mean over the classes"
notebook = "question5_width"
code = ["q5-1-mean"]
checks = ["q5-1-check"]
points = 2.5

[[items]]
id = "5.2"
question = 5
title = "two seeds of a wide network"
notebook = "question5_width"
checks = ["q5-2-check"]
figures = ["q5-2-figure"]
comments = ["q5-2-comment"]
values = [
    { cell = "q5-2-figure", label = "validation accuracy of seed 0", ranges = { digits = [0.05, 1.0] }, support = "chart" },
    { cell = "q5-2-test", label = "test accuracy", ranges = { digits = [0.05, 1.0] }, support = "interval" },
]
evidence = [{ cell = "q5-2-check", label = "accuracies" }]
points = 5
"""
SOURCE = '''
# %% [markdown] name="q5-title"
# # Question 5: how wide must it be?

# %% name="q5-settings"
import os

import torch
from IPython.display import display

import convolab
from convolab.core.stats import wilson_interval
from convolab.handin.figures import plot_curves
from convolab.handin.one_line_errors import one_line_errors
from convolab.training.callbacks import Callbacks

DATA = "digits"  # or "cifar10"
FAST = False

DATA = os.environ.get("CONVOLAB_HOMEWORK_DATA", DATA)
FAST = os.environ.get("CONVOLAB_FAST", "1" if FAST else "0") == "1"
BUDGETS = {}  # from homework.toml
BUDGET = BUDGETS[f"{DATA}-fast" if FAST else DATA]
print(f"data = {DATA}\\nfast = {FAST}\\ntorch = {torch.__version__}, {torch.get_num_threads()} threads")

# %% name="q5-1-mean" tags=["gap"]
WIDTHS = [4]


def mean_accuracy(accuracies):
    """The mean of some accuracies."""
    # BEGIN SOLUTION: add them up, divide by their number
    return sum(accuracies) / len(accuracies)
    # END SOLUTION


# %% name="q5-1-check" tags=["check"]
with one_line_errors("part 1"):
    assert mean_accuracy([0.5, 1.0]) == 0.75, "mean_accuracy: of 0.5 and 1 it is 0.75"
    print("The mean is right.")

# %% name="q5-2-runs"
RECIPE = {}  # from homework.toml
runs = []
for seed in range(BUDGET["seeds"]):
    run = convolab.train(
        "simple_convnet", DATA, seed=seed, epochs=BUDGET["epochs"], batch_size=BUDGET["batch_size"],
        callbacks=None if seed == 0 else Callbacks(),
        overrides={**RECIPE, "data.limit": BUDGET["limit"], "model.channels": WIDTHS},
    )
    runs.append(run)

# %% name="q5-2-check" tags=["check"]
with one_line_errors("part 2"):
    assert len(runs) == BUDGET["seeds"], "run the cell above"
    accuracies = [run.history[-1].validation_accuracy for run in runs]
    print(f"accuracies {accuracies}\\nmean of all = {mean_accuracy(accuracies):.4f}")

# %% name="q5-2-figure" tags=["figure"]
with one_line_errors("part 2"):
    histories = {f"seed {seed}": [vars(epoch) for epoch in run.history] for seed, run in enumerate(runs)}
    display(plot_curves(histories, ["train_loss", "validation_accuracy"], title="Two seeds, as wide as asked"))
    for seed, run in enumerate(runs):
        print(f"validation accuracy of seed {seed} = {run.history[-1].validation_accuracy:.4f}")

# %% name="q5-2-second-figure"
plot_curves(histories, ["validation_loss"], title="Losses of two seeds")

# %% name="q5-2-test"
result = runs[0].test()
low, high = wilson_interval(result.correct, result.count)
print(f"test accuracy = {result.accuracy:.4f}\\n95 % interval {low:.4f} to {high:.4f}")

# %% name="q5-2-comment" tags=["comment"]
# PROMPT: How much do seeds differ?
from IPython.display import Markdown

display(Markdown(f"The two seeds differ by {abs(accuracies[0] - accuracies[1]):.2%} on validation, with widths {WIDTHS}."))
'''
ANSWERS = """## 1(a)

Neighbors belong together, says {name}.

## 1(b)

By the chain rule.

## 1(c)

Count them.
"""
WORDS = [
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "islet", "jetty", "knoll", "lagoon", "meadow",
    "north", "orchard", "prairie", "quarry", "ridge", "summit", "tundra", "upland", "valley", "willow", "xenon", "zephyr",
]  # fmt: skip


def write_teachers_files(folder: Path) -> Homework:
    """The teacher's two files in a folder, and the homework that they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.toml").write_text(TOML)
    (folder / f"{NOTEBOOK}.py").write_text(SOURCE)
    return read_homework(folder / "mine.toml")


def execute_solution(homework: Homework, folder: Path) -> None:
    """Lay the homework out in a folder, and put the executed solution and its runs there."""
    import nbformat
    from nbclient import NotebookClient

    start_homework(homework, folder)
    notebook = nbformat.reads(notebook_json(build_notebook(homework, NOTEBOOK, "solution", "digits")), as_version=4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", coalesce_streams=True, record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    client.execute(env={**os.environ, "CONVOLAB_FAST": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1"})
    (folder / f"{NOTEBOOK}.ipynb").write_text(nbformat.writes(notebook))


def own_comment(number: int) -> str:
    """A comment that nobody else has."""
    return " ".join(random.Random(number).choices(WORDS, k=40))


def copy_as(solved: Path, folder: Path, name: str, number: int) -> Path:
    """The folder of another person who did the same on the same kind of machine: own words, own times, equal bits."""
    shutil.copytree(solved, folder)
    for path in folder.glob("*.ipynb"):
        content = json.loads(path.read_text())
        for cell in content["cells"]:
            if cell["metadata"].get("tags") == ["comment"]:
                for key in ("execution_count", "outputs"):
                    cell.pop(key, None)
                cell.update(cell_type="markdown", source=own_comment(number))
        counts = iter(range(1, 1000))
        for cell in content["cells"]:
            if cell["cell_type"] == "code" and cell["execution_count"]:
                cell["execution_count"] = next(counts)
                for output in cell["outputs"]:
                    if output["output_type"] == "execute_result":
                        output["execution_count"] = cell["execution_count"]
        text = re.sub(r"(\d) s, [\d,]+ images/s", rf"\g<1> s, {1000 + number} images/s", json.dumps(content))
        path.write_text(text)
    answers = folder / "question1_answers.md"
    answers.write_text(ANSWERS.format(name=name))
    for run in sorted((folder / "runs").iterdir()):
        slow_down(run, 1 + number / 64)
    return folder


def slow_down(run: Path, factor: float) -> None:
    """A run as a slower machine of the same kind would have made it."""

    def slower(record: dict[str, Any]) -> dict[str, Any]:
        seconds = record["train_seconds"] * factor
        return {**record, "train_seconds": seconds, "images_per_second": record["images_per_second"] / factor}

    records = [slower(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    summary = json.loads((run / "summary.json").read_text())
    summary["best"] = slower(summary["best"])
    summary["train_seconds"] = sum(record["train_seconds"] for record in records)
    (run / "summary.json").write_text(json.dumps(summary))


def pack(homework: Homework, folder: Path, name: str, out: Path | None = None) -> Path:
    """The hand-in of a folder."""
    path = out or folder.parent / f"{name}.zip"
    pack_homework(homework, folder, path, name)
    return path


def repack(path: Path, edit: Callable[[dict[str, bytes]], None], *, fix_digests: bool = True) -> Path:
    """Change the files of a zip, and write it as `pack` does, with `fix_digests` those of its manifest too."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    edit(files)
    if fix_digests:
        manifest = json.loads(files["manifest.json"])
        manifest["sha256"] = {name: sha256_of(files[name]) for name in sorted(files) if name != "manifest.json"}
        files["manifest.json"] = json.dumps(manifest).encode()
    path.unlink()
    write_zip(path, files)
    return path


def edit_notebook(folder: Path, change: Callable[[dict[str, Any]], None], name: str = NOTEBOOK) -> None:
    """Change a notebook of a folder: a function is called with its cells by name."""
    path = folder / f"{name}.ipynb"
    content = json.loads(path.read_text())
    change({cell["metadata"]["name"]: cell for cell in content["cells"]})
    path.write_text(json.dumps(content))


def replace_in_outputs(cell: dict[str, Any], old: str, new: str) -> None:
    """Replace a text in all outputs of a cell."""
    before = json.dumps(cell["outputs"])
    assert old in before
    cell["outputs"] = json.loads(before.replace(old, new))
