"""A network's loss and confusion matrix on a dataset."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from convolab.core.display import Displayable
from convolab.core.text import format_percent
from convolab.data.dataset import ImageDataset, Subset
from convolab.models.inference import eval_mode, require_finite_logits
from convolab.training.transforms import to_float01

EVAL_BATCH_SIZE = 256  # images; fixed, so that an evaluation has the same bits whatever the recipe
EVAL_BATCH_VALUES = 2**23  # of all images of a batch: of images over 100 x 100 in color there are fewer


@dataclass(frozen=True, repr=False)
class Evaluation(Displayable):
    """A network's loss and confusion matrix on a dataset."""

    loss: float  # mean over the images, nats
    confusion: Int64[Tensor, "classes classes"]  # counts; rows: true class, columns: predicted class
    classes: tuple[str, ...]
    metric: float | None = None  # of a person's own, if one was asked for

    def __repr__(self) -> str:
        correct = f"{self.correct:,} of {self.count:,} correct, {format_percent(self.accuracy)}"
        return f"Evaluation({correct}; loss {self.loss:.4f} nats)"

    @property
    def correct(self) -> int:
        return int(self.confusion.diagonal().sum())

    @property
    def count(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return self.correct / self.count

    @property
    def loss_and_accuracy(self) -> tuple[float, float]:
        return self.loss, self.accuracy


@torch.inference_mode()
def evaluate(
    net: nn.Module,
    dataset: ImageDataset | Subset,
    *,
    allow_nonfinite: bool = False,
    metric: Callable[[Tensor, Tensor], float] | None = None,
) -> Evaluation:
    """Loss and confusion matrix of a network on a dataset, in fp32 and evaluation mode; the network's mode is restored.

    Args:
        net: takes pixels in [0, 1], float32 [N, C, H, W], and returns logits [N, classes]; on any device.
        dataset: its images are taken as they are, in batches of `EVAL_BATCH_SIZE`, fewer of large ones.
        allow_nonfinite: count logits that are NaN or infinite too: a caller that does so looks at the loss.
        metric: computed too, of all logits [N, classes] and labels [N], if the logits are finite.

    Returns:
        An `Evaluation`: the mean loss in nats, and confusion counts [classes, classes], one row for each true class.

    Raises LabError for logits that are not finite, unless they are allowed.

    >>> images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    >>> dataset = ImageDataset(images, torch.tensor([0, 1]), ("a", "b"), "two")
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    >>> _ = nn.init.zeros_(net[1].bias)
    >>> evaluate(net, dataset).accuracy, round(evaluate(net, dataset).loss, 4)
    (0.5, 0.6931)
    """
    num_classes = len(dataset.classes)
    loss, all_logits = 0.0, []
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64)
    for logits, labels in iter_logits(net, dataset, allow_nonfinite=allow_nonfinite):
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        confusion += torch.bincount(labels * num_classes + logits.argmax(1), minlength=num_classes * num_classes)
        if metric is not None:
            all_logits.append(logits)
    value = None
    if metric is not None and math.isfinite(loss):
        value = metric(torch.cat(all_logits), dataset.labels)
    return Evaluation(loss / len(dataset), confusion.view(num_classes, num_classes), tuple(dataset.classes), value)


def iter_logits(
    net: nn.Module, dataset: ImageDataset | Subset, *, allow_nonfinite: bool = False
) -> Iterator[tuple[Float[Tensor, "n classes"], Int64[Tensor, "n"]]]:
    """The logits of a dataset's images and their labels, batch by batch, as `evaluate` takes them."""
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    memory_format = preferred_memory_format(net)
    batch_size = max(1, min(EVAL_BATCH_SIZE, EVAL_BATCH_VALUES // math.prod(dataset.shape)))
    with eval_mode(net):
        for batch_indices in torch.arange(len(dataset)).split(batch_size):
            images, labels = dataset.gather(batch_indices)
            pixels = to_float01(images.to(device)).contiguous(memory_format=memory_format)
            logits = net(pixels).float().cpu()  # [N, classes]
            if not allow_nonfinite:
                require_finite_logits(logits, "these images")
            yield logits, labels


def preferred_memory_format(net: nn.Module) -> torch.memory_format:
    """The memory format of images: channels last is fastest for convolutions, and slower for a net without any."""
    return torch.channels_last if any(p.ndim == 4 for p in net.parameters()) else torch.contiguous_format
