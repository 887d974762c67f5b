"""What the first layer and a few predictions of a run were after each epoch, to be looked at later: a log of a run."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from convolab.core.display import Displayable
from convolab.core.errors import LabError, require
from convolab.core.files import require_no_link, size_of_file, translate_path_errors, translate_write_errors
from convolab.core.text import pluralize
from convolab.core.types import Json
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import eval_mode
from convolab.training.checkpoint import read_tensors, write_tensors
from convolab.training.history import EpochMetrics
from convolab.training.run_records import RunId
from convolab.training.trainer import Trainer
from convolab.training.transforms import to_float01

FOLDER = "playback"  # in a run's folder
IMAGES_FILE = "images.safetensors"
FRAME_FILE = "epoch-{:06d}.safetensors"
NUM_IMAGES = 7  # the first of the validation set; of the training set, if there is none
MAX_FILTERS = 64
MAX_FILTER_VALUES = 65_536  # of an epoch, so that a thousand epochs take 130 MB at most
MAX_FRAMES = 1000  # that are read; of more every second, third ... is
MAX_FRAME_BYTES = 20_000_000
MAX_PLAYBACK_BYTES = 500_000_000  # of all epochs that are read
MAX_CLASS_CHARACTERS = 1_000_000  # of all names together
FRAME_NAME = re.compile(r"epoch-[0-9]{6}\.safetensors")


@dataclass(frozen=True, repr=False)
class Playback(Displayable):
    """A run's first-layer filters and its predictions for a few images, epoch by epoch.

    A notebook draws the last epoch; `save("playback.html")` writes a page that shows each of them. `rows()` has a row
    for each epoch and image, its number counted from 0.

    Attributes:
        epochs: those that were kept, E of them.
        filters: float32 [E, filters, C, height, width]; None where no layer takes the image's channels. Of a linear
            layer each unit's weights are one filter, as large as the image.
        images: uint8 [images, C, H, W].
        labels: their true classes, int64 [images].
        probabilities: float32 [E, images, classes].
        classes: their names.

    >>> images, labels = torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([1])
    >>> played = Playback([1, 2], None, images, labels, torch.tensor([[[0.6, 0.4]], [[0.1, 0.9]]]), ["cat", "dog"])
    >>> played, [row["predicted"] for row in played.rows()]
    (Playback(epochs 1 to 2, no filters, 1 image), ['cat', 'dog'])
    """

    epochs: list[int]
    filters: Tensor | None
    images: Tensor
    labels: Tensor
    probabilities: Tensor
    classes: list[str]

    def __repr__(self) -> str:
        shape = "no filters" if self.filters is None else f"{self.filters.shape[1]} filters"
        first, last = self.epochs[0], self.epochs[-1]
        epochs = f"epoch {first}" if first == last else f"epochs {first} to {last}"
        return f"Playback({epochs}, {shape}, {pluralize(len(self.images), 'image')})"


class PlaybackLogger:
    """A file for each epoch in RUN/playback, and one with the images. An epoch that is repeated has the same bytes."""

    id: str | None = None

    def __init__(self, folder: Path, run_id: RunId, trainer: Trainer) -> None:
        self.folder, self.run_id, self.trainer = folder / FOLDER, run_id.to_dict(), trainer
        with translate_write_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        dataset = trainer.train_set if trainer.validation_set is None else trainer.validation_set
        self.images, labels = dataset.gather(torch.arange(min(NUM_IMAGES, len(dataset))))
        about: dict[str, Json] = {**self.run_id, "classes": list(dataset.classes)}
        write_tensors(self.folder / IMAGES_FILE, {"images": self.images, "labels": labels}, about)

    def write(self, epoch: EpochMetrics) -> None:
        """Keep the epoch that has just ended; the weights of earlier ones, and of one whose next has begun, are gone."""
        if epoch.epoch != self.trainer.progress.epoch or self.trainer.progress.step:
            return
        net = cast("ImageClassifier", self.trainer.eval_net)  # `build_trainer` made it
        with eval_mode(net), torch.no_grad():
            probabilities = net(to_float01(self.images.to(self.trainer.device))).float().softmax(1)
        tensors = {"probabilities": probabilities}
        filters = first_filters(net.network, self.images.shape[1:])
        if filters is not None:
            tensors["filters"] = filters.half()
        write_tensors(self.folder / FRAME_FILE.format(epoch.epoch), tensors, {**self.run_id, "epoch": epoch.epoch})

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

    Raises LabError if it kept none, or if a file is damaged, a link, or another run's.
    """
    place = folder / FOLDER
    require_no_link(place)
    paths = sorted(path for path in place.glob("epoch-*.safetensors") if FRAME_NAME.fullmatch(path.name))
    require(
        bool(paths) and (place / IMAGES_FILE).is_file(),
        f'{folder} has no playback: train with --log playback, or log="playback" in Python',
    )
    paths = paths[:: -math.ceil(len(paths) / MAX_FRAMES)][::-1]  # the last one is among them
    num_bytes = sum(size_of_file(path) for path in paths)
    require(
        num_bytes <= MAX_PLAYBACK_BYTES,
        f"{place} has {num_bytes:,} bytes and may have {MAX_PLAYBACK_BYTES:,}: it is too large to be read",
    )
    shown, about = read_own(place / IMAGES_FILE, run_id)
    frames = [read_own(path, run_id) for path in paths]
    classes, epochs = about.get("classes"), [metadata.get("epoch") for _, metadata in frames]
    try:
        images, labels = shown["images"], shown["labels"]
        probabilities = torch.stack([frame["probabilities"] for frame, _ in frames])
        has_filters = all("filters" in frame for frame, _ in frames)
        filters = torch.stack([frame["filters"] for frame, _ in frames]) if has_filters else None
        is_whole = (
            isinstance(classes, list)
            and len("".join(map(str, classes))) <= MAX_CLASS_CHARACTERS
            and epochs == [int(path.stem.removeprefix("epoch-")) for path in paths]
            and images.dtype == torch.uint8 and images.dim() == 4 and images.shape[1] in (1, 3) and images.numel() > 0
            and len(images) <= NUM_IMAGES
            and labels.dtype == torch.int64 and labels.shape == images.shape[:1]
            and probabilities.dtype == torch.float32
            and probabilities.shape[1:] == (len(images), len(classes))
            and bool(((probabilities >= 0) & (probabilities <= 1 + 1e-5)).all())
            and bool(((labels >= 0) & (labels < len(classes))).all())
            and (filters is None or are_filters(filters, images.shape[1]))
        )  # fmt: skip
    except (KeyError, RuntimeError) as error:
        raise LabError(f"{place} is damaged: its files do not fit together") from error
    require(is_whole, f"{place} is damaged: its files do not fit together")
    names = [str(name) for name in cast("list[Json]", classes)]
    return Playback(
        cast("list[int]", epochs), None if filters is None else filters.float(), images, labels, probabilities, names
    )


def are_filters(filters: Tensor, channels: int) -> bool:
    """Whether a tensor holds what `first_filters` gives, of several epochs; weights of a run are finite."""
    return (
        filters.dtype == torch.float16
        and filters.dim() == 5
        and filters.shape[2] == channels
        and 0 < filters.shape[1] <= MAX_FILTERS
        and filters.numel() > 0
        and (filters.shape[1] == 1 or filters[0].numel() <= MAX_FILTER_VALUES)
        and bool(filters.isfinite().all())
    )


def read_own(path: Path, run_id: RunId) -> tuple[dict[str, Tensor], Mapping[str, Json]]:
    """A file's tensors and metadata. Raises LabError if it is a link, too large, or belongs to another run."""
    require(not path.is_symlink(), f"{path} is a link: a run's own files are none")
    require(
        size_of_file(path) <= MAX_FRAME_BYTES,
        f"{path} has more than {MAX_FRAME_BYTES:,} bytes: it is too large to be read",
    )
    tensors, metadata = read_tensors(path)
    run_id.require_own(path, metadata)
    return tensors, metadata
