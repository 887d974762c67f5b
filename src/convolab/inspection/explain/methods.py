"""Saliency: which pixels of one picture a class's logit hangs on, by six methods. Maps are raw floats with their sign and scale.

What is explained is the logit of the target class. Every method leaves the network as it was, also when it fails.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import LabError, require, suggest
from convolab.core.rng import make_generator
from convolab.models.bn_folding import fold_batch_norms
from convolab.models.classifier import ImageClassifier
from convolab.models.feature_head import FeatureExtractor, create_feature_extractor
from convolab.models.hooks import record_calls
from convolab.models.inference import frozen_eval

BATCH_SIZE = 5  # pictures a pass: more do not fit a small processor's cache
Pixels = Float[Tensor, "one c h w"]
INTEGRATION_STEPS, NOISE_SAMPLES, NOISE_LEVEL = 50, 25, 0.15


@dataclass(frozen=True)
class SaliencyMap:
    """A map of how much each place of a picture matters for one logit, and what was checked of it.

    `values` are raw: at the pixels' resolution, or at the last feature map's for cam and gradcam. `detail` are the values of each
    channel before they were made one map. `checks` are numbers that should be near 0; `fault` names a map that says nothing.
    """

    method: str
    title: str
    values: Float[Tensor, "h w"]
    signed: bool  # whether negative values mean "against the class"
    unit: str
    per_channel: Float[Tensor, "c h w"] | None = None
    checks: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def invalid_reason(self) -> str:
        """What makes the map worthless, in words; empty if nothing does.

        >>> Saliency("gradient", "", torch.zeros(2, 2), False, "").fault
        'constant'
        """
        if not self.values.isfinite().all():
            return "not finite"
        return "constant" if float(self.values.max()) == float(self.values.min()) else ""


def gradient(net: ImageClassifier, pixels: Pixels, target: int) -> SaliencyMap:
    """The logit's derivative with respect to each pixel: its absolute value, the largest of the channels (Simonyan et al. 2013)."""
    with prepared_input(net, pixels) as x:
        per_channel = logit_gradients(net, x, target)[0]
    return SaliencyMap(
        "gradient",
        "Gradient",
        per_channel.abs().amax(0),
        False,
        "|d logit / d pixel|, largest of the channels",
        per_channel,
    )


