"""A classifier of small pictures, made to answer everywhere in a large one: its linear layer becomes a convolution.

Nothing is trained or copied. Behind a mean over the last feature map the linear layer is a convolution of 1 x 1 cells, behind a
flattening one as large as the map was (Sermanet et al. 2014, arXiv:1312.6229; Oquab et al. 2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convolab.analysis.summary import account
from convolab.core.errors import LabError, need
from convolab.models.classifier import PixelNet
from convolab.models.feature_head import Head, Split, split

Map = Float[Tensor, "n channels rows columns"]
Axis = tuple[float, float]  # the middle of the first cell's field, and the way to the next: pixels
Over = Literal[
    "cells", "windows"
]  # what an answer is of: one cell of the last map, or as many as the small picture had


@dataclass(frozen=True)
class Dense:
    """A network that gives logits for every place of a picture of any size."""

    parts: Split
    head: Head
    memo: dict[Any, Any] = field(
        default_factory=dict, compare=False, repr=False
    )  # what was found out about it and takes long

    @property
    def net(self) -> PixelNet:
        return self.parts.net

    @property
    def over(self) -> Over:
        """What is asked if nothing else is said: single cells, which are sharper, where they say something."""
        return "cells" if self.head.kind == "average" else "windows"

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of the last feature map of a picture of the network's own size."""
        return self.parts.shape[1:]

    def features(self, pixels: Float[Tensor, "n c h w"]) -> Map:
        """The last feature map of pictures of any size. Raises LabError if they are too small to have one."""
        try:
            return self.parts.features(pixels)
        except RuntimeError as error:
            size, wanted = (" x ".join(map(str, sides)) for sides in (pixels.shape[2:], self.net.size))
            reason = str(error).splitlines()[0]
            raise LabError(
                f"a picture of {size} pixels is too small for this network ({reason}): give at least {wanted}"
            ) from error

    def cells(self, features: Map, classes: Sequence[int]) -> Float[Tensor, "n k rows columns"]:
        """What each cell of a feature map says for some classes: their mean over the cells plus the bias is the logit.

        Raises LabError behind a flattening, where a cell's weights hang on its place in the small picture.
        """
        need(
            self.head.kind == "average",
            "this network flattens its last feature map, so that a cell alone says nothing: ask for windows",
        )
        return torch.einsum("kc,nchw->nkhw", self.head.weight[list(classes)], features)

    def windows(self, features: Map, classes: Sequence[int] | None = None) -> Float[Tensor, "n k down across"]:
        """The classifier's logits for every window of its own size, one a cell's step: of some classes, or of all.

        A picture of the network's own size has one window, whose logits are the classifier's. With padding inside the network
        windows of larger pictures differ from pictures cut out, because their border sees its neighbours instead of zeros.
        Raises LabError for a map smaller than a window.
        """
        chosen = slice(None) if classes is None else list(classes)
        rows, columns = self.window
        need(
            features.shape[2] >= rows and features.shape[3] >= columns,
            f"the map has {features.shape[2]} x {features.shape[3]} cells, and a window {rows} x {columns}: give a picture of at least {self.net.size[0]} x {self.net.size[1]} pixels",
        )
        weight, bias = self.head.weight[chosen], self.head.bias[chosen].view(1, -1, 1, 1)
        if self.head.kind == "flatten":
            return F.conv2d(features, weight) + bias
        if classes is None:
            return F.conv2d(F.avg_pool2d(features, self.window, stride=1), weight[:, :, None, None]) + bias
        return F.avg_pool2d(self.cells(features, classes), self.window, stride=1) + bias

    def geometry(self, size: tuple[int, int]) -> tuple[Axis, Axis] | None:
        """Where the fields of the last map's cells lie on pictures of a size, rows and columns; None where that is not known.

        It hangs on the size: padding on one side, as TensorFlow pads, moves it. A network that flattens its map cannot be followed
        on other sizes; it is taken to see there as on its own, which is exact unless it pads so.
        """
        if size not in self.memo:
            try:
                layers = account(self.net.network, (self.net.channels, *size)).layers
            except LabError:
                own = self.net.size
                self.memo[size] = self.geometry(own) if size != own else None
                return self.memo[size]
            # The last layer with the map's channels: what comes behind it, pooling at the latest, has another shape.
            found = [
                y.field
                for y in layers
                if len(y.output) == 4 and y.output[1] == self.parts.shape[0] and min(y.output[2:]) > 1
            ]
            known = found and found[-1] is not None and None not in (*found[-1].centre, *found[-1].stride)
            self.memo[size] = (
                tuple((float(c), float(s)) for c, s in zip(found[-1].centre, found[-1].stride, strict=True))
                if known
                else None
            )
        return self.memo[size]

    def answers(self, features: Map, classes: Sequence[int] | None, over: Over) -> Float[Tensor, "n k down across"]:
        """`cells` or `windows`, of some classes or of all."""
        if over == "windows":
            return self.windows(features, classes)
        return self.cells(features, range(len(self.head.weight)) if classes is None else classes)


def dense(net: PixelNet) -> Dense:
    """The network made dense. Raises LabError, with what it would need, for one without a feature map and a linear head.

    >>> from convolab.models.pretrained import pretrained
    >>> everywhere = dense(pretrained("efficientnet_lite0"))
    >>> with torch.no_grad():
    ...     features = everywhere.features(torch.full((1, 3, 320, 448), 0.5))
    >>> everywhere.cells(features, [281]).shape, everywhere.windows(features, [281]).shape
    (torch.Size([1, 1, 10, 14]), torch.Size([1, 1, 4, 8]))
    """
    parts = split(net)
    return Dense(parts, parts.need_head("finding things in a large picture"))
