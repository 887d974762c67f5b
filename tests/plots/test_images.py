"""Contact sheets."""

import numpy as np
import torch

from convolab.data.dataset import ImageDataset
from convolab.plots.images import contact_sheet


def test_a_contact_sheet_shows_the_first_images_of_each_class_in_rows() -> None:
    shades = torch.tensor([10, 200, 60, 250], dtype=torch.uint8)
    images = ImageDataset(
        shades.view(4, 1, 1, 1).expand(4, 3, 8, 8).contiguous(), torch.tensor([0, 1, 0, 1]), ("a", "b"), "four"
    )
    sheet = np.asarray(contact_sheet(images, per_class=2, zoom=1).convert("L"))
    assert [(sheet == shade).sum() >= 64 for shade in shades.tolist()] == [True] * 4
    first = {shade: np.argwhere(sheet == shade) for shade in (10, 60, 200, 250)}
    assert np.median(first[10][:, 0]) < np.median(first[200][:, 0])  # class a is above class b
    assert np.median(first[10][:, 1]) < np.median(first[60][:, 1])  # in the order of the dataset


def test_a_sheet_of_many_classes_shows_the_first_and_says_so() -> None:
    images = ImageDataset(
        torch.zeros(40, 1, 8, 8, dtype=torch.uint8), torch.arange(40), tuple(f"c{i}" for i in range(40)), "forty"
    )
    few, many = contact_sheet(images, per_class=1, max_classes=3), contact_sheet(images, per_class=1)
    assert few.height < many.height / 5
