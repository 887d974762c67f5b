"""Our training loop gives the results of the textbook loop in plain torch with the default memory format."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convolab.core.rng import make_generator
from convolab.data.catalog import load
from convolab.data.dataset import Subset
from convolab.models.registry import build
from convolab.training.fit import fit
from convolab.training.lr_schedule import CosineLR
from convolab.training.optim import SGD, AdamW, Optimizer
from convolab.training.recipe import Training


def train_plainly(
    net: nn.Module, optimizer: torch.optim.Optimizer, images: Subset, epochs: int, size: int, seed: int
) -> list[float]:
    """Train with the textbook loop and a cosine schedule; return the mean loss of each epoch."""
    images, labels = images.gather(torch.arange(len(images)))
    pixels, means = images.float() / 255, []
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * -(-len(labels) // size))
    net.train()
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(labels), generator=make_generator(seed, "order", epoch)).split(size):
            loss = F.cross_entropy(net(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        means.append(total / len(labels))
    return means


def parameters(net: nn.Module) -> list[Tensor]:
    return [tensor.double() for tensor in net.state_dict().values()]


class InFloat64(nn.Module):
    """A network in float64, for Adam, which divides gradients by their size, so rounding errors may become large steps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels.double())


def assert_same_training(
    ours: nn.Module, theirs: nn.Module, optimizer: Optimizer, plain: torch.optim.Optimizer
) -> None:
    images = load("digits").train.subset(torch.arange(200))  # the last batch is smaller
    expected = train_plainly(theirs, plain, images, epochs=2, size=64, seed=5)
    history = fit(
        ours, images, optimizer=optimizer, schedule=CosineLR(), training=Training(epochs=2, batch_size=64, seed=5)
    )
    assert [epoch.train_loss for epoch in history] == pytest.approx(expected, rel=1e-5)
    for one, other in zip(parameters(ours), parameters(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["simple_convnet", "shallow_net"])
def test_fit_gives_the_results_of_the_plain_loop(name: str) -> None:
    ours, theirs = (build(name, (1, 8, 8), 10, seed=2) for _ in range(2))
    plain = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    assert_same_training(ours, theirs, SGD(lr=0.01, weight_decay=5e-4), plain)


@pytest.mark.parametrize("name", ["simple_convnet", "resnet_small"])
def test_fit_with_adamw_gives_the_results_of_the_plain_loop(name: str) -> None:
    ours, theirs = (InFloat64(build(name, (1, 8, 8), 10, seed=2)) for _ in range(2))
    plain = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.1)
    assert_same_training(ours, theirs, AdamW(lr=1e-3, weight_decay=0.1), plain)
