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

from convolab.core.errors import need
from convolab.core.rng import generator
from convolab.core.stats import Interval, mean_interval
from convolab.inspection.explain.methods import CHUNK, Saliency, looking, mean_colour, quickly
from convolab.models.classifier import PixelNet, undisturbed
from convolab.models.hooks import recording

Heat = Float[Tensor, "rows columns"]
Method = Callable[[PixelNet, Tensor, int], Saliency]
Curves = dict[str, Float64[Tensor, "orders m"]]  # by substrate: a curve of probabilities for each order
CURVE = 32  # steps of a deletion or insertion curve
ORDERS = 5  # random orders that a map's order is held against
DRAWS = 20  # random maps that a map is compared with


@dataclass(frozen=True)
class Randomisation:
    """How alike a map stays when weights are drawn anew, from the head down: rank correlations of absolute values.

    `stages` are the network's, the head first. `cascading[i]` has all stages up to i drawn anew, `independent[i]` stage i alone;
    None stands for a map that became constant or not finite. `edges` compares the map with the picture's edges, which know nothing
    of any weight: a map so like them is suspect. Of 20 random maps as smooth as this one 19 are no more like it than `chance`.
    """

    stages: tuple[str, ...]
    cascading: tuple[float | None, ...]
    independent: tuple[float | None, ...]
    edges: float | None
    chance: float


@dataclass(frozen=True)
class Curve:
    """The class's probability as pixels are deleted or inserted: at which `shares` of the pixels, and the area by trapezoids."""

    substrate: str
    probabilities: tuple[float, ...]
    area: float
    random: tuple[float, ...]  # the probabilities with pixels in random orders, on average
    random_areas: tuple[float, ...]  # one a random order
    smooth: tuple[float, ...]  # the probabilities in the orders of random maps as smooth as this one, on average
    smooth_areas: tuple[float, ...]  # one a random map

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(i / (len(self.probabilities) - 1) for i in range(len(self.probabilities)))


@dataclass(frozen=True)
class Sanity:
    """The checks of one map."""

    method: str
    randomisation: Randomisation
    deletion: Curve
    insertion: Curve

    def values(self) -> dict[str, Any]:
        return asdict(self)


def check(
    net: PixelNet,
    pixels: Float[Tensor, "1 c h w"],
    target: int,
    found: Saliency,
    method: Method,
    *,
    seed: int = 0,
    at_random: Curves | None = None,
    on_progress: Callable[[str], None] = lambda what: None,
) -> Sanity:
    """Check a map that a method found: on networks with weights drawn anew, and by deleting and inserting pixels.

    `at_random` are `random_curves` of this picture, if they are made already: they are the same for all its maps. Raises LabError for a map that is constant or not finite: there is nothing to check.
    """
    need(not found.fault, f"the {found.method} map is {found.fault}: there is nothing to check")
    randomisation = randomise(net, pixels, target, found.values, method, seed=seed, on_progress=on_progress)
    on_progress("deletion and insertion")
    curves = deletion_and_insertion(net, pixels, target, found.values, seed=seed, at_random=at_random)
    return Sanity(found.method, randomisation, *curves)


