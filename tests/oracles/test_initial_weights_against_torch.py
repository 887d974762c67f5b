"""The initial weights of our networks have the distribution of those of torch's layers, each with its own seed."""

import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from convolab.models.registry import build


@pytest.mark.parametrize(
    ("ours", "layer", "theirs"),
    [
        (("simple_convnet", {"channels": [64, 128]}), "features.1.conv", lambda: nn.Conv2d(64, 128, 3)),
        (
            ("simple_convnet", {"channels": [64, 128], "batch_norm": False}),
            "features.1.conv",
            lambda: nn.Conv2d(64, 128, 3),
        ),
        (("resnet_small", {}), "features.stage3.0.conv2", lambda: nn.Conv2d(128, 128, 3)),
        (("shallow_net", {}), "hidden", lambda: nn.Linear(3 * 32 * 32, 128)),
    ],
)
def test_initial_weights_have_the_distribution_of_those_of_torch(
    ours: tuple[str, dict], layer: str, theirs: object
) -> None:
    name, options = ours
    weights = build(name, (3, 32, 32), 10, seed=1, **options).get_submodule(layer).weight.detach().flatten()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        default = theirs().weight.detach().flatten()
    assert len(weights) == len(default) > 50_000
    assert weights.std().item() == pytest.approx(default.std().item(), rel=0.01)
    assert weights.abs().max().item() == pytest.approx(default.abs().max().item(), rel=0.001)
    assert ks_2samp(weights.numpy(), default.numpy()).pvalue > 1e-3


def test_initial_biases_have_the_distribution_of_those_of_torch() -> None:
    biases = torch.cat([build("shallow_net", (1, 8, 8), 10, seed=seed).hidden.bias.detach() for seed in range(30)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        default = torch.cat([nn.Linear(64, 128).bias.detach() for _ in range(30)])
    assert ks_2samp(biases.numpy(), default.numpy()).pvalue > 1e-3


def test_batch_norms_start_as_the_identity() -> None:
    net = build("resnet_small", (3, 32, 32), 10)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 7
    for layer in norms:
        new_state = nn.BatchNorm2d(layer.num_features).state_dict()
        assert all(torch.equal(tensor, new_state[name]) for name, tensor in layer.state_dict().items())
