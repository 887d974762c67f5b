"""The randomization test of maps: it must be able to fail, and does where it should."""

import copy
from dataclasses import asdict

import pytest
import torch
from support.heatmaps import as_map, heat
from support.small_nets import wrapped
from torch import Tensor, nn

from convolab.inspection.explain import null_maps, randomization
from convolab.inspection.explain.methods import SaliencyMap, gradient, guided
from convolab.models.classifier import ImageClassifier


def test_groups_go_from_the_head_down_and_hold_every_parameter_once(resnet: ImageClassifier, pixels: Tensor) -> None:
    groups = randomization.layer_groups(resnet, pixels)
    assert [name for name, _ in groups] == [
        "head.linear",
        "features.stage3",
        "features.stage2",
        "features.stage1",
        "features.stem",
    ]
    names = [name for _, members in groups for name in members]
    assert sorted(names) == sorted(name for name, _ in resnet.network.named_parameters())


def test_a_norm_belongs_to_the_layer_before_it(pixels: Tensor) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    assert [name for name, _ in randomization.layer_groups(wrapped(network), pixels)] == ["5", "0"]


def test_randomizing_changes_only_the_named_groups_of_a_copy_and_keeps_each_tensors_scale(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    groups, before = randomization.layer_groups(resnet, pixels), copy.deepcopy(resnet.state_dict())
    twin = randomization.randomized_copy(resnet, groups[1:2], seed=0)
    old, new = dict(resnet.network.named_parameters()), dict(twin.network.named_parameters())
    assert {name for name in old if not torch.equal(old[name], new[name])} == set(groups[1][1])
    weight = "features.stage3.0.conv2.weight"
    assert float(new[weight].detach().std()) == pytest.approx(float(old[weight].detach().std()), rel=0.02)
    assert abs(null_maps.rank_correlation(old[weight].flatten(1), new[weight].flatten(1))) < 0.02
    assert all(torch.equal(before[key], value) for key, value in resnet.state_dict().items())
    again, deeper = (
        randomization.randomized_copy(resnet, groups[1:2], seed=0),
        randomization.randomized_copy(resnet, groups[:3], seed=0),
    )
    for other in (again, deeper):  # a tensor's draw depends on its name alone
        assert torch.equal(dict(other.network.named_parameters())[weight], new[weight])
    assert not torch.equal(
        dict(randomization.randomized_copy(resnet, groups[1:2], seed=1).network.named_parameters())[weight], new[weight]
    )


@pytest.mark.slow
def test_a_map_of_the_image_alone_does_not_change_and_one_of_the_weights_does(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    def edge_detector(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        return as_map(null_maps.sobel_edges(x, x[0, 0]))

    blind = randomization.run_randomization_test(
        resnet, pixels, 0, edge_detector(resnet, pixels, 0).values, edge_detector
    )
    assert blind.cascading == pytest.approx((1.0,) * 5)
    assert blind.independent == pytest.approx((1.0,) * 5)
    assert blind.edge_correlation == pytest.approx(1.0)
    found = randomization.run_randomization_test(resnet, pixels, 0, gradient(resnet, pixels, 0).values, gradient)
    assert abs(found.cascading[-1]) < 0.5
    assert 0 < found.null_95th_percentile < 0.5


@pytest.mark.slow
def test_random_maps_correlate_no_more_than_by_chance(resnet: ImageClassifier, pixels: Tensor) -> None:
    draws = iter(range(1000))

    def random(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        return as_map(heat(next(draws), 32, 32))

    found = randomization.run_randomization_test(resnet, pixels, 0, random(resnet, pixels, 0).values, random)
    assert max(map(abs, found.cascading)) < 0.15
    assert found.null_95th_percentile < 0.15


@pytest.mark.slow
def test_a_map_that_became_constant_is_none_in_the_cascade(resnet: ImageClassifier, pixels: Tensor) -> None:
    def dies(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        return as_map(heat(0, 32, 32) if net is resnet else torch.zeros(32, 32))

    assert (
        randomization.run_randomization_test(resnet, pixels, 0, dies(resnet, pixels, 0).values, dies).cascading
        == (None,) * 5
    )


@pytest.mark.slow
def test_the_head_alone_begins_both_rows_and_is_randomized_once(resnet: ImageClassifier, pixels: Tensor) -> None:
    calls = []

    def counted(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        calls.append(net)
        return gradient(net, x, target)

    found = randomization.run_randomization_test(resnet, pixels, 0, gradient(resnet, pixels, 0).values, counted)
    assert found.cascading[0] == found.independent[0]
    assert found.cascading[1] != found.independent[1]
    assert len(calls) == 2 * len(found.layer_groups) - 1


@pytest.mark.slow
def test_guided_backpropagation_hardly_knows_the_class_and_the_check_says_so(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    check = randomization.run_randomization_test(convnet, pixels, 0, guided(convnet, pixels, 0).values, guided)
    plain = randomization.run_randomization_test(convnet, pixels, 0, gradient(convnet, pixels, 0).values, gradient)
    assert check.cascading[0] > plain.cascading[0] + 0.1


def remaining(cascading: tuple[float | None, ...]) -> dict:
    test = randomization.RandomizationTest(("head", "stem"), cascading, cascading, 0.4, 0.2)
    return asdict(test)


def test_what_remains_is_averaged_over_images_and_counted_against_each_ones_percentile() -> None:
    found = randomization.remaining_similarity(
        [remaining(c) for c in ((0.9, 0.3), (0.7, -0.25), (0.8, 0.1), (None, None))]
    )
    assert found["head"].mean == pytest.approx(0.8)
    assert found["all"].mean == pytest.approx(0.05)
    assert found["all"].count == 3
    assert found["above_null_95th_percentile"] == 2
    assert found["constant_or_nonfinite"] == 1
    assert found["null_95th_percentile"] == pytest.approx(0.2)
    assert found["edge_correlation"].mean == pytest.approx(0.4)
