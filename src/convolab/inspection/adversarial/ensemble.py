"""One picture before several networks, and differently each time, with the gradient kept: what makes fooling pictures transfer."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import need
from convolab.core.rng import generator
from convolab.models.classifier import PixelNet

Pixels = Float[Tensor, "n c h w"]
SMALLEST = 0.9  # of a picture's sides, to which diversity shrinks it


def brought(x: Pixels, net: PixelNet) -> Float[Tensor, "n c rows columns"]:
    """Pictures as a network's `fit` brings them to its size, in floats that gradients pass: resized with its filter, centre cropped.

    `fit` rounds to bytes after each pass of Pillow's filter, so the two differ by about a level. Raises LabError for pictures of
    other channels than the network's.
    """
    need(
        x.shape[1] == net.channels,
        f"the pictures have {x.shape[1]} channels and a source {net.channels}: choose sources of the same",
    )
    sides, (height, width) = tuple(x.shape[2:]), net.size
    scale = math.floor(max(net.size) / net.crop) / min(sides) if net.crop else max(height / sides[0], width / sides[1])
    enlarged = [max(want, round(side * scale)) for side, want in zip(sides, net.size, strict=True)]
    x = F.interpolate(x, enlarged, mode=net.interpolation, align_corners=False, antialias=True)
    top, left = (round((have - want) / 2) for have, want in zip(enlarged, net.size, strict=True))
    return x[:, :, top : top + height, left : left + width].clamp(0, 1)


def diversified(x: Pixels, share: float, seed: int, numbers: Sequence[int], step: int) -> Pixels:
    """Input diversity (Xie et al. 2019): by chance a picture is shrunk to 90 % or more and laid somewhere on black.

    A picture's draw depends on its number and the step alone.
    """
    return torch.cat(
        [
            one_of_many(one[None], share, generator(seed, "diversity", n, step))
            for one, n in zip(x, numbers, strict=True)
        ]
    )


def one_of_many(x: Float[Tensor, "1 c h w"], share: float, draws: torch.Generator) -> Float[Tensor, "1 c h w"]:
    chance, size, down, right = torch.rand(4, generator=draws, dtype=torch.float64).tolist()
    if chance >= share:
        return x
    height, width = (max(1, round(side * (SMALLEST + (1 - SMALLEST) * size))) for side in x.shape[2:])
    free = x.shape[2] - height, x.shape[3] - width
    top, left = round(free[0] * down), round(free[1] * right)
    small = F.interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=True)
    return F.pad(small, (left, free[1] - left, top, free[0] - top))
