"""The digits that come with scikit-learn: no download, and small enough to learn in seconds."""

import torch

from convolab.data.dataset import ImageDataset
from convolab.data.splits import train_test_split


def read_digits() -> tuple[ImageDataset, ImageDataset]:
    """The train and the test set, uint8 [1438, 1, 8, 8] and [359, 1, 8, 8]: a fixed fifth of each digit is for the test."""
    from sklearn.datasets import load_digits  # takes 1 s to import

    digits = load_digits()
    images = torch.from_numpy(digits.images / 16 * 255).round().to(torch.uint8)[:, None]  # from 0..16 to 0..255
    labels = torch.from_numpy(digits.target).long()
    return train_test_split(ImageDataset(images, labels, tuple("0123456789"), "digits"))
