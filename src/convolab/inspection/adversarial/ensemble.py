"""One picture before several networks, and differently each time, with the gradient kept: what makes fooling pictures transfer."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.models.classifier import ImageClassifier

Pixels = Float[Tensor, "n c h w"]
MIN_RESIZE_FRACTION = 0.9  # of a picture's sides, to which diversity shrinks it


def differentiable_preprocess(x: Pixels, net: ImageClassifier) -> Float[Tensor, "n c rows columns"]:
    """Pictures as a network's `fit` brings them to its size, in floats that gradients pass: resized with its filter, centre cropped.

    `fit` rounds to bytes after each pass of Pillow's filter, so the two differ by about a level. Raises LabError for pictures of
    other channels than the network's.
    """
    require(
        x.shape[1] == net.channels,
        f"the pictures have {x.shape[1]} channels and a source {net.channels}: choose sources of the same",
    )
    sides, (height, width) = tuple(x.shape[2:]), net.input_size
    scale = (
        math.floor(max(net.input_size) / net.crop_fraction) / min(sides)
        if net.crop_fraction
        else max(height / sides[0], width / sides[1])
    )
    resized = [max(target_side, round(side * scale)) for side, target_side in zip(sides, net.input_size, strict=True)]
    x = F.interpolate(x, resized, mode=net.interpolation, align_corners=False, antialias=True)
    top, left = (round((resized_side - want) / 2) for resized_side, want in zip(resized, net.input_size, strict=True))
    return x[:, :, top : top + height, left : left + width].clamp(0, 1)


def input_diversity(x: Pixels, probability: float, seed: int, image_indices: Sequence[int], step: int) -> Pixels:
    """Input diversity (Xie et al. 2019): by chance a picture is shrunk to 90 % or more and laid somewhere on black.

    A picture's draw depends on its number and the step alone.
    """
    return torch.cat(
        [
            random_resize_pad(image[None], probability, make_generator(seed, "diversity", n, step))
            for image, n in zip(x, image_indices, strict=True)
        ]
    )


def random_resize_pad(
    x: Float[Tensor, "1 c h w"], probability: float, rng: torch.Generator
) -> Float[Tensor, "1 c h w"]:
    draw, size, down, right = torch.rand(4, generator=rng, dtype=torch.float64).tolist()
    if draw >= probability:
        return x
    height, width = (
        max(1, round(side * (MIN_RESIZE_FRACTION + (1 - MIN_RESIZE_FRACTION) * size))) for side in x.shape[2:]
    )
    free_space = x.shape[2] - height, x.shape[3] - width
    top, left = round(free_space[0] * down), round(free_space[1] * right)
    shrunk = F.interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return F.pad(shrunk, (left, free_space[1] - left, top, free_space[0] - top))
