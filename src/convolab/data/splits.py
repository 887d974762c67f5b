"""Splits of a dataset: into training and test images, and into training and validation images."""

from typing import NamedTuple

import torch

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.data.dataset import ImageDataset, Subset


class DatasetSplits(NamedTuple):
    """A dataset as it is used: what to train on and what to test on."""

    train: ImageDataset
    test: ImageDataset
    unreadable: tuple[str, ...] = ()  # the files of a folder that could not be read, each with the reason


def stratified_split(
    dataset: ImageDataset | Subset, fraction: float, seed: int, stream: str = "split"
) -> tuple[Subset, Subset]:
    """Split into the kept and the held-out images, with `fraction` of each class held out; no pixel is copied.

    Of every class with two images or more at least one goes to each side; a class with one image is kept.

    Args:
        dataset: what to split.
        fraction: the held-out fraction of each class, above 0 and below 1.
        seed: equal seeds give equal splits.
        stream: which of the seed's random streams draws the split.

    Returns:
        (kept, held out), each in the dataset's order.

    Raises LabError if the fraction is not between 0 and 1 or no class has two images.

    >>> images = torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
    >>> pets = ImageDataset(images, torch.arange(10) % 2, ("cat", "dog"), "pets")
    >>> [len(subset) for subset in stratified_split(pets, 0.2, seed=0)]
    [8, 2]
    """
    require(0 < fraction < 1, f"the held-out fraction is {fraction}: give one between 0 and 1")
    held_out = []
    labels = dataset.labels
    for label in range(len(dataset.classes)):
        members = (labels == label).nonzero().squeeze(1)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        if count > 0:
            order = torch.randperm(len(members), generator=make_generator(seed, stream, label))
            held_out.append(members[order[:count]])
    require(held_out, f"{dataset.name}: no class has two images, so none can be held out: add images")
    mask = torch.zeros(len(dataset), dtype=torch.bool)
    mask[torch.cat(held_out)] = True
    return dataset.subset((~mask).nonzero().squeeze(1)), dataset.subset(mask.nonzero().squeeze(1))


def train_test_split(dataset: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """Split a dataset that has no test set into (train, test): always the same fifth of each class for testing.

    Raises LabError if no class has two images.
    """
    subsets = stratified_split(dataset, 0.2, seed=0, stream="test")
    train, test = (ImageDataset(*dataset.gather(subset.indices), dataset.classes, dataset.name) for subset in subsets)
    return train, test
