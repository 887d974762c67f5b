"""Images for the tests of the experiment."""

import pytest
import torch

from convolab.data.catalog import load
from convolab.data.dataset import ImageDataset
from convolab.data.splits import DatasetSplits


@pytest.fixture(scope="session")
def digits() -> DatasetSplits:
    return load("digits")


@pytest.fixture(scope="session")
def color_images() -> DatasetSplits:
    """40 random images of 3 channels and 12 x 12 pixels in 4 classes, for training and testing."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 12, 12), dtype=torch.uint8, generator=rng)
    dataset = ImageDataset(images, torch.arange(40) % 4, ("a", "b", "c", "d"), "color_images")
    return DatasetSplits(dataset, dataset)
