"""Scores of classes, beside scikit-learn's."""

import pytest
import torch
from sklearn.metrics import precision_recall_fscore_support

from convolab.training.class_scores import class_scores, macro_score

CLASSES = ("a", "b", "c", "d")


def labels_and_confusion(seed: int, missing: int | None = None) -> tuple[list[int], list[int], list[list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    true = torch.randint(4, (60,), generator=generator)
    predicted = torch.where(
        torch.rand(60, generator=generator) < 0.6, true, torch.randint(4, (60,), generator=generator)
    )
    if missing is not None:
        true = torch.where(true == missing, (missing + 1) % 4, true)
        predicted = torch.where(predicted == 3, 0, predicted)
    confusion = torch.bincount(true * 4 + predicted, minlength=16).view(4, 4)
    return true.tolist(), predicted.tolist(), confusion.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_precision_recall_and_f1_of_each_class_and_their_mean_are_scikit_learns(seed: int) -> None:
    true, predicted, confusion = labels_and_confusion(seed)
    scores = class_scores(confusion, CLASSES)
    expected = precision_recall_fscore_support(true, predicted, labels=range(4), zero_division=0)
    for index, name in enumerate(CLASSES):
        score = scores[name]
        assert (score.precision, score.recall, score.f1, score.images) == pytest.approx(
            [part[index] for part in expected]
        )
    macro = macro_score(scores)
    expected = precision_recall_fscore_support(true, predicted, labels=range(4), average="macro", zero_division=0)
    assert (macro.precision, macro.recall, macro.f1) == pytest.approx(expected[:3])


def test_a_class_without_images_has_no_recall_and_is_not_in_the_mean() -> None:
    true, predicted, confusion = labels_and_confusion(0, missing=1)
    scores = class_scores(confusion, CLASSES)
    assert (scores["b"].recall, scores["b"].f1, scores["b"].images) == (None, None, 0)
    assert scores["d"].precision is None
    macro = macro_score(scores)
    expected = precision_recall_fscore_support(true, predicted, labels=[0, 2, 3], average="macro", zero_division=0)
    assert (macro.precision, macro.recall, macro.f1) == pytest.approx(expected[:3])


def test_without_any_image_there_is_no_mean() -> None:
    assert macro_score(class_scores([[0, 0], [0, 0]], ("a", "b"))) is None
