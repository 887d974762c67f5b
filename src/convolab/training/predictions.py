"""What a network says of every image of a dataset, and which it gets wrong."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from convolab.core.display import Displayable
from convolab.core.errors import require
from convolab.core.text import pluralize
from convolab.data.dataset import ImageDataset, Subset
from convolab.training.calibration import Calibration, measure_calibration
from convolab.training.evaluation import Evaluation, iter_logits

MAX_MISTAKES = 1000  # images of a gallery
MISTAKE_COLUMNS = ("rank", "image", "index", "true", "predicted", "probability", "true_probability")  # of a CSV file
TOP_K = 5  # the k of top-k accuracy


@dataclass(frozen=True)
class DatasetPredictions:
    """The logits of every image of a dataset, in its order."""

    logits: Float[Tensor, "n classes"]
    labels: Int64[Tensor, "n"]
    classes: tuple[str, ...]
    loss: float  # mean over the images, nats

    @property
    def evaluation(self) -> Evaluation:
        """The loss and the confusion matrix, the same as `evaluate` gives."""
        size = len(self.classes)
        cells = torch.bincount(self.labels * size + self.logits.argmax(1), minlength=size * size)
        return Evaluation(self.loss, cells.view(size, size), self.classes)

    @property
    def calibration(self) -> Calibration:
        """Whether the probabilities of the predicted classes are what they say."""
        predicted = self.logits.argmax(1)
        probabilities = self.logits.double().softmax(1)
        confidences = probabilities.gather(1, predicted.unsqueeze(1)).squeeze(1)
        return measure_calibration(confidences, predicted == self.labels)

    def top_k_accuracy(self, k: int) -> float:
        """The fraction of images whose true class is among the `k` of the largest logits; of equal ones the first."""
        own = self.logits.gather(1, self.labels.unsqueeze(1))
        is_before = torch.arange(len(self.classes)) < self.labels.unsqueeze(1)
        rank = (self.logits > own).sum(1) + ((self.logits == own) & is_before).sum(1)
        return float((rank < k).double().mean())


def predict_dataset(net: nn.Module, dataset: ImageDataset | Subset) -> DatasetPredictions:
    """The logits of a dataset's images, in the same batches and with the same loss as `evaluate`.

    Raises LabError for logits that are not finite.

    >>> images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    >>> dataset = ImageDataset(images, torch.tensor([0, 1]), ("a", "b"), "two")
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    >>> _ = nn.init.zeros_(net[1].bias)
    >>> predictions = predict_dataset(net, dataset)
    >>> predictions.evaluation.accuracy, predictions.top_k_accuracy(2)
    (0.5, 1.0)
    """
    all_logits, all_labels, loss = [], [], 0.0
    with torch.inference_mode():
        for logits, labels in iter_logits(net, dataset):
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            all_logits.append(logits)
            all_labels.append(labels)
    return DatasetPredictions(torch.cat(all_logits), torch.cat(all_labels), tuple(dataset.classes), loss / len(dataset))


@dataclass(frozen=True)
class Mistake:
    """An image that is classified as another class."""

    name: str  # its file's, or the images' name and its index among them
    index: int
    true: str
    predicted: str
    probability: float  # of the predicted class
    true_probability: float
    image: UInt8[Tensor, "c h w"]


@dataclass(frozen=True, repr=False)
class Mistakes(Displayable):
    """The images that a network gets wrong, the highest probability of a wrong class first."""

    entries: tuple[Mistake, ...]  # at most as many as were asked for
    num_wrong: int  # of all images
    count: int  # all images
    dataset: str

    def __repr__(self) -> str:
        shown = "" if len(self.entries) == self.num_wrong else f"; the first {len(self.entries)} are here"
        return f"Mistakes({self.num_wrong:,} of {pluralize(self.count, 'image')} of {self.dataset} are wrong{shown})"


def worst_mistakes(predictions: DatasetPredictions, dataset: ImageDataset | Subset, count: int = 60) -> Mistakes:
    """The `count` wrong predictions of the highest probability; of equal ones the first image.

    Where the dataset has no `names`, images are called by their index. Raises LabError for a number
    that is out of range.
    """
    require(1 <= count <= MAX_MISTAKES, f"a gallery of {count} images was asked for: give 1 to {MAX_MISTAKES}")
    predicted = predictions.logits.argmax(1)
    probabilities = predictions.logits.double().softmax(1)
    confidences = probabilities.gather(1, predicted.unsqueeze(1)).squeeze(1)
    wrong = (predicted != predictions.labels).nonzero().squeeze(1)
    worst = wrong[confidences[wrong].argsort(descending=True, stable=True)][:count]
    names = dataset.names
    entries = []
    for index in worst.tolist():
        true = int(predictions.labels[index])
        entries.append(
            Mistake(
                name=names[index] if names else f"image {index}",
                index=index,
                true=predictions.classes[true],
                predicted=predictions.classes[int(predicted[index])],
                probability=float(confidences[index]),
                true_probability=float(probabilities[index, true]),
                image=dataset[index][0].clone(),
            )
        )
    return Mistakes(tuple(entries), len(wrong), len(predicted), dataset.name)
