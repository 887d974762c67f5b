"""What explain, fool, locate and receptive_field return: raw numbers first, then how to draw them.

Nothing here is normalized: `plots` does that, and says on the image how.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.display import Displayable
from convolab.core.escape import escape_line
from convolab.core.outputs import output_file
from convolab.core.text import pluralize


@dataclass(frozen=True)
class Box:
    """A rectangle on an image, in its pixels, and a label."""

    left: float | int
    top: float | int
    right: float | int
    bottom: float | int
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One frame of a figure: an image, a map, a map resized to its image and overlaid on it, or a curve."""

    title: str
    image: UInt8[Tensor, "c h w"] | None = None
    heatmap: Float[Tensor, "rows columns"] | None = None  # raw, with sign and scale
    signed: bool = False  # whether 0 is the middle of the colors, or their lower end
    curve: tuple[float, ...] = ()  # percentages, the first of them before any step
    colorbar_label: str = ""  # what the map's numbers are; without it no color bar is drawn
    caption: str = ""  # lines below the frame
    boxes: tuple[Box, ...] = ()  # drawn on the image
    grid: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())  # rows and columns of the image where lines are drawn


@dataclass(frozen=True, repr=False)
class Finding(Displayable):
    """What explain, fool, locate or receptive_field found out about a network and an image.

    Attributes:
        tool: which of them it was.
        summary: sentences that a person can read aloud; `print(finding)` shows them and the warnings.
        metrics: every number, as values that JSON can hold. Probabilities and pixels are in [0, 1].
        arrays: raw maps and images by name.
        panels: how to draw it: rows of panels.
        warnings: what is wrong with it, such as a constant map.
        net: what the network is called, or the folder of its run; where it is known, the figure says it.
        threads: of torch. On another number of them sums are added in another order, and last digits differ.

    >>> from torch import zeros
    >>> finding = Finding("explain", ("chelsea: tabby",), {"image": "chelsea"}, {"gradient": zeros(2, 2)})
    >>> print(finding)
    chelsea: tabby
    """

    tool: str
    summary: tuple[str, ...]
    metrics: dict[str, Any]
    arrays: Mapping[str, Tensor]
    panels: tuple[tuple[Panel, ...], ...] = ()
    warnings: tuple[str, ...] = ()
    net: str = ""
    threads: int = field(default_factory=torch.get_num_threads)

    def __repr__(self) -> str:
        more = f"\n({pluralize(len(self.summary) - 2, 'more line')}: print it)" if len(self.summary) > 2 else ""
        tool = f"{self.tool} ({escape_line(self.net)})" if self.net else self.tool
        return f"Finding of {tool}: " + "\n".join(self.summary[:2]) + more

    def __str__(self) -> str:
        return "\n".join(map(escape_line, (*self.summary, *(f"warning: {warning}" for warning in self.warnings))))

    @property
    def heading(self) -> str:
        """The first line of its figure: the network and the first sentence."""
        return f"{self.net}, {self.summary[0]}" if self.net else self.summary[0]

    def to_dict(self) -> dict[str, Any]:
        """It as plain values, for JSON."""
        facts = {"net": self.net, "threads": self.threads}
        return {**facts, **self.metrics, "summary": list(self.summary), "warnings": list(self.warnings)}

    def save_arrays(self, path: Path | str) -> Path:
        """Write the raw arrays as .npz, which a path without that ending gets, and return the path; the file appears complete or not at all.

        Raises LabError where another file is.
        """
        path = Path(path)
        path = path if path.suffix.lower() == ".npz" else path.with_name(f"{path.name}.npz")
        arrays = {name: array.detach().cpu().numpy() for name, array in self.arrays.items()}
        with output_file(path, self.tool) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)
        return path


def map_invalid_reason(heatmap: Float[Tensor, "rows columns"]) -> str:
    """Why a map carries no information: it is constant (all zeros, for example) or not finite; empty if neither.

    >>> import torch
    >>> map_invalid_reason(torch.zeros(2, 2)), map_invalid_reason(torch.tensor([[0.0, float("nan")]]))
    ('constant', 'not finite')
    >>> map_invalid_reason(torch.eye(2))
    ''
    """
    if not heatmap.isfinite().all():
        return "not finite"
    return "constant" if float(heatmap.max()) == float(heatmap.min()) else ""
