"""Saliency methods: their formulas and checks, and that they do not change the network."""

import subprocess
import sys

import pytest
import torch
from scipy.stats import spearmanr
from support.small_nets import FailsAtPass, capture_state, classifier_of, is_equal, randomize_parameters
from torch import Tensor, nn

from convolab.core.errors import LabError
from convolab.inspection.explain.methods import (
    METHODS,
    SaliencyMap,
    cam,
    gradcam,
    gradient,
    guided,
    integrated_gradients,
    occlusion,
    smoothgrad,
    smoothgrad_noise,
)
from convolab.inspection.passes import logit_gradients, prepared_input
from convolab.models.classifier import ImageClassifier
from convolab.models.registry import build


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_the_network_is_not_changed_bit_for_bit(
    convnet: ImageClassifier, pixels: Tensor, method: str, mode: str
) -> None:
    convnet.train(mode == "training")
    convnet.network.features[0].eval()
    for number, parameter in enumerate(convnet.parameters()):
        parameter.requires_grad_(number % 2 == 0)
        parameter.grad = torch.ones_like(parameter) if number % 4 == 0 else None
    before, random = capture_state(convnet), torch.get_rng_state()
    saliency_map = METHODS[method](convnet, pixels, 3)
    assert saliency_map.method == method
    assert is_equal(before, capture_state(convnet))
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_not_changed_even_if_a_forward_pass_fails(pixels: Tensor, method: str) -> None:
    failing_network = FailsAtPass(build("simple_convnet", (3, 32, 32), 10))
    net = classifier_of(failing_network).train()
    METHODS[method](net, pixels, 3)
    num_passes = failing_network.num_passes
    for at in range(1, min(num_passes, 4) + 1):
        failing_network.num_passes, failing_network.fail_at = 0, at
        before = capture_state(net)
        with pytest.raises(RuntimeError, match="the pass broke"):
            METHODS[method](net, pixels, 3)
        assert is_equal(before, capture_state(net))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "occlusion"])
def test_methods_work_under_no_grad_and_for_pixels_that_require_gradients(
    convnet: ImageClassifier, pixels: Tensor, method: str
) -> None:
    plain = METHODS[method](convnet, pixels, 2).values
    with torch.no_grad():
        assert torch.equal(METHODS[method](convnet, pixels, 2).values, plain)
    requiring_grad = pixels.clone().requires_grad_()
    assert torch.equal(METHODS[method](convnet, requiring_grad, 2).values, plain)
    assert requiring_grad.grad is None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.5])
def test_invalid_pixels_are_refused(convnet: ImageClassifier, pixels: Tensor, method: str, value: float) -> None:
    pixels[0, 0, 0, 0] = value
    with pytest.raises(LabError, match=r"NaN|pixels range from"):
        METHODS[method](convnet, pixels, 0)


def test_several_images_at_once_are_refused(convnet: ImageClassifier, pixels: Tensor) -> None:
    with pytest.raises(LabError, match="2 images: give one at a time"):
        gradient(convnet, pixels.expand(2, -1, -1, -1), 0)


