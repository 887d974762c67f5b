"""What makes fooling images transfer, with gradients kept: several networks, and input diversity."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.inspection.types import Pixels, SinglePixels
from convolab.models.classifier import ImageClassifier

MIN_RESIZE_FRACTION = 0.9  # of an image's sides, to which input diversity shrinks it


def differentiable_preprocess(x: Pixels, net: ImageClassifier) -> Float[Tensor, "n c rows columns"]:
    """Images as a network's `preprocess` would give them, resized and center-cropped, in floats and differentiable.

    `preprocess` rounds to bytes after each pass of Pillow's filter, so the two differ by about a level. Raises
    LabError for images of other channels than the network's.
    """
    require(
        x.shape[1] == net.channels,
        f"the images have {x.shape[1]} channels and a surrogate takes {net.channels}: choose surrogates of the same",
    )
    sides = tuple(x.shape[2:])
    if net.crop_fraction:
        scale = math.floor(max(net.input_size) / net.crop_fraction) / min(sides)
    else:
        scale = max(target / side for target, side in zip(net.input_size, sides, strict=True))
    resized = [max(target, round(side * scale)) for side, target in zip(sides, net.input_size, strict=True)]
    x = F.interpolate(x, resized, mode=net.interpolation, align_corners=False, antialias=True)
    height, width = net.input_size
    top, left = round((resized[0] - height) / 2), round((resized[1] - width) / 2)
    return x[:, :, top : top + height, left : left + width].clamp(0, 1)


def input_diversity(x: Pixels, probability: float, seed: int, image_indices: Sequence[int], step: int) -> Pixels:
    """Input diversity: with a probability, each image is shrunk to 90 % or more and padded with black at random.

    Xie et al. 2019, arXiv:1803.06978. An image's draw depends on its index and the step alone.
    """
    varied = [
        random_resize_pad(image[None], probability, make_generator(seed, "diversity", index, step))
        for image, index in zip(x, image_indices, strict=True)
    ]
    return torch.cat(varied)


def random_resize_pad(x: SinglePixels, probability: float, rng: torch.Generator) -> SinglePixels:
    """Input diversity for one image, drawn from a generator."""
    draw, size, down, right = torch.rand(4, generator=rng, dtype=torch.float64).tolist()
    if draw >= probability:
        return x
    fraction = MIN_RESIZE_FRACTION + (1 - MIN_RESIZE_FRACTION) * size
    height, width = (max(1, round(side * fraction)) for side in x.shape[2:])
    free_rows, free_columns = x.shape[2] - height, x.shape[3] - width
    top, left = round(free_rows * down), round(free_columns * right)
    shrunk = F.interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return F.pad(shrunk, (left, free_columns - left, top, free_rows - top))
