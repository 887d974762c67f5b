"""The inductive biases of a convnet, shown by breaking them: one experiment on original and rearranged images.

Locality: neighboring pixels belong together. Stationarity: a pattern means the same wherever it is, so one set of
weights serves all positions. Two networks of the same size are trained on the same images in several arrangements (see
`theory.arrangements`), as trials like those of a study.
"""

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from convolab.core.errors import LabError, require
from convolab.core.stats import Interval, mean_interval
from convolab.data.catalog import DATASETS
from convolab.data.dataset import ImageDataset, channel_mean_std
from convolab.data.memmap import write_memmap
from convolab.data.splits import DatasetSplits
from convolab.models.classifier import ImageClassifier
from convolab.models.registry import build
from convolab.studies.executor import Executor, Job, JobEvent, LocalExecutor
from convolab.studies.main_guard import require_guarded_main
from convolab.theory.arrangements import AS_IS, PriorsConfig, iterate_arrangements, pixel_permutation
from convolab.training.callbacks import NO_CALLBACKS
from convolab.training.fit import fit
from convolab.training.lr_schedule import CosineLR
from convolab.training.optim import Adam
from convolab.training.recipe import Recipe, Training
from convolab.training.run import Run

CONVNET, FULLY_CONNECTED = "simple_convnet", "shallow_net"
IMAGES_PER_CHUNK = 960  # whole blocks of rows, as matrix products take them: the bits are those of one chunk
CONFIG_BY_DATASET = {"digits": PriorsConfig()}
LARGE_IMAGE_CONFIG = PriorsConfig(  # for larger images, such as cifar10's
    canvas_size=None, train_size=5_000, test_placements=1, epochs=10, batch_size=128
)


@dataclass(frozen=True)
class PriorsTrial:
    """One training."""

    arrangement: str
    network: str
    seed: int
    num_parameters: int
    train_accuracy: float  # of the last epoch, running
    test_accuracy: float  # on the test images in the same arrangement


