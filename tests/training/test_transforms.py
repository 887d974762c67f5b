"""Each augmentation draws from its documented distribution and gives exactly the image that follows from the draw."""

import re
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest, chisquare, ks_2samp, kstest, pearsonr
from support.probes import angles, color_factors, noise
from torch import Tensor

from convolab.core.errors import LabError
from convolab.core.rng import make_generator
from convolab.data.dataset import ImageDataset
from convolab.models.registry import build
from convolab.training.augmentation import apply_transforms, parse_transform
from convolab.training.recipe import Training
from convolab.training.trainer import Trainer
from convolab.training.transforms import (
    TRANSFORMS,
    AlternatingFlip,
    BatchOrigin,
    ColorJitter,
    CutMix,
    Cutout,
    MixUp,
    Progressive,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    ReflectCrop,
    Transform,
    to_float01,
)

MIXING_TRANSFORMS = (MixUp, CutMix)


def apply_one(transform: Transform, pixels: Tensor, *key: int | str, classes: int = 4) -> Tensor:
    """The images after a transform with the generator of a key; a transform that mixes images gets labels too."""
    if isinstance(transform, MIXING_TRANSFORMS):
        return transform(pixels, torch.eye(classes)[torch.arange(len(pixels)) % classes], make_generator(*key))[0]
    if isinstance(transform, AlternatingFlip | Progressive):
        return transform(
            pixels, BatchOrigin(torch.arange(len(pixels)), len(pixels), 0, 0.0, make_generator(*key).initial_seed())
        )
    return transform(pixels, make_generator(*key))


# Crop


def windows(image: Tensor, padding: int) -> dict[bytes, tuple[int, int]]:
    """Every window of the padded image, by plain slicing, with its offset."""
    c, h, w = image.shape
    padded = np.zeros((c, h + 2 * padding, w + 2 * padding), image.numpy().dtype)
    padded[:, padding : padding + h, padding : padding + w] = image.numpy()
    offsets = product(range(2 * padding + 1), repeat=2)
    return {padded[:, y : y + h, x : x + w].tobytes(): (y, x) for y, x in offsets}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4),
    st.sampled_from([1, 3]),
    st.integers(2, 9),
    st.integers(2, 9),
    st.integers(1, 5),
    st.sampled_from(["bytes", "floats", "channels last"]),
)
def test_a_crop_is_a_window_of_the_padded_image(
    n: int, channels: int, height: int, width: int, padding: int, kind: str
) -> None:
    pixels = noise(n, channels, height, width)
    if kind != "bytes":
        pixels = pixels.float().contiguous(
            memory_format=torch.channels_last if kind == "channels last" else torch.contiguous_format
        )
    for image, cropped in zip(pixels, RandomCrop(padding)(pixels, make_generator(0)), strict=True):
        assert cropped.contiguous().numpy().tobytes() in windows(image.contiguous(), padding)


