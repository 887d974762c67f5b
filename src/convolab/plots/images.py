"""Images by Pillow: tensors as images, contact sheets of a dataset, and how an image is saved."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from convolab.core.escape import escape_line
from convolab.core.outputs import output_file
from convolab.data.dataset import ImageDataset, Subset

SHEET_CELL = 48  # pixels that a small image is enlarged to, about
SHEET_GAP = 4  # pixels between two images
SHEET_HEADER = 24  # pixels of the line above them


def to_pil_image(image: UInt8[Tensor, "c h w"]) -> Image.Image:
    """An image of one or three channels as Pillow's, RGB."""
    return Image.fromarray(np.ascontiguousarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy()))


def save_image(image: Image.Image, path: Path, kind: str = "figure") -> Path:
    """Write an image in the format of the path's ending; gives the path.

    Only a file of the same kind is replaced, see `core.outputs`. Raises LabError if it cannot be written.
    """
    with output_file(path, kind) as part:
        image.save(part)
    return path


def contact_sheet(
    dataset: ImageDataset | Subset, per_class: int = 10, zoom: int | None = None, max_classes: int | None = None
) -> Image.Image:
    """The first images of each class, or of the first `max_classes`: a labeled row per class, enlarged by whole pixels."""
    classes = [escape_line(name) for name in dataset.classes[:max_classes]]
    _, height, width = dataset.shape
    zoom = zoom or max(1, round(SHEET_CELL / max(height, width)))
    cell = zoom * max(height, width)
    font = ImageFont.load_default(14)
    left = 12 + max(math.ceil(font.getlength(name)) for name in classes)
    rows = len(classes)
    size = (
        left + per_class * (cell + SHEET_GAP) + SHEET_GAP,
        SHEET_HEADER + rows * (cell + SHEET_GAP) + SHEET_GAP,
    )
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    shape = "x".join(map(str, dataset.shape))
    header = f"{escape_line(dataset.name)}: {len(dataset):,} images of {shape}, {len(dataset.classes)} classes"
    if rows < len(dataset.classes):
        header += f" (the first {rows})"
    draw.text((SHEET_GAP, 4), header, fill="black", font=font)
    for row, name in enumerate(classes):
        top = SHEET_HEADER + SHEET_GAP + row * (cell + SHEET_GAP)
        draw.text((SHEET_GAP, top + cell // 2), name, fill="black", font=font, anchor="lm")
        members = (dataset.labels == row).nonzero().squeeze(1)[:per_class]
        images, _ = dataset.gather(members)
        for column, image in enumerate(images):
            enlarged = to_pil_image(image).resize((zoom * width, zoom * height), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (left + column * (cell + SHEET_GAP), top))
    return canvas
