"""Labeled images, decoded once and held in memory (or memory-mapped): what networks train on and are evaluated on."""

import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from convolab.core.calls import one_line_construction
from convolab.core.display import Displayable
from convolab.core.errors import require
from convolab.core.escape import JOINERS, escape_line
from convolab.core.text import join_with_and, truncate_list

UNSHOWN_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")  # of Unicode: control characters, half characters, line ends


@dataclass(frozen=True)
class FileRows:
    """Where images that are mapped into memory lie on the disk: one after another in a file."""

    path: Path
    offset: int  # of the first one, in bytes


@one_line_construction
@dataclass(frozen=True, eq=False)
class ImageDataset(Dataset[tuple[Tensor, int]], Displayable):
    """Images and labels, ready to train on: nothing is decoded later.

    It is a map-style dataset, so a `torch.utils.data.DataLoader` takes it: `dataset[i]` is (image, label), the image
    uint8 [C, H, W] and a view of the dataset's memory. convolab's own training takes whole batches by `gather`.

    Args:
        images: uint8 [N, C, H, W].
        labels: int64 [N], each an index into `classes`.
        classes: the name of each label.
        name: what messages and reports call the dataset.
        names: of each image, such as its file's; None where images have no names.

    Raises LabError if the shapes, types or labels do not fit together.

    >>> ImageDataset(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("cat", "dog"), "pets")
    ImageDataset('pets': 4 images of 1x8x8, 2 classes)
    """

    _internal_names = frozenset({"file_rows", "gather", "with_file_rows", "with_fingerprint"})

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, "n"]
    classes: tuple[str, ...]
    name: str
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))  # a list's fingerprint would be another one
        require(
            self.images.dtype == torch.uint8 and self.images.ndim == 4,
            f"{self.name}: images are {self.images.dtype} {list(self.images.shape)}: give uint8 [N, C, H, W]",
        )
        require(
            self.labels.dtype == torch.int64 and self.labels.shape == self.images.shape[:1],
            f"{self.name}: labels are {self.labels.dtype} {list(self.labels.shape)} for {len(self.images)} images: "
            "give int64 [N]",
        )
        require(len(self.images), f"{self.name} has no images")
        low = int(self.labels.min())
        high = int(self.labels.max())
        require(
            low >= 0 and high < len(self.classes),
            f"{self.name}: labels run from {low} to {high}, but there are {len(self.classes)} classes",
        )
        require_class_names(self.classes, self.name)
        require(
            self.names is None or len(self.names) == len(self.images),
            f"{self.name}: there are {len(self.names or ())} names for {len(self.images)} images: give one for each",
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "c h w"], int]:
        return self.images[index], int(self.labels[index])

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"ImageDataset('{self.name}': {len(self)} images of {shape}, {len(self.classes)} classes)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the pixels, labels, shape and class names: equal for equal datasets, whatever their name."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        digest.update(self.images.contiguous().numpy().data.cast("B"))
        digest.update(self.labels.contiguous().numpy().data.cast("B"))
        return digest.hexdigest()

    def with_fingerprint(self, fingerprint: str) -> "ImageDataset":
        """This dataset, whose fingerprint is known already: computing it reads every byte."""
        vars(self)["fingerprint"] = fingerprint
        return self

    @property
    def file_rows(self) -> FileRows | None:
        """The file that the images are mapped from; None if they are in memory."""
        return vars(self).get("mapped_rows")

    def with_file_rows(self, rows: FileRows) -> "ImageDataset":
        """This dataset, whose images are mapped from a file: processes can map it instead of copying them."""
        vars(self)["mapped_rows"] = rows
        return self

    def gather(self, indices: Int64[Tensor, "m"]) -> tuple[UInt8[Tensor, "m c h w"], Int64[Tensor, "m"]]:
        """The images and labels at some indices, copied."""
        return self.images.index_select(0, indices), self.labels.index_select(0, indices)

    def subset(self, indices: Int64[Tensor, "m"]) -> "Subset":
        """The images at some indices as a dataset, without copying a pixel."""
        return Subset(self, indices)


