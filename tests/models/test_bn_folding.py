"""Batch norms folded into convolutions: the same function, and an unchanged network."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

from convolab.models.bn_folding import find_conv_bn_pairs, fold_batch_norms
from convolab.models.hooks import record_calls
from convolab.models.registry import build


def randomize_batch_norms(network: nn.Module) -> nn.Module:
    """Batch norms as after training: with weights and statistics that change the output."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                if tensor is not None:
                    tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network.eval()


def pixels() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


NETWORKS = {
    "resnet_small": lambda: build("resnet_small", (3, 64, 64), 10),
    "mobilenet": lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25),
    "densenet": lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=10),
    "convolutions with bias": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, affine=False),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, bias=False),
        nn.BatchNorm2d(5),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_folding_changes_neither_the_function_nor_its_gradient_nor_the_weights(name: str) -> None:
    network = randomize_batch_norms(NETWORKS[name]())
    before = copy.deepcopy(network.state_dict())
    x = pixels().requires_grad_()
    with record_calls(network) as record:
        plain = network(x)
    assert list(find_conv_bn_pairs(record.calls))
    (gradient,) = torch.autograd.grad(plain.square().sum(), x)
    with fold_batch_norms(network, record):
        for _ in range(2):  # call indices restart with each pass
            folded = network(x)
        (folded_gradient,) = torch.autograd.grad(folded.square().sum(), x)
    torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(folded_gradient, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))
    assert torch.equal(network(x), plain)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_convolution_whose_output_is_used_twice_is_not_folded() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y + self.norm(y)

    network = randomize_batch_norms(Fork())
    with torch.no_grad(), record_calls(network) as record:
        plain = network(pixels())
    assert not list(find_conv_bn_pairs(record.calls))
    with torch.no_grad(), fold_batch_norms(network, record):
        assert torch.equal(network(pixels()), plain)


def test_batch_norms_in_training_are_not_folded() -> None:
    network = build("simple_convnet", (3, 64, 64), 10).train()
    with torch.no_grad(), record_calls(network) as record:
        network(pixels())
    assert not list(find_conv_bn_pairs(record.calls))


def test_no_hook_remains_when_a_forward_pass_fails() -> None:
    network = randomize_batch_norms(build("resnet_small", (3, 64, 64), 10))
    with torch.no_grad(), record_calls(network) as record:
        network(pixels())
    with pytest.raises(RuntimeError), fold_batch_norms(network, record):
        network(torch.zeros(1, 5, 64, 64))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
