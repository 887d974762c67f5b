"""A classifier of small images, applied everywhere in a large one: its linear layer becomes a convolution.

Nothing is trained, and no weight is copied. Behind a mean over the last feature map the linear layer is a convolution
of 1 x 1 cells, behind a flattening one as large as the map was (Sermanet et al. 2014, arXiv:1312.6229; Oquab et al.
2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convolab.analysis.summary import summarize_network
from convolab.core.errors import LabError, require, suggest, translate_memory_errors
from convolab.inspection.passes import prepared_input, require_proven_head
from convolab.inspection.types import UInt8Image
from convolab.models.classifier import ImageClassifier
from convolab.models.feature_head import ClassifierHead, FeatureExtractor, FeatureMap, create_feature_extractor
from convolab.models.inference import compute_logits, inference_view
from convolab.models.own_code import own_code_errors

GridAxis: TypeAlias = tuple[float, float]  # center of the first cell's receptive field, and the stride: pixels
RfGrid: TypeAlias = tuple[GridAxis, GridAxis]  # rows, columns
Granularity = Literal["cell", "window"]  # of a response: a cell of the last map, or all cells of a small image
HEAD_PURPOSE = "finding objects in a large image"
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)


@dataclass(frozen=True, eq=False)  # compared by identity: `erf_offset` keeps its measurement while it lives
class FullyConvolutional:
    """A network that gives logits for every position in an image of any size."""

    extractor: FeatureExtractor
    head: ClassifierHead
    _rf_grids: dict[tuple[int, int], RfGrid | None] = field(default_factory=dict, repr=False)

    @property
    def net(self) -> ImageClassifier:
        return self.extractor.net

    @property
    def default_granularity(self) -> Granularity:
        """Single cells, which are sharper, where each has a score of its own."""
        return "cell" if self.head.kind == "average" else "window"

    @property
    def window_shape(self) -> tuple[int, int]:
        """Rows and columns of the last feature map of an image of the network's own size."""
        return self.extractor.feature_shape[1:]

    def choose_granularity(self, granularity: Granularity | None) -> Granularity:
        """A granularity that this network has, its default for None.

        Raises LabError for cells behind a flattening, where a cell's weights depend on its position in the small image.
        """
        require(
            granularity != "cell" or self.head.kind == "average",
            "this network flattens its last feature map, so that a single cell has no score: "
            "choose the granularity window",
        )
        return granularity or self.default_granularity

    def forward_features(self, pixels: Float[Tensor, "n c h w"]) -> FeatureMap:
        """The last feature map of images of any size. Raises LabError if they have none, whatever the network does."""
        size, own_size = pixels.shape[2:], self.net.input_size
        is_smaller = size[0] < own_size[0] or size[1] < own_size[1]
        shown, own_shown = (" x ".join(map(str, sides)) for sides in (size, own_size))
        failure = f"this network takes no image of {shown} pixels"
        advice = f": give {'at least ' if is_smaller else ''}{own_shown}"
        with translate_memory_errors(f"give fewer than {shown} pixels"), own_code_errors(failure, advice):
            return self.extractor.forward_features(pixels)

    def cell_scores(self, features: FeatureMap, classes: Sequence[int]) -> Float[Tensor, "n k rows columns"]:
        """The score of each cell of a feature map for some classes: their mean over cells plus the bias is the logit.

        Raises LabError behind a flattening.
        """
        self.choose_granularity("cell")
        return torch.einsum("kc,nchw->nkhw", self.head.weight[list(classes)], features)

    def window_logits(
        self, features: FeatureMap, classes: Sequence[int] | None = None
    ) -> Float[Tensor, "n k down across"]:
        """The classifier's logits for every window of its own size, one cell apart: of some classes, or of all.

        An image of the network's own size has one window, whose logits are the classifier's. With padding inside the
        network the windows of larger images differ from cropped images, because their border sees its neighbors instead
        of zeros. Raises LabError for a map smaller than a window.
        """
        rows, columns = self.window_shape
        height, width = self.net.input_size
        require(
            features.shape[2] >= rows and features.shape[3] >= columns,
            f"the map has {features.shape[2]} x {features.shape[3]} cells, and a window {rows} x {columns}: "
            f"give an image of at least {height} x {width} pixels",
        )
        class_indices = slice(None) if classes is None else list(classes)
        weight = self.head.weight[class_indices]
        bias = self.head.bias[class_indices].view(1, -1, 1, 1)
        if self.head.kind == "flatten":
            return F.conv2d(features, weight) + bias
        if classes is None:
            return F.conv2d(F.avg_pool2d(features, self.window_shape, stride=1), weight[:, :, None, None]) + bias
        return F.avg_pool2d(self.cell_scores(features, classes), self.window_shape, stride=1) + bias

    def logits_map(
        self, features: FeatureMap, classes: Sequence[int] | None, granularity: Granularity
    ) -> Float[Tensor, "n k down across"]:
        """The scores of cells or the logits of windows, for some classes or for all."""
        if granularity == "window":
            return self.window_logits(features, classes)
        return self.cell_scores(features, range(len(self.head.weight)) if classes is None else classes)

    def rf_grid(self, size: tuple[int, int], cells: tuple[int, int]) -> RfGrid | None:
        """Where the receptive fields of the last map's cells are centered on images of a size; None where not known.

        It depends on the size: padding on one side, as TensorFlow pads, moves it. `cells` are the map's rows and columns:
        along an axis of one the stride is that of the network's own size. A network that flattens its map cannot be
        traced on other sizes; its grid is taken from its own size, which is exact unless it pads so.
        """
        if size not in self._rf_grids:
            self._rf_grids[size] = self.trace_rf_grid(size, cells)
        return self._rf_grids[size]

    def trace_rf_grid(self, size: tuple[int, int], cells: tuple[int, int]) -> RfGrid | None:
        """`rf_grid`, by a pass over the network on the meta device."""
        own_size = self.net.input_size
        try:
            layers = summarize_network(self.net.network, (self.net.channels, *size)).layers
        except LabError:
            return self.rf_grid(own_size, self.window_shape) if size != own_size else None
        shape = (self.extractor.feature_shape[0], *cells)
        field = next((layer.receptive_field for layer in reversed(layers) if layer.output_shape[1:] == shape), None)
        if field is None:
            return None
        axes: list[GridAxis] = []
        for axis, (center, stride) in enumerate(zip(field.center, field.stride, strict=True)):
            if cells[axis] == 1 and size != own_size and (own_grid := self.rf_grid(own_size, self.window_shape)):
                stride = own_grid[axis][1]
            if center is None or stride is None:
                return None
            axes.append((float(center), float(stride)))
        return axes[0], axes[1]


