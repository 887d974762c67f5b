"""Shift in, shift out: which layers keep it, and where the others break it."""

import pytest
import torch
from torch import nn

from convolab.theory.equivariance import (
    IMAGE_SIZE,
    NamedLayer,
    equivariance_residual,
    layers_to_measure,
    measure_all_layers,
    measure_equivariance,
    random_images,
)

FOUND = {(m.layer, m.shift): m for m in measure_all_layers(seed=3)}
KINDS = {kind.name: kind for kind in layers_to_measure(seed=3)}


@pytest.mark.parametrize(
    "name", ["convolution 3x3, circular padding", "ReLU", "batch norm", "max pooling 3x3, stride 1, circular padding"]
)
def test_layers_without_edge_and_stride_are_equivariant(name) -> None:
    assert all(FOUND[name, shift].relative_error < 1e-12 for shift in range(9))


@pytest.mark.parametrize(
    "name",
    [name for name, kind in KINDS.items() if 1 < kind.stride < IMAGE_SIZE and name != "features of simple_convnet"],
)
def test_strided_layers_are_equivariant_under_multiples_of_the_stride_alone(name) -> None:
    stride = KINDS[name].stride
    for shift in range(1, 9):
        assert (FOUND[name, shift].relative_error < 1e-12) == (shift % stride == 0)


def test_zero_padding_breaks_the_columns_next_to_the_edge_only() -> None:
    wrong = equivariance_residual(KINDS["convolution 3x3, zero padding"], random_images(), 5).abs().amax((0, 1, 2))
    # Some processors round the same sum differently from column to column; the padding's doing is a hundred thousand times that.
    assert (wrong > 1e-5).nonzero().flatten().tolist() == [0, 4, 5, IMAGE_SIZE - 1]


def test_zero_padding_breaks_the_whole_network_where_circular_padding_does_not() -> None:
    assert FOUND["features of simple_convnet", 8].relative_error > 0.5
    assert FOUND["the same with circular padding", 8].relative_error < 1e-12


def test_a_blur_before_the_stride_softens_what_the_stride_breaks() -> None:
    assert FOUND["blur 3x3, then stride 2", 1].relative_error < FOUND["average pooling 2x2, stride 2", 1].relative_error
    assert (
        FOUND["blur 3x3, then stride 2", 1].relative_error
        < FOUND["convolution 3x3, circular padding, stride 2", 1].relative_error
    )


def test_a_global_average_is_invariant_and_a_fully_connected_layer_knows_no_shift() -> None:
    assert all(FOUND["global average pooling", shift].relative_error < 1e-12 for shift in range(9))
    assert all(1 < FOUND["fully-connected", shift].relative_error < 2 for shift in range(1, 9))


def test_the_error_is_the_norm_of_what_differs_over_the_outputs_spread() -> None:
    class Ramp(nn.Module):  # brighter to the right: place carries meaning
        def forward(self, x):
            return x + torch.arange(4.0, dtype=x.dtype)

    x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    found = measure_equivariance(NamedLayer("ramp", Ramp(), 1), x, 1)
    ramp = torch.arange(4.0)
    assert found.relative_error == pytest.approx(((ramp - ramp.roll(1)).norm() / (ramp - ramp.mean()).norm()).item())
    assert found.changed_fraction == 1.0


def test_layers_and_pixels_are_a_function_of_the_seed() -> None:
    state = torch.random.get_rng_state()
    assert measure_all_layers(1, (1,)) == measure_all_layers(1, (1,)) != measure_all_layers(2, (1,))
    assert torch.equal(state, torch.random.get_rng_state())
