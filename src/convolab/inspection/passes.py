"""Forward and backward passes that several methods share. Each leaves the network as it was, also when it fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import require
from convolab.inspection.types import Pixels, SinglePixels
from convolab.models.bn_folding import fold_batch_norms
from convolab.models.classifier import ImageClassifier
from convolab.models.hooks import record_calls
from convolab.models.inference import frozen_eval

BATCH_SIZE = 5  # images in one pass: more do not fit into a small processor's cache


@contextmanager
def prepared_input(net: ImageClassifier, pixels: Pixels) -> Iterator[SinglePixels]:
    """The checked pixels of one image, in the network's type and layout; the network is in evaluation mode inside.

    Raises LabError for pixels that are not finite, outside [0, 1], or of several images.
    """
    net.check_pixels(pixels)
    require(len(pixels) == 1, f"{len(pixels)} images: give one at a time")
    with frozen_eval(net):
        x = pixels.detach().to(next(net.parameters(), net.scale))
        yield x.contiguous(memory_format=torch.channels_last)  # convolutions are faster in this layout


@contextmanager
def with_folded_batch_norm(net: ImageClassifier, x: SinglePixels) -> Iterator[Float[Tensor, "1 classes"]]:
    """The network with its batch norms folded into the convolutions; yields the logits of `x` without folding."""
    with torch.no_grad(), record_calls(net.network) as recorder:
        logits = net.forward_unchecked(x)
    with fold_batch_norms(net.network, recorder):
        del recorder  # it holds every activation of the pass
        yield logits


def logit_gradients(net: ImageClassifier, points: Pixels, target: int) -> Pixels:
    """The gradient of the target's logit with respect to each image in `points`; the graph is freed."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        score = net.forward_unchecked(points)[:, target].sum()
        return torch.autograd.grad(score, points)[0]


def mean_color_image(net: ImageClassifier, like: Pixels) -> Pixels:
    """Images of the color that normalization maps to zero."""
    return torch.tensor(net.mean).to(like).view(1, -1, 1, 1).expand_as(like)
