"""The checks of maps: each must be able to fail, and does where it should."""

import copy
import math

import pytest
import torch
from scipy.stats import spearmanr
from support.small_nets import wrapped
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.explain import sanity
from convolab.inspection.explain.methods import SaliencyMap, gradcam, gradient, guided
from convolab.models.classifier import ImageClassifier


def heat(seed: int = 0, rows: int = 8, columns: int = 9) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def as_map(values: Tensor) -> SaliencyMap:
    return SaliencyMap("made", "Made", values, True, "")


def test_likeness_is_spearmans_correlation_of_absolute_values_with_ties_too() -> None:
    for first, second in ((heat(0), heat(1)), (heat(0).clamp(min=0), heat(0).round()), (heat(2), -heat(2))):
        theirs = spearmanr(first.abs().flatten(), second.abs().flatten()).statistic
        assert sanity.rank_correlation(first, second) == pytest.approx(theirs, abs=1e-12)


def test_a_map_without_values_has_no_likeness() -> None:
    for bad in (torch.zeros(8, 9), heat().fill_(float("nan"))):
        assert sanity.rank_correlation(heat(), bad) is None


def test_stages_go_from_the_head_down_and_hold_every_parameter_once(resnet: ImageClassifier, pixels: Tensor) -> None:
    groups = sanity.layer_groups(resnet, pixels)
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
    assert [name for name, _ in sanity.layer_groups(wrapped(network), pixels)] == ["5", "0"]


