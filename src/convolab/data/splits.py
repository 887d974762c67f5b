"""Splits of a dataset: into training and test images, and into training and validation images."""

from collections.abc import Iterator
from typing import Any

import torch

from convolab.core.display import Displayable
from convolab.core.errors import LabError, require
from convolab.core.rng import make_generator
from convolab.core.text import pluralize
from convolab.data.dataset import ImageDataset, Subset

NO_TEST = "none"  # what stands for the fingerprint of a test set that is missing


class DatasetSplits(Displayable):
    """A dataset as it is used: what to train on, what to validate on and what to test on.

    Unpacked, it is (train, test, unreadable).

    Args:
        train: the training images.
        test: the test images, or None: then reading `test` is an error that says so.
        unreadable: the files of a folder that could not be read, each with the reason.
        validation: validation images of the dataset's own; by default a part of the training images is held out.
        notes: what a person should know of the images, a line each.
    """

    def __init__(
        self,
        train: ImageDataset,
        test: ImageDataset | None,
        unreadable: tuple[str, ...] = (),
        *,
        validation: ImageDataset | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.train = train
        self.validation = validation
        self.unreadable = unreadable
        self.notes = notes
        self._test = test

    def __iter__(self) -> Iterator[Any]:
        return iter((self.train, self.test, self.unreadable))

    def __repr__(self) -> str:
        more = [
            pluralize(len(lines), noun)
            for lines, noun in ((self.unreadable, "unreadable file"), (self.notes, "note"))
            if lines
        ]
        lines = "\n".join(f"{split}: {dataset!r}" for split, dataset in self.by_name.items())
        return f"{lines} ({' and '.join(more)}: print it)" if more else lines

    def __str__(self) -> str:
        return "\n".join(
            (
                *(f"{split}: {dataset!r}" for split, dataset in self.by_name.items()),
                *(f"skipped (unreadable): {file}" for file in self.unreadable),
                *self.notes,
            )
        )

    @property
    def has_test(self) -> bool:
        return self._test is not None

    @property
    def test(self) -> ImageDataset:
        """The test images. Raises LabError if there are none."""
        if self._test is None:
            raise LabError(
                f"{self.train.name} has no test images, and validation images are not for testing: add some (a folder test, or rows of the split test)"
            )
        return self._test

    @property
    def by_name(self) -> dict[str, ImageDataset]:
        """The datasets that there are, by "train", "validation" and "test"."""
        datasets = {"train": self.train, "validation": self.validation, "test": self._test}
        return {name: dataset for name, dataset in datasets.items() if dataset is not None}

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each dataset, by `train_sha256` and so on; "none" for a test set that is missing."""
        test = self._test.fingerprint if self._test is not None else NO_TEST
        fingerprints = {"train_sha256": self.train.fingerprint, "test_sha256": test}
        return fingerprints | (
            {"validation_sha256": self.validation.fingerprint} if self.validation is not None else {}
        )


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


def train_test_subsets(dataset: ImageDataset) -> tuple[Subset, Subset]:
    """Split a dataset that has no test set into (train, test): always the same fifth of each class for testing.

    Raises LabError if no class has two images.
    """
    return stratified_split(dataset, 0.2, seed=0, stream="test")


def train_test_split(dataset: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """The subsets of `train_test_subsets` as datasets of their own."""
    train, test = (subset.copy() for subset in train_test_subsets(dataset))
    return train, test
