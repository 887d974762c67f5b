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

from convolab.core.errors import LabError, need
from convolab.core.rng import generator, own_global_generators, seed_global
from convolab.data.dataset import ImageSet, Part
from convolab.training.lr_schedule import Constant, Schedule
from convolab.training.optim import Optimizer, Sgd
from convolab.training.recipe import Metrics, Training
from convolab.training.transforms import Augmentation, augment, parse, to_unit

EVALUATION_BATCH = 256  # pictures; fixed, so that an evaluation has the same bits whatever the recipe


class Diverged(LabError):
    """The loss became NaN or infinite; the weights are those before that step."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. Losses in nats, accuracies in [0, 1]; validation's are None where nothing was held back."""

    epoch: int  # counted from 1
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float  # at the epoch's last step
    seconds: float  # of training, without the validation
    images_per_second: float
    train_metrics: str  # "running" or "exact", see Metrics


@dataclass
class Progress:
    """Where a training stands, between two steps."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done of the next epoch
    loss: float = 0.0  # the next epoch's sum over pictures so far, nats
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)


class Fit:
    """A training in progress. It can be stopped after any step, and `state` taken then continues it bit for bit.

    Each picture of `train` is seen once an epoch, in an order that is a function of (seed, epoch); every random change is
    one of (seed, epoch, step). A last batch of a single picture is left out, because batch norm cannot normalise one.
    Raises LabError if the batch is larger than the set.
    """

    def __init__(
        self,
        net: nn.Module,
        train: ImageSet | Part,
        validation: ImageSet | Part | None = None,
        *,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        training: Training | None = None,
        augmentations: Sequence[Augmentation | str] = (),
        metrics: Metrics | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.training = training or Training()
        need_whole_batch(self.training.batch_size, train)
        self.train, self.validation = train, validation
        self.optimizer, self.schedule, self.metrics = optimizer or Sgd(), schedule or Constant(), metrics or Metrics()
        self.augmentations = [parse(entry) if isinstance(entry, str) else entry for entry in augmentations]
        self.device = torch.device(device)
        self.bf16 = resolve_precision(self.training.precision, self.device) == "bf16"
        self.layout = layout_for(net)
        self.net = net.to(self.device, memory_format=self.layout)
        self.averaged = copy.deepcopy(self.net).requires_grad_(False) if self.training.ema else None
        self.stepper = self.optimizer.build(self.net.parameters())
        self.progress = Progress()

    @property
    def judged(self) -> nn.Module:
        """The network that validation judges and files keep: the averaged one if there is one."""
        return self.averaged or self.net

    @property
    def steps_per_epoch(self) -> int:
        whole, rest = divmod(len(self.train), self.training.batch_size)
        return whole + (rest > 1)

    @property
    def best(self) -> Epoch | None:
        """The first epoch of the highest validation accuracy; without validation the last epoch."""
        history = self.progress.history
        if self.validation is None:
            return history[-1] if history else None
        return max(history, key=lambda e: e.validation_accuracy, default=None)

    @property
    def finished(self) -> bool:
        """All epochs are done, the training accuracy is at its goal, or validation's has not improved for `patience` epochs."""
        history, training = self.progress.history, self.training
        at_goal = training.goal is not None and bool(history) and history[-1].train_accuracy >= training.goal
        tired = (
            training.patience is not None
            and self.best is not None
            and len(history) - self.best.epoch >= training.patience
        )
        return len(history) >= training.epochs or at_goal or tired

    def epochs(
        self, *, on_step: Callable[["Fit"], None] | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[Epoch]:
        """Train, yielding each epoch as it ends; end early, between two steps, when `stop()` says so.

        Raises Diverged if the loss becomes NaN or infinite.
        """
        while not self.finished:
            with own_global_generators(self.device):  # not around the yield: what the caller draws is none of ours
                whole = self.run_epoch(on_step, stop)
            if not whole:
                return
            yield self.progress.history[-1]

    def run_epoch(self, on_step: Callable[["Fit"], None] | None, stop: Callable[[], bool]) -> bool:
        """Train to the end of the epoch; False if stopped before."""
        progress = self.progress
        self.net.train()
        order = torch.randperm(len(self.train), generator=generator(self.training.seed, "order", progress.epoch))
        while progress.step < self.steps_per_epoch:
            if stop():
                return False
            started = time.perf_counter()
            self.step(order)
            progress.seconds += time.perf_counter() - started
            if on_step:
                on_step(self)
        self.end_epoch()
        return True

    def rate(self, step: int) -> float:
        """The learning rate of a step of the present epoch."""
        return self.optimizer.lr * self.schedule.factor(
            self.progress.epoch + step / self.steps_per_epoch, self.training.epochs
        )

    def step(self, order: Int64[Tensor, "n"]) -> None:
        """One step of the optimiser."""
        progress, seed, size = self.progress, self.training.seed, self.training.batch_size
        epoch, step = progress.epoch, progress.step
        here = order[step * size : (step + 1) * size]
        images, labels = self.train.take(here)  # [N, C, H, W] uint8, [N]
        draw = generator(seed, "augment", epoch, step)
        pixels, targets = augment(
            images.to(self.device), labels.to(self.device), self.augmentations, len(self.train.classes), draw
        )
        pixels = pixels.contiguous(memory_format=self.layout)
        rate = self.rate(step)
        seed_global(self.device, seed, "layers", epoch, step)  # for layers that draw, such as dropout

        with autocast(self.device, self.bf16):
            logits = self.net(pixels)  # [N, classes]
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.training.label_smoothing)  # nats
        value = loss.item()
        self.need_finite(value, step, rate)
        self.stepper.forget_gradients()
        loss.backward()
        if self.training.clip_norm:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.training.clip_norm)
        self.stepper.step(rate)
        if self.averaged is not None:
            self.average(epoch * self.steps_per_epoch + step)

        aims = targets.argmax(1) if targets.is_floating_point() else targets  # of mixed pictures the larger share's
        progress.loss += value * len(here)
        progress.correct += int((logits.argmax(1) == aims).sum())
        progress.seen += len(here)
        progress.step += 1

    def need_finite(self, loss: float, step: int, rate: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} in epoch {self.progress.epoch + 1}, step {step + 1}, at learning rate {rate:g}: lower optimizer.lr or set training.clip_norm"
            )

    @torch.no_grad()
    def average(self, steps: int) -> None:
        """Move the averaged weights towards the present ones, faster in the first steps, when the average is of little."""
        decay = min(self.training.ema, (1 + steps) / (10 + steps))
        for averaged, present in zip(self.averaged.state_dict().values(), self.net.state_dict().values(), strict=True):
            if averaged.is_floating_point():
                averaged.lerp_(present, 1 - decay)
            else:
                averaged.copy_(present)

    def end_epoch(self) -> None:
        """Judge the weights and write the epoch down."""
        progress, exact = self.progress, self.metrics.train == "exact"
        loss, accuracy = progress.loss / progress.seen, progress.correct / progress.seen
        if exact:
            loss, accuracy = evaluate(self.judged, self.train).summary
        validation = evaluate(self.judged, self.validation).summary if self.validation is not None else (None, None)
        rate = self.rate(self.steps_per_epoch - 1)
        # The epoch's last step was judged by no loss of its own: by validation's, or else by the weights it left.
        judgement = (
            validation[0]
            if self.validation is not None
            else sum(p.detach().abs().sum().item() for p in self.judged.parameters())
        )
        self.need_finite(loss + judgement, self.steps_per_epoch - 1, rate)
        images_per_second = progress.seen / progress.seconds
        line = Epoch(
            progress.epoch + 1,
            loss,
            accuracy,
            *validation,
            rate,
            progress.seconds,
            images_per_second,
            self.metrics.train,
        )
        self.progress = Progress(epoch=progress.epoch + 1, history=[*progress.history, line])

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that continues this training: tensors by name, and what JSON can hold."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        if self.averaged is not None:
            tensors |= {f"averaged.{k}": v for k, v in self.averaged.state_dict().items()}
        tensors |= {f"optimizer.{k}": v for k, v in self.stepper.state().items()}
        return tensors, asdict(self.progress)

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Continue from a `state`. Raises LabError if it is of another network or optimiser."""
        parts: dict[str, dict[str, Tensor]] = {"net": {}, "averaged": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        try:
            self.net.load_state_dict(parts["net"])
            if self.averaged is not None:
                self.averaged.load_state_dict(parts["averaged"])
            self.stepper.restore(parts["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise LabError(f"this state is of another network or optimiser: {str(error).splitlines()[0]}") from error
        self.progress = Progress(**{**progress, "history": [Epoch(**line) for line in progress["history"]]})


def need_whole_batch(size: int, train: ImageSet | Part) -> None:
    """Raise LabError unless there is at least one batch of pictures to train on."""
    need(
        size <= len(train),
        f"a batch of {size} is larger than the {len(train)} training pictures: set training.batch_size to {len(train)} or less",
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
    def summary(self) -> tuple[float, float]:
        return self.loss, self.accuracy


@torch.inference_mode()
def evaluate(net: nn.Module, pictures: ImageSet | Part) -> Evaluation:
    """Loss and confusion matrix of a network on a set, in fp32 and evaluation mode; the network's mode is put back.

    >>> pictures = ImageSet(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), "two")
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)); _ = nn.init.zeros_(net[1].bias)
    >>> evaluate(net, pictures).accuracy, round(evaluate(net, pictures).loss, 4)
    (0.5, 0.6931)
    """
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    classes, layout, loss = len(pictures.classes), layout_for(net), 0.0
    confusion = torch.zeros(classes * classes, dtype=torch.int64)
    with evaluating(net):
        for rows in torch.arange(len(pictures)).split(EVALUATION_BATCH):
            images, labels = pictures.take(rows)
            pixels = to_unit(images.to(device)).contiguous(memory_format=layout)
            logits = net(pixels).float().cpu()  # [N, classes]
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            confusion += torch.bincount(labels * classes + logits.argmax(1), minlength=classes * classes)
    return Evaluation(loss / len(pictures), confusion.view(classes, classes))


@contextlib.contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; every layer's own mode put back afterwards."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def fit(
    net: nn.Module, train: ImageSet | Part, validation: ImageSet | Part | None = None, **settings: Any
) -> list[Epoch]:
    """Train a network that takes [0, 1] pixels; `settings` are `Fit`'s. Returns its epochs; the net has the last weights.

    >>> from convolab.data.catalog import load
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> len(fit(net, load("digits").train, training=Training(epochs=2)))
    2
    """
    return list(Fit(net, train, validation, **settings).epochs())


def steps_to_overfit(
    net: nn.Module,
    train: ImageSet | Part,
    *,
    optimizer: Optimizer | None = None,
    batch_size: int = 128,
    seed: int = 0,
    limit: int = 2000,
) -> tuple[int | None, list[float]]:
    """Train on one batch until every picture of it is classified correctly: the check that a network can learn at all.

    No augmentation, no decay, a constant rate. Returns the steps it took (None: not within `limit`), and the accuracy
    before each step. Accuracy is that of the training pass itself, whose batch norm sees the very batch.
    """
    need_whole_batch(batch_size, train)
    here = torch.randperm(len(train), generator=generator(seed, "order", 0))[:batch_size]
    images, labels = train.take(here)
    layout = layout_for(net)
    pixels = to_unit(images).contiguous(memory_format=layout)
    net = net.to(memory_format=layout).train()
    stepper = (optimizer or Sgd()).model_copy(update={"weight_decay": 0.0}).build(net.parameters())
    accuracies: list[float] = []
    with own_global_generators():
        for step in range(limit + 1):
            seed_global(pixels.device, seed, "layers", 0, step)
            logits = net(pixels)  # [N, classes]
            accuracies.append(float((logits.argmax(1) == labels).float().mean()))
            if accuracies[-1] == 1:
                return step, accuracies
            stepper.forget_gradients()
            F.cross_entropy(logits, labels).backward()
            stepper.step()
    return None, accuracies


def layout_for(net: nn.Module) -> torch.memory_format:
    """How pictures should lie in memory: channels last is fastest for convolutions, and slower for a net without any."""
    return torch.channels_last if any(p.ndim == 4 for p in net.parameters()) else torch.contiguous_format


def autocast(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 arithmetic with fp32 weights inside, where asked for."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` made definite: bf16 where the hardware computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and native_bf16() else "fp32"


def native_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices itself (AVX-512 BF16, AMX, or ARM's BF16)."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line.split(":")[1].split() for line in file if line.startswith(("flags", "Features"))), [])
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
