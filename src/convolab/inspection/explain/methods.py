"""Saliency: which pixels of an image a class's logit depends on. Maps are raw floats with their sign and scale.

What is explained is the logit of the target class. Every method leaves the network as it was, also when it fails;
while it runs it puts hooks on the network's modules, so a network serves one thread at a time (`explain` gives each
call its own view).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.rng import make_generator
from convolab.inspection.explain.guided_backprop import guided_gradient
from convolab.inspection.explain.method_names import AUTO, MAX_PASSES, MAX_STEPS, METHOD_NAMES, SampleCount
from convolab.inspection.explain.null_maps import rank_correlation
from convolab.inspection.many_gradients import iter_logit_gradients
from convolab.inspection.passes import (
    gradient_of,
    logit_gradients,
    mean_color_image,
    prepared_input,
    require_close_head,
)
from convolab.inspection.result import map_invalid_reason
from convolab.inspection.types import Heatmap, Pixels, SinglePixels
from convolab.models.classifier import ImageClassifier
from convolab.models.feature_head import FeatureExtractor, create_feature_extractor

INTEGRATION_STEPS = 50
NOISE_SAMPLES = 25
MAX_NOISE_LEVEL = 10.0
STABLE_CORRELATION = 0.99  # of "auto": a map whose two estimates are that much alike no longer changes
AUTO_SAMPLES = tuple(2**power for power in range(5, 11))  # after which of them SmoothGrad looks whether it may stop
AUTO_STEPS = tuple(2**power for power in range(3, 11))  # of integrated gradients, each in place of the one before
NOISE_LEVEL = 0.15  # standard deviation of SmoothGrad's noise, as a fraction of the image's range


@dataclass(frozen=True, kw_only=True)
class SaliencyMap:
    """How much each place of an image matters for one logit, and what was checked of that.

    Attributes:
        method: one of `METHOD_NAMES`.
        values: raw, at the pixels' resolution, or at the last feature map's for cam and gradcam.
        signed: whether negative values mean "against the class".
        unit: the unit of the values, in words.
        per_channel: the values of each color channel, before they became one map.
        checks: numbers that should be near 0.
        settings: what the method was run with, and intermediate numbers.
    """

    method: str
    title: str
    values: Heatmap
    signed: bool
    unit: str
    per_channel: Float[Tensor, "c h w"] | None = None
    checks: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def invalid_reason(self) -> str:
        """Why the map carries no information; empty if it does."""
        return map_invalid_reason(self.values)


SaliencyMethod = Callable[..., SaliencyMap]  # of a network, the pixels of one image and the target's index


def gradient(net: ImageClassifier, pixels: Pixels, target: int) -> SaliencyMap:
    """The logit's derivative with respect to each pixel: the largest absolute value of its channels.

    Simonyan et al. 2013, arXiv:1312.6034.
    """
    with prepared_input(net, pixels) as x:
        per_channel = logit_gradients(net, x, target)[0]
    return SaliencyMap(
        method="gradient",
        title="Gradient",
        values=per_channel.abs().amax(0),
        signed=False,
        unit="|d logit / d pixel|, largest of the channels",
        per_channel=per_channel,
    )


def smoothgrad(
    net: ImageClassifier,
    pixels: Pixels,
    target: int,
    *,
    samples: SampleCount = NOISE_SAMPLES,
    noise_level: float = NOISE_LEVEL,
    seed: int = 0,
) -> SaliencyMap:
    """The mean gradient at noisy copies of the image, reduced as `gradient` is (Smilkov et al. 2017, arXiv:1706.03825).

    The noise is normal; its standard deviation is `noise_level` times the image's range.
    `settings["half_correlation"]` says how far the map is one of the noise that was drawn: the rank correlation of the
    maps of every other sample. `samples="auto"` goes on until it is above 0.99, for at most 1,024 samples.
    """
    limit = max(AUTO_SAMPLES) if samples == AUTO else samples
    require(
        1 <= limit <= MAX_PASSES and 0 <= noise_level <= MAX_NOISE_LEVEL,
        f"{samples} samples with a noise level of {noise_level}: give 1 to {MAX_PASSES:,} samples and a level of 0 to "
        f"{MAX_NOISE_LEVEL:g}",
    )
    taken = 0
    half_correlation = None
    with prepared_input(net, pixels) as x:
        sigma = noise_level * float(x.max() - x.min())
        total = torch.zeros_like(x[0])
        halves = torch.zeros_like(x[0]), torch.zeros_like(x[0])
        noisy_copies = (x + sigma * smoothgrad_noise(x, seed, index) for index in range(limit))
        for sample in iter_logit_gradients(net, noisy_copies, target):
            total += sample
            halves[taken % 2].add_(sample)
            taken += 1
            if taken == limit or (samples == AUTO and taken in AUTO_SAMPLES):
                half_correlation = rank_correlation(*(half.abs().amax(0) for half in halves))
                if (half_correlation or 0.0) > STABLE_CORRELATION:
                    break
    per_channel = total / taken
    return SaliencyMap(
        method="smoothgrad",
        title=f"SmoothGrad, {taken} samples",
        values=per_channel.abs().amax(0),
        signed=False,
        unit="|d logit / d pixel|, largest of the channels",
        per_channel=per_channel,
        settings={
            "samples": taken,
            "sigma": sigma,
            "seed": seed,
            **({} if half_correlation is None else {"half_correlation": half_correlation}),
        },
    )


def smoothgrad_noise(like: SinglePixels, seed: int, sample_index: int) -> SinglePixels:
    """Standard normal noise for one noisy copy."""
    return torch.randn(like.shape, generator=make_generator(seed, "smoothgrad", sample_index)).to(like)


def integrated_gradients(
    net: ImageClassifier,
    pixels: Pixels,
    target: int,
    *,
    steps: SampleCount = INTEGRATION_STEPS,
    baseline: Tensor | None = None,
) -> SaliencyMap:
    """Integrated gradients along the line from a baseline to the image, summed over channels.

    Sundararajan et al. 2017, arXiv:1703.01365. The baseline is an image of the network's mean color unless another is
    given. The integral is Gauss-Legendre quadrature with `steps` nodes. The values' sum should be the difference of the
    two logits; `checks["completeness_error"]` is how far it is from that, relative to the difference. `steps="auto"`
    takes 8, 16, 32, ... nodes until a map and the one before have a rank correlation above 0.99
    (`settings["step_correlation"]`), at most 1,024.
    """
    if steps == AUTO:
        return integrate_until_stable(net, pixels, target, baseline)
    require(1 <= steps <= MAX_STEPS, f"{steps} steps: give 1 to {MAX_STEPS:,}")
    require(baseline is None or baseline.isfinite().all(), "the baseline is not finite: give pixels in [0, 1]")
    with prepared_input(net, pixels) as x:
        baseline_pixels = mean_color_image(net, x) if baseline is None else baseline.to(x).expand_as(x)
        path = x - baseline_pixels
        total = torch.zeros_like(x[0])
        with torch.no_grad():
            logit, baseline_logit = (float(net.forward_unchecked(image)[0, target]) for image in (x, baseline_pixels))
        logit_difference = logit - baseline_logit
        # From the image on: there the gradient says more about a network than at a baseline of one color.
        nodes, weights = (values.flip(0) for values in gauss_legendre(steps))
        points = (baseline_pixels + float(node) * path for node in nodes)
        for weight, gradients in zip(weights, iter_logit_gradients(net, points, target), strict=True):
            total += float(weight) * gradients
    per_channel = path[0] * total
    error = float(per_channel.double().sum()) - logit_difference
    return SaliencyMap(
        method="integrated_gradients",
        title=f"Integrated gradients, {steps} steps",
        values=per_channel.sum(0),
        signed=True,
        unit="logit, summed over channels",
        per_channel=per_channel,
        checks={"completeness_error": abs(error) / max(abs(logit_difference), 1e-12)},
        settings={
            "steps": steps,
            "baseline": "mean color" if baseline is None else "given",
            "logit_difference": logit_difference,
            "error": error,
        },
    )


def integrate_until_stable(net: ImageClassifier, pixels: Pixels, target: int, baseline: Tensor | None) -> SaliencyMap:
    """Integrated gradients with twice the steps again and again, until the map no longer changes."""
    coarse = integrated_gradients(net, pixels, target, steps=AUTO_STEPS[0], baseline=baseline)
    for steps in AUTO_STEPS[1:]:
        fine = integrated_gradients(net, pixels, target, steps=steps, baseline=baseline)
        correlation = rank_correlation(coarse.values, fine.values)
        if correlation is None:  # a constant map: more steps change nothing
            return fine
        coarse = replace(fine, settings={**fine.settings, "step_correlation": correlation})
        if correlation > STABLE_CORRELATION:
            break
    return coarse


def gauss_legendre(steps: int) -> tuple[Float[Tensor, "steps"], Float[Tensor, "steps"]]:
    """Nodes in [0, 1] and their weights, which sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def cam(net: ImageClassifier, pixels: Pixels, target: int, *, extractor: FeatureExtractor | None = None) -> SaliencyMap:
    """The class activation map: how much each cell of the last feature map adds to the class's logit.

    Zhou et al. 2016, arXiv:1512.04150. Its mean plus the head's bias is the logit; `checks["sum_error"]` is by how
    much they differ. Raises LabError, with what it would need, if the network's head is not pooling or flattening and
    one linear layer.
    """
    with prepared_input(net, pixels) as x, torch.no_grad():
        extractor = extractor or split_at_last_feature_map(net)
        head = extractor.require_head("a class activation map")
        with torch.enable_grad():
            features, logits = extractor.forward_features_and_logits(x, detach=True)
            # Logits and gradient on this very image, from the map's own pass: that costs less than 1 %. A second pass, of
            # a noisy copy as in `require_proven_head`, made the map take 2.2 times as long; the map is of this image alone.
            require_close_head(head, features, logits, target, "a class activation map")
        features, logits = features.detach(), logits.detach()
        if head.kind == "average":
            values = torch.einsum("k,khw->hw", head.weight[target], features[0])
        else:  # each cell's own weights: their sum is the logit, so that the mean of these values is it too
            values = (head.weight[target] * features[0]).sum(0) * features[0, 0].numel()
        bias = float(head.bias[target])
        logit = float(logits[0, target])
    error = float(values.double().mean()) + bias - logit
    return SaliencyMap(
        method="cam",
        title="CAM",
        values=values,
        signed=True,
        unit="logit (the mean + the bias is the class's)",
        checks={"sum_error": abs(error)},
        settings={"layer": extractor.layer_name, "bias": bias, "logit": logit},
    )


