"""DatasetPredictions of a dataset, and the worst of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor, nn

import convolab
from convolab.core.errors import LabError
from convolab.data.dataset import ImageDataset
from convolab.training.evaluation import evaluate
from convolab.training.predictions import DatasetPredictions, predict_dataset, worst_mistakes


def made_predictions(seed: int = 0, count: int = 50, classes: int = 8) -> tuple[DatasetPredictions, ImageDataset]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    images = torch.randint(256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    names = tuple(f"class {index}" for index in range(classes))
    logits = torch.randn(count, classes, generator=generator)
    return DatasetPredictions(logits, labels, names, 1.0), ImageDataset(images, labels, names, "made")


class Pixels(nn.Module):
    """Logits that are the first pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :8] * 5


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_accuracy_is_scikit_learns(k: int) -> None:
    predictions, _ = made_predictions()
    expected = top_k_accuracy_score(predictions.labels, predictions.logits.numpy(), k=k, labels=range(8))
    assert predictions.top_k_accuracy(k) == pytest.approx(expected)


def test_a_network_that_says_the_same_of_all_classes_is_not_right_in_its_top_five() -> None:
    flat = DatasetPredictions(torch.zeros(8, 8), torch.arange(8), tuple("abcdefgh"), 1.0)
    assert flat.top_k_accuracy(5) == 5 / 8


def test_predictions_have_the_very_loss_and_confusion_of_an_evaluation() -> None:
    _, dataset = made_predictions(count=600)
    predictions, evaluation = predict_dataset(Pixels(), dataset), evaluate(Pixels(), dataset)
    assert predictions.loss == evaluation.loss
    assert torch.equal(predictions.evaluation.confusion, evaluation.confusion)


def test_the_worst_mistakes_are_sorted_by_the_probability_of_the_wrong_class() -> None:
    predictions, dataset = made_predictions()
    mistakes = worst_mistakes(predictions, dataset, 10)
    wrong = [
        (-float(p.max()), i)
        for i, p in enumerate(predictions.logits.double().softmax(1))
        if int(p.argmax()) != predictions.labels[i]
    ]
    assert [(-m.probability, m.index) for m in mistakes.entries] == sorted(wrong)[:10]
    assert (mistakes.num_wrong, mistakes.count, len(mistakes.entries)) == (len(wrong), 50, 10)
    for mistake in mistakes.entries:
        assert mistake.true == f"class {int(predictions.labels[mistake.index])}" != mistake.predicted
        assert mistake.name == f"image {mistake.index}"
        assert torch.equal(mistake.image, dataset.images[mistake.index])


def test_a_dataset_that_has_names_gives_them_to_its_mistakes() -> None:
    predictions, dataset = made_predictions()
    dataset = replace(dataset, names=tuple(f"{index:02}.png" for index in range(50)))
    assert all(m.name == f"{m.index:02}.png" for m in worst_mistakes(predictions, dataset).entries)


@pytest.mark.parametrize("count", [0, 1001])
def test_a_gallery_is_bounded(count: int) -> None:
    with pytest.raises(LabError, match=f"a gallery of {count} images was asked for: give 1 to 1000"):
        worst_mistakes(*made_predictions(), count)


@pytest.mark.slow
def test_the_mistakes_of_a_run_are_those_of_its_test_which_stays_as_it_is(tmp_path: Path) -> None:
    run = convolab.train("shallow_net", epochs=1, out=tmp_path / "run")
    with pytest.raises(LabError, match="was not tested yet"):
        run.mistakes()
    record = run.test()
    before = (run.folder / "test.json").read_bytes()
    mistakes = run.mistakes(5)
    assert mistakes.num_wrong == record.count - record.correct
    assert mistakes.count == record.count
    assert (run.folder / "test.json").read_bytes() == before
    assert convolab.Run(run.folder).test_result == record