def test_a_crop_after_a_transform_on_floats_is_still_a_window() -> None:
    images, _ = apply_transforms(
        noise(4), torch.zeros(4, dtype=torch.int64), [ColorJitter(0.0), RandomCrop(2)], 1, make_generator(0)
    )
    for image, cropped in zip(to_float01(noise(4)), images, strict=True):
        brightest = [np.frombuffer(window, np.float32) for window in windows(image.contiguous(), 2)]
        assert min(np.abs(window - cropped.contiguous().numpy().ravel()).max() for window in brightest) < 1e-5


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.booleans())
def test_a_reflected_crop_is_a_window_of_the_image_mirrored_at_its_edges(
    height: int, width: int, padding: int, floats: bool
) -> None:
    pixels = noise(3, 2, height, width)
    pixels = to_float01(pixels) if floats else pixels
    for image, cropped in zip(pixels, ReflectCrop(padding)(pixels, make_generator(0)), strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
        offsets = product(range(2 * padding + 1), repeat=2)
        assert cropped.numpy().tobytes() in {padded[:, y : y + height, x : x + width].tobytes() for y, x in offsets}


def test_every_crop_offset_is_equally_likely() -> None:
    image = noise(1, channels=1)
    offsets = windows(image[0], 2)
    counts = dict.fromkeys(offsets.values(), 0)
    assert len(counts) == 25
    for cropped in RandomCrop(2)(image.expand(5000, -1, -1, -1), make_generator(0)):
        counts[offsets[cropped.numpy().tobytes()]] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-3


# Flip


@pytest.mark.parametrize("probability", [0.5, 0.2])
def test_a_flip_mirrors_left_to_right_with_its_probability(probability: float) -> None:
    pixels = noise(3000, height=2, width=4)
    flipped = RandomHorizontalFlip(probability)(pixels, make_generator(0))
    mirrored = np.ascontiguousarray(pixels.numpy()[:, :, :, ::-1])
    is_flipped = (flipped.numpy() == mirrored).all((1, 2, 3))
    assert ((flipped.numpy() == pixels.numpy()).all((1, 2, 3)) ^ is_flipped).all()
    assert binomtest(int(is_flipped.sum()), 3000, probability).pvalue > 1e-3
    assert abs(pearsonr(is_flipped[1:], is_flipped[:-1]).statistic) < 0.1  # each image is drawn independently


def test_a_flip_of_probability_zero_or_one_is_certain() -> None:
    assert torch.equal(RandomHorizontalFlip(0.0)(noise(20), make_generator(0)), noise(20))
    assert torch.equal(RandomHorizontalFlip(1.0)(noise(20), make_generator(0)), noise(20).flip(3))


def alternating(indices: list[int], epoch: int, seed: int = 0) -> list[bool]:
    """Which of these images of a set of 3,000 are mirrored."""
    pixels = noise(1).expand(len(indices), 3, 9, 7)
    images = AlternatingFlip()(pixels, BatchOrigin(torch.tensor(indices), 3000, epoch, 0.0, seed))
    mirrored = (images == pixels.flip(3)).flatten(1).all(1)
    assert torch.equal(mirrored, ~(images == pixels).flatten(1).all(1))
    return mirrored.tolist()


def test_an_alternating_flip_mirrors_an_image_in_every_second_epoch_wherever_it_is_in_the_batch() -> None:
    everything = list(range(3000))
    first, second, third = (alternating(everything, epoch) for epoch in range(3))
    assert second == [not is_mirrored for is_mirrored in first]
    assert third == first
    assert alternating([7, 2999, 7, 0], epoch=0) == [first[index] for index in (7, 2999, 7, 0)]


def test_which_half_of_the_images_begins_mirrored_is_random() -> None:
    first, other = (alternating(list(range(3000)), 0, seed) for seed in (0, 1))
    assert binomtest(sum(first), 3000, 0.5).pvalue > 1e-3
    assert abs(pearsonr(first[1:], first[:-1]).statistic) < 0.1
    assert abs(pearsonr(first, other).statistic) < 0.1


# Progressive


def at_progress(pixels: Tensor, progress: float) -> Tensor:
    """The images after a part of the training, that begin with two thirds of their sides."""
    return Progressive(2 / 3)(pixels, BatchOrigin(torch.arange(len(pixels)), len(pixels), 0, progress, 0))


@pytest.mark.parametrize(("height", "width"), [(12, 12), (12, 18), (18, 12)])
def test_progressive_images_are_resized_as_pillow_does_and_grow_to_their_own_size(height: int, width: int) -> None:
    pixels = to_float01(noise(3, 3, height, width))
    small = at_progress(pixels, 0.0)
    assert small.shape == (3, 3, height * 2 // 3, width * 2 // 3)
    for image, resized in zip(pixels.flatten(0, 1), small.flatten(0, 1), strict=True):
        size = (width * 2 // 3, height * 2 // 3)
        by_pillow = Image.fromarray(image.numpy()).resize(size, Image.Resampling.BILINEAR)
        torch.testing.assert_close(resized, torch.from_numpy(np.array(by_pillow)), atol=1e-5, rtol=0)
    assert torch.equal(at_progress(pixels, 0.81), pixels)


def test_progressive_sides_grow_by_an_eighth_after_equal_parts() -> None:
    sides = [Progressive(0.625).size(32, 32, step / 900)[0] for step in range(900)]
    assert [sides.count(side) for side in (20, 24, 28, 32)] == [240, 240, 240, 180]
    assert sides == sorted(sides)
    assert [Progressive(0.8).size(32, 32, progress)[0] for progress in (0.0, 0.5, 0.9)] == [26, 30, 32]


def test_progressive_takes_the_fractions_that_are_named_each_for_an_equal_part() -> None:
    transform = parse_transform("progressive:0.5625:0.8125")
    assert isinstance(transform, Progressive)
    sides = [transform.size(32, 48, step / 1000) for step in range(1000)]
    assert [sides.count(size) for size in ((18, 27), (26, 39), (32, 48))] == [400, 400, 200]
    assert sides == sorted(sides)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("progressive:0.5:0.25", "each fraction must be larger than the one before it"),
        ("progressive:0.5:0.5", "each fraction must be larger than the one before it"),
        ("progressive:0.5:1", "the strength must be from 0.1 to 0.99"),
        ("progressive:0.5:", "'' is not a number"),
        ("progressive:nan:0.5", "the strength must be from 0.1 to 0.99"),
        ("crop:4:8", "'4:8' is not a whole number"),
    ],
)
def test_wrong_fractions_are_refused(entry: str, message: str) -> None:
    with pytest.raises(LabError, match=re.escape(f"augmentation '{entry}': {message}")):
        parse_transform(entry)


def test_a_network_that_takes_one_size_only_is_not_trained_on_smaller_images() -> None:
    images = ImageDataset(noise(8, 3, 16, 16), torch.arange(8) % 2, ("a", "b"), "noise")
    net = build("shallow_net", (3, 16, 16), 2)
    with pytest.raises(
        LabError, match=r"augmentation 'progressive:0\.5': the network takes no images of 8x8 pixels, which "
    ):
        Trainer(net, images, training=Training(batch_size=4), transforms=["progressive:0.5"])


def test_a_fraction_that_leaves_small_images_as_large_as_they_are_is_refused() -> None:
    images = ImageDataset(noise(8, 3, 8, 8), torch.arange(8) % 2, ("a", "b"), "noise")
    with pytest.raises(LabError, match=r"'progressive:0\.99': that is all of 8x8 pixels: give a smaller fraction"):
        Trainer(
            build("simple_convnet", (3, 8, 8), 2),
            images,
            training=Training(batch_size=4),
            transforms=["progressive:0.99"],
        )


def test_a_training_sees_images_of_each_size_and_is_evaluated_on_their_own() -> None:
    images = ImageDataset(noise(24, 3, 16, 16), torch.arange(24) % 2, ("a", "b"), "noise")
    net, sides = build("simple_convnet", (3, 16, 16), 2), []
    net.register_forward_pre_hook(lambda _net, args: sides.append((net.training, args[0].shape[2])))
    training = Training(batch_size=8, epochs=3)
    for _ in Trainer(net, images, images, training=training, transforms=["progressive:0.5"]).iter_epochs():
        pass
    assert [side for is_training, side in sides if is_training] == [8, 8, 10, 10, 12, 12, 14, 14, 16]
    assert {side for is_training, side in sides[1:] if not is_training} == {16}


# Cutout


def square_mask(height: int, width: int, y: int, x: int, side: int) -> np.ndarray:
    """The square around (y, x), pixel by pixel; if the side is even, the longer half is above and to the left."""
    mask = np.zeros((height, width), bool)
    for row, column in product(range(height), range(width)):
        mask[row, column] = -(side // 2) <= row - y < side - side // 2 and -(side // 2) <= column - x < side - side // 2
    return mask


@pytest.mark.parametrize("side", [1, 3, 4])
def test_a_cutout_is_a_gray_square_whose_center_is_equally_likely_anywhere(side: int) -> None:
    pixels = torch.full((4000, 3, 6, 7), 200, dtype=torch.uint8)
    squares = {square_mask(6, 7, y, x, side).tobytes(): (y, x) for y, x in product(range(6), range(7))}
    counts = dict.fromkeys(squares.values(), 0)
    assert len(counts) == 42
    erased = Cutout(side)(pixels, make_generator(0)).numpy()
    assert set(np.unique(erased)) == {128, 200}
    assert (erased == erased[:, :1]).all()
    for image in erased[:, 0]:
        counts[squares[(image == 128).tobytes()]] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_a_cutout_does_not_change_pixels_outside_its_square() -> None:
    erased = Cutout(3)(noise(50), make_generator(0))
    is_erased = Cutout(3)(torch.zeros_like(noise(50)), make_generator(0)) == 128
    assert torch.equal(erased, torch.where(is_erased, 128, noise(50)))


def test_a_cutout_of_pixels_in_the_unit_interval_is_half_gray() -> None:
    erased = Cutout(3)(torch.ones(20, 1, 8, 8), make_generator(0))
    assert set(erased.unique().tolist()) == {0.5, 1.0}


def test_a_cutout_larger_than_the_image_may_cover_it_all() -> None:
    assert (Cutout(64)(noise(5), make_generator(0)) == 128).all()


# Bytes and floats


@pytest.mark.parametrize(
    "transform", [RandomCrop(2), ReflectCrop(2), RandomHorizontalFlip(), AlternatingFlip(), Cutout(3)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_and_floats_are_transformed_alike(transform: Transform, channels: int) -> None:
    pixels = noise(64, channels)
    converted_after, converted_before = (
        to_float01(apply_one(transform, pixels, 0)),
        apply_one(transform, to_float01(pixels), 0),
    )
    assert (converted_after - converted_before).abs().max() <= (
        0.5 / 255 + 1e-6 if isinstance(transform, Cutout) else 0
    )  # 128 is the byte closest to the middle
    assert not torch.equal(converted_before, to_float01(pixels))


# Color


@pytest.mark.parametrize("strength", [0.2, 0.6])
def test_the_factors_of_color_are_uniform_and_independent(strength: float) -> None:
    factors = color_factors(strength, 4000, "color")
    for factor in factors:
        assert factor.min() >= 1 - strength - 1e-4
        assert factor.max() <= 1 + strength + 1e-4
        assert kstest(factor.numpy(), "uniform", (1 - strength, 2 * strength)).pvalue > 1e-3
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(pearsonr(factors[one].numpy(), factors[other].numpy()).statistic) < 0.06


def test_color_of_no_strength_changes_nothing() -> None:
    pixels = to_float01(noise(5))
    torch.testing.assert_close(ColorJitter(0.0)(pixels, make_generator(0)), pixels)


def test_gray_images_keep_one_channel_and_change_like_gray_in_color_images() -> None:
    gray = to_float01(noise(10, channels=1))
    changed = ColorJitter(0.5)(gray, make_generator(0))
    assert changed.shape == gray.shape
    torch.testing.assert_close(
        ColorJitter(0.5)(gray.expand(-1, 3, -1, -1).contiguous(), make_generator(0)),
        changed.expand(-1, 3, -1, -1),
        atol=1e-5,
        rtol=0,
    )
    assert not torch.allclose(changed, gray, atol=0.05)


# Rotate


@pytest.mark.parametrize("degrees", [10.0, 180.0])
def test_the_angle_of_a_rotation_is_uniform(degrees: float) -> None:
    drawn = angles(degrees, 3000, "turn")
    assert drawn.abs().max() <= degrees + 0.01
    assert kstest(drawn.numpy(), "uniform", (-degrees, 2 * degrees)).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(17, 17), (16, 16), (21, 13)])
def test_a_rotation_has_no_black_corners(height: int, width: int) -> None:
    torch.testing.assert_close(
        RandomRotation(180.0)(torch.full((50, 3, height, width), 0.7), make_generator(0)),
        torch.full((50, 3, height, width), 0.7),
    )


# Mixup


def sample_lambdas(alpha: float, batches: int = 12, n: int = 256) -> np.ndarray:
    """The weight (lambda) of each image in its own mix: image i is white in pixel i only, and label i is like it."""
    identity, lambdas_kept = torch.eye(n), []
    for batch in range(batches):
        pixels, targets = MixUp(alpha)(identity.view(n, 1, 16, 16), identity, make_generator("mixup", batch))
        mixed = pixels.view(n, n)
        assert torch.equal(mixed, targets)
        assert (mixed.sum(1) - 1).abs().max() < 1e-6
        off_diagonal = mixed - mixed.diag().diag()
        assert (off_diagonal > 0).sum(1).max() == 1  # mixed with one other image
        assert (off_diagonal > 0).sum(0).max() == 1  # and each image is used only once
        lambdas_kept.append(mixed.diag()[off_diagonal.any(1)].double())
    return torch.cat(lambdas_kept).numpy()


@pytest.mark.parametrize("alpha", [1.0, 0.6, 5.0])
def test_the_lambda_of_mixup_has_its_beta_distribution(alpha: float) -> None:
    lambdas = sample_lambdas(alpha)
    assert len(lambdas) > 2900
    assert kstest(lambdas, "beta", (alpha, alpha)).pvalue > 1e-3


def test_mixup_blends_pixels_and_labels_by_the_same_lambda() -> None:
    pixels, labels = to_float01(noise(40, 3)), torch.arange(40)
    mixed, targets = apply_transforms(noise(40, 3), labels, [MixUp(1.0)], 40, make_generator(0))
    torch.testing.assert_close(mixed, torch.einsum("ij,jchw->ichw", targets, pixels), atol=1e-6, rtol=0)
    torch.testing.assert_close(targets.sum(1), torch.ones(40))
    assert len(targets.diagonal().unique()) > 30  # each image has its own lambda


# Cutmix


def pasted_masks(alpha: float, n: int, *key: int | str, side: int = 32) -> Tensor:
    """Masks of what was pasted into each image; image i is of value i."""
    values = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 1, side, side)
    return (CutMix(alpha)(values, torch.eye(n), make_generator(*key))[0] != values)[:, 0]


def test_a_cutmix_box_keeps_its_position() -> None:
    positions = torch.arange(63, dtype=torch.float32).view(1, 1, 9, 7).expand(50, 1, 9, 7)
    assert torch.equal(CutMix(1.0)(positions, torch.eye(50), make_generator(0))[0], positions)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_cutmix_mixes_the_label_exactly_by_the_pasted_area(alpha: float) -> None:
    n, side = 200, 32
    values = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 1, side, side)
    pixels, targets = CutMix(alpha)(values, torch.eye(n), make_generator(0))
    for i, (image, target) in enumerate(zip(pixels[:, 0], targets, strict=True)):
        source_indices, counts = image.unique(return_counts=True)
        areas = torch.zeros(n).index_put((source_indices.long(),), counts / side**2)
        torch.testing.assert_close(target, areas, atol=1e-6, rtol=0)
        assert len(source_indices) <= 2
        rows, columns = (image != i).any(1).nonzero(), (image != i).any(0).nonzero()
        if len(rows):  # what was pasted is one full box
            box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (box != i).all()
            assert box.numel() == (image != i).sum()


