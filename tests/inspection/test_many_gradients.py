"""Gradients at many points come from shorter passes only where these give the network's own gradient."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from support.small_nets import classifier_of, randomize_batch_norms
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convolab.data.image_io import read_image
from convolab.inspection import many_gradients
from convolab.inspection.many_gradients import (
    TOLERANCE,
    ConvolutionUses,
    FoldedWayBack,
    iter_logit_gradients,
)
from convolab.inspection.passes import logit_gradients
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import frozen_eval
from convolab.models.pretrained import pretrained
from convolab.models.registry import build


def sequential(norm: nn.Module, *more: nn.Module) -> ImageClassifier:
    conv = nn.Conv2d(3, 6, 3, padding=1)
    network = nn.Sequential(conv, norm, nn.ReLU(), *more, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    return classifier_of(randomize_batch_norms(network)).requires_grad_(False)


def points_near(pixels: Tensor, count: int) -> list[Tensor]:
    return [pixels + 0.01 * index for index in range(count)]


def gradients_alone(net: ImageClassifier, points: list[Tensor]) -> Tensor:
    return torch.stack([logit_gradients(net, point, 3)[0] for point in points])


@pytest.fixture
def images_of_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each pass had that gradients were taken of."""
    counts: list[int] = []

    def record(net: ImageClassifier, points: Tensor, target: int) -> Tensor:
        counts.append(len(points))
        return logit_gradients(net, points, target)

    monkeypatch.setattr(many_gradients, "logit_gradients", record)
    return counts


class CountedOps(TorchDispatchMode):
    """How often each operation of torch runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_small", "simple_convnet", "shallow_net"])
def test_a_built_in_network_computes_one_point_alone_and_the_rest_in_passes_of_many(
    name: str, pixels: Tensor, images_of_passes: list[int]
) -> None:
    net = classifier_of(randomize_batch_norms(build(name, (3, 32, 32), 10))).requires_grad_(False)
    points = points_near(pixels, 40)
    found = torch.stack(list(iter_logit_gradients(net, points, 3)))
    assert images_of_passes == [1, 32, 8]
    plain = gradients_alone(net, points)
    assert (found - plain).abs().max() <= TOLERANCE * plain.abs().max()


@pytest.mark.slow
def test_the_way_back_passes_no_batch_norm_behind_a_convolution_and_the_network_stays_as_it_is(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    before = copy.deepcopy(resnet.state_dict())
    num_norms = sum(isinstance(module, nn.BatchNorm2d) for module in resnet.modules())
    with CountedOps() as ops:
        list(iter_logit_gradients(resnet.requires_grad_(False), points_near(pixels, 40), 3))
    assert ops.counts["native_batch_norm_backward"] == num_norms > 0  # of the first point, alone
    assert all(torch.equal(before[key], value) for key, value in resnet.state_dict().items())
    assert all(map(many_gradients.is_known, resnet.modules())), "a hook was left behind"


def test_the_way_forward_is_the_networks_own_bit_for_bit(resnet: ImageClassifier, pixels: Tensor) -> None:
    with ConvolutionUses() as used:
        logits = resnet.requires_grad_(False).forward_unchecked(pixels)
    convolutions = used.normalized_alone()
    assert len(convolutions) == sum(isinstance(module, nn.BatchNorm2d) for module in resnet.modules())
    with FoldedWayBack(convolutions):
        assert torch.equal(resnet.forward_unchecked(pixels), logits)


@pytest.mark.slow
def test_on_photos_no_relu_lets_through_what_it_stops_in_the_network(images_of_passes: list[int]) -> None:
    """With the norms in the weights on the way forward too, rounding took some numbers over a ReLU's kink."""
    net = pretrained("efficientnet_lite0")
    for name in ("chelsea", "coffee"):
        photo = net.preprocess(read_image(name)).contiguous(memory_format=torch.channels_last)
        points = [photo, photo.flip(3)]
        with frozen_eval(net):
            plain = gradients_alone(net, points)
            images_of_passes.clear()
            found = torch.stack(list(iter_logit_gradients(net, points, 3)))
        assert images_of_passes == [1, 2]
        assert (found - plain).abs().max() <= TOLERANCE * plain.abs().max()


def test_a_network_of_a_persons_own_code_computes_each_point_alone(pixels: Tensor, images_of_passes: list[int]) -> None:
    class OwnReLU(nn.ReLU):
        pass

    net = sequential(nn.BatchNorm2d(6), OwnReLU())
    points = points_near(pixels, 5)
    assert torch.equal(torch.stack(list(iter_logit_gradients(net, points, 3))), gradients_alone(net, points))
    assert images_of_passes == [1] * 5


def test_a_network_with_a_hook_computes_each_point_alone(pixels: Tensor) -> None:
    net = sequential(nn.BatchNorm2d(6))
    net.network[0].register_forward_hook(lambda module, inputs, output: output * float(output.detach().mean()))
    points = points_near(pixels, 5)
    assert torch.equal(torch.stack(list(iter_logit_gradients(net, points, 3))), gradients_alone(net, points))


