"""The training loop: any network, on any picture set, in memory."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int64
from torch import Tensor, nn

from convolab.core.errors import LabError, require
from convolab.core.rng import isolated_rng, make_generator, seed_default_generator
from convolab.data.dataset import ImageDataset, Subset
from convolab.models.inference import eval_mode
from convolab.training.lr_schedule import ConstantLR, Schedule
from convolab.training.optim import SGD, Optimizer
from convolab.training.recipe import Metrics, Training
from convolab.training.transforms import Transform, apply_transforms, parse_transform, to_float01

EVAL_BATCH_SIZE = 256  # pictures; fixed, so that an evaluation has the same bits whatever the recipe


class Diverged(LabError):
    """The loss became NaN or infinite; the weights are those before that step."""


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch came to. Losses in nats, accuracies in [0, 1]; validation's are None where nothing was held back."""

    epoch: int  # counted from 1
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float  # at the epoch's last step
    train_seconds: float  # of training, without the validation
    images_per_second: float
    train_metrics: str  # "running" or "exact", see Metrics


@dataclass
class TrainingProgress:
    """Where a training stands, between two steps."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done of the next epoch
    loss_sum: float = 0.0  # the next epoch's sum over pictures so far, nats
    correct: int = 0
    num_images: int = 0
    seconds: float = 0.0
    history: list[EpochMetrics] = field(default_factory=list)


class Trainer:
    """A training in progress. It can be stopped after any step, and `state` taken then continues it bit for bit.

    Each picture of `train` is seen once an epoch, in an order that is a function of (seed, epoch); every random change is
    one of (seed, epoch, step). A last batch of a single picture is left out, because batch norm cannot normalise one.
    Raises LabError if the batch is larger than the set.
    """

    def __init__(
        self,
        net: nn.Module,
        train: ImageDataset | Subset,
        validation: ImageDataset | Subset | None = None,
        *,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        training: Training | None = None,
        transforms: Sequence[Transform | str] = (),
        metrics: Metrics | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.training = training or Training()
        require_full_batch(self.training.batch_size, train)
        self.train_set, self.validation_set = train, validation
        self.optimizer, self.schedule, self.metrics = optimizer or SGD(), schedule or ConstantLR(), metrics or Metrics()
        self.transforms = [parse_transform(entry) if isinstance(entry, str) else entry for entry in transforms]
        self.device = torch.device(device)
        self.bf16 = resolve_precision(self.training.precision, self.device) == "bf16"
        self.memory_format = preferred_memory_format(net)
        self.net = net.to(self.device, memory_format=self.memory_format)
        self.ema_net = copy.deepcopy(self.net).requires_grad_(False) if self.training.ema else None
        self.optimizer_state = self.optimizer.build(self.net.parameters())
        self.progress = TrainingProgress()

    @property
    def eval_net(self) -> nn.Module:
        """The network that validation judges and files keep: the averaged one if there is one."""
        return self.ema_net or self.net

    @property
    def steps_per_epoch(self) -> int:
        full_batches, remainder = divmod(len(self.train_set), self.training.batch_size)
        return full_batches + (remainder > 1)

    @property
    def best_epoch(self) -> EpochMetrics | None:
        """The first epoch of the highest validation accuracy; without validation the last epoch."""
        history = self.progress.history
        if self.validation_set is None:
            return history[-1] if history else None
        return max(history, key=lambda e: e.validation_accuracy, default=None)

    @property
    def is_finished(self) -> bool:
        """All epochs are done, the training accuracy is at its goal, or validation's has not improved for `patience` epochs."""
        history, training = self.progress.history, self.training
        goal_reached = training.goal is not None and bool(history) and history[-1].train_accuracy >= training.goal
        out_of_patience = (
            training.patience is not None
            and self.best_epoch is not None
            and len(history) - self.best_epoch.epoch >= training.patience
        )
        return len(history) >= training.epochs or goal_reached or out_of_patience

    def iter_epochs(
        self, *, on_step: Callable[["Trainer"], None] | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[EpochMetrics]:
        """Train, yielding each epoch as it ends; end early, between two steps, when `stop()` says so.

        Raises Diverged if the loss becomes NaN or infinite.
        """
        while not self.is_finished:
            with isolated_rng(self.device):  # not around the yield: what the caller draws is none of ours
                completed = self.train_epoch(on_step, stop)
            if not completed:
                return
            yield self.progress.history[-1]

    def train_epoch(self, on_step: Callable[["Trainer"], None] | None, stop: Callable[[], bool]) -> bool:
        """Train to the end of the epoch; False if stopped before."""
        progress = self.progress
        self.net.train()
        permutation = torch.randperm(
            len(self.train_set), generator=make_generator(self.training.seed, "order", progress.epoch)
        )
        while progress.step < self.steps_per_epoch:
            if stop():
                return False
            started = time.perf_counter()
            self.train_step(permutation)
            progress.seconds += time.perf_counter() - started
            if on_step:
                on_step(self)
        self.end_epoch()
        return True

    def lr_at(self, step: int) -> float:
        """The learning rate of a step of the present epoch."""
        return self.optimizer.lr * self.schedule.factor(
            self.progress.epoch + step / self.steps_per_epoch, self.training.epochs
        )

    def train_step(self, permutation: Int64[Tensor, "n"]) -> None:
        """One step of the optimiser."""
        progress, seed, size = self.progress, self.training.seed, self.training.batch_size
        epoch, step = progress.epoch, progress.step
        batch_indices = permutation[step * size : (step + 1) * size]
        images, labels = self.train_set.gather(batch_indices)  # [N, C, H, W] uint8, [N]
        rng = make_generator(seed, "augment", epoch, step)
        pixels, targets = apply_transforms(
            images.to(self.device), labels.to(self.device), self.transforms, len(self.train_set.classes), rng
        )
        pixels = pixels.contiguous(memory_format=self.memory_format)
        lr = self.lr_at(step)
        seed_default_generator(self.device, seed, "layers", epoch, step)  # for layers that draw, such as dropout

        with bf16_autocast(self.device, self.bf16):
            logits = self.net(pixels)  # [N, classes]
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.training.label_smoothing)  # nats
        loss_value = loss.item()
        self.check_finite_loss(loss_value, step, lr)
        self.optimizer_state.zero_grad()
        loss.backward()
        if self.training.clip_norm:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.training.clip_norm)
        self.optimizer_state.step(lr)
        if self.ema_net is not None:
            self.update_ema(epoch * self.steps_per_epoch + step)

        hard_labels = (
            targets.argmax(1) if targets.is_floating_point() else targets
        )  # of mixed pictures the larger share's
        progress.loss_sum += loss_value * len(batch_indices)
        progress.correct += int((logits.argmax(1) == hard_labels).sum())
        progress.num_images += len(batch_indices)
        progress.step += 1

    def check_finite_loss(self, loss: float, step: int, lr: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} in epoch {self.progress.epoch + 1}, step {step + 1}, at learning rate {lr:g}: lower optimizer.lr or set training.clip_norm"
            )

    @torch.no_grad()
    def update_ema(self, steps_done: int) -> None:
        """Move the averaged weights towards the present ones, faster in the first steps, when the average is of little."""
        decay = min(self.training.ema, (1 + steps_done) / (10 + steps_done))
        for ema, current in zip(self.ema_net.state_dict().values(), self.net.state_dict().values(), strict=True):
            if ema.is_floating_point():
                ema.lerp_(current, 1 - decay)
            else:
                ema.copy_(current)

    def end_epoch(self) -> None:
        """Judge the weights and write the epoch down."""
        progress, eval_pass = self.progress, self.metrics.train == "exact"
        loss, accuracy = progress.loss_sum / progress.num_images, progress.correct / progress.num_images
        if eval_pass:
            loss, accuracy = evaluate(self.eval_net, self.train_set).loss_and_accuracy
        validation = (
            evaluate(self.eval_net, self.validation_set).loss_and_accuracy
            if self.validation_set is not None
            else (None, None)
        )
        lr = self.lr_at(self.steps_per_epoch - 1)
        # The epoch's last step was judged by no loss of its own: by validation's, or else by the weights it left.
        finite_check = (
            validation[0]
            if self.validation_set is not None
            else sum(p.detach().abs().sum().item() for p in self.eval_net.parameters())
        )
        self.check_finite_loss(loss + finite_check, self.steps_per_epoch - 1, lr)
        images_per_second = progress.num_images / progress.seconds
        metrics = EpochMetrics(
            progress.epoch + 1,
            loss,
            accuracy,
            *validation,
            lr,
            progress.seconds,
            images_per_second,
            self.metrics.train,
        )
        self.progress = TrainingProgress(epoch=progress.epoch + 1, history=[*progress.history, metrics])

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that continues this training: tensors by name, and what JSON can hold."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        if self.ema_net is not None:
            tensors |= {f"averaged.{k}": v for k, v in self.ema_net.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.optimizer_state.state_dict().items()}
        return tensors, asdict(self.progress)

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Continue from a `state`. Raises LabError if it is of another network or optimiser."""
        by_prefix: dict[str, dict[str, Tensor]] = {"net": {}, "averaged": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            prefix, _, key = name.partition(".")
            by_prefix.setdefault(prefix, {})[key] = tensor
        try:
            self.net.load_state_dict(by_prefix["net"])
            if self.ema_net is not None:
                self.ema_net.load_state_dict(by_prefix["averaged"])
            self.optimizer_state.load_state_dict(by_prefix["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise LabError(f"this state is of another network or optimiser: {str(error).splitlines()[0]}") from error
        self.progress = TrainingProgress(
            **{**progress, "history": [EpochMetrics(**record) for record in progress["history"]]}
        )


def require_full_batch(batch_size: int, train: ImageDataset | Subset) -> None:
    """Raise LabError unless there is at least one batch of pictures to train on."""
    require(
        batch_size <= len(train),
        f"a batch of {batch_size} is larger than the {len(train)} training pictures: set training.batch_size to {len(train)} or less",
    )


@dataclass(frozen=True)
class Evaluation:
    """How a network does on a picture set."""

    loss: float  # mean, nats
    confusion: Int64[Tensor, "classes classes"]  # pictures of the row's class called the column's

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
def evaluate(net: nn.Module, dataset: ImageDataset | Subset) -> Evaluation:
    """Loss and confusion matrix of a network on a set, in fp32 and evaluation mode; the network's mode is put back.

    >>> pictures = ImageSet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), "two")
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)); _ = nn.init.zeros_(net[1].bias)
    >>> evaluate(net, pictures).accuracy, round(evaluate(net, pictures).loss, 4)
    (0.5, 0.6931)
    """
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    classes, memory_format, loss = len(dataset.classes), preferred_memory_format(net), 0.0
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    with eval_mode(net):
        for batch_indices in torch.arange(len(dataset)).split(EVAL_BATCH_SIZE):
            images, labels = dataset.gather(batch_indices)
            pixels = to_float01(images.to(device)).contiguous(memory_format=memory_format)
            logits = net(pixels).float().cpu()  # [N, classes]
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            confusion += torch.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)
    return Evaluation(loss / len(dataset), confusion.view(classes, classes))


def fit(
    net: nn.Module, train: ImageDataset | Subset, validation: ImageDataset | Subset | None = None, **settings: Any
) -> list[EpochMetrics]:
    """Train a network that takes [0, 1] pixels; `settings` are `Fit`'s. Returns its epochs; the net has the last weights.

    >>> from convolab.data.catalog import load
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> len(fit(net, load("digits").train, training=Training(epochs=2)))
    2
    """
    return list(Trainer(net, train, validation, **settings).iter_epochs())


def overfit_single_batch(
    net: nn.Module,
    train: ImageDataset | Subset,
    *,
    optimizer: Optimizer | None = None,
    batch_size: int = 128,
    seed: int = 0,
    max_steps: int = 2000,
) -> tuple[int | None, list[float]]:
    """Train on one batch until every picture of it is classified correctly: the check that a network can learn at all.

    No augmentation, no decay, a constant rate. Returns the steps it took (None: not within `limit`), and the accuracy
    before each step. Accuracy is that of the training pass itself, whose batch norm sees the very batch.
    """
    require_full_batch(batch_size, train)
    batch_indices = torch.randperm(len(train), generator=make_generator(seed, "order", 0))[:batch_size]
    images, labels = train.gather(batch_indices)
    memory_format = preferred_memory_format(net)
    pixels = to_float01(images).contiguous(memory_format=memory_format)
    net = net.to(memory_format=memory_format).train()
    optimizer_state = (optimizer or SGD()).model_copy(update={"weight_decay": 0.0}).build(net.parameters())
    accuracies: list[float] = []
    with isolated_rng():
        for step in range(max_steps + 1):
            seed_default_generator(pixels.device, seed, "layers", 0, step)
            logits = net(pixels)  # [N, classes]
            accuracies.append(float((logits.argmax(1) == labels).float().mean()))
            if accuracies[-1] == 1:
                return step, accuracies
            optimizer_state.zero_grad()
            F.cross_entropy(logits, labels).backward()
            optimizer_state.step()
    return None, accuracies


def preferred_memory_format(net: nn.Module) -> torch.memory_format:
    """How pictures should lie in memory: channels last is fastest for convolutions, and slower for a net without any."""
    return torch.channels_last if any(p.ndim == 4 for p in net.parameters()) else torch.contiguous_format


def bf16_autocast(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 arithmetic with fp32 weights inside, where asked for."""
    return torch.autocast(device.type, torch.bfloat16) if enabled else contextlib.nullcontext()


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` made definite: bf16 where the hardware computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and has_native_bf16() else "fp32"


def has_native_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices itself (AVX-512 BF16, AMX, or ARM's BF16)."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line.split(":")[1].split() for line in file if line.startswith(("flags", "Features"))), [])
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
