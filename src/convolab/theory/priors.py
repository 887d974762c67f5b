"""What a convnet assumes, shown by taking it away: one experiment on pictures as they are and rearranged.

Locality: neighbouring pixels belong together. Stationarity: the same pattern means the same wherever it is, so one set of
weights serves all places. Two networks of the same size are trained on the same pictures, arranged in four ways:

    as they are         both assumptions hold
    pixels permuted     one fixed permutation of all pixels: neither holds, though no information is lost
    shifted in blocks   each block's pixels turned by an amount of its own: neighbours stay near, but every place looks different
    moved               trained with digits on the left, tested with digits on the right; of pictures placed on a canvas only
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.core.stats import Interval, mean_interval
from convolab.core.types import Frozen, PositiveFloat, PositiveInt
from convolab.data.dataset import ImageDataset, channel_mean_std
from convolab.data.splits import DatasetSplits
from convolab.models.classifier import ImageClassifier
from convolab.models.registry import build
from convolab.training.lr_schedule import CosineLR
from convolab.training.optim import Adam
from convolab.training.recipe import Training
from convolab.training.setup import stratified_subsample
from convolab.training.trainer import evaluate, fit

AS_IS, PERMUTED, BLOCKS, MOVED = "as they are", "pixels permuted", "shifted in blocks", "moved"
CONVNET, FULLY_CONNECTED = "simple_convnet", "shallow_net"


class PriorsConfig(Frozen):
    """Everything that decides its result, beside the pictures. Both networks are trained by the same recipe."""

    canvas_size: PositiveInt | None = (
        16  # pixels of the canvas on which each picture is placed anywhere; None: the pictures as the set has them
    )
    train_size: PositiveInt = 1000  # pictures to train on
    test_placements: PositiveInt = 3  # places where each test picture is shown
    block_size: PositiveInt = 4  # pixels, side of the blocks that are shifted
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 0.01  # Adam's, along half a cosine
    seed: int = 0
    num_seeds: PositiveInt = 5  # trainings of each kind: seed, seed + 1, ...

    @property
    def arrangements(self) -> tuple[str, ...]:
        """What this experiment trains on; only pictures on a canvas can be moved."""
        return (AS_IS, PERMUTED, BLOCKS) if self.canvas_size is None else (AS_IS, PERMUTED, BLOCKS, MOVED)

    @property
    def num_trials(self) -> int:
        return self.num_seeds * len(self.arrangements) * 2


CONFIG_BY_DATASET = {"digits": PriorsConfig()}
LARGE_IMAGE_CONFIG = PriorsConfig(
    canvas_size=None, train_size=5_000, test_placements=1, epochs=10, batch_size=128
)  # for sets of larger pictures, such as cifar10


@dataclass(frozen=True)
class PriorsTrial:
    """One training."""

    arrangement: str
    network: str
    seed: int
    num_parameters: int
    train_accuracy: float  # of the last epoch, running
    test_accuracy: float  # on the test pictures, arranged likewise


@dataclass(frozen=True)
class PriorsResult:
    """What the trials came to. The two networks and the arrangements of one seed see the same pictures, so they are compared by pairs."""

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
        """What an arrangement adds to a network's accuracy, over the seeds."""
        return mean_interval(
            paired_differences(self.test_accuracies(arrangement, network), self.test_accuracies(AS_IS, network))
        )

    def convnet_leads(self, arrangement: str) -> list[float]:
        """By how much the convnet is better than the fully-connected network, by seed."""
        return paired_differences(
            self.test_accuracies(arrangement, CONVNET), self.test_accuracies(arrangement, FULLY_CONNECTED)
        )

    def mean_convnet_lead(self, arrangement: str) -> Interval:
        return mean_interval(self.convnet_leads(arrangement))

    def mean_lead_loss(self, arrangement: str) -> Interval:
        """By how much an arrangement makes the convnet's lead smaller."""
        return mean_interval(paired_differences(self.convnet_leads(AS_IS), self.convnet_leads(arrangement)))

    @cached_property
    def parameter_counts(self) -> dict[str, int]:
        """The size of each network."""
        return {t.network: t.num_parameters for t in self.trials}


