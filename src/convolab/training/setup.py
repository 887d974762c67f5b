"""What a recipe becomes before its first step: the images it trains on, its network, its trainer."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convolab.core.errors import require
from convolab.core.free_cores import spare_busy_cores
from convolab.core.rng import derive_seed, lent_generators, make_generator
from convolab.core.types import MessageCallback
from convolab.data.dataset import ImageDataset, Subset, channel_mean_std
from convolab.data.splits import DatasetSplits, stratified_split
from convolab.models import registry
from convolab.models.classifier import ImageClassifier
from convolab.models.own_code import OwnCode, own_code_errors
from convolab.training.augmentation import parse_transform
from convolab.training.callbacks import TrainingCallbacks
from convolab.training.exactness import require_exact
from convolab.training.network_check import check_network, require_rebuildable, require_storable
from convolab.training.parts import own_transform_name, with_code
from convolab.training.recipe import Recipe
from convolab.training.trainer import Trainer
from convolab.training.transfer import PretrainedRecord, set_up_transfer
from convolab.training.transforms import to_float01
from convolab.training.unsaved_state import FirstNetwork, copy_network

if TYPE_CHECKING:
    from convolab.training.run import Run

RESOLVED = {"fp32": "fp32", "bf16": "bf16_forced"}  # what an earlier start came to holds on any machine
INITIAL_VALUES = 5_000 * 3 * 32 * 32  # of the pixels that a network may compute initial weights from


def sparing_threads(device: str, callbacks: TrainingCallbacks) -> AbstractContextManager[None]:
    """See `spare_busy_cores`; on another device the threads are left as they are."""
    return spare_busy_cores(callbacks.on_message) if device == "cpu" else nullcontext()


def splits_of_run(
    run: "Run",
    splits: DatasetSplits | None,
    on_message: MessageCallback | None,
    data_dir: Path | str | None = None,
) -> DatasetSplits:
    """A run's images: those that are given, else read again. Raises LabError if it was not trained on them."""
    if splits is None:
        return run.load_splits(data_dir, on_message=on_message)
    run.require_same_data(splits)
    return splits


def build_trainer(
    recipe: Recipe,
    splits: DatasetSplits,
    device: str,
    precision: str | None = None,
    codes: Mapping[str, OwnCode] | None = None,
    pretrained: PretrainedRecord | None = None,
) -> Trainer:
    """A recipe's training before its first step.

    Args:
        recipe: what to train.
        splits: the dataset that the recipe names.
        device: "cpu", "cuda" or "mps".
        precision: "fp32" or "bf16" where an earlier start has resolved the recipe's "auto"; by default the recipe's.
        codes: the copies to use of the code of somebody's own parts, by the part's name; by default what their names
            stand for in the current folder.
        pretrained: of a run whose state holds all tensors, so that its weights are not read again.

    Raises LabError if the recipe cannot be trained on these images, its code is not trusted, or a part of it could not
    be resumed bit for bit.
    """
    codes = codes or {}
    code_of_name = {name: codes[part] for part, name in recipe.own_parts.items() if part in codes}
    train, validation = train_validation_split(recipe, splits)
    require(
        validation is not None or recipe.validation_metric is None,
        "validation_metric needs validation images: set data.validation above 0",
    )
    code = codes.get("model")
    network = build_network(recipe, train, code)
    check_network(network, train, recipe.training.batch_size)
    require_storable(network)
    if registry.is_own_factory(registry.resolve_factory(recipe.model.name, code)):
        other_seed = recipe.with_seed(recipe.training.seed + 1)
        require_rebuildable(network, build_network(other_seed, train, code), train, recipe.training.batch_size)
    transfer = set_up_transfer(recipe.model, network, train.classes, train.shape[0], pretrained)
    mean, std = channel_mean_std(train)
    if (record := transfer.record) and record["mean"] and record["std"]:
        mean, std = record["mean"], record["std"]
    _, height, width = train.shape
    net = ImageClassifier(network, mean=mean, std=std, input_size=(height, width), classes=train.classes)
    if isinstance(network, InitializedFromImages) and transfer.record is None:
        must_repeat = "model" in recipe.own_parts and recipe.training.exact is not False
        initialize_from_images(net, train, recipe.training.seed, must_repeat=must_repeat)
    trainer = Trainer(
        net,
        train,
        validation,
        optimizer=with_code(recipe.optimizer, codes.get("optimizer")),
        schedule=with_code(recipe.schedule, codes.get("schedule")),
        loss=with_code(recipe.loss, codes.get("loss")),
        sampling=with_code(recipe.sampling, codes.get("sampling")),
        validation_metric=with_code(recipe.validation_metric, codes.get("validation_metric")),
        training=recipe.training.model_copy(update={"precision": RESOLVED[precision]} if precision else {}),
        transforms=[
            parse_transform(entry, code_of_name.get(own_transform_name(entry))) for entry in recipe.data.augment
        ],
        metrics=recipe.metrics,
        device=device,
        frozen=transfer.frozen,
        lr_factors=transfer.lr_factors,
        runs_own_code=bool(recipe.own_parts),
    )
    trainer.pretrained = transfer.record
    if recipe.training.exact is not False:
        require_exact(trainer)
    return trainer


