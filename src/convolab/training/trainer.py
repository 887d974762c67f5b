"""The training loop: any network, on any dataset, in memory."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn

from convolab.core.errors import LabError, require, translate_memory_errors
from convolab.core.records import validate_record
from convolab.core.rng import (
    isolated_rng,
    lent_generators,
    make_generator,
    reproducible_kernels,
    seed_all_generators,
    seed_default_generator,
)
from convolab.core.types import Json
from convolab.data.dataset import ImageDataset, Subset
from convolab.models.own_code import own_code_errors
from convolab.training.augmentation import (
    AnyTransform,
    apply_transforms,
    as_any_transform,
    check_first_size,
    check_transforms,
    mixes_labels,
)
from convolab.training.callbacks import NO_CALLBACKS, TrainingCallbacks
from convolab.training.ema import update_ema
from convolab.training.evaluation import evaluate, preferred_memory_format
from convolab.training.history import MAX_METRIC, EpochMetrics, best_epoch_of, epochs_without_better
from convolab.training.losses import Loss, build_loss, check_loss
from convolab.training.lr_schedule import ConstantLR, Schedule
from convolab.training.network_check import check_network
from convolab.training.optim import SGD, Optimizer, name_rates
from convolab.training.own_metric import ValidationMetric
from convolab.training.precision import arithmetic, measure_bf16_gain, resolve_precision
from convolab.training.progress import TrainingProgress
from convolab.training.recipe import Metrics, Training
from convolab.training.sampling import Sampling, check_weights, draw_order
from convolab.training.torch_optim import TorchOptimizerState
from convolab.training.torch_schedule import OtherSchedule
from convolab.training.transfer import PretrainedRecord
from convolab.training.transforms import BatchOrigin, to_float01
from convolab.training.unsaved_state import FirstNetwork, copy_network

MEMORY_ADVICE = "set training.batch_size lower, or give a smaller network"


class Diverged(LabError):
    """The loss or a weight became NaN or infinite; the weights are those before the step if its loss did, else those after it."""


class Trainer:
    """A training in progress. It can be stopped after any step, and a `snapshot` taken then continues it bit for bit.

    Each image of `train` is used once per epoch, in an order that is a function of (seed, epoch); every random
    transform is one of (seed, epoch, step). A last batch of a single image is left out: batch norm cannot normalize it.

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
        frozen: layers of `net` that stay in evaluation mode.
        lr_factors: of the learning rate, for parameters of `net` where it is not 1.
        runs_own_code: whether a part is code of a person's own: what it raises is then a LabError, and the generators of
            NumPy and Python are seeded for it.

    Raises LabError if the batch is larger than the set, or is one image and the network cannot be trained on one; and
    for a loss, a sampling or a transform that does not fit the images.
    """

    def __init__(
        self,
        net: nn.Module,
        train: ImageDataset | Subset,
        validation: ImageDataset | Subset | None = None,
        *,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        loss: Loss | Callable[[Tensor, Tensor], Tensor] | None = None,
        sampling: Sampling | None = None,
        validation_metric: ValidationMetric | None = None,
        training: Training | None = None,
        transforms: Sequence[AnyTransform | Callable[[Tensor], Tensor] | str] = (),
        metrics: Metrics | None = None,
        device: torch.device | str = "cpu",
        frozen: Sequence[nn.Module] = (),
        lr_factors: Mapping[nn.Parameter, float] | None = None,
        runs_own_code: bool = False,
    ) -> None:
        self.training = training or Training()
        self.runs_own_code = runs_own_code
        require_full_batch(self.training.batch_size, train)
        require(
            validation is not None or self.training.patience is None,
            "training.patience needs validation images, whose accuracy it waits for: set data.validation above 0",
        )
        self.train_set, self.validation_set = train, validation
        self.optimizer = optimizer or SGD()
        self.schedule = schedule or ConstantLR()
        self.metrics = metrics or Metrics()
        self.transforms = [as_any_transform(entry) for entry in transforms]
        num_classes, labels = len(train.classes), train.labels
        check_transforms(self.transforms, *self.first_batch(), num_classes)
        self.image_weights = None if sampling is None else sampling.weights(labels, num_classes)
        check_weights(self.image_weights)
        self.validation_metric = None if validation_metric is None else validation_metric.build(num_classes)
        self.loss = loss
        self.loss_function = build_loss(loss, labels, num_classes, self.training.label_smoothing)
        if loss is not None:
            check_loss(self.loss_function, self.first_batch()[1], num_classes, mixes=mixes_labels(self.transforms))
        self.device = torch.device(device)
        check_first_size(net, self.transforms, train.shape)
        self.memory_format = preferred_memory_format(net)
        self.net = net.to(self.device).to(memory_format=self.memory_format)
        precision = resolve_precision(self.training.precision, self.device, self.measure_bf16_gain)
        self.bf16 = precision == "bf16"
        if self.training.batch_size == 1:  # batch norm, for one, may not accept it
            check_network(self.net, train, 1, self.device)
        self.ema_net = self.copied_net("training.ema").requires_grad_(False) if self.training.ema else None
        self.optimizer_state = self.optimizer.build(self.net.parameters(), lr_factors or {})
        self.rates = self.schedule.rates(self.optimizer.lr, self.steps_per_epoch, self.training.epochs)
        self.rates_again = None  # of a person's own schedule, made a second time: they must be the same
        if isinstance(self.schedule, OtherSchedule) and runs_own_code and self.training.exact is not False:
            self.rates_again = self.schedule.rates(self.optimizer.lr, self.steps_per_epoch, self.training.epochs)
        self.progress = TrainingProgress()
        self.first_network = FirstNetwork(self.net) if runs_own_code else None
        self.frozen = tuple(frozen)
        self.pretrained: PretrainedRecord | None = None  # what the network started from, for the run's summary

    def first_batch(self) -> tuple[Tensor, Tensor]:
        """The first images and labels of the training set, as many as a batch has: for checks before the training."""
        return self.train_set.gather(torch.arange(self.training.batch_size))

    def measure_bf16_gain(self) -> float:
        """How many times as fast as in fp32 this network is in bf16, with the first batch."""
        pixels = to_float01(self.first_batch()[0].to(self.device)).contiguous(memory_format=self.memory_format)
        return measure_bf16_gain(self.copied_net("training.precision"), pixels, self.training.winograd)

    def copied_net(self, key: str) -> nn.Module:
        """A copy of the network. Raises LabError, naming the key that asks for it, if Python cannot copy it."""
        copied = copy_network(self.net)
        require(copied is not None, f"{key} needs a copy of the network, and Python cannot copy it: leave the key out")
        assert copied is not None
        return copied

    def iter_epochs(self, callbacks: TrainingCallbacks = NO_CALLBACKS) -> Iterator[EpochMetrics]:
        """Train, yielding each epoch as it ends; end early, between two steps, when `callbacks.should_stop()` says so.

        Raises Diverged if the loss becomes NaN or infinite.
        """
        while not self.is_finished:
            with reproducible_kernels(self.device), translate_memory_errors(MEMORY_ADVICE):
                self.net.train()
                for layer in self.frozen:
                    layer.eval()
                generator = make_generator(self.training.seed, "order", self.progress.epoch)
                order = draw_order(len(self.train_set), self.image_weights, generator)
                while self.progress.step < self.steps_per_epoch:
                    if callbacks.should_stop():
                        return
                    with self.lend_generators():
                        self.train_step(order)
                    callbacks.on_step(self)
                with self.lend_generators():
                    self.end_epoch()
            yield self.progress.history[-1]

    def train_step(self, order: Int64[Tensor, "n"]) -> None:
        """Take the next batch of the epoch's order, change the weights by it, and count it."""
        started = time.perf_counter()
        progress, training = self.progress, self.training
        epoch, step, seed = progress.epoch, progress.step, training.seed
        batch_indices = order[step * training.batch_size : (step + 1) * training.batch_size]
        images, labels = self.train_set.gather(batch_indices)  # uint8 [N, C, H, W], int64 [N]
        pixels, targets = apply_transforms(
            images.to(self.device),
            labels.to(self.device),
            self.transforms,
            len(self.train_set.classes),
            make_generator(seed, "augment", epoch, step),
            BatchOrigin(batch_indices, len(self.train_set), epoch, self.fraction_done, seed),
        )
        pixels = pixels.contiguous(memory_format=self.memory_format)
        lr = self.lr_at(step)
        if self.runs_own_code:  # for layers such as dropout
            seed_all_generators(self.device, seed, "layers", epoch, step)
        else:
            seed_default_generator(self.device, seed, "layers", epoch, step)
        with arithmetic(self.device, self.bf16, training.winograd), self.own_errors("the network"):
            logits = self.net(pixels).float()  # [N, classes]
        loss = self.loss_function(logits, targets)
        loss_value = loss.item()
        self.check_finite("the loss", loss_value, step, lr)
        self.optimizer_state.zero_grad()
        with self.own_errors(f"the gradient{' with training.winograd' * bool(training.winograd)}"):
            loss.backward()
        self.check_own_gradient()
        if training.clip_norm:
            nn.utils.clip_grad_norm_(self.net.parameters(), training.clip_norm)
        self.optimizer_state.step(lr)
        self.check_own_optimizer(step, lr)
        if self.ema_net is not None:
            update_ema(self.ema_net, self.net, training.ema, epoch * self.steps_per_epoch + step)
        hard_labels = targets.argmax(1) if targets.is_floating_point() else targets  # of mixed images
        if self.loss is not None or training.label_smoothing:  # losses are compared in nats
            loss_value = F.cross_entropy(logits.detach(), targets).item()
        progress.loss_sum += loss_value * len(images)
        progress.correct += int((logits.argmax(1) == hard_labels).sum())
        progress.num_images += len(images)
        progress.step += 1
        progress.seconds += time.perf_counter() - started

    def lend_generators(self) -> AbstractContextManager[None]:
        """The global generators for the layers, and for code of a person's own, until the end of a block.

        Not around a callback or a yield: what the caller draws is none of ours, and another thread may train meanwhile.
        """
        return lent_generators(self.device, 0) if self.runs_own_code else isolated_rng(self.device)

    def end_epoch(self) -> None:
        """Evaluate the weights and record the epoch."""
        progress = self.progress
        loss, accuracy = progress.loss_sum / progress.num_images, progress.correct / progress.num_images
        if self.metrics.train == "eval_pass":
            loss, accuracy = evaluate(self.eval_net, self.train_set, allow_nonfinite=True).loss_and_accuracy
        lr = self.lr_at(self.steps_per_epoch - 1)
        self.check_finite("the loss", loss, self.steps_per_epoch - 1, lr)
        # No loss follows the epoch's last step: it is checked by validation's, or by the weights that it left.
        validation_loss, validation_accuracy, validation_metric = None, None, None
        if self.validation_set is not None:
            with self.own_errors("the evaluation"):
                validation = evaluate(
                    self.eval_net, self.validation_set, allow_nonfinite=True, metric=self.validation_metric
                )
            (validation_loss, validation_accuracy), validation_metric = validation.loss_and_accuracy, validation.metric
            self.check_finite("the validation loss", validation_loss, self.steps_per_epoch - 1, lr)
        else:
            size = sum(p.detach().abs().sum().item() for p in self.eval_net.parameters())
            self.check_finite("the sum of all weights", size, self.steps_per_epoch - 1, lr)
        metrics = EpochMetrics(
            epoch=progress.epoch + 1,
            train_loss=loss,
            train_accuracy=accuracy,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            validation_metric=validation_metric,
            learning_rate=lr,
            train_seconds=progress.seconds,
            images_per_second=progress.num_images / progress.seconds,
            train_metrics=self.metrics.train,
        )
        self.progress = TrainingProgress(epoch=progress.epoch + 1, history=[*progress.history, metrics])

    @property
    def eval_net(self) -> nn.Module:
        """The network that is evaluated and saved: the averaged one if there is one."""
        return self.ema_net or self.net

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.images_per_epoch / self.training.batch_size)

    @property
    def images_per_epoch(self) -> int:
        """All images, but for one that would be a batch by itself."""
        return len(self.train_set) - (len(self.train_set) % self.training.batch_size == 1)

    @property
    def best_epoch(self) -> EpochMetrics | None:
        """See `best_epoch_of`."""
        return best_epoch_of(self.progress.history)

    @property
    def is_finished(self) -> bool:
        """All epochs are done, the training accuracy is at its goal, or `patience` epochs were not more accurate."""
        history, training = self.progress.history, self.training
        best = self.best_epoch
        goal_reached = training.goal is not None and best is not None and history[-1].train_accuracy >= training.goal
        out_of_patience = training.patience is not None and epochs_without_better(history) >= training.patience
        return len(history) >= training.epochs or goal_reached or out_of_patience

    @property
    def fraction_done(self) -> float:
        """The part of all steps that are done, in [0, 1]."""
        return (self.progress.epoch + self.progress.step / self.steps_per_epoch) / self.training.epochs

    def lr_at(self, step: int) -> float:
        """The learning rate of a step of the present epoch. Raises LabError for a schedule that gives two of them."""
        now = self.progress.epoch, step, self.progress.history
        lr = self.rates(*now)
        if self.rates_again is not None and (again := self.rates_again(*now)) != lr:
            raise LabError(
                f"the schedule '{self.schedule.name}' gives {lr:g} and then {again:g} for step {step + 1} of epoch "
                f"{self.progress.epoch + 1}, so a stopped run could not be resumed bit for bit: let it depend on the time "
                "alone, or set training.exact = false"
            )
        return lr

    def own_errors(self, what: str) -> AbstractContextManager[None]:
        """Around what runs code of a person's own: what it raises is a LabError in one line."""
        if not self.runs_own_code:
            return nullcontext()
        return own_code_errors(f"{what} failed in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}")

    def check_own_gradient(self) -> None:
        """Raise LabError if code of a person's own gave no parameter a gradient: its loss is not one of the logits."""
        require(
            not self.runs_own_code or any(p.grad is not None for p in self.net.parameters()),
            f"no parameter has a gradient in epoch {self.progress.epoch + 1}, step {self.progress.step + 1}: compute the logits "
            "from the parameters, and the loss from the logits",
        )

    def check_own_optimizer(self, step: int, lr: float) -> None:
        """Raise Diverged, naming it, if an optimizer of a person's own leaves weights that are NaN or infinite."""
        state = self.optimizer_state
        if not isinstance(state, TorchOptimizerState) or not state.is_own:
            return
        weights, gradients = state.is_finite
        if not weights:
            culprit = f"{state.what} left weights that are" if gradients else "the gradient became"
            raise Diverged(
                f"{culprit} NaN or infinite in epoch {self.progress.epoch + 1}, step {step + 1}, at learning rate {lr:g}: "
                f"{'look into its step, ' if gradients else ''}lower {name_rates(self.optimizer)} or set training.clip_norm"
            )

    def check_finite(self, what: str, value: float, step: int, lr: float) -> None:
        if not abs(value) <= MAX_METRIC:  # NaN is not
            raise Diverged(
                f"{what} became {value} in epoch {self.progress.epoch + 1}, step {step + 1}, at learning rate {lr:g}: "
                f"lower {name_rates(self.optimizer)} or set training.clip_norm"
            )

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        """All that continues this training: tensors by name, and the progress as JSON can hold it."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        if self.ema_net is not None:
            tensors |= {f"averaged.{name}": tensor for name, tensor in self.ema_net.state_dict().items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in self.optimizer_state.state_dict().items()}
        progress = {f.name: getattr(self.progress, f.name) for f in fields(TrainingProgress)}
        progress["history"] = [epoch.to_record() for epoch in self.progress.history]
        if isinstance(self.optimizer_state, TorchOptimizerState):
            progress["optimizer"] = self.optimizer_state.extra_state()
        return tensors, progress

    def restore(self, tensors: Mapping[str, Tensor], progress: Mapping[str, Json]) -> None:
        """Continue from a `snapshot`; keys of the progress that it does not know are ignored.

        Raises LabError if it belongs to another network or optimizer, or contradicts itself; nothing is changed by the latter.
        """
        counters = {f.name: progress[f.name] for f in fields(TrainingProgress) if f.name in progress}
        restored = validate_record(TrainingProgress, counters, "this state")
        restored.require_possible(
            self.training.epochs, self.steps_per_epoch, self.training.batch_size, self.images_per_epoch
        )
        by_prefix: dict[str, dict[str, Tensor]] = {"net": {}, "averaged": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            prefix, _, key = name.partition(".")
            by_prefix.setdefault(prefix, {})[key] = tensor
        try:
            self.net.load_state_dict(by_prefix["net"])
            if self.ema_net is not None:
                self.ema_net.load_state_dict(by_prefix["averaged"])
            if isinstance(self.optimizer_state, TorchOptimizerState):
                self.optimizer_state.load_state_dict(by_prefix["optimizer"], progress.get("optimizer"))
            else:
                self.optimizer_state.load_state_dict(by_prefix["optimizer"])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(map(str.strip, str(error).splitlines()))[:200]  # torch names the tensors on further lines
            raise LabError(f"this state belongs to another network or optimizer: {reason}") from error
        self.progress = restored


def require_full_batch(batch_size: int, train: ImageDataset | Subset) -> None:
    """Raise LabError unless there is at least one batch of images to train on."""
    require(
        batch_size <= len(train),
        f"a batch of {batch_size} is larger than the {len(train)} training images: "
        f"set training.batch_size (--batch-size) to {len(train)} or less",
    )
