"""Losses: closed forms, and torch's own."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from convolab.core.errors import LabError
from convolab.core.rng import make_generator
from convolab.training.losses import CrossEntropy, Focal, resolve_class_weights
from convolab.training.sampling import Balanced, Shuffled, Weighted, draw_order

LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])
LOGITS = torch.randn(10, 3, generator=make_generator("logits"))


def test_plain_cross_entropy_has_the_bits_of_torchs() -> None:
    loss = CrossEntropy().build(LABELS, 3, 0.1)
    assert torch.equal(loss(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1))


def test_class_weights_are_torchs_and_balanced_ones_are_scikit_learns() -> None:
    weights = torch.tensor([1.0, 2.0, 5.0])
    loss = CrossEntropy(class_weights=(1.0, 2.0, 5.0)).build(LABELS, 3)
    torch.testing.assert_close(loss(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, weights))
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=LABELS.tolist())
    ours = resolve_class_weights("balanced", LABELS, 3)
    assert ours is not None
    assert ours.tolist() == pytest.approx(theirs)


def test_balanced_weights_stay_finite_for_a_class_without_images() -> None:
    weights = resolve_class_weights("balanced", torch.tensor([0, 0, 1]), 3)
    assert weights is not None
    assert bool(weights.isfinite().all())


def test_the_focal_loss_is_the_mean_of_its_formula() -> None:
    probabilities = LOGITS.softmax(1)[torch.arange(10), LABELS].tolist()
    expected = sum(-((1 - p) ** 2) * math.log(p) for p in probabilities) / 10
    assert Focal(gamma=2.0).build(LABELS, 3)(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(Focal(gamma=0.0).build(LABELS, 3)(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_focal_loss_takes_probabilities_and_has_a_finite_gradient_where_a_class_is_certain(gamma: float) -> None:
    loss = Focal(gamma=gamma).build(LABELS, 3)
    torch.testing.assert_close(loss(LOGITS, F.one_hot(LABELS, 3).float()), loss(LOGITS, LABELS))
    for certain in ([[200.0, 0.0, -200.0]], [[0.0, -1e4, -1e4]]):  # the second has a probability of exactly 1
        logits = torch.tensor(certain, requires_grad=True)
        loss(logits, torch.tensor([0])).backward()
        assert logits.grad is not None
        assert bool(logits.grad.isfinite().all())


def test_the_focal_loss_with_class_weights_is_the_mean_of_its_formula() -> None:
    weights = torch.tensor([1.0, 2.0, 5.0])
    loss = Focal(gamma=1.5, class_weights=(1.0, 2.0, 5.0)).build(LABELS, 3)
    p = LOGITS.softmax(1)
    terms = weights * (1 - p) ** 1.5 * -p.log()  # [images, classes]
    torch.testing.assert_close(loss(LOGITS, LABELS), terms[torch.arange(10), LABELS].mean())
    mixed = torch.rand(10, 3, generator=make_generator("mixed")).softmax(1)
    torch.testing.assert_close(loss(LOGITS, mixed), (mixed * terms).sum(1).mean())


def test_a_balanced_epoch_has_each_class_equally_often() -> None:
    order = draw_order(10_000, Balanced().weights(LABELS.repeat(1000), 3), make_generator(0))
    counts = LABELS.repeat(1000)[order].bincount()
    assert counts.tolist() == pytest.approx([10_000 / 3] * 3, abs=4 * math.sqrt(10_000 * 2 / 9))


def test_a_weighted_epoch_has_images_in_proportion_to_their_class() -> None:
    weights = Weighted(class_weights=(0.0, 1.0, 3.0)).weights(LABELS.repeat(1000), 3)
    counts = LABELS.repeat(1000)[draw_order(10_000, weights, make_generator(0))].bincount(minlength=3)
    assert counts[0] == 0
    assert counts[1].item() == pytest.approx(5_000, abs=4 * math.sqrt(10_000 / 4))


def test_a_shuffled_epoch_has_each_image_once() -> None:
    weights = Shuffled().weights(LABELS, 3)
    assert draw_order(10, weights, make_generator(0)).sort().values.tolist() == list(range(10))


def test_a_negative_gamma_is_refused() -> None:
    with pytest.raises(LabError, match=r"^Focal: gamma = -1\.0: give at least 0$"):
        Focal(gamma=-1.0)
    with pytest.raises(LabError, match="takes no label smoothing"):
        Focal().build(LABELS, 3, 0.1)