def gradcam(
    net: ImageClassifier, pixels: Pixels, target: int, *, extractor: FeatureExtractor | None = None
) -> SaliencyMap:
    """Grad-CAM: the last feature map's channels, weighted by their mean gradient, with a ReLU on their sum.

    Selvaraju et al. 2017, arXiv:1610.02391. Raises LabError if the network has no feature map, or no gradient there.
    """
    with prepared_input(net, pixels) as x:
        extractor = extractor or split_at_last_feature_map(net)
        with torch.enable_grad():
            features, logits = extractor.forward_features_and_logits(x, detach=True)
            feature_gradient = gradient_of(logits[0, target], features, name="the last feature map")
        values = torch.einsum("k,khw->hw", feature_gradient[0].mean((1, 2)), features.detach()[0])
    return SaliencyMap(
        method="gradcam",
        title="Grad-CAM",
        values=values.clamp(min=0),
        signed=False,
        unit="logit / cells, negative ones set to 0",
        settings={"layer": extractor.layer_name, "min_before_relu": float(values.min())},
    )


def split_at_last_feature_map(net: ImageClassifier) -> FeatureExtractor:
    """Where the network's last feature map is. Raises LabError, with the methods that need none, if it has none."""
    try:
        return create_feature_extractor(net)
    except LabError as error:
        independent = ", ".join(name for name in METHOD_NAMES if name not in ("cam", "gradcam", "guided"))
        raise LabError(f"{error} (these methods need none: {independent})") from error


