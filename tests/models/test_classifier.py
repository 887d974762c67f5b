import copy

import pytest
import torch
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.models.classifier import ImageClassifier
from convolab.models.registry import build

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def pixels(n: int = 2, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, 32, 28, generator=torch.Generator().manual_seed(0))


def classifier_of(network: nn.Module, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> ImageClassifier:
    return ImageClassifier(network, mean=mean, std=std, input_size=(32, 28), classes=tuple("0123456789"))


def per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.5,), (0.25,)), ((0.13,), (0.31,))])
def test_pixels_are_normalized_as_in_float64(
    layout: torch.memory_format, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    x = pixels(channels=len(mean))
    expected = ((x.double() - per_channel(mean)) / per_channel(std)).flatten(1)
    in_layout = x.contiguous(memory_format=layout)
    assert (classifier_of(nn.Flatten(), mean, std)(in_layout) - expected).abs().max() < 1e-6
    assert torch.equal(in_layout, x)


@pytest.mark.parametrize("name", ["simple_convnet", "resnet_small", "shallow_net"])
def test_an_image_classifier_is_its_network_on_normalized_pixels_in_either_layout(name: str) -> None:
    network = build(name, (3, 32, 28), 10).eval()
    expected = copy.deepcopy(network).double()((pixels().double() - per_channel(MEAN)) / per_channel(STD))
    net = classifier_of(network)
    contiguous, channels_last = net(pixels()), net(pixels().contiguous(memory_format=torch.channels_last))
    assert (contiguous - expected).abs().max() < 1e-6 * expected.abs().max().clamp(min=1)
    assert (channels_last - expected).abs().max() < 1e-6 * expected.abs().max().clamp(min=1)


def test_the_network_gets_pixels_in_the_memory_format_of_the_input() -> None:
    class RecordsLayout(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.last = x.is_contiguous(memory_format=torch.channels_last)
            return x.flatten(1)

    net = classifier_of(RecordsLayout())
    net(pixels())
    assert not net.network.last
    net(pixels().contiguous(memory_format=torch.channels_last))
    assert net.network.last


def test_a_constant_channel_is_only_centered() -> None:
    x = pixels()
    x[0, 1], x[1, 1] = 0.25, 0.75  # as in the training images, and as an attack may change it
    normalized = classifier_of(nn.Flatten(), (0.5, 0.25, 0.5), (0.25, 0.0, 0.25))(x).view_as(x)
    assert normalized.isfinite().all()
    assert (normalized[0, 1] == 0).all()
    assert (normalized[1, 1] == 0.5).all()
    assert not (normalized[:, 0] == 0).any()


def test_the_gradient_with_respect_to_the_pixels_includes_the_normalization() -> None:
    x = pixels().requires_grad_()
    weight = torch.randn(2, 3, 32, 28, generator=torch.Generator().manual_seed(1))
    (classifier_of(nn.Flatten())(x).view_as(x) * weight).sum().backward()
    torch.testing.assert_close(x.grad, (weight / per_channel(STD)).float())


def test_only_the_tensors_of_the_network_are_saved_and_trained() -> None:
    network = build("simple_convnet", (3, 32, 28), 10)
    net = classifier_of(network)
    assert list(net.state_dict()) == [f"network.{name}" for name in network.state_dict()]
    assert [id(p) for p in net.parameters()] == [id(p) for p in network.parameters()]


def test_an_image_classifier_reports_its_input_size_and_classes() -> None:
    net = classifier_of(nn.Flatten())
    assert (net.channels, net.input_size, net.classes, net.mean, net.std) == (
        3,
        (32, 28),
        tuple("0123456789"),
        MEAN,
        STD,
    )


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD[:2]), ((0.5,), (-0.25,)), ((0.5,), (float("nan"),))])
def test_statistics_that_do_not_match_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(LabError, match="give one mean and one standard deviation"):
        classifier_of(nn.Flatten(), mean, std)
