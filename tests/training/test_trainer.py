"""The training loop on the digits: what it computes, that it can stop after any step, what must not change it."""

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.callbacks import FunctionCallbacks
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.core.rng import make_generator
from convolab.data.catalog import load
from convolab.data.dataset import ImageDataset, Subset
from convolab.models.registry import build
from convolab.training import precision as precision_module
from convolab.training import trainer as trainer_module
from convolab.training.augmentation import parse_transform
from convolab.training.checkpoint import read_tensors, write_tensors
from convolab.training.evaluation import evaluate
from convolab.training.fit import fit
from convolab.training.history import EpochMetrics, best_epoch_of
from convolab.training.losses import Focal
from convolab.training.lr_schedule import CosineLR, OneCycleLR, StepLR
from convolab.training.optim import SGD, Adam, AdamW, Muon, Optimizer
from convolab.training.overfit import overfit_single_batch
from convolab.training.recipe import Metrics, Training
from convolab.training.trainer import Diverged, Trainer

Weights = dict[str, Tensor]

pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def digits_train_set() -> ImageDataset:
    return load("digits").train


def digits(count: int, start: int = 0) -> Subset:
    return digits_train_set().subset(torch.arange(start, start + count))


def float_pixels_and_labels(images: Subset, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    images, labels = images.gather(torch.arange(len(images)) if rows is None else rows)
    return images.float() / 255, labels


def linear(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def dropout_convnet(seed: int = 0) -> nn.Module:
    """Convolutions (weights are channels last), batch norms (buffers) and dropout (layers draw random numbers)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(0.2),
            nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip


class LinearWithHook(nn.Module):
    """A linear network that calls a function with every training batch and its logits; it may return other logits."""

    def __init__(self, hook: Callable[[Tensor, Tensor], Tensor | None]) -> None:
        super().__init__()
        self.linear, self.hook = linear()[1], hook

    def forward(self, pixels: Tensor) -> Tensor:
        logits = self.linear(pixels.flatten(1))
        new_logits = self.hook(pixels, logits) if self.training else None
        return logits if new_logits is None else new_logits


def snapshot(net: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_times(history: Iterable[EpochMetrics]) -> list[dict[str, Any]]:
    """The epochs without the two numbers that depend on the clock."""
    return [
        {k: v for k, v in asdict(epoch).items() if k not in ("train_seconds", "images_per_second")} for epoch in history
    ]


def train_steps(trainer: Trainer, steps: int) -> None:
    """Train for this many more steps, then stop."""
    num_done = 0

    def count(_: Trainer) -> None:
        nonlocal num_done
        num_done += 1

    list(trainer.iter_epochs(FunctionCallbacks(on_step=count, stop=lambda: num_done >= steps)))
    assert num_done == steps


def update_norms(trainer: Trainer) -> list[float]:
    """Train to the end; return the norm of each step's change of the weights."""
    norms, last = [], snapshot(trainer.net)

    def measure(_: Trainer) -> None:
        nonlocal last
        now = snapshot(trainer.net)
        norms.append(sum(((now[k] - last[k]) ** 2).sum().item() for k in now) ** 0.5)
        last = now

    list(trainer.iter_epochs(FunctionCallbacks(on_step=measure)))
    return norms


# What it computes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simple_convnet", "shallow_net"])
def test_any_network_is_trained_without_a_recipe(name: str) -> None:
    net, train, validation = build(name, (1, 8, 8), 10), digits(800), digits(200, 800)
    before = snapshot(net)
    history = fit(net, train, validation, optimizer=SGD(lr=0.1), training=Training(epochs=4, batch_size=32))
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4]
    assert history[-1].validation_accuracy > 0.8
    assert not equal(before, snapshot(net))
    assert history[-1].validation_accuracy == evaluate(net, validation).accuracy


@pytest.mark.slow
def test_a_network_of_any_class_is_trained_in_place() -> None:
    net = linear()
    history = fit(net, digits(600), training=Training(epochs=3, batch_size=20))
    assert history[-1].train_accuracy > 0.8
    assert evaluate(net, digits(600)).accuracy > 0.8
    assert history[-1].validation_accuracy is None


def test_a_network_in_evaluation_mode_is_trained_like_any_other() -> None:
    in_eval_mode, in_train_mode = dropout_convnet().eval(), dropout_convnet()
    for net in (in_eval_mode, in_train_mode):
        fit(net, digits(64), training=Training(epochs=1, batch_size=32))
    assert equal(snapshot(in_eval_mode), snapshot(in_train_mode))


def test_every_image_is_used_once_per_epoch_in_another_order_each_time() -> None:
    batches: list[Tensor] = []
    train = digits(100)
    fit(
        LinearWithHook(lambda pixels, _: batches.append(pixels.clone())),
        train,
        training=Training(epochs=2, batch_size=30),
    )
    assert [len(batch) for batch in batches] == [30, 30, 30, 10] * 2
    expected, _ = float_pixels_and_labels(train)
    first, second = torch.cat(batches[:4]), torch.cat(batches[4:])
    for epoch in (first, second):
        assert sorted(epoch.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())
    assert not torch.equal(first, second)
    assert not torch.equal(first, expected)


def test_the_order_of_the_images_depends_on_the_seed_only() -> None:
    def order(seed: int) -> Tensor:
        batches: list[Tensor] = []
        fit(
            LinearWithHook(lambda pixels, _: batches.append(pixels.clone())),
            digits(64),
            training=Training(epochs=1, batch_size=32, seed=seed),
        )
        return torch.cat(batches)

    assert torch.equal(order(3), order(3))
    assert not torch.equal(order(3), order(4))


@pytest.mark.parametrize("first", [nn.Conv2d(3, 4, 3), nn.Linear(8, 4)])
def test_batches_are_channels_last_for_convolutions_and_contiguous_for_other_networks(first: nn.Module) -> None:
    channels_last: list[bool] = []
    net = nn.Sequential(first, nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 3, 8, 8))
    first.register_forward_pre_hook(
        lambda _, inputs: channels_last.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=make_generator(0))
    images = ImageDataset(images, torch.arange(20) % 2, ("a", "b"), "colors")
    for augmentations in ([], ["crop:1"], ["color", "crop:1"], ["rotate"]):
        fit(net, images, images, training=Training(epochs=1, batch_size=20), transforms=augmentations)
    overfit_single_batch(net, images, batch_size=20, max_steps=0)
    assert channels_last == [isinstance(first, nn.Conv2d)] * 9


