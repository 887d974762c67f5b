"""The command line: reads what a person types, calls the floors below, shows what came of it.

Torch and whatever else is slow to import is imported inside the command that needs it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from convolab.front.account_command import account
from convolab.front.terminal import Interrupts, TrainingBar, download_bar, table
from convolab.ground.errors import LabError, need

app = typer.Typer(
    name="convolab",
    help="A laboratory for convolutional networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Picture sets: list, look at, download.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.command()(account)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on standard output.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="The folder that holds the picture set, or where it is to go.", show_default="$CONVOLAB_DATA or ~/.cache/convolab"),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads.", show_default="all cores")]
RunFolder = Annotated[Path, typer.Argument(help="A run's folder.")]


def main() -> None:
    """Run the command line; a LabError becomes one line and exit code 2."""
    try:
        app()
    except LabError as error:
        print(f"convolab: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read our output has closed it, e.g. `convolab runs | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@app.command()
def train(
    network: Annotated[
        str | None, typer.Argument(help="A network's name, or your own as file.py:Name.", show_default="the recipe's")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="A recipe file (TOML).", show_default="the default recipe")] = None,
    data: Annotated[str | None, typer.Option(help="A picture set's name, or folder:PATH.", show_default="the recipe's")] = None,
    data_dir: DataDir = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key, e.g. optimizer.lr=0.1. May be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same as --set training.seed=N.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder, new or empty.", show_default="a new one in runs/")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    overfit_one_batch: Annotated[
        bool, typer.Option("--overfit-one-batch", help="Only check that the network learns one batch by heart.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a network on a picture set, and leave everything needed to get the same bits again."""
    need(network or recipe, "name a network, such as simple_convnet, or give a --recipe")
    prepare_torch(device, threads)
    from convolab.training.prepare import refuse_used
    from convolab.training.recipe import Recipe, parse_change
    from convolab.training.run import Run

    wanted = [("model.name", network), ("data.name", data), ("training.seed", seed)]
    named = {address: value for address, value in wanted if value is not None} | dict(parse_change(change) for change in changes or [])
    chosen = (Recipe.read(recipe) if recipe else Recipe()).changed(named)
    refuse_used(out)
    pictures = load_pictures(chosen.data.name, data_dir, chosen.data.size)
    if overfit_one_batch:
        overfit(chosen, pictures, out, as_json)
        return
    with TrainingBar(chosen.training.epochs) as bar, Interrupts() as interrupts:
        run = Run.start(chosen, pictures, out, device=device, data_dir=data_dir, on_step=bar.step, on_epoch=bar.epoch, stop=interrupts.stop)
    report(run, as_json)


@app.command()
def resume(folder: RunFolder, data_dir: DataDir = None, threads: Threads = None, as_json: AsJson = False) -> None:
    """Go on with a run that was stopped or killed: the same bits as if it never had been."""
    from convolab.training.run import Run

    run = Run(folder)
    prepare_torch(run.summary["device"], threads or run.summary["threads"])
    if run.status != "finished":
        pictures = run.pictures(data_dir)
        with TrainingBar(run.recipe.training.epochs) as bar, Interrupts() as interrupts:
            run.resume(pictures, on_step=bar.step, on_epoch=bar.epoch, on_note=say, stop=interrupts.stop)
    report(run, as_json)


