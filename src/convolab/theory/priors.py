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

from convolab.core.errors import need
from convolab.core.rng import generator
from convolab.core.stats import Interval, mean_interval
from convolab.core.types import Frozen, PositiveFloat, PositiveInt
from convolab.data.catalog import Pictures
from convolab.data.dataset import ImageSet, mean_and_std
from convolab.models import zoo
from convolab.models.classifier import PixelNet
from convolab.training.lr_schedule import Cosine
from convolab.training.optim import Adam
from convolab.training.recipe import Training
from convolab.training.setup import in_proportion
from convolab.training.trainer import evaluate, fit

AS_IS, PERMUTED, BLOCKS, MOVED = "as they are", "pixels permuted", "shifted in blocks", "moved"
CONVNET, CONNECTED = "simple_convnet", "shallow_net"


class Experiment(Frozen):
    """Everything that decides its result, beside the pictures. Both networks are trained by the same recipe."""

    side: PositiveInt | None = (
        16  # pixels of the canvas on which each picture is placed anywhere; None: the pictures as the set has them
    )
    train: PositiveInt = 1000  # pictures to train on
    copies: PositiveInt = 3  # places where each test picture is shown
    block: PositiveInt = 4  # pixels, side of the blocks that are shifted
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 0.01  # Adam's, along half a cosine
    seed: int = 0
    seeds: PositiveInt = 5  # trainings of each kind: seed, seed + 1, ...

    @property
    def arrangements(self) -> tuple[str, ...]:
        """What this experiment trains on; only pictures on a canvas can be moved."""
        return (AS_IS, PERMUTED, BLOCKS) if self.side is None else (AS_IS, PERMUTED, BLOCKS, MOVED)

    @property
    def trials(self) -> int:
        return self.seeds * len(self.arrangements) * 2


EXPERIMENTS = {"digits": Experiment()}
LARGER = Experiment(
    side=None, train=5_000, copies=1, epochs=10, batch_size=128
)  # for sets of larger pictures, such as cifar10


@dataclass(frozen=True)
class Trial:
    """One training."""

    arrangement: str
    network: str
    seed: int
    parameters: int
    train_accuracy: float  # of the last epoch, running
    accuracy: float  # on the test pictures, arranged likewise


@dataclass(frozen=True)
class Findings:
    """What the trials came to. The two networks and the arrangements of one seed see the same pictures, so they are compared by pairs."""

    experiment: Experiment
    data: str
    classes: int
    trials: tuple[Trial, ...]

    def accuracies(self, arrangement: str, network: str) -> list[float]:
        """Test accuracies, by seed."""
        found = [t for t in self.trials if (t.arrangement, t.network) == (arrangement, network)]
        return [t.accuracy for t in sorted(found, key=lambda t: t.seed)]

    def accuracy(self, arrangement: str, network: str) -> Interval:
        """Mean test accuracy over the seeds."""
        return mean_interval(self.accuracies(arrangement, network))

    def change(self, arrangement: str, network: str) -> Interval:
        """What an arrangement adds to a network's accuracy, over the seeds."""
        return mean_interval(differences(self.accuracies(arrangement, network), self.accuracies(AS_IS, network)))

    def leads(self, arrangement: str) -> list[float]:
        """By how much the convnet is better than the fully-connected network, by seed."""
        return differences(self.accuracies(arrangement, CONVNET), self.accuracies(arrangement, CONNECTED))

    def lead(self, arrangement: str) -> Interval:
        return mean_interval(self.leads(arrangement))

    def lost(self, arrangement: str) -> Interval:
        """By how much an arrangement makes the convnet's lead smaller."""
        return mean_interval(differences(self.leads(AS_IS), self.leads(arrangement)))

    @cached_property
    def parameters(self) -> dict[str, int]:
        """The size of each network."""
        return {t.network: t.parameters for t in self.trials}


def differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Pair by pair."""
    return [a - b for a, b in zip(first, second, strict=True)]


def experiment(data: str, seed: int = 0, seeds: int = 5) -> Experiment:
    """The experiment for a picture set: digits are placed on a canvas, other sets are as they are."""
    return EXPERIMENTS.get(data, LARGER).model_copy(update={"seed": seed, "seeds": seeds})


def run(plan: Experiment, pictures: Pictures, on_trial: Callable[[Trial], None] | None = None) -> Findings:
    """Train every network on every arrangement for every seed. Raises LabError if the plan and the pictures do not fit."""
    check(plan, pictures)
    trials = []
    for seed in range(plan.seed, plan.seed + plan.seeds):
        for arrangement, (train, test) in arranged(plan, pictures, seed):
            for name, network in networks(train.shape, len(train.classes), seed).items():
                size = sum(p.numel() for p in network.parameters())
                trials.append(Trial(arrangement, name, seed, size, *trial(plan, network, train, test, seed)))
                if on_trial:
                    on_trial(trials[-1])
    return Findings(plan, pictures.train.name, len(pictures.train.classes), tuple(trials))


def check(plan: Experiment, pictures: Pictures) -> None:
    """Raise LabError, before any work, if the experiment cannot be made with these pictures."""
    count, (_, height, width) = len(pictures.train), pictures.train.shape
    need(
        plan.train <= count,
        f"the experiment trains on {plan.train} pictures, and {pictures.train.name} has {count}: give a larger set",
    )
    need(plan.seeds >= 2, "one seed has no interval: give at least 2")
    if plan.side is not None:
        need(
            plan.side >= max(height, width) + 3,
            f"pictures of {height}x{width} cannot be moved on a canvas of {plan.side}: give one 3 pixels larger, or more",
        )
    side = plan.side or min(height, width)
    need(2 <= plan.block <= side, f"blocks of {plan.block} pixels: give 2 to {side}")


def networks(shape: tuple[int, int, int], classes: int, seed: int) -> dict[str, nn.Module]:
    """A convnet, and a fully-connected network with as many hidden units as give it about as many parameters.

    >>> [sum(p.numel() for p in net.parameters()) for net in networks((1, 16, 16), 10, seed=0).values()]
    [24058, 24040]
    """
    convnet = zoo.build(CONVNET, shape, classes, seed=seed)
    size = sum(p.numel() for p in convnet.parameters())
    inputs = shape[0] * shape[1] * shape[2]
    hidden = max(1, round((size - classes) / (inputs + 1 + classes)))
    return {CONVNET: convnet, CONNECTED: zoo.build(CONNECTED, shape, classes, seed=seed, hidden=hidden)}


def trial(plan: Experiment, network: nn.Module, train: ImageSet, test: ImageSet, seed: int) -> tuple[float, float]:
    """Train a network and test it once: accuracy on the training pictures, running over the last epoch, and on the test's."""
    mean, std = mean_and_std(train)
    net = PixelNet(network, mean=mean, std=std, size=train.shape[1:], classes=train.classes)
    training = Training(epochs=plan.epochs, batch_size=plan.batch_size, seed=seed)
    history = fit(net, train, optimizer=Adam(lr=plan.lr), schedule=Cosine(), training=training)
    return history[-1].train_accuracy, evaluate(net, test).accuracy


def arranged(plan: Experiment, pictures: Pictures, seed: int) -> Iterator[tuple[str, tuple[ImageSet, ImageSet]]]:
    """The training and the test pictures in each arrangement; which pictures, where and how is a function of the seed."""
    rows = in_proportion(pictures.train, plan.train, seed)
    few = ImageSet(*pictures.train.take(rows.rows), pictures.train.classes, pictures.train.name)
    places = [(few, "train", 1), (pictures.test, "test", plan.copies)]
    train, test = (placed(part, plan.side, copies, seed, purpose) for part, purpose, copies in places)
    yield AS_IS, (train, test)
    height, width = train.shape[1:]
    for name, order in (
        (PERMUTED, permutation(height, width, seed)),
        (BLOCKS, block_shifts(height, width, plan.block, seed)),
    ):
        yield name, (rearranged(train, order), rearranged(test, order))
    if plan.side is not None:
        yield MOVED, tuple(placed(part, plan.side, copies, seed, purpose, purpose) for part, purpose, copies in places)


