"""The peers: one small network trained on CIFAR-10 by other libraries, each the way its own documentation teaches.

    python benchmarks/peers.py tutorial --data-dir DIR --network simple_convnet --steps 60

prints one JSON line with the steady-state images/s. Every peer does the same work: random crop (padding 4), horizontal
flip, normalization, batches of 128, SGD with momentum and weight decay, cross-entropy, float32, torch's own choice of
threads. Setting up and the first WARMUP batches are not timed. A library is imported inside its peer, so a process pays
for one only.
"""

import argparse
import contextlib
import functools
import json
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

BATCH = 128
WARMUP = 10  # batches before the clock starts
MAX_STEPS = 50_000 // BATCH - WARMUP  # the full batches of one epoch behind the warm-up
LR, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images, a channel

Network = Callable[[], nn.Module]
Peer = Callable[..., float]  # (data_dir, network, steps, workers=0) -> images/s


def simple_convnet() -> nn.Sequential:
    """Convolution 3x3, pooling, batch norm and ReLU, three times; the mean over the map; one linear layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def shallow_net() -> nn.Sequential:
    """One hidden layer on the flattened image."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 128), nn.ReLU(), nn.Linear(128, 10))


class ResidualBlock(nn.Module):
    """Two convolutions with norm, plus the input: averaged to half the size and filled with zero channels where it must be."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.new_channels = 1 if inputs == outputs else 2, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        if self.stride == 2:
            x = nn.functional.pad(nn.functional.avg_pool2d(x, 2), (0, 0, 0, 0, 0, self.new_channels))
        return self.relu(out + x)


def resnet_small() -> nn.Sequential:
    """A convolution, then residual blocks of 32, 64 and 128 channels; the mean over the map; one linear layer."""
    stem = (nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
    blocks = (ResidualBlock(32, 32), ResidualBlock(32, 64), ResidualBlock(64, 128))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


NETWORKS: dict[str, Network] = {
    "simple_convnet": simple_convnet,
    "shallow_net": shallow_net,
    "resnet_small": resnet_small,
}


class CIFAR10(datasets.CIFAR10):
    """torchvision's dataset, which takes the folder as it is: our copy's checksums are not the archive's."""

    meta = datasets.CIFAR10.meta | {"md5": None}

    def _check_integrity(self) -> bool:
        return True


def training_set(data_dir: Path) -> CIFAR10:
    """The training images with the usual transforms, one image at a time."""
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    return CIFAR10(
        data_dir,
        train=True,
        transform=transforms.Compose([*augment, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]),
    )


def training_loader(data_dir: Path, workers: int) -> DataLoader:
    return DataLoader(training_set(data_dir), batch_size=BATCH, shuffle=True, num_workers=workers)