@app.command()
def runs(folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs"), as_json: AsJson = False) -> None:
    """List the runs in a folder: recipe, epochs done, best validation accuracy, state."""
    from convolab.training.run import find_runs

    need(folder.is_dir(), f"there is no folder {folder}: give the one that holds your runs")
    found = [overview(run) for run in find_runs(folder)]
    if as_json:
        print_json(found)
        return
    need(found, f"{folder} holds no runs: train one with convolab train")
    rows = [
        [
            r["folder"],
            r["network"],
            r["data"],
            r["recipe_key"],
            f"{r['epochs_done']}/{r['epochs']}",
            percent(r["best_validation_accuracy"]),
            percent(r["test_accuracy"]),
            r["state"],
        ]
        for r in found
    ]
    table(["run", "network", "data", "recipe", "epochs", "best validation", "test", "state"], rows)


@app.command()
def test(
    folder: RunFolder,
    data_dir: DataDir = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Test a run that has not done all its epochs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where the confusion matrix's pictures go.", show_default="the run's folder")] = None,
    as_json: AsJson = False,
) -> None:
    """Test the best weights of a run on the test set, once, and record it."""
    from convolab.front import plots
    from convolab.training.run import Run

    run = Run(folder)
    record = run.test(data_dir=data_dir, unfinished=unfinished)
    classes = list(record["per_class"])
    title = f"{run.recipe.model.name} on the test pictures of {run.recipe.data.name}: {percent(record['accuracy'])}"
    plots.save_chart(plots.confusion(record["confusion"], classes, title), (out or folder) / "confusion")
    if as_json:
        print_json(record)
        return
    low, high = record["interval"]
    print(
        f"test accuracy {percent(record['accuracy'])} (95 % interval {100 * low:.2f} to {percent(high)}): {record['correct']} of {record['count']} pictures, with the weights of epoch {record['epoch']}"
    )
    table(["class", "accuracy"], [[name, percent(value)] for name, value in record["per_class"].items()])
    print(f"confusion matrix: {(out or folder) / 'confusion.html'} (also .svg and .png)")


@app.command()
def predict(
    folder: RunFolder,
    picture: Annotated[Path, typer.Argument(help="A picture of any format and size.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Name the most probable classes of a picture, resized as the run's pictures were."""
    from convolab.training.run import Run

    found = Run(folder).predict(picture, top)
    if as_json:
        print_json([{"class": name, "probability": probability} for name, probability in found])
    else:
        table(["class", "probability"], [[name, percent(probability)] for name, probability in found])


@data_app.command("list")
def data_list(as_json: AsJson = False) -> None:
    """List the picture sets."""
    from convolab.images.sources import SOURCES

    if as_json:
        print_json(
            [
                {
                    "name": s.name,
                    "summary": s.summary,
                    "shape": s.shape,
                    "classes": s.classes,
                    "train": s.train,
                    "test": s.test,
                    "megabytes": s.megabytes,
                    "augment": s.augment,
                }
                for s in SOURCES.values()
            ]
        )
        return
    rows = [
        [
            s.name,
            "x".join(map(str, s.shape)),
            str(s.classes),
            f"{s.train:,}",
            f"{s.test:,}",
            f"{s.megabytes:g} MB" if s.megabytes else "embedded",
            s.summary,
        ]
        for s in SOURCES.values()
    ]
    rows.append(
        ["folder:PATH", "any", "any", "", "", "yours", "a folder of pictures per class; train/ and test/ above them if there are both"]
    )
    table(["name", "shape", "classes", "train", "test", "download", "what it shows"], rows)


@data_app.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A picture set's name, or folder:PATH.")],
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("sheet.png"),
    data_dir: DataDir = None,
    size: Annotated[int, typer.Option(min=8, max=64, help="Side to which a folder's pictures are resized.")] = 32,
    as_json: AsJson = False,
) -> None:
    """Write a sheet with the first pictures of each class."""
    from convolab.front import plots

    need(out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"), f"--out {out}: end it in .png, .jpg or .webp")
    pictures = load_pictures(name, data_dir, size)
    plots.save_image(plots.sheet(pictures.train), out)
    facts = {
        "name": name,
        "shape": pictures.train.shape,
        "train": len(pictures.train),
        "test": len(pictures.test),
        "classes": pictures.train.classes,
        "unreadable": pictures.unreadable,
        "sheet": str(out),
    }
    if as_json:
        print_json(facts)
    else:
        print(f"{pictures.train!r} to train on, {len(pictures.test):,} to test on; sheet: {out}")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="A picture set's name.")], data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Download a picture set from its official address, checked by its checksum; goes on where it was cut off."""
    from convolab.images.sources import fetch

    with download_bar(name) as progress:
        folder = fetch(name, data_dir, on_progress=progress)
    if as_json:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(f"{name} is in {folder}")


def prepare_torch(device: str, threads: int | None) -> None:
    """Set the number of threads, and refuse a device that is not there."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = device.partition(":")[0]
    need(kind in present, f"unknown device '{device}': give cpu, cuda or mps")
    need(present[kind], f"this machine has no {kind} that torch can use: give --device cpu")


def load_pictures(name: str, data_dir: Path | None, size: int) -> Any:
    """Load a set with a bar while it is downloaded or read, and name the files that could not be read."""
    from convolab.images.sources import load

    with download_bar(name) as progress:
        pictures = load(name, data_dir, size=size, on_progress=progress)
    for file in pictures.unreadable:
        say(f"left out: {file}")
    return pictures


def overfit(recipe: Any, pictures: Any, out: Path | None, as_json: bool) -> None:
    """Learn one batch by heart; exit 1 if that cannot be done."""
    from convolab.training.prepare import overfit_one_batch

    steps, accuracies = overfit_one_batch(recipe, pictures)
    result = {"reached": steps is not None, "steps": steps, "accuracy": accuracies[-1], "batch_size": recipe.training.batch_size}
    if out:
        from convolab.front import plots
        from convolab.ground.files import write_json

        plots.save_chart(plots.overfit(accuracies, f"{recipe.model.name} on one batch of {recipe.data.name}"), out / "overfit")
        write_json(out / "overfit.json", result | {"accuracies": accuracies})
    if as_json:
        print_json(result)
    elif steps is not None:
        print(f"{recipe.model.name} classifies all {recipe.training.batch_size} pictures of one batch correctly after {steps} steps")
    else:
        print(
            f"{recipe.model.name} does not learn one batch: {percent(accuracies[-1])} after {len(accuracies) - 1} steps; look at the network and optimizer.lr"
        )
    if steps is None:
        raise typer.Exit(1)


def report(run: Any, as_json: bool) -> None:
    """Draw a run's curves and say how it stands."""
    from convolab.front import plots

    history = run.history
    if history:
        plots.save_chart(
            plots.curves(history, f"{run.recipe.model.name} on {run.recipe.data.name}, recipe {run.recipe.key}"), run.folder / "curves"
        )
    facts = overview(run)
    if as_json:
        print_json(facts)
        return
    best = (
        f", best validation accuracy {percent(facts['best_validation_accuracy'])} in epoch {run.best.epoch}"
        if facts["best_validation_accuracy"] is not None
        else ""
    )
    print(f"{run.folder}: {facts['state']} after {facts['epochs_done']} of {facts['epochs']} epochs{best}")
    if history:
        print(f"curves: {run.folder / 'curves.html'} (also .svg and .png)")
    print(f"next: convolab {'test' if facts['state'] == 'finished' else 'resume'} {run.folder}")


def overview(run: Any) -> dict[str, Any]:
    """What the table of runs says of one."""
    best = run.best
    return {
        "folder": str(run.folder),
        "network": run.recipe.model.name,
        "data": run.recipe.data.name,
        "recipe_key": run.recipe.key,
        "epochs_done": len(run.history),
        "epochs": run.recipe.training.epochs,
        "best_validation_accuracy": best.validation_accuracy if best else None,
        "test_accuracy": run.tested["accuracy"] if run.tested else None,
        "state": run.status,
    }


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def say(note: str) -> None:
    """A remark beside the result."""
    print(f"convolab: {note}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
