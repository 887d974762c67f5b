"""`convolab predict`: the most probable classes of images, by a run's network."""

from typing import Annotated

import typer

from convolab.cli.options import AsJson, MaxPixelsOption, RunFolder
from convolab.cli.run_status import open_run
from convolab.cli.terminal import print_json, print_note, print_table
from convolab.core.text import format_percent


def predict_command(
    folder: RunFolder,
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="A sample (chelsea, coffee, rocket, ...), a path, or an http(s) URL."),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show.")] = 5,
    max_pixels: MaxPixelsOption = None,
    as_json: AsJson = False,
) -> None:
    """Show the most probable classes of images, which are resized as the run's images were."""
    run = open_run(folder)
    predictions = [run.predict(image, top, max_pixels) for image in images]
    if as_json:
        found = [[{"class": name, "probability": value} for name, value in classes] for classes in predictions]
        several = [{"image": image, "classes": classes} for image, classes in zip(images, found, strict=True)]
        print_json(found[0] if len(images) == 1 else {"images": several})
        return
    rows = [
        [image, name, format_percent(probability)]
        for image, classes in zip(images, predictions, strict=True)
        for name, probability in classes
    ]
    first = 1 if len(images) == 1 else 0  # the column of images says nothing of one
    print_table(["image", "class", "probability"][first:], [row[first:] for row in rows])
    print_note("every image gets one of the run's classes, even if it shows none of them")