@dataclass(frozen=True, eq=False)
class Subset(Dataset[tuple[Tensor, int]], Displayable):
    """Some images of a dataset: networks train on it and are evaluated on it as on the dataset, whose pixels it shares.

    As of a dataset, `subset[i]` is (image, label), and a `torch.utils.data.DataLoader` takes it.
    """

    _internal_names = frozenset({"gather"})

    dataset: ImageDataset
    indices: Int64[Tensor, "m"]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "c h w"], int]:
        return self.dataset[int(self.indices[index])]

    def __repr__(self) -> str:
        return f"Subset({len(self)} images of {self.dataset!r})"

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

    @property
    def names(self) -> tuple[str, ...] | None:
        names = self.dataset.names
        return None if names is None else tuple(names[index] for index in self.indices.tolist())

    def copy(self) -> ImageDataset:
        """These images as a dataset of its own."""
        return ImageDataset(*self.dataset.gather(self.indices), self.classes, self.name, self.names)

    def gather(self, indices: Int64[Tensor, "k"]) -> tuple[UInt8[Tensor, "k c h w"], Int64[Tensor, "k"]]:
        """The images and labels at some indices of this subset, copied."""
        return self.dataset.gather(self.indices[indices])

    def subset(self, indices: Int64[Tensor, "k"]) -> "Subset":
        """The images at some indices of this subset, without copying a pixel."""
        return Subset(self.dataset, self.indices[indices])


def require_class_names(names: Sequence[str], context: str) -> None:
    """Raise LabError, beginning with the context, for equal names and for those that cannot be shown in one line."""
    for name in names:
        is_shown = not any(
            unicodedata.category(letter) in UNSHOWN_CATEGORIES and letter not in JOINERS for letter in name
        )
        require(
            name.strip() and is_shown,
            f"{context}: a class is called {ascii(name)[:100]}: give it a name without control characters",
        )
    repeated = [escape_line(name, 60) for name, count in Counter(names).items() if count > 1]
    require(not repeated, f"{context}: more than one class is called {truncate_list(repeated)}: rename all but one")


def similar_class_names(names: Sequence[str]) -> list[str]:
    """A note for each group of names that a reader may take for one.

    >>> similar_class_names(["Cat", "cat", "dog"])
    ["the classes 'Cat' and 'cat' differ only in case or in how their letters are encoded"]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        groups.setdefault(" ".join(key.split()), []).append(f"'{name}'")
    return [
        f"the classes {join_with_and(group)} differ only in case or in how their letters are encoded"
        for group in groups.values()
        if len(group) > 1
    ]


def channel_mean_std(dataset: ImageDataset | Subset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels in [0, 1].

    Computed from exact integer sums, so the same on every machine and for any number of threads.

    >>> black_and_white = torch.tensor([0, 255]).view(2, 1, 1, 1).byte()
    >>> channel_mean_std(ImageDataset(black_and_white, torch.tensor([0, 0]), ("any",), "two"))
    ((0.5,), (0.5,))
    """
    channels, height, width = dataset.shape
    totals, squares = torch.zeros(2, channels, dtype=torch.int64)
    for indices in torch.arange(len(dataset)).split(images_per_chunk(dataset.shape)):
        # A row of up to 258 squared bytes adds up to less than 2^24, so float32 is exact; int64 is for their sum.
        for images in dataset.gather(indices)[0].split(256, dim=3):
            rows = images.float()
            totals += rows.sum(3).long().sum((0, 2))
            squares += rows.square_().sum(3).long().sum((0, 2))
    n = len(dataset) * height * width
    sums = [(int(total), int(square)) for total, square in zip(totals, squares, strict=True)]
    mean = tuple(total / n / 255 for total, _ in sums)
    std = tuple(math.sqrt(n * square - total * total) / n / 255 for total, square in sums)
    return mean, std


def images_per_chunk(shape: tuple[int, ...]) -> int:
    """How many images of a shape are looked at at once: 1024, or as many as have 4 million values.

    >>> images_per_chunk((3, 32, 32)), images_per_chunk((3, 512, 512))
    (1024, 5)
    """
    return max(1, min(1024, 2**22 // math.prod(shape)))