@pytest.mark.slow
def test_the_gradient_is_that_of_finite_differences_in_float64(convnet: ImageClassifier, pixels: Tensor) -> None:
    net, x = convnet.double(), pixels.double()
    computed, step = gradient(net, x, 4).per_channel, 1e-6
    generator = torch.Generator().manual_seed(0)
    for index in torch.randint(x.numel(), (40,), generator=generator).tolist():
        above, below = x.clone(), x.clone()
        above.view(-1)[index] += step
        below.view(-1)[index] -= step
        with torch.no_grad():
            expected = float(net(above)[0, 4] - net(below)[0, 4]) / (2 * step)
        assert computed.reshape(-1)[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_the_map_is_the_largest_absolute_value_of_the_channels(convnet: ImageClassifier, pixels: Tensor) -> None:
    saliency_map = gradient(convnet, pixels, 1)
    assert torch.equal(saliency_map.values, saliency_map.per_channel.abs().max(0).values)
    assert saliency_map.values.min() >= 0


def test_smoothgrad_without_noise_is_the_gradient(convnet: ImageClassifier, pixels: Tensor) -> None:
    torch.testing.assert_close(
        smoothgrad(convnet, pixels, 1, samples=3, noise_level=0.0).per_channel,
        gradient(convnet, pixels, 1).per_channel,
        rtol=1e-3,
        atol=1e-6,
    )


def test_the_noise_of_smoothgrad_depends_on_the_seed(convnet: ImageClassifier, pixels: Tensor) -> None:
    first, repeated, other = (smoothgrad(convnet, pixels, 1, samples=7, seed=seed).per_channel for seed in (0, 0, 1))
    assert torch.equal(first, repeated)
    assert (first - other).abs().max() > 0.01 * first.abs().max()
    assert not torch.equal(smoothgrad_noise(pixels, 0, 0), smoothgrad_noise(pixels, 0, 1))


def test_smoothgrad_says_how_alike_the_maps_of_both_halves_of_its_samples_are(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    saliency_map = smoothgrad(convnet, pixels, 1, samples=6)
    sigma = saliency_map.settings["sigma"]
    with prepared_input(convnet, pixels) as x:
        samples = [logit_gradients(convnet, x + sigma * smoothgrad_noise(x, 0, index), 1)[0] for index in range(6)]
    halves = [sum(samples[first::2]).abs().amax(0).flatten().numpy() for first in (0, 1)]
    assert saliency_map.settings["half_correlation"] == pytest.approx(spearmanr(*halves).statistic, abs=1e-3)
    assert "half_correlation" not in smoothgrad(convnet, pixels, 1, samples=1).settings


@pytest.mark.slow
def test_smoothgrad_takes_more_samples_until_the_map_no_longer_changes(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    steady = smoothgrad(convnet, pixels, 1, samples="auto", noise_level=0.001)
    assert steady.settings["samples"] == 32
    assert steady.settings["half_correlation"] > 0.99
    noisy = smoothgrad(convnet, pixels, 1, samples="auto", noise_level=0.3)
    assert noisy.settings["samples"] in (64, 128, 256, 512, 1024)
    assert noisy.settings["half_correlation"] > 0.99 or noisy.settings["samples"] == 1024
    as_many = smoothgrad(convnet, pixels, 1, samples=noisy.settings["samples"], noise_level=0.3)
    assert torch.equal(noisy.per_channel, as_many.per_channel)


@pytest.mark.slow
def test_integrated_gradients_take_more_steps_until_the_map_no_longer_changes(
    convnet: ImageClassifier, pixels: Tensor
) -> None:
    found = integrated_gradients(convnet, pixels, 4, steps="auto")
    steps = found.settings["steps"]
    coarse, fine = (integrated_gradients(convnet, pixels, 4, steps=count) for count in (steps // 2, steps))
    assert torch.equal(found.values, fine.values)
    expected = spearmanr(coarse.values.abs().flatten(), fine.values.abs().flatten()).statistic
    assert found.settings["step_correlation"] == pytest.approx(expected, abs=1e-9)
    assert expected > 0.99 or steps == 1024
    constant = integrated_gradients(
        convnet, torch.tensor(convnet.mean).view(1, 3, 1, 1).expand_as(pixels), 4, steps="auto"
    )
    assert constant.invalid_reason
    assert constant.settings["steps"] == 16


@pytest.mark.slow
def test_integrated_gradients_are_complete_up_to_the_reported_error(convnet: ImageClassifier, pixels: Tensor) -> None:
    few, many = (integrated_gradients(convnet, pixels, 4, steps=steps) for steps in (3, 300))
    with torch.no_grad():
        mean = torch.tensor(convnet.mean).view(1, 3, 1, 1).expand_as(pixels)
        difference = float(convnet(pixels)[0, 4] - convnet(mean)[0, 4])
    for saliency_map in (few, many):
        assert saliency_map.settings["logit_difference"] == pytest.approx(difference, rel=1e-3)
        assert saliency_map.checks["completeness_error"] == pytest.approx(
            abs(float(saliency_map.per_channel.sum()) - difference) / abs(difference), rel=0.02, abs=1e-4
        )
    assert many.checks["completeness_error"] < 0.01
    assert few.checks["completeness_error"] > many.checks["completeness_error"]


def test_integrated_gradients_of_a_linear_network_are_the_gradient_times_the_pixels(pixels: Tensor) -> None:
    linear = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    net = classifier_of(linear)
    saliency_map = integrated_gradients(net, pixels, 0, steps=2, baseline=torch.zeros_like(pixels))
    torch.testing.assert_close(
        saliency_map.per_channel, gradient(net, pixels, 0).per_channel * pixels[0], rtol=1e-3, atol=1e-6
    )
    assert saliency_map.checks["completeness_error"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnet", "resnet", "flat"])
def test_the_mean_of_a_cam_plus_the_bias_is_the_logit(
    name: str, pixels: Tensor, request: pytest.FixtureRequest
) -> None:
    net = request.getfixturevalue(name)
    with torch.no_grad():
        logits = net(pixels)[0]
    for target in range(10):
        saliency_map = cam(net, pixels, target)
        assert saliency_map.values.mean().item() + saliency_map.settings["bias"] == pytest.approx(
            float(logits[target]), rel=1e-4, abs=1e-5
        )
        assert saliency_map.checks["sum_error"] < 1e-4
        assert saliency_map.signed


def test_gradcam_is_cam_without_negative_values_if_the_head_averages(convnet: ImageClassifier, pixels: Tensor) -> None:
    cells = 16  # of the map: the mean divides by their number
    torch.testing.assert_close(
        gradcam(convnet, pixels, 2).values, cam(convnet, pixels, 2).values.clamp(min=0) / cells, rtol=1e-4, atol=1e-6
    )


def test_gradcam_needs_a_feature_map_and_cam_a_linear_head_and_the_errors_say_so(
    shallow: ImageClassifier, pixels: Tensor
) -> None:
    for method in (cam, gradcam):
        with pytest.raises(LabError, match="this network has no feature map, because it has no convolution"):
            method(shallow, pixels, 0)
    deep = classifier_of(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 20), nn.ReLU(), nn.Linear(20, 10))
    )
    assert gradcam(deep, pixels, 0).values.shape == (30, 30)
    with pytest.raises(LabError, match=r"a class activation map needs a last feature map .* '4' \(relu\) lies between"):
        cam(deep, pixels, 0)


class DetachedHead(nn.Module):
    """Its logits are those of a linear head; without `has_gradient` they do not depend on the map for autograd."""

    def __init__(self, has_gradient: bool) -> None:
        super().__init__()
        self.conv, self.linear, self.has_gradient = nn.Conv2d(3, 4, 3), nn.Linear(4, 10), has_gradient

    def forward(self, x: Tensor) -> Tensor:
        means = self.conv(x).relu().mean((2, 3))
        return self.linear(means if self.has_gradient else means.detach())


def test_a_cam_of_a_head_whose_gradient_is_not_that_of_its_layer_is_refused(pixels: Tensor) -> None:
    assert cam(classifier_of(DetachedHead(True)), pixels, 2).checks["sum_error"] < 1e-4
    with pytest.raises(LabError, match="needs a head that is linear: on this image this network's is not") as caught:
        cam(classifier_of(DetachedHead(False)), pixels, 2)
    assert "\n" not in str(caught.value)


def test_occlusion_finds_the_only_square_that_matters(pixels: Tensor) -> None:
    class ReadsOneSquare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, 8:16, 12:20].mean((2, 3)) @ torch.ones(3, 10)

    values = occlusion(classifier_of(ReadsOneSquare()), pixels, 0, window=4, stride=4).values
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:16, 12:20] = True
    assert (values[inside] > 0).all()
    assert (values[~inside].abs() < 1e-5).all()


def test_a_window_that_does_not_tile_the_image_is_refused(convnet: ImageClassifier, pixels: Tensor) -> None:
    for window, stride in ((33, 2), (4, 5)):
        with pytest.raises(LabError, match="do not tile 32 x 32 pixels"):
            occlusion(convnet, pixels, 0, window=window, stride=stride)


def test_a_constant_or_nonfinite_map_is_invalid() -> None:
    for values, reason in (
        ([[1.0, 1.0]], "constant"),
        ([[0.0, float("nan")]], "not finite"),
        ([[0.0, float("inf")]], "not finite"),
        ([[0.0, 1.0]], ""),
    ):
        saliency_map = SaliencyMap(method="gradient", title="", values=torch.tensor(values), signed=False, unit="")
        assert saliency_map.invalid_reason == reason


def test_a_network_without_gradient_gives_a_constant_map(pixels: Tensor) -> None:
    class IgnoresImage(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 0).mean((2, 3)) @ torch.ones(3, 10)

    assert gradient(classifier_of(IgnoresImage()), pixels, 0).invalid_reason == "constant"


NETWORKS_WITH_RELUS = {
    "relu modules": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU6(inplace=True)),
    "clamp": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Clamp()),
}
OTHER_ACTIVATIONS = {
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky": nn.LeakyReLU,
    "elu": nn.ELU,
    "hardswish": nn.Hardswish,
}


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 6)


