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

from convolab.core.errors import LabError, nearest, need
from convolab.core.rng import generator
from convolab.models.bn_folding import folded
from convolab.models.classifier import PixelNet, undisturbed
from convolab.models.feature_head import Split, split
from convolab.models.hooks import recording

CHUNK = 5  # pictures a pass: more do not fit a small processor's cache
Pixels = Float[Tensor, "one c h w"]
STEPS, SAMPLES, SPREAD = 50, 25, 0.15


@dataclass(frozen=True)
class Saliency:
    """A map of how much each place of a picture matters for one logit, and what was checked of it.

    `values` are raw: at the pixels' resolution, or at the last feature map's for cam and gradcam. `detail` are the values of each
    channel before they were made one map. `checks` are numbers that should be near 0; `fault` names a map that says nothing.
    """

    method: str
    title: str
    values: Float[Tensor, "h w"]
    signed: bool  # whether negative values mean "against the class"
    unit: str
    detail: Float[Tensor, "c h w"] | None = None
    checks: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def fault(self) -> str:
        """What makes the map worthless, in words; empty if nothing does.

        >>> Saliency("gradient", "", torch.zeros(2, 2), False, "").fault
        'constant'
        """
        if not self.values.isfinite().all():
            return "not finite"
        return "constant" if float(self.values.max()) == float(self.values.min()) else ""


def gradient(net: PixelNet, pixels: Pixels, target: int) -> Saliency:
    """The logit's derivative with respect to each pixel: its absolute value, the largest of the channels (Simonyan et al. 2013)."""
    with looking(net, pixels) as x:
        detail = gradients(net, x, target)[0]
    return Saliency(
        "gradient", "Gradient", detail.abs().amax(0), False, "|d logit / d pixel|, largest of the channels", detail
    )


def smoothgrad(
    net: PixelNet,
    pixels: Pixels,
    target: int,
    *,
    samples: int = SAMPLES,
    spread: float = SPREAD,
    seed: int = 0,
    chunk: int = CHUNK,
) -> Saliency:
    """The mean gradient at noisy copies of the picture (Smilkov et al. 2017, arXiv:1706.03825), reduced as `gradient` is.

    The noise is normal with `spread` times the picture's range as its standard deviation; `noise` gives each copy's.
    """
    need(samples >= 1 and spread >= 0, f"{samples} samples with a spread of {spread}: give at least 1 and 0")
    with looking(net, pixels) as x, quickly(net, x):  # x stays in range; its noisy copies need not
        sigma = spread * float(x.max() - x.min())
        total = torch.zeros_like(x[0])
        for first in range(0, samples, chunk):
            drawn = torch.cat([noise(x, seed, number) for number in range(first, min(first + chunk, samples))])
            total += gradients(net, x + sigma * drawn, target).sum(0)
    detail = total / samples
    settings = {"samples": samples, "sigma": sigma, "seed": seed}
    unit = "|d logit / d pixel|, largest of the channels"
    return Saliency(
        "smoothgrad", f"SmoothGrad, {samples} samples", detail.abs().amax(0), False, unit, detail, settings=settings
    )


def noise(like: Float[Tensor, "1 c h w"], seed: int, number: int) -> Float[Tensor, "1 c h w"]:
    """Standard normal noise for the copy of this `number`: the same whatever the chunks are."""
    return torch.randn(like.shape, generator=generator(seed, "smoothgrad", number)).to(like)


