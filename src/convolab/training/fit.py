"""Train a network that is built already, without a folder."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from convolab.core.environment import require_device
from convolab.core.errors import require
from convolab.core.types import Json
from convolab.data.dataset import ImageDataset, Subset
from convolab.training.augmentation import (
    AnyTransform,
)
from convolab.training.callbacks import TrainingCallbacks, shown_callbacks
from convolab.training.history import History
from convolab.training.losses import Loss
from convolab.training.lr_schedule import Schedule
from convolab.training.network_check import check_network
from convolab.training.optim import Optimizer
from convolab.training.own_metric import ValidationMetric
from convolab.training.recipe import Metrics, Recipe, Training
from convolab.training.sampling import Sampling
from convolab.training.trainer import Trainer


def fit(
    net: nn.Module,
    train: ImageDataset | Subset,
    validation: ImageDataset | Subset | None = None,
    *,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    # As text, which `help` shows: each of these is a union of many classes.
    optimizer: "Optimizer | str | Mapping[str, Json] | None" = None,
    schedule: "Schedule | str | Mapping[str, Json] | None" = None,
    loss: "Loss | Callable[[Tensor, Tensor], Tensor] | str | Mapping[str, Json] | None" = None,
    sampling: "Sampling | str | Mapping[str, Json] | None" = None,
    validation_metric: "ValidationMetric | str | Mapping[str, Json] | None" = None,
    training: Training | Mapping[str, Json] | None = None,
    transforms: "Sequence[AnyTransform | Callable[[Tensor], Tensor] | str]" = (),
    metrics: Metrics | None = None,
    device: torch.device | str = "cpu",
    callbacks: TrainingCallbacks | None = None,
) -> History:
    """Train a network that takes [0, 1] pixels, in place, without a folder, and show how it goes.

    Ctrl-C, or a notebook's stop button, stops after the present step.

    Args:
        net: takes pixels in [0, 1], float32 [N, C, H, W], and returns logits [N, classes]; trained in place.
        train: the images to train on.
        validation: the images to evaluate on after each epoch.
        epochs: how often each training image is used.
        lr: the learning rate.
        batch_size: images per step.
        seed: of the order of images, their transforms and the layers that draw.
        optimizer: by default SGD; its name, such as "adam", its section of a recipe as a dict, or an object, as the next four.
        schedule: of the learning rate, by default constant.
        loss: what is minimized, by default cross-entropy; or a function of logits [N, classes] and labels [N].
        sampling: which images an epoch has, by default each once.
        validation_metric: of your own, measured on the validation images after each epoch.
        training: epochs, batch size and all else that a recipe's section has.
        transforms: random transforms of the training images, in order: as in a recipe, such as "crop:4", or functions
            of pixels in [0, 1], float32 [N, C, H, W], that keep the shape.
        metrics: how the training loss and accuracy are measured.
        device: where the network and each batch go.
        callbacks: called while it trains, instead of the display; `Callbacks()` shows nothing.

    Returns:
        The metrics of each epoch, losses in nats and accuracies in [0, 1]; the network has the last epoch's weights.

    Raises LabError as `Trainer` does, and for a network that does not take the images or cannot be trained on such
    batches; Diverged if the loss becomes NaN or infinite.

    >>> from convolab.data.catalog import load
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> len(fit(net, load("digits").train, epochs=2, optimizer="adam"))
    2
    """
    require(
        isinstance(net, nn.Module) and isinstance(train, ImageDataset | Subset),
        "fit takes a network, then the images to train on: fit(net, splits.train, splits.test)",
    )
    check_arguments(
        optimizer=optimizer, schedule=schedule, sampling=sampling, validation_metric=validation_metric, training=training,
        transforms=transforms,
    )  # fmt: skip
    require_device(device)
    trainer = Trainer(
        net,
        train,
        validation,
        optimizer=chosen_optimizer(optimizer, lr),
        schedule=chosen_part("schedule", schedule),
        loss=chosen_part("loss", loss),
        sampling=chosen_part("sampling", sampling),
        validation_metric=chosen_part("validation_metric", validation_metric),
        training=chosen_training(training, {"epochs": epochs, "batch_size": batch_size, "seed": seed}),
        transforms=transforms,
        metrics=metrics,
        device=device,
    )
    history = History()
    try:
        with shown_callbacks(callbacks, trainer.training.epochs) as shown:
            for metrics_of_epoch in trainer.iter_epochs(shown):
                history.append(metrics_of_epoch)
                shown.on_epoch(metrics_of_epoch)
    except (RuntimeError, IndexError, ValueError, TypeError):
        check_network(
            trainer.net, train, trainer.training.batch_size, device
        )  # says it in one line, if it is the cause
        raise
    return history


def check_arguments(**given: object) -> None:
    """Raise LabError for an argument of `fit` that cannot be what it is called."""
    methods = {"optimizer": "build", "schedule": "rates", "sampling": "weights", "validation_metric": "build"}
    for name, value in given.items():
        shown = f"{name} = {reprlib.repr(value)}"
        if name in methods:
            is_part = callable(getattr(value, methods[name], None)) and not isinstance(value, type)
            is_part = is_part or isinstance(value, str | Mapping)
            require(value is None or is_part, f"{shown}: give one of convolab's, or a name such as 'file.py:Name'")
    training, transforms = given.get("training"), given.get("transforms", ())
    require(
        training is None or isinstance(training, Training | Mapping),
        f"training = {reprlib.repr(training)}: give epochs=10, or training=convolab.Training(epochs=10, batch_size=128)",
    )
    require(
        isinstance(transforms, Sequence) and not isinstance(transforms, str),
        f"transforms = {reprlib.repr(transforms)}: give a list of them",
    )


def chosen_part(section: str, given: object) -> Any:  # noqa: ANN401 (whatever the section holds)
    """A part that is given by its name, or as a dict, as in a recipe's section; all else as it is.

    >>> chosen_part("schedule", "cosine").name, chosen_part("optimizer", {"name": "adam", "lr": 0.1}).lr
    ('cosine', 0.1)
    """
    values = {"name": given} if isinstance(given, str) else given
    return getattr(Recipe.from_dict({section: values}), section) if isinstance(values, Mapping) else given


def chosen_optimizer(given: object, lr: float | None) -> Any:  # noqa: ANN401 (as above)
    """An optimizer as `chosen_part` takes it, with a learning rate if that is given."""
    part = chosen_part("optimizer", "sgd" if given is None and lr is not None else given)
    if lr is None:
        return part
    require(isinstance(part, BaseModel), f"lr = {lr}: give it to your optimizer")
    return chosen_part("optimizer", {**part.model_dump(exclude_none=True), "lr": lr})


def chosen_training(given: Training | Mapping[str, Json] | None, changes: Mapping[str, Json]) -> Training | None:
    """How long it is trained and so on, with the keys that are given one by one."""
    changes = {key: value for key, value in changes.items() if value is not None}
    if not changes and not isinstance(given, Mapping):
        return given
    values = given.model_dump(exclude_none=True) if isinstance(given, Training) else given or {}
    return Recipe.from_dict({"training": {**values, **changes}}).training