def paired_differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Pair by pair."""
    return [a - b for a, b in zip(first, second, strict=True)]


def config_for_dataset(dataset_name: str, seed: int = 0, seeds: int = 5) -> PriorsConfig:
    """The experiment for a picture set: digits are placed on a canvas, other sets are as they are."""
    return CONFIG_BY_DATASET.get(dataset_name, LARGE_IMAGE_CONFIG).model_copy(update={"seed": seed, "seeds": seeds})


def run_priors_experiment(
    config: PriorsConfig, splits: DatasetSplits, on_trial_end: Callable[[PriorsTrial], None] | None = None
) -> PriorsResult:
    """Train every network on every arrangement for every seed. Raises LabError if the plan and the pictures do not fit."""
    validate_priors_config(config, splits)
    trials = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        for arrangement, (train, test) in iterate_arrangements(config, splits, seed):
            for name, network in build_networks(train.shape, len(train.classes), seed).items():
                num_parameters = sum(p.numel() for p in network.parameters())
                trials.append(
                    PriorsTrial(
                        arrangement, name, seed, num_parameters, *train_and_test(config, network, train, test, seed)
                    )
                )
                if on_trial_end:
                    on_trial_end(trials[-1])
    return PriorsResult(config, splits.train.name, len(splits.train.classes), tuple(trials))


def validate_priors_config(config: PriorsConfig, splits: DatasetSplits) -> None:
    """Raise LabError, before any work, if the experiment cannot be made with these pictures."""
    count, (_, height, width) = len(splits.train), splits.train.shape
    require(
        config.train_size <= count,
        f"the experiment trains on {config.train_size} pictures, and {splits.train.name} has {count}: give a larger set",
    )
    require(config.num_seeds >= 2, "one seed has no interval: give at least 2")
    if config.canvas_size is not None:
        require(
            config.canvas_size >= max(height, width) + 3,
            f"pictures of {height}x{width} cannot be moved on a canvas of {config.canvas_size}: give one 3 pixels larger, or more",
        )
    canvas_size = config.canvas_size or min(height, width)
    require(2 <= config.block_size <= canvas_size, f"blocks of {config.block_size} pixels: give 2 to {canvas_size}")


def build_networks(shape: tuple[int, int, int], classes: int, seed: int) -> dict[str, nn.Module]:
    """A convnet, and a fully-connected network with as many hidden units as give it about as many parameters.

    >>> [sum(p.numel() for p in net.parameters()) for net in networks((1, 16, 16), 10, seed=0).values()]
    [24058, 24040]
    """
    convnet = build(CONVNET, shape, classes, seed=seed)
    num_parameters = sum(p.numel() for p in convnet.parameters())
    num_inputs = shape[0] * shape[1] * shape[2]
    hidden = max(1, round((num_parameters - classes) / (num_inputs + 1 + classes)))
    return {CONVNET: convnet, FULLY_CONNECTED: build(FULLY_CONNECTED, shape, classes, seed=seed, hidden=hidden)}


def train_and_test(
    config: PriorsConfig, network: nn.Module, train: ImageDataset, test: ImageDataset, seed: int
) -> tuple[float, float]:
    """Train a network and test it once: accuracy on the training pictures, running over the last epoch, and on the test's."""
    mean, std = channel_mean_std(train)
    classifier = ImageClassifier(network, mean=mean, std=std, input_size=train.shape[1:], classes=train.classes)
    training = Training(epochs=config.epochs, batch_size=config.batch_size, seed=seed)
    history = fit(classifier, train, optimizer=Adam(lr=config.lr), schedule=CosineLR(), training=training)
    return history[-1].train_accuracy, evaluate(classifier, test).accuracy


def iterate_arrangements(
    config: PriorsConfig, splits: DatasetSplits, seed: int
) -> Iterator[tuple[str, tuple[ImageDataset, ImageDataset]]]:
    """The training and the test pictures in each arrangement; which pictures, where and how is a function of the seed."""
    subset = stratified_subsample(splits.train, config.train_size, seed)
    train_subset = ImageDataset(*splits.train.gather(subset.indices), splits.train.classes, splits.train.name)
    placement_arguments = [(train_subset, "train", 1), (splits.test, "test", config.test_placements)]
    train, test = (
        place_on_canvas(part, config.canvas_size, copies, seed, purpose)
        for part, purpose, copies in placement_arguments
    )
    yield AS_IS, (train, test)
    height, width = train.shape[1:]
    for name, pixel_order in (
        (PERMUTED, pixel_permutation(height, width, seed)),
        (BLOCKS, block_shift_permutation(height, width, config.block_size, seed)),
    ):
        yield name, (reorder_pixels(train, pixel_order), reorder_pixels(test, pixel_order))
    if config.canvas_size is not None:
        yield (
            MOVED,
            tuple(
                place_on_canvas(part, config.canvas_size, copies, seed, purpose, purpose)
                for part, purpose, copies in placement_arguments
            ),
        )


