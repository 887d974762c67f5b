"""The digits that scikit-learn includes: no download, and small enough to learn in seconds."""

import numpy as np
import torch

from convolab.data.dataset import ImageDataset
from convolab.data.splits import train_test_split


def read_digits() -> tuple[ImageDataset, ImageDataset]:
    """The training and the test set, uint8 [1438, 1, 8, 8] and [359, 1, 8, 8]: a fixed fifth of each digit to test."""
    from sklearn.datasets import load_digits  # takes 1 s to import

    rows, targets = load_digits(return_X_y=True)  # float64 [1797, 64] from 0 to 16, int64 [1797]
    pixels = np.asarray(rows).reshape(-1, 1, 8, 8)
    images = torch.from_numpy(pixels / 16 * 255).round().to(torch.uint8)
    labels = torch.from_numpy(np.asarray(targets)).long()
    return train_test_split(ImageDataset(images, labels, tuple("0123456789"), "digits"))
