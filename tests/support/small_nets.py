"""Small networks to inspect, and what an inspection might leave changed in them."""

import torch
from torch import Tensor, nn

from convolab.models.classifier import ImageClassifier

MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.3)


def wrapped(network: nn.Module, side: int = 32) -> ImageClassifier:
    return ImageClassifier(network, mean=MEAN, std=STD, input_size=(side, side), classes=tuple("abcdefghij")).eval()


def trained(network: nn.Module) -> nn.Module:
    """Give batch norms weights and statistics with which logits depend strongly on the image."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator))
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
    return network


def flat_net() -> nn.Module:
    return filled(nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 10)))


def filled(network: nn.Module) -> nn.Module:
    """Give every parameter values from its own generator, of size 1 after each layer."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / max(parameter[0].numel(), 1) ** 0.5
    return network


def state(net: ImageClassifier) -> list:
    """Everything that an inspection might leave changed."""
    return [
        {name: tensor.clone() for name, tensor in (*net.state_dict().items(), *net.named_buffers())},
        [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()],
        [module.training for module in net.modules()],
        [(dict(m._forward_hooks), dict(m._forward_pre_hooks), dict(m._backward_hooks)) for m in net.modules()],
        [p.stride() for p in net.parameters()],
    ]


def same(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


class Breaks(nn.Module):
    """Fails at forward pass number `at`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.passes = 0
        self.at = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        y = self.network(x)
        if self.passes == self.at:
            raise RuntimeError("the pass broke")
        return y
