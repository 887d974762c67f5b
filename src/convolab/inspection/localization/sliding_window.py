"""The dense map compared with what it replaces: the classifier on every window, cropped from the image.

Without padding in the network both are the same. With padding a cropped window has zeros where the dense map sees the
window's neighbors, so that the two differ: by how much is measured here.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.types import MessageCallback
from convolab.inspection.localization.dense import FullyConvolutional
from convolab.inspection.types import SinglePixels
from convolab.models.inference import frozen_eval

BATCH_SIZE = 8  # windows in one forward pass

CellIndex: TypeAlias = tuple[int, int]  # row, column of a response
Corner: TypeAlias = tuple[int, int]  # top, left of a window, in pixels


@dataclass(frozen=True)
class SlidingWindowComparison:
    """Logits of windows by the dense map and by cropping."""

    num_windows: int  # compared: those inside the image
    mean_abs_difference: float  # of the logits
    max_abs_difference: float
    logit_std: float  # standard deviation of the cropped windows' logits: what a difference is compared with
    top1_agreement: float  # fraction of the windows with the same best class
    dense_seconds: float
    sliding_window_seconds: float  # at the dense map's own stride

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"compared with {self.num_windows} windows cropped and classified one by one: "
            f"logits differ by {self.mean_abs_difference:.2g} on average (standard deviation {self.logit_std:.2g}), "
            f"the best class is the same in {100 * self.top1_agreement:.1f} %; "
            f"{self.dense_seconds:.2f} s instead of {self.sliding_window_seconds:.2f} s"
        )


def compare_with_sliding_window(
    fcn: FullyConvolutional, pixels: SinglePixels, on_progress: MessageCallback = lambda message: None
) -> SlidingWindowComparison:
    """Compare the dense map's windows with the same windows, cropped and classified in small batches.

    Raises LabError for an image smaller than a window.
    """
    net = fcn.net
    pixels = pixels.to(net.scale).contiguous(memory_format=torch.channels_last)
    with frozen_eval(net), torch.no_grad():
        start = time.perf_counter()
        logits = fcn.window_logits(fcn.forward_features(pixels))[0]  # [classes, rows, columns]
        dense_seconds = time.perf_counter() - start
        size = pixels.shape[2], pixels.shape[3]
        cells, corners = window_positions(fcn, size, (logits.shape[1], logits.shape[2]))
        start = time.perf_counter()
        sliding_logits = classify_windows(fcn, pixels, corners, on_progress).T  # [classes, windows]
        sliding_seconds = time.perf_counter() - start
    rows, columns = (torch.tensor(indices) for indices in zip(*cells, strict=True))
    dense_logits = logits[:, rows, columns]
    abs_difference = (dense_logits - sliding_logits).abs()
    agreement = float((dense_logits.argmax(0) == sliding_logits.argmax(0)).double().mean())
    return SlidingWindowComparison(
        num_windows=len(corners),
        mean_abs_difference=float(abs_difference.mean()),
        max_abs_difference=float(abs_difference.max()),
        logit_std=float(sliding_logits.std()),
        top1_agreement=agreement,
        dense_seconds=dense_seconds,
        sliding_window_seconds=sliding_seconds,
    )


def classify_windows(
    fcn: FullyConvolutional,
    pixels: SinglePixels,
    corners: Sequence[Corner],
    on_progress: MessageCallback,
) -> Float[Tensor, "windows classes"]:
    height, width = fcn.net.input_size
    window_logits = []
    for first in range(0, len(corners), BATCH_SIZE):
        on_progress(f"window {first + 1} of {len(corners)}")
        batch = corners[first : first + BATCH_SIZE]
        windows = torch.stack([pixels[0, :, top : top + height, left : left + width] for top, left in batch])
        window_logits.append(fcn.net.forward_unchecked(windows.contiguous(memory_format=torch.channels_last)))
    return torch.cat(window_logits)


def window_positions(
    fcn: FullyConvolutional, size: tuple[int, int], windows: tuple[int, int]
) -> tuple[list[CellIndex], list[Corner]]:
    """The windows inside the image, as cells of the dense map and as corners on an image of `size`.

    The receptive field of a cropped window's first cell lies as in an image of the network's own size. Where receptive
    fields are not known, the windows are spaced evenly.
    """
    tops = window_starts(fcn, size, windows, axis=0)
    lefts = window_starts(fcn, size, windows, axis=1)
    max_top = size[0] - fcn.net.input_size[0]
    max_left = size[1] - fcn.net.input_size[1]
    cells = [
        (row, column)
        for row, top in enumerate(tops)
        for column, left in enumerate(lefts)
        if 0 <= top <= max_top and 0 <= left <= max_left
    ]
    return cells, [(tops[row], lefts[column]) for row, column in cells]


def window_starts(fcn: FullyConvolutional, size: tuple[int, int], windows: tuple[int, int], axis: int) -> list[int]:
    """The first pixel of each window along an axis."""
    count = windows[axis]
    rows, columns = fcn.window_shape
    image_grid = fcn.rf_grid(size, (windows[0] + rows - 1, windows[1] + columns - 1))
    window_grid = fcn.rf_grid(fcn.net.input_size, fcn.window_shape)
    if image_grid is None or window_grid is None:
        free_pixels = size[axis] - fcn.net.input_size[axis]
        return [round(i * free_pixels / max(count - 1, 1)) for i in range(count)]
    start, stride = image_grid[axis]
    return [round(start - window_grid[axis][0] + i * stride) for i in range(count)]
