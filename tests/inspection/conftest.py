"""Small networks with every kind of head, and an image for them."""

import pytest
import torch
from support.small_nets import classifier_of, flatten_net, randomize_batch_norms
from torch import Tensor

from convolab.models.classifier import ImageClassifier
from convolab.models.registry import build


@pytest.fixture
def convnet() -> ImageClassifier:
    return classifier_of(randomize_batch_norms(build("simple_convnet", (3, 32, 32), 10)))


@pytest.fixture
def resnet() -> ImageClassifier:
    return classifier_of(randomize_batch_norms(build("resnet_small", (3, 32, 32), 10)))


@pytest.fixture
def flat() -> ImageClassifier:
    return classifier_of(flatten_net())


@pytest.fixture
def shallow() -> ImageClassifier:
    return classifier_of(build("shallow_net", (3, 32, 32), 10))


@pytest.fixture
def pixels() -> Tensor:
    """A bright square on a textured background."""
    image = 0.3 + 0.2 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    image[:, :, 8:16, 12:20] += 0.4
    return image
