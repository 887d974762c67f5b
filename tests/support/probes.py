"""Images from which, after a transform, one can compute what it drew."""

import torch
from torch import Tensor

from convolab.core.rng import make_generator
from convolab.training.transforms import ColorJitter, RandomRotation


def noise(n: int, channels: int = 3, height: int = 9, width: int = 7) -> Tensor:
    """Images of which no two have a row in common, in bytes from 1 to 255, so that none looks like padding."""
    return torch.randint(
        1, 256, (n, channels, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def color_factors(strength: float, n: int, *key: int | str) -> tuple[Tensor, Tensor, Tensor]:
    """The factors that each of `n` images draws, recovered from an image that no factor takes out of [0, 1].

    Its left half is dark gray and its right half is bluish: brightness is in the mean of the two lumas, contrast in
    their difference, saturation in the remaining color.
    """
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    probe = torch.empty(3, 2, 2)
    probe[:, :, 0], probe[:, :, 1] = 0.22, torch.tensor([0.26, 0.28, 0.36]).view(3, 1)
    after = ColorJitter(strength)(probe.expand(n, 3, 2, 2).contiguous(), make_generator(*key))
    luma_before, luma_after = (probe * weights).sum(0)[0], (after * weights).sum(1)[:, 0]  # [2], [N, 2]
    chroma_before, chroma_after = probe[2, 0, 1] - probe[0, 0, 1], after[:, 2, 0, 1] - after[:, 0, 0, 1]
    brightness = luma_after.mean(1) / luma_before.mean()
    contrast = (luma_after[:, 1] - luma_after[:, 0]) / (luma_before[1] - luma_before[0]) / brightness
    return brightness, contrast, chroma_after / chroma_before / brightness / contrast


def angles(degrees: float, n: int, *key: int | str, height: int = 17, width: int = 17) -> Tensor:
    """The angles, in degrees counter-clockwise, by which each of `n` images is rotated, measured on a linear ramp."""
    ramp = torch.linspace(-0.3, 0.3, width).expand(1, 1, height, width)
    rotated = RandomRotation(degrees)(0.5 + ramp.expand(n, -1, -1, -1), make_generator(*key))
    h, w = height // 2, width // 2
    along_x, along_y = (
        rotated[:, 0, h, w + 1] - rotated[:, 0, h, w - 1],
        rotated[:, 0, h + 1, w] - rotated[:, 0, h - 1, w],
    )
    return torch.rad2deg(torch.atan2(-along_y, along_x))