def test_forgetting_changes_only_the_named_stages_of_a_copy_and_keeps_each_tensors_scale(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    groups, before = sanity.layer_groups(resnet, pixels), copy.deepcopy(resnet.state_dict())
    twin = sanity.randomized_copy(resnet, groups[1:2], seed=0)
    old, new = dict(resnet.network.named_parameters()), dict(twin.network.named_parameters())
    assert {name for name in old if not torch.equal(old[name], new[name])} == set(groups[1][1])
    weight = "features.stage3.0.conv2.weight"
    assert float(new[weight].detach().std()) == pytest.approx(float(old[weight].detach().std()), rel=0.02)
    assert abs(sanity.rank_correlation(old[weight].flatten(1), new[weight].flatten(1))) < 0.02
    assert all(torch.equal(before[key], value) for key, value in resnet.state_dict().items())
    again, deeper = (
        sanity.randomized_copy(resnet, groups[1:2], seed=0),
        sanity.randomized_copy(resnet, groups[:3], seed=0),
    )
    for other in (again, deeper):  # a tensor's draw depends on its name alone
        assert torch.equal(dict(other.network.named_parameters())[weight], new[weight])
    assert not torch.equal(
        dict(sanity.randomized_copy(resnet, groups[1:2], seed=1).network.named_parameters())[weight], new[weight]
    )


def test_a_map_of_the_picture_alone_does_not_change_and_one_of_the_weights_does(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    def edge_detector(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        return as_map(sanity.sobel_edges(x, x[0, 0]))

    blind = sanity.run_randomization_test(resnet, pixels, 0, edge_detector(resnet, pixels, 0).values, edge_detector)
    assert blind.cascading == pytest.approx((1.0,) * 5)
    assert blind.independent == pytest.approx((1.0,) * 5)
    assert blind.edge_correlation == pytest.approx(1.0)
    found = sanity.run_randomization_test(resnet, pixels, 0, gradient(resnet, pixels, 0).values, gradient)
    assert abs(found.cascading[-1]) < 0.5
    assert 0 < found.null_95th_percentile < 0.5


def test_a_map_drawn_at_random_is_no_more_like_itself_than_chance(resnet: ImageClassifier, pixels: Tensor) -> None:
    draws = iter(range(1000))

    def random(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        return as_map(heat(next(draws), 32, 32))

    found = sanity.run_randomization_test(resnet, pixels, 0, random(resnet, pixels, 0).values, random)
    assert max(map(abs, found.cascading)) < 0.15
    assert found.null_95th_percentile < 0.15


def test_maps_that_are_smoother_are_more_alike_by_chance(resnet: ImageClassifier, pixels: Tensor) -> None:
    rough, smooth = (
        heat(0, 32, 32),
        torch.nn.functional.interpolate(heat(0, 4, 4)[None, None], (32, 32), mode="bilinear")[0, 0],
    )
    chance = [
        max(abs(sanity.rank_correlation(m, sanity.phase_randomized(m, 0, i))) for i in range(20))
        for m in (rough, smooth)
    ]
    assert chance[1] > 3 * chance[0]
    spectrum = [
        torch.fft.rfft2(m.abs().double()).abs()[1:, 1:] for m in (smooth, sanity.phase_randomized(smooth, 0, 3))
    ]
    assert sanity.rank_correlation(*spectrum) > 0.95


def test_a_map_that_became_constant_is_none_in_the_cascade(resnet: ImageClassifier, pixels: Tensor) -> None:
    def dies(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        return as_map(heat(0, 32, 32) if net is resnet else torch.zeros(32, 32))

    assert (
        sanity.run_randomization_test(resnet, pixels, 0, dies(resnet, pixels, 0).values, dies).cascading == (None,) * 5
    )


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
        areas[name] = (
            deletion.auc - sum(deletion.random_order_aucs) / 5,
            insertion.auc - sum(insertion.random_order_aucs) / 5,
        )
        ends = [curve.probabilities for curve in (deletion, insertion)]
        with torch.no_grad():
            assert ends[0][0] == ends[1][-1] == pytest.approx(float(net(pixels).softmax(1)[0, 0]), abs=1e-6)
        assert deletion.random_order_probabilities[0] == pytest.approx(deletion.probabilities[0])
        assert deletion.random_order_probabilities[-1] == pytest.approx(deletion.probabilities[-1])
    assert areas["true"][0] < 0 < areas["true"][1]
    assert areas["false"][0] > 0 > areas["false"][1]


def test_the_substrates_are_named_and_are_what_they_say(pixels: Tensor) -> None:
    seen = []

    class Sees(Square):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return super().forward(x)

    net = wrapped(Sees())
    deletion, insertion = sanity.deletion_and_insertion(net, pixels, 0, truth(), steps=4, n_orders=1)
    assert (deletion.baseline, insertion.baseline) == ("mean colour", "blur, sigma 0.714 px")
    batches = torch.cat(
        seen
    )  # the picture and ten pictures in random order, the same again, then ten more each of the map's
    picture, deleted, inserted = batches[12], batches[12:17], batches[22:27]
    assert float(deleted[-1].abs().max()) < 1e-6  # what normalisation makes zero
    torch.testing.assert_close(deleted[0], picture)
    torch.testing.assert_close(inserted[-1], picture)
    assert 0 < float((inserted[0] - picture).abs().mean()) < float((deleted[-1] - picture).abs().mean())


def test_the_random_orders_of_a_picture_are_the_same_for_all_its_maps_and_those_of_regions_are_not(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    once = sanity.curves_in_random_order(convnet, pixels, 0, steps=4, n_orders=3, seed=2)
    first, second = (
        sanity.deletion_and_insertion(convnet, pixels, 0, heat(i, 8, 8), steps=4, n_orders=3, seed=2) for i in range(2)
    )
    given = sanity.deletion_and_insertion(
        convnet, pixels, 0, heat(0, 8, 8), steps=4, n_orders=3, seed=2, precomputed_curves=once
    )
    assert given == first
    assert first[0].random_order_aucs == second[0].random_order_aucs
    assert first[0].phase_randomized_aucs != second[0].phase_randomized_aucs
    assert len(set(first[0].random_order_aucs)) == len(set(first[0].phase_randomized_aucs)) == 3


def test_a_map_of_regions_is_held_against_random_regions_as_well_as_scattered_pixels() -> None:
    """A network that fears scattered pixels: it goes by how smooth its picture is."""

    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            rough = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2, 3))
            return torch.stack([-10 * rough, *[0 * rough] * 9], dim=1)

    net, flat = wrapped(Smooth()), torch.full((1, 3, 32, 32), 0.9)
    values = torch.linspace(0, 1, 32).view(-1, 1).expand(32, 32).contiguous()
    deletion, _ = sanity.deletion_and_insertion(net, flat, 0, values)
    assert min(deletion.phase_randomized_aucs) > 1.3 * max(deletion.random_order_aucs)


def test_curves_are_those_of_the_network_itself_though_its_batch_norms_are_folded(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    found = sanity.curves_in_random_order(resnet, pixels, 1, steps=3, n_orders=2)["mean colour"]
    order = torch.randperm(1024, generator=sanity.make_generator(0, "pixel order", 0))
    masked = pixels.clone().flatten(2)
    masked[:, :, order[:341]] = torch.tensor(resnet.mean).view(1, 3, 1)
    with torch.no_grad():
        assert float(found[0, 1]) == pytest.approx(float(resnet(masked.view_as(pixels)).softmax(1)[0, 1]), rel=1e-3)


def test_the_head_alone_begins_both_rows_and_is_drawn_once(resnet: ImageClassifier, pixels: Tensor) -> None:
    calls = []

    def counted(net: ImageClassifier, x: Tensor, target: int) -> SaliencyMap:
        calls.append(net)
        return gradient(net, x, target)

    found = sanity.run_randomization_test(resnet, pixels, 0, gradient(resnet, pixels, 0).values, counted)
    assert found.cascading[0] == found.independent[0]
    assert found.cascading[1] != found.independent[1]
    assert len(calls) == 2 * len(found.layer_groups) - 1


def test_guided_backpropagation_hardly_knows_the_class_and_the_check_says_so(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    check = sanity.run_randomization_test(convnet, pixels, 0, guided(convnet, pixels, 0).values, guided)
    plain = sanity.run_randomization_test(convnet, pixels, 0, gradient(convnet, pixels, 0).values, gradient)
    assert check.cascading[0] > plain.cascading[0] + 0.1


def test_equal_values_keep_the_pictures_order_and_a_coarse_map_is_stretched() -> None:
    values = torch.tensor([[1.0, 2.0, 1.0], [2.0, 1.0, 2.0]])
    assert sanity.pixel_order(values, (2, 3)).tolist() == [1, 3, 5, 0, 2, 4]
    assert sanity.pixel_order(torch.zeros(7, 7), (28, 28)).tolist() == list(range(784))
    corner = torch.zeros(2, 2)
    corner[0, 1] = 1
    assert sanity.pixel_order(corner, (8, 8))[0] in (6, 7)


def test_the_area_is_by_trapezoids() -> None:
    assert sanity.curve_auc(torch.tensor([1.0, 0.5, 0.0])) == 0.5
    assert sanity.curve_auc(torch.tensor([1.0, 0.0, 0.0])) == 0.25


def test_a_map_with_a_fault_is_not_checked(resnet: ImageClassifier, pixels: Tensor) -> None:
    with pytest.raises(LabError, match="the made map is constant: there is nothing to check"):
        sanity.run_sanity_checks(resnet, pixels, 0, as_map(torch.zeros(8, 8)), gradcam)


def test_a_whole_check_is_reproducible_says_itself_and_leaves_the_network_alone(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    before = copy.deepcopy(convnet.state_dict())
    named = next(c for c in range(10) if not gradcam(convnet, pixels, c).invalid_reason)
    first, again = (
        sanity.run_sanity_checks(convnet, pixels, named, gradcam(convnet, pixels, named), gradcam, seed=3)
        for _ in range(2)
    )
    assert first == again
    assert all(torch.equal(before[key], value) for key, value in convnet.state_dict().items())
    lines = sanity.describe_sanity(first)
    assert len(lines) == 3
    assert "all weights drawn anew" in lines[0]
    assert "deletion (mean colour) area" in lines[1]
    assert "of 5 random orders of pixels" in lines[2]


def made(area: float, cascading: tuple[float | None, ...] = (0.9, 0.3), chance: float = 0.2) -> sanity.SanityResult:
    curve = sanity.PerturbationCurve(
        "ground", (1.0, 0.0), area, (1.0, 0.0), (0.5, 0.6, 0.7), (1.0, 0.0), (0.1, 0.2, 0.65)
    )
    return sanity.SanityResult(
        "made", sanity.RandomizationTest(("head", "stem"), cascading, cascading, 0.4, chance), curve, curve
    )


def test_the_words_count_what_a_map_beats_in_the_direction_that_is_good() -> None:
    head, deletion, insertion = sanity.describe_sanity(made(0.62))
    assert "the head's weights drawn anew, the map is +0.90 alike; all weights drawn anew, +0.30, more than" in head
    assert "part of it is not about the weights" in head
    assert "low is good: it beats 1 of 3 random orders of pixels (mean 0.600" in deletion
    assert "and 1 of 3 random maps as smooth" in deletion
    assert "high is good: it beats 2 of 3 random orders of pixels" in insertion
    assert "and 2 of 3 random maps as smooth" in insertion
    assert "no more than random maps as smooth (0.35)" in sanity.describe_sanity(made(0.62, chance=0.35))[0]
    assert "nothing is left of the map" in sanity.describe_sanity(made(0.62, cascading=(0.9, None)))[0]


def test_what_outlives_the_weights_is_averaged_over_pictures_and_counted_against_each_ones_chance() -> None:
    several = [
        made(0.6).to_dict(),
        made(0.6, (0.7, -0.25)).to_dict(),
        made(0.6, (0.8, 0.1)).to_dict(),
        made(0.6, (None, None)).to_dict(),
    ]
    found = sanity.remaining_similarity(several)
    assert found["head"].mean == pytest.approx(0.8)
    assert found["all"].mean == pytest.approx(0.05)
    assert (found["above_chance"], found["without_values"], found["all"].count) == (2, 1, 3)
    assert (found["chance"], found["edges"].mean) == (pytest.approx(0.2), pytest.approx(0.4))


def test_gains_over_pictures_have_a_t_interval() -> None:
    curves = [
        {"area": 0.2, "random_areas": [0.5, 0.7], "smooth_areas": [0.2, 0.4]},
        {"area": 0.3, "random_areas": [0.5, 0.5], "smooth_areas": [0.5, 0.5]},
    ]
    found = sanity.auc_gains([{"deletion": curve, "insertion": curve} for curve in curves])
    assert found["deletion"].mean == pytest.approx(0.3)
    assert found["insertion"].mean == pytest.approx(-0.3)
    half = 12.706 * 0.1 * math.sqrt(2) / math.sqrt(2)
    assert found["deletion"].high - 0.3 == pytest.approx(half, rel=1e-3)
    smooth = sanity.auc_gains([{"deletion": curve, "insertion": curve} for curve in curves], "smooth")
    assert smooth["deletion"].mean == pytest.approx(0.15)