def integrated(
    net: PixelNet,
    pixels: Pixels,
    target: int,
    *,
    steps: int = STEPS,
    baseline: Tensor | None = None,
    chunk: int = CHUNK,
) -> Saliency:
    """Integrated gradients along the line from a baseline to the picture, summed over channels (Sundararajan et al. 2017).

    The baseline is a picture of the network's mean colour unless another is given. The integral is Gauss and Legendre's
    quadrature with `steps` nodes. The values' sum should be the difference of the two logits; `checks["completeness"]` is by
    what share of it they miss.
    """
    need(steps >= 1, f"{steps} steps: give at least 1")
    with looking(net, pixels) as x:
        start = mean_colour(net, x) if baseline is None else baseline.to(x).expand_as(x)
        way, total = x - start, torch.zeros_like(x[0])
        with quickly(net, x) as logits:
            with torch.no_grad():
                difference = float(logits[0, target].double() - net.respond(start)[0, target].double())
            nodes, weights = gauss_legendre(steps)
            for part, weight in zip(nodes.to(x).split(chunk), weights.to(x).split(chunk), strict=True):
                points = start + part.view(-1, 1, 1, 1) * way
                total += (gradients(net, points, target) * weight.view(-1, 1, 1, 1)).sum(0)
    detail = way[0] * total
    error = float(detail.double().sum()) - difference
    return Saliency(
        "integrated",
        f"Integrated gradients, {steps} steps",
        detail.sum(0),
        True,
        "logit, summed over channels",
        detail,
        checks={"completeness": abs(error) / max(abs(difference), 1e-12)},
        settings={
            "steps": steps,
            "baseline": "mean colour" if baseline is None else "given",
            "difference": difference,
            "error": error,
        },
    )


def gauss_legendre(steps: int) -> tuple[Float[Tensor, "steps"], Float[Tensor, "steps"]]:
    """Nodes in [0, 1] and their weights, which sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def cam(net: PixelNet, pixels: Pixels, target: int, *, parts: Split | None = None) -> Saliency:
    """The class activation map: what each cell of the last feature map says for the class (Zhou et al. 2016, arXiv:1512.04150).

    Its mean plus the head's bias is the logit; `checks["sum"]` is by how much they differ. Raises LabError, with what it would
    need, if the network's head is not pooling or flattening and one linear layer.
    """
    with looking(net, pixels) as x, torch.no_grad():
        parts = parts or last_map(net)
        head = parts.need_head("a class activation map")
        features, logits = parts.features_and_logits(x)
        if head.kind == "average":
            values = torch.einsum("k,khw->hw", head.weight[target], features[0])
        else:  # every cell has weights of its own, and their sum is the logit: in the mean's unit
            values = (head.weight[target] * features[0]).sum(0) * features[0, 0].numel()
        bias, logit = float(head.bias[target]), float(logits[0, target])
    error = float(values.double().mean()) + bias - logit
    settings = {"layer": parts.layer, "bias": bias, "logit": logit}
    return Saliency(
        "cam",
        "CAM",
        values,
        True,
        "logit (the mean + the bias is the class's)",
        checks={"sum": abs(error)},
        settings=settings,
    )


def gradcam(net: PixelNet, pixels: Pixels, target: int, *, parts: Split | None = None) -> Saliency:
    """Grad-CAM: the last feature map's channels, weighted by their mean gradient, negative sums cut off (Selvaraju et al. 2017).

    Raises LabError if the network has no feature map.
    """
    with looking(net, pixels) as x:
        parts = parts or last_map(net)
        with torch.enable_grad():
            features, logits = parts.features_and_logits(x, detach=True)
            (gradient,) = torch.autograd.grad(logits[0, target], features)
        values = torch.einsum("k,khw->hw", gradient[0].mean((1, 2)), features.detach()[0])
    settings = {"layer": parts.layer, "least before cut off": float(values.min())}
    return Saliency(
        "gradcam", "Grad-CAM", values.clamp(min=0), False, "logit / cells, negative ones cut off", settings=settings
    )


def last_map(net: PixelNet) -> Split:
    """Where the network's last feature map is. Raises LabError, with the methods that need none, if it has none."""
    try:
        return split(net)
    except LabError as error:
        raise LabError(f"{error} (gradient, smoothgrad, integrated and occlusion need none)") from error


