"""Color jitter and rotation are those of torchvision for the same factors and angles."""

import pytest
import torch
import torchvision.transforms.functional as tv
from support.probes import angles, color_factors, noise
from torch import Tensor

from convolab.core.rng import make_generator
from convolab.training.transforms import ColorJitter, RandomRotation, to_float01


@pytest.mark.parametrize("strength", [0.2, 0.7])
def test_color_is_brightness_contrast_and_saturation_of_torchvision(strength: float) -> None:
    images = to_float01(noise(60, height=12, width=10))
    ours = ColorJitter(strength)(images, make_generator("color"))
    clipped = 0
    for image, transformed, *factors in zip(images, ours, *color_factors(strength, 60, "color"), strict=True):
        expected = image
        for adjust, factor in zip(
            (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation), factors, strict=True
        ):
            expected = adjust(expected, factor.item())
        clipped += int((expected == 1).sum())
        torch.testing.assert_close(transformed, expected, atol=1e-3, rtol=0)
    assert clipped > 0  # so that clamping after every step is compared too


def central_disc(height: int, width: int) -> Tensor:
    """The pixels that are inside the image whatever the angle, including their neighbors."""
    y, x = torch.arange(height).view(-1, 1) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    return (y**2 + x**2).sqrt() <= min(height, width) / 2 - 1


@pytest.mark.parametrize(("height", "width"), [(17, 17), (16, 16), (32, 32), (25, 13), (12, 20)])
@pytest.mark.parametrize("degrees", [10.0, 180.0])
def test_a_rotation_is_that_of_torchvision_within_the_central_disc(height: int, width: int, degrees: float) -> None:
    images = to_float01(noise(40, height=height, width=width))
    ours, disc = RandomRotation(degrees)(images, make_generator("turn")), central_disc(height, width)
    for image, transformed, angle in zip(images, ours, angles(degrees, 40, "turn"), strict=True):
        expected = tv.rotate(image, angle.item(), tv.InterpolationMode.BILINEAR)
        torch.testing.assert_close(transformed[:, disc], expected[:, disc], atol=2e-3, rtol=0)
