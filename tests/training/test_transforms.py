"""Each augmentation draws from the distribution it says, and gives exactly the image that its draw describes."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare, ks_2samp, kstest, pearsonr
from support.probes import angles, color_factors, noise
from torch import Tensor

from convolab.core.errors import LabError
from convolab.core.rng import make_generator
from convolab.training.transforms import (
    TRANSFORMS,
    ColorJitter,
    CutMix,
    Cutout,
    MixUp,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    Transform,
    apply_transforms,
    parse_transform,
    to_float01,
)

MIXING = (MixUp, CutMix)


def applied(step: Transform, pixels: Tensor, *key: int | str, classes: int = 4) -> Tensor:
    """The images after a step, drawn by a key; labels are made up where it wants them."""
    if isinstance(step, MIXING):
        return step(pixels, torch.eye(classes)[torch.arange(len(pixels)) % classes], make_generator(*key))[0]
    return step(pixels, make_generator(*key))


# Crop


def windows(image: Tensor, padding: int) -> dict[bytes, tuple[int, int]]:
    """Every window of the padded image, by plain slicing, with its offset."""
    c, h, w = image.shape
    padded = np.zeros((c, h + 2 * padding, w + 2 * padding), image.numpy().dtype)
    padded[:, padding : padding + h, padding : padding + w] = image.numpy()
    offsets = product(range(2 * padding + 1), repeat=2)
    return {padded[:, y : y + h, x : x + w].tobytes(): (y, x) for y, x in offsets}


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


def test_a_crop_behind_a_step_on_floats_is_still_a_window() -> None:
    shown, _ = apply_transforms(
        noise(4), torch.zeros(4, dtype=torch.int64), [ColorJitter(0.0), RandomCrop(2)], 1, make_generator(0)
    )
    for image, cropped in zip(to_float01(noise(4)), shown, strict=True):
        brightest = [np.frombuffer(window, np.float32) for window in windows(image.contiguous(), 2)]
        assert min(np.abs(window - cropped.contiguous().numpy().ravel()).max() for window in brightest) < 1e-5


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
def test_a_flip_mirrors_left_to_right_as_often_as_it_says(probability: float) -> None:
    pixels = noise(3000, height=2, width=4)
    flipped = RandomHorizontalFlip(probability)(pixels, make_generator(0))
    mirrored = np.ascontiguousarray(pixels.numpy()[:, :, :, ::-1])
    changed = (flipped.numpy() == mirrored).all((1, 2, 3))
    assert ((flipped.numpy() == pixels.numpy()).all((1, 2, 3)) ^ changed).all()
    assert binomtest(int(changed.sum()), 3000, probability).pvalue > 1e-3
    assert abs(pearsonr(changed[1:], changed[:-1]).statistic) < 0.1  # each image draws on its own


def test_a_flip_of_probability_zero_or_one_is_certain() -> None:
    assert torch.equal(RandomHorizontalFlip(0.0)(noise(20), make_generator(0)), noise(20))
    assert torch.equal(RandomHorizontalFlip(1.0)(noise(20), make_generator(0)), noise(20).flip(3))


# Cutout


def hole(height: int, width: int, y: int, x: int, side: int) -> np.ndarray:
    """The square about (y, x), pixel by pixel; of an even side the longer half is above and to the left."""
    mask = np.zeros((height, width), bool)
    for row, column in product(range(height), range(width)):
        mask[row, column] = -(side // 2) <= row - y < side - side // 2 and -(side // 2) <= column - x < side - side // 2
    return mask


@pytest.mark.parametrize("side", [1, 3, 4])
def test_a_cutout_is_a_gray_square_whose_center_is_equally_likely_anywhere(side: int) -> None:
    pixels = torch.full((4000, 3, 6, 7), 200, dtype=torch.uint8)
    holes = {hole(6, 7, y, x, side).tobytes(): (y, x) for y, x in product(range(6), range(7))}
    counts = dict.fromkeys(holes.values(), 0)
    assert len(counts) == 42
    cut = Cutout(side)(pixels, make_generator(0)).numpy()
    assert set(np.unique(cut)) == {128, 200}
    assert (cut == cut[:, :1]).all()
    for image in cut[:, 0]:
        counts[holes[(image == 128).tobytes()]] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_a_cutout_leaves_what_is_outside_its_square() -> None:
    cut = Cutout(3)(noise(50), make_generator(0))
    black = Cutout(3)(torch.zeros_like(noise(50)), make_generator(0)) == 128
    assert torch.equal(cut, torch.where(black, 128, noise(50)))


def test_a_cutout_of_pixels_in_the_unit_interval_is_half_gray() -> None:
    cut = Cutout(3)(torch.ones(20, 1, 8, 8), make_generator(0))
    assert set(cut.unique().tolist()) == {0.5, 1.0}


def test_a_cutout_larger_than_the_image_may_cover_it_all() -> None:
    assert (Cutout(64)(noise(5), make_generator(0)) == 128).all()


# Bytes and floats


@pytest.mark.parametrize("step", [RandomCrop(2), RandomHorizontalFlip(), Cutout(3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_bytes_and_floats_are_moved_alike(step: Transform, channels: int) -> None:
    pixels = noise(64, channels)
    late, early = to_float01(step(pixels, make_generator(0))), step(to_float01(pixels), make_generator(0))
    assert (late - early).abs().max() <= (
        0.5 / 255 + 1e-6 if isinstance(step, Cutout) else 0
    )  # 128 is as near to the middle as bytes come
    assert not torch.equal(early, to_float01(pixels))


# Colour


@pytest.mark.parametrize("strength", [0.2, 0.6])
def test_colors_factors_are_uniform_and_drawn_apart(strength: float) -> None:
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


def test_gray_images_keep_one_channel_and_change_like_gray_colors() -> None:
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
def test_the_angle_of_a_turn_is_uniform(degrees: float) -> None:
    drawn = angles(degrees, 3000, "turn")
    assert drawn.abs().max() <= degrees + 0.01
    assert kstest(drawn.numpy(), "uniform", (-degrees, 2 * degrees)).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(17, 17), (16, 16), (21, 13)])
def test_a_turn_shows_no_black_corners(height: int, width: int) -> None:
    torch.testing.assert_close(
        RandomRotation(180.0)(torch.full((50, 3, height, width), 0.7), make_generator(0)),
        torch.full((50, 3, height, width), 0.7),
    )


# Mixup


def shares_of(alpha: float, batches: int = 12, n: int = 256) -> np.ndarray:
    """The shares that images keep of themselves: image i is white in pixel i alone, and so is label i."""
    lone, kept = torch.eye(n), []
    for batch in range(batches):
        pixels, targets = MixUp(alpha)(lone.view(n, 1, 16, 16), lone, make_generator("mixup", batch))
        mixed = pixels.view(n, n)
        assert torch.equal(mixed, targets)
        assert (mixed.sum(1) - 1).abs().max() < 1e-6
        given_away = mixed - mixed.diag().diag()
        assert (given_away > 0).sum(1).max() == 1  # to one partner
        assert (given_away > 0).sum(0).max() == 1  # who is nobody else's
        kept.append(mixed.diag()[given_away.any(1)].double())
    return torch.cat(kept).numpy()


@pytest.mark.parametrize("alpha", [1.0, 0.6, 5.0])
def test_the_lambda_of_mixup_has_its_beta_distribution(alpha: float) -> None:
    shares = shares_of(alpha)
    assert len(shares) > 2900
    assert kstest(shares, "beta", (alpha, alpha)).pvalue > 1e-3


def test_mixup_blends_pixels_and_labels_by_the_same_lambda() -> None:
    pixels, labels = to_float01(noise(40, 3)), torch.arange(40)
    mixed, targets = apply_transforms(noise(40, 3), labels, [MixUp(1.0)], 40, make_generator(0))
    torch.testing.assert_close(mixed, torch.einsum("ij,jchw->ichw", targets, pixels), atol=1e-6, rtol=0)
    torch.testing.assert_close(targets.sum(1), torch.ones(40))
    assert len(targets.diagonal().unique()) > 30  # each image draws its own


# Cutmix


def pasted(alpha: float, n: int, *key: int | str, side: int = 32) -> Tensor:
    """Masks of what was pasted into each image; image i is of value i."""
    values = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 1, side, side)
    return (CutMix(alpha)(values, torch.eye(n), make_generator(*key))[0] != values)[:, 0]


def test_a_cutmix_box_goes_where_it_came_from() -> None:
    places = torch.arange(63, dtype=torch.float32).view(1, 1, 9, 7).expand(50, 1, 9, 7)
    assert torch.equal(CutMix(1.0)(places, torch.eye(50), make_generator(0))[0], places)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_cutmix_mixes_the_label_exactly_by_the_pasted_area(alpha: float) -> None:
    n, side = 200, 32
    values = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 1, side, side)
    pixels, targets = CutMix(alpha)(values, torch.eye(n), make_generator(0))
    for i, (image, target) in enumerate(zip(pixels[:, 0], targets, strict=True)):
        shown, counts = image.unique(return_counts=True)
        areas = torch.zeros(n).index_put((shown.long(),), counts / side**2)
        torch.testing.assert_close(target, areas, atol=1e-6, rtol=0)
        assert len(shown) <= 2
        rows, columns = (image != i).any(1).nonzero(), (image != i).any(0).nonzero()
        if len(rows):  # what was pasted is one full box
            box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (box != i).all()
            assert box.numel() == (image != i).sum()


@pytest.mark.slow
def test_the_area_of_a_complete_box_has_its_distribution() -> None:
    # For alpha = 1 the area is uniform, so the side, rounded to pixels, is k with probability in proportion to k; of the
    # 32 places a center can have on either axis, 31 - k leave the box clear of the image's edges.
    masks = torch.cat([pasted(1.0, 300, "cutmix", batch) for batch in range(24)])
    edges = masks[:, 0].any(1) | masks[:, -1].any(1) | masks[:, :, 0].any(1) | masks[:, :, -1].any(1)
    clear = masks[~edges & masks.any((1, 2))]
    height, width = clear.any(2).sum(1), clear.any(1).sum(1)
    assert torch.equal(height, width)
    law = np.array([k * (31 - k) ** 2 for k in range(1, 29)], float)
    counts = np.bincount(height.numpy(), minlength=31)[1:29]
    assert counts.sum() > 1000
    pairs = counts.reshape(-1, 2).sum(1), law.reshape(-1, 2).sum(1) / law.sum() * counts.sum()
    assert chisquare(*pairs).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.5, 4.0])
def test_the_area_of_any_box_follows_a_plain_simulation(alpha: float) -> None:
    masks = torch.cat([pasted(alpha, 300, "cutmix", batch) for batch in range(8)])
    draw, simulated = np.random.default_rng(1), []
    for share in draw.beta(alpha, alpha, 6000):
        r, y, x = 32 * np.sqrt(1 - share), *draw.integers(0, 32, 2)
        rows, columns = (sum(center - r / 2 <= place < center + r / 2 for place in range(32)) for center in (y, x))
        simulated.append(rows * columns)
    ours = masks.sum((1, 2)).double().numpy()
    jitter = 0.02 * 32**2  # the rounding of a side is ours to choose
    assert (
        ks_2samp(
            ours + draw.uniform(-jitter, jitter, len(ours)), simulated + draw.uniform(-jitter, jitter, 6000)
        ).pvalue
        > 1e-3
    )


def test_the_centers_of_boxes_are_spread_evenly() -> None:
    masks = torch.cat([pasted(1.0, 300, "cutmix", batch) for batch in range(10)]).double().mean(0)
    for mirrored in (masks.flip(0), masks.flip(1), masks.T):
        assert (masks - mirrored).abs().max() < 0.06


# All of them


ALL = [
    RandomCrop(2),
    RandomHorizontalFlip(),
    Cutout(3),
    ColorJitter(0.5),
    RandomRotation(20.0),
    MixUp(1.0),
    CutMix(1.0),
]


@pytest.mark.parametrize("step", ALL)
def test_a_key_fixes_the_draw_and_no_global_generator_is_read_or_set(step: Transform) -> None:
    pixels = to_float01(noise(30))
    torch.manual_seed(1)
    np.random.seed(1)
    first = applied(step, pixels, 0, "augment", 1)
    torch.manual_seed(2)
    np.random.seed(2)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()
    again, other = applied(step, pixels, 0, "augment", 1), applied(step, pixels, 0, "augment", 2)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, np.random.get_state(), strict=True))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("step", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmenting_leaves_the_sets_own_pixels_and_labels(step: Transform, channels: int) -> None:
    pixels, labels = noise(30, channels), torch.arange(30) % 4
    shown, _ = apply_transforms(pixels, labels, [step], 4, make_generator(0))
    assert torch.equal(pixels, noise(30, channels))
    assert torch.equal(labels, torch.arange(30) % 4)
    floats = to_float01(pixels)
    applied(step, floats, 0)
    assert torch.equal(floats, to_float01(pixels))
    shown.zero_()
    assert torch.equal(pixels, noise(30, channels))


@pytest.mark.parametrize("step", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_stay_in_the_unit_interval_and_keep_their_shape(step: Transform, channels: int) -> None:
    shown, _ = apply_transforms(noise(30, channels), torch.arange(30) % 4, [step], 4, make_generator(0))
    assert shown.shape == (30, channels, 9, 7)
    assert shown.dtype == torch.float32
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_without_a_step_pixels_are_bytes_over_255_and_labels_stay_labels() -> None:
    shown, targets = apply_transforms(noise(5), torch.arange(5), [], 5, make_generator(0))
    assert torch.equal(shown, noise(5).float() / 255)
    assert torch.equal(targets, torch.arange(5))


def test_steps_are_applied_in_their_order() -> None:
    pixels, labels = noise(40), torch.zeros(40, dtype=torch.int64)
    flip_first, _ = apply_transforms(pixels, labels, [RandomHorizontalFlip(1.0), Cutout(3)], 1, make_generator(0))
    by_hand = make_generator(0)
    expected = Cutout(3)(RandomHorizontalFlip(1.0)(pixels, by_hand), by_hand)
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


def test_an_entry_is_a_name_and_perhaps_a_strength() -> None:
    entries = ("crop", "crop:2", "flip:0.1", "cutout:4", "color:0.5", "rotate:30", "mixup:1", "cutmix")
    assert [parse_transform(entry) for entry in entries] == [
        RandomCrop(4), RandomCrop(2), RandomHorizontalFlip(0.1), Cutout(4), ColorJitter(0.5), RandomRotation(30.0),
        MixUp(1.0), CutMix(1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("corp:4", "unknown augmentation 'corp': did you mean 'crop'"),
        ("colour:0.2", "augmentation 'colour' is now called 'color'"),
        ("Flip", "did you mean 'flip'"),
        ("", "known: color, crop, cutmix, cutout, flip, mixup, rotate"),
        ("crop:4.5", "'4.5' is not a whole number"),
        ("crop:", "'' is not a whole number"),
        ("flip:often", "'often' is not a number"),
        ("flip:nan", "the strength must be from 0.0 to 1.0"),
        ("rotate:inf", "the strength must be from 0.0 to 180.0"),
    ],
)
def test_an_entry_that_is_none_is_refused_with_what_to_write(entry: str, complaint: str) -> None:
    with pytest.raises(LabError, match=complaint):
        parse_transform(entry)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_strength_at_its_limits_works_and_beyond_them_is_refused(name: str) -> None:
    low, high = TRANSFORMS[name].valid_range
    for strength in (low, high):
        shown = applied(parse_transform(f"{name}:{strength}"), to_float01(noise(6)), 0)
        assert shown.isfinite().all()
    for strength in (low - 1, high + 1):
        with pytest.raises(LabError, match=f"augmentation '{name}:.*': the strength must be from {low} to {high}"):
            parse_transform(f"{name}:{strength}")
