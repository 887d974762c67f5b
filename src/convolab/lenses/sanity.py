"""Whether a map can be trusted: does it change with the weights, and do its pixels matter more than any others?

Weights drawn anew (Adebayo et al. 2018, arXiv:1810.03292): a map that stays as it was when the network has forgotten everything
does not explain the network. Deletion and insertion (Petsiuk et al. 2018, arXiv:1806.07421): as the pixels that a map ranks first
are taken away or given, the class's probability should fall or rise sooner than with pixels in random order.
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

from convolab.ground.errors import need
from convolab.ground.random import generator
from convolab.ground.statistics import Interval, mean_interval
from convolab.lenses.saliency import Saliency, mean_colour
from convolab.nets.passes import recording
from convolab.nets.pixelnet import PixelNet, undisturbed

Heat = Float[Tensor, "rows columns"]
Method = Callable[[PixelNet, Tensor, int], Saliency]
CURVE = 32  # steps of a deletion or insertion curve
ORDERS = 5  # random orders that a map's order is held against
DRAWS = 20  # random maps that a map is compared with


@dataclass(frozen=True)
class Randomisation:
    """How alike a map stays when weights are drawn anew, from the head down: rank correlations of absolute values.

    `stages` are the network's, the head first. `cascading[i]` has all stages up to i drawn anew, `independent[i]` stage i alone;
    None stands for a map that became constant or not finite. `edges` compares the map with the picture's edges, which know nothing
    of any weight: a map so like them is suspect. `chance` is the largest likeness to 19 of 20 random maps as smooth as this one.
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
    on_progress: Callable[[str], None] = lambda what: None,
) -> Sanity:
    """Check a map that a method found: on networks with weights drawn anew, and by deleting and inserting pixels.

    Raises LabError for a map that is constant or not finite: there is nothing to check.
    """
    need(not found.fault, f"the {found.method} map is {found.fault}: there is nothing to check")
    randomisation = randomise(net, pixels, target, found.values, method, seed=seed, on_progress=on_progress)
    on_progress("deletion and insertion")
    return Sanity(found.method, randomisation, *deletion_and_insertion(net, pixels, target, found.values, seed=seed))


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
    for index, (name, _) in enumerate(groups):
        on_progress(f"weights of {name} drawn anew")
        for results, drawn in ((cascading, groups[: index + 1]), (independent, groups[index : index + 1])):
            results.append(likeness(heat, method(forgetful(net, drawn, seed), pixels, target).values))
    chance = sorted(abs(likeness(heat, random_map(heat, seed, i)) or 0.0) for i in range(DRAWS))[-DRAWS // 20 - 1]
    return Randomisation(
        tuple(name for name, _ in groups), tuple(cascading), tuple(independent), likeness(heat, edges(pixels, heat)), chance
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
    return float(first @ second) / size if size > 0 and math.isfinite(size) and bool(a.isfinite().all() and b.isfinite().all()) else None


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
    noise = torch.fft.rfft2(torch.randn(heat.shape, generator=generator(seed, "random map", number), dtype=torch.float64))
    drawn = torch.fft.irfft2(spectrum * torch.exp(1j * noise.angle()), s=heat.shape)
    return drawn - drawn.min()


def edges(pixels: Float[Tensor, "1 c h w"], like: Heat) -> Heat:
    """The strength of the picture's edges (Sobel's operator on its grey), averaged to the size of a map."""
    grey = pixels.float().mean(1, keepdim=True)
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    slopes = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), torch.stack([across, across.T]).unsqueeze(1))
    return F.adaptive_avg_pool2d(slopes.norm(dim=1), like.shape)[0]


def deletion_and_insertion(
    net: PixelNet, pixels: Float[Tensor, "1 c h w"], target: int, heat: Heat, *, steps: int = CURVE, orders: int = ORDERS, seed: int = 0
) -> tuple[Curve, Curve]:
    """Curves of the class's probability in the map's order of pixels and in random orders.

    Deleted pixels take the network's mean colour. Insertion starts from the picture blurred. The order is by falling value, and
    equal values keep the picture's order, rows first.
    """
    sigma = max(0.5, 5 * min(pixels.shape[2:]) / 224)
    order = order_of(heat, tuple(pixels.shape[2:]))
    random = [torch.randperm(len(order), generator=generator(seed, "pixel order", i)) for i in range(orders)]
    with undisturbed(net), torch.no_grad():
        x = pixels.to(net.scale)
        grounds = {"mean colour": (x, mean_colour(net, x)), f"blur, sigma {sigma:.3g} px": (blurred(x, sigma), x)}
        found = []
        for substrate, (start, end) in grounds.items():
            curve, *others = (probabilities(net, start, end, target, o, steps) for o in (order, *random))
            mean = torch.stack(others).mean(0)
            found.append(Curve(substrate, tuple(curve.tolist()), area(curve), tuple(mean.tolist()), tuple(map(area, others))))
    return found[0], found[1]


def order_of(heat: Heat, size: tuple[int, int]) -> Int64[Tensor, "n"]:
    """The pixels' places by falling value of a map stretched over them; equal ones rows first."""
    if tuple(heat.shape) != size:
        heat = F.interpolate(heat[None, None].double(), size, mode="bilinear", align_corners=False)[0, 0]
    return heat.flatten().argsort(descending=True, stable=True)


def probabilities(net: PixelNet, start: Tensor, end: Tensor, target: int, order: Int64[Tensor, "n"], steps: int) -> Float64[Tensor, "m"]:
    """The class's probability as pixels of `end` replace those of `start`, in an order; from none to all."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    counts = torch.linspace(0, len(order), steps + 1).round().long()
    replaced = (rank < counts[:, None]).view(-1, 1, *start.shape[2:])  # [steps + 1, 1, H, W]
    parts = [net.respond(torch.where(part, end, start)).softmax(1)[:, target] for part in replaced.split(8)]
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
    r, lines = sanity.randomisation, []
    last = r.cascading[-1]
    alike = "a map without values" if last is None else f"{last:+.2f} alike"
    verdict = ""
    if last is not None:
        verdict = (
            ", no more than chance: it is about the weights"
            if abs(last) <= r.chance
            else f", more than chance ({r.chance:.2f}): part of it is not about the weights"
        )
    near = "" if r.edges is None else f"; {r.edges:+.2f} like the picture's edges"
    lines.append(f"{sanity.method}: all weights drawn anew, the map is {alike} (rank correlation){verdict}{near}")
    for curve, wanted, name in ((sanity.deletion, -1, "deletion"), (sanity.insertion, 1, "insertion")):
        interval = mean_interval(curve.random_areas)
        gain = wanted * (curve.area - interval.mean)
        how = "better than" if wanted * curve.area > max(wanted * a for a in curve.random_areas) else "no better than"
        lines.append(
            f"{sanity.method}: {name} ({curve.substrate}) area {curve.area:.3f}, in random order {interval.mean:.3f} ({interval.low:.3f} to {interval.high:.3f}): {how} chance ({gain:+.3f})"
        )
    return lines


def gains(checks: Sequence[dict[str, Any]]) -> dict[str, Interval]:
    """By how much a method's areas beat random order, on average over pictures, with t-intervals over them.

    `checks` are what `Sanity.values` gives, a picture each. Deletion's gain is the random area less the map's, insertion's the
    map's less the random.
    """
    found = {}
    for kind, sign in (("deletion", -1), ("insertion", 1)):
        curves = [check[kind] for check in checks]
        found[kind] = mean_interval([sign * (c["area"] - sum(c["random_areas"]) / len(c["random_areas"])) for c in curves])
    return found
