"""`convolab train`: one recipe becomes one run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.options import (
    AsJson,
    BatchSize,
    DataDir,
    DataOption,
    Device,
    EpochsOption,
    Log,
    SetOption,
    Threads,
    load_dataset_with_progress,
    prepare_torch,
    recipe_changes,
)
from convolab.cli.run_status import report_run
from convolab.cli.terminal import print_json, print_lines, print_note
from convolab.core.errors import require
from convolab.core.outputs import OVERFIT_CHECK, require_outputs, write_json_output
from convolab.core.text import format_percent

if TYPE_CHECKING:
    from convolab.data.splits import DatasetSplits
    from convolab.training.recipe import Recipe


def train_command(
    network: Annotated[
        str | None,
        typer.Argument(
            help="simple_convnet, shallow_net, resnet_small, whitened_convnet, efficientnet_lite0, timm/NAME, "
            "torchvision/NAME, your own as file.py:Name, or a recipe's file (TOML); convolab summary NAME lists a network's options.",
            show_default="the recipe's",
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe file (TOML).", show_default="the default recipe")
    ] = None,
    data: DataOption = None,
    data_dir: DataDir = None,
    overrides: SetOption = None,
    epochs: EpochsOption = None,
    lr: Annotated[
        float | None,
        typer.Option(help="The learning rate (optimizer.lr).", show_default="the recipe's, else the optimizer's"),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sgd, adam, adamw, muon, a class of torch.optim, or your own as file.py:Name (optimizer.name).",
            show_default="the recipe's, else sgd",
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Of the learning rate: constant, step, cosine, linear, one_cycle, a class of torch.optim.lr_scheduler, "
            "or your own as file.py:name (schedule.name).",
            show_default="the recipe's, else step",
        ),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Random transforms of the training images, with commas between, such as crop:4,flip; or none (data.augment).",
            show_default="the recipe's, else the dataset's",
        ),
    ] = None,
    batch_size: BatchSize = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of the split, the first weights and the order of the images (training.seed).",
            show_default="the recipe's, else 0",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the run; must be new or empty.", show_default="a new one in runs/"),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    overfit_one_batch: Annotated[
        bool, typer.Option("--overfit-one-batch", help="Only check that the network can overfit a single batch.")
    ] = False,
    log: Log = None,
    as_json: AsJson = False,
) -> None:
    """Train a network on a dataset, and save everything needed to reproduce it bit for bit."""
    require(network or recipe, "name a network, such as simple_convnet, or give a --recipe")
    if network and network.endswith(".toml"):
        require(recipe is None, f"{network} and {recipe} are both recipes: leave one of them out")
        network, recipe = None, Path(network)
    busy_note = prepare_torch(device, threads)
    from convolab.reports.live import live_training
    from convolab.training.epoch_log import require_logger
    from convolab.training.recipe import Recipe, transform_list
    from convolab.training.run import Run
    from convolab.training.run_folder import require_new_folder

    named_options = {
        "model.name": network, "data.name": data, "training.epochs": epochs, "optimizer.lr": lr,
        "training.batch_size": batch_size, "training.seed": seed, "optimizer.name": optimizer, "schedule.name": schedule,
        "data.augment": None if augment is None else transform_list(augment),
    }  # fmt: skip
    changes = recipe_changes(named_options, overrides)
    resolved_recipe = (Recipe.read(recipe) if recipe else Recipe()).with_overrides(changes)
    require(not (overfit_one_batch and log), "--log is for a training of epochs: --overfit-one-batch has none")
    if overfit_one_batch and out is not None:
        require_outputs(OVERFIT_CHECK, overfit_paths(out))
    else:
        require_new_folder(out)
    require_logger(log)
    splits = load_dataset_with_progress(resolved_recipe.data.name, data_dir, resolved_recipe.data.image_size)
    if overfit_one_batch:
        overfit_check(resolved_recipe, splits, out, as_json)
        return
    if busy_note:
        print_note(busy_note)
    with live_training(resolved_recipe.training.epochs) as callbacks:
        run = Run.start(resolved_recipe, splits, out, device=device, data_dir=data_dir, callbacks=callbacks, log=log)
    report_run(run, as_json)


def overfit_paths(out: Path) -> list[Path]:
    """The files of the check."""
    return [out / f"overfit.{suffix}" for suffix in ("html", "svg", "png", "json")]


def overfit_check(recipe: "Recipe", splits: "DatasetSplits", out: Path | None, as_json: bool) -> None:
    """Overfit a single batch; exit with status 1 if that fails."""
    from convolab.training.overfit import check_overfit

    steps, accuracies = check_overfit(recipe, splits)
    result = {
        "success": steps is not None,
        "steps": steps,
        "accuracy": accuracies[-1],
        "batch_size": recipe.training.batch_size,
    }
    if out:
        from convolab.plots import training as training_plots
        from convolab.plots.style import save_chart

        title = f"{recipe.model.name} on one batch of {recipe.data.name}"
        save_chart(training_plots.overfit_one_batch_chart(accuracies, title), out / "overfit", kind=OVERFIT_CHECK)
        write_json_output(out / "overfit.json", OVERFIT_CHECK, result | {"accuracies": accuracies})
    if as_json:
        print_json(result)
    elif steps is not None:
        print_lines(
            f"{recipe.model.name} fits all {recipe.training.batch_size} images of one batch after {steps} steps"
        )
    else:
        print_lines(
            f"{recipe.model.name} cannot overfit one batch: {format_percent(accuracies[-1])} after "
            f"{len(accuracies) - 1} steps; check the network and optimizer.lr"
        )
    if out and not as_json:
        print_lines(f"curve: {out / 'overfit.html'} (also .svg, .png and .json)")
    if steps is None:
        raise typer.Exit(1)
