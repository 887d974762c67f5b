"""What the first layer and a few predictions of a run were after each epoch, to be looked at later: a log of a run."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from convolab.core.errors import LabError, require
from convolab.core.files import size_of_file, translate_path_errors
from convolab.core.types import Json
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import eval_mode
from convolab.training.checkpoint import read_tensors, write_tensors
from convolab.training.history import EpochMetrics
from convolab.training.run_records import RunId
from convolab.training.trainer import Trainer

FOLDER = "playback"  # in a run's folder
IMAGES_FILE = "images.safetensors"
FRAME_FILE = "epoch-{:06d}.safetensors"
NUM_IMAGES = 7  # the first of the validation set; of the training set, if there is none
MAX_FILTERS = 64
MAX_FILTER_VALUES = 65_536  # of an epoch, so that a thousand epochs take 130 MB at most
MAX_FRAMES = 1000  # that are read; of more every second, third ... is
MAX_FRAME_BYTES = 20_000_000


@dataclass(frozen=True)
class Playback:
    """A run's first-layer filters and its predictions for a few images, epoch by epoch.

    Args:
        epochs: those that were kept, E of them.
        filters: float32 [E, filters, C, height, width]; None where no layer takes the image's channels. Of a linear
            layer each unit's weights are one filter, as large as the image.
        images: uint8 [images, C, H, W].
        labels: their true classes, int64 [images].
        probabilities: float32 [E, images, classes].
        classes: their names.
    """

    epochs: list[int]
    filters: Tensor | None
    images: Tensor
    labels: Tensor
    probabilities: Tensor
    classes: list[str]


class PlaybackLogger:
    """A file for each epoch in RUN/playback, and one with the images. An epoch that is repeated has the same bytes."""

    id: str | None = None

    def __init__(self, folder: Path, run_id: RunId, trainer: Trainer) -> None:
        self.folder, self.run_id, self.trainer = folder / FOLDER, run_id.to_dict(), trainer
        self.folder.mkdir(exist_ok=True)
        dataset = trainer.train_set if trainer.validation_set is None else trainer.validation_set
        self.images, labels = dataset.gather(torch.arange(min(NUM_IMAGES, len(dataset))))
        about: dict[str, Json] = {**self.run_id, "classes": list(dataset.classes)}
        write_tensors(self.folder / IMAGES_FILE, {"images": self.images, "labels": labels}, about)

    def write(self, epoch: EpochMetrics) -> None:
        """Keep the epoch that has just ended; the weights of earlier ones are gone."""
        if epoch.epoch != self.trainer.progress.epoch:
            return
        net = cast("ImageClassifier", self.trainer.eval_net)  # `build_trainer` made it
        with eval_mode(net), torch.no_grad():
            probabilities = net(self.images.to(self.trainer.device).float() / 255).float().softmax(1)
        tensors = {"probabilities": probabilities}
        filters = first_filters(net.network, self.images.shape[1:])
        if filters is not None:
            tensors["filters"] = filters.half()
        write_tensors(self.folder / FRAME_FILE.format(epoch.epoch), tensors, self.run_id)

    def close(self) -> None: ...


def first_filters(net: nn.Module, shape: torch.Size) -> Tensor | None:
    """The filters of the first layer with weights, [filters, C, height, width], if it takes the image itself.

    >>> first_filters(nn.Conv2d(3, 16, 5), torch.Size([3, 32, 32])).shape
    torch.Size([16, 3, 5, 5])
    >>> first_filters(nn.Linear(64, 10), torch.Size([1, 8, 8])).shape
    torch.Size([10, 1, 8, 8])
    """
    layers = (layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    layer = next(layers, None)
    if isinstance(layer, nn.Conv2d) and layer.weight.shape[1] == shape[0]:
        filters = layer.weight.detach()
    elif isinstance(layer, nn.Linear) and layer.in_features == shape.numel():
        filters = layer.weight.detach().unflatten(1, tuple(shape))
    else:
        return None
    return filters[: max(1, min(MAX_FILTERS, MAX_FILTER_VALUES // filters[0].numel()))]


@translate_path_errors()
def read_playback(folder: Path, run_id: RunId) -> Playback:
    """What a run kept of its epochs.

    Raises LabError if it kept none, or if a file is damaged or another run's.
    """
    place = folder / FOLDER
    paths = sorted(path for path in place.glob("epoch-*.safetensors") if re.fullmatch(r"epoch-\d{6}", path.stem))
    require(
        bool(paths) and (place / IMAGES_FILE).is_file(),
        f'{folder} has no playback: train with --log playback, or log="playback" in Python',
    )
    paths = paths[:: math.ceil(len(paths) / MAX_FRAMES)]
    shown, about = read_own(place / IMAGES_FILE, run_id)
    frames = [read_own(path, run_id)[0] for path in paths]
    classes = about.get("classes")
    try:
        images, labels = shown["images"], shown["labels"]
        probabilities = torch.stack([frame["probabilities"] for frame in frames])
        has_filters = all("filters" in frame for frame in frames)
        filters = torch.stack([frame["filters"].float() for frame in frames]) if has_filters else None
        is_whole = (
            isinstance(classes, list)
            and images.dtype == torch.uint8 and images.dim() == 4 and images.shape[1] in (1, 3)
            and labels.dtype == torch.int64 and labels.shape == images.shape[:1]
            and probabilities.shape[1:] == (len(images), len(classes))
            and bool(((labels >= 0) & (labels < len(classes))).all())
            and (filters is None or (filters.dim() == 5 and filters.shape[2] == images.shape[1]))
        )  # fmt: skip
    except (KeyError, RuntimeError) as error:
        raise LabError(f"{place} is damaged: its files do not fit together") from error
    require(is_whole, f"{place} is damaged: its files do not fit together")
    epochs = [int(path.stem.removeprefix("epoch-")) for path in paths]
    names = [str(name) for name in cast("list[Json]", classes)]
    return Playback(epochs, filters, images, labels, probabilities.float(), names)


def read_own(path: Path, run_id: RunId) -> tuple[dict[str, Tensor], Mapping[str, Json]]:
    """A file's tensors and metadata. Raises LabError if it belongs to another run."""
    require(
        size_of_file(path) <= MAX_FRAME_BYTES,
        f"{path} has more than {MAX_FRAME_BYTES:,} bytes: it is too large to be read",
    )
    tensors, metadata = read_tensors(path)
    run_id.require_own(path, metadata)
    return tensors, metadata
