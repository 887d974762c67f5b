"""Small networks to inspect, and their state, which an inspection must not change."""

import torch
from torch import Tensor, nn

from convolab.models.classifier import ImageClassifier

MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.3)


def classifier_of(network: nn.Module, side: int = 32) -> ImageClassifier:
    return ImageClassifier(network, mean=MEAN, std=STD, input_size=(side, side), classes=tuple("abcdefghij")).eval()


def randomize_batch_norms(network: nn.Module) -> nn.Module:
    """Give batch norms random weights and statistics, so that logits depend strongly on the image."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_var is not None:
            for tensor in (layer.weight.data, layer.running_var):
                tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator))
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
    return network


def flatten_net() -> nn.Module:
    return randomize_parameters(
        nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 10))
    )


def randomize_parameters(network: nn.Module) -> nn.Module:
    """Give every parameter random values such that the outputs of all layers are of size 1."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / max(parameter[0].numel(), 1) ** 0.5
    return network


def capture_state(net: ImageClassifier) -> list:
    """Everything in a network that an inspection could change."""
    return [
        {name: tensor.clone() for name, tensor in (*net.state_dict().items(), *net.named_buffers())},
        [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()],
        [module.training for module in net.modules()],
        [(dict(m._forward_hooks), dict(m._forward_pre_hooks), dict(m._backward_hooks)) for m in net.modules()],
        [p.stride() for p in net.parameters()],
    ]


def is_equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(is_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(is_equal, a, b))
    return a == b


class RedAndBlue(nn.Module):
    """Class 0 is red, class 1 is blue, in cells of 4 x 4 pixels; all other logits are constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, stride=4)
        self.linear = nn.Linear(2, 10)
        self.conv.weight.data = torch.tensor([[1.0, -1, -1], [-1, -1, 1]]).view(2, 3, 1, 1).expand(2, 3, 4, 4) / 16
        self.conv.bias.data = torch.zeros(2)
        self.linear.weight.data = torch.zeros(10, 2)
        self.linear.weight.data[0, 0] = self.linear.weight.data[1, 1] = 40.0
        self.linear.bias.data = torch.full((10,), -0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(x)).mean((2, 3)))


def red_and_blue_net() -> ImageClassifier:
    classes = ("red", "blue", *"cdefghij")
    return ImageClassifier(RedAndBlue(), mean=(0.0,) * 3, std=(1.0,) * 3, input_size=(32, 32), classes=classes).eval()


class FailsAtPass(nn.Module):
    """A network that fails at forward pass number `fail_at` and at all that follow."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.num_passes = 0
        self.fail_at = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_passes += 1
        y = self.network(x)
        if 0 < self.fail_at <= self.num_passes:
            raise RuntimeError("the pass broke")
        return y


def capture_buffers(network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Each buffer by its name, with a copy of its values."""
    return {name: (buffer, buffer.clone()) for name, buffer in network.named_buffers()}
