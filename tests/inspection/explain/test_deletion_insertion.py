"""Deletion and insertion: the true map is better than its controls, its opposite is not; curves are the network's."""

import math

import pytest
import torch
from support.heatmaps import heat
from support.small_nets import wrapped
from torch import Tensor, nn

from convolab.core.rng import make_generator
from convolab.inspection.explain import deletion_insertion
from convolab.models.classifier import ImageClassifier


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


@pytest.mark.slow
def test_the_true_map_beats_random_order_and_its_opposite_does_worse(pixels: Tensor) -> None:
    net = wrapped(Square())
    areas = {}
    for name, values in (("true", truth()), ("false", -truth())):
        deletion, insertion = deletion_insertion.deletion_and_insertion(net, pixels, 0, values)
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


def test_the_baselines_are_named_and_are_what_they_say(pixels: Tensor) -> None:
    batches = []

    class Records(Square):
        def forward(self, x: Tensor) -> Tensor:
            batches.append(x)
            return super().forward(x)

    net = wrapped(Records())
    deletion, insertion = deletion_insertion.deletion_and_insertion(net, pixels, 0, truth(), steps=4, n_orders=1)
    assert (deletion.baseline, insertion.baseline) == ("mean color", "blur, sigma 0.714 px")
    # The image and ten images in random order, the same again, then ten more each of the map's.
    images = torch.cat(batches)
    image, deleted, inserted = images[12], images[12:17], images[22:27]
    assert float(deleted[-1].abs().max()) < 1e-6  # what normalisation makes zero
    torch.testing.assert_close(deleted[0], image)
    torch.testing.assert_close(inserted[-1], image)
    assert 0 < float((inserted[0] - image).abs().mean()) < float((deleted[-1] - image).abs().mean())


@pytest.mark.slow
def test_the_random_orders_of_an_image_are_the_same_for_all_its_maps_and_phase_randomized_maps_are_not(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    once = deletion_insertion.curves_in_random_order(convnet, pixels, 0, steps=4, n_orders=3, seed=2)
    first, second = (
        deletion_insertion.deletion_and_insertion(convnet, pixels, 0, heat(i, 8, 8), steps=4, n_orders=3, seed=2)
        for i in range(2)
    )
    given = deletion_insertion.deletion_and_insertion(
        convnet, pixels, 0, heat(0, 8, 8), steps=4, n_orders=3, seed=2, random_order_curves=once
    )
    assert given == first
    assert first[0].random_order_aucs == second[0].random_order_aucs
    assert first[0].phase_randomized_aucs != second[0].phase_randomized_aucs
    assert len(set(first[0].random_order_aucs)) == len(set(first[0].phase_randomized_aucs)) == 3


def test_a_map_of_regions_is_compared_with_random_regions_as_well_as_scattered_pixels() -> None:
    """A network that scattered pixels disturb: its logit is how smooth the image is."""

    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            rough = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2, 3))
            return torch.stack([-10 * rough, *[0 * rough] * 9], dim=1)

    net, flat = wrapped(Smooth()), torch.full((1, 3, 32, 32), 0.9)
    values = torch.linspace(0, 1, 32).view(-1, 1).expand(32, 32).contiguous()
    deletion, _ = deletion_insertion.deletion_and_insertion(net, flat, 0, values)
    assert min(deletion.phase_randomized_aucs) > 1.3 * max(deletion.random_order_aucs)


def test_curves_are_those_of_the_network_itself_though_its_batch_norms_are_folded(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    found = deletion_insertion.curves_in_random_order(resnet, pixels, 1, steps=3, n_orders=2)["mean color"]
    order = torch.randperm(1024, generator=make_generator(0, "pixel order", 0))
    masked = pixels.clone().flatten(2)
    masked[:, :, order[:341]] = torch.tensor(resnet.mean).view(1, 3, 1)
    with torch.no_grad():
        assert float(found[0, 1]) == pytest.approx(float(resnet(masked.view_as(pixels)).softmax(1)[0, 1]), rel=1e-3)


def test_equal_values_keep_the_images_order_and_a_coarse_map_is_resized() -> None:
    values = torch.tensor([[1.0, 2.0, 1.0], [2.0, 1.0, 2.0]])
    assert deletion_insertion.pixel_order(values, (2, 3)).tolist() == [1, 3, 5, 0, 2, 4]
    assert deletion_insertion.pixel_order(torch.zeros(7, 7), (28, 28)).tolist() == list(range(784))
    corner = torch.zeros(2, 2)
    corner[0, 1] = 1
    assert deletion_insertion.pixel_order(corner, (8, 8))[0] in (6, 7)


def test_the_area_is_by_trapezoids() -> None:
    assert deletion_insertion.curve_auc(torch.tensor([1.0, 0.5, 0.0])) == 0.5
    assert deletion_insertion.curve_auc(torch.tensor([1.0, 0.0, 0.0])) == 0.25


def test_gains_over_images_have_a_t_interval() -> None:
    curves = [
        {"auc": 0.2, "random_order_aucs": [0.5, 0.7], "phase_randomized_aucs": [0.2, 0.4]},
        {"auc": 0.3, "random_order_aucs": [0.5, 0.5], "phase_randomized_aucs": [0.5, 0.5]},
    ]
    found = deletion_insertion.auc_gains([{"deletion": curve, "insertion": curve} for curve in curves])
    assert found["deletion"].mean == pytest.approx(0.3)
    assert found["insertion"].mean == pytest.approx(-0.3)
    half = 12.706 * 0.1 * math.sqrt(2) / math.sqrt(2)
    assert found["deletion"].high - 0.3 == pytest.approx(half, rel=1e-3)
    smooth = deletion_insertion.auc_gains(
        [{"deletion": curve, "insertion": curve} for curve in curves], "phase_randomized"
    )
    assert smooth["deletion"].mean == pytest.approx(0.15)
