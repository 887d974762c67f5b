"""Runs: train, resume, list, test, predict."""

from pathlib import Path
from typing import Annotated, Any

import typer

from convolab.cli.options import AsJson, DataDir, Device, RunFolder, Threads, load_dataset_with_progress, prepare_torch
from convolab.cli.terminal import InterruptHandler, TrainingBar, format_percent, print_json, print_note, print_table
from convolab.core.errors import require


def train_command(
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
    overrides: Annotated[
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
    require(network or recipe, "name a network, such as simple_convnet, or give a --recipe")
    prepare_torch(device, threads)
    from convolab.training.recipe import Recipe, parse_override
    from convolab.training.run import Run
    from convolab.training.setup import require_new_folder

    named_options = [("model.name", network), ("data.name", data), ("training.seed", seed)]
    overrides_by_key = {key: value for key, value in named_options if value is not None} | dict(
        parse_override(change) for change in overrides or []
    )
    resolved_recipe = (Recipe.read(recipe) if recipe else Recipe()).with_overrides(overrides_by_key)
    require_new_folder(out)
    splits = load_dataset_with_progress(resolved_recipe.data.name, data_dir, resolved_recipe.data.image_size)
    if overfit_one_batch:
        overfit_check(resolved_recipe, splits, out, as_json)
        return
    with TrainingBar(resolved_recipe.training.epochs) as bar, InterruptHandler() as interrupts:
        run = Run.start(
            resolved_recipe,
            splits,
            out,
            device=device,
            data_dir=data_dir,
            on_step=bar.on_step,
            on_epoch=bar.on_epoch,
            stop=interrupts.stop_requested,
        )
    report_run(run, as_json)


def resume_command(
    folder: RunFolder, data_dir: DataDir = None, threads: Threads = None, as_json: AsJson = False
) -> None:
    """Go on with a run that was stopped or killed: the same bits as if it never had been."""
    from convolab.training.run import Run

    run = Run(folder)
    prepare_torch(run.summary["device"], threads or run.summary["threads"])
    if run.status != "finished":
        splits = run.load_splits(data_dir)
        with TrainingBar(run.recipe.training.epochs) as bar, InterruptHandler() as interrupts:
            run.resume(
                splits,
                on_step=bar.on_step,
                on_epoch=bar.on_epoch,
                on_message=print_note,
                stop=interrupts.stop_requested,
            )
    report_run(run, as_json)


def runs_command(
    folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs"), as_json: AsJson = False
) -> None:
    """List the runs in a folder: recipe, epochs done, best validation accuracy, state."""
    from convolab.training.run import find_runs

    require(folder.is_dir(), f"there is no folder {folder}: give the one that holds your runs")
    overviews = [run_overview(run) for run in find_runs(folder)]
    if as_json:
        print_json(overviews)
        return
    require(overviews, f"{folder} holds no runs: train one with convolab train")
    rows = [
        [
            r["folder"],
            r["network"],
            r["data"],
            r["recipe_key"],
            f"{r['epochs_done']}/{r['epochs']}",
            format_percent(r["best_validation_accuracy"]),
            format_percent(r["test_accuracy"]),
            r["state"],
        ]
        for r in overviews
    ]
    print_table(["run", "network", "data", "recipe", "epochs", "best validation", "test", "state"], rows)


def test_command(
    folder: RunFolder,
    data_dir: DataDir = None,
    allow_unfinished: Annotated[
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
    record = run.test(data_dir=data_dir, allow_unfinished=allow_unfinished)
    classes = list(record["per_class"])
    title = (
        f"{run.recipe.model.name} on the test pictures of {run.recipe.data.name}: {format_percent(record['accuracy'])}"
    )
    training_plots.save_chart(
        training_plots.confusion_matrix_chart(record["confusion"], classes, title), (out or folder) / "confusion"
    )
    if as_json:
        print_json(record)
        return
    low, high = record["interval"]
    print(
        f"test accuracy {format_percent(record['accuracy'])} (95 % interval {100 * low:.2f} to {format_percent(high)}): {record['correct']} of {record['count']} pictures, with the weights of epoch {record['epoch']}"
    )
    print_table(["class", "accuracy"], [[name, format_percent(value)] for name, value in record["per_class"].items()])
    print(f"confusion matrix: {(out or folder) / 'confusion.html'} (also .svg and .png)")


def predict_command(
    folder: RunFolder,
    image: Annotated[Path, typer.Argument(help="A picture of any format and size.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Name the most probable classes of a picture, resized as the run's pictures were."""
    from convolab.training.run import Run

    predictions = Run(folder).predict(image, top)
    if as_json:
        print_json([{"class": name, "probability": probability} for name, probability in predictions])
    else:
        print_table(
            ["class", "probability"], [[name, format_percent(probability)] for name, probability in predictions]
        )


def overfit_check(recipe: Any, splits: Any, out: Path | None, as_json: bool) -> None:
    """Learn one batch by heart; exit 1 if that cannot be done."""
    from convolab.training.setup import check_overfit

    steps, accuracies = check_overfit(recipe, splits)
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
            training_plots.overfit_one_batch_chart(
                accuracies, f"{recipe.model.name} on one batch of {recipe.data.name}"
            ),
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
            f"{recipe.model.name} does not learn one batch: {format_percent(accuracies[-1])} after {len(accuracies) - 1} steps; look at the network and optimizer.lr"
        )
    if steps is None:
        raise typer.Exit(1)


def report_run(run: Any, as_json: bool) -> None:
    """Draw a run's curves and say how it stands."""
    from convolab.plots import training as training_plots

    history = run.history
    if history:
        training_plots.save_chart(
            training_plots.training_curves_chart(
                history, f"{run.recipe.model.name} on {run.recipe.data.name}, recipe {run.recipe.key}"
            ),
            run.folder / "curves",
        )
    overview = run_overview(run)
    if as_json:
        print_json(overview)
        return
    best = (
        f", best validation accuracy {format_percent(overview['best_validation_accuracy'])} in epoch {run.best.epoch}"
        if overview["best_validation_accuracy"] is not None
        else ""
    )
    print(f"{run.folder}: {overview['state']} after {overview['epochs_done']} of {overview['epochs']} epochs{best}")
    if history:
        print(f"curves: {run.folder / 'curves.html'} (also .svg and .png)")
    print(f"next: convolab {'test' if overview['state'] == 'finished' else 'resume'} {run.folder}")


def run_overview(run: Any) -> dict[str, Any]:
    """What the table of runs says of one."""
    best = run.best_epoch
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