class Stopwatch:
    """Times `steps` batches, from the end of the last warm-up batch to the end of the last one asked for."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.ends: list[float] = []  # seconds, one a batch

    def batch_ends(self) -> None:
        self.ends.append(time.perf_counter())

    @property
    def done(self) -> bool:
        return len(self.ends) >= WARMUP + self.steps

    @property
    def images_per_second(self) -> float:
        return BATCH * self.steps / (self.ends[WARMUP + self.steps - 1] - self.ends[WARMUP - 1])


def tutorial(data_dir: Path, network: Network, steps: int, workers: int = 0, bf16: bool = False) -> float:
    """The plain loop of "Training a Classifier" (docs.pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html).

    The page itself takes two workers. `bf16` wraps the forward pass in torch.autocast, as docs.pytorch.org/docs/stable/amp.html
    shows for the CPU.
    """
    loader, net, watch = training_loader(data_dir, workers), network(), Stopwatch(steps)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    running_loss = 0.0
    for inputs, labels in loader:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            outputs = net(inputs)
            loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        watch.batch_ends()
        if watch.done:
            break
    return watch.images_per_second


def lightning(data_dir: Path, network: Network, steps: int, workers: int = 0) -> float:
    """LightningModule and Trainer of "Lightning in 15 minutes" (lightning.ai/docs/pytorch/stable/starter/introduction.html).

    `training_step` logs its loss as the page does; logger, checkpoints, progress bar and model summary are off.
    """
    import lightning as L

    class Classifier(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch, batch_idx):
            inputs, labels = batch
            loss = nn.functional.cross_entropy(self.net(inputs), labels)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    class Clock(L.Callback):
        def on_train_batch_end(self, *args) -> None:
            watch.batch_ends()

    watch = Stopwatch(steps)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(max_steps=WARMUP + steps, accelerator="cpu", callbacks=[Clock()], **quiet)
    trainer.fit(Classifier(), training_loader(data_dir, workers))
    return watch.images_per_second


def keras(data_dir: Path, network: Network, steps: int, workers: int = 0, augment_in_model: bool = False) -> float:
    """Keras on torch: `Model.fit` given a torch DataLoader (keras.io/api/models/model_training_apis), its network of the same name.

    `augment_in_model` takes the other documented way: arrays, and the augmentation as layers of the model
    (keras.io/examples/vision/image_classification_from_scratch, option 1). RandomTranslation by up to 4 pixels stands for
    the crop: Keras's RandomCrop cuts a whole batch at one place, and behind a padding layer leaves 40 x 40 in evaluation.
    """
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None) -> None:
            watch.batch_ends()

    watch = Stopwatch(steps)
    if augment_in_model:
        images = CIFAR10(data_dir, train=True)
        data = {"x": images.data, "y": np.array(images.targets), "batch_size": BATCH}
    else:
        keras.config.set_image_data_format("channels_first")  # as the DataLoader's batches are
        data = {"x": training_loader(data_dir, workers)}
    if network is resnet_small:
        model = keras_resnet_small()
    else:
        model = keras.Sequential(keras_layers(network.__name__, augment_in_model))
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == sum(p.numel() for p in network().parameters())
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(**data, epochs=1, steps_per_epoch=WARMUP + steps, verbose=0, callbacks=[Clock()])
    return watch.images_per_second


def keras_layers(name: str, augment: bool) -> list:
    """`simple_convnet` or `shallow_net` for a keras.Sequential (keras.io/guides/sequential_model), after the augmentation if wanted."""
    from keras import Input, layers

    front = [Input((32, 32, 3) if augment else (3, 32, 32))]
    if augment:
        front += [
            layers.RandomTranslation(4 / 32, 4 / 32, fill_mode="constant", interpolation="nearest"),
            layers.RandomFlip("horizontal"),
        ]
        front += [layers.Rescaling(1 / 255), layers.Normalization(mean=MEAN, variance=[std**2 for std in STD])]
    if name == "shallow_net":
        return [*front, layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10)]
    stages, channels = [], -1 if augment else 1  # the axis; BatchNormalization does not follow set_image_data_format
    for outputs in (16, 32, 64):
        stages += [
            layers.Conv2D(outputs, 3, padding="same", use_bias=False),
            layers.MaxPooling2D(2),
            layers.BatchNormalization(channels),
            layers.ReLU(),
        ]
    return [*front, *stages, layers.GlobalAveragePooling2D(), layers.Dense(10)]


def keras_resnet_small():
    """`resnet_small` as Keras's functional interface writes it (keras.io/guides/functional_api), channels first."""
    from keras import Input, Model, layers, ops

    def conv(x, outputs: int, stride: int = 1):
        x = layers.Conv2D(outputs, 3, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(1)(x)

    inputs = Input((3, 32, 32))
    x = layers.ReLU()(conv(inputs, 32))
    for outputs in (32, 64, 128):
        new_channels = outputs - x.shape[1]
        out = layers.ReLU()(conv(x, outputs, stride=2 if new_channels else 1))
        out = conv(out, outputs)
        if new_channels:
            x = ops.pad(layers.AveragePooling2D(2)(x), ((0, 0), (0, new_channels), (0, 0), (0, 0)))
        x = layers.ReLU()(layers.add([out, x]))
    return Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def skorch(data_dir: Path, network: Network, steps: int, workers: int = 0) -> float:
    """NeuralNetClassifier on a torch Dataset (skorch.readthedocs.io/en/stable/user/FAQ.html, "How do I use a PyTorch Dataset").

    No validation split, no printing; its other default callbacks stay. The dataset ends where the measurement does.
    """
    from skorch import NeuralNetClassifier
    from skorch.callbacks import Callback

    class Clock(Callback):
        def on_batch_end(self, net, **kwargs) -> None:
            watch.batch_ends()

    watch = Stopwatch(steps)
    net = NeuralNetClassifier(
        network,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=MOMENTUM,
        optimizer__weight_decay=WEIGHT_DECAY,
        lr=LR,
        batch_size=BATCH,
        max_epochs=1,
        iterator_train__shuffle=True,
        iterator_train__num_workers=workers,
        train_split=None,
        callbacks=[Clock()],
        verbose=0,
    )
    net.fit(Subset(training_set(data_dir), range((WARMUP + steps) * BATCH)), y=None)
    return watch.images_per_second


def fastai(data_dir: Path, network: Network, steps: int, workers: int = 0) -> float:
    """Learner on torch DataLoaders (docs.fast.ai/examples/migrating_pytorch.html), the faster of two documented ways.

    fastai's own item and batch transforms (docs.fast.ai/vision.augment.html) were slower, an item at a time in Python.
    """
    from fastai.vision.all import SGD, Callback, CancelFitException, DataLoaders, Learner

    class Clock(Callback):
        def after_batch(self) -> None:
            watch.batch_ends()
            if watch.done:
                raise CancelFitException

    watch = Stopwatch(steps)
    loader = training_loader(data_dir, workers)
    opt_func = functools.partial(SGD, mom=MOMENTUM, decouple_wd=False)
    learn = Learner(
        DataLoaders(loader, loader), network(), loss_func=nn.CrossEntropyLoss(), opt_func=opt_func, cbs=Clock()
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=LR, wd=WEIGHT_DECAY)
    return watch.images_per_second


PEERS: dict[str, Peer] = {
    "tutorial": tutorial,
    "tutorial_2_workers": functools.partial(tutorial, workers=2),
    "tutorial_bf16": functools.partial(tutorial, bf16=True),
    "lightning": lightning,
    "keras": keras,
    "keras_layers": functools.partial(keras, augment_in_model=True),
    "skorch": skorch,
    "fastai": fastai,
}


def versions(name: str) -> dict[str, str]:
    """Of everything that plays a part in a peer's figure."""
    packages = ["torch", "torchvision", "pillow"] + [
        p for p in ("lightning", "keras", "skorch", "fastai") if name.startswith(p)
    ]
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def steps_within_an_epoch(text: str) -> int:
    steps = int(text)
    if not 1 <= steps <= MAX_STEPS:
        raise argparse.ArgumentTypeError(
            f"{steps} batches do not fit in the epoch behind the warm-up: give 1 to {MAX_STEPS}"
        )
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--network", choices=NETWORKS, default="simple_convnet")
    parser.add_argument("--steps", type=steps_within_an_epoch, default=200, help="batches to time (default 200)")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library prints, stdout holds one line
        rate = PEERS[given.name](given.data_dir, NETWORKS[given.network], given.steps)
    line = {"name": given.name, "network": given.network, "steps": given.steps, "images_per_second": round(rate, 1)}
    print(json.dumps(line | {"threads": torch.get_num_threads(), "versions": versions(given.name)}))


if __name__ == "__main__":
    main()