@dataclass(frozen=True)
class PriorsResult:
    """The results of all trials; those of one seed use the same images, so they are compared in pairs."""

    config: PriorsConfig
    dataset_name: str
    num_classes: int
    trials: tuple[PriorsTrial, ...]

    def test_accuracies(self, arrangement: str, network: str) -> list[float]:
        """Test accuracies, by seed."""
        matching = [t for t in self.trials if (t.arrangement, t.network) == (arrangement, network)]
        return [t.test_accuracy for t in sorted(matching, key=lambda t: t.seed)]

    def mean_test_accuracy(self, arrangement: str, network: str) -> Interval:
        """Mean test accuracy over the seeds."""
        return mean_interval(self.test_accuracies(arrangement, network))

    def mean_accuracy_change(self, arrangement: str, network: str) -> Interval:
        """Mean change of a network's accuracy from the original images to an arrangement, over the seeds."""
        return mean_interval(
            paired_differences(self.test_accuracies(arrangement, network), self.test_accuracies(AS_IS, network))
        )

    def convnet_leads(self, arrangement: str) -> list[float]:
        """The convnet's accuracy minus the fully-connected network's, by seed."""
        return paired_differences(
            self.test_accuracies(arrangement, CONVNET), self.test_accuracies(arrangement, FULLY_CONNECTED)
        )

    def mean_convnet_lead(self, arrangement: str) -> Interval:
        """Mean lead of the convnet over the seeds."""
        return mean_interval(self.convnet_leads(arrangement))

    def mean_lead_loss(self, arrangement: str) -> Interval:
        """By how much an arrangement makes the convnet's lead smaller, on average over the seeds."""
        return mean_interval(paired_differences(self.convnet_leads(AS_IS), self.convnet_leads(arrangement)))

    @cached_property
    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each network."""
        return {t.network: t.num_parameters for t in self.trials}


def paired_differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """first minus second, pair by pair."""
    return [a - b for a, b in zip(first, second, strict=True)]


def config_for_dataset(dataset_name: str, seed: int = 0, num_seeds: int = 5) -> PriorsConfig:
    """The experiment for a dataset: digits are placed on a canvas, other images are used as they are."""
    config = CONFIG_BY_DATASET.get(dataset_name, LARGE_IMAGE_CONFIG)
    return config.model_copy(update={"seed": seed, "num_seeds": num_seeds})


def run_priors_experiment(
    config: PriorsConfig,
    splits: DatasetSplits,
    on_trial_end: Callable[[PriorsTrial], None] | None = None,
    executor: Executor | None = None,
) -> PriorsResult:
    """Train every network on every arrangement for every seed, by an executor of studies.

    Args:
        config: the settings.
        splits: the images.
        on_trial_end: called with each trial once it is trained and tested.
        executor: what trains; default: the cores of this machine.

    Raises LabError if the settings do not fit the images, a trial fails, or a script calls this outside of
    `if __name__ == "__main__":`.
    """
    validate_priors_config(config, splits)
    if executor is None:
        require_guarded_main()
        executor = LocalExecutor()
    trials: list[PriorsTrial] = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        for arrangement, (train, test) in iterate_arrangements(config, splits, seed):
            for trial in train_arrangement(config, arrangement, DatasetSplits(train, test), seed, executor):
                trials.append(trial)
                if on_trial_end:
                    on_trial_end(trial)
    return PriorsResult(config, splits.train.name, len(splits.train.classes), tuple(trials))


def validate_priors_config(config: PriorsConfig, splits: DatasetSplits) -> None:
    """Raise LabError, before any work, if the experiment cannot be made with these images."""
    count = len(splits.train)
    _, height, width = splits.train.shape
    require(
        config.train_size <= count,
        f"the experiment trains on {config.train_size} images but {splits.train.name} has {count}: "
        "choose a larger dataset",
    )
    require(
        config.batch_size <= config.train_size,
        f"batch_size is {config.batch_size}: give at most the {config.train_size} images to train on",
    )
    require(config.num_seeds >= 2, "one seed gives no confidence interval: use at least 2")
    if config.canvas_size is not None:
        smallest = max(height, width) + 3
        require(
            config.canvas_size >= smallest,
            f"{height}x{width} images cannot be moved on a {config.canvas_size}-pixel canvas: use at least {smallest}",
        )
    canvas_size = config.canvas_size or min(height, width)
    require(2 <= config.block_size <= canvas_size, f"block_size is {config.block_size}: give 2 to {canvas_size}")


def train_arrangement(
    config: PriorsConfig, arrangement: str, splits: DatasetSplits, seed: int, executor: Executor
) -> list[PriorsTrial]:
    """Train both networks on one arrangement, and test each once. Raises LabError if one cannot be trained."""

    def raise_failure(event: JobEvent) -> None:
        if event.kind in ("failed", "diverged"):
            raise LabError(f"a trial on images {arrangement}, seed {seed}, {event.kind}: {event.reason}")

    with tempfile.TemporaryDirectory(prefix="convolab-") as folder:
        dataset_folder = Path(folder) / "images"
        write_memmap(splits, dataset_folder)
        recipes = make_recipes(config, splits.train, seed)
        jobs = [Job(recipe, Path(folder) / network) for network, recipe in recipes.items()]
        executor.run(jobs, dataset_folder, raise_failure, lambda: False)
        trials = []
        for network in recipes:
            run = Run(Path(folder) / network)
            num_parameters = run.summary["num_parameters"] or 0  # a run of this edition has it
            test_accuracy = run.test(splits=splits).accuracy
            train_accuracy = run.history[-1].train_accuracy
            trials.append(PriorsTrial(arrangement, network, seed, num_parameters, train_accuracy, test_accuracy))
        return trials


def make_recipes(config: PriorsConfig, train: ImageDataset, seed: int) -> dict[str, Recipe]:
    """The recipe of each network, by its name."""
    values = {
        "data": {
            "name": train.name if train.name in DATASETS else f"folder:{train.name}",
            "validation": 0.0,
            "augment": [],
        },
        "optimizer": {"name": "adam", "lr": config.lr},
        "schedule": {"name": "cosine"},
        "training": {"epochs": config.epochs, "batch_size": config.batch_size, "seed": seed},
    }
    hidden = count_hidden_units(train.shape, len(train.classes))
    models = {CONVNET: {"name": CONVNET}, FULLY_CONNECTED: {"name": FULLY_CONNECTED, "hidden": hidden}}
    return {network: Recipe.from_dict({**values, "model": model}) for network, model in models.items()}


def count_hidden_units(shape: tuple[int, int, int], classes: int) -> int:
    """The hidden units that give the fully-connected network about as many parameters as the convnet has.

    >>> count_hidden_units((1, 16, 16), 10)
    90
    """
    num_parameters = sum(p.numel() for p in build(CONVNET, shape, classes).parameters())
    num_inputs = shape[0] * shape[1] * shape[2]
    return max(1, round((num_parameters - classes) / (num_inputs + 1 + classes)))


@dataclass(frozen=True)
class PermutationInvariance:
    """A fully-connected network, and a copy whose input weights are permuted like its images."""

    untrained_difference: float  # largest difference of any logit on any test image, in float64, untrained
    trained_difference: float  # the same after both were trained, in float32, on their own images
    max_abs_logit: float  # largest logit after training
    epochs: int


def measure_permutation_invariance(
    config: PriorsConfig, splits: DatasetSplits, epochs: int = 2
) -> PermutationInvariance:
    """Show that a fully-connected network treats permuted images like others.

    W x = (W P') (P x) for every permutation matrix P, so the copy with the weights W P' is the same function; its
    gradient is permuted in the same way, and so is every step of an optimizer that treats all weights alike. As the
    initial weights are drawn independently, W P' is an equally likely initialization: the expected accuracy on permuted
    images is exactly the same.
    """
    seed = config.seed
    (_, (train, test)), (_, (train_permuted, test_permuted)), *_ = iterate_arrangements(config, splits, seed)
    pixel_order = pixel_permutation(*train.shape[1:], seed)
    classes = len(train.classes)
    network = build(FULLY_CONNECTED, train.shape, classes, seed=seed, hidden=count_hidden_units(train.shape, classes))
    permuted_network = permute_input_weights(network, pixel_order)
    untrained = float64_logits(network, test) - float64_logits(permuted_network, test_permuted)
    train_in_place(config, network, train, seed, epochs)
    train_in_place(config, permuted_network, train_permuted, seed, epochs)
    logits = float64_logits(network, test)
    trained = logits - float64_logits(permuted_network, test_permuted)
    return PermutationInvariance(
        untrained.abs().max().item(), trained.abs().max().item(), logits.abs().max().item(), epochs
    )


def train_in_place(config: PriorsConfig, network: nn.Module, train: ImageDataset, seed: int, epochs: int) -> None:
    """Train a network by the experiment's recipe."""
    mean, std = channel_mean_std(train)
    _, height, width = train.shape
    classifier = ImageClassifier(network, mean=mean, std=std, input_size=(height, width), classes=train.classes)
    training = Training(epochs=epochs, batch_size=config.batch_size, seed=seed)
    adam = Adam(lr=config.lr)
    fit(classifier, train, optimizer=adam, schedule=CosineLR(), training=training, callbacks=NO_CALLBACKS)


def permute_input_weights(network: nn.Module, pixel_order: Int64[Tensor, "pixels"]) -> nn.Module:
    """A copy of a `shallow_net` whose input weights are permuted: those of pixel j are what pixel_order[j] had."""
    permuted_network = copy.deepcopy(network)
    hidden = permuted_network.get_submodule("hidden")
    assert isinstance(hidden, nn.Linear)
    weight = hidden.weight.data  # [hidden, channels * pixels]
    hidden.weight.data = weight.view(len(weight), -1, len(pixel_order)).index_select(2, pixel_order).flatten(1)
    return permuted_network


@torch.inference_mode()
def float64_logits(network: nn.Module, dataset: ImageDataset) -> Float[Tensor, "n classes"]:
    """The logits of all images, in float64; of as many at a time as keep the memory small."""
    network = copy.deepcopy(network).double().eval()
    # The last chunk has the remainder too: a product with few rows takes another path, which rounds otherwise.
    starts = range(IMAGES_PER_CHUNK, len(dataset.images) - IMAGES_PER_CHUNK + 1, IMAGES_PER_CHUNK)
    chunks = dataset.images.tensor_split(tuple(starts))
    return torch.cat([network(images.double() / 255) for images in chunks])