def smoothgrad(
    net: ImageClassifier,
    pixels: Pixels,
    target: int,
    *,
    samples: int = NOISE_SAMPLES,
    noise_level: float = NOISE_LEVEL,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> SaliencyMap:
    """The mean gradient at noisy copies of the picture (Smilkov et al. 2017, arXiv:1706.03825), reduced as `gradient` is.

    The noise is normal with `spread` times the picture's range as its standard deviation; `noise` gives each copy's.
    """
    require(
        samples >= 1 and noise_level >= 0, f"{samples} samples with a spread of {noise_level}: give at least 1 and 0"
    )
    with (
        prepared_input(net, pixels) as x,
        with_folded_batch_norm(net, x),
    ):  # x stays in range; its noisy copies need not
        sigma = noise_level * float(x.max() - x.min())
        total = torch.zeros_like(x[0])
        for first in range(0, samples, batch_size):
            noise_batch = torch.cat(
                [smoothgrad_noise(x, seed, number) for number in range(first, min(first + batch_size, samples))]
            )
            total += logit_gradients(net, x + sigma * noise_batch, target).sum(0)
    per_channel = total / samples
    settings = {"samples": samples, "sigma": sigma, "seed": seed}
    unit = "|d logit / d pixel|, largest of the channels"
    return SaliencyMap(
        "smoothgrad",
        f"SmoothGrad, {samples} samples",
        per_channel.abs().amax(0),
        False,
        unit,
        per_channel,
        settings=settings,
    )


def smoothgrad_noise(like: Float[Tensor, "1 c h w"], seed: int, sample_index: int) -> Float[Tensor, "1 c h w"]:
    """Standard normal noise for the copy of this `number`: the same whatever the chunks are."""
    return torch.randn(like.shape, generator=make_generator(seed, "smoothgrad", sample_index)).to(like)


def integrated_gradients(
    net: ImageClassifier,
    pixels: Pixels,
    target: int,
    *,
    steps: int = INTEGRATION_STEPS,
    baseline: Tensor | None = None,
    batch_size: int = BATCH_SIZE,
) -> SaliencyMap:
    """Integrated gradients along the line from a baseline to the picture, summed over channels (Sundararajan et al. 2017).

    The baseline is a picture of the network's mean colour unless another is given. The integral is Gauss and Legendre's
    quadrature with `steps` nodes. The values' sum should be the difference of the two logits; `checks["completeness"]` is by
    what share of it they miss.
    """
    require(steps >= 1, f"{steps} steps: give at least 1")
    with prepared_input(net, pixels) as x:
        baseline_pixels = mean_color_image(net, x) if baseline is None else baseline.to(x).expand_as(x)
        path, total = x - baseline_pixels, torch.zeros_like(x[0])
        with with_folded_batch_norm(net, x) as logits:
            with torch.no_grad():
                logit_difference = float(
                    logits[0, target].double() - net.forward_unchecked(baseline_pixels)[0, target].double()
                )
            nodes, weights = gauss_legendre(steps)
            for node_batch, weight in zip(nodes.to(x).split(batch_size), weights.to(x).split(batch_size), strict=True):
                points = baseline_pixels + node_batch.view(-1, 1, 1, 1) * path
                total += (logit_gradients(net, points, target) * weight.view(-1, 1, 1, 1)).sum(0)
    per_channel = path[0] * total
    error = float(per_channel.double().sum()) - logit_difference
    return SaliencyMap(
        "integrated",
        f"Integrated gradients, {steps} steps",
        per_channel.sum(0),
        True,
        "logit, summed over channels",
        per_channel,
        checks={"completeness": abs(error) / max(abs(logit_difference), 1e-12)},
        settings={
            "steps": steps,
            "baseline": "mean colour" if baseline is None else "given",
            "difference": logit_difference,
            "error": error,
        },
    )


def gauss_legendre(steps: int) -> tuple[Float[Tensor, "steps"], Float[Tensor, "steps"]]:
    """Nodes in [0, 1] and their weights, which sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def cam(net: ImageClassifier, pixels: Pixels, target: int, *, extractor: FeatureExtractor | None = None) -> SaliencyMap:
    """The class activation map: what each cell of the last feature map says for the class (Zhou et al. 2016, arXiv:1512.04150).

    Its mean plus the head's bias is the logit; `checks["sum"]` is by how much they differ. Raises LabError, with what it would
    need, if the network's head is not pooling or flattening and one linear layer.
    """
    with prepared_input(net, pixels) as x, torch.no_grad():
        extractor = extractor or split_at_last_feature_map(net)
        head = extractor.require_head("a class activation map")
        features, logits = extractor.forward_features_and_logits(x)
        if head.kind == "average":
            values = torch.einsum("k,khw->hw", head.weight[target], features[0])
        else:  # every cell has weights of its own, and their sum is the logit: in the mean's unit
            values = (head.weight[target] * features[0]).sum(0) * features[0, 0].numel()
        bias, logit = float(head.bias[target]), float(logits[0, target])
    error = float(values.double().mean()) + bias - logit
    settings = {"layer": extractor.layer_name, "bias": bias, "logit": logit}
    return SaliencyMap(
        "cam",
        "CAM",
        values,
        True,
        "logit (the mean + the bias is the class's)",
        checks={"sum": abs(error)},
        settings=settings,
    )


def gradcam(
    net: ImageClassifier, pixels: Pixels, target: int, *, extractor: FeatureExtractor | None = None
) -> SaliencyMap:
    """Grad-CAM: the last feature map's channels, weighted by their mean gradient, negative sums cut off (Selvaraju et al. 2017).

    Raises LabError if the network has no feature map.
    """
    with prepared_input(net, pixels) as x:
        extractor = extractor or split_at_last_feature_map(net)
        with torch.enable_grad():
            features, logits = extractor.forward_features_and_logits(x, detach=True)
            (gradient,) = torch.autograd.grad(logits[0, target], features)
        values = torch.einsum("k,khw->hw", gradient[0].mean((1, 2)), features.detach()[0])
    settings = {"layer": extractor.layer_name, "least before cut off": float(values.min())}
    return SaliencyMap(
        "gradcam", "Grad-CAM", values.clamp(min=0), False, "logit / cells, negative ones cut off", settings=settings
    )


def split_at_last_feature_map(net: ImageClassifier) -> FeatureExtractor:
    """Where the network's last feature map is. Raises LabError, with the methods that need none, if it has none."""
    try:
        return create_feature_extractor(net)
    except LabError as error:
        raise LabError(f"{error} (gradient, smoothgrad, integrated and occlusion need none)") from error


def occlusion(
    net: ImageClassifier,
    pixels: Pixels,
    target: int,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 2 * BATCH_SIZE,
) -> SaliencyMap:
    """By how much the logit falls when a square is covered by the network's mean colour (Zeiler & Fergus 2014).

    A pixel's value is the mean over the squares that cover it. The square's side is an eighth of the picture's shorter side and
    the stride half of that, if they are not given.
    """
    height, width = pixels.shape[2:]
    window = window or max(1, min(height, width) // 8)
    stride = stride or max(1, window // 2)
    require(
        1 <= stride <= window <= min(height, width),
        f"a window of {window} and a stride of {stride} do not tile {height} x {width} pixels",
    )
    tops, lefts = (range(0, math.ceil((side - window) / stride) * stride + 1, stride) for side in (height, width))
    window_positions = [(top, left) for top in tops for left in lefts]
    logit_drops, cover_counts = torch.zeros(height, width), torch.zeros(height, width)
    with prepared_input(net, pixels) as x, with_folded_batch_norm(net, x) as logits, torch.no_grad():
        occlusion_value = mean_color_image(net, x)[0]
        for first in range(0, len(window_positions), batch_size):
            batch_positions = window_positions[first : first + batch_size]
            occluded = x.expand(len(batch_positions), -1, -1, -1).clone(memory_format=torch.channels_last)
            for image, (top, left) in zip(occluded, batch_positions, strict=True):
                image[:, top : top + window, left : left + window] = occlusion_value[
                    :, top : top + window, left : left + window
                ]
            for logit_drop, (top, left) in zip(
                (logits[0, target] - net.forward_unchecked(occluded)[:, target]).cpu(), batch_positions, strict=True
            ):
                logit_drops[top : top + window, left : left + window] += logit_drop
                cover_counts[top : top + window, left : left + window] += 1
    settings = {"window": window, "stride": stride, "cover": "mean colour", "passes": len(window_positions)}
    return SaliencyMap(
        "occlusion",
        f"Occlusion, {window} px square",
        logit_drops / cover_counts,
        True,
        "fall of the logit",
        settings=settings,
    )


def guided(net: ImageClassifier, pixels: Pixels, target: int) -> SaliencyMap:
    """Guided backpropagation, reduced as `gradient` is; see `guided.guided_gradient` for which networks can be guided."""
    from convolab.inspection.explain.guided_backprop import guided_gradient

    with prepared_input(net, pixels) as x:
        per_channel = guided_gradient(net, x, target)
    return SaliencyMap(
        "guided",
        "Guided backpropagation",
        per_channel.abs().amax(0),
        False,
        "|guided value|, largest of the channels",
        per_channel,
    )


METHODS: dict[str, Callable[..., SaliencyMap]] = {
    "gradient": gradient,
    "smoothgrad": smoothgrad,
    "integrated_gradients": integrated_gradients,
    "cam": cam,
    "gradcam": gradcam,
    "occlusion": occlusion,
    "guided": guided,
}


def parse_methods(text: str) -> tuple[str, ...]:
    """The methods in a list with commas, in its order. Raises LabError for an unknown one, with the nearest.

    >>> find_methods("gradcam, gradient")
    ('gradcam', 'gradient')
    """
    method_names = [word.strip() for word in text.split(",") if word.strip()]
    require(method_names, f"no method is named: give some of {', '.join(METHODS)}")
    for word in method_names:
        if word not in METHODS:
            raise LabError(f"there is no method '{word}': {suggest(word, METHODS)}")
    return tuple(dict.fromkeys(method_names))


@contextmanager
def prepared_input(net: ImageClassifier, pixels: Pixels) -> Iterator[Pixels]:
    """The pixels as a method wants them, checked, while the network is looked through and left as it was.

    Its layers like pixels with the channels last. Raises LabError for pixels that break the contract.
    """
    net.check_pixels(pixels)
    require(len(pixels) == 1, f"{len(pixels)} pictures: give one at a time")
    parameter = next(net.parameters(), net.scale)
    with frozen_eval(net):
        yield pixels.detach().to(parameter).contiguous(memory_format=torch.channels_last)


@contextmanager
def with_folded_batch_norm(net: ImageClassifier, x: Pixels) -> Iterator[Float[Tensor, "1 classes"]]:
    """The same network, its batch norms folded meanwhile; gives the logits of `x` without that."""
    with torch.no_grad(), record_calls(net.network) as record:
        logits = net.forward_unchecked(x)
    with fold_batch_norms(net.network, record):
        del record
        yield logits


def logit_gradients(net: ImageClassifier, points: Float[Tensor, "n c h w"], target: int) -> Float[Tensor, "n c h w"]:
    """The gradient of the target's logit at each picture; nothing of the passes is kept."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        score = net.forward_unchecked(points)[:, target].sum()
        return torch.autograd.grad(score, points)[0]


def mean_color_image(net: ImageClassifier, like: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """A picture of the colour that normalisation makes zero."""
    return torch.tensor(net.mean).to(like).view(1, -1, 1, 1).expand_as(like)
