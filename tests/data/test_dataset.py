from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.data.dataset import ImageDataset, channel_mean_std
from convolab.data.splits import stratified_split


def pets(count: int = 12, channels: int = 3, classes: int = 3) -> ImageDataset:
    images = torch.randint(
        0, 256, (count, channels, 8, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return ImageDataset(images, torch.arange(count) % classes, tuple(f"kind {i}" for i in range(classes)), "pets")


def dataset_with_counts(counts: list[int]) -> ImageDataset:
    """A dataset with given numbers of images per class, shuffled."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    return ImageDataset(
        torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels, tuple(map(str, range(len(counts)))), "counted"
    )


@pytest.mark.parametrize(
    ("images", "labels", "message"),
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
            r"labels are torch.int64 \[3\] for 2 images",
        ),
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            torch.tensor([[0], [1]]),
            r"labels are torch.int64 \[2, 1\] for 2 images",
        ),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "pets has no images"),
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            torch.tensor([0, 2]),
            "labels run from 0 to 2, but there are 2 classes",
        ),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([-1, 1]), "labels run from -1 to 1"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(
    images: Tensor, labels: Tensor, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Outside the tests jaxtyping does not check the shapes.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(LabError, match=message):
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
    assert len({base.fingerprint, *(variant.fingerprint for variant in changed)}) == 1 + len(changed)


def test_the_fingerprint_does_not_change_with_the_datasets_name_or_its_layout_in_memory() -> None:
    base = pets()
    renamed = replace(base, name="animals")
    channels_last = replace(base, images=base.images.contiguous(memory_format=torch.channels_last))
    assert base.fingerprint == renamed.fingerprint == channels_last.fingerprint


def test_a_list_of_classes_has_the_fingerprint_of_a_tuple() -> None:
    images, labels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    of_list = ImageDataset(images, labels, ["cat", "dog"], "pets")  # pyright: ignore[reportArgumentType]
    assert of_list.fingerprint == ImageDataset(images, labels, ("cat", "dog"), "pets").fingerprint


def test_a_subset_shares_the_pixels_and_gathers_copies() -> None:
    dataset = pets()
    subset = dataset.subset(torch.tensor([9, 2, 4]))
    assert subset.dataset.images.data_ptr() == dataset.images.data_ptr()
    before = dataset.fingerprint
    images, labels = subset.gather(torch.tensor([1]))
    assert torch.equal(images, dataset.images[[2]])
    images.zero_()
    labels.fill_(2)
    assert replace(dataset).fingerprint == before
    dataset.images[2] = 7
    assert (subset.gather(torch.tensor([1]))[0] == 7).all()


def test_a_subset_of_a_subset_is_a_subset_of_the_dataset() -> None:
    dataset = pets()
    subset = dataset.subset(torch.tensor([9, 2, 4, 0])).subset(torch.tensor([3, 1]))
    images, labels = subset.gather(torch.tensor([0, 1]))
    assert len(subset) == 2
    assert torch.equal(images, dataset.images[[0, 2]])
    assert torch.equal(labels, dataset.labels[[0, 2]])
    assert torch.equal(subset.labels, dataset.labels[[0, 2]])
    assert (subset.name, subset.classes, subset.shape) == (dataset.name, dataset.classes, dataset.shape)


@pytest.mark.parametrize("rows", [range(1438), range(0, 1438, 3)])
def test_mean_and_std_of_digits_are_those_of_numpy(rows: range) -> None:
    train = load("digits").train
    pixels = train.images.numpy()[list(rows)].astype(np.float64) / 255
    mean, std = channel_mean_std(train.subset(torch.tensor(rows)))
    assert mean == pytest.approx((pixels.mean(),), abs=1e-12)
    assert std == pytest.approx((pixels.std(),), abs=1e-12)


def test_mean_and_std_are_computed_per_channel() -> None:
    shape = (1100, 3, 20, 16)  # more than one chunk, and sums too large for float32
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    dataset = ImageDataset(images, torch.zeros(1100, dtype=torch.int64), ("any",), "colors")
    dataset.images[:, 1] //= 2
    dataset.images[:, 2] = 51
    pixels = dataset.images.numpy().astype(np.float64) / 255
    mean, std = channel_mean_std(dataset)
    assert mean == pytest.approx(tuple(pixels.mean((0, 2, 3))), abs=1e-12)
    assert std == pytest.approx(tuple(pixels.std((0, 2, 3))), abs=1e-12)
    assert std[2] == 0


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(lambda counts: max(counts) >= 2),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_a_split_is_stratified_disjoint_complete_and_in_order(counts: list[int], fraction: float, seed: int) -> None:
    dataset = dataset_with_counts(counts)
    kept, held_out = stratified_split(dataset, fraction, seed)
    assert torch.equal(torch.cat([kept.indices, held_out.indices]).sort().values, torch.arange(len(dataset)))
    assert torch.equal(kept.indices, kept.indices.sort().values)
    assert torch.equal(held_out.indices, held_out.indices.sort().values)
    for label, count in enumerate(counts):
        count_held_out = int((held_out.labels == label).sum())
        if count >= 2:
            assert 1 <= count_held_out <= count - 1
            assert abs(count_held_out - fraction * count) <= 1
        else:
            assert count_held_out == 0  # a class with one image stays in training


def test_a_split_depends_on_its_seed_and_stream_only() -> None:
    dataset = dataset_with_counts([40, 40])
    held_out = [stratified_split(dataset, 0.3, *key)[1].indices.tolist() for key in ((0,), (0,), (1,), (0, "test"))]
    assert held_out[0] == held_out[1]
    assert held_out[0] != held_out[2]
    assert held_out[0] != held_out[3]


@pytest.mark.slow
def test_every_image_of_a_class_is_equally_likely_to_be_held_out() -> None:
    dataset = dataset_with_counts([10])
    counts = torch.zeros(10)
    for seed in range(1000):
        counts[stratified_split(dataset, 0.3, seed)[1].indices] += 1
    assert ((counts - 300).abs() < 5 * (1000 * 0.3 * 0.7) ** 0.5).all()


def test_a_subset_is_split_like_a_dataset() -> None:
    dataset = dataset_with_counts([20, 20])
    subset = dataset.subset(torch.arange(0, 40, 2))
    kept, held_out = stratified_split(subset, 0.5, 0)
    assert sorted([*kept.indices.tolist(), *held_out.indices.tolist()]) == list(range(0, 40, 2))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_fraction_that_leaves_a_split_empty_is_refused(fraction: float) -> None:
    with pytest.raises(LabError, match="between 0 and 1"):
        stratified_split(pets(), fraction, 0)


def test_a_dataset_of_single_images_is_not_split() -> None:
    with pytest.raises(LabError, match="no class has two images"):
        stratified_split(dataset_with_counts([1, 1, 1]), 0.5, 0)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_accepts_a_dataset_and_a_subset(workers: int) -> None:
    dataset = pets(12)
    for source in (dataset, dataset.subset(torch.tensor([9, 2, 4, 0, 7]))):
        batches = list(DataLoader(source, batch_size=4, num_workers=workers))
        images, labels = source.gather(torch.arange(len(source)))
        assert torch.equal(torch.cat([batch[0] for batch in batches]), images)
        assert torch.equal(torch.cat([batch[1] for batch in batches]), labels)
        assert (batches[0][0].dtype, batches[0][1].dtype) == (torch.uint8, torch.int64)


def test_a_shuffling_data_loader_yields_every_image_once() -> None:
    dataset = dataset_with_counts([3, 4])
    labels = torch.cat([batch[1] for batch in DataLoader(dataset, batch_size=2, shuffle=True)])
    assert torch.equal(labels.bincount(), torch.tensor([3, 4]))


def test_an_index_gives_an_image_and_its_label_and_is_checked() -> None:
    dataset = pets(5)
    image, label = dataset[3]
    assert torch.equal(image, dataset.images[3])
    assert (label, type(label)) == (0, int)
    assert dataset[-1][1] == dataset[4][1] == 1
    subset = dataset.subset(torch.tensor([4, 3]))
    assert [label for _, label in subset] == [1, 0]
    for source, index in ((dataset, 5), (subset, 2)):
        with pytest.raises(IndexError):
            source[index]


def test_the_repr_gives_the_number_and_the_shape_of_images() -> None:
    dataset = pets(12)
    assert repr(dataset) == "ImageDataset('pets': 12 images of 3x8x9, 3 classes)"
    assert repr(dataset.subset(torch.tensor([1, 2]))) == f"Subset(2 images of {dataset!r})"


def test_a_subset_and_its_copy_keep_the_names_of_their_images() -> None:
    dataset = replace(pets(), names=tuple(f"{index}.png" for index in range(12)))
    subset = dataset.subset(torch.tensor([3, 1])).subset(torch.tensor([1, 0]))
    assert subset.names == subset.copy().names == ("1.png", "3.png")
    kept, held_out = stratified_split(dataset, 0.5, seed=0)
    assert sorted(kept.names + held_out.names) == sorted(dataset.names)
    assert pets().subset(torch.tensor([0])).names is None


def test_names_that_are_not_one_for_each_image_are_refused() -> None:
    with pytest.raises(LabError, match="pets: there are 2 names for 12 images: give one for each"):
        replace(pets(), names=("a", "b"))
