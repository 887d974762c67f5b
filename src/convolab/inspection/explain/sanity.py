"""Whether a map can be trusted: does it change with the weights, and do its pixels matter more than any others?

Weights drawn anew (Adebayo et al. 2018, arXiv:1810.03292): a map that stays as it was when the network has forgotten everything
does not explain the network. Deletion and insertion (Petsiuk et al. 2018, arXiv:1806.07421): as the pixels that a map ranks first
are taken away or given, the class's probability should fall or rise sooner than with pixels in random order.

Scattered pixels and whole regions disturb a network differently, whatever they show. So there are two controls of an order:
single pixels at random, which is Petsiuk's, and random maps as smooth as the map, which take away regions as it does.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.core.stats import Interval, mean_interval
from convolab.inspection.explain.methods import (
    BATCH_SIZE,
    SaliencyMap,
    mean_color_image,
    prepared_input,
    with_folded_batch_norm,
)
from convolab.models.classifier import ImageClassifier
from convolab.models.hooks import record_calls
from convolab.models.inference import frozen_eval

Heatmap = Float[Tensor, "rows columns"]
SaliencyMethod = Callable[[ImageClassifier, Tensor, int], SaliencyMap]
CurvesByBaseline = dict[str, Float64[Tensor, "orders m"]]  # by substrate: a curve of probabilities for each order
CURVE_STEPS = 32  # steps of a deletion or insertion curve
N_RANDOM_ORDERS = 5  # random orders that a map's order is held against
N_NULL_MAPS = 20  # random maps that a map is compared with


@dataclass(frozen=True)
class RandomizationTest:
    """How alike a map stays when weights are drawn anew, from the head down: rank correlations of absolute values.

    `stages` are the network's, the head first. `cascading[i]` has all stages up to i drawn anew, `independent[i]` stage i alone;
    None stands for a map that became constant or not finite. `edges` compares the map with the picture's edges, which know nothing
    of any weight: a map so like them is suspect. Of 20 random maps as smooth as this one 19 are no more like it than `chance`.
    """

    layer_groups: tuple[str, ...]
    cascading: tuple[float | None, ...]
    independent: tuple[float | None, ...]
    edge_correlation: float | None
    null_95th_percentile: float


@dataclass(frozen=True)
class PerturbationCurve:
    """The class's probability as pixels are deleted or inserted: at which `shares` of the pixels, and the area by trapezoids."""

    baseline: str
    probabilities: tuple[float, ...]
    auc: float
    random_order_probabilities: tuple[float, ...]  # the probabilities with pixels in random orders, on average
    random_order_aucs: tuple[float, ...]  # one a random order
    phase_randomized_probabilities: tuple[
        float, ...
    ]  # the probabilities in the orders of random maps as smooth as this one, on average
    phase_randomized_aucs: tuple[float, ...]  # one a random map

    @property
    def pixel_fractions(self) -> tuple[float, ...]:
        return tuple(i / (len(self.probabilities) - 1) for i in range(len(self.probabilities)))


@dataclass(frozen=True)
class SanityResult:
    """The checks of one map."""

    method: str
    randomization: RandomizationTest
    deletion: PerturbationCurve
    insertion: PerturbationCurve

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_sanity_checks(
    net: ImageClassifier,
    pixels: Float[Tensor, "1 c h w"],
    target: int,
    saliency_map: SaliencyMap,
    method: SaliencyMethod,
    *,
    seed: int = 0,
    precomputed_curves: CurvesByBaseline | None = None,
    on_progress: Callable[[str], None] = lambda what: None,
) -> SanityResult:
    """Check a map that a method found: on networks with weights drawn anew, and by deleting and inserting pixels.

    `at_random` are `random_curves` of this picture, if they are made already: they are the same for all its maps. Raises LabError for a map that is constant or not finite: there is nothing to check.
    """
    require(
        not saliency_map.invalid_reason,
        f"the {saliency_map.method} map is {saliency_map.invalid_reason}: there is nothing to check",
    )
    randomization = run_randomization_test(
        net, pixels, target, saliency_map.values, method, seed=seed, on_progress=on_progress
    )
    on_progress("deletion and insertion")
    deletion_insertion_curves = deletion_and_insertion(
        net, pixels, target, saliency_map.values, seed=seed, precomputed_curves=precomputed_curves
    )
    return SanityResult(saliency_map.method, randomization, *deletion_insertion_curves)


