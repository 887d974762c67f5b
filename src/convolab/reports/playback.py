"""What a run kept of its epochs: drawn, as rows, and as a page with a slider that opens without a network."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from convolab.core.display import Row
from convolab.core.escape import escape_line, script_json
from convolab.core.outputs import PLAYBACK, write_output
from convolab.data.png import png_url
from convolab.plots.chart_page import page_environment
from convolab.plots.figure import ImageFigure
from convolab.plots.playback import FILTERS_TITLE, MEANING, TOP_CLASSES, filter_sheets, render_last_epoch
from convolab.reports.result_view import ResultView, figure_html, paragraph
from convolab.training.playback import Playback

MAX_SHOWN = 100  # epochs of a page; of more every second, third ... and the last
HINT = 'save("playback.html") writes a page with a slider over the epochs; rows() has the numbers'


class PlaybackView(ResultView):
    """The last epoch as a figure, all of them as a page."""

    kind = PLAYBACK

    def __init__(self, playback: Playback) -> None:
        self.playback = playback

    def rows(self) -> Sequence[Row]:
        return playback_rows(self.playback)

    def figure(self) -> ImageFigure:
        image = render_last_epoch(self.playback)
        return ImageFigure(image, f"filters and predictions after epoch {self.playback.epochs[-1]}", self.kind)

    def html(self) -> str:
        return figure_html(self.figure()) + paragraph(f"{self.playback!r}: {HINT}")

    def writers(self) -> Mapping[str, Callable[[Path], object]]:
        figures = {ending: write for ending, write in super().writers().items() if ending != ".svg"}  # it has pixels
        return figures | {".html": lambda path: write_output(path, self.kind, playback_page(self.playback))}


def playback_rows(playback: Playback) -> list[Row]:
    """A row for each epoch and image, which is numbered from 0 as in its set; probabilities in [0, 1]."""
    values, predicted = playback.probabilities.max(2)
    true = playback.probabilities[:, range(len(playback.images)), playback.labels]
    return [
        {
            "epoch": epoch,
            "image": image,
            "true": playback.classes[label],
            "predicted": playback.classes[int(predicted[frame, image])],
            "probability": float(values[frame, image]),
            "true_probability": float(true[frame, image]),
        }
        for frame, epoch in enumerate(playback.epochs)
        for image, label in enumerate(playback.labels.tolist())
    ]


def describe_playback(playback: Playback) -> dict[str, Any]:
    """What a page with a slider draws: an image of each epoch's filters, and the most probable classes of each image."""
    last = len(playback.epochs) - 1
    shown = sorted({*range(last, -1, -math.ceil((last + 1) / MAX_SHOWN))})
    names = [escape_line(name) for name in playback.classes]
    values, classes = playback.probabilities[shown].topk(min(TOP_CLASSES, len(names)))
    return {
        "epochs": [playback.epochs[index] for index in shown],
        "filters": [png_url(sheet) for sheet in filter_sheets(playback.filters[shown])]
        if playback.filters is not None
        else None,
        "images": [png_url(image) for image in playback.images],
        "labels": [names[label] for label in playback.labels],
        "top": [
            [
                [{"class": names[c], "probability": p} for c, p in zip(row, probabilities, strict=True)]
                for row, probabilities in zip(rows, frame, strict=True)
            ]
            for rows, frame in zip(classes.tolist(), values.tolist(), strict=True)
        ],
    }


def playback_page(playback: Playback) -> str:
    """A page that shows each epoch, by a slider."""
    frames = describe_playback(playback)
    return (
        page_environment("convolab.reports")
        .get_template("playback.html")
        .render(
            title="Epoch by epoch",
            meaning=MEANING,
            filters_title=FILTERS_TITLE if frames["filters"] else None,
            images=list(zip(frames["labels"], frames["images"], strict=True)),
            last=len(frames["epochs"]) - 1,
            frames=Markup(script_json(frames)),
        )
    )
