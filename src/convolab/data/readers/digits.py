"""The digits that scikit-learn includes: no download, and small enough to learn in seconds."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from convolab.data.dataset import ImageDataset
from convolab.data.splits import train_test_split


def read_digits() -> tuple[ImageDataset, ImageDataset]:
    """The training and the test set, uint8 [1438, 1, 8, 8] and [359, 1, 8, 8]: a fixed fifth of each digit to test."""
    table = read_digits_table()
    images = torch.from_numpy(table[:, :-1] / 16 * 255).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(table[:, -1]).long()
    return train_test_split(ImageDataset(images, labels, tuple("0123456789"), "digits"))


def read_digits_table() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """A row for each image, float64 [1797, 65]: 64 pixels from 0 to 16, and the label.

    Read from scikit-learn's file, because importing scikit-learn takes longer than training on the digits.
    """
    package = find_spec("sklearn")
    path = Path((package and package.origin) or "").parent / "datasets" / "data" / "digits.csv.gz"
    if path.is_file():
        return np.loadtxt(path, delimiter=",")
    from sklearn.datasets import load_digits  # where it keeps the file elsewhere

    rows, targets = load_digits(return_X_y=True)
    return np.column_stack([rows, targets])