def run_randomization_test(
    net: ImageClassifier,
    pixels: Float[Tensor, "1 c h w"],
    target: int,
    heatmap: Heatmap,
    method: SaliencyMethod,
    *,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda what: None,
) -> RandomizationTest:
    """Draw the network's weights anew, stage by stage, and see how alike the method's maps stay. The network is not touched."""
    groups = layer_groups(net, pixels)
    cascading, independent = [], []

    def similarity_without(randomized_groups: Sequence[tuple[str, list[str]]]) -> float | None:
        return rank_correlation(heatmap, method(randomized_copy(net, randomized_groups, seed), pixels, target).values)

    for index, (name, _) in enumerate(groups):
        on_progress(f"weights of {name} drawn anew")
        cascading.append(similarity_without(groups[: index + 1]))
        independent.append(
            similarity_without(groups[index : index + 1]) if index else cascading[0]
        )  # the head alone begins both
    null_percentile = sorted(
        abs(rank_correlation(heatmap, phase_randomized(heatmap, seed, i)) or 0.0) for i in range(N_NULL_MAPS)
    )[-N_NULL_MAPS // 20 - 1]
    return RandomizationTest(
        tuple(name for name, _ in groups),
        tuple(cascading),
        tuple(independent),
        rank_correlation(heatmap, sobel_edges(pixels, heatmap)),
        null_percentile,
    )


def layer_groups(net: ImageClassifier, pixels: Float[Tensor, "1 c h w"]) -> list[tuple[str, list[str]]]:
    """The network's stages, the head first, each with its parameters' names.

    A stage is what shares the first two parts of its path; a layer that only normalises belongs to the one before it.
    """
    with frozen_eval(net), torch.no_grad(), record_calls(net.network) as record:
        net.forward_unchecked(pixels.to(net.scale))
    parameter_names = {id(parameter): name for name, parameter in net.network.named_parameters()}
    groups: dict[str, list[str]] = {}
    for call in record.calls:
        call_parameters = [parameter_names[id(value)] for value in call.input_tensors if id(value) in parameter_names]
        if not call_parameters or any(name in group for name in call_parameters for group in groups.values()):
            continue
        group_name = ".".join(call_parameters[0].split(".")[:-1][:2]) or call_parameters[0]
        if call.function in ("batch_norm", "group_norm", "layer_norm") and groups and group_name not in groups:
            group_name = next(reversed(groups))
        groups.setdefault(group_name, []).extend(call_parameters)
    return list(reversed(groups.items()))


def randomized_copy(net: ImageClassifier, groups: Sequence[tuple[str, list[str]]], seed: int) -> ImageClassifier:
    """A copy of the network that has forgotten some stages.

    Each of their tensors is drawn anew from a normal distribution of its own mean and deviation: what follows meets numbers of
    the usual size. A tensor's draw depends on its name alone, so it is the same in every copy.
    """
    copied_net = copy.deepcopy(net)
    parameters: dict[str, nn.Parameter] = dict(copied_net.network.named_parameters())
    with torch.no_grad():
        for _, names in groups:
            for name in names:
                old = parameters[name]
                std = old.std(correction=0) if old.numel() > 1 else old.abs()
                random_values = torch.randn(old.shape, generator=make_generator(seed, "forget", name)).to(old)
                old.copy_(old.mean() + std * random_values)
    return copied_net


def rank_correlation(a: Heatmap, b: Heatmap) -> float | None:
    """Spearman's rank correlation of two maps' absolute values; None where one is constant or not finite.

    >>> round(likeness(torch.tensor([[1.0, -2.0, 3.0]]), torch.tensor([[10.0, 20.0, -30.0]])), 6)
    1.0
    """
    first, second = (average_ranks(m.abs().flatten()) for m in (a, b))
    first, second = first - first.mean(), second - second.mean()
    size = float(first.norm() * second.norm())
    return (
        float(first @ second) / size
        if size > 0 and math.isfinite(size) and bool(a.isfinite().all() and b.isfinite().all())
        else None
    )


def average_ranks(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks from 1 in float64; equal values share their mean rank."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def phase_randomized(heatmap: Heatmap, seed: int, map_index: int) -> Heatmap:
    """A random map as smooth as another: the spectrum of its absolute values with the phases of noise.

    Two maps that have nothing in common but their smoothness are the more alike by chance the smoother they are.
    """
    spectrum = torch.fft.rfft2(heatmap.abs().double() - heatmap.abs().double().mean()).abs()
    noise = torch.fft.rfft2(
        torch.randn(heatmap.shape, generator=make_generator(seed, "random map", map_index), dtype=torch.float64)
    )
    random_heatmap = torch.fft.irfft2(spectrum * torch.exp(1j * noise.angle()), s=heatmap.shape)
    return random_heatmap - random_heatmap.min()


def sobel_edges(pixels: Float[Tensor, "1 c h w"], heatmap: Heatmap) -> Heatmap:
    """The strength of the picture's edges (Sobel's operator on its grey), averaged to the size of a map."""
    gray = pixels.float().mean(1, keepdim=True)
    horizontal_kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    slopes = F.conv2d(
        F.pad(gray, (1, 1, 1, 1), mode="replicate"), torch.stack([horizontal_kernel, horizontal_kernel.T]).unsqueeze(1)
    )
    return F.adaptive_avg_pool2d(slopes.norm(dim=1), heatmap.shape)[0]


def deletion_and_insertion(
    net: ImageClassifier,
    pixels: Float[Tensor, "1 c h w"],
    target: int,
    heatmap: Heatmap,
    *,
    steps: int = CURVE_STEPS,
    n_orders: int = N_RANDOM_ORDERS,
    seed: int = 0,
    precomputed_curves: CurvesByBaseline | None = None,
) -> tuple[PerturbationCurve, PerturbationCurve]:
    """Curves of the class's probability in the map's order of pixels, in random orders, and in those of random maps as smooth.

    Deleted pixels take the network's mean colour. Insertion starts from the picture blurred. The order is by falling value, and
    equal values keep the picture's order, rows first.
    """
    size = tuple(pixels.shape[2:])
    random_order_curves = (
        curves_in_random_order(net, pixels, target, steps=steps, n_orders=n_orders, seed=seed)
        if precomputed_curves is None
        else precomputed_curves
    )
    null_maps = [phase_randomized(heatmap - heatmap.min(), seed, number) for number in range(n_orders)]
    map_curves = perturbation_curves(
        net, pixels, target, [pixel_order(values, size) for values in (heatmap, *null_maps)], steps
    )
    deletion, insertion = (
        to_perturbation_curve(baseline, curves_of_baseline[0], random_order_curves[baseline], curves_of_baseline[1:])
        for baseline, curves_of_baseline in map_curves.items()
    )
    return deletion, insertion


def to_perturbation_curve(
    baseline: str,
    curve: Float64[Tensor, "m"],
    random_order: Float64[Tensor, "orders m"],
    phase_randomized_curves: Float64[Tensor, "maps m"],
) -> PerturbationCurve:
    controls = [
        (tuple(control_curves.mean(0).tolist()), tuple(map(curve_auc, control_curves)))
        for control_curves in (random_order, phase_randomized_curves)
    ]
    return PerturbationCurve(baseline, tuple(curve.tolist()), curve_auc(curve), *controls[0], *controls[1])


def curves_in_random_order(
    net: ImageClassifier,
    pixels: Float[Tensor, "1 c h w"],
    target: int,
    *,
    steps: int = CURVE_STEPS,
    n_orders: int = N_RANDOM_ORDERS,
    seed: int = 0,
) -> CurvesByBaseline:
    """Curves with a picture's pixels in random orders."""
    count = pixels[0, 0].numel()
    pixel_orders = [
        torch.randperm(count, generator=make_generator(seed, "pixel order", number)) for number in range(n_orders)
    ]
    return perturbation_curves(net, pixels, target, pixel_orders, steps)


def perturbation_curves(
    net: ImageClassifier,
    pixels: Float[Tensor, "1 c h w"],
    target: int,
    pixel_orders: Sequence[Int64[Tensor, "n"]],
    steps: int,
) -> CurvesByBaseline:
    """The class's probability as pixels are deleted, then as they are inserted, in several orders."""
    sigma = max(0.5, 5 * min(pixels.shape[2:]) / 224)
    with prepared_input(net, pixels) as x, with_folded_batch_norm(net, x), torch.no_grad():
        baselines = {
            "mean colour": (x, mean_color_image(net, x)),
            f"blur, sigma {sigma:.3g} px": (gaussian_blur(x, sigma), x),
        }
        return {
            baseline: torch.stack(
                [replacement_probabilities(net, start, end, target, order, steps) for order in pixel_orders]
            )
            for baseline, (start, end) in baselines.items()
        }


def pixel_order(heatmap: Heatmap, size: tuple[int, int]) -> Int64[Tensor, "n"]:
    """The pixels' places by falling value of a map stretched over them; equal ones rows first."""
    if tuple(heatmap.shape) != size:
        heatmap = F.interpolate(heatmap[None, None].double(), size, mode="bilinear", align_corners=False)[0, 0]
    return heatmap.flatten().argsort(descending=True, stable=True)


def replacement_probabilities(
    net: ImageClassifier, start: Tensor, end: Tensor, target: int, order: Int64[Tensor, "n"], steps: int
) -> Float64[Tensor, "m"]:
    """The class's probability as pixels of `end` replace those of `start`, in an order; from none to all."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    counts = torch.linspace(0, len(order), steps + 1).round().long()
    replaced = (rank < counts[:, None]).view(-1, 1, *start.shape[2:])  # [steps + 1, 1, H, W]
    batch_probabilities = [
        net.forward_unchecked(torch.where(part, end, start)).softmax(1)[:, target]
        for part in replaced.split(BATCH_SIZE)
    ]
    return torch.cat(batch_probabilities).double()


def curve_auc(curve: Float[Tensor, "n"]) -> float:
    """The area below a curve over [0, 1], by trapezoids."""
    return float(torch.trapezoid(curve, dx=1 / (len(curve) - 1)))


def gaussian_blur(x: Float[Tensor, "1 c h w"], sigma: float) -> Float[Tensor, "1 c h w"]:
    """Gaussian blur, cut off at 3 sigma; the picture is continued by its border."""
    kernel_radius = min(math.ceil(3 * sigma), min(x.shape[2:]) - 1)
    offsets = torch.arange(-kernel_radius, kernel_radius + 1).to(x)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (kernel_radius, kernel_radius, kernel_radius, kernel_radius), mode="replicate")
    x = F.conv2d(x, kernel, groups=x.shape[1])
    return F.conv2d(x, kernel.transpose(2, 3), groups=x.shape[1]).clamp(0, 1)


def describe_sanity(sanity: SanityResult) -> list[str]:
    """The checks in words."""
    randomization = sanity.randomization
    final_similarity, edge_text = (
        randomization.cascading[-1],
        ""
        if randomization.edge_correlation is None
        else f"; it is {randomization.edge_correlation:+.2f} like the picture's edges",
    )
    if final_similarity is None:
        remaining_text = "nothing is left of the map"
    elif abs(final_similarity) <= randomization.null_95th_percentile:
        remaining_text = (
            f"{final_similarity:+.2f}, no more than random maps as smooth ({randomization.null_95th_percentile:.2f})"
        )
    else:
        remaining_text = f"{final_similarity:+.2f}, more than random maps as smooth ({randomization.null_95th_percentile:.2f}): part of it is not about the weights"
    head_text = (
        ""
        if randomization.cascading[0] is None
        else f"the head's weights drawn anew, the map is {randomization.cascading[0]:+.2f} alike; "
    )
    lines = [f"{sanity.method}: {head_text}all weights drawn anew, {remaining_text}{edge_text}"]
    for curve, name, better_direction in (
        (sanity.deletion, "deletion", "low"),
        (sanity.insertion, "insertion", "high"),
    ):
        sign = -1 if better_direction == "low" else 1
        control_texts = []
        for areas, what in (
            (curve.random_order_aucs, "random orders of pixels"),
            (curve.phase_randomized_aucs, "random maps as smooth"),
        ):
            mean, beaten_count = mean_interval(areas), sum(sign * curve.auc > sign * one for one in areas)
            control_texts.append(
                f"{beaten_count} of {len(areas)} {what} (mean {mean.mean:.3f}, {mean.low:.3f} to {mean.high:.3f})"
            )
        lines.append(
            f"{sanity.method}: {name} ({curve.baseline}) area {curve.auc:.3f}, {better_direction} is good: it beats {' and '.join(control_texts)}"
        )
    return lines


def auc_gains(checks: Sequence[dict[str, Any]], control: str = "random") -> dict[str, Interval]:
    """By how much a method's areas beat a control's, `random` or `smooth`, on average over pictures, with t-intervals over them.

    `checks` are what `Sanity.values` gives, a picture each. Deletion's gain is the control's area less the map's, insertion's the
    map's less the control's.
    """
    gain_intervals = {}
    for kind, sign in (("deletion", -1), ("insertion", 1)):
        curves = [(check[kind]["area"], check[kind][f"{control}_areas"]) for check in checks]
        gain_intervals[kind] = mean_interval(
            [sign * (map_auc - sum(control_aucs) / len(control_aucs)) for map_auc, control_aucs in curves]
        )
    return gain_intervals


def remaining_similarity(checks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How alike a method's maps stay when weights are drawn anew, over pictures, and how like edges they were.

    `head` is with the head's weights alone drawn anew, `all` with all of them, a map each that should be another one.
    `checks` are what `Sanity.values` gives. `above_chance` counts the pictures whose map stays more alike than 19 of 20 random
    maps as smooth with all weights drawn anew; one in 20 does by chance. `without_values` counts maps of which nothing was left.
    """
    randomizations = [check["randomisation"] for check in checks]
    final_similarities = [(r["cascading"][-1], r["chance"]) for r in randomizations if r["cascading"][-1] is not None]
    head_similarities = [r["cascading"][0] for r in randomizations if r["cascading"][0] is not None]
    edge_correlations = [r["edges"] for r in randomizations if r["edges"] is not None]
    return {
        "head": mean_interval(head_similarities) if head_similarities else None,
        "all": mean_interval([value for value, _ in final_similarities]) if final_similarities else None,
        "chance": sum(r["chance"] for r in randomizations) / len(randomizations),
        "above_chance": sum(abs(value) > chance for value, chance in final_similarities),
        "without_values": len(randomizations) - len(final_similarities),
        "edges": mean_interval(edge_correlations) if edge_correlations else None,
    }