def test_a_network_whose_images_change_one_another_computes_each_point_alone(pixels: Tensor) -> None:
    net = sequential(nn.BatchNorm2d(6, track_running_stats=False))
    points = points_near(pixels, 5)
    assert torch.equal(torch.stack(list(iter_logit_gradients(net, points, 3))), gradients_alone(net, points))


def test_a_batch_norm_on_one_of_two_ways_out_of_a_convolution_is_left_where_it_is(pixels: Tensor) -> None:
    conv = nn.Conv2d(3, 6, 3, padding=1)
    shared = nn.Sequential(conv, nn.BatchNorm2d(6), nn.Conv2d(6, 3, 3, padding=1), conv, nn.BatchNorm2d(6))
    net = classifier_of(
        randomize_batch_norms(nn.Sequential(shared, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)))
    )
    net.requires_grad_(False)
    points = points_near(pixels, 5)
    plain = gradients_alone(net, points)
    found = torch.stack(list(iter_logit_gradients(net, points, 3)))
    assert (found - plain).abs().max() <= TOLERANCE * plain.abs().max()


def identity_convolution() -> nn.Conv2d:
    conv = nn.Conv2d(3, 3, 1)
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def shifting_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.ones_(norm.running_mean)
    return norm


class BesideItself(nn.Module):
    """Of a package whose modules are known: a convolution's output goes into its batch norm, and past it."""

    __module__ = "torchvision.models.beside"

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = identity_convolution(), shifting_norm(3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.conv(images)
        return self.norm(maps) + maps.relu()


class TwoBranches(nn.Module):
    """Of a package whose modules are known: both convolutions run before the norm of either."""

    __module__ = "torchvision.models.branches"

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm_a, self.norm_b = shifting_norm(3), shifting_norm(3)

    def forward(self, images: Tensor) -> Tensor:
        a, b = self.a(images), self.b(images)
        return self.norm_a(a).relu() + self.norm_b(b).relu()


@pytest.mark.parametrize(
    ("layers", "num_folded"),
    [
        ([identity_convolution(), nn.ReLU(inplace=True), shifting_norm(3)], 0),
        ([identity_convolution(), shifting_norm(3), nn.ReLU(inplace=True), shifting_norm(3)], 1),
        ([identity_convolution(), shifting_norm(3), shifting_norm(3)], 1),
        ([BesideItself()], 0),
        ([TwoBranches()], 2),
    ],
    ids=["ReLU in place before the norm", "a norm after it", "two norms", "the output goes past its norm", "branches"],
)
def test_only_a_norm_that_alone_takes_what_a_convolution_gives_is_folded_also_where_the_first_point_cannot_tell(
    layers: list[nn.Module], num_folded: int
) -> None:
    """At the first point, far above the ReLUs' kink, the gradient is right whatever is folded; at the others it is not."""
    torch.manual_seed(0)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3 * 64, 10))
    net = classifier_of(network, 8).requires_grad_(False)
    points = [torch.full((1, 3, 8, 8), 0.9), *(torch.rand(1, 3, 8, 8) for _ in range(4))]
    with ConvolutionUses() as used:
        net.forward_unchecked(points[0])
    assert len(used.normalized_alone()) == num_folded
    plain = gradients_alone(net, points)
    found = torch.stack(list(iter_logit_gradients(net, points, 3)))
    assert (found - plain).abs().max() <= TOLERANCE * plain.abs().max()


def test_a_pass_is_bounded_by_what_it_keeps_also_without_convolutions(
    pixels: Tensor, images_of_passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many_gradients, "BATCH_BYTES", 2_000_000)
    hidden = [nn.Sequential(nn.Linear(96, 96), nn.GELU()) for _ in range(10)]  # each keeps 96 x 96 numbers of 4 bytes
    network = nn.Sequential(nn.Flatten(1, 2), nn.Linear(32, 96), *hidden, nn.Flatten(), nn.Linear(96 * 96, 10))
    net = classifier_of(network).requires_grad_(False)
    list(iter_logit_gradients(net, points_near(pixels, 20), 3))
    assert images_of_passes == [1, 5, 5, 5, 5]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_there_is_a_gradient_for_each_point_also_of_images_that_fill_a_pass_alone(
    count: int, monkeypatch: pytest.MonkeyPatch, pixels: Tensor
) -> None:
    monkeypatch.setattr(many_gradients, "BATCH_BYTES", 1)
    net = sequential(nn.BatchNorm2d(6))
    points = points_near(pixels, count)
    found = list(iter_logit_gradients(net, points, 3))
    assert len(found) == count
    for ours, point in zip(found, points, strict=True):
        plain = logit_gradients(net, point, 3)[0]
        assert (ours - plain).abs().max() <= TOLERANCE * plain.abs().max()
