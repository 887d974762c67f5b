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

from convolab.analysis.summary import summary
from convolab.core.errors import LabError, require
from convolab.models.classifier import ImageClassifier
from convolab.models.feature_head import ClassifierHead, FeatureExtractor, create_feature_extractor

FeatureMap = Float[Tensor, "n channels rows columns"]
GridAxis = tuple[float, float]  # the middle of the first cell's field, and the way to the next: pixels
Granularity = Literal[
    "cells", "windows"
]  # what an answer is of: one cell of the last map, or as many as the small picture had


@dataclass(frozen=True)
class FullyConvolutional:
    """A network that gives logits for every place of a picture of any size."""

    extractor: FeatureExtractor
    head: ClassifierHead
    cache: dict[Any, Any] = field(
        default_factory=dict, compare=False, repr=False
    )  # what was found out about it and takes long

    @property
    def net(self) -> ImageClassifier:
        return self.extractor.net

    @property
    def default_granularity(self) -> Granularity:
        """What is asked if nothing else is said: single cells, which are sharper, where they say something."""
        return "cells" if self.head.kind == "average" else "windows"

    @property
    def window_shape(self) -> tuple[int, int]:
        """Rows and columns of the last feature map of a picture of the network's own size."""
        return self.extractor.feature_shape[1:]

    def forward_features(self, pixels: Float[Tensor, "n c h w"]) -> FeatureMap:
        """The last feature map of pictures of any size. Raises LabError if they are too small to have one."""
        try:
            return self.extractor.forward_features(pixels)
        except RuntimeError as error:
            size, minimum_size = (" x ".join(map(str, sides)) for sides in (pixels.shape[2:], self.net.input_size))
            reason = str(error).splitlines()[0]
            raise LabError(
                f"a picture of {size} pixels is too small for this network ({reason}): give at least {minimum_size}"
            ) from error

    def cell_scores(self, features: FeatureMap, classes: Sequence[int]) -> Float[Tensor, "n k rows columns"]:
        """What each cell of a feature map says for some classes: their mean over the cells plus the bias is the logit.

        Raises LabError behind a flattening, where a cell's weights hang on its place in the small picture.
        """
        require(
            self.head.kind == "average",
            "this network flattens its last feature map, so that a cell alone says nothing: ask for windows",
        )
        return torch.einsum("kc,nchw->nkhw", self.head.weight[list(classes)], features)

    def window_logits(
        self, features: FeatureMap, classes: Sequence[int] | None = None
    ) -> Float[Tensor, "n k down across"]:
        """The classifier's logits for every window of its own size, one a cell's step: of some classes, or of all.

        A picture of the network's own size has one window, whose logits are the classifier's. With padding inside the network
        windows of larger pictures differ from pictures cut out, because their border sees its neighbours instead of zeros.
        Raises LabError for a map smaller than a window.
        """
        class_indices = slice(None) if classes is None else list(classes)
        rows, columns = self.window_shape
        require(
            features.shape[2] >= rows and features.shape[3] >= columns,
            f"the map has {features.shape[2]} x {features.shape[3]} cells, and a window {rows} x {columns}: give a picture of at least {self.net.input_size[0]} x {self.net.input_size[1]} pixels",
        )
        weight, bias = self.head.weight[class_indices], self.head.bias[class_indices].view(1, -1, 1, 1)
        if self.head.kind == "flatten":
            return F.conv2d(features, weight) + bias
        if classes is None:
            return F.conv2d(F.avg_pool2d(features, self.window_shape, stride=1), weight[:, :, None, None]) + bias
        return F.avg_pool2d(self.cell_scores(features, classes), self.window_shape, stride=1) + bias

    def rf_grid(self, size: tuple[int, int]) -> tuple[GridAxis, GridAxis] | None:
        """Where the fields of the last map's cells lie on pictures of a size, rows and columns; None where that is not known.

        It hangs on the size: padding on one side, as TensorFlow pads, moves it. A network that flattens its map cannot be followed
        on other sizes; it is taken to see there as on its own, which is exact unless it pads so.
        """
        if size not in self.cache:
            try:
                layers = summary(self.net.network, (self.net.channels, *size)).layers
            except LabError:
                own_size = self.net.input_size
                self.cache[size] = self.rf_grid(own_size) if size != own_size else None
                return self.cache[size]
            # The last layer with the map's channels: what comes behind it, pooling at the latest, has another shape.
            map_fields = [
                y.receptive_field
                for y in layers
                if len(y.output_shape) == 4
                and y.output_shape[1] == self.extractor.feature_shape[0]
                and min(y.output_shape[2:]) > 1
            ]
            is_known = (
                map_fields
                and map_fields[-1] is not None
                and None not in (*map_fields[-1].center, *map_fields[-1].stride)
            )
            self.cache[size] = (
                tuple((float(c), float(s)) for c, s in zip(map_fields[-1].center, map_fields[-1].stride, strict=True))
                if is_known
                else None
            )
        return self.cache[size]

    def logits_map(
        self, features: FeatureMap, classes: Sequence[int] | None, granularity: Granularity
    ) -> Float[Tensor, "n k down across"]:
        """`cells` or `windows`, of some classes or of all."""
        if granularity == "windows":
            return self.window_logits(features, classes)
        return self.cell_scores(features, range(len(self.head.weight)) if classes is None else classes)


def make_fully_convolutional(net: ImageClassifier) -> FullyConvolutional:
    """The network made dense. Raises LabError, with what it would need, for one without a feature map and a linear head.

    >>> from convolab.models.pretrained import pretrained
    >>> everywhere = dense(pretrained("efficientnet_lite0"))
    >>> with torch.no_grad():
    ...     features = everywhere.features(torch.full((1, 3, 320, 448), 0.5))
    >>> everywhere.cells(features, [281]).shape, everywhere.windows(features, [281]).shape
    (torch.Size([1, 1, 10, 14]), torch.Size([1, 1, 4, 8]))
    """
    extractor = create_feature_extractor(net)
    return FullyConvolutional(extractor, extractor.require_head("finding things in a large picture"))
