"""Our fused optimizers take the steps of torch's plain ones, and those of the published formulas."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from convolab.models.registry import build
from convolab.training.optim import SGD, Adam, AdamW, Muon, Optimizer

BuildOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

PAIRS: list[tuple[Optimizer, BuildOptimizer]] = [
    (SGD(), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=5e-4, foreach=False)),
    (SGD(lr=0.3, momentum=0.0, weight_decay=0.0), lambda p: torch.optim.SGD(p, lr=0.3, foreach=False)),
    (
        SGD(lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01, foreach=False),
    ),
    (Adam(), lambda p: torch.optim.Adam(p, lr=1e-3, foreach=False)),
    (
        Adam(lr=0.01, betas=(0.5, 0.9), weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.01, (0.5, 0.9), weight_decay=0.1, foreach=False),
    ),
    (AdamW(), lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01, foreach=False)),
    (
        AdamW(lr=0.02, betas=(0.8, 0.99), weight_decay=0.5),
        lambda p: torch.optim.AdamW(p, 0.02, (0.8, 0.99), weight_decay=0.5, foreach=False),
    ),
]


def train_steps(build_optimizer: BuildOptimizer, steps: int = 8) -> list[Tensor]:
    """The weights of a small convnet after some training steps."""
    net = build("simple_convnet", (3, 8, 8), 4, channels=[4, 8]).to(memory_format=torch.channels_last)
    optimizer, generator = build_optimizer(net.parameters()), torch.Generator().manual_seed(0)
    for _ in range(steps):
        net.zero_grad()
        loss = nn.functional.cross_entropy(net(torch.rand(8, 3, 8, 8, generator=generator)), torch.arange(8) % 4)
        loss.backward()
        optimizer.step()
    return [p.detach() for p in net.parameters()]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=[repr(ours)[:-1] for ours, _ in PAIRS])
def test_our_optimizer_takes_the_steps_of_the_plain_one_of_torch(ours: Optimizer, theirs: BuildOptimizer) -> None:
    for one, other in zip(train_steps(ours.build), train_steps(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_nesterov_momentum_differs_from_plain_momentum() -> None:
    plain, nesterov = (train_steps(SGD(lr=0.1, nesterov=n).build)[0] for n in (False, True))
    assert not torch.allclose(plain, nesterov, rtol=1e-3)


def test_weight_decay_alone_changes_a_weight_by_the_formula_of_each_optimizer() -> None:
    decay = 0.1
    for optimizer, expected in [
        (SGD(lr=0.5, momentum=0.0, weight_decay=decay), 1 - 0.5 * decay),
        (AdamW(lr=0.5, weight_decay=decay), 1 - 0.5 * decay),
        (Adam(lr=0.5, weight_decay=decay), 0.5),  # the sign of the decay's gradient, times the learning rate
    ]:
        weight = nn.Parameter(torch.ones(1))
        optimizer_state = optimizer.build([weight])
        weight.grad = torch.zeros(1)
        optimizer_state.step()
        assert weight.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (40, 2, 3, 3)])
def test_muon_takes_the_steps_of_torchs_on_the_filters_as_a_matrix(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.flatten(1).clone())
    state = Muon(lr=0.1, momentum=0.9, weight_decay=0.05).build([ours])
    optimizer = torch.optim.Muon([theirs], lr=0.1, momentum=0.9, weight_decay=0.05, nesterov=True)
    for _ in range(6):
        gradient = torch.randn(shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.flatten(1).clone()
        state.step()
        optimizer.step()
    moved = theirs.detach() - start.flatten(1)
    # Theirs orthogonalizes in bfloat16, which has three digits.
    assert (ours.detach().flatten(1) - theirs.detach()).norm() < 0.02 * moved.norm()