def placed(
    pictures: ImageSet, side: int | None, copies: int, seed: int, purpose: str, where: str = "anywhere"
) -> ImageSet:
    """Each picture on black canvases of `side` pixels, at `copies` places drawn for it, equally likely anywhere.

    For `where` = "train" only places of the left third are drawn, for "test" only those of the right third. Without a side
    the pictures stay as they are.
    """
    if side is None:
        return pictures
    count, channels, height, width = len(pictures) * copies, *pictures.shape
    draw = generator(seed, "place", purpose)
    down, right = side - height + 1, side - width + 1  # places there are
    third = max(1, right // 3)
    first, last = {"train": (0, third), "test": (right - third, right)}.get(where, (0, right))
    y = torch.randint(down, (count, 1, 1, 1), generator=draw) + torch.arange(height)[:, None]
    x = torch.randint(first, last, (count, 1, 1, 1), generator=draw) + torch.arange(width)
    canvas = torch.zeros(count, channels, side, side, dtype=torch.uint8)
    which, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(-1, 1, 1)
    canvas[which, channel, y, x] = pictures.images.repeat(copies, 1, 1, 1)
    return ImageSet(canvas, pictures.labels.repeat(copies), pictures.classes, pictures.name)


def rearranged(pictures: ImageSet, order: Int64[Tensor, "pixels"]) -> ImageSet:
    """The same pixels in another order, the same for every picture and channel: pixel j is what pixel order[j] was."""
    images = pictures.images.flatten(2).index_select(2, order).view(pictures.images.shape)
    return ImageSet(images, pictures.labels, pictures.classes, pictures.name)


def permutation(height: int, width: int, seed: int) -> Int64[Tensor, "pixels"]:
    """A random order of all pixels."""
    return torch.randperm(height * width, generator=generator(seed, "permutation"))


def block_shifts(height: int, width: int, block: int, seed: int) -> Int64[Tensor, "pixels"]:
    """An order that turns each block of pixels, circularly within itself, by an amount drawn for the block."""
    order, draw = torch.arange(height * width).view(height, width), generator(seed, "blocks")
    for top in range(0, height, block):
        for left in range(0, width, block):
            here = (slice(top, top + block), slice(left, left + block))
            order[here] = order[here].roll(torch.randint(block, (2,), generator=draw).tolist(), (0, 1))
    return order.flatten()


@dataclass(frozen=True)
class Sameness:
    """A fully-connected network, and its twin whose first weights are permuted as the twin's pictures are."""

    before: float  # largest difference of any logit on any test picture, in float64, untrained
    after: float  # the same after both were trained, in float32, on their own pictures
    scale: float  # largest logit after training
    epochs: int


def sameness(plan: Experiment, pictures: Pictures, epochs: int = 2) -> Sameness:
    """Show that a fully-connected network cannot tell permuted pictures from others.

    W x = (W P') (P x) for every permutation matrix P, so the twin with the weights W P' is the same function; its gradient is
    permuted likewise, and so is every step of a descent that treats all weights alike. As the first weights are drawn
    independently, W P' is as likely a start as W: a network trained on permuted pictures is as good, on average, exactly.
    """
    seed = plan.seed
    (_, (train, test)), (_, (train_permuted, test_permuted)), *_ = arranged(plan, pictures, seed)
    order = permutation(*train.shape[1:], seed)
    network = networks(train.shape, len(train.classes), seed)[CONNECTED]
    twin = with_permuted_inputs(network, order)
    before = (logits(network, test) - logits(twin, test_permuted)).abs().max().item()
    short = plan.model_copy(update={"epochs": epochs})
    trial(short, network, train, test, seed)
    trial(short, twin, train_permuted, test_permuted, seed)
    ours, twins = logits(network, test), logits(twin, test_permuted)
    return Sameness(before, (ours - twins).abs().max().item(), ours.abs().max().item(), epochs)


def with_permuted_inputs(network: nn.Module, order: Int64[Tensor, "pixels"]) -> nn.Module:
    """A copy of a `shallow_net` whose first weights belong to the pixels in another order."""
    twin = copy.deepcopy(network)
    weight = twin.hidden.weight.data  # [hidden, channels * pixels]
    twin.hidden.weight.data = weight.view(len(weight), -1, len(order)).index_select(2, order).flatten(1)
    return twin


@torch.inference_mode()
def logits(network: nn.Module, pictures: ImageSet) -> Float[Tensor, "n classes"]:
    """Of all pictures, in float64."""
    return copy.deepcopy(network).double().eval()(pictures.images.double() / 255)
