"""CIFAR-10 as other libraries show it to their newcomers: each with its own network, optimizer and number of epochs.

    python benchmarks/library_examples.py keras --data-dir DIR --seed 0

Keras: the small network of its authors' tutorial (tensorflow.org/tutorials/images/cnn), Adam, ten epochs of batches of 32, on
torch. fastai: what its tutorials teach for images (docs.fast.ai/tutorial.vision.html) with the network of its own that they take for
small ones: `Learner`, `xresnet18`, `fit_one_cycle`, its default transforms of a batch, five epochs of batches of 64.

Prints one JSON line: the seconds of training and the accuracy on the test images, which is measured once, after them.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import processor
from peers import CIFAR10


def read(data_dir: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    data = CIFAR10(data_dir, train=train)
    return data.data, np.array(data.targets)  # uint8 [N, 32, 32, 3], [N]


def keras(data_dir: Path, seed: int, epochs: int = 10) -> tuple[float, float]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    (images, labels), (test_images, test_labels) = read(data_dir, train=True), read(data_dir, train=False)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    start = time.perf_counter()
    model.fit(images / np.float32(255), labels, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
    return seconds, model.evaluate(test_images / np.float32(255), test_labels, verbose=0, return_dict=True)["accuracy"]


def fastai(data_dir: Path, seed: int, epochs: int = 5) -> tuple[float, float]:
    from fastai.vision.all import (
        Callback,
        CategoryBlock,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Learner,
        PILImage,
        accuracy,
        aug_transforms,
        set_seed,
        xresnet18,
    )

    class Clock(Callback):
        """Training alone: fastai validates after each epoch."""

        seconds = 0.0

        def before_train(self) -> None:
            self.start = time.perf_counter()

        def after_train(self) -> None:
            self.seconds += time.perf_counter() - self.start

    set_seed(seed)
    (images, labels), (test_images, test_labels) = read(data_dir, train=True), read(data_dir, train=False)
    images, labels = np.concatenate([images, test_images]), np.concatenate([labels, test_labels])
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_x=lambda index: PILImage.create(images[index]),
        get_y=lambda index: int(labels[index]),
        splitter=IndexSplitter(range(len(images) - len(test_images), len(images))),
        batch_tfms=aug_transforms(),
    )
    loaders = block.dataloaders(list(range(len(images))), num_workers=0)
    clock = Clock()
    learn = Learner(loaders, xresnet18(n_out=10), metrics=accuracy, cbs=clock)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs)
        return clock.seconds, float(learn.validate()[1])


EXAMPLES: dict[str, Callable[..., tuple[float, float]]] = {"keras": keras, "fastai": fastai}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=sorted(EXAMPLES))
    parser.add_argument("--data-dir", type=Path, required=True, help="holds cifar-10-batches-py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="default: the example's")
    options = parser.parse_args()
    epochs = {} if options.epochs is None else {"epochs": options.epochs}
    seconds, accuracy = EXAMPLES[options.library](options.data_dir, options.seed, **epochs)
    print(json.dumps({"processor": processor(), "seed": options.seed, "seconds": seconds, "test_accuracy": accuracy}))


if __name__ == "__main__":
    main()
