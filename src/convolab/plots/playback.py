"""What a run kept of an epoch, as a figure: the filters of its first layer, and its predictions for a few images."""

import math

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from convolab.core.text import format_percent
from convolab.inspection.result import Panel
from convolab.models.inference import top_classes
from convolab.plots.panels import CAPTION_COLOR, HEADING_SIZE, TEXT_COLOR, TEXT_SIZE, render_rows
from convolab.training.playback import Playback

COLUMNS = 4  # panels side by side
TOP_CLASSES = 3  # classes of an image
FILTERS_TITLE = "Filters of the first layer"
MEANING = (
    "Filters: gray is 0, one scale for all epochs. Images: above each its true class, below it the most probable ones."
)


def render_last_epoch(playback: Playback) -> Image.Image:
    """The last epoch that was kept."""
    panels = []
    if playback.filters is not None:
        panels.append(Panel(title=FILTERS_TITLE, image=filter_sheets(playback.filters)[-1]))
    for image, label, probabilities in zip(
        playback.images, playback.labels.tolist(), playback.probabilities[-1], strict=True
    ):
        top = top_classes(playback.classes, probabilities, TOP_CLASSES)
        caption = "\n".join(f"{found.name}: {format_percent(found.probability)}" for found in top)
        panels.append(Panel(title=playback.classes[label], image=image, caption=caption))
    rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    heading = f"After epoch {playback.epochs[-1]}"
    return render_rows(rows, [(heading, HEADING_SIZE, TEXT_COLOR), (MEANING, TEXT_SIZE, CAPTION_COLOR)])


def filter_sheets(filters: Tensor) -> list[Tensor]:
    """The filters of each epoch side by side, uint8 [3, height, width]: gray is 0, and all epochs have one scale.

    Args:
        filters: [epochs, filters, C, height, width], C being 1 or 3.

    >>> import torch
    >>> [tuple(sheet.shape) for sheet in filter_sheets(torch.randn(2, 4, 3, 5, 5))]
    [(3, 13, 13), (3, 13, 13)]
    """
    pixels = 0.5 + 0.5 * filters.nan_to_num() / filters.nan_to_num().abs().max().clamp_min(1e-12)
    columns = math.ceil(math.sqrt(filters.shape[1]))
    sheets = [make_grid(frame, columns, padding=1, pad_value=1.0) for frame in pixels]
    return [(255 * sheet).round().clamp(0, 255).byte() for sheet in sheets]
