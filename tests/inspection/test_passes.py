"""Methods of many passes compute what autograd does on the plain network, one image at a time, for any network."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.small_nets import classifier_of, randomize_batch_norms
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.adversarial.fool import fool_classifier
from convolab.inspection.explain.methods import (
    gradcam,
    guided,
    integrated_gradients,
    occlusion,
    smoothgrad,
    smoothgrad_noise,
)
from convolab.inspection.localization.dense import make_fully_convolutional
from convolab.inspection.localization.erf_offset import measure_erf_offset
from convolab.inspection.passes import logit_gradients, mean_color_image
from convolab.models.classifier import ImageClassifier
from convolab.models.registry import build

TARGET = 3


class ConvNorm(nn.Module):
    """A convolution, a batch norm and a head; what is between them is the subclass's."""

    def __init__(self, width: int = 6, features: int = 6) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.head = nn.Linear(features, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(x).mean((2, 3)))

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class Chunked(ConvNorm):
    def __init__(self) -> None:
        super().__init__(features=12)

    def middle(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.cat([self.norm(y).relu(), *y.chunk(2, 1)], 1)


class Overwritten(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y[:, :, 0] = 0.0
        return self.norm(y).relu()


class ChangedInPlace(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        torch._foreach_mul_([y], 0.5)
        return self.norm(y).relu()


class WrittenThroughAView(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y.permute(0, 2, 3, 1)[..., ::2] += 1
        return self.norm(y).relu()


class UsedInADictionary(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        kept = {"y": self.conv(x)}
        return self.norm(kept["y"]).relu() * torch.stack(list(kept.values())).mean()


class ReadByAHook(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda module, inputs, output: setattr(self, "seen", output))

    def middle(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).relu()
        return y * self.seen.sigmoid()


class ReplacedByAHook(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda module, inputs, output: output * 2)


class ReadAsNumbers(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        scale = max(y.flatten().tolist())
        return self.norm(y).relu() * scale


class CalledTwice(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu() + self.conv(x.flip(3)).tanh()


class SharedWeights(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        again = F.conv2d(x, self.conv.weight, None, padding=1)
        return self.norm(self.conv(x)).relu() - again.abs()


class WeightsOfTheImage(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.conv.weight * x.mean(), self.conv.bias, padding=1)
        return self.norm(y).relu()


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return y**3

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * 3 * ctx.saved_tensors[0] ** 2


class OwnFunction(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y).relu() + Cube.apply(y)


class DetachedBranch(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y).relu() + y.data.abs()


class PathByBrightness(ConvNorm):
    """One batch norm for bright images, and for dark ones two without a batch norm's place."""

    def middle(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y).relu() if float(x.detach().mean()) > -0.2 else y.relu()


class OtherWeightsByBrightness(ConvNorm):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Parameter(torch.randn(6, 3, 3, 3))

    def middle(self, x: Tensor) -> Tensor:
        weight = self.conv.weight if float(x.detach().mean()) > -0.2 else self.other
        return self.norm(F.conv2d(x, weight, self.conv.bias, padding=1)).relu()


class CenteredOverTheBatch(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x - 0.5 * x.mean(0))).relu()


class DividedByTheBatch(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x) / len(x)


class OneImageAtATime(ConvNorm):
    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.reshape(1, 3, 32, 32))).relu()


def without_running_statistics() -> nn.Module:
    network = ConvNorm()
    network.norm = nn.BatchNorm2d(6, track_running_stats=False)
    return network


def tiny_variance() -> nn.Module:
    network = ConvNorm()
    network.norm.running_var.fill_(1e-30)
    network.norm.eps = 1e-30
    return network


def scripted_part() -> nn.Module:
    network = ConvNorm()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what people have
        network.conv = torch.jit.script(network.conv)
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "simple_convnet": lambda: build("simple_convnet", (3, 32, 32), 10),
    "resnet_small": lambda: build("resnet_small", (3, 32, 32), 10),
    "shallow_net": lambda: build("shallow_net", (3, 32, 32), 10),
    **{
        case.__name__: case
        for case in (
            ConvNorm, Chunked, Overwritten, ChangedInPlace, WrittenThroughAView, UsedInADictionary, ReadByAHook,
            ReplacedByAHook, ReadAsNumbers, CalledTwice, SharedWeights, WeightsOfTheImage, OwnFunction, DetachedBranch,
            PathByBrightness, OtherWeightsByBrightness, CenteredOverTheBatch, DividedByTheBatch, OneImageAtATime,
        )
    },
    "without running statistics": without_running_statistics,
    "tiny variance": tiny_variance,
    "a scripted part": scripted_part,
}  # fmt: skip


def plain_classifier(name: str) -> ImageClassifier:
    torch.manual_seed(1)
    return classifier_of(randomize_batch_norms(NETWORKS[name]())).requires_grad_(False)


def plain_gradient(net: ImageClassifier, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net.forward_unchecked(x)[0, TARGET], x)[0][0]


def assert_agrees(ours: Tensor, plain: Tensor) -> None:
    assert float((ours - plain).abs().max()) <= 1e-3 * float(plain.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_of_many_passes_are_those_of_autograd_on_the_plain_network(name: str, pixels: Tensor) -> None:
    net, pixels = plain_classifier(name).double(), pixels.double()  # the comparison is not one of rounding
    sigma = 0.15 * float(pixels.max() - pixels.min())
    gradients = [plain_gradient(net, pixels + sigma * smoothgrad_noise(pixels, 0, index)) for index in range(25)]
    assert_agrees(smoothgrad(net, pixels, TARGET).per_channel, torch.stack(gradients).mean(0))

    baseline = mean_color_image(net, pixels)
    path = pixels - baseline
    nodes, weights = np.polynomial.legendre.leggauss(50)
    total = sum(
        float(w) / 2 * plain_gradient(net, baseline + (float(t) + 1) / 2 * path)
        for t, w in zip(nodes, weights, strict=True)
    )
    found = integrated_gradients(net, pixels, TARGET)
    assert_agrees(found.per_channel, path[0] * total)
    difference = float((net.forward_unchecked(pixels) - net.forward_unchecked(baseline))[0, TARGET])
    assert found.settings["logit_difference"] == pytest.approx(difference, rel=1e-3, abs=1e-5)

    drops, counts = torch.zeros(2, 32, 32).double()
    for top in range(0, 32 - 7, 8):
        for left in range(0, 32 - 7, 8):
            covered = pixels.clone()
            covered[:, :, top : top + 8, left : left + 8] = baseline[:, :, :8, :8]
            square = slice(top, top + 8), slice(left, left + 8)
            drops[square] += (net.forward_unchecked(pixels) - net.forward_unchecked(covered))[0, TARGET]
            counts[square] += 1
    assert_agrees(occlusion(net, pixels, TARGET, window=8, stride=8).values, drops / counts)


@pytest.mark.slow
def test_a_network_without_gradients_is_occluded_and_its_gradient_refused(pixels: Tensor) -> None:
    class Rounded(ConvNorm):
        def middle(self, x: Tensor) -> Tensor:
            return super().middle(x).detach().round()

    net = classifier_of(randomize_batch_norms(Rounded())).requires_grad_(False)
    assert float(occlusion(net, pixels, TARGET).values.abs().max()) > 0
    with pytest.raises(LabError, match="have no gradient with respect to the pixels"):
        logit_gradients(net, pixels, TARGET)


class LinearProbe(ConvNorm):
    """Features of a network that is not trained, and a linear layer that is."""

    @torch.no_grad()
    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x)


class WithoutGradients(ConvNorm):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def fool_with(net: ImageClassifier, pixels: Tensor, *, shortest: bool) -> None:
    image = (255 * pixels[0]).to(torch.uint8)
    with torch.no_grad():
        target = (int(net(image[None] / 255).argmax()) + 1) % 10
    fool_classifier(net, image, target, shortest=shortest)


NEEDS_GRADIENTS = {
    "smoothgrad": lambda net, pixels: smoothgrad(net, pixels, TARGET),
    "guided": lambda net, pixels: guided(net, pixels, TARGET),
    "fool": lambda net, pixels: fool_with(net, pixels, shortest=False),
    "fool, the shortest": lambda net, pixels: fool_with(net, pixels, shortest=True),
    "effective receptive field": lambda net, pixels: measure_erf_offset(make_fully_convolutional(net), [pixels]),
}


@pytest.mark.parametrize("name", NEEDS_GRADIENTS)
def test_what_needs_gradients_is_refused_in_one_line_where_logits_have_none(name: str, pixels: Tensor) -> None:
    net = classifier_of(randomize_batch_norms(LinearProbe()))
    with pytest.raises(LabError, match="this network's logits have no gradient with respect to the pixels") as caught:
        NEEDS_GRADIENTS[name](net, pixels)
    assert "\n" not in str(caught.value)


def test_a_gradcam_is_refused_in_one_line_where_logits_have_no_gradient(pixels: Tensor) -> None:
    net = classifier_of(randomize_batch_norms(WithoutGradients()))
    with pytest.raises(LabError, match="have no gradient with respect to the last feature map") as caught:
        gradcam(net, pixels, TARGET)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"shallow_net"}))
def test_what_is_called_fooled_the_plain_network_classifies_as_the_target(name: str, pixels: Tensor) -> None:
    net = plain_classifier(name)
    images = [(255 * pixels[0].roll(5 * shift, 2)).to(torch.uint8) for shift in range(3)]
    with torch.no_grad():
        taken = {int(net(image[None] / 255).argmax()) for image in images}
        target = next(label for label in range(10) if label not in taken)
    finding = fool_classifier(net, images, target, max_steps=60)
    with torch.no_grad():
        classes = [int(net(image[None] / 255).argmax()) for image in finding.arrays["fooling"]]
    assert [record["fooled"] for record in finding.metrics["images"]] == [label == target for label in classes]
    assert all(record["fooled"] for record in finding.metrics["images"] if record["reached"])