def test_a_last_batch_of_one_image_is_left_out_and_one_of_two_is_not() -> None:
    def sizes(count: int) -> list[int]:
        batch_sizes: list[int] = []
        net = LinearWithHook(lambda pixels, _: batch_sizes.append(len(pixels)))
        (epoch,) = fit(net, digits(count), training=Training(epochs=1, batch_size=16), optimizer=SGD(lr=1e-9))
        inputs, labels = float_pixels_and_labels(digits(count))
        if sum(batch_sizes) == count:  # then the epoch's means are those over all images
            assert epoch.train_accuracy == pytest.approx(float((net.eval()(inputs).argmax(1) == labels).float().mean()))
        return batch_sizes

    assert sizes(32) == [16, 16]
    assert sizes(33) == [16, 16]
    assert sizes(34) == [16, 16, 2]


def test_a_batch_larger_than_the_dataset_is_refused_with_the_key_to_change() -> None:
    with pytest.raises(
        LabError,
        match=r"a batch of 128 is larger than the 50 training images: set training\.batch_size \(--batch-size\) to 50 or less",
    ):
        Trainer(linear(), digits(50))
    with pytest.raises(LabError, match="a batch of 51 is larger"):
        overfit_single_batch(linear(), digits(50), batch_size=51)
    Trainer(linear(), digits(50), training=Training(batch_size=50))


@pytest.mark.parametrize("schedule", [CosineLR(), OneCycleLR(), StepLR(step_size=1, gamma=0.5, warmup=1.5)])
def test_every_step_has_the_learning_rate_of_its_schedule(schedule: Any) -> None:
    plain, clip = (
        SGD(lr=0.2, momentum=0.0, weight_decay=0.0),
        0.05,
    )  # so that a step is its learning rate times a gradient of norm 0.05
    trainer = Trainer(
        linear(),
        digits(96),
        optimizer=plain,
        schedule=schedule,
        training=Training(epochs=3, batch_size=24, clip_norm=clip),
    )
    norms = update_norms(trainer)
    rates = [0.2 * schedule.factor(epoch + step / 4, 3) for epoch in range(3) for step in range(4)]
    assert [norm / clip for norm in norms] == pytest.approx(rates, rel=1e-3, abs=1e-5)
    assert [epoch.learning_rate for epoch in trainer.progress.history] == rates[3::4]


@pytest.mark.parametrize(("clip", "binding"), [(0.05, True), (1e6, False)])
def test_clipping_bounds_the_norm_of_the_gradient(clip: float, binding: bool) -> None:
    def step_norms(clip_norm: float | None) -> list[float]:
        plain = SGD(lr=1.0, momentum=0.0, weight_decay=0.0)  # so that a step is the gradient itself
        return update_norms(
            Trainer(
                linear(), digits(96), optimizer=plain, training=Training(epochs=2, batch_size=32, clip_norm=clip_norm)
            )
        )

    if binding:
        assert step_norms(clip) == pytest.approx([clip] * 6, rel=1e-3)
        assert min(step_norms(None)) > clip
    else:
        assert step_norms(clip) == step_norms(None)