def occlusion(
    net: ImageClassifier,
    pixels: Pixels,
    target: int,
    *,
    window: int | None = None,
    stride: int | None = None,
) -> SaliencyMap:
    """By how much the logit drops when a square is covered with the network's mean color.

    Zeiler & Fergus 2014, arXiv:1311.2901. A pixel's value is the mean over the squares that cover it.

    Args:
        net: the network.
        pixels: one image, [1, C, H, W].
        target: the class's index.
        window: the square's side in pixels; an eighth of the image's shorter side if it is not given.
        stride: pixels between two squares; half of `window` if it is not given.
    """
    height, width = pixels.shape[2:]
    window = window or max(1, min(height, width) // 8)
    stride = stride or max(1, window // 2)
    require(
        1 <= stride <= window <= min(height, width),
        f"a window of {window} and a stride of {stride} do not tile {height} x {width} pixels",
    )
    tops, lefts = (range(0, math.ceil((side - window) / stride) * stride + 1, stride) for side in (height, width))
    squares = [(slice(top, top + window), slice(left, left + window)) for top in tops for left in lefts]
    logit_drops = torch.zeros(height, width)
    cover_counts = torch.zeros(height, width)
    with prepared_input(net, pixels) as x, torch.no_grad():
        mean_color = mean_color_image(net, x)
        logit = net.forward_unchecked(x)[0, target]
        for rows, columns in squares:
            occluded = x.clone()
            occluded[:, :, rows, columns] = mean_color[:, :, rows, columns]
            logit_drops[rows, columns] += (logit - net.forward_unchecked(occluded)[0, target]).cpu()
            cover_counts[rows, columns] += 1
    return SaliencyMap(
        method="occlusion",
        title=f"Occlusion, {window} px square",
        values=logit_drops / cover_counts,
        signed=True,
        unit="drop of the logit",
        settings={"window": window, "stride": stride, "occlusion_value": "mean color", "passes": len(squares)},
    )


def guided(net: ImageClassifier, pixels: Pixels, target: int) -> SaliencyMap:
    """Guided backpropagation, reduced as `gradient` is; `guided_gradient` says for which networks it is defined."""
    with prepared_input(net, pixels) as x:
        per_channel = guided_gradient(net, x, target)
    return SaliencyMap(
        method="guided",
        title="Guided backpropagation",
        values=per_channel.abs().amax(0),
        signed=False,
        unit="|guided value|, largest of the channels",
        per_channel=per_channel,
    )


# Each method has the name of its function.
METHODS: dict[str, SaliencyMethod] = {name: globals()[name] for name in METHOD_NAMES}
