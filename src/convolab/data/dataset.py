"""The noun of this floor: a set of labelled pictures, decoded once and held in memory."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.core.rng import make_generator


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Pictures and labels, ready to train on: nothing is decoded later.

    Raises LabError if the shapes, types or labels do not fit together.

    >>> ImageSet(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("cat", "dog"), "pets")
    ImageSet('pets': 4 pictures of 1x8x8, 2 classes)
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"]
    classes: tuple[str, ...]  # the name of each label
    name: str

    def __post_init__(self) -> None:
        require(
            self.images.dtype == torch.uint8 and self.images.ndim == 4,
            f"{self.name}: images are {self.images.dtype} {list(self.images.shape)}: give uint8 [N, C, H, W]",
        )
        require(
            self.labels.dtype == torch.int64 and self.labels.shape == self.images.shape[:1],
            f"{self.name}: labels are {self.labels.dtype} {list(self.labels.shape)} for {len(self.images)} pictures: give int64 [N]",
        )
        require(len(self.images), f"{self.name} holds no pictures")
        low, high = int(self.labels.min()), int(self.labels.max())
        require(
            low >= 0 and high < len(self.classes),
            f"{self.name}: labels run from {low} to {high}, but there are {len(self.classes)} classes",
        )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"ImageSet('{self.name}': {len(self)} pictures of {shape}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every picture."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the pixels, labels, shape and class names: equal exactly for equal sets, whatever their name."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        digest.update(memoryview(self.images.contiguous().numpy()).cast("B"))
        digest.update(memoryview(self.labels.contiguous().numpy()).cast("B"))
        return digest.hexdigest()

    def gather(self, indices: Int64[Tensor, "m"]) -> tuple[UInt8[Tensor, "m c h w"], Int64[Tensor, "m"]]:
        """The pictures and labels of some rows, copied."""
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)

    def subset(self, indices: Int64[Tensor, "m"]) -> "Subset":
        """Some rows as a set of their own, without copying a pixel."""
        return Subset(self, indices)


@dataclass(frozen=True, eq=False)
class Subset:
    """Some rows of a picture set: it is trained and judged on like a whole one, and shares its pixels."""

    dataset: ImageDataset
    indices: Int64[Tensor, "m"]

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"Part({len(self)} pictures of {self.dataset!r})"

    @property
    def name(self) -> str:
        return self.dataset.name

    @property
    def classes(self) -> tuple[str, ...]:
        return self.dataset.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.dataset.shape

    @property
    def labels(self) -> Int64[Tensor, "m"]:
        return self.dataset.labels[self.indices]

    def gather(self, indices: Int64[Tensor, "k"]) -> tuple[UInt8[Tensor, "k c h w"], Int64[Tensor, "k"]]:
        """The pictures and labels of some rows of this part, copied."""
        return self.dataset.gather(self.indices[indices])

    def subset(self, indices: Int64[Tensor, "k"]) -> "Subset":
        """Some rows of this part, without copying a pixel."""
        return Subset(self.dataset, self.indices[indices])


def channel_mean_std(dataset: ImageDataset | Subset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1].

    Taken from exact whole-number sums, so the same on every machine whatever its number of threads.

    >>> mean_and_std(ImageSet(torch.tensor([0, 255]).view(2, 1, 1, 1).byte(), torch.tensor([0, 0]), ("any",), "two"))
    ((0.5,), (0.5,))
    """
    channels, height, width = dataset.shape
    totals, squares = torch.zeros(2, channels, dtype=torch.float64)
    for indices in torch.arange(len(dataset)).split(1024):
        images = dataset.gather(indices)[0].float()
        # A row of up to 258 squared bytes adds up to less than 2^24, so float32 holds it exactly; float64 holds the rest.
        totals += images.sum(3).double().sum((0, 2))
        squares += images.square_().sum(3).double().sum((0, 2))
    n = len(dataset) * height * width
    sums = [(int(total), int(square)) for total, square in zip(totals, squares, strict=True)]
    return tuple(t / n / 255 for t, _ in sums), tuple(math.sqrt(n * s - t * t) / n / 255 for t, s in sums)


def stratified_split(
    dataset: ImageDataset | Subset, fraction: float, seed: int, stream: str = "split"
) -> tuple[Subset, Subset]:
    """Split into (kept, held back), no pixel copied, with `share` of each class held back, fixed by the seed.

    Of every class with two pictures or more at least one goes to each side. Both sides keep the set's order.
    Raises LabError if the share is not between 0 and 1 or a side would be empty.

    >>> pets = ImageSet(torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.arange(10) % 2, ("cat", "dog"), "pets")
    >>> [len(part) for part in stratified_split(pets, 0.2, seed=0)]
    [8, 2]
    """
    require(0 < fraction < 1, f"the share held back is {fraction}: give one between 0 and 1")
    held_out = []
    labels = dataset.labels
    for label in range(len(dataset.classes)):
        members = (labels == label).nonzero().squeeze(1)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        if count > 0:
            order = torch.randperm(len(members), generator=make_generator(seed, stream, label))
            held_out.append(members[order[:count]])
    require(held_out, f"{dataset.name}: no class has two pictures, so none can be held back: add pictures")
    mask = torch.zeros(len(dataset), dtype=torch.bool)
    mask[torch.cat(held_out)] = True
    return dataset.subset((~mask).nonzero().squeeze(1)), dataset.subset(mask.nonzero().squeeze(1))
