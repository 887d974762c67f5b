"""The costs of layers, compared with closed forms, with explicit sums and with running them."""

import pytest
import torch
from torch import nn

from convolab.core.errors import LabError
from convolab.theory.layers import convolution_matrix, count_products, course_layers, layer_cost

SIZES = [(100, 10, 3), (7, 1, 1), (12, 4, 5), (9, 2, 9)]


def test_the_costs_of_the_two_layers_of_the_question() -> None:
    f, g = (layer_cost(layer, 100) for layer in course_layers())
    assert (f.output_shape, g.output_shape) == ((1000,), (10, 100))
    assert (f.num_parameters, g.num_parameters) == (100_000, 30)
    assert (f.macs, g.macs, f.flops, g.flops) == (100_000, 3_000, 200_000, 6_000)
    assert (f.arithmetic_operations, g.arithmetic_operations) == (199_000, 5_000)


def test_a_bias_adds_a_parameter_and_an_addition_for_each_output_and_no_mac() -> None:
    for plain, with_bias, per_output in zip(course_layers(), course_layers(bias=True), (1000, 10), strict=True):
        before, after = layer_cost(plain, 100), layer_cost(with_bias, 100)
        assert after.num_parameters - before.num_parameters == per_output
        assert after.additions - before.additions == 1000
        assert after.macs == before.macs
        assert after.arithmetic_operations == after.flops  # m products, m - 1 additions and the bias


@pytest.mark.parametrize(("n", "features", "kernel"), SIZES)
def test_the_count_of_torch_the_counted_products_and_the_closed_forms_agree(n, features, kernel) -> None:
    f, g = course_layers(n, features, kernel)
    assert layer_cost(f, n).macs == count_products(f, n) == features * n * n
    assert layer_cost(g, n).macs == count_products(g, n) == features * n * kernel
    assert layer_cost(f, n).num_parameters == features * n * n
    assert layer_cost(g, n).num_parameters == features * kernel


@pytest.mark.parametrize(("n", "features", "kernel"), SIZES)
def test_products_with_the_padding_are_those_outside_the_signal(n, features, kernel) -> None:
    _, g = course_layers(n, features, kernel)
    inside = sum(0 <= k + i - kernel // 2 < n for k in range(n) for i in range(kernel))
    assert count_products(g, n, padding_value=0.0) == features * inside


def test_a_layer_with_channels_is_counted_over_all_of_them() -> None:
    layer = nn.Conv1d(4, 6, 3, padding=1)
    assert layer_cost(layer, 20).macs == count_products(layer, 20) == 4 * 6 * 3 * 20
    assert layer_cost(layer, 20).num_parameters == 4 * 6 * 3 + 6


def test_a_layer_of_a_hundred_thousand_million_weights_is_counted_without_allocating_them() -> None:
    f, _ = course_layers(100_000, 10, 3)
    assert layer_cost(f, 100_000).macs == 10**11


def test_counting_does_not_change_the_layer() -> None:
    layer = nn.Conv1d(1, 2, 3, padding=1)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer_cost(layer, 10)
    count_products(layer, 10)
    convolution_matrix(layer, 10)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert layer.padding == (1,)
    assert all(p.grad is None and p.requires_grad for p in layer.parameters())


def test_the_matrix_of_a_convolution_gives_the_same_output() -> None:
    layer = nn.Conv1d(1, 3, 5, padding=2, bias=False, dtype=torch.float64)
    x = torch.randn(1, 1, 11, dtype=torch.float64)
    matrix = convolution_matrix(layer, 11)
    assert torch.allclose(matrix @ x.flatten(), layer(x).flatten(), rtol=0, atol=1e-14)
    k, i = torch.arange(11)[:, None], torch.arange(11)
    for band in matrix.view(3, 11, 11):
        assert not band[(i - k).abs() > 2].any()  # locality
        assert all(len(band[i - k == d].unique()) == 1 for d in range(-2, 3))  # stationarity


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: course_layers(100, 10, 4), "kernel size 4 is even: give an odd one"),
        (lambda: course_layers(0), "give each at least 1"),
        (lambda: layer_cost(nn.Linear(100, 10), 99), r"Linear\(.*\) cannot take an input of length 99: "),
        (lambda: layer_cost(nn.Conv1d(1, 1, 5), 3), "cannot take an input of length 3: "),
        (lambda: count_products(nn.Conv1d(1, 1, 3, stride=2), 9), "products are counted only for stride 1, dilation 1"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(call, message) -> None:
    with pytest.raises(LabError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
