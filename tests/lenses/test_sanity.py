"""The checks of maps: each must be able to fail, and does where it should."""

import copy
import math

import pytest
import torch
from lens_nets import wrapped
from scipy.stats import spearmanr
from torch import Tensor, nn

from convolab.ground.errors import LabError
from convolab.lenses import sanity
from convolab.lenses.saliency import Saliency, gradcam, gradient
from convolab.nets.pixelnet import PixelNet


def heat(seed: int = 0, rows: int = 8, columns: int = 9) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def as_map(values: Tensor) -> Saliency:
    return Saliency("made", "Made", values, True, "")


def test_likeness_is_spearmans_correlation_of_absolute_values_with_ties_too() -> None:
    for first, second in ((heat(0), heat(1)), (heat(0).clamp(min=0), heat(0).round()), (heat(2), -heat(2))):
        theirs = spearmanr(first.abs().flatten(), second.abs().flatten()).statistic
        assert sanity.likeness(first, second) == pytest.approx(theirs, abs=1e-12)


def test_a_map_without_values_has_no_likeness() -> None:
    for bad in (torch.zeros(8, 9), heat().fill_(float("nan"))):
        assert sanity.likeness(heat(), bad) is None


def test_stages_go_from_the_head_down_and_hold_every_parameter_once(resnet: PixelNet, pixels: Tensor) -> None:
    groups = sanity.stages(resnet, pixels)
    assert [name for name, _ in groups] == ["head.linear", "features.stage3", "features.stage2", "features.stage1", "features.stem"]
    names = [name for _, members in groups for name in members]
    assert sorted(names) == sorted(name for name, _ in resnet.network.named_parameters())


