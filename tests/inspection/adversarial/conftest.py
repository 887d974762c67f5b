import pytest
import torch
from torch import Tensor


@pytest.fixture
def start(pixels: Tensor) -> Tensor:
    """Three images: one, its mirror image and its negative."""
    return (255 * torch.cat([pixels, pixels.flip(3), 1 - pixels])).round().to(torch.uint8)