def randomise(
    net: PixelNet,
    pixels: Float[Tensor, "1 c h w"],
    target: int,
    heat: Heat,
    method: Method,
    *,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda what: None,
) -> Randomisation:
    """Draw the network's weights anew, stage by stage, and see how alike the method's maps stay. The network is not touched."""
    groups = stages(net, pixels)
    cascading, independent = [], []

    def without(drawn: Sequence[tuple[str, list[str]]]) -> float | None:
        return likeness(heat, method(forgetful(net, drawn, seed), pixels, target).values)

    for index, (name, _) in enumerate(groups):
        on_progress(f"weights of {name} drawn anew")
        cascading.append(without(groups[: index + 1]))
        independent.append(without(groups[index : index + 1]) if index else cascading[0])  # the head alone begins both
    chance = sorted(abs(likeness(heat, random_map(heat, seed, i)) or 0.0) for i in range(DRAWS))[-DRAWS // 20 - 1]
    return Randomisation(
        tuple(name for name, _ in groups),
        tuple(cascading),
        tuple(independent),
        likeness(heat, edges(pixels, heat)),
        chance,
    )


def stages(net: PixelNet, pixels: Float[Tensor, "1 c h w"]) -> list[tuple[str, list[str]]]:
    """The network's stages, the head first, each with its parameters' names.

    A stage is what shares the first two parts of its path; a layer that only normalises belongs to the one before it.
    """
    with undisturbed(net), torch.no_grad(), recording(net.network) as record:
        net.respond(pixels.to(net.scale))
    named = {id(parameter): name for name, parameter in net.network.named_parameters()}
    groups: dict[str, list[str]] = {}
    for call in record.calls:
        mine = [named[id(value)] for value in call.inputs if id(value) in named]
        if not mine or any(name in group for name in mine for group in groups.values()):
            continue
        stage = ".".join(mine[0].split(".")[:-1][:2]) or mine[0]
        if call.function in ("batch_norm", "group_norm", "layer_norm") and groups and stage not in groups:
            stage = next(reversed(groups))
        groups.setdefault(stage, []).extend(mine)
    return list(reversed(groups.items()))


def forgetful(net: PixelNet, groups: Sequence[tuple[str, list[str]]], seed: int) -> PixelNet:
    """A copy of the network that has forgotten some stages.

    Each of their tensors is drawn anew from a normal distribution of its own mean and deviation: what follows meets numbers of
    the usual size. A tensor's draw depends on its name alone, so it is the same in every copy.
    """
    twin = copy.deepcopy(net)
    parameters: dict[str, nn.Parameter] = dict(twin.network.named_parameters())
    with torch.no_grad():
        for _, names in groups:
            for name in names:
                old = parameters[name]
                spread = old.std(correction=0) if old.numel() > 1 else old.abs()
                drawn = torch.randn(old.shape, generator=generator(seed, "forget", name)).to(old)
                old.copy_(old.mean() + spread * drawn)
    return twin


def likeness(a: Heat, b: Heat) -> float | None:
    """Spearman's rank correlation of two maps' absolute values; None where one is constant or not finite.

    >>> round(likeness(torch.tensor([[1.0, -2.0, 3.0]]), torch.tensor([[10.0, 20.0, -30.0]])), 6)
    1.0
    """
    first, second = (ranks(m.abs().flatten()) for m in (a, b))
    first, second = first - first.mean(), second - second.mean()
    size = float(first.norm() * second.norm())
    return (
        float(first @ second) / size
        if size > 0 and math.isfinite(size) and bool(a.isfinite().all() and b.isfinite().all())
        else None
    )


def ranks(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks from 1 in float64; equal values share their mean rank."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def random_map(heat: Heat, seed: int, number: int) -> Heat:
    """A random map as smooth as another: the spectrum of its absolute values with the phases of noise.

    Two maps that have nothing in common but their smoothness are the more alike by chance the smoother they are.
    """
    spectrum = torch.fft.rfft2(heat.abs().double() - heat.abs().double().mean()).abs()
    noise = torch.fft.rfft2(
        torch.randn(heat.shape, generator=generator(seed, "random map", number), dtype=torch.float64)
    )
    drawn = torch.fft.irfft2(spectrum * torch.exp(1j * noise.angle()), s=heat.shape)
    return drawn - drawn.min()


def edges(pixels: Float[Tensor, "1 c h w"], like: Heat) -> Heat:
    """The strength of the picture's edges (Sobel's operator on its grey), averaged to the size of a map."""
    grey = pixels.float().mean(1, keepdim=True)
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    slopes = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack([across, across.T]).unsqueeze(1))
    return F.adaptive_avg_pool2d(slopes.norm(dim=1), like.shape)[0]


def deletion_and_insertion(
    net: PixelNet,
    pixels: Float[Tensor, "1 c h w"],
    target: int,
    heat: Heat,
    *,
    steps: int = CURVE,
    orders: int = ORDERS,
    seed: int = 0,
    at_random: Curves | None = None,
) -> tuple[Curve, Curve]:
    """Curves of the class's probability in the map's order of pixels, in random orders, and in those of random maps as smooth.

    Deleted pixels take the network's mean colour. Insertion starts from the picture blurred. The order is by falling value, and
    equal values keep the picture's order, rows first.
    """
    size = tuple(pixels.shape[2:])
    pixelwise = (
        random_curves(net, pixels, target, steps=steps, orders=orders, seed=seed) if at_random is None else at_random
    )
    drawn = [random_map(heat - heat.min(), seed, number) for number in range(orders)]
    own = curves(net, pixels, target, [order_of(values, size) for values in (heat, *drawn)], steps)
    deletion, insertion = (
        as_curve(substrate, found[0], pixelwise[substrate], found[1:]) for substrate, found in own.items()
    )
    return deletion, insertion


def as_curve(
    substrate: str, curve: Float64[Tensor, "m"], random: Float64[Tensor, "orders m"], smooth: Float64[Tensor, "maps m"]
) -> Curve:
    controls = [(tuple(some.mean(0).tolist()), tuple(map(area, some))) for some in (random, smooth)]
    return Curve(substrate, tuple(curve.tolist()), area(curve), *controls[0], *controls[1])


def random_curves(
    net: PixelNet,
    pixels: Float[Tensor, "1 c h w"],
    target: int,
    *,
    steps: int = CURVE,
    orders: int = ORDERS,
    seed: int = 0,
) -> Curves:
    """Curves with a picture's pixels in random orders."""
    count = pixels[0, 0].numel()
    drawn = [torch.randperm(count, generator=generator(seed, "pixel order", number)) for number in range(orders)]
    return curves(net, pixels, target, drawn, steps)


def curves(
    net: PixelNet, pixels: Float[Tensor, "1 c h w"], target: int, orders: Sequence[Int64[Tensor, "n"]], steps: int
) -> Curves:
    """The class's probability as pixels are deleted, then as they are inserted, in several orders."""
    sigma = max(0.5, 5 * min(pixels.shape[2:]) / 224)
    with looking(net, pixels) as x, quickly(net, x), torch.no_grad():
        grounds = {"mean colour": (x, mean_colour(net, x)), f"blur, sigma {sigma:.3g} px": (blurred(x, sigma), x)}
        return {
            substrate: torch.stack([probabilities(net, start, end, target, order, steps) for order in orders])
            for substrate, (start, end) in grounds.items()
        }


def order_of(heat: Heat, size: tuple[int, int]) -> Int64[Tensor, "n"]:
    """The pixels' places by falling value of a map stretched over them; equal ones rows first."""
    if tuple(heat.shape) != size:
        heat = F.interpolate(heat[None, None].double(), size, mode="bilinear", align_corners=False)[0, 0]
    return heat.flatten().argsort(descending=True, stable=True)


def probabilities(
    net: PixelNet, start: Tensor, end: Tensor, target: int, order: Int64[Tensor, "n"], steps: int
) -> Float64[Tensor, "m"]:
    """The class's probability as pixels of `end` replace those of `start`, in an order; from none to all."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    counts = torch.linspace(0, len(order), steps + 1).round().long()
    replaced = (rank < counts[:, None]).view(-1, 1, *start.shape[2:])  # [steps + 1, 1, H, W]
    parts = [net.respond(torch.where(part, end, start)).softmax(1)[:, target] for part in replaced.split(CHUNK)]
    return torch.cat(parts).double()


def area(curve: Float[Tensor, "n"]) -> float:
    """The area below a curve over [0, 1], by trapezoids."""
    return float(torch.trapezoid(curve, dx=1 / (len(curve) - 1)))


def blurred(x: Float[Tensor, "1 c h w"], sigma: float) -> Float[Tensor, "1 c h w"]:
    """Gaussian blur, cut off at 3 sigma; the picture is continued by its border."""
    reach = min(math.ceil(3 * sigma), min(x.shape[2:]) - 1)
    at = torch.arange(-reach, reach + 1).to(x)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (reach, reach, reach, reach), mode="replicate")
    x = F.conv2d(x, kernel, groups=x.shape[1])
    return F.conv2d(x, kernel.transpose(2, 3), groups=x.shape[1]).clamp(0, 1)


def said(sanity: Sanity) -> list[str]:
    """The checks in words."""
    r = sanity.randomisation
    last, near = r.cascading[-1], "" if r.edges is None else f"; it is {r.edges:+.2f} like the picture's edges"
    if last is None:
        left = "nothing is left of the map"
    elif abs(last) <= r.chance:
        left = f"{last:+.2f}, no more than random maps as smooth ({r.chance:.2f})"
    else:
        left = f"{last:+.2f}, more than random maps as smooth ({r.chance:.2f}): part of it is not about the weights"
    head = "" if r.cascading[0] is None else f"the head's weights drawn anew, the map is {r.cascading[0]:+.2f} alike; "
    lines = [f"{sanity.method}: {head}all weights drawn anew, {left}{near}"]
    for curve, name, good in ((sanity.deletion, "deletion", "low"), (sanity.insertion, "insertion", "high")):
        sign = -1 if good == "low" else 1
        held = []
        for areas, what in (
            (curve.random_areas, "random orders of pixels"),
            (curve.smooth_areas, "random maps as smooth"),
        ):
            mean, beaten = mean_interval(areas), sum(sign * curve.area > sign * one for one in areas)
            held.append(f"{beaten} of {len(areas)} {what} (mean {mean.mean:.3f}, {mean.low:.3f} to {mean.high:.3f})")
        lines.append(
            f"{sanity.method}: {name} ({curve.substrate}) area {curve.area:.3f}, {good} is good: it beats {' and '.join(held)}"
        )
    return lines


def gains(checks: Sequence[dict[str, Any]], control: str = "random") -> dict[str, Interval]:
    """By how much a method's areas beat a control's, `random` or `smooth`, on average over pictures, with t-intervals over them.

    `checks` are what `Sanity.values` gives, a picture each. Deletion's gain is the control's area less the map's, insertion's the
    map's less the control's.
    """
    found = {}
    for kind, sign in (("deletion", -1), ("insertion", 1)):
        curves = [(check[kind]["area"], check[kind][f"{control}_areas"]) for check in checks]
        found[kind] = mean_interval([sign * (own - sum(others) / len(others)) for own, others in curves])
    return found


def outlived(checks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How alike a method's maps stay when weights are drawn anew, over pictures, and how like edges they were.

    `head` is with the head's weights alone drawn anew, `all` with all of them, a map each that should be another one.
    `checks` are what `Sanity.values` gives. `above_chance` counts the pictures whose map stays more alike than 19 of 20 random
    maps as smooth with all weights drawn anew; one in 20 does by chance. `without_values` counts maps of which nothing was left.
    """
    found = [check["randomisation"] for check in checks]
    alike = [(r["cascading"][-1], r["chance"]) for r in found if r["cascading"][-1] is not None]
    head = [r["cascading"][0] for r in found if r["cascading"][0] is not None]
    edged = [r["edges"] for r in found if r["edges"] is not None]
    return {
        "head": mean_interval(head) if head else None,
        "all": mean_interval([value for value, _ in alike]) if alike else None,
        "chance": sum(r["chance"] for r in found) / len(found),
        "above_chance": sum(abs(value) > chance for value, chance in alike),
        "without_values": len(found) - len(alike),
        "edges": mean_interval(edged) if edged else None,
    }
