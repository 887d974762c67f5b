"""Where a network's head begins, in networks of many makers."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.models.classifier import ImageClassifier
from convolab.models.feature_head import create_feature_extractor
from convolab.models.registry import build


def wrapped(network: nn.Module, side: int = 32, channels: int = 3) -> ImageClassifier:
    half = (0.5,) * channels
    return ImageClassifier(network, mean=half, std=half, input_size=(side, side), classes=tuple("0123456789")).eval()


def pixels(height: int = 32, width: int = 32, n: int = 2) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """Nothing after the first layer is a module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 6, 3), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.conv(x)), 2)
        x = F.dropout(x.flatten(2).mean(2), training=self.training)
        return F.linear(x, self.linear.weight, self.linear.bias)


def flat() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 8 * 8, 10, bias=False)
    )


def convolved_head() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 10, 1), nn.Flatten())


def scores_first() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


NETWORKS = {
    "simple_convnet": (lambda: build("simple_convnet", (3, 32, 32), 10), "features.2", "average"),
    "residual": (
        lambda: build("simple_convnet", (3, 32, 32), 10, residual=True, batch_norm=False),
        "features.2",
        "average",
    ),
    "resnet_small": (lambda: build("resnet_small", (3, 32, 32), 10), "features.stage3.0", "average"),
    "functions": (Functional, "the network's own forward", "average"),
    "flat": (flat, "1", "flatten"),
    "convolved head": (convolved_head, "1", "average"),
    "scores before pooling": (scores_first, "2", "average"),
    "densenet": (
        lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=10),
        "the network's own forward",
        "average",
    ),
    "mobilenet": (lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25), "features.18.2", "average"),
    "squeezenet": (lambda: torchvision.models.squeezenet1_1(num_classes=10), "classifier.2", "average"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_gives_the_networks_own_logits_from_its_last_map(name: str) -> None:
    make, layer, kind = NETWORKS[name]
    side = 64 if name in ("densenet", "mobilenet", "squeezenet") else 32
    net = wrapped(make(), side)
    parts = create_feature_extractor(net)
    assert (parts.layer_name, parts.head.kind) == (layer, kind)
    with torch.no_grad():
        x = pixels(side, side)
        assert parts.forward_features(x).shape[1:] == parts.feature_shape
        torch.testing.assert_close(parts.head(parts.forward_features(x)), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, _, kind) in NETWORKS.items() if kind == "average"])
def test_after_an_average_the_head_holds_for_images_of_any_size(name: str) -> None:
    net = wrapped(NETWORKS[name][0](), 64 if name in ("densenet", "mobilenet", "squeezenet") else 32)
    parts = create_feature_extractor(net)
    with torch.no_grad():
        x = pixels(72, 88)
        features, logits = parts.forward_features_and_logits(x)
        torch.testing.assert_close(parts.head(features), net(x), rtol=1e-4, atol=1e-5)
        assert torch.equal(logits, net(x))
        assert torch.equal(parts.forward_features(x), features)


@pytest.mark.slow
def test_an_image_whose_sides_need_another_padding_finds_the_same_map() -> None:
    from convolab.models.pretrained import pretrained

    net = pretrained("efficientnet_lite0")
    parts = create_feature_extractor(net)
    for height, width in ((64, 64), (65, 97), (96, 71)):
        with torch.no_grad():
            torch.testing.assert_close(
                parts.head(parts.forward_features(pixels(height, width, 1))), net(pixels(height, width, 1))
            )


def test_a_head_of_more_than_one_layer_is_named_and_the_map_is_found_all_the_same() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 20), nn.Tanh(), nn.Linear(20, 10)
    )
    parts = create_feature_extractor(wrapped(network))
    assert (parts.layer_name, parts.feature_shape, parts.head) == ("1", (4, 30, 30), None)
    with pytest.raises(
        LabError, match=r"a dense response needs a last feature map .*: in this one '4' \(tanh\) lies between"
    ):
        parts.require_head("a dense response")


def test_a_map_that_shrinks_to_one_cell_before_the_head_is_the_reason_given() -> None:
    shrinks = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(30), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 10)
    )
    with pytest.raises(LabError, match=r"in this one '3' \(relu\) acts on a map of a single cell"):
        create_feature_extractor(wrapped(shrinks)).require_head("a class activation map")


def test_a_head_that_is_linear_only_in_looks_is_found_out() -> None:
    class Odd(Functional):
        def forward(self, x: Tensor) -> Tensor:
            pooled = F.avg_pool2d(self.conv(x), 30, divisor_override=7)  # no mean
            return self.linear(pooled.flatten(1))

    assert create_feature_extractor(wrapped(Odd())).head is None


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)),
        nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten(), nn.Linear(4, 10)),
    ],
)
def test_a_network_without_a_feature_map_is_refused_with_what_it_would_need(network: nn.Module) -> None:
    with pytest.raises(LabError, match="this network has no feature map"):
        create_feature_extractor(wrapped(network))


def test_the_map_as_a_leaf_gives_gradients_of_the_head_alone() -> None:
    net = wrapped(build("simple_convnet", (3, 32, 32), 10))
    parts = create_feature_extractor(net)
    features, logits = parts.forward_features_and_logits(pixels(n=1), detach=True)
    (gradient,) = torch.autograd.grad(logits[0, 3], features)
    torch.testing.assert_close(gradient, (parts.head.weight[3] / 16).view(1, -1, 1, 1).expand_as(gradient))
    assert all(p.grad is None for p in net.parameters())


def hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_no_hook_stays_also_when_a_layer_fails() -> None:
    class Fails(nn.Module):
        broken = False

        def forward(self, x: Tensor) -> Tensor:
            if self.broken:
                raise RuntimeError("broken")
            return x

    network = nn.Sequential(Fails(), build("simple_convnet", (3, 32, 32), 10))
    net = wrapped(network).train()
    parts = create_feature_extractor(net)
    assert net.training
    network[0].broken = True
    for call in (
        lambda: create_feature_extractor(net),
        lambda: parts.forward_features(pixels()),
        lambda: parts.forward_features_and_logits(pixels()),
    ):
        with pytest.raises(RuntimeError, match="broken"):
            call()
        assert hooks(net) == 0
        assert net.training
