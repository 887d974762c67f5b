"""Small networks with every kind of head, and an image for them."""

import pytest
import torch
from support.small_nets import flat_net, trained, wrapped
from torch import Tensor

from convolab.models.classifier import ImageClassifier
from convolab.models.registry import build


@pytest.fixture
def convnet() -> ImageClassifier:
    return wrapped(trained(build("simple_convnet", (3, 32, 32), 10)))


@pytest.fixture
def resnet() -> ImageClassifier:
    return wrapped(trained(build("resnet_small", (3, 32, 32), 10)))


@pytest.fixture
def flat() -> ImageClassifier:
    return wrapped(flat_net())


@pytest.fixture
def shallow() -> ImageClassifier:
    return wrapped(build("shallow_net", (3, 32, 32), 10))


@pytest.fixture
def pixels() -> Tensor:
    """A bright square on a textured background."""
    image = 0.3 + 0.2 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    image[:, :, 8:16, 12:20] += 0.4
    return image
