"""The randomization test of saliency maps: it passes and fails when it should."""

import copy
import threading
import warnings
from dataclasses import asdict

import pytest
import torch
from scipy.stats import normaltest
from support.heatmaps import random_heatmap, to_saliency_map
from support.small_nets import classifier_of, randomize_parameters
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.explain import null_maps, randomization
from convolab.inspection.explain.methods import SaliencyMap, gradient, guided
from convolab.models.classifier import ImageClassifier


def test_layer_groups_go_from_the_head_down_and_have_every_parameter_once(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
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


def test_a_norm_is_in_the_group_of_the_layer_before_it(pixels: Tensor) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    assert [name for name, _ in randomization.layer_groups(classifier_of(network), pixels)] == ["5", "0"]


def test_random_weights_are_normal_with_the_mean_and_the_deviation_of_the_tensor_that_they_replace() -> None:
    network = nn.Sequential(nn.Conv2d(3, 64, 5), nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    before = 2 + 0.5 * torch.rand(64, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    network[0].weight.data = before.clone()
    net = classifier_of(network)
    for seed in (0, 1):
        copied = randomization.randomized_copy(net, [("all of it", ["0.weight", "1.weight"])], seed).network
        weights = copied[0].weight.detach().double().flatten()
        assert float(weights.mean()) == pytest.approx(float(before.mean()), abs=0.01)
        assert float(weights.std()) == pytest.approx(float(before.std()), rel=0.05)
        assert normaltest(weights.numpy()).pvalue > 0.001  # the old ones were uniform
        assert abs(float(torch.corrcoef(torch.stack([weights, before.double().flatten()]))[0, 1])) < 0.06
        assert float(copied[1].weight.detach()) != 0.25  # a single number, which has no deviation
        for name in ("0.bias", "4.weight", "4.bias"):
            assert torch.equal(copied.get_parameter(name), network.get_parameter(name))
    assert torch.equal(network[0].weight, before)


class Tokens(nn.Module):
    """A convolution, something that takes its cells one after the other, and a head."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.conv, self.middle, self.head = nn.Conv2d(3, 8, 8, stride=8), middle, nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        is_attention = isinstance(self.middle, nn.MultiheadAttention)
        out = self.middle(tokens, tokens, tokens) if is_attention else self.middle(tokens)
        return self.head((out[0] if isinstance(out, tuple) else out).mean(1))


def scripted(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what people have
        return torch.jit.script(layer)


def with_a_tied_weight() -> nn.Module:
    layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    layers[1].weight = layers[0].weight
    return layers


MIDDLES = {
    "attention": lambda: nn.MultiheadAttention(8, 2, batch_first=True),
    "LSTM": lambda: nn.LSTM(8, 8, num_layers=2, batch_first=True),
    "GRU": lambda: nn.GRU(8, 8, batch_first=True),
    "a layer of a transformer": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    "a scripted layer": lambda: scripted(nn.Linear(8, 8)),
    "a weight that two layers share": with_a_tied_weight,
}


@pytest.mark.parametrize("name", MIDDLES)
def test_every_parameter_is_in_a_group_and_randomized_with_it(name: str, pixels: Tensor) -> None:
    net = classifier_of(randomize_parameters(Tokens(MIDDLES[name]())))
    groups = randomization.layer_groups(net, pixels)
    assert groups[0] == ("head", ["head.weight", "head.bias"])
    grouped = [name for _, members in groups for name in members]
    before = dict(net.network.named_parameters())
    assert sorted(grouped) == sorted(before)
    after = dict(randomization.randomized_copy(net, groups, seed=0).network.named_parameters())
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_a_layer_that_is_not_used_is_not_taken_for_the_head(pixels: Tensor) -> None:
    network = Tokens(nn.Linear(8, 8))
    network.auxiliary = nn.Linear(8, 10)
    names = [name for name, _ in randomization.layer_groups(classifier_of(network), pixels)]
    assert names == ["head", "middle", "conv", "auxiliary"]


def test_a_network_without_parameters_has_no_weights_to_randomize(pixels: Tensor) -> None:
    net = classifier_of(nn.Sequential(nn.AdaptiveAvgPool2d((2, 5)), nn.Flatten(), nn.AvgPool1d(3)))
    heatmap = gradient(net, pixels, 0).values
    with pytest.raises(LabError, match="this network has no parameters, so there are no weights to randomize"):
        randomization.run_randomization_test(net, pixels, 0, heatmap, gradient)


def test_a_network_that_cannot_be_copied_is_refused_in_one_line(shallow: ImageClassifier, pixels: Tensor) -> None:
    shallow.network.lock = threading.Lock()
    heatmap = gradient(shallow, pixels, 0).values
    with pytest.raises(
        LabError,
        match=r"this network cannot be copied, so that its weights .*: leave the check out \(TypeError: .*lock",
    ) as caught:
        randomization.run_randomization_test(shallow, pixels, 0, heatmap, gradient)
    assert "\n" not in str(caught.value)


def test_the_limit_is_the_largest_of_nineteen_random_maps_so_that_one_more_is_above_it_once_in_twenty(
    shallow: ImageClassifier, pixels: Tensor
) -> None:
    heatmap = random_heatmap(0, 32, 32)
    result = randomization.run_randomization_test(
        shallow, pixels, 0, heatmap, lambda net, x, target: to_saliency_map(heatmap), seed=3
    )
    correlations = [
        abs(null_maps.rank_correlation(heatmap, null_maps.phase_randomized(heatmap, 3, index))) for index in range(19)
    ]
    assert result.null_95th_percentile == max(correlations)


@pytest.mark.slow
def test_randomizing_changes_only_the_named_groups_of_a_copy_and_keeps_each_tensors_scale(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    groups, before = randomization.layer_groups(resnet, pixels), copy.deepcopy(resnet.state_dict())
    randomized = randomization.randomized_copy(resnet, groups[1:2], seed=0)
    old, new = dict(resnet.network.named_parameters()), dict(randomized.network.named_parameters())
    assert {name for name in old if not torch.equal(old[name], new[name])} == set(groups[1][1])
    weight = "features.stage3.0.conv2.weight"
    assert float(new[weight].detach().std()) == pytest.approx(float(old[weight].detach().std()), rel=0.02)
    assert abs(null_maps.rank_correlation(old[weight].flatten(1), new[weight].flatten(1))) < 0.02
    assert all(torch.equal(before[key], value) for key, value in resnet.state_dict().items())
    repeated, deeper = (
        randomization.randomized_copy(resnet, groups[1:2], seed=0),
        randomization.randomized_copy(resnet, groups[:3], seed=0),
    )
    for other in (repeated, deeper):  # the random values of a tensor depend only on its name
        assert torch.equal(dict(other.network.named_parameters())[weight], new[weight])
    assert not torch.equal(
        dict(randomization.randomized_copy(resnet, groups[1:2], seed=1).network.named_parameters())[weight], new[weight]
    )


@pytest.mark.slow
def test_a_map_of_only_the_image_does_not_change_and_one_of_the_weights_does(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    def edge_detector(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        return to_saliency_map(null_maps.sobel_edges(x, x[0, 0]))

    of_edges = randomization.run_randomization_test(
        resnet, pixels, 0, edge_detector(resnet, pixels, 0).values, edge_detector
    )
    assert of_edges.cascading == pytest.approx((1.0,) * 5)
    assert of_edges.independent == pytest.approx((1.0,) * 5)
    assert of_edges.edge_correlation == pytest.approx(1.0)
    of_gradient = randomization.run_randomization_test(resnet, pixels, 0, gradient(resnet, pixels, 0).values, gradient)
    assert abs(of_gradient.cascading[-1]) < 0.5
    assert 0 < of_gradient.null_95th_percentile < 0.5


@pytest.mark.slow
def test_random_maps_correlate_no_more_than_by_chance(resnet: ImageClassifier, pixels: Tensor) -> None:
    seeds = iter(range(1000))

    def random(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        return to_saliency_map(random_heatmap(next(seeds), 32, 32))

    result = randomization.run_randomization_test(resnet, pixels, 0, random(resnet, pixels, 0).values, random)
    assert max(map(abs, result.cascading)) < 0.15
    assert result.null_95th_percentile < 0.15


@pytest.mark.slow
def test_a_map_that_becomes_constant_has_no_correlation(resnet: ImageClassifier, pixels: Tensor) -> None:
    def constant_after_randomization(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        return to_saliency_map(random_heatmap(0, 32, 32) if net is resnet else torch.zeros(32, 32))

    assert (
        randomization.run_randomization_test(
            resnet, pixels, 0, constant_after_randomization(resnet, pixels, 0).values, constant_after_randomization
        ).cascading
        == (None,) * 5
    )


@pytest.mark.slow
def test_both_orders_begin_with_the_head_which_is_randomized_once(resnet: ImageClassifier, pixels: Tensor) -> None:
    calls = []

    def count_calls(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        calls.append(net)
        return gradient(net, x, target)

    result = randomization.run_randomization_test(resnet, pixels, 0, gradient(resnet, pixels, 0).values, count_calls)
    assert result.cascading[0] == result.independent[0]
    assert result.cascading[1] != result.independent[1]
    assert len(calls) == 2 * len(result.layer_groups) - 1


@pytest.mark.slow
def test_guided_backpropagation_hardly_depends_on_the_class_and_the_test_shows_it(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    of_guided = randomization.run_randomization_test(convnet, pixels, 0, guided(convnet, pixels, 0).values, guided)
    of_gradient = randomization.run_randomization_test(
        convnet, pixels, 0, gradient(convnet, pixels, 0).values, gradient
    )
    assert of_guided.cascading[0] > of_gradient.cascading[0] + 0.1


def result_dict(cascading: tuple[float | None, ...]) -> dict:
    test = randomization.RandomizationTest(("head", "stem"), cascading, cascading, 0.4, 0.2)
    return asdict(test)


def test_the_remaining_similarity_is_averaged_over_images_and_compared_with_the_percentile_of_each() -> None:
    aggregated = randomization.remaining_similarity(
        [result_dict(c) for c in ((0.9, 0.3), (0.7, -0.25), (0.8, 0.1), (None, None))]
    )
    assert aggregated["head"].mean == pytest.approx(0.8)
    assert aggregated["all"].mean == pytest.approx(0.05)
    assert aggregated["all"].count == 3
    assert aggregated["above_null_95th_percentile"] == 2
    assert aggregated["constant_or_nonfinite"] == 1
    assert aggregated["null_95th_percentile"] == pytest.approx(0.2)
    assert aggregated["edge_correlation"].mean == pytest.approx(0.4)
