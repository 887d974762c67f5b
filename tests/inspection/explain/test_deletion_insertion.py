"""Deletion and insertion: the true map is better than its controls and its negative is worse."""

import math

import pytest
import torch
from support.heatmaps import random_heatmap
from support.small_nets import classifier_of
from torch import Tensor, nn

from convolab.core.rng import make_generator
from convolab.inspection.explain import deletion_insertion
from convolab.models.classifier import ImageClassifier


class Square(nn.Module):
    """The logit of class 0 is the brightness of one square."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        logit = x[:, :, 8:16, 12:20].mean((1, 2, 3))
        return torch.stack([2 * logit, *[0 * logit] * 9], dim=1)


def true_map() -> Tensor:
    values = 0.01 * random_heatmap(1, 32, 32)
    values[8:16, 12:20] += 1
    return values


@pytest.mark.slow
def test_the_true_map_is_better_than_random_orders_and_its_negative_worse(pixels: Tensor) -> None:
    net = classifier_of(Square())
    auc_gains = {}
    for name, values in (("true", true_map()), ("false", -true_map())):
        deletion, insertion = deletion_insertion.deletion_and_insertion(net, pixels, 0, values)
        auc_gains[name] = (
            deletion.auc - sum(deletion.random_order_aucs) / 5,
            insertion.auc - sum(insertion.random_order_aucs) / 5,
        )
        probabilities = [curve.probabilities for curve in (deletion, insertion)]
        with torch.no_grad():
            assert (
                probabilities[0][0]
                == probabilities[1][-1]
                == pytest.approx(float(net(pixels).softmax(1)[0, 0]), abs=1e-6)
            )
        assert deletion.random_order_probabilities[0] == pytest.approx(deletion.probabilities[0])
        assert deletion.random_order_probabilities[-1] == pytest.approx(deletion.probabilities[-1])
    assert auc_gains["true"][0] < 0 < auc_gains["true"][1]
    assert auc_gains["false"][0] > 0 > auc_gains["false"][1]


def test_the_baselines_have_names_and_the_stated_pixels(pixels: Tensor) -> None:
    batches = []

    class RecordsInputs(Square):
        def forward(self, x: Tensor) -> Tensor:
            batches.append(x.detach())
            return super().forward(x)

    net = classifier_of(RecordsInputs())
    deletion, insertion = deletion_insertion.deletion_and_insertion(net, pixels, 0, true_map(), steps=4, n_orders=1)
    assert (deletion.baseline, insertion.baseline) == ("mean color", "blur, sigma 0.714 px")
    # Five deletions and five insertions in random order, then as many twice, for the map and for its control.
    images = torch.cat(batches)
    image, deleted, inserted = images[10], images[10:15], images[20:25]
    assert float(deleted[-1].abs().max()) < 1e-6  # the mean color, which normalization maps to zero
    torch.testing.assert_close(deleted[0], image)
    torch.testing.assert_close(inserted[-1], image)
    assert 0 < float((inserted[0] - image).abs().mean()) < float((deleted[-1] - image).abs().mean())


@pytest.mark.slow
def test_random_orders_are_the_same_for_all_maps_of_an_image_but_phase_randomized_maps_are_not(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    random_order_curves = deletion_insertion.curves_in_random_order(convnet, pixels, 0, steps=4, n_orders=3, seed=2)
    first, second = (
        deletion_insertion.deletion_and_insertion(
            convnet, pixels, 0, random_heatmap(i, 8, 8), steps=4, n_orders=3, seed=2
        )
        for i in range(2)
    )
    with_curves = deletion_insertion.deletion_and_insertion(
        convnet,
        pixels,
        0,
        random_heatmap(0, 8, 8),
        steps=4,
        n_orders=3,
        seed=2,
        random_order_curves=random_order_curves,
    )
    assert with_curves == first
    assert first[0].random_order_aucs == second[0].random_order_aucs
    assert first[0].phase_randomized_aucs != second[0].phase_randomized_aucs
    assert len(set(first[0].random_order_aucs)) == len(set(first[0].phase_randomized_aucs)) == 3


@pytest.mark.slow
def test_a_map_of_regions_is_compared_with_random_regions_as_well_as_scattered_pixels() -> None:
    """A network that is sensitive to scattered pixels: its logit is the smoothness of the image."""

    class MeasuresSmoothness(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            rough = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2, 3))
            return torch.stack([-10 * rough, *[0 * rough] * 9], dim=1)

    net, constant_image = classifier_of(MeasuresSmoothness()), torch.full((1, 3, 32, 32), 0.9)
    values = torch.linspace(0, 1, 32).view(-1, 1).expand(32, 32).contiguous()
    deletion, _ = deletion_insertion.deletion_and_insertion(net, constant_image, 0, values)
    assert min(deletion.phase_randomized_aucs) > 1.3 * max(deletion.random_order_aucs)


@pytest.mark.slow
def test_curves_are_those_of_the_network_although_its_batch_norms_are_folded(
    resnet: ImageClassifier, pixels: Tensor
) -> None:
    curves = deletion_insertion.curves_in_random_order(resnet, pixels, 1, steps=3, n_orders=2)["mean color"]
    order = torch.randperm(1024, generator=make_generator(0, "pixel order", 0))
    masked = pixels.clone().flatten(2)
    masked[:, :, order[:341]] = torch.tensor(resnet.mean).view(1, 3, 1)
    with torch.no_grad():
        assert float(curves[0, 1]) == pytest.approx(float(resnet(masked.view_as(pixels)).softmax(1)[0, 1]), rel=1e-3)


def test_pixels_of_equal_value_keep_their_order_and_a_coarse_map_is_resized() -> None:
    values = torch.tensor([[1.0, 2.0, 1.0], [2.0, 1.0, 2.0]])
    assert deletion_insertion.pixel_order(values, (2, 3)).tolist() == [1, 3, 5, 0, 2, 4]
    assert deletion_insertion.pixel_order(torch.zeros(7, 7), (28, 28)).tolist() == list(range(784))
    corner = torch.zeros(2, 2)
    corner[0, 1] = 1
    assert deletion_insertion.pixel_order(corner, (8, 8))[0] in (6, 7)


def test_the_area_under_a_curve_is_computed_by_trapezoids() -> None:
    assert deletion_insertion.curve_auc(torch.tensor([1.0, 0.5, 0.0])) == 0.5
    assert deletion_insertion.curve_auc(torch.tensor([1.0, 0.0, 0.0])) == 0.25


def test_gains_over_images_have_a_t_interval() -> None:
    curves = [
        {"auc": 0.2, "random_order_aucs": [0.5, 0.7], "phase_randomized_aucs": [0.2, 0.4]},
        {"auc": 0.3, "random_order_aucs": [0.5, 0.5], "phase_randomized_aucs": [0.5, 0.5]},
    ]
    gains = deletion_insertion.auc_gains([{"deletion": curve, "insertion": curve} for curve in curves])
    assert gains["deletion"].mean == pytest.approx(0.3)
    assert gains["insertion"].mean == pytest.approx(-0.3)
    half = 12.706 * 0.1 * math.sqrt(2) / math.sqrt(2)
    assert gains["deletion"].high - 0.3 == pytest.approx(half, rel=1e-3)
    smooth = deletion_insertion.auc_gains(
        [{"deletion": curve, "insertion": curve} for curve in curves], "phase_randomized"
    )
    assert smooth["deletion"].mean == pytest.approx(0.15)
