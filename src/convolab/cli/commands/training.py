"""Runs: train, resume, list, test, predict."""

from pathlib import Path
from typing import Annotated, Any

import typer

from convolab.cli.options import AsJson, DataDir, Device, RunFolder, Threads, load_pictures, prepare_torch
from convolab.cli.terminal import Interrupts, TrainingBar, percent, print_json, say, table
from convolab.core.errors import need


def train(
    network: Annotated[
        str | None, typer.Argument(help="A network's name, or your own as file.py:Name.", show_default="the recipe's")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe file (TOML).", show_default="the default recipe")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A picture set's name, or folder:PATH.", show_default="the recipe's")
    ] = None,
    data_dir: DataDir = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change a recipe key, e.g. optimizer.lr=0.1. May be repeated.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same as --set training.seed=N.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder, new or empty.", show_default="a new one in runs/")
    ] = None,
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
    from convolab.training.recipe import Recipe, parse_change
    from convolab.training.run import Run
    from convolab.training.setup import refuse_used

    wanted = [("model.name", network), ("data.name", data), ("training.seed", seed)]
    named = {address: value for address, value in wanted if value is not None} | dict(
        parse_change(change) for change in changes or []
    )
    chosen = (Recipe.read(recipe) if recipe else Recipe()).changed(named)
    refuse_used(out)
    pictures = load_pictures(chosen.data.name, data_dir, chosen.data.size)
    if overfit_one_batch:
        overfit(chosen, pictures, out, as_json)
        return
    with TrainingBar(chosen.training.epochs) as bar, Interrupts() as interrupts:
        run = Run.start(
            chosen,
            pictures,
            out,
            device=device,
            data_dir=data_dir,
            on_step=bar.step,
            on_epoch=bar.epoch,
            stop=interrupts.stop,
        )
    report(run, as_json)


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


def runs(
    folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs"), as_json: AsJson = False
) -> None:
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


def test(
    folder: RunFolder,
    data_dir: DataDir = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Test a run that has not done all its epochs.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Where the confusion matrix's pictures go.", show_default="the run's folder")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test the best weights of a run on the test set, once, and record it."""
    from convolab.plots import training as training_plots
    from convolab.training.run import Run

    run = Run(folder)
    record = run.test(data_dir=data_dir, unfinished=unfinished)
    classes = list(record["per_class"])
    title = f"{run.recipe.model.name} on the test pictures of {run.recipe.data.name}: {percent(record['accuracy'])}"
    training_plots.save_chart(
        training_plots.confusion(record["confusion"], classes, title), (out or folder) / "confusion"
    )
    if as_json:
        print_json(record)
        return
    low, high = record["interval"]
    print(
        f"test accuracy {percent(record['accuracy'])} (95 % interval {100 * low:.2f} to {percent(high)}): {record['correct']} of {record['count']} pictures, with the weights of epoch {record['epoch']}"
    )
    table(["class", "accuracy"], [[name, percent(value)] for name, value in record["per_class"].items()])
    print(f"confusion matrix: {(out or folder) / 'confusion.html'} (also .svg and .png)")


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


def overfit(recipe: Any, pictures: Any, out: Path | None, as_json: bool) -> None:
    """Learn one batch by heart; exit 1 if that cannot be done."""
    from convolab.training.setup import overfit_one_batch

    steps, accuracies = overfit_one_batch(recipe, pictures)
    result = {
        "reached": steps is not None,
        "steps": steps,
        "accuracy": accuracies[-1],
        "batch_size": recipe.training.batch_size,
    }
    if out:
        from convolab.core.files import write_json
        from convolab.plots import training as training_plots

        training_plots.save_chart(
            training_plots.overfit(accuracies, f"{recipe.model.name} on one batch of {recipe.data.name}"),
            out / "overfit",
        )
        write_json(out / "overfit.json", result | {"accuracies": accuracies})
    if as_json:
        print_json(result)
    elif steps is not None:
        print(
            f"{recipe.model.name} classifies all {recipe.training.batch_size} pictures of one batch correctly after {steps} steps"
        )
    else:
        print(
            f"{recipe.model.name} does not learn one batch: {percent(accuracies[-1])} after {len(accuracies) - 1} steps; look at the network and optimizer.lr"
        )
    if steps is None:
        raise typer.Exit(1)


def report(run: Any, as_json: bool) -> None:
    """Draw a run's curves and say how it stands."""
    from convolab.plots import training as training_plots

    history = run.history
    if history:
        training_plots.save_chart(
            training_plots.curves(
                history, f"{run.recipe.model.name} on {run.recipe.data.name}, recipe {run.recipe.key}"
            ),
            run.folder / "curves",
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