def test_a_norm_belongs_to_the_layer_before_it(pixels: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    assert [name for name, _ in sanity.stages(wrapped(network), pixels)] == ["5", "0"]


def test_forgetting_changes_only_the_named_stages_of_a_copy_and_keeps_each_tensors_scale(resnet: PixelNet, pixels: Tensor) -> None:
    groups, before = sanity.stages(resnet, pixels), copy.deepcopy(resnet.state_dict())
    twin = sanity.forgetful(resnet, groups[1:2], seed=0)
    old, new = dict(resnet.network.named_parameters()), dict(twin.network.named_parameters())
    assert {name for name in old if not torch.equal(old[name], new[name])} == set(groups[1][1])
    weight = "features.stage3.0.conv2.weight"
    assert float(new[weight].std()) == pytest.approx(float(old[weight].std()), rel=0.02)
    assert abs(sanity.likeness(old[weight].flatten(1), new[weight].flatten(1))) < 0.02
    assert all(torch.equal(before[key], value) for key, value in resnet.state_dict().items())
    again, deeper = sanity.forgetful(resnet, groups[1:2], seed=0), sanity.forgetful(resnet, groups[:3], seed=0)
    for other in (again, deeper):  # a tensor's draw depends on its name alone
        assert torch.equal(dict(other.network.named_parameters())[weight], new[weight])
    assert not torch.equal(dict(sanity.forgetful(resnet, groups[1:2], seed=1).network.named_parameters())[weight], new[weight])


def test_a_map_of_the_picture_alone_does_not_change_and_one_of_the_weights_does(resnet: PixelNet, pixels: Tensor) -> None:
    def edge_detector(net: PixelNet, x: Tensor, target: int) -> Saliency:
        return as_map(sanity.edges(x, x[0, 0]))

    blind = sanity.randomise(resnet, pixels, 0, edge_detector(resnet, pixels, 0).values, edge_detector)
    assert blind.cascading == pytest.approx((1.0,) * 5)
    assert blind.independent == pytest.approx((1.0,) * 5)
    assert blind.edges == pytest.approx(1.0)
    found = sanity.randomise(resnet, pixels, 0, gradient(resnet, pixels, 0).values, gradient)
    assert abs(found.cascading[-1]) < 0.5
    assert 0 < found.chance < 0.5


def test_a_map_drawn_at_random_is_no_more_like_itself_than_chance(resnet: PixelNet, pixels: Tensor) -> None:
    draws = iter(range(1000))

    def random(net: PixelNet, x: Tensor, target: int) -> Saliency:
        return as_map(heat(next(draws), 32, 32))

    found = sanity.randomise(resnet, pixels, 0, random(resnet, pixels, 0).values, random)
    assert max(map(abs, found.cascading)) < 0.15
    assert found.chance < 0.15


def test_maps_that_are_smoother_are_more_alike_by_chance(resnet: PixelNet, pixels: Tensor) -> None:
    rough, smooth = heat(0, 32, 32), torch.nn.functional.interpolate(heat(0, 4, 4)[None, None], (32, 32), mode="bilinear")[0, 0]
    chance = [max(abs(sanity.likeness(m, sanity.random_map(m, 0, i))) for i in range(20)) for m in (rough, smooth)]
    assert chance[1] > 3 * chance[0]
    spectrum = [torch.fft.rfft2(m.abs().double()).abs()[1:, 1:] for m in (smooth, sanity.random_map(smooth, 0, 3))]
    assert sanity.likeness(*spectrum) > 0.95


def test_a_map_that_became_constant_is_none_in_the_cascade(resnet: PixelNet, pixels: Tensor) -> None:
    def dies(net: PixelNet, x: Tensor, target: int) -> Saliency:
        return as_map(heat(0, 32, 32) if net is resnet else torch.zeros(32, 32))

    assert sanity.randomise(resnet, pixels, 0, dies(resnet, pixels, 0).values, dies).cascading == (None,) * 5


class Square(nn.Module):
    """Class 0 is all about the brightness of one square."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        logit = x[:, :, 8:16, 12:20].mean((1, 2, 3))
        return torch.stack([2 * logit, *[0 * logit] * 9], dim=1)


def truth() -> Tensor:
    values = 0.01 * heat(1, 32, 32)
    values[8:16, 12:20] += 1
    return values


def test_the_true_map_beats_random_order_and_its_opposite_does_worse(pixels: Tensor) -> None:
    net = wrapped(Square())
    areas = {}
    for name, values in (("true", truth()), ("false", -truth())):
        deletion, insertion = sanity.deletion_and_insertion(net, pixels, 0, values)
        areas[name] = deletion.area - sum(deletion.random_areas) / 5, insertion.area - sum(insertion.random_areas) / 5
        ends = [curve.probabilities for curve in (deletion, insertion)]
        with torch.no_grad():
            assert ends[0][0] == ends[1][-1] == pytest.approx(float(net(pixels).softmax(1)[0, 0]), abs=1e-6)
        assert deletion.random[0] == pytest.approx(deletion.probabilities[0])
        assert deletion.random[-1] == pytest.approx(deletion.probabilities[-1])
    assert areas["true"][0] < 0 < areas["true"][1]
    assert areas["false"][0] > 0 > areas["false"][1]


def test_the_substrates_are_named_and_are_what_they_say(pixels: Tensor) -> None:
    seen = []

    class Sees(Square):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x)

    net = wrapped(Sees())
    deletion, insertion = sanity.deletion_and_insertion(net, pixels, 0, truth(), steps=4, orders=1)
    assert (deletion.substrate, insertion.substrate) == ("mean colour", "blur, sigma 0.714 px")
    batches = torch.cat(seen)  # five pictures of deletion, five in random order, then the same of insertion
    assert float(batches[4].abs().max()) < 1e-6  # what normalisation makes zero
    torch.testing.assert_close(batches[0], batches[14])
    assert 0 < float((batches[10] - batches[0]).abs().mean()) < float((batches[4] - batches[0]).abs().mean())


def test_equal_values_keep_the_pictures_order_and_a_coarse_map_is_stretched() -> None:
    values = torch.tensor([[1.0, 2.0, 1.0], [2.0, 1.0, 2.0]])
    assert sanity.order_of(values, (2, 3)).tolist() == [1, 3, 5, 0, 2, 4]
    assert sanity.order_of(torch.zeros(7, 7), (28, 28)).tolist() == list(range(784))
    corner = torch.zeros(2, 2)
    corner[0, 1] = 1
    assert sanity.order_of(corner, (8, 8))[0] in (6, 7)


def test_the_area_is_by_trapezoids() -> None:
    assert sanity.area(torch.tensor([1.0, 0.5, 0.0])) == 0.5
    assert sanity.area(torch.tensor([1.0, 0.0, 0.0])) == 0.25


def test_a_map_with_a_fault_is_not_checked(resnet: PixelNet, pixels: Tensor) -> None:
    with pytest.raises(LabError, match="the made map is constant: there is nothing to check"):
        sanity.check(resnet, pixels, 0, as_map(torch.zeros(8, 8)), gradcam)


def test_a_whole_check_is_reproducible_says_itself_and_leaves_the_network_alone(convnet: PixelNet, pixels: Tensor) -> None:
    before = copy.deepcopy(convnet.state_dict())
    named = next(c for c in range(10) if not gradcam(convnet, pixels, c).fault)
    first, again = (sanity.check(convnet, pixels, named, gradcam(convnet, pixels, named), gradcam, seed=3) for _ in range(2))
    assert first == again
    assert all(torch.equal(before[key], value) for key, value in convnet.state_dict().items())
    lines = sanity.said(first)
    assert len(lines) == 3
    assert "weights drawn anew" in lines[0]
    assert "deletion (mean colour) area" in lines[1]
    assert "in random order" in lines[2]


def test_gains_over_pictures_have_a_t_interval() -> None:
    curves = [{"area": 0.2, "random_areas": [0.5, 0.7]}, {"area": 0.3, "random_areas": [0.5, 0.5]}]
    found = sanity.gains([{"deletion": curve, "insertion": curve} for curve in curves])
    assert found["deletion"].mean == pytest.approx(0.3)
    assert found["insertion"].mean == pytest.approx(-0.3)
    half = 12.706 * 0.1 * math.sqrt(2) / math.sqrt(2)
    assert found["deletion"].high - 0.3 == pytest.approx(half, rel=1e-3)
