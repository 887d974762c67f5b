"""Deletion and insertion: do the pixels that a map ranks first matter more than others?

Petsiuk et al. 2018, arXiv:1806.07421. As they are deleted or inserted, the class's probability should fall or rise
sooner than in another order. Scattered pixels and connected regions disturb a network differently, whatever they show,
so there are two controls: single pixels in random order, which is Petsiuk's, and the orders of phase-randomized maps,
which take regions as the map does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from convolab.core.rng import make_generator
from convolab.core.stats import Interval, mean_interval
from convolab.inspection.explain.null_maps import phase_randomized
from convolab.inspection.passes import mean_color_image, prepared_input
from convolab.inspection.types import Heatmap, SinglePixels
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import require_finite_logits

CURVE_STEPS = 32  # steps of a deletion or insertion curve
N_RANDOM_ORDERS = 5  # draws of each control

CurvesByBaseline = dict[str, Float64[Tensor, "orders m"]]  # a curve of probabilities for each order
PixelOrder = Int64[Tensor, "n"]
Control = Literal["random_order", "phase_randomized"]
CONTROLS: dict[Control, str] = {"random_order": "random orders of pixels", "phase_randomized": "phase-randomized maps"}


@dataclass(frozen=True)
class PerturbationCurve:
    """The class's probability as equal fractions of the pixels are deleted or inserted, and the area under that curve.

    Attributes:
        baseline: what deleted pixels become, or what insertion starts from.
        probabilities: after 0, 1, ... steps, in the map's order.
        auc: the area under the curve over [0, 1], by trapezoids.
        random_order_probabilities: with pixels in random orders, on average.
        random_order_aucs: one for each random order.
        phase_randomized_probabilities: in the orders of random maps with this map's spectrum, on average.
        phase_randomized_aucs: one for each of those maps.
    """

    baseline: str
    probabilities: tuple[float, ...]
    auc: float
    random_order_probabilities: tuple[float, ...]
    random_order_aucs: tuple[float, ...]
    phase_randomized_probabilities: tuple[float, ...]
    phase_randomized_aucs: tuple[float, ...]


def deletion_and_insertion(
    net: ImageClassifier,
    pixels: SinglePixels,
    target: int,
    heatmap: Heatmap,
    *,
    steps: int = CURVE_STEPS,
    n_orders: int = N_RANDOM_ORDERS,
    seed: int = 0,
    random_order_curves: CurvesByBaseline | None = None,
) -> tuple[PerturbationCurve, PerturbationCurve]:
    """The curves of deletion and of insertion for a map and its controls.

    Deleted pixels take the network's mean color. Insertion starts from the blurred image. Pixels are ordered by
    descending value; equal values keep the image's order, rows first.

    Args:
        net: the network.
        pixels: one image, [1, C, H, W].
        target: the class's index.
        heatmap: the map, of any size.
        steps: how many equal parts the pixels are deleted in.
        n_orders: draws of each control.
        seed: of the controls.
        random_order_curves: what `curves_in_random_order` gives for this image, if it is known: it is the same for all
            maps.

    Returns:
        The curve of deletion and that of insertion.
    """
    if random_order_curves is None:
        random_order_curves = curves_in_random_order(net, pixels, target, steps=steps, n_orders=n_orders, seed=seed)
    null_maps = [phase_randomized(heatmap - heatmap.min(), seed, index) for index in range(n_orders)]
    size = (pixels.shape[2], pixels.shape[3])
    orders = [pixel_order(values, size) for values in (heatmap, *null_maps)]
    map_curves = perturbation_curves(net, pixels, target, orders, steps)
    deletion, insertion = (
        to_perturbation_curve(baseline, curves[0], random_order_curves[baseline], curves[1:])
        for baseline, curves in map_curves.items()
    )
    return deletion, insertion


def to_perturbation_curve(
    baseline: str,
    curve: Float64[Tensor, "m"],
    random_order: Float64[Tensor, "orders m"],
    phase_randomized_curves: Float64[Tensor, "maps m"],
) -> PerturbationCurve:
    return PerturbationCurve(
        baseline=baseline,
        probabilities=tuple(curve.tolist()),
        auc=curve_auc(curve),
        random_order_probabilities=tuple(random_order.mean(0).tolist()),
        random_order_aucs=tuple(map(curve_auc, random_order)),
        phase_randomized_probabilities=tuple(phase_randomized_curves.mean(0).tolist()),
        phase_randomized_aucs=tuple(map(curve_auc, phase_randomized_curves)),
    )


def curves_in_random_order(
    net: ImageClassifier,
    pixels: SinglePixels,
    target: int,
    *,
    steps: int = CURVE_STEPS,
    n_orders: int = N_RANDOM_ORDERS,
    seed: int = 0,
) -> CurvesByBaseline:
    """Curves with an image's pixels in random orders."""
    count = pixels[0, 0].numel()
    rngs = [make_generator(seed, "pixel order", index) for index in range(n_orders)]
    return perturbation_curves(net, pixels, target, [torch.randperm(count, generator=rng) for rng in rngs], steps)