def occlusion(
    net: PixelNet,
    pixels: Pixels,
    target: int,
    *,
    window: int | None = None,
    stride: int | None = None,
    chunk: int = 2 * CHUNK,
) -> Saliency:
    """By how much the logit falls when a square is covered by the network's mean colour (Zeiler & Fergus 2014).

    A pixel's value is the mean over the squares that cover it. The square's side is an eighth of the picture's shorter side and
    the stride half of that, if they are not given.
    """
    height, width = pixels.shape[2:]
    window = window or max(1, min(height, width) // 8)
    stride = stride or max(1, window // 2)
    need(
        1 <= stride <= window <= min(height, width),
        f"a window of {window} and a stride of {stride} do not tile {height} x {width} pixels",
    )
    tops, lefts = (range(0, math.ceil((side - window) / stride) * stride + 1, stride) for side in (height, width))
    places = [(top, left) for top in tops for left in lefts]
    falls, covers = torch.zeros(height, width), torch.zeros(height, width)
    with looking(net, pixels) as x, quickly(net, x) as logits, torch.no_grad():
        cover = mean_colour(net, x)[0]
        for first in range(0, len(places), chunk):
            some = places[first : first + chunk]
            covered = x.expand(len(some), -1, -1, -1).clone(memory_format=torch.channels_last)
            for picture, (top, left) in zip(covered, some, strict=True):
                picture[:, top : top + window, left : left + window] = cover[
                    :, top : top + window, left : left + window
                ]
            for fall, (top, left) in zip(
                (logits[0, target] - net.respond(covered)[:, target]).cpu(), some, strict=True
            ):
                falls[top : top + window, left : left + window] += fall
                covers[top : top + window, left : left + window] += 1
    settings = {"window": window, "stride": stride, "cover": "mean colour", "passes": len(places)}
    return Saliency(
        "occlusion", f"Occlusion, {window} px square", falls / covers, True, "fall of the logit", settings=settings
    )


def guided(net: PixelNet, pixels: Pixels, target: int) -> Saliency:
    """Guided backpropagation, reduced as `gradient` is; see `guided.guided_gradient` for which networks can be guided."""
    from convolab.inspection.explain.guided_backprop import guided_gradient

    with looking(net, pixels) as x:
        detail = guided_gradient(net, x, target)
    return Saliency(
        "guided",
        "Guided backpropagation",
        detail.abs().amax(0),
        False,
        "|guided value|, largest of the channels",
        detail,
    )


METHODS: dict[str, Callable[..., Saliency]] = {
    method.__name__: method for method in (gradient, smoothgrad, integrated, cam, gradcam, occlusion, guided)
}


def find_methods(words: str) -> tuple[str, ...]:
    """The methods in a list with commas, in its order. Raises LabError for an unknown one, with the nearest.

    >>> find_methods("gradcam, gradient")
    ('gradcam', 'gradient')
    """
    named = [word.strip() for word in words.split(",") if word.strip()]
    need(named, f"no method is named: give some of {', '.join(METHODS)}")
    for word in named:
        if word not in METHODS:
            raise LabError(f"there is no method '{word}': {nearest(word, METHODS)}")
    return tuple(dict.fromkeys(named))


@contextmanager
def looking(net: PixelNet, pixels: Pixels) -> Iterator[Pixels]:
    """The pixels as a method wants them, checked, while the network is looked through and left as it was.

    Its layers like pixels with the channels last. Raises LabError for pixels that break the contract.
    """
    net.check(pixels)
    need(len(pixels) == 1, f"{len(pixels)} pictures: give one at a time")
    parameter = next(net.parameters(), net.scale)
    with undisturbed(net):
        yield pixels.detach().to(parameter).contiguous(memory_format=torch.channels_last)


@contextmanager
def quickly(net: PixelNet, x: Pixels) -> Iterator[Float[Tensor, "1 classes"]]:
    """The same network, its batch norms folded meanwhile; gives the logits of `x` without that."""
    with torch.no_grad(), recording(net.network) as record:
        logits = net.respond(x)
    with folded(net.network, record):
        del record
        yield logits


def gradients(net: PixelNet, points: Float[Tensor, "n c h w"], target: int) -> Float[Tensor, "n c h w"]:
    """The gradient of the target's logit at each picture; nothing of the passes is kept."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        score = net.respond(points)[:, target].sum()
        return torch.autograd.grad(score, points)[0]


def mean_colour(net: PixelNet, like: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """A picture of the colour that normalisation makes zero."""
    return torch.tensor(net.mean).to(like).view(1, -1, 1, 1).expand_as(like)
