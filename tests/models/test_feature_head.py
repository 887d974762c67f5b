"""The split of a network into features and head, for networks of several libraries."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.models.classifier import ImageClassifier
from convolab.models.feature_head import create_feature_extractor
from convolab.models.registry import build


def classifier_of(network: nn.Module, side: int = 32, channels: int = 3) -> ImageClassifier:
    half = (0.5,) * channels
    return ImageClassifier(network, mean=half, std=half, input_size=(side, side), classes=tuple("0123456789")).eval()


def pixels(height: int = 32, width: int = 32, n: int = 2) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """Its operations after the first layer are functions, not modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 6, 3), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.conv(x)), 2)
        x = F.dropout(x.flatten(2).mean(2), training=self.training)
        return F.linear(x, self.linear.weight, self.linear.bias)


def flatten_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 8 * 8, 10, bias=False)
    )


def conv_head_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 10, 1), nn.Flatten())


def scores_before_pooling_net() -> nn.Module:
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
    "flat": (flatten_net, "1", "flatten"),
    "convolved head": (conv_head_net, "1", "average"),
    "scores before pooling": (scores_before_pooling_net, "2", "average"),
    "densenet": (
        lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=10),
        "the network's own forward",
        "average",
    ),
    "mobilenet": (lambda: torchvision.models.mobilenet_v2(num_classes=10, width_mult=0.25), "features.18.2", "average"),
    "squeezenet": (lambda: torchvision.models.squeezenet1_1(num_classes=10), "classifier.2", "average"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_computes_the_logits_of_the_network_from_its_last_feature_map(name: str) -> None:
    make, layer, kind = NETWORKS[name]
    side = 64 if name in ("densenet", "mobilenet", "squeezenet") else 32
    net = classifier_of(make(), side)
    extractor = create_feature_extractor(net)
    assert (extractor.layer_name, extractor.head.kind) == (layer, kind)
    with torch.no_grad():
        x = pixels(side, side)
        assert extractor.forward_features(x).shape[1:] == extractor.feature_shape
        torch.testing.assert_close(extractor.head(extractor.forward_features(x)), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, _, kind) in NETWORKS.items() if kind == "average"])
def test_a_head_with_average_pooling_is_right_for_images_of_any_size(name: str) -> None:
    net = classifier_of(NETWORKS[name][0](), 64 if name in ("densenet", "mobilenet", "squeezenet") else 32)
    extractor = create_feature_extractor(net)
    with torch.no_grad():
        x = pixels(72, 88)
        features, logits = extractor.forward_features_and_logits(x)
        torch.testing.assert_close(extractor.head(features), net(x), rtol=1e-4, atol=1e-5)
        assert torch.equal(logits, net(x))
        assert torch.equal(extractor.forward_features(x), features)


@pytest.mark.slow
def test_an_image_whose_size_needs_other_padding_has_the_same_feature_map() -> None:
    from convolab.models.pretrained import pretrained

    net = pretrained("efficientnet_lite0")
    extractor = create_feature_extractor(net)
    for height, width in ((64, 64), (65, 97), (96, 71)):
        with torch.no_grad():
            torch.testing.assert_close(
                extractor.head(extractor.forward_features(pixels(height, width, 1))), net(pixels(height, width, 1))
            )


def test_a_head_of_more_than_one_layer_is_refused_but_the_feature_map_is_found() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 900, 20), nn.Tanh(), nn.Linear(20, 10)
    )
    extractor = create_feature_extractor(classifier_of(network))
    assert (extractor.layer_name, extractor.feature_shape, extractor.head) == ("1", (4, 30, 30), None)
    with pytest.raises(
        LabError, match=r"a dense response needs a last feature map .*: in this one '4' \(tanh\) lies between: give one"
    ):
        extractor.require_head("a dense response")


def test_the_error_names_a_feature_map_that_shrinks_to_one_cell_before_the_head() -> None:
    shrinks = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(30), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 10)
    )
    with pytest.raises(LabError, match=r"in this one '3' \(relu\) acts on a map of a single cell: let a map of 2 x 2"):
        create_feature_extractor(classifier_of(shrinks)).require_head("a class activation map")


def test_a_head_that_only_looks_linear_is_detected() -> None:
    class NotAMean(Functional):
        def forward(self, x: Tensor) -> Tensor:
            pooled = F.avg_pool2d(self.conv(x), 30, divisor_override=7)  # not a mean
            return self.linear(pooled.flatten(1))

    assert create_feature_extractor(classifier_of(NotAMean())).head is None


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)),
        nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten(), nn.Linear(4, 10)),
    ],
)
def test_a_network_without_a_feature_map_is_refused(network: nn.Module) -> None:
    with pytest.raises(LabError, match="this network has no feature map"):
        create_feature_extractor(classifier_of(network))


def test_a_detached_feature_map_gives_the_gradients_of_the_head_only() -> None:
    net = classifier_of(build("simple_convnet", (3, 32, 32), 10))
    extractor = create_feature_extractor(net)
    features, logits = extractor.forward_features_and_logits(pixels(n=1), detach=True)
    (gradient,) = torch.autograd.grad(logits[0, 3], features)
    torch.testing.assert_close(gradient, (extractor.head.weight[3] / 16).view(1, -1, 1, 1).expand_as(gradient))
    assert all(p.grad is None for p in net.parameters())


def count_hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_no_hook_remains_even_if_a_layer_fails() -> None:
    class Fails(nn.Module):
        broken = False

        def forward(self, x: Tensor) -> Tensor:
            if self.broken:
                raise RuntimeError("broken")
            return x

    network = nn.Sequential(Fails(), build("simple_convnet", (3, 32, 32), 10))
    net = classifier_of(network).train()
    extractor = create_feature_extractor(net)
    assert net.training
    network[0].broken = True
    for call in (
        lambda: create_feature_extractor(net),
        lambda: extractor.forward_features(pixels()),
        lambda: extractor.forward_features_and_logits(pixels()),
    ):
        with pytest.raises(RuntimeError, match="broken"):
            call()
        assert count_hooks(net) == 0
        assert net.training