def perturbation_curves(
    net: ImageClassifier, pixels: SinglePixels, target: int, pixel_orders: Sequence[PixelOrder], steps: int
) -> CurvesByBaseline:
    """The class's probability as pixels are deleted, then as they are inserted, in several orders."""
    sigma = max(0.5, 5 * min(pixels.shape[2:]) / 224)
    with prepared_input(net, pixels) as x, torch.no_grad():
        ends = {
            "mean color": (x, mean_color_image(net, x)),
            f"blur, sigma {sigma:.3g} px": (gaussian_blur(x, sigma), x),
        }
        return {
            baseline: torch.stack(
                [replacement_probabilities(net, target, start, end, order, steps) for order in pixel_orders]
            )
            for baseline, (start, end) in ends.items()
        }


def pixel_order(heatmap: Heatmap, size: tuple[int, int]) -> PixelOrder:
    """The pixels' indices by descending value of a map resized to (height, width); equal ones rows first."""
    if tuple(heatmap.shape) != size:
        heatmap = F.interpolate(heatmap[None, None].double(), size, mode="bilinear", align_corners=False)[0, 0]
    return heatmap.flatten().argsort(descending=True, stable=True)


def replacement_probabilities(
    net: ImageClassifier, target: int, start: SinglePixels, end: SinglePixels, order: PixelOrder, steps: int
) -> Float64[Tensor, "m"]:
    """The class's probability as pixels of `end` replace those of `start`, in an order; from none to all.

    Raises LabError if the network's logits are not finite on one of these images.
    """
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    counts = torch.linspace(0, len(order), steps + 1).round().long()
    replaced = (rank < counts[:, None]).view(-1, 1, *start.shape[2:])  # [steps + 1, 1, H, W]
    logits = torch.cat([net.forward_unchecked(torch.where(mask, end, start)) for mask in replaced.split(1)])
    require_finite_logits(logits, "the image with some of its pixels deleted or inserted")
    return logits.double().softmax(1)[:, target]


def curve_auc(curve: Float[Tensor, "n"]) -> float:
    """The area under a curve over [0, 1], by trapezoids."""
    return float(torch.trapezoid(curve, dx=1 / (len(curve) - 1)))


def gaussian_blur(x: SinglePixels, sigma: float) -> SinglePixels:
    """Gaussian blur, truncated at 3 sigma; beyond the border the image is continued by its border."""
    kernel_radius = min(math.ceil(3 * sigma), min(x.shape[2:]) - 1)
    offsets = torch.arange(-kernel_radius, kernel_radius + 1).to(x)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (kernel_radius, kernel_radius, kernel_radius, kernel_radius), mode="replicate")
    x = F.conv2d(x, kernel, groups=x.shape[1])
    return F.conv2d(x, kernel.transpose(2, 3), groups=x.shape[1]).clamp(0, 1)


def describe_curve(curve: PerturbationCurve, kind: Literal["deletion", "insertion"]) -> str:
    """A curve in words: how many draws of each control the map is better than."""
    sign = -1 if kind == "deletion" else 1
    control_texts = []
    for aucs, control_name in (
        (curve.random_order_aucs, CONTROLS["random_order"]),
        (curve.phase_randomized_aucs, CONTROLS["phase_randomized"]),
    ):
        mean = mean_interval(aucs)
        better_count = sum(sign * curve.auc > sign * auc for auc in aucs)
        interval_text = f"mean {mean.mean:.3f}, {mean.low:.3f} to {mean.high:.3f}"
        control_texts.append(f"{better_count} of {len(aucs)} {control_name} ({interval_text})")
    direction = "lower" if kind == "deletion" else "higher"
    return (
        f"{kind} ({curve.baseline}) AUC {curve.auc:.3f} ({direction} is better), "
        f"better than {' and '.join(control_texts)}"
    )


def auc_gains(checks: Sequence[Mapping[str, Any]], control: Control = "random_order") -> dict[str, Interval]:
    """By how much a method's areas are better than a control's, on average over images, with t-intervals over them.

    `checks` are what `SanityResult.to_dict` gives, one for each image. Deletion's gain is the control's area minus the
    map's, insertion's is the map's minus the control's.
    """
    gain_intervals = {}
    for kind, sign in (("deletion", -1), ("insertion", 1)):
        curves = [(check[kind]["auc"], check[kind][f"{control}_aucs"]) for check in checks]
        gains = [sign * (map_auc - sum(control_aucs) / len(control_aucs)) for map_auc, control_aucs in curves]
        gain_intervals[kind] = mean_interval(gains)
    return gain_intervals