def with_head(body: nn.Module) -> ImageClassifier:
    return classifier_of(
        randomize_parameters(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)))
    )


@pytest.mark.parametrize("name", NETWORKS_WITH_RELUS)
def test_relus_of_every_form_are_guided(name: str, pixels: Tensor) -> None:
    net = with_head(NETWORKS_WITH_RELUS[name]())
    saliency_map = guided(net, pixels, 1)
    assert not saliency_map.invalid_reason
    assert not torch.allclose(saliency_map.per_channel, gradient(net, pixels, 1).per_channel)


@pytest.mark.parametrize("name", OTHER_ACTIVATIONS)
def test_any_other_activation_is_refused_by_its_name(name: str, pixels: Tensor) -> None:
    net = with_head(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), OTHER_ACTIVATIONS[name]()))
    with pytest.raises(LabError, match=r"guided backpropagation is defined for ReLUs alone, and '0\.3' "):
        guided(net, pixels, 1)


def test_without_any_relu_there_is_nothing_to_guide(pixels: Tensor) -> None:
    with pytest.raises(LabError, match="this network has none"):
        guided(with_head(nn.Conv2d(3, 4, 3)), pixels, 1)


def test_a_clamp_that_does_not_clip_at_zero_is_not_a_relu(pixels: Tensor) -> None:
    class ClampAroundZero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clamp(-1, 1)

    with pytest.raises(LabError, match=r"'0\.1' \(clamp\) is Clamp"):
        guided(with_head(nn.Sequential(nn.Conv2d(3, 4, 3), ClampAroundZero())), pixels, 1)


@pytest.mark.slow
def test_a_thousand_steps_need_no_more_memory_than_ten() -> None:
    """In a process of its own, because the peak of memory never falls. The gradients of all steps would take 77 MB."""
    code = """
import resource, sys, torch
from convolab.inspection.explain.methods import integrated_gradients
from convolab.models.classifier import ImageClassifier
torch.set_num_threads(1)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 80 * 80, 10))
net = ImageClassifier(network, mean=[0.5] * 3, std=[0.2] * 3, input_size=(80, 80), classes=list("abcdefghij"))
pixels = torch.rand(1, 3, 80, 80)
integrated_gradients(net, pixels, 1, steps=10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
integrated_gradients(net, pixels, 1, steps=1000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 60