def test_a_smoothed_loss_is_minimized_and_the_plain_one_is_reported() -> None:
    inputs, labels = float_pixels_and_labels(digits(64))
    for smoothing in (0.0, 0.3):
        net, reference = linear(), linear()
        reference.load_state_dict(net.state_dict())
        plain = F.cross_entropy(reference(inputs), labels).item()
        F.cross_entropy(reference(inputs), labels, label_smoothing=smoothing).backward()
        torch.optim.SGD(reference.parameters(), lr=0.1).step()
        training = Training(epochs=1, batch_size=64, label_smoothing=smoothing)
        history = fit(net, digits(64), optimizer=SGD(lr=0.1, momentum=0, weight_decay=0), training=training)
        assert history[0].train_loss == pytest.approx(plain, rel=1e-5)
        for ours, theirs in zip(net.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_augmentations_can_be_given_as_objects_and_as_strings() -> None:
    def first_batch(augmentations: list) -> Tensor:
        batches: list[Tensor] = []
        net = LinearWithHook(lambda pixels, _: batches.append(pixels.clone()))
        fit(net, digits(32), training=Training(epochs=1, batch_size=32), transforms=augmentations)
        return batches[0]

    assert torch.equal(first_batch(["flip:1"]), first_batch([]).flip(3))
    assert torch.equal(first_batch([parse_transform("flip:1")]), first_batch([]).flip(3))
    assert not torch.equal(first_batch(["crop:2"]), first_batch([]))


def test_augmentations_are_drawn_again_every_step_and_epoch() -> None:
    batches: list[Tensor] = []
    same_image = ImageDataset(
        digits(1).gather(torch.tensor([0]))[0].expand(64, -1, -1, -1),
        torch.zeros(64, dtype=torch.int64),
        tuple("abcdefghij"),
        "one",
    )
    net = LinearWithHook(lambda pixels, _: batches.append(pixels.clone()))
    fit(net, same_image, training=Training(epochs=2, batch_size=32), transforms=["crop:3"])
    assert len({batch.numpy().tobytes() for batch in batches}) == 4


@pytest.mark.slow
def test_mixed_images_are_trained_on_with_label_probabilities() -> None:
    history = fit(
        linear(),
        digits(400),
        digits(200, 400),
        optimizer=SGD(lr=0.1),
        training=Training(epochs=5, batch_size=20),
        transforms=["mixup:1"],
    )
    assert history[-1].validation_accuracy > 0.75
    assert history[-1].train_loss > history[-1].validation_loss  # a blend cannot be predicted without loss
    assert history[-1].train_accuracy > 0.6  # by the label of the larger part


# Metrics


def test_running_metrics_are_the_means_over_the_epochs_batches() -> None:
    losses, hits, inputs = [], [], []

    def record(pixels: Tensor, logits: Tensor) -> None:
        inputs.append(pixels.clone())
        rows = [int((pixels_of_all == image).flatten(1).all(1).nonzero()[0]) for image in pixels]
        losses.append(F.cross_entropy(logits.detach(), labels[rows], reduction="none"))
        hits.append(logits.argmax(1) == labels[rows])

    train = digits(70)
    pixels_of_all, labels = float_pixels_and_labels(train)
    history = fit(LinearWithHook(record), train, training=Training(epochs=2, batch_size=32))
    for number, epoch in enumerate(history):
        steps = slice(3 * number, 3 * number + 3)
        assert epoch.train_loss == pytest.approx(float(torch.cat(losses[steps]).mean()), rel=1e-5)
        assert epoch.train_accuracy == pytest.approx(float(torch.cat(hits[steps]).float().mean()))
        assert epoch.train_metrics == "running"


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_exact_metrics_are_those_of_the_weights_at_the_end_of_the_epoch(ema: float) -> None:
    train, validation = digits(128), digits(64, 128)
    training = Training(epochs=2, batch_size=32, ema=ema)
    trainer = Trainer(
        dropout_convnet(),
        train,
        validation,
        training=training,
        metrics=Metrics(train="eval_pass"),
        transforms=["crop:2"],
    )
    for epoch in trainer.iter_epochs():
        assert (epoch.train_loss, epoch.train_accuracy) == evaluate(trainer.eval_net, train).loss_and_accuracy
        assert (epoch.validation_loss, epoch.validation_accuracy) == evaluate(
            trainer.eval_net, validation
        ).loss_and_accuracy
        assert epoch.train_metrics == "eval_pass"
    assert trainer.eval_net is (trainer.ema_net if ema else trainer.net)


@pytest.mark.slow
def test_the_requested_metrics_do_not_change_the_weights() -> None:
    nets = [dropout_convnet(), dropout_convnet(), dropout_convnet()]
    training = Training(epochs=2, batch_size=32)
    fit(nets[0], digits(96), training=training)
    fit(nets[1], digits(96), digits(40, 96), training=training)
    fit(nets[2], digits(96), digits(40, 96), training=training, metrics=Metrics(train="eval_pass"))
    assert equal(snapshot(nets[0]), snapshot(nets[1]))
    assert equal(snapshot(nets[0]), snapshot(nets[2]))


# Averaged weights


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_averaged_weights_are_those_of_a_plain_moving_average(decay: float) -> None:
    net = dropout_convnet()
    average = {name: tensor.double() for name, tensor in snapshot(net).items()}
    num_steps = 0

    def update_average(trainer: Trainer) -> None:
        nonlocal num_steps
        weight = min(decay, (1 + num_steps) / (10 + num_steps))  # of the past
        for name, tensor in trainer.net.state_dict().items():
            average[name] = (
                weight * average[name] + (1 - weight) * tensor.double()
                if tensor.is_floating_point()
                else tensor.double()
            )
        num_steps += 1

    trainer = Trainer(net, digits(128), training=Training(epochs=3, batch_size=32, ema=decay))
    list(trainer.iter_epochs(FunctionCallbacks(on_step=update_average)))
    assert num_steps == 12
    for name, tensor in trainer.eval_net.state_dict().items():
        torch.testing.assert_close(tensor.double(), average[name], rtol=1e-5, atol=1e-6)
    assert not equal(snapshot(trainer.ema_net), snapshot(trainer.net))


def test_averaging_does_not_change_the_training() -> None:
    nets = [dropout_convnet(), dropout_convnet()]
    for net, ema in zip(nets, (0.0, 0.9), strict=True):
        fit(net, digits(96), training=Training(epochs=2, batch_size=32, ema=ema))
    assert equal(snapshot(nets[0]), snapshot(nets[1]))


# Early stopping


def train_with_accuracies(
    accuracies: list[float], monkeypatch: pytest.MonkeyPatch, patience: int | None, *, has_falling_loss: bool = False
) -> Trainer:
    """Train with given validation accuracies, and with losses that fall from epoch to epoch or are all 0."""
    remaining, losses = iter(accuracies), count(0, -0.1 * has_falling_loss)
    monkeypatch.setattr(
        trainer_module,
        "evaluate",
        lambda net, images, **_: SimpleNamespace(loss_and_accuracy=(next(losses), next(remaining)), metric=None),
    )
    training = Training(epochs=len(accuracies), batch_size=20, patience=patience)
    trainer = Trainer(linear(), digits(20), digits(20), training=training)
    list(trainer.iter_epochs())
    return trainer


@pytest.mark.parametrize(
    ("accuracies", "patience", "epochs", "best"),
    [
        ([0.5, 0.6, 0.6, 0.55, 0.9], 2, 4, 2),  # an equal accuracy is not better, and the first of them is the best
        ([0.5, 0.6, 0.6, 0.7, 0.6, 0.5, 0.9], 2, 6, 4),
        ([0.5, 0.4, 0.6, 0.5, 0.7], 1, 2, 1),
        ([0.5, 0.4, 0.3, 0.2], None, 4, 1),
        ([0.1, 0.2, 0.3, 0.4], 1, 4, 4),
    ],
)
def test_training_ends_after_patience_epochs_without_a_better_one(
    accuracies: list[float], patience: int | None, epochs: int, best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train_with_accuracies(accuracies, monkeypatch, patience)
    assert len(trainer.progress.history) == epochs
    assert trainer.best_epoch.epoch == best
    assert trainer.is_finished


def test_an_equal_accuracy_with_a_lower_loss_is_no_better_accuracy_and_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = train_with_accuracies([0.5, 0.9, 0.9, 0.9, 0.9, 0.9], monkeypatch, 2, has_falling_loss=True)
    assert len(trainer.progress.history) == 4
    assert trainer.best_epoch.epoch == 4


def test_patience_without_validation_images_is_refused_because_it_would_wait_for_nothing() -> None:
    with pytest.raises(LabError, match=r"training\.patience needs validation images"):
        Trainer(linear(), digits(20), training=Training(batch_size=20, patience=2))


@pytest.mark.slow
def test_a_training_ends_after_the_first_epoch_that_reaches_its_goal() -> None:
    def accuracies(goal: float | None) -> list[float]:
        trainer = Trainer(
            linear(), digits(20), optimizer=SGD(lr=0.1), training=Training(epochs=60, batch_size=20, goal=goal)
        )
        return [epoch.train_accuracy for epoch in trainer.iter_epochs()]

    without_goal = accuracies(None)
    reached = next(i for i, accuracy in enumerate(without_goal) if accuracy >= 0.9)
    assert 0 < reached < 59
    assert accuracies(0.9) == without_goal[: reached + 1]


# Callbacks


def test_fit_calls_its_callbacks_after_each_step_and_each_epoch() -> None:
    steps, epochs = [], []
    callbacks = FunctionCallbacks(on_step=lambda t: steps.append(t.progress.step), on_epoch=epochs.append)
    history = fit(linear(), digits(96), training=Training(epochs=2, batch_size=32), callbacks=callbacks)
    assert steps == [1, 2, 3, 1, 2, 3]
    assert epochs == history
    never = FunctionCallbacks(stop=lambda: True)
    assert fit(linear(), digits(96), training=Training(batch_size=32), callbacks=never) == []


def test_the_best_epoch_is_the_first_of_the_highest_validation_accuracy_or_the_last_without_validation() -> None:
    def epochs(*accuracies: float | None) -> list[EpochMetrics]:
        return [EpochMetrics(i, 1.0, 0.5, None, accuracy) for i, accuracy in enumerate(accuracies, start=1)]

    assert best_epoch_of([]) is None
    assert best_epoch_of(epochs(0.1, 0.3, 0.3, 0.2)).epoch == 2
    assert best_epoch_of(epochs(0.0, 0.0)).epoch == 1
    assert best_epoch_of(epochs(None, None, None)).epoch == 3


# Stopping and resuming


OPTIMIZERS: list[Optimizer] = [SGD(lr=0.05, nesterov=True), Adam(), AdamW()]


def stateful_trainer(optimizer: Optimizer, seed: int = 0) -> Trainer:
    """A trainer with everything that has a state: two epochs of three steps, the last batch of each smaller."""
    return Trainer(
        dropout_convnet(seed), digits(80), digits(40, 80),
        optimizer=optimizer, schedule=OneCycleLR(), transforms=["crop:1", "color:0.2", "mixup:0.5"],
        training=Training(epochs=2, batch_size=32, ema=0.9, label_smoothing=0.1, clip_norm=1.0),
    )  # fmt: skip


def write_and_read(state: tuple[Weights, dict[str, Any]], path: Path) -> tuple[Weights, dict[str, Any]]:
    write_tensors(path, *state)
    return read_tensors(path)


def assert_same_result(one: Trainer, other: Trainer) -> None:
    assert equal(snapshot(one.net), snapshot(other.net))
    assert equal(snapshot(one.ema_net), snapshot(other.ema_net))
    assert without_times(one.progress.history) == without_times(other.progress.history)
    assert len(one.progress.history) == 2


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
def test_a_training_stopped_after_any_step_resumes_bit_for_bit(optimizer: Optimizer, tmp_path: Path) -> None:
    uninterrupted = stateful_trainer(optimizer)
    list(uninterrupted.iter_epochs())
    for steps in range(7):
        stopped, resumed = (
            stateful_trainer(optimizer),
            stateful_trainer(optimizer, seed=99),
        )  # with other weights, which the state replaces
        train_steps(stopped, steps)
        resumed.restore(*write_and_read(stopped.snapshot(), tmp_path / "state"))
        list(resumed.iter_epochs())
        assert_same_result(resumed, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
def test_a_state_written_after_any_step_resumes_bit_for_bit_even_from_the_last_step_of_an_epoch(
    optimizer: Optimizer, tmp_path: Path
) -> None:
    uninterrupted, written = stateful_trainer(optimizer), []

    def write(trainer: Trainer) -> None:
        written.append(write_and_read(trainer.snapshot(), tmp_path / "state"))

    list(uninterrupted.iter_epochs(FunctionCallbacks(on_step=write)))
    assert [progress["step"] for _, progress in written] == [1, 2, 3, 1, 2, 3]
    for state in written:
        resumed = stateful_trainer(optimizer, seed=99)
        resumed.restore(*state)
        list(resumed.iter_epochs())
        assert_same_result(resumed, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.name)
def test_one_state_can_be_restored_many_times(optimizer: Optimizer, tmp_path: Path) -> None:
    stopped = stateful_trainer(optimizer)
    train_steps(stopped, 2)
    state = write_and_read(stopped.snapshot(), tmp_path / "state")
    ends = [stateful_trainer(optimizer, seed=seed) for seed in (1, 2)]
    for trainer in ends:
        trainer.restore(*state)
        list(trainer.iter_epochs())
    assert_same_result(*ends)


def test_a_stopped_trainer_can_continue_without_restoring_a_state() -> None:
    uninterrupted, stopped = stateful_trainer(Adam()), stateful_trainer(Adam())
    list(uninterrupted.iter_epochs())
    for _ in range(6):
        train_steps(stopped, 1)
    list(stopped.iter_epochs())
    assert_same_result(stopped, uninterrupted)


def test_progress_can_be_written_as_json() -> None:
    trainer = stateful_trainer(SGD())
    train_steps(trainer, 4)
    _, progress = trainer.snapshot()
    assert json.loads(json.dumps(progress, allow_nan=False)) == progress
    assert (progress["epoch"], progress["step"], len(progress["history"])) == (1, 1, 1)


def test_a_stop_before_the_first_step_leaves_the_weights() -> None:
    trainer = stateful_trainer(SGD())
    before = snapshot(trainer.net)
    assert list(trainer.iter_epochs(FunctionCallbacks(stop=lambda: True))) == []
    assert equal(before, snapshot(trainer.net))


def test_a_state_of_another_network_or_optimizer_is_refused() -> None:
    def state(net: nn.Module, optimizer: Optimizer) -> tuple[Weights, dict[str, Any]]:
        trainer = Trainer(net, digits(40), optimizer=optimizer, training=Training(batch_size=20))
        train_steps(trainer, 1)
        return trainer.snapshot()

    new_trainer = Trainer(linear(), digits(40), optimizer=Adam(), training=Training(batch_size=20))
    for other in (state(dropout_convnet(), Adam()), state(linear(), SGD())):
        with pytest.raises(LabError, match="this state belongs to another"):
            new_trainer.restore(*other)
    new_trainer.restore(*state(linear(5), Adam()))


# Divergence


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_nan_or_infinite_loss_ends_the_training_with_the_weights_before_that_step(value: float) -> None:
    calls = 0

    def change_logits(_: Tensor, logits: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return (
            logits.index_fill(1, torch.arange(1, 10), value) if calls == 6 else logits
        )  # the second step of the second epoch

    good: list[Weights] = []
    trainer = Trainer(
        LinearWithHook(change_logits), digits(128), optimizer=SGD(lr=0.25), training=Training(epochs=3, batch_size=32)
    )
    with pytest.raises(
        Diverged, match=r"the loss became (nan|inf) in epoch 2, step 2, at learning rate 0\.25: lower optimizer\.lr"
    ):
        list(trainer.iter_epochs(FunctionCallbacks(on_step=lambda f: good.append(snapshot(f.net)))))
    assert len(good) == 5
    assert equal(snapshot(trainer.net), good[-1])
    assert issubclass(Diverged, LabError)


@pytest.mark.parametrize("validation", [20, None])
def test_weights_that_become_nan_in_the_last_step_of_an_epoch_are_found_in_that_epoch(validation: int | None) -> None:
    calls = 0

    def change_logits(_: Tensor, logits: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:  # the loss is finite, its gradient is not
            logits.register_hook(lambda gradient: gradient * float("nan"))

    trainer = Trainer(
        LinearWithHook(change_logits),
        digits(128),
        validation and digits(validation),
        training=Training(epochs=3, batch_size=32),
    )
    with pytest.raises(Diverged, match="in epoch 1, step 4"):
        list(trainer.iter_epochs())
    assert trainer.progress.history == []


def test_a_learning_rate_far_too_high_is_reported_as_divergence() -> None:
    with pytest.raises(Diverged, match=r"at learning rate 1e\+30"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Linear(20, 10)), digits(128), optimizer=SGD(lr=1e30))


def test_a_divergence_names_each_rate_of_the_optimizer() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    with pytest.raises(Diverged, match=r": lower optimizer\.lr and optimizer\.others_lr or set training\.clip_norm"):
        fit(net, digits(128), optimizer=Muon(others_lr=1e30))


# Random numbers


class DrawRecorder(nn.Module):
    """A linear network that draws from the global generator, as dropout does, and records what it draws."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.draws = linear()[1], []

    def forward(self, pixels: Tensor) -> Tensor:
        if self.training:
            self.draws.append(torch.rand(3).tolist())
        return self.linear(pixels.flatten(1))


def record_draws(seed: int = 0, **settings: Any) -> list[list[float]]:
    net = DrawRecorder()
    fit(net, digits(96), training=Training(epochs=2, batch_size=32, seed=seed), **settings)
    return net.draws


def test_the_random_numbers_of_layers_depend_on_seed_epoch_and_step_only() -> None:
    torch.manual_seed(1)
    first = record_draws()
    torch.manual_seed(2)
    assert record_draws() == first
    assert record_draws(optimizer=AdamW(), transforms=["crop", "mixup"], validation=digits(50)) == first
    assert len({tuple(draw) for draw in first}) == 6
    assert not {tuple(draw) for draw in first} & {tuple(draw) for draw in record_draws(seed=1)}


def test_the_random_numbers_of_a_step_do_not_depend_on_the_steps_before() -> None:
    stopped, resumed = DrawRecorder(), DrawRecorder()
    training = Training(epochs=2, batch_size=32)
    first, second = (Trainer(net, digits(96), training=training) for net in (stopped, resumed))
    train_steps(first, 4)
    second.restore(*copy.deepcopy(first.snapshot()))
    list(second.iter_epochs())
    assert stopped.draws + resumed.draws == record_draws()


def draw_and_raise(_: Tensor, __: Tensor) -> None:
    torch.rand(3)
    raise KeyboardInterrupt


def test_fit_takes_names_dicts_and_numbers_as_train_does_and_trains_the_same() -> None:
    by_name, by_object = linear(), linear()
    fit(
        by_name, digits(96), epochs=2, lr=0.01, batch_size=32, seed=1, optimizer="adam", schedule="cosine",
        loss={"name": "focal", "gamma": 1.0}, training={"label_smoothing": 0.0},
    )  # fmt: skip
    training = Training(epochs=2, batch_size=32, seed=1)
    fit(by_object, digits(96), optimizer=Adam(lr=0.01), schedule=CosineLR(), loss=Focal(gamma=1.0), training=training)
    assert equal(snapshot(by_name), snapshot(by_object))


def test_the_global_generator_is_as_before_after_a_fit_a_stop_and_an_exception() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    fit(dropout_convnet(), digits(64), digits(64), training=Training(epochs=2, batch_size=32))
    assert torch.equal(before, torch.get_rng_state())
    train_steps(Trainer(dropout_convnet(), digits(64), training=Training(batch_size=32)), 1)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(KeyboardInterrupt):
        fit(LinearWithHook(draw_and_raise), digits(64), training=Training(batch_size=32))
    assert torch.equal(before, torch.get_rng_state())
    overfit_single_batch(dropout_convnet(), digits(64), batch_size=32, max_steps=3)
    assert torch.equal(before, torch.get_rng_state())


def test_between_two_epochs_the_global_generator_is_that_of_the_caller() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4).tolist()
    torch.manual_seed(7)
    trainer = Trainer(dropout_convnet(), digits(64), training=Training(epochs=4, batch_size=32))
    assert [torch.rand(1).item() for _ in trainer.iter_epochs()] == expected
    before = torch.get_rng_state()
    for _ in Trainer(dropout_convnet(), digits(64), training=Training(epochs=4, batch_size=32)).iter_epochs():
        break
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_trainings_that_alternate_do_not_change_each_other() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    alone, one, other = stateful_trainer(Adam()), stateful_trainer(Adam()), stateful_trainer(SGD(), seed=1)
    list(alone.iter_epochs())
    for _ in zip(other.iter_epochs(), one.iter_epochs(), strict=True):
        pass
    assert_same_result(one, alone)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_a_training_within_a_training_changes_nothing() -> None:
    alone, interrupted = stateful_trainer(Adam()), stateful_trainer(Adam())
    list(alone.iter_epochs())

    def train_another(_: Trainer) -> None:
        torch.rand(5)
        fit(dropout_convnet(4), digits(32), training=Training(epochs=1, batch_size=16))

    list(interrupted.iter_epochs(FunctionCallbacks(on_step=train_another)))
    assert_same_result(interrupted, alone)


# Evaluation


@pytest.mark.slow
def test_an_evaluation_is_that_of_a_loop_image_by_image() -> None:
    net, images = dropout_convnet(), digits(300)
    fit(net, images, training=Training(epochs=1, batch_size=50))
    result = evaluate(net, images)
    inputs, labels = float_pixels_and_labels(images)
    net.eval()
    confusion, losses = torch.zeros(10, 10, dtype=torch.int64), []
    with torch.no_grad():
        for image, label in zip(inputs, labels, strict=True):
            logits = net(image[None])
            losses.append(-logits.log_softmax(1)[0, label].item())
            confusion[label, logits.argmax()] += 1
    assert torch.equal(result.confusion, confusion)
    assert result.loss == pytest.approx(sum(losses) / 300, rel=1e-5)
    assert (result.count, result.correct) == (300, int(confusion.trace()))
    assert result.accuracy == result.correct / 300


def test_a_row_of_the_confusion_matrix_is_a_true_class_and_a_column_a_predicted_class() -> None:
    class AlwaysTwo(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return F.one_hot(torch.full((len(pixels),), 2), 4).float()

    images = ImageDataset(
        torch.zeros(10, 1, 8, 8, dtype=torch.uint8), torch.tensor([0] * 5 + [1] * 3 + [2] * 2), tuple("abcd"), "ten"
    )
    assert evaluate(AlwaysTwo(), images).confusion.tolist() == [
        [0, 0, 5, 0],
        [0, 0, 3, 0],
        [0, 0, 2, 0],
        [0, 0, 0, 0],
    ]
    assert evaluate(AlwaysTwo(), images).accuracy == 0.2


class Fails(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        raise ZeroDivisionError


def test_an_evaluation_restores_the_mode_of_every_layer() -> None:
    net = dropout_convnet().train()
    net[1].eval()
    net[4].eval()
    modes = [module.training for module in net.modules()]
    evaluate(net, digits(20))
    assert [module.training for module in net.modules()] == modes
    net.append(Fails())
    with pytest.raises(ZeroDivisionError):
        evaluate(net, digits(20))
    assert [module.training for module in net.modules()] == [*modes, True]


def test_an_evaluation_does_not_change_weights_statistics_gradients_or_the_global_generator() -> None:
    net = dropout_convnet().train()
    before, generator_before = snapshot(net), torch.get_rng_state()
    first, second = evaluate(net, digits(300)), evaluate(net, digits(300))
    assert equal(before, snapshot(net))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(generator_before, torch.get_rng_state())
    assert first.loss_and_accuracy == second.loss_and_accuracy
    net(float_pixels_and_labels(digits(20))[0]).sum().backward()  # and the weights can still be trained


# Overfitting one batch


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shallow_net", "simple_convnet", "resnet_small"])
def test_a_network_overfits_one_batch_completely(name: str) -> None:
    net = build(name, (1, 8, 8), 10)
    steps, accuracies = overfit_single_batch(net, digits(200), optimizer=SGD(lr=0.05), batch_size=32, max_steps=300)
    assert steps == len(accuracies) - 1
    assert steps > 0
    assert accuracies[-1] == 1
    assert max(accuracies[:-1]) < 1
    assert accuracies[0] < 0.5


def test_a_network_that_cannot_learn_is_detected() -> None:
    net = build("simple_convnet", (1, 8, 8), 10)
    before = snapshot(net)
    steps, accuracies = overfit_single_batch(net, digits(200), optimizer=SGD(lr=1e-12), batch_size=32, max_steps=5)
    assert steps is None
    assert len(accuracies) == 6
    weights = [name for name, _ in net.named_parameters()]
    assert all(torch.allclose(before[name], net.state_dict()[name]) for name in weights)


@pytest.mark.slow
def test_overfitting_depends_on_its_seed_only() -> None:
    def accuracies(global_seed: int, seed: int) -> list[float]:
        torch.manual_seed(global_seed)
        return overfit_single_batch(dropout_convnet(), digits(64), batch_size=64, seed=seed, max_steps=8)[1]

    assert accuracies(1, seed=0) == accuracies(2, seed=0)
    assert accuracies(1, seed=0) != accuracies(1, seed=1)


def test_overfitting_uses_no_weight_decay_and_counts_its_steps() -> None:
    def overfit(decay: float) -> tuple[int | None, list[float]]:
        return overfit_single_batch(linear(), digits(200), optimizer=SGD(lr=0.2, weight_decay=decay), batch_size=32)

    assert overfit(0.0) == overfit(10.0)
    needed, accuracies = overfit(0.0)
    assert overfit_single_batch(linear(), digits(200), optimizer=SGD(lr=0.2), batch_size=32, max_steps=needed) == (
        needed,
        accuracies,
    )
    assert overfit_single_batch(linear(), digits(200), optimizer=SGD(lr=0.2), batch_size=32, max_steps=needed - 1) == (
        None,
        accuracies[:-1],
    )


# Precision


@pytest.mark.slow
def test_bf16_computes_in_bf16_keeps_weights_in_fp32_and_learns() -> None:
    types: set[torch.dtype] = set()
    net = dropout_convnet()
    net[0].register_forward_hook(lambda layer, _, output: types.add((layer.training, output.dtype)))
    training = Training(epochs=4, batch_size=32, precision="bf16_forced")
    history = fit(net, digits(600), digits(100, 600), training=training, optimizer=SGD(lr=0.05))
    assert types == {(True, torch.bfloat16), (False, torch.float32)}  # and is evaluated in fp32
    assert {tensor.dtype for tensor in net.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    assert history[-1].validation_accuracy > 0.7


def test_bf16_is_near_fp32_and_not_the_same() -> None:
    losses = {
        precision: fit(linear(), digits(200), training=Training(epochs=2, batch_size=50, precision=precision))[
            -1
        ].train_loss
        for precision in ("fp32", "bf16_forced")
    }
    assert losses["bf16_forced"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16_forced"] != losses["fp32"]


def test_the_loss_of_bf16_logits_is_computed_in_fp32() -> None:
    logits: list[Tensor] = []
    net = linear()
    net.register_forward_hook(lambda layer, inputs, output: logits.append(output.detach()))
    training = Training(epochs=1, batch_size=64, precision="bf16_forced")
    (epoch,) = fit(net, digits(64), training=training)
    order = torch.randperm(64, generator=make_generator(0, "order", 0))
    assert logits[0].dtype == torch.bfloat16
    assert epoch.train_loss == pytest.approx(
        F.cross_entropy(logits[0].float(), digits(64).labels[order]).item(), rel=1e-6
    )


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("gain", [0.25, 1.1, 2.0])
def test_auto_is_bf16_exactly_where_the_processor_has_it_and_a_trial_is_faster(
    native: bool, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_module, "has_native_bf16", lambda: native)
    monkeypatch.setattr(trainer_module, "measure_bf16_gain", lambda net, pixels, winograd: gain)
    trainer = Trainer(linear(), digits(20), training=Training(batch_size=20, precision="auto"))
    assert trainer.bf16 == (native and gain == 2.0)
    assert not Trainer(linear(), digits(20), training=Training(batch_size=20)).bf16
    assert Trainer(linear(), digits(20), training=Training(batch_size=20, precision="bf16_forced")).bf16


def test_bf16_that_a_processor_emulates_is_refused_with_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module, "has_native_bf16", lambda: False)
    monkeypatch.setattr(trainer_module, "measure_bf16_gain", lambda net, pixels, winograd: 0.25)
    with pytest.raises(LabError, match=r"takes 4\.0 times as long in it as in fp32"):
        Trainer(linear(), digits(20), training=Training(batch_size=20, precision="bf16"))


@pytest.mark.slow
def test_the_trial_changes_neither_the_network_nor_the_random_numbers() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(3))
    net(torch.zeros(2, 1, 8, 8))
    trainer = Trainer(net, digits(16), training=Training(batch_size=16))
    before, random_state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert trainer.measure_bf16_gain() > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


class CannotBeCopied(nn.Module):
    """A network that Python cannot copy."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("no copies")

    def forward(self, pixels: Tensor) -> Tensor:
        return self.linear(pixels.flatten(1))


@pytest.mark.parametrize(
    ("settings", "key"), [({"ema": 0.9}, "training.ema"), ({"precision": "auto"}, "training.precision")]
)
def test_what_needs_a_copy_of_a_network_says_so_in_one_line_where_there_can_be_none(
    settings: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_module, "has_native_bf16", lambda: True)
    with pytest.raises(LabError, match=f"{key} needs a copy of the network, and Python cannot copy it"):
        Trainer(CannotBeCopied(), digits(20), training=Training(batch_size=20, **settings))


def test_transforms_that_go_with_the_epochs_are_refused_twice_from_python_too() -> None:
    transforms = ["alternating_flip", "alternating_flip"]
    with pytest.raises(LabError, match="alternating_flip 2 times"):
        fit(linear(), digits(20), training=Training(batch_size=20), transforms=transforms)
