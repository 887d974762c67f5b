"""The arrangements of the images: no pixel is lost, and the seed decides everything."""

import pytest
import torch

from convolab.data.dataset import ImageDataset
from convolab.theory import arrangements
from convolab.theory.arrangements import AS_IS, BLOCKS, PERMUTED, PriorsConfig


@pytest.mark.parametrize("region", ["anywhere", "left", "right"])
def test_complete_digits_are_placed_only_in_their_region(digits, region) -> None:
    few = digits.test.subset(torch.arange(100))
    few = ImageDataset(*few.dataset.gather(few.indices), few.classes, "few")
    placed = arrangements.place_on_canvas(few, 16, 3, 0, "test", region)
    assert placed.images.shape == (300, 1, 16, 16)
    assert torch.equal(placed.labels, few.labels.repeat(3))
    assert torch.equal(placed.images.sum((1, 2, 3)), few.images.sum((1, 2, 3)).repeat(3))
    nonzero_columns = placed.images.amax((0, 1, 2)).nonzero().flatten()
    assert {
        "anywhere": nonzero_columns.max() - nonzero_columns.min() > 12,
        "left": nonzero_columns.max() <= 9,
        "right": nonzero_columns.min() >= 6,
    }[region]


def test_all_positions_are_equally_likely() -> None:
    one_dot = ImageDataset(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8), torch.tensor([0]), ("dot",), "dot")
    placed = arrangements.place_on_canvas(one_dot, 16, 8100, 0, "test")
    corners = placed.images[:, 0].flatten(1).argmax(1)
    counts = torch.stack([(corners == y * 16 + x).sum() for y in range(9) for x in range(9)])
    assert counts.sum() == 8100
    assert ((counts - 100) ** 2 / 100).sum() < 130  # chi square with 80 degrees of freedom: above 130 once in 3,000


def test_a_permutation_keeps_every_pixel_and_is_the_same_for_all_images_and_channels(color_images) -> None:
    dataset = color_images.train
    for order in (arrangements.pixel_permutation(12, 12, 0), arrangements.block_shift_permutation(12, 12, 5, 0)):
        assert torch.equal(order.sort().values, torch.arange(144))
        images = arrangements.reorder_pixels(dataset, order).images
        assert torch.equal(images.flatten(2)[7, 2], dataset.images.flatten(2)[7, 2][order])


def test_each_block_is_shifted_circularly_by_its_own_offset() -> None:
    order = arrangements.block_shift_permutation(16, 16, 4, 0).view(16, 16)
    offsets = set()
    for top in range(0, 16, 4):
        for left in range(0, 16, 4):
            block = order[top : top + 4, left : left + 4]
            y, x = block // 16 - top, block % 16 - left
            assert sorted((4 * y + x).flatten().tolist()) == list(range(16))
            assert torch.equal((y - y[:, :1]) % 4, torch.zeros(4, 4, dtype=torch.int64))  # rows are kept
            assert torch.equal((x - x[:1]) % 4, torch.zeros(4, 4, dtype=torch.int64))
            offsets.add((int(y[0, 0]), int(x[0, 0])))
    assert len(offsets) > 5


def test_without_a_canvas_no_image_is_placed_or_moved(color_images) -> None:
    config = PriorsConfig(canvas_size=None, train_size=20, block_size=4)
    arranged = dict(arrangements.iterate_arrangements(config, color_images, 0))
    assert list(arranged) == [AS_IS, PERMUTED, BLOCKS]
    assert arranged[AS_IS][1].images.shape == (40, 3, 12, 12)
    assert len(arranged[AS_IS][0]) == 20
