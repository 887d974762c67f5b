"""`convolab test`: the best weights of a run on the test set, once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.options import AsJson, DataDir, RunFolder
from convolab.cli.run_status import open_run
from convolab.cli.terminal import print_json, print_lines, print_note, print_table
from convolab.core.outputs import CALIBRATION, CONFUSION_MATRIX, own_kind, require_outputs
from convolab.core.text import format_percent

if TYPE_CHECKING:
    from convolab.training.run_records import EvaluationRecord

NUM_LISTED = 10  # mistakes that are printed; the page and the table have more


def test_command(
    folder: RunFolder,
    data_dir: DataDir = None,
    allow_unfinished: Annotated[
        bool, typer.Option("--allow-unfinished", help="Also test a run that has not finished its epochs.")
    ] = False,
    gallery: Annotated[
        bool, typer.Option("--gallery", help="Also show the test images that it gets wrong (HTML, CSV).")
    ] = False,
    gallery_size: Annotated[int, typer.Option(min=1, max=1000, help="Images in the gallery, the worst first.")] = 60,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the confusion matrix, the reliability diagram (HTML, SVG, PNG) and the gallery.",
            show_default="the run's folder",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run's best weights on the test set, once, and record the result.

    A gallery of a run that was tested before leaves its result as it is.
    """
    from convolab.plots import training as training_plots
    from convolab.plots.calibration import calibration_line, reliability_chart
    from convolab.plots.style import chart_paths, save_chart
    from convolab.reports.mistakes import mistake_paths, mistakes_kind, mistakes_rows, write_mistakes
    from convolab.training.predictions import MISTAKE_COLUMNS

    run = open_run(folder)
    place = out or folder
    kinds = {name: own_kind(name, run.summary["recipe_key"]) for name in (CONFUSION_MATRIX, CALIBRATION)}
    require_outputs(kinds[CONFUSION_MATRIX], chart_paths(place / "confusion"))
    require_outputs(kinds[CALIBRATION], chart_paths(place / "calibration"))
    if gallery:
        require_outputs(mistakes_kind(run), mistake_paths(place / "mistakes"), csv_header=",".join(MISTAKE_COLUMNS))
    splits = run.load_splits(data_dir, on_message=print_note) if gallery else None
    record = run.test(data_dir=data_dir, splits=splits, allow_unfinished=allow_unfinished, on_message=print_note)
    mistakes = run.mistakes(gallery_size, splits=splits) if gallery else None
    accuracy = format_percent(record.accuracy)
    about = f"{run.recipe.model.name} on the test images of {run.recipe.data.name}"
    chart = training_plots.confusion_matrix_chart(record.confusion, record.classes, f"{about}: {accuracy}")
    save_chart(chart, place / "confusion", kind=kinds[CONFUSION_MATRIX])
    if record.calibration:
        save_chart(reliability_chart(record.calibration, about), place / "calibration", kind=kinds[CALIBRATION])
    if mistakes:
        write_mistakes(mistakes, place / "mistakes", f"Mistakes of {about}", mistakes_kind(run))
    if as_json:
        print_json({**record.to_dict(), **({"mistakes": mistakes_rows(mistakes)} if mistakes else {})})
        return
    low, high = record.interval
    print_lines(
        f"test accuracy {accuracy} (95 % interval {100 * low:.2f} to {format_percent(high)}): "
        f"{record.correct} of {record.count} images, with the weights of epoch {record.epoch}"
    )
    if views := record.with_views:
        low, high = views.interval
        print_lines(
            f"with {views.views} views of each image: {format_percent(views.accuracy)} (95 % interval {100 * low:.2f} to "
            f"{format_percent(high)})"
        )
    if record.top5_accuracy is not None:
        print_lines(f"true class among the five most probable: {format_percent(record.top5_accuracy)}")
    print_class_scores(record)
    if record.calibration:
        print_lines(calibration_line(record.calibration))
    if record.caution:
        print_note(record.caution)
    if mistakes:
        rows = [
            [mistake.name, mistake.true, mistake.predicted, format_percent(mistake.probability)]
            for mistake in mistakes.entries[:NUM_LISTED]
        ]
        print_table(["image", "true", "predicted", "probability"], rows)
        print_lines(f"{mistakes.num_wrong} mistakes: {place / 'mistakes.html'} (also .csv)")
    print_lines(f"confusion matrix: {place / 'confusion'}.html (also .svg and .png)")
    if record.calibration:
        print_lines(f"reliability diagram: {place / 'calibration'}.html (also .svg and .png)")


def print_class_scores(record: "EvaluationRecord") -> None:
    """Precision, recall and F1 of each class, and their mean."""
    scores = [(name, str(score.images), score) for name, score in record.class_scores.items()]
    mean = [("mean of the classes", str(record.count), record.macro)] if record.macro else []
    rows = [
        [name, images, *map(format_percent, (score.precision, score.recall, score.f1))]
        for name, images, score in (*scores, *mean)
    ]
    print_table(["class", "images", "precision", "recall", "F1"], rows)
