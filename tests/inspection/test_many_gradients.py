"""Gradients at many points come from a faster copy only where that is the network's own gradient."""

import copy

import pytest
import torch
from support.small_nets import classifier_of, randomize_batch_norms
from torch import Tensor, nn

from convolab.inspection import many_gradients
from convolab.inspection.many_gradients import TOLERANCE, iter_logit_gradients
from convolab.inspection.passes import logit_gradients
from convolab.models.classifier import ImageClassifier
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
def passes_of_the_network(monkeypatch: pytest.MonkeyPatch) -> list[ImageClassifier]:
    """The networks that gradients were taken of."""
    taken: list[ImageClassifier] = []

    def record(net: ImageClassifier, points: Tensor, target: int) -> Tensor:
        taken.append(net)
        return logit_gradients(net, points, target)

    monkeypatch.setattr(many_gradients, "logit_gradients", record)
    return taken


@pytest.mark.parametrize("name", ["resnet_small", "simple_convnet", "shallow_net"])
def test_a_built_in_network_computes_one_point_and_its_copy_the_rest(
    name: str, pixels: Tensor, passes_of_the_network: list[ImageClassifier]
) -> None:
    net = classifier_of(randomize_batch_norms(build(name, (3, 32, 32), 10))).requires_grad_(False)
    points = points_near(pixels, 40)
    found = torch.stack(list(iter_logit_gradients(net, points, 3)))
    assert [taken is net for taken in passes_of_the_network] == [True, False, False]
    plain = gradients_alone(net, points)
    assert (found - plain).abs().max() <= TOLERANCE * plain.abs().max()


def test_the_copy_has_no_batch_norm_left_after_a_convolution_and_the_network_stays_as_it_is(
    resnet: ImageClassifier, pixels: Tensor, passes_of_the_network: list[ImageClassifier]
) -> None:
    before = copy.deepcopy(resnet.state_dict())
    list(iter_logit_gradients(resnet.requires_grad_(False), points_near(pixels, 5), 3))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in passes_of_the_network[-1].modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in resnet.modules())
    assert all(torch.equal(before[key], value) for key, value in resnet.state_dict().items())
    assert all(map(many_gradients.is_known, resnet.modules())), "a hook was left behind"


def test_a_network_of_a_persons_own_code_computes_each_point_alone(
    pixels: Tensor, passes_of_the_network: list[ImageClassifier]
) -> None:
    class OwnReLU(nn.ReLU):
        pass

    net = sequential(nn.BatchNorm2d(6), OwnReLU())
    points = points_near(pixels, 5)
    assert torch.equal(torch.stack(list(iter_logit_gradients(net, points, 3))), gradients_alone(net, points))
    assert passes_of_the_network == [net] * 5


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


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_there_is_a_gradient_for_each_point_also_of_images_that_fill_a_pass_alone(
    count: int, monkeypatch: pytest.MonkeyPatch, pixels: Tensor
) -> None:
    monkeypatch.setattr(many_gradients, "BATCH_PIXELS", pixels[0, 0].numel())
    net = sequential(nn.BatchNorm2d(6))
    points = points_near(pixels, count)
    found = list(iter_logit_gradients(net, points, 3))
    assert len(found) == count
    for ours, point in zip(found, points, strict=True):
        plain = logit_gradients(net, point, 3)[0]
        assert (ours - plain).abs().max() <= TOLERANCE * plain.abs().max()