@pytest.mark.slow
def test_the_area_of_a_box_inside_the_image_has_its_distribution() -> None:
    # For alpha = 1 the area is uniform, so the side, rounded to pixels, is k with probability in proportion to k; of the
    # 32 places a center can have on either axis, 31 - k leave the box clear of the image's edges.
    masks = torch.cat([pasted_masks(1.0, 300, "cutmix", batch) for batch in range(24)])
    edges = masks[:, 0].any(1) | masks[:, -1].any(1) | masks[:, :, 0].any(1) | masks[:, :, -1].any(1)
    clear = masks[~edges & masks.any((1, 2))]
    height, width = clear.any(2).sum(1), clear.any(1).sum(1)
    assert torch.equal(height, width)
    expected = np.array([k * (31 - k) ** 2 for k in range(1, 29)], float)
    counts = np.bincount(height.numpy(), minlength=31)[1:29]
    assert counts.sum() > 1000
    pairs = counts.reshape(-1, 2).sum(1), expected.reshape(-1, 2).sum(1) / expected.sum() * counts.sum()
    assert chisquare(*pairs).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.5, 4.0])
def test_the_area_of_any_box_has_the_distribution_of_a_plain_simulation(alpha: float) -> None:
    masks = torch.cat([pasted_masks(alpha, 300, "cutmix", batch) for batch in range(8)])
    rng, simulated_areas = np.random.default_rng(1), []
    for lam in rng.beta(alpha, alpha, 6000):
        r, y, x = 32 * np.sqrt(1 - lam), *rng.integers(0, 32, 2)
        rows, columns = (sum(center - r / 2 <= place < center + r / 2 for place in range(32)) for center in (y, x))
        simulated_areas.append(rows * columns)
    areas = masks.sum((1, 2)).double().numpy()
    tie_breaking = 0.02 * 32**2  # the rounding of a side is not prescribed
    assert (
        ks_2samp(
            areas + rng.uniform(-tie_breaking, tie_breaking, len(areas)),
            simulated_areas + rng.uniform(-tie_breaking, tie_breaking, 6000),
        ).pvalue
        > 1e-3
    )


