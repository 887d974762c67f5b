"""Forward and backward passes that several methods share. Each leaves the network as it was, also when it fails."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.rng import make_generator
from convolab.inspection.types import Logits, Pixels, SinglePixels
from convolab.models.classifier import ImageClassifier
from convolab.models.feature_head import ClassifierHead, FeatureExtractor, FeatureMap
from convolab.models.inference import frozen_eval, is_rounding_apart

PROOF_NOISE = 0.1  # standard deviation, in pixels of [0, 1]


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


def require_proven_head(extractor: FeatureExtractor, x: SinglePixels, target: int, purpose: str) -> None:
    """Prove that a network's head is all that follows its last feature map, on an image and one noisy copy of it.

    The head's logits agree with the network's, and so do the gradients of the target's logit with respect to the map;
    nothing passes the map by. Raises LabError otherwise: there is no other way to score the map's cells.
    """
    head = extractor.require_head(purpose)
    for image in (x, noisy_copy(x)):
        with torch.enable_grad():
            points = image.detach().requires_grad_()
            features, logits = extractor.forward_features_and_logits(points, detach=True)
            require_close_head(head, features, logits, target, purpose, points)


def require_close_head(
    head: ClassifierHead,
    features: FeatureMap,
    logits: Logits,
    target: int,
    purpose: str,
    points: SinglePixels | None = None,
) -> None:
    """Raise LabError unless a head's logits, and the gradient of the target's, are the network's on this image.

    `features` is a leaf that requires gradients, from which the network made `logits`. With `points`, the pixels, it
    is refused too if their gradient passes the map by.
    """
    head_logits = head(features)
    require(
        is_rounding_apart(head_logits.detach(), logits.detach()),
        f"{purpose} needs a head that averages or flattens the last feature map and is linear: on this image this "
        "network computes something else",
    )
    inputs = [features] if points is None else [features, points]
    has_graph = logits.requires_grad  # else the network detaches them
    gradient, *around = torch.autograd.grad(logits[0, target], inputs, allow_unused=True) if has_graph else [None]
    (head_gradient,) = torch.autograd.grad(head_logits[0, target], features)
    is_only_way = all(other is None or not other.any() for other in around)
    is_proven = is_only_way and gradient is not None and is_rounding_apart(head_gradient, gradient)
    require(is_proven, f"{purpose} needs a head that is linear: on this image this network's is not")


def is_batch_independent(net: ImageClassifier, pixels: Float[Tensor, "2 c h w"]) -> bool:
    """Whether two images in one pass have the logits that each has alone: then batches change nothing."""
    with torch.no_grad():
        alone = torch.cat([net.forward_unchecked(image) for image in pixels.split(1)])
        try:
            together = net.forward_unchecked(pixels)
        except Exception:  # a network may fail in any way on what it was not written for
            return False
    return all(is_rounding_apart(ours, plain) for ours, plain in zip(together, alone, strict=True))


def noisy_copy(x: SinglePixels) -> SinglePixels:
    """The image with normal noise, always the same; values may leave [0, 1]."""
    return x + PROOF_NOISE * torch.randn(x.shape, generator=make_generator(0, "noisy copy")).to(x)


def logit_gradients(net: ImageClassifier, points: Pixels, target: int) -> Pixels:
    """The gradient of the target's logit with respect to each image in `points`; the graph is freed.

    Raises LabError for a network that has no gradient.
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        score = net.forward_unchecked(points)[:, target].sum()
        return gradient_of(score, points)


def gradient_of(
    score: Tensor,
    inputs: Tensor,
    *,
    name: str = "the pixels",
    remedy: str = "use the method occlusion",
    retain_graph: bool = False,
) -> Tensor:
    """The gradient of a score with respect to inputs of that name; the graph is freed unless it is retained.

    Raises LabError with a remedy where autograd sees no way from the inputs to the score.
    """
    has_graph = score.requires_grad  # else autograd refuses to look for a way
    (gradient,) = (
        torch.autograd.grad(score, inputs, retain_graph=retain_graph, allow_unused=True) if has_graph else [None]
    )
    if gradient is None:
        raise LabError(
            f"this network's logits have no gradient with respect to {name} (it rounds or detaches them, or computes "
            f"under no_grad): {remedy}"
        )
    return gradient


def mean_color_image(net: ImageClassifier, like: Pixels) -> Pixels:
    """Images of the color that normalization maps to zero."""
    return torch.tensor(net.mean).to(like).view(1, -1, 1, 1).expand_as(like)
