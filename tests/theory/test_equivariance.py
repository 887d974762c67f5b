"""Which layers are equivariant, and at which positions the others are not."""

from pathlib import Path

import pytest
import torch
from torch import nn

from convolab.data.image_io import read_image, resize_and_center_crop
from convolab.theory import equivariance
from convolab.theory.equivariance import (
    IMAGE_SIZE,
    NamedLayer,
    equivariance_residual,
    layers_to_measure,
    measure_all_layers,
    measure_equivariance,
    random_images,
)

MEASURED = {(m.layer, m.shift): m for m in measure_all_layers(seed=3)}
LAYERS = {layer.name: layer for layer in layers_to_measure(seed=3)}


@pytest.mark.parametrize(
    "name", ["convolution 3x3, circular padding", "ReLU", "batch norm", "max pooling 3x3, stride 1, circular padding"]
)
def test_layers_without_edge_and_stride_are_equivariant(name) -> None:
    assert all(MEASURED[name, shift].relative_error < 1e-12 for shift in range(9))


@pytest.mark.parametrize(
    "name",
    [name for name, layer in LAYERS.items() if 1 < layer.stride < IMAGE_SIZE and name != "features of simple_convnet"],
)
def test_strided_layers_are_equivariant_only_under_multiples_of_the_stride(name) -> None:
    stride = LAYERS[name].stride
    for shift in range(1, 9):
        assert (MEASURED[name, shift].relative_error < 1e-12) == (shift % stride == 0)


def test_zero_padding_breaks_equivariance_only_next_to_the_edge() -> None:
    residual = equivariance_residual(LAYERS["convolution 3x3, zero padding"], random_images(), 5).abs().amax((0, 1, 2))
    # Some processors round a sum differently in each column; the padding's effect is a hundred thousand times larger.
    assert (residual > 1e-5).nonzero().flatten().tolist() == [0, 4, 5, IMAGE_SIZE - 1]


def test_zero_padding_breaks_equivariance_of_the_network_but_circular_padding_does_not() -> None:
    assert MEASURED["features of simple_convnet", 8].relative_error > 0.5
    assert MEASURED["the same with circular padding", 8].relative_error < 1e-12


def test_blurring_before_the_stride_reduces_the_error() -> None:
    assert (
        MEASURED["blur 3x3, then stride 2", 1].relative_error
        < MEASURED["average pooling 2x2, stride 2", 1].relative_error
    )
    assert (
        MEASURED["blur 3x3, then stride 2", 1].relative_error
        < MEASURED["convolution 3x3, circular padding, stride 2", 1].relative_error
    )


def test_a_global_average_is_invariant_and_a_fully_connected_layer_is_not_equivariant() -> None:
    assert all(MEASURED["global average pooling", shift].relative_error < 1e-12 for shift in range(9))
    assert all(1 < MEASURED["fully-connected", shift].relative_error < 2 for shift in range(1, 9))


def test_the_error_is_the_norm_of_the_difference_relative_to_that_of_the_centered_output() -> None:
    class Ramp(nn.Module):  # brighter to the right: the output depends on the position
        def forward(self, x):
            return x + torch.arange(4.0, dtype=x.dtype)

    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    measured = measure_equivariance(NamedLayer("ramp", Ramp(), 1), x, 1)
    ramp = torch.arange(4.0)
    assert measured.relative_error == pytest.approx(((ramp - ramp.roll(1)).norm() / (ramp - ramp.mean()).norm()).item())
    assert measured.changed_fraction == 1.0


@pytest.mark.slow
def test_layers_and_pixels_depend_on_the_seed_only() -> None:
    state = torch.random.get_rng_state()
    assert measure_all_layers(1, (1,)) == measure_all_layers(1, (1,)) != measure_all_layers(2, (1,))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.slow
def test_photos_err_more_at_a_zero_padded_border_and_less_under_a_stride() -> None:
    zero_padded, *strided = equivariance.compare_on_photos(seed=3, draws=20)
    assert zero_padded.layer == "convolution 3x3, zero padding"
    assert zero_padded.difference.low > 0
    assert 10 < zero_padded.num_larger_on_photos <= 20
    assert all(comparison.difference.high < -0.3 for comparison in strided)
    assert all(comparison.num_larger_on_photos == 0 for comparison in strided)


@pytest.mark.slow
def test_two_hundred_photos_err_as_the_sample_photos_do(photos: Path, monkeypatch) -> None:
    names = sorted((photos / "imagenet").glob("*.jpg"))
    images = [resize_and_center_crop(read_image(name), (IMAGE_SIZE, IMAGE_SIZE), 1) for name in names]
    monkeypatch.setattr(equivariance, "sample_photos", lambda: torch.stack(images).double() / 255)
    zero_padded, pooled, *_ = equivariance.compare_on_photos(seed=0, draws=20)
    assert len(images) >= 200
    assert zero_padded.on_photos.mean == pytest.approx(0.49, abs=0.02)
    assert zero_padded.on_random.mean == pytest.approx(0.38, abs=0.02)
    assert pooled.on_photos.mean < pooled.on_random.mean
