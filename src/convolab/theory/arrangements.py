"""The same images arranged in ways that break what a convolution assumes, pixel for pixel.

as they are         both assumptions hold
pixels permuted     one fixed permutation of all pixels: neither holds, though no information is lost
shifted in blocks   each block's pixels are shifted circularly by an offset of its own: neighbors stay near each other,
                    but every position looks different
moved               trained with digits on the left, tested with digits on the right; only for images on a canvas
"""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from convolab.core.rng import make_generator
from convolab.core.types import Frozen, PositiveFloat, PositiveInt
from convolab.data.dataset import ImageDataset
from convolab.data.splits import DatasetSplits
from convolab.training.setup import stratified_subsample

AS_IS = "as they are"
PERMUTED = "pixels permuted"
BLOCKS = "shifted in blocks"
MOVED = "moved"

CanvasRegion = Literal["anywhere", "left", "right"]  # of a canvas


class PriorsConfig(Frozen):
    """All settings of the experiment; with the data they decide the result. Both networks use the same recipe."""

    canvas_size: PositiveInt | None = 16  # pixels; images are placed on a canvas of this size; None: as they are
    train_size: PositiveInt = 1000  # images to train on
    test_placements: PositiveInt = 3  # positions at which each test image is shown
    block_size: PositiveInt = 4  # pixels, side of the blocks that are shifted
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 0.01  # learning rate of Adam, on a cosine schedule
    seed: int = 0
    num_seeds: PositiveInt = 5  # trainings of each network on each arrangement: seed, seed + 1, ...

    @property
    def arrangements(self) -> tuple[str, ...]:
        """What this experiment trains on; only images on a canvas can be moved."""
        return (AS_IS, PERMUTED, BLOCKS) if self.canvas_size is None else (AS_IS, PERMUTED, BLOCKS, MOVED)

    @property
    def num_trials(self) -> int:
        """One for each seed, arrangement and network."""
        return self.num_seeds * len(self.arrangements) * 2


def iterate_arrangements(
    config: PriorsConfig, splits: DatasetSplits, seed: int
) -> Iterator[tuple[str, tuple[ImageDataset, ImageDataset]]]:
    """The training and the test images in each arrangement; the seed decides which images, where and how."""
    subset = stratified_subsample(splits.train, config.train_size, seed)
    few = ImageDataset(*splits.train.gather(subset.indices), splits.train.classes, splits.train.name)
    canvas = config.canvas_size
    train = place_on_canvas(few, canvas, 1, seed, "train")
    test = place_on_canvas(splits.test, canvas, config.test_placements, seed, "test")
    yield AS_IS, (train, test)
    height, width = train.shape[1:]
    for name, pixel_order in (
        (PERMUTED, pixel_permutation(height, width, seed)),
        (BLOCKS, block_shift_permutation(height, width, config.block_size, seed)),
    ):
        yield name, (reorder_pixels(train, pixel_order), reorder_pixels(test, pixel_order))
    if canvas is not None:
        left = place_on_canvas(few, canvas, 1, seed, "train", "left")
        right = place_on_canvas(splits.test, canvas, config.test_placements, seed, "test", "right")
        yield MOVED, (left, right)


def place_on_canvas(
    dataset: ImageDataset,
    canvas_size: int | None,
    placements: int,
    seed: int,
    split: Literal["train", "test"],
    region: CanvasRegion = "anywhere",
) -> ImageDataset:
    """Each image on `placements` black canvases of `canvas_size` pixels, at positions drawn uniformly.

    For the region "left" only positions of the left third are drawn, for "right" only those of the right third. Without
    a canvas the images stay as they are. The positions are a function of (seed, split).
    """
    if canvas_size is None:
        return dataset
    channels, height, width = dataset.shape
    count = len(dataset) * placements
    rng = make_generator(seed, "place", split)
    num_rows = canvas_size - height + 1  # positions from top to bottom
    num_columns = canvas_size - width + 1
    third = max(1, num_columns // 3)
    columns = {"anywhere": (0, num_columns), "left": (0, third), "right": (num_columns - third, num_columns)}
    y = torch.randint(num_rows, (count, 1, 1, 1), generator=rng) + torch.arange(height)[:, None]
    x = torch.randint(*columns[region], (count, 1, 1, 1), generator=rng) + torch.arange(width)
    canvases = torch.zeros(count, channels, canvas_size, canvas_size, dtype=torch.uint8)
    image_index = torch.arange(count).view(-1, 1, 1, 1)
    channel_index = torch.arange(channels).view(-1, 1, 1)
    canvases[image_index, channel_index, y, x] = dataset.images.repeat(placements, 1, 1, 1)
    return ImageDataset(canvases, dataset.labels.repeat(placements), dataset.classes, dataset.name)


def reorder_pixels(dataset: ImageDataset, pixel_order: Int64[Tensor, "pixels"]) -> ImageDataset:
    """The same pixels in another order, equal for all images and channels: pixel j is what pixel_order[j] was."""
    images = dataset.images.flatten(2).index_select(2, pixel_order).view(dataset.images.shape)
    return ImageDataset(images, dataset.labels, dataset.classes, dataset.name)


def pixel_permutation(height: int, width: int, seed: int) -> Int64[Tensor, "pixels"]:
    """A random order of all pixels."""
    return torch.randperm(height * width, generator=make_generator(seed, "permutation"))


def block_shift_permutation(height: int, width: int, block_size: int, seed: int) -> Int64[Tensor, "pixels"]:
    """An order that shifts the pixels of each block circularly within it, by an offset drawn for the block."""
    pixel_order = torch.arange(height * width).view(height, width)
    rng = make_generator(seed, "blocks")
    for top in range(0, height, block_size):
        for left in range(0, width, block_size):
            block = (slice(top, top + block_size), slice(left, left + block_size))
            offset = torch.randint(block_size, (2,), generator=rng).tolist()
            pixel_order[block] = pixel_order[block].roll(offset, (0, 1))
    return pixel_order.flatten()
