"""Saliency maps are those of captum, grad-cam and torchcam for the same network, image and noise.

In float64: in float32 rounding may put the input of a ReLU on either side of 0, which changes a thousandth of a map.
"""

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop, IntegratedGradients, NoiseTunnel, Occlusion, Saliency
from pytorch_grad_cam import GradCAM as PytorchGradCam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchcam.methods import CAM as TorchCam
from torchcam.methods import GradCAM as TorchGradCam

from convolab.inspection.explain import methods
from convolab.models.classifier import ImageClassifier
from convolab.models.pretrained import pretrained
from convolab.models.registry import build

# captum warns that it makes its inputs require gradients, and of its hooks.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")
TARGET = 2


def small_net(name: str) -> ImageClassifier:
    """One of our networks, with batch norms that change the output."""
    network, generator = build(name, (3, 32, 32), 10), torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(torch.rand(layer.running_mean.shape, generator=generator) - 0.5)
            layer.running_var.copy_(0.2 + torch.rand(layer.running_var.shape, generator=generator))
    half = (0.5, 0.4, 0.45)
    return ImageClassifier(network, mean=half, std=half, input_size=(32, 32), classes=tuple("abcdefghij")).eval()


NETWORKS = {
    "simple_convnet": lambda: small_net("simple_convnet"),
    "resnet_small": lambda: small_net("resnet_small"),
    "lite0": pretrained,
}


@pytest.fixture(params=NETWORKS)
def net(request: pytest.FixtureRequest) -> ImageClassifier:
    return NETWORKS[request.param]().double()


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-6) -> None:
    """Equal, relative to the largest value."""
    assert float(theirs.abs().max()) > 0
    assert float((ours - theirs).abs().max()) < tolerance * float(theirs.abs().max())


def test_gradient(net: ImageClassifier, pixels: Tensor) -> None:
    theirs = Saliency(net.forward_unchecked).attribute(pixels.clone(), target=TARGET, abs=True)[0]
    assert_close(methods.gradient(net, pixels, TARGET).values, theirs.max(0).values)


def test_smoothgrad_with_the_same_noise(net: ImageClassifier, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, sigma = 6, 0.15 * float(pixels.max() - pixels.min())
    ours = methods.smoothgrad(net, pixels, TARGET, samples=samples, noise_level=0.15, seed=7)
    noise = torch.cat([methods.smoothgrad_noise(pixels, 7, number) for number in range(samples)])

    def same_noise(mean: float, stds: Tensor) -> Tensor:
        assert stds.shape == noise.shape
        return mean + stds * noise

    monkeypatch.setattr(torch, "normal", same_noise)
    noise_tunnel = NoiseTunnel(Saliency(net.forward_unchecked))
    theirs = noise_tunnel.attribute(
        pixels.clone(), target=TARGET, nt_type="smoothgrad", nt_samples=samples, stdevs=sigma, abs=False
    )
    assert_close(ours.per_channel, theirs[0].detach())


@pytest.mark.parametrize("steps", [7, pytest.param(50, marks=pytest.mark.long)])
def test_integrated_gradients(net: ImageClassifier, pixels: Tensor, steps: int) -> None:
    ours = methods.integrated_gradients(net, pixels, TARGET, steps=steps)
    baseline = torch.tensor(net.mean, dtype=torch.float64).view(1, 3, 1, 1).expand_as(pixels).contiguous()
    theirs, delta = IntegratedGradients(net.forward_unchecked).attribute(
        pixels.clone(), baseline, target=TARGET, n_steps=steps, internal_batch_size=5, return_convergence_delta=True
    )
    assert_close(ours.per_channel, theirs[0].detach())
    assert ours.settings["error"] == pytest.approx(float(delta), rel=1e-4, abs=1e-6)


def test_integrated_gradients_from_black(net: ImageClassifier, pixels: Tensor) -> None:
    ours = methods.integrated_gradients(net, pixels, TARGET, steps=10, baseline=torch.zeros_like(pixels))
    theirs = IntegratedGradients(net.forward_unchecked).attribute(pixels.clone(), target=TARGET, n_steps=10)
    assert_close(ours.per_channel, theirs[0].detach())


def test_occlusion(net: ImageClassifier, pixels: Tensor) -> None:
    ours = methods.occlusion(net, pixels, TARGET, window=16, stride=10)
    mean = torch.tensor(net.mean, dtype=torch.float64).view(1, 3, 1, 1).expand_as(pixels)
    with torch.no_grad():
        theirs = Occlusion(net.forward_unchecked).attribute(
            pixels.clone(), sliding_window_shapes=(3, 16, 16), strides=(3, 10, 10), baselines=mean, target=TARGET
        )
    assert_close(ours.values, theirs[0, 0])


def test_guided_backpropagation_with_relu_modules() -> None:
    convolutions = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU())
    torch_net = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    half = (0.5, 0.5, 0.5)
    net = (
        ImageClassifier(torch_net, mean=half, std=half, input_size=(32, 32), classes=tuple("abcdefghij"))
        .eval()
        .double()
    )
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours = methods.guided(net, x, TARGET).per_channel
    assert_close(ours, GuidedBackprop(net).attribute(x.clone().requires_grad_(), target=TARGET)[0])


def last_feature_layer(net: ImageClassifier) -> nn.Module:
    return net.network.act2 if hasattr(net.network, "act2") else net.network.features[-1]


def test_gradcam_before_normalization(net: ImageClassifier, pixels: Tensor) -> None:
    ours = methods.gradcam(net, pixels, TARGET).values
    layer = last_feature_layer(net)
    with TorchGradCam(net, target_layer=layer, input_shape=(3, 64, 64)) as extractor:
        scores = net(pixels.clone().requires_grad_())
        (theirs,) = extractor(TARGET, scores, normalized=False)
    assert_close(ours, theirs[0])
    net.requires_grad_(True)
    with PytorchGradCam(model=net, target_layers=[layer]) as library_cam:
        library_cam.activations_and_grads(pixels.clone().requires_grad_())[0, TARGET].backward()
        acts, grads = library_cam.activations_and_grads.activations[0], library_cam.activations_and_grads.gradients[0]
        raw = library_cam.get_cam_image(pixels, layer, [ClassifierOutputTarget(TARGET)], acts, grads.cpu().numpy())
    assert_close(ours, torch.from_numpy(np.maximum(raw[0], 0)))


def test_cam(net: ImageClassifier, pixels: Tensor) -> None:
    ours = methods.cam(net, pixels, TARGET).values
    linear = "classifier" if hasattr(net.network, "classifier") else "head.linear"
    layer = last_feature_layer(net)
    with TorchCam(
        net, target_layer=layer, fc_layer=net.get_submodule(f"network.{linear}"), input_shape=(3, 64, 64)
    ) as extractor:
        net(pixels)
        (theirs,) = extractor(TARGET, normalized=False)
    # torchcam clips negative values even if it does not normalize.
    assert_close(ours.clamp(min=0), theirs[0].clamp(min=0))
