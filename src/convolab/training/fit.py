"""Train a network that is built already, without a folder."""

import reprlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from convolab.core.environment import require_device
from convolab.core.errors import require
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
from convolab.training.recipe import Metrics, Training
from convolab.training.sampling import Sampling
from convolab.training.trainer import Trainer


def fit(
    net: nn.Module,
    train: ImageDataset | Subset,
    validation: ImageDataset | Subset | None = None,
    *,
    optimizer: "Optimizer | None" = None,  # as text, which `help` shows: each of these is a union of many classes
    schedule: "Schedule | None" = None,
    loss: "Loss | Callable[[Tensor, Tensor], Tensor] | None" = None,
    sampling: "Sampling | None" = None,
    validation_metric: ValidationMetric | None = None,
    training: Training | None = None,
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
        optimizer: by default SGD.
        schedule: of the learning rate, by default constant.
        loss: what is minimized, by default cross-entropy; or a function of logits [N, classes] and labels [N].
        sampling: which images an epoch has, by default each once.
        validation_metric: of your own, measured on the validation images after each epoch.
        training: epochs, batch size, seed and so on.
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
    >>> len(fit(net, load("digits").train, training=Training(epochs=2)))
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
        optimizer=optimizer,
        schedule=schedule,
        loss=loss,
        sampling=sampling,
        validation_metric=validation_metric,
        training=training,
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
            advice = f"give one of convolab's, or train by a recipe with {name}.name = file.py:Name"
            require(value is None or is_part, f"{shown}: {advice}")
    training, transforms = given.get("training"), given.get("transforms", ())
    require(
        training is None or isinstance(training, Training),
        f"training = {reprlib.repr(training)}: give convolab.training.recipe.Training(epochs=10, batch_size=128)",
    )
    require(
        isinstance(transforms, Sequence) and not isinstance(transforms, str),
        f"transforms = {reprlib.repr(transforms)}: give a list of them",
    )
