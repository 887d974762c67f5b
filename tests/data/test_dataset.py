from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.data.dataset import ImageDataset, channel_mean_std
from convolab.data.splits import stratified_split


def pets(count: int = 12, channels: int = 3, classes: int = 3) -> ImageDataset:
    images = torch.randint(
        0, 256, (count, channels, 8, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return ImageDataset(images, torch.arange(count) % classes, tuple(f"kind {i}" for i in range(classes)), "pets")


def of_counts(counts: list[int]) -> ImageDataset:
    """A set with so many pictures of each class, shuffled."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    return ImageDataset(
        torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels, tuple(map(str, range(len(counts)))), "counted"
    )


@pytest.mark.parametrize(
    ("images", "labels", "complaint"),
    [
        (torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), r"pets: images are torch.float32 \[2, 1, 8, 8\]"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), r"pets: images are torch.uint8 \[2, 8, 8\]"),
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            torch.tensor([0, 1], dtype=torch.int32),
            "pets: labels are torch.int32",
        ),
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            torch.tensor([0, 1, 0]),
            r"labels are torch.int64 \[3\] for 2 pictures",
        ),
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            torch.tensor([[0], [1]]),
            r"labels are torch.int64 \[2, 1\] for 2 pictures",
        ),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "pets holds no pictures"),
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            torch.tensor([0, 2]),
            "labels run from 0 to 2, but there are 2 classes",
        ),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([-1, 1]), "labels run from -1 to 1"),
    ],
)
def test_pictures_and_labels_that_do_not_fit_are_refused(
    images: Tensor, labels: Tensor, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # outside the tests nobody else checks the shapes
    with pytest.raises(LabError, match=complaint):
        ImageDataset(images, labels, ("cat", "dog"), "pets")


def test_the_fingerprint_changes_with_a_pixel_a_label_a_class_name_and_the_shape() -> None:
    base = pets()
    other_pixel, other_label = base.images.clone(), base.labels.clone()
    other_pixel[7, 1, 3, 2] ^= 1
    other_label[5] = (other_label[5] + 1) % 3
    changed = [
        replace(base, images=other_pixel),
        replace(base, labels=other_label),
        replace(base, classes=("kind 0", "kind 1", "kind two")),
        replace(base, classes=("kind 1", "kind 0", "kind 2")),
        replace(base, images=base.images.view(12, 3, 9, 8)),
    ]
    assert len({base.fingerprint, *(one.fingerprint for one in changed)}) == 1 + len(changed)


def test_the_fingerprint_does_not_change_with_the_sets_name_or_its_layout_in_memory() -> None:
    base = pets()
    renamed = replace(base, name="animals")
    laid_out = replace(base, images=base.images.contiguous(memory_format=torch.channels_last))
    assert base.fingerprint == renamed.fingerprint == laid_out.fingerprint


def test_a_part_shares_the_pixels_and_gives_out_copies() -> None:
    whole = pets()
    part = whole.subset(torch.tensor([9, 2, 4]))
    assert part.dataset.images.data_ptr() == whole.images.data_ptr()
    before = whole.fingerprint
    images, labels = part.gather(torch.tensor([1]))
    assert torch.equal(images, whole.images[[2]])
    images.zero_()
    labels.fill_(2)
    assert replace(whole).fingerprint == before
    whole.images[2] = 7
    assert (part.gather(torch.tensor([1]))[0] == 7).all()


def test_a_part_of_a_part_is_a_part_of_the_whole() -> None:
    whole = pets()
    part = whole.subset(torch.tensor([9, 2, 4, 0])).subset(torch.tensor([3, 1]))
    images, labels = part.gather(torch.tensor([0, 1]))
    assert len(part) == 2
    assert torch.equal(images, whole.images[[0, 2]])
    assert torch.equal(labels, whole.labels[[0, 2]])
    assert torch.equal(part.labels, whole.labels[[0, 2]])
    assert (part.name, part.classes, part.shape) == (whole.name, whole.classes, whole.shape)


@pytest.mark.parametrize("rows", [range(1438), range(0, 1438, 3)])
def test_mean_and_std_of_digits_are_numpys(rows: range) -> None:
    train = load("digits").train
    pixels = train.images.numpy()[list(rows)].astype(np.float64) / 255
    mean, std = channel_mean_std(train.subset(torch.tensor(rows)))
    assert mean == pytest.approx((pixels.mean(),), abs=1e-12)
    assert std == pytest.approx((pixels.std(),), abs=1e-12)


def test_mean_and_std_are_each_channels_own() -> None:
    shape = (1100, 3, 20, 16)  # more than are added up at once, and sums that float32 cannot hold
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    colours = ImageDataset(images, torch.zeros(1100, dtype=torch.int64), ("any",), "colours")
    colours.images[:, 1] //= 2
    colours.images[:, 2] = 51
    pixels = colours.images.numpy().astype(np.float64) / 255
    mean, std = channel_mean_std(colours)
    assert mean == pytest.approx(tuple(pixels.mean((0, 2, 3))), abs=1e-12)
    assert std == pytest.approx(tuple(pixels.std((0, 2, 3))), abs=1e-12)
    assert std[2] == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(lambda counts: max(counts) >= 2),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_a_split_is_stratified_disjoint_complete_and_in_order(counts: list[int], share: float, seed: int) -> None:
    whole = of_counts(counts)
    kept, held = stratified_split(whole, share, seed)
    assert torch.equal(torch.cat([kept.indices, held.indices]).sort().values, torch.arange(len(whole)))
    assert torch.equal(kept.indices, kept.indices.sort().values)
    assert torch.equal(held.indices, held.indices.sort().values)
    for label, count in enumerate(counts):
        back = int((held.labels == label).sum())
        if count >= 2:
            assert 1 <= back <= count - 1
            assert abs(back - share * count) <= 1
        else:
            assert back == 0  # a class with one picture stays in training


def test_a_split_is_fixed_by_its_seed_and_purpose() -> None:
    whole = of_counts([40, 40])
    held = [stratified_split(whole, 0.3, *key)[1].indices.tolist() for key in ((0,), (0,), (1,), (0, "test"))]
    assert held[0] == held[1]
    assert held[0] != held[2]
    assert held[0] != held[3]


def test_every_picture_of_a_class_is_as_likely_to_be_held_back() -> None:
    whole = of_counts([10])
    times = torch.zeros(10)
    for seed in range(1000):
        times[stratified_split(whole, 0.3, seed)[1].indices] += 1
    assert ((times - 300).abs() < 5 * (1000 * 0.3 * 0.7) ** 0.5).all()


def test_a_part_is_split_like_a_set() -> None:
    whole = of_counts([20, 20])
    part = whole.subset(torch.arange(0, 40, 2))
    kept, held = stratified_split(part, 0.5, 0)
    assert sorted([*kept.indices.tolist(), *held.indices.tolist()]) == list(range(0, 40, 2))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float) -> None:
    with pytest.raises(LabError, match="between 0 and 1"):
        stratified_split(pets(), share, 0)


def test_a_set_of_single_pictures_is_not_split() -> None:
    with pytest.raises(LabError, match="no class has two pictures"):
        stratified_split(of_counts([1, 1, 1]), 0.5, 0)
