"""`convolab test`: the best weights of a run on the test set, once."""

from pathlib import Path
from typing import Annotated

import typer

from convolab.cli.options import AsJson, DataDir, RunFolder
from convolab.cli.run_status import open_run
from convolab.cli.terminal import print_json, print_lines, print_table
from convolab.core.outputs import CONFUSION_MATRIX, own_kind, require_outputs
from convolab.core.text import format_percent


def test_command(
    folder: RunFolder,
    data_dir: DataDir = None,
    allow_unfinished: Annotated[
        bool, typer.Option("--allow-unfinished", help="Also test a run that has not finished its epochs.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the confusion matrix (HTML, SVG, PNG).", show_default="the run's folder"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run's best weights on the test set, once, and record the result."""
    from convolab.plots import training as training_plots
    from convolab.plots.style import chart_paths, save_chart

    run = open_run(folder)
    kind = own_kind(CONFUSION_MATRIX, run.summary["recipe_key"])
    stem = (out or folder) / "confusion"
    require_outputs(kind, chart_paths(stem))
    record = run.test(data_dir=data_dir, allow_unfinished=allow_unfinished)
    accuracy = format_percent(record.accuracy)
    title = f"{run.recipe.model.name} on the test images of {run.recipe.data.name}: {accuracy}"
    chart = training_plots.confusion_matrix_chart(record.confusion, record.classes, title)
    save_chart(chart, stem, kind=kind)
    if as_json:
        print_json(record.to_dict())
        return
    low, high = record.interval
    print_lines(
        f"test accuracy {accuracy} (95 % interval {100 * low:.2f} to {format_percent(high)}): "
        f"{record.correct} of {record.count} images, with the weights of epoch {record.epoch}"
    )
    print_table(["class", "accuracy"], [[name, format_percent(value)] for name, value in record.per_class.items()])
    print_lines(f"confusion matrix: {stem}.html (also .svg and .png)")
