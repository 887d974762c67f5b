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

from convolab.inspection.localization.dense import Dense
from convolab.models.classifier import undisturbed

BATCH = 8  # windows a pass


@dataclass(frozen=True)
class Sliding:
    """Logits of windows by the dense map and by cutting them out."""

    windows: int  # compared: those that lie in the picture
    difference: float  # mean absolute difference of the logits
    largest: float
    spread: float  # standard deviation of the cut-out windows' logits: what a difference is to be held against
    same: float  # share of the windows with the same best class
    dense_seconds: float
    sliding_seconds: float  # at the dense map's own step

    def values(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    dense: Dense, pixels: Float[Tensor, "1 c h w"], on_progress: Callable[[str], None] = lambda what: None
) -> Sliding:
    """The dense map's windows against the same windows, cut out and classified one by one. Raises LabError for a picture without any."""
    net = dense.net
    pixels = pixels.to(net.scale).contiguous(memory_format=torch.channels_last)
    with undisturbed(net), torch.no_grad():
        start = time.perf_counter()
        logits = dense.windows(dense.features(pixels))[0]  # [classes, rows, columns]
        dense_seconds = time.perf_counter() - start
        cells, corners = corners_of(dense, tuple(pixels.shape[2:]), tuple(logits.shape[1:]))
        cut, start = [], time.perf_counter()
        for first in range(0, len(corners), BATCH):
            on_progress(f"window {first + 1} of {len(corners)}")
            some = [
                pixels[0, :, top : top + net.size[0], left : left + net.size[1]]
                for top, left in corners[first : first + BATCH]
            ]
            cut.append(net.respond(torch.stack(some).contiguous(memory_format=torch.channels_last)))
        sliding_seconds = time.perf_counter() - start
    theirs = torch.cat(cut).T  # [classes, windows]
    rows, columns = (torch.tensor(indices) for indices in zip(*cells, strict=True))
    ours = logits[:, rows, columns]
    away = (ours - theirs).abs()
    same = float((ours.argmax(0) == theirs.argmax(0)).double().mean())
    return Sliding(
        len(corners), float(away.mean()), float(away.max()), float(theirs.std()), same, dense_seconds, sliding_seconds
    )


def corners_of(
    dense: Dense, size: tuple[int, int], windows: tuple[int, int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Where each window would be cut out, top and left: its first cell's field then lies as in a picture of the network's own size.

    Windows that do not lie in the picture are left out; where geometry is not known the step is that of the sizes.
    """
    whole, own = dense.geometry(size), dense.geometry(dense.net.size)
    places = []
    for axis in range(2):
        if whole is None or own is None:
            count = windows[axis]
            places.append([round(i * (size[axis] - dense.net.size[axis]) / max(count - 1, 1)) for i in range(count)])
        else:
            places.append([round(whole[axis][0] - own[axis][0] + i * whole[axis][1]) for i in range(windows[axis])])
    cells = [
        (row, column)
        for row, top in enumerate(places[0])
        for column, left in enumerate(places[1])
        if 0 <= top <= size[0] - dense.net.size[0] and 0 <= left <= size[1] - dense.net.size[1]
    ]
    return cells, [(places[0][row], places[1][column]) for row, column in cells]


def said(found: Sliding) -> str:
    return (
        f"against {found.windows} windows cut out one by one: logits differ by {found.difference:.2g} on average (they spread by {found.spread:.2g}), "
        f"the best class is the same in {100 * found.same:.1f} %; {found.dense_seconds:.2f} s instead of {found.sliding_seconds:.2f} s"
    )