def parse_granularity(word: str) -> Granularity:
    """The granularity that a word names. Raises LabError for an unknown one.

    >>> parse_granularity("window")
    'window'
    """
    require(word not in ("cells", "windows"), f"granularity '{word}' is now called '{word.removesuffix('s')}'")
    for granularity in GRANULARITIES:
        if word == granularity:
            return granularity
    raise LabError(f"unknown granularity '{word}': {suggest(word, GRANULARITIES)}")


def prove_on_image(fcn: FullyConvolutional, photo: UInt8Image, targets: Sequence[int] = ()) -> None:
    """Prove the head on a photo at the network's own size, for the first of `targets` or the most probable class.

    Raises LabError for a network that computes something else on it, or no finite logits.
    """
    net = fcn.net
    pixels = net.preprocess(photo)
    logits = compute_logits(net, pixels)
    target = targets[0] if targets else int(logits.argmax())
    with prepared_input(net, pixels) as x:
        require_proven_head(fcn.extractor, x, target, HEAD_PURPOSE)


def make_fully_convolutional(net: ImageClassifier) -> FullyConvolutional:
    """The network, made fully convolutional: a view of it, over the same weights in memory.

    Raises LabError, with what it would need, for a network without a feature map and a linear head.

    >>> from convolab.models.pretrained import pretrained
    >>> fcn = make_fully_convolutional(pretrained("efficientnet_lite0"))
    >>> with torch.no_grad():
    ...     features = fcn.forward_features(torch.full((1, 3, 320, 448), 0.5))
    >>> fcn.cell_scores(features, [281]).shape, fcn.window_logits(features, [281]).shape
    (torch.Size([1, 1, 10, 14]), torch.Size([1, 1, 4, 8]))
    """
    extractor = create_feature_extractor(inference_view(net))
    return FullyConvolutional(extractor, extractor.require_head(HEAD_PURPOSE))