def test_the_centers_of_boxes_are_uniform() -> None:
    masks = torch.cat([pasted_masks(1.0, 300, "cutmix", batch) for batch in range(10)]).double().mean(0)
    for mirrored in (masks.flip(0), masks.flip(1), masks.T):
        assert (masks - mirrored).abs().max() < 0.06


# All transforms


ALL_TRANSFORMS = [
    RandomCrop(2),
    ReflectCrop(2),
    RandomHorizontalFlip(),
    AlternatingFlip(),
    RandomResizedCrop(0.5),
    Cutout(3),
    ColorJitter(0.5),
    RandomRotation(20.0),
    MixUp(1.0),
    CutMix(1.0),
]


def test_every_transform_is_held_to_what_all_promise() -> None:
    draws_nothing = {Progressive}  # its size is the time's alone
    assert {type(transform) for transform in ALL_TRANSFORMS} == set(TRANSFORMS.values()) - draws_nothing


@pytest.mark.parametrize("transform", ALL_TRANSFORMS)
def test_a_key_decides_the_result_and_no_global_generator_is_used_or_changed(transform: Transform) -> None:
    pixels = to_float01(noise(30))
    torch.manual_seed(1)
    np.random.seed(1)
    first = apply_one(transform, pixels, 0, "augment", 1)
    torch.manual_seed(2)
    np.random.seed(2)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    repeated, other = apply_one(transform, pixels, 0, "augment", 1), apply_one(transform, pixels, 0, "augment", 2)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, np.random.get_state(), strict=True))
    assert torch.equal(first, repeated)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("transform", ALL_TRANSFORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmenting_does_not_change_the_pixels_and_labels_of_the_dataset(transform: Transform, channels: int) -> None:
    pixels, labels = noise(30, channels), torch.arange(30) % 4
    images, _ = apply_transforms(pixels, labels, [transform], 4, make_generator(0))
    assert torch.equal(pixels, noise(30, channels))
    assert torch.equal(labels, torch.arange(30) % 4)
    pixels_float = to_float01(pixels)
    apply_one(transform, pixels_float, 0)
    assert torch.equal(pixels_float, to_float01(pixels))
    images.zero_()
    assert torch.equal(pixels, noise(30, channels))


@pytest.mark.parametrize("transform", ALL_TRANSFORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_stay_in_the_unit_interval_and_keep_their_shape(transform: Transform, channels: int) -> None:
    images, _ = apply_transforms(noise(30, channels), torch.arange(30) % 4, [transform], 4, make_generator(0))
    assert images.shape == (30, channels, 9, 7)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1


def test_without_a_transform_pixels_are_bytes_over_255_and_labels_do_not_change() -> None:
    images, targets = apply_transforms(noise(5), torch.arange(5), [], 5, make_generator(0))
    assert torch.equal(images, noise(5).float() / 255)
    assert torch.equal(targets, torch.arange(5))


def test_transforms_are_applied_in_their_order() -> None:
    pixels, labels = noise(40), torch.zeros(40, dtype=torch.int64)
    flip_first, _ = apply_transforms(pixels, labels, [RandomHorizontalFlip(1.0), Cutout(3)], 1, make_generator(0))
    generator = make_generator(0)
    expected = Cutout(3)(RandomHorizontalFlip(1.0)(pixels, generator), generator)
    assert torch.equal(flip_first, to_float01(expected))
    assert not torch.equal(
        flip_first, apply_transforms(pixels, labels, [Cutout(3), RandomHorizontalFlip(1.0)], 1, make_generator(0))[0]
    )


def test_labels_mixed_twice_are_still_probabilities() -> None:
    pixels, targets = apply_transforms(
        noise(40), torch.arange(40) % 7, [MixUp(1.0), CutMix(1.0), RandomHorizontalFlip()], 7, make_generator(0)
    )
    torch.testing.assert_close(targets.sum(1), torch.ones(40))
    assert targets.shape == (40, 7)
    assert (targets >= 0).all()
    assert ((targets > 0).sum(1) > 2).any()
    assert pixels.isfinite().all()


# Entries of a recipe


def test_an_entry_is_a_name_with_an_optional_strength() -> None:
    entries = (
        "crop",
        "crop:2",
        "reflect_crop",
        "alternating_flip",
        "flip:0.1",
        "cutout:4",
        "color:0.5",
        "rotate:30",
        "mixup:1",
        "cutmix",
    )
    assert [parse_transform(entry) for entry in entries] == [
        RandomCrop(4), RandomCrop(2), ReflectCrop(2), AlternatingFlip(), RandomHorizontalFlip(0.1), Cutout(4), ColorJitter(0.5), RandomRotation(30.0),
        MixUp(1.0), CutMix(1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("corp:4", "unknown augmentation 'corp': did you mean 'crop'"),
        ("colour:0.2", "augmentation 'colour' is now called 'color'"),
        ("Flip", "did you mean 'flip'"),
        (
            "",
            f"known: {', '.join(sorted(TRANSFORMS))}",
        ),
        ("crop:4.5", "'4.5' is not a whole number"),
        ("alternating_flip:0.5", "alternating_flip has no strength, write alternating_flip"),
        ("crop:", "'' is not a whole number"),
        ("flip:often", "'often' is not a number"),
        ("flip:nan", "the strength must be from 0.0 to 1.0"),
        ("rotate:inf", "the strength must be from 0.0 to 180.0"),
    ],
)
def test_an_invalid_entry_is_refused_with_what_to_write(entry: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        parse_transform(entry)


@pytest.mark.parametrize("name", [name for name, transform in TRANSFORMS.items() if transform.valid_range])
def test_a_strength_at_its_limits_is_accepted_and_beyond_them_refused(name: str) -> None:
    low, high = TRANSFORMS[name].valid_range
    for strength in (low, high):
        images = apply_one(parse_transform(f"{name}:{strength}"), to_float01(noise(6)), 0)
        assert images.isfinite().all()
    for strength in (low - 1, high + 1):
        with pytest.raises(LabError, match=f"augmentation '{name}:.*': the strength must be from {low} to {high}"):
            parse_transform(f"{name}:{strength}")


def test_a_cutout_may_be_as_large_as_the_largest_image() -> None:
    assert parse_transform("cutout:512") == Cutout(512)
    with pytest.raises(LabError, match="512"):
        parse_transform("cutout:513")
