"""The dense map beside what it stands for: the classifier on every window cut out of the picture.

Without padding in the network both are the same. With padding a window that is cut out has zeros where the dense map sees the
window's neighbours, so that the two differ: by how much is measured here.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from convolab.inspection.localization.dense import FullyConvolutional
from convolab.models.inference import frozen_eval

BATCH_SIZE = 8  # windows a pass


@dataclass(frozen=True)
class SlidingWindowComparison:
    """Logits of windows by the dense map and by cutting them out."""

    num_windows: int  # compared: those that lie in the picture
    mean_abs_difference: float  # mean absolute difference of the logits
    max_abs_difference: float
    logit_std: float  # standard deviation of the cut-out windows' logits: what a difference is to be held against
    top1_agreement: float  # share of the windows with the same best class
    dense_seconds: float
    sliding_window_seconds: float  # at the dense map's own step

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_with_sliding_window(
    fcn: FullyConvolutional, pixels: Float[Tensor, "1 c h w"], on_progress: Callable[[str], None] = lambda what: None
) -> SlidingWindowComparison:
    """The dense map's windows against the same windows, cut out and classified one by one. Raises LabError for a picture without any."""
    net = fcn.net
    pixels = pixels.to(net.scale).contiguous(memory_format=torch.channels_last)
    with frozen_eval(net), torch.no_grad():
        start = time.perf_counter()
        logits = fcn.window_logits(fcn.forward_features(pixels))[0]  # [classes, rows, columns]
        dense_seconds = time.perf_counter() - start
        cells, corners = window_positions(fcn, tuple(pixels.shape[2:]), tuple(logits.shape[1:]))
        window_logits, start = [], time.perf_counter()
        for first in range(0, len(corners), BATCH_SIZE):
            on_progress(f"window {first + 1} of {len(corners)}")
            windows = [
                pixels[0, :, top : top + net.input_size[0], left : left + net.input_size[1]]
                for top, left in corners[first : first + BATCH_SIZE]
            ]
            window_logits.append(
                net.forward_unchecked(torch.stack(windows).contiguous(memory_format=torch.channels_last))
            )
        sliding_seconds = time.perf_counter() - start
    sliding_logits = torch.cat(window_logits).T  # [classes, windows]
    rows, columns = (torch.tensor(indices) for indices in zip(*cells, strict=True))
    dense_logits = logits[:, rows, columns]
    abs_difference = (dense_logits - sliding_logits).abs()
    agreement = float((dense_logits.argmax(0) == sliding_logits.argmax(0)).double().mean())
    return SlidingWindowComparison(
        len(corners),
        float(abs_difference.mean()),
        float(abs_difference.max()),
        float(sliding_logits.std()),
        agreement,
        dense_seconds,
        sliding_seconds,
    )


def window_positions(
    fcn: FullyConvolutional, size: tuple[int, int], windows: tuple[int, int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where each window would be cut out, top and left: its first cell's field then lies as in a picture of the network's own size.

    Windows that do not lie in the picture are left out; where geometry is not known the step is that of the sizes.
    """
    image_axes, window_axes = fcn.rf_grid(size), fcn.rf_grid(fcn.net.input_size)
    positions = []
    for axis in range(2):
        if image_axes is None or window_axes is None:
            count = windows[axis]
            positions.append(
                [round(i * (size[axis] - fcn.net.input_size[axis]) / max(count - 1, 1)) for i in range(count)]
            )
        else:
            positions.append(
                [
                    round(image_axes[axis][0] - window_axes[axis][0] + i * image_axes[axis][1])
                    for i in range(windows[axis])
                ]
            )
    cells = [
        (row, column)
        for row, top in enumerate(positions[0])
        for column, left in enumerate(positions[1])
        if 0 <= top <= size[0] - fcn.net.input_size[0] and 0 <= left <= size[1] - fcn.net.input_size[1]
    ]
    return cells, [(positions[0][row], positions[1][column]) for row, column in cells]


def describe_sliding_window(comparison: SlidingWindowComparison) -> str:
    return (
        f"against {comparison.num_windows} windows cut out one by one: logits differ by {comparison.mean_abs_difference:.2g} on average (they spread by {comparison.logit_std:.2g}), "
        f"the best class is the same in {100 * comparison.top1_agreement:.1f} %; {comparison.dense_seconds:.2f} s instead of {comparison.sliding_window_seconds:.2f} s"
    )