def place_on_canvas(
    dataset: ImageDataset, canvas_size: int | None, placements: int, seed: int, split: str, region: str = "anywhere"
) -> ImageDataset:
    """Each picture on black canvases of `side` pixels, at `copies` places drawn for it, equally likely anywhere.

    For `where` = "train" only places of the left third are drawn, for "test" only those of the right third. Without a side
    the pictures stay as they are.
    """
    if canvas_size is None:
        return dataset
    count, channels, height, width = len(dataset) * placements, *dataset.shape
    rng = make_generator(seed, "place", split)
    vertical_positions, horizontal_positions = canvas_size - height + 1, canvas_size - width + 1  # places there are
    third = max(1, horizontal_positions // 3)
    first, last = {"train": (0, third), "test": (horizontal_positions - third, horizontal_positions)}.get(
        region, (0, horizontal_positions)
    )
    y = torch.randint(vertical_positions, (count, 1, 1, 1), generator=rng) + torch.arange(height)[:, None]
    x = torch.randint(first, last, (count, 1, 1, 1), generator=rng) + torch.arange(width)
    canvas = torch.zeros(count, channels, canvas_size, canvas_size, dtype=torch.uint8)
    image_index, channel_index = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(-1, 1, 1)
    canvas[image_index, channel_index, y, x] = dataset.images.repeat(placements, 1, 1, 1)
    return ImageDataset(canvas, dataset.labels.repeat(placements), dataset.classes, dataset.name)


def reorder_pixels(dataset: ImageDataset, pixel_order: Int64[Tensor, "pixels"]) -> ImageDataset:
    """The same pixels in another order, the same for every picture and channel: pixel j is what pixel order[j] was."""
    images = dataset.images.flatten(2).index_select(2, pixel_order).view(dataset.images.shape)
    return ImageDataset(images, dataset.labels, dataset.classes, dataset.name)


def pixel_permutation(height: int, width: int, seed: int) -> Int64[Tensor, "pixels"]:
    """A random order of all pixels."""
    return torch.randperm(height * width, generator=make_generator(seed, "permutation"))


def block_shift_permutation(height: int, width: int, block_size: int, seed: int) -> Int64[Tensor, "pixels"]:
    """An order that turns each block of pixels, circularly within itself, by an amount drawn for the block."""
    pixel_order, rng = torch.arange(height * width).view(height, width), make_generator(seed, "blocks")
    for top in range(0, height, block_size):
        for left in range(0, width, block_size):
            block_slice = (slice(top, top + block_size), slice(left, left + block_size))
            pixel_order[block_slice] = pixel_order[block_slice].roll(
                torch.randint(block_size, (2,), generator=rng).tolist(), (0, 1)
            )
    return pixel_order.flatten()


@dataclass(frozen=True)
class PermutationInvariance:
    """A fully-connected network, and its twin whose first weights are permuted as the twin's pictures are."""

    untrained_difference: float  # largest difference of any logit on any test picture, in float64, untrained
    trained_difference: float  # the same after both were trained, in float32, on their own pictures
    max_abs_logit: float  # largest logit after training
    epochs: int


def measure_permutation_invariance(
    config: PriorsConfig, splits: DatasetSplits, epochs: int = 2
) -> PermutationInvariance:
    """Show that a fully-connected network cannot tell permuted pictures from others.

    W x = (W P') (P x) for every permutation matrix P, so the twin with the weights W P' is the same function; its gradient is
    permuted likewise, and so is every step of a descent that treats all weights alike. As the first weights are drawn
    independently, W P' is as likely a start as W: a network trained on permuted pictures is as good, on average, exactly.
    """
    seed = config.seed
    (_, (train, test)), (_, (train_permuted, test_permuted)), *_ = iterate_arrangements(config, splits, seed)
    pixel_order = pixel_permutation(*train.shape[1:], seed)
    network = build_networks(train.shape, len(train.classes), seed)[FULLY_CONNECTED]
    permuted_network = permute_input_weights(network, pixel_order)
    untrained_difference = (
        (float64_logits(network, test) - float64_logits(permuted_network, test_permuted)).abs().max().item()
    )
    short_config = config.model_copy(update={"epochs": epochs})
    train_and_test(short_config, network, train, test, seed)
    train_and_test(short_config, permuted_network, train_permuted, test_permuted, seed)
    network_logits, permuted_logits = float64_logits(network, test), float64_logits(permuted_network, test_permuted)
    return PermutationInvariance(
        untrained_difference,
        (network_logits - permuted_logits).abs().max().item(),
        network_logits.abs().max().item(),
        epochs,
    )


def permute_input_weights(network: nn.Module, pixel_order: Int64[Tensor, "pixels"]) -> nn.Module:
    """A copy of a `shallow_net` whose first weights belong to the pixels in another order."""
    permuted_network = copy.deepcopy(network)
    weight = permuted_network.hidden.weight.data  # [hidden, channels * pixels]
    permuted_network.hidden.weight.data = (
        weight.view(len(weight), -1, len(pixel_order)).index_select(2, pixel_order).flatten(1)
    )
    return permuted_network


@torch.inference_mode()
def float64_logits(network: nn.Module, dataset: ImageDataset) -> Float[Tensor, "n classes"]:
    """Of all pictures, in float64."""
    return copy.deepcopy(network).double().eval()(dataset.images.double() / 255)
