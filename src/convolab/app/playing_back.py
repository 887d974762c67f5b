"""What a run kept of its epochs, as images and words for the page."""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision.utils import make_grid

from convolab.app.folders import RunsFolder
from convolab.app.run_rows import FILES
from convolab.app.shown_images import png_url
from convolab.training.playback import FOLDER, Playback

MAX_SHOWN = 100  # epochs; of more every second, third ... and the last
TOP_CLASSES = 3  # classes of an image


def show_playback(folder: RunsFolder, name: str) -> dict[str, Any]:
    """A run's epochs: an image of the filters of each, and the most probable classes of each image."""
    return folder.cached("playback", name, (*FILES, FOLDER), lambda: describe_playback(folder.run(name).playback()))


def describe_playback(playback: Playback) -> dict[str, Any]:
    """See `show_playback`."""
    last = len(playback.epochs) - 1
    shown = sorted({*range(last, -1, -math.ceil((last + 1) / MAX_SHOWN))})
    values, classes = playback.probabilities[shown].topk(min(TOP_CLASSES, len(playback.classes)))
    return {
        "epochs": [playback.epochs[index] for index in shown],
        "filters": [png_url(sheet) for sheet in filter_sheets(playback.filters[shown])]
        if playback.filters is not None
        else None,
        "images": [png_url(image) for image in playback.images],
        "labels": [playback.classes[label] for label in playback.labels],
        "top": [
            [
                [{"class": playback.classes[c], "probability": p} for c, p in zip(row, probabilities, strict=True)]
                for row, probabilities in zip(rows, frame, strict=True)
            ]
            for rows, frame in zip(classes.tolist(), values.tolist(), strict=True)
        ],
    }


def filter_sheets(filters: Tensor) -> list[Tensor]:
    """The filters of each epoch side by side, uint8 [3, height, width]: gray is 0, and all epochs have one scale.

    >>> [tuple(sheet.shape) for sheet in filter_sheets(torch.randn(2, 4, 3, 5, 5))]
    [(3, 13, 13), (3, 13, 13)]
    """
    pixels = 0.5 + 0.5 * torch.nan_to_num(filters / filters.abs().max().clamp_min(1e-12))
    columns = math.ceil(math.sqrt(filters.shape[1]))
    sheets = [make_grid(frame, columns, padding=1, pad_value=1.0) for frame in pixels]
    return [(255 * sheet).round().clamp(0, 255).byte() for sheet in sheets]