def train_validation_split(
    recipe: Recipe, splits: DatasetSplits
) -> tuple[ImageDataset | Subset, ImageDataset | Subset | None]:
    """What a recipe trains on and what it validates on.

    Both are stratified subsets of the training images, fixed by the recipe's seed; no test image is among them. A
    dataset that has validation images of its own is validated on all of these. Raises LabError if the recipe does not
    fit the dataset.
    """
    train: ImageDataset | Subset = splits.train
    limit, seed = recipe.data.limit, recipe.training.seed
    if limit is not None:
        require(limit <= len(train), f"data.limit is {limit}, but {train.name} has {len(train)} training images")
        if limit < len(train):
            train = stratified_subsample(train, limit, seed)
    if splits.validation is not None:
        default = type(recipe.data).model_fields["validation"].default
        require(
            recipe.data.validation == default,
            f"data.validation is {recipe.data.validation}, but {train.name} has {len(splits.validation)} validation "
            "images of its own, which are used: leave data.validation out",
        )
        return train, splits.validation
    if recipe.data.validation == 0:
        return train, None
    require(
        limit is None or train.labels.bincount().max() > 1,
        f"data.limit = {limit}: no class has two images, so none can be held out: raise data.limit or set data.validation=0",
    )
    return stratified_split(train, recipe.data.validation, seed)


def stratified_subsample(dataset: ImageDataset | Subset, count: int, seed: int) -> Subset:
    """Exactly `count` of the images, each class within one of its proportion (largest-remainder rounding).

    >>> images = torch.zeros(10, 1, 8, 8, dtype=torch.uint8)
    >>> pets = ImageDataset(images, torch.arange(10) % 2, ("cat", "dog"), "pets")
    >>> stratified_subsample(pets, 4, seed=0).labels.bincount().tolist()
    [2, 2]
    """
    labels = dataset.labels
    indices_by_class = [(labels == label).nonzero().squeeze(1) for label in range(len(dataset.classes))]
    quotas = [divmod(len(indices) * count, len(labels)) for indices in indices_by_class]
    num_missing = count - sum(quotient for quotient, _ in quotas)
    rounded_up = sorted(range(len(indices_by_class)), key=lambda label: -quotas[label][1])[:num_missing]
    chosen = []
    for label, indices in enumerate(indices_by_class):
        permutation = torch.randperm(len(indices), generator=make_generator(seed, "limit", label))
        chosen.append(indices[permutation[: quotas[label][0] + (label in rounded_up)]])
    return dataset.subset(torch.cat(chosen).sort().values)


@runtime_checkable
class InitializedFromImages(Protocol):
    """A network that computes initial weights from images of the training set, such as `whitened_convnet`."""

    def initialize_from_images(self, pixels: Float[Tensor, "n c h w"]) -> None: ...


def initialize_from_images(net: ImageClassifier, train: ImageDataset | Subset, seed: int, *, must_repeat: bool) -> None:
    """Let a network compute its initial weights from some training images, normalized as it will get them.

    With `must_repeat` it is tried on a copy first, if Python can copy it. Raises LabError if the network then holds something that its weights'
    file could not, if they are not finite, or others the second time.
    """
    network = net.network
    assert isinstance(network, InitializedFromImages)
    count = max(1, INITIAL_VALUES // math.prod(train.shape))
    order = torch.randperm(len(train), generator=make_generator(seed, "initialize"))[:count]
    pixels = net.normalize(to_float01(train.gather(order)[0]))
    before = {name: (tensor.shape, tensor.dtype) for name, tensor in network.state_dict().items()}
    first = FirstNetwork(network)
    method = "the network's initialize_from_images"

    def initialize(network: nn.Module) -> dict[str, Tensor]:
        assert isinstance(network, InitializedFromImages)
        with own_code_errors(f"{method} failed"), lent_generators("cpu", derive_seed(seed, "initialize")):
            network.initialize_from_images(pixels.clone())
        return network.state_dict()

    copied = copy_network(network) if must_repeat else None
    tried = {} if copied is None else initialize(copied)
    after = initialize(network)
    require(
        {name: (tensor.shape, tensor.dtype) for name, tensor in after.items()} == before,
        f"{method} changes the layers or the type of their weights: it may change values only",
    )
    changed = first.changed(network)
    require(
        not changed,
        f"{method} changes {', '.join(changed)}, which no file of weights holds: keep it in a buffer (register_buffer)",
    )
    broken = [name for name, tensor in after.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    require(not broken, f"{method} leaves NaN or infinite numbers in {', '.join(broken[:3])}")
    require(
        all(torch.equal(after[name], tensor) for name, tensor in tried.items()),
        f"{method} gives other weights for the same images each time: draw from torch's, NumPy's or Python's own generator, or "
        "set training.exact = false",
    )


def build_network(recipe: Recipe, train: ImageDataset | Subset, code: OwnCode | None = None) -> torch.nn.Module:
    """The recipe's network with its initial weights. Raises LabError if it cannot be built for such images."""
    return registry.build_by_name(
        recipe.model.name,
        train.shape,
        len(train.classes),
        recipe.model.options,
        seed=recipe.training.seed,
        code=code,
    )
