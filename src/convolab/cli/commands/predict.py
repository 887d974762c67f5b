"""`convolab predict`: the most probable classes of an image, by a run's network."""

from pathlib import Path
from typing import Annotated

import typer

from convolab.cli.options import AsJson, MaxPixelsOption, RunFolder
from convolab.cli.run_status import open_run
from convolab.cli.terminal import print_json, print_table
from convolab.core.text import format_percent


def predict_command(
    folder: RunFolder,
    image: Annotated[Path, typer.Argument(help="An image file of any format and size.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show.")] = 5,
    max_pixels: MaxPixelsOption = 50_000_000,
    as_json: AsJson = False,
) -> None:
    """Show the most probable classes of an image, resized as the run's images were."""

    predictions = open_run(folder).predict(image, top, max_pixels)
    if as_json:
        print_json([{"class": name, "probability": probability} for name, probability in predictions])
    else:
        rows = [[name, format_percent(probability)] for name, probability in predictions]
        print_table(["class", "probability"], rows)
