"""What a lens returns: raw numbers first, then how to draw them. Nothing here is normalised; pictures do that, and say how."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.files import atomic_write


@dataclass(frozen=True)
class Box:
    """A rectangle on a photo, in its pixels, and a word for it."""

    left: float | int
    top: float | int
    right: float | int
    bottom: float | int
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One frame of a picture: a photo, a map, or a map laid over its photo (stretched over it; with a `unit` it has a legend)."""

    title: str
    image: UInt8[Tensor, "c h w"] | None = None
    heatmap: Float[Tensor, "rows columns"] | None = None  # raw, with sign and scale
    signed: bool = False  # whether 0 is the middle of the colours, or their lower end
    colorbar_label: str = ""  # what the map's numbers are
    caption: str = ""  # lines below the frame
    boxes: tuple[Box, ...] = ()  # drawn on the photo
    grid: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())  # rows and columns of the photo where lines are drawn


@dataclass(frozen=True)
class Finding:
    """What a lens found out about a network and a picture.

    words      sentences that a person can read out
    numbers    all there is to say in numbers; JSON can hold it
    arrays     raw maps and pictures by name
    rows       how to draw it: rows of panels
    warnings   what is wrong with it, such as a constant map
    """

    tool: str
    summary: tuple[str, ...]
    metrics: dict[str, Any]
    arrays: dict[str, Tensor]
    panels: tuple[tuple[Panel, ...], ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join((*self.summary, *(f"beware: {warning}" for warning in self.warnings)))

    def save_arrays(self, path: Path | str) -> Path:
        """Write the raw arrays as .npz, whole, and return its path."""
        path = Path(path).with_suffix(".npz")
        with atomic_write(path) as temporary:
            np.savez_compressed(
                temporary, **{name: array.detach().cpu().numpy() for name, array in self.arrays.items()}
            )
        return path
