"""Fooling: gradient ascent on a picture until a network takes it for a class of one's choice.

A step is the course's: X += step * g / ||g||_2, with g the gradient of the target's score (Simonyan et al. 2013, Szegedy et al. 2013).
Whatever is claimed is claimed for bytes: success is tried on the 8-bit picture, and a budget holds for it exactly.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from convolab.core.errors import LabError, nearest, need
from convolab.inspection.adversarial.ensemble import brought, diversified
from convolab.inspection.explain.methods import quickly
from convolab.models.classifier import PixelNet, undisturbed

Bytes = UInt8[Tensor, "n c h w"]
Pixels = Float[Tensor, "n c h w"]
PHOTO = 3 * 224 * 224  # values of the picture that the defaults were measured on
STEP = 0.5  # there: larger steps are fewer and go further past the border than they need to
CHUNK = 2  # such pictures a pass: more do not fit a small processor's cache
MAX_STEPS = 200
LEGS = 10  # of a way of a length that is wanted
Logits = Float[Tensor, "n classes"]
Targets = Int64[Tensor, "n"]


def logit(logits: Logits, targets: Targets) -> Float[Tensor, "n"]:
    """The target's logit, as in the course. Others may rise with it, faster: then the target never wins."""
    return logits.gather(1, targets[:, None])[:, 0]


def log_probability(logits: Logits, targets: Targets) -> Float[Tensor, "n"]:
    """The target's log-probability: its logit up and the probable others down, as in training."""
    return logit(logits.log_softmax(1), targets)


def margin(logits: Logits, targets: Targets) -> Float[Tensor, "n"]:
    """The target's logit less the largest other one: what must be above 0 for the target to win (Carlini & Wagner 2017)."""
    others = logits.scatter(1, targets[:, None], -math.inf)
    return logit(logits, targets) - others.amax(1)


OBJECTIVES: dict[str, Callable[[Logits, Targets], Tensor]] = {
    f.__name__.replace("_", "-"): f for f in (logit, log_probability, margin)
}


@dataclass(frozen=True)
class Budget:
    """How far a picture may go from where it started, in pixels of [0, 1].

    >>> str(Budget.parse("linf=8/255")), Budget.parse("l2=1.5").size, str(Budget.parse("none"))
    ('linf=8/255', 1.5, 'none')
    """

    norm: Literal["none", "l2", "linf"] = "none"
    size: float = math.inf

    @staticmethod
    def parse(words: str) -> "Budget":
        """`linf=8/255`, `l2=1.5` or `none`. Raises LabError for anything else, and for less than one of 255 levels."""
        norm, _, size = words.strip().casefold().partition("=")
        if norm == "none" and not size:
            return Budget()
        need(norm in ("l2", "linf"), f"there is no budget '{words}': give linf=8/255, l2=1.5, or none")
        try:
            value = float(Fraction(size.strip()))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise LabError(f"the budget '{words}' has no number: give linf=8/255, l2=1.5, or none") from None
        need(
            value * 255 > 1 - 1e-6,
            f"the budget '{words}' is less than one of the 255 levels of a pixel: give 1/255 or more",
        )
        return Budget("l2" if norm == "l2" else "linf", value)

    def __str__(self) -> str:
        if self.norm == "none":
            return "none"
        levels = self.size * 255
        return f"{self.norm}={f'{round(levels)}/255' if self.norm == 'linf' and abs(levels - round(levels)) < 1e-6 else f'{self.size:g}'}"

    def radius(self, count: int) -> float:
        """The L2 length of the longest way within the budget, for pictures of so many values."""
        return self.size * math.sqrt(count) if self.norm == "linf" else self.size

    def within(self, x: Pixels, start: Pixels) -> Pixels:
        """The pictures brought back into the budget, and their values into [0, 1]."""
        change = x - start
        if self.norm == "linf":
            change = change.clamp(-self.size, self.size)
        if self.norm == "l2":
            change = change * (self.size / lengths(change).clamp(min=1e-12)).clamp(max=1).view(-1, 1, 1, 1)
        return (start + change).clamp(0, 1)

    def as_bytes(self, x: Pixels, start: Bytes) -> Bytes:
        """The pictures in 8 bits, within the budget exactly, as whole levels count it.

        Each value is rounded to the nearest level. Under Linf the difference is cut off at the whole levels within; under L2,
        where rounding makes a picture too long, its difference is shortened until the rounded one fits.
        """
        change = (255 * x - start).double()
        if self.norm == "linf":
            levels = math.floor(self.size * 255 + 1e-6)
            change = change.round().clamp(-levels, levels)
        if self.norm == "l2":
            change = torch.stack([shortened(one, self.size * 255) for one in change])
        return (start + change.round()).clamp(0, 255).to(torch.uint8)


def shortened(change: Float[Tensor, "c h w"], size: float) -> Float[Tensor, "c h w"]:
    """A difference in levels, shortened until it is no longer than `size` when rounded. Halving finds the factor."""
    if float(change.round().norm()) <= size:
        return change
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if float((middle * change).round().norm()) <= size else (low, middle)
    return low * change


def lengths(change: Pixels) -> Float[Tensor, "n"]:
    return change.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class Climb:
    """How to climb."""

    objective: str = "log-probability"
    budget: Budget = Budget()
    step: float | None = None  # the length of a step in pixels of [0, 1]; see `step_for`
    max_steps: int = MAX_STEPS
    confidence: float = 0.0  # that the target's probability must reach besides being the largest
    momentum: float = 0.0  # what is kept of the steps before (MI-FGSM: Dong et al. 2018, arXiv:1710.06081)
    diversity: float = (
        0.0  # how often the gradient is taken at a shrunken picture (DI: Xie et al. 2019, arXiv:1803.06978)
    )

    def __post_init__(self) -> None:
        need(
            self.objective in OBJECTIVES,
            f"there is no objective '{self.objective}': {nearest(self.objective, OBJECTIVES)}",
        )
        good = self.step is None or (math.isfinite(self.step) and self.step > 0)
        need(good, f"the step is {self.step}: give a length above 0, in pixels of [0, 1]")
        need(1 <= self.max_steps <= 1_000_000, f"{self.max_steps} steps: give 1 to 1,000,000")
        need(
            0 <= self.confidence < 1,
            f"the confidence is {self.confidence}: give a probability from 0 to below 1, such as 0.9",
        )
        need(self.momentum >= 0 and 0 <= self.diversity <= 1, "momentum is at least 0, diversity a share from 0 to 1")

    def step_for(self, count: int) -> float:
        """The length of a step for pictures of so many values.

        By default 0.5 for 3 x 224 x 224 of them and less with the fourth root of their number (0.19 for 3 x 32 x 32, 0.07 for
        8 x 8): small pictures need shorter ways, yet more in each value. It is at most a quarter of the budget's radius.
        """
        return self.step or min(STEP * (count / PHOTO) ** 0.25, self.budget.radius(count) / 4)


@dataclass(frozen=True)
class Ascent:
    """Where the pictures got to."""

    pictures: Bytes
    steps: Int64[Tensor, "n"]
    reached: Bool[Tensor, "n"]  # whether the bytes were what was wanted, to all networks climbed on


def ascend(
    nets: PixelNet | Sequence[PixelNet],
    start: Bytes,
    targets: Targets,
    climb: Climb = Climb(),
    *,
    reach: Float[Tensor, "n"] | None = None,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    on_progress: Callable[[str], None] = lambda what: None,
) -> Ascent:
    """Change pictures, each until its bytes are taken for its target with the confidence wanted, or the steps are used up.

    Pictures do not know each other: one that is done leaves the batch and is not stepped on any more. Of several networks the
    logits are averaged and all must be fooled; the first sees the pictures as they are, the others as `ensemble.brought` does it.
    With `reach` a picture goes on, whatever it is taken for, until it is so far (L2) from its start, in steps of at least a tenth
    of the way: shorter ones turn about and get nowhere. `seed` and each picture's
    number decide the draws of diversity. Raises LabError for pictures that are not of the first network's channels.
    """
    nets = (nets,) if isinstance(nets, PixelNet) else tuple(nets)
    numbers = range(len(start)) if numbers is None else numbers
    size = max(1, min(128, round(CHUNK * PHOTO / start[0].numel())))
    parts = []
    with ready(nets, start):
        for first in range(0, len(start), size):
            some = slice(first, first + size)
            on_progress(f"picture {first + 1} of {len(start)}")
            goal = None if reach is None else reach[some]
            parts.append(climbed(nets, start[some], targets[some], climb, goal, seed, list(numbers[some])))
    pictures, steps, reached = (torch.cat(values) for values in zip(*parts, strict=True))
    return Ascent(pictures, steps, reached)


@contextmanager
def ready(nets: Sequence[PixelNet], start: Bytes) -> Iterator[None]:
    """The networks looked through and left as they were, their batch norms folded meanwhile."""
    first = as_pixels(nets[0], start[:1])
    nets[0].check(first)
    with ExitStack() as stack:
        for number, net in enumerate(nets):
            stack.enter_context(undisturbed(net))
            stack.enter_context(quickly(net, seen(first, net, number)))
        yield


def as_pixels(net: PixelNet, pictures: Bytes) -> Pixels:
    """Bytes as a network's pixels; its layers like them with the channels last."""
    pixels = pictures.to(next(net.parameters(), net.scale)) / 255
    return pixels.contiguous(memory_format=torch.channels_last)


def seen(x: Pixels, net: PixelNet, number: int) -> Float[Tensor, "n c rows columns"]:
    """What the network of this number sees of a picture."""
    return x if number == 0 else brought(x, net)


def climbed(
    nets: Sequence[PixelNet],
    start: Bytes,
    targets: Targets,
    climb: Climb,
    reach: Float[Tensor, "n"] | None,
    seed: int,
    numbers: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The ascent of one batch: pictures, steps, whether they reached their goal."""
    origin = as_pixels(nets[0], start)
    x, memory = origin.clone(), torch.zeros_like(origin)
    steps, reached = torch.zeros(len(x), dtype=torch.int64), torch.zeros(len(x), dtype=torch.bool)
    score, length = OBJECTIVES[climb.objective], torch.full((len(x),), climb.step_for(x[0].numel())).to(x)
    if reach is not None:
        length = length.maximum(reach.to(x) / LEGS)
    active = torch.arange(len(x))
    for step in range(climb.max_steps + 1):
        here = x[active].requires_grad_()
        shown = here
        if climb.diversity:
            shown = diversified(here, climb.diversity, seed, [numbers[i] for i in active.tolist()], step)
        logits = respond(nets, shown)  # a network each, [active, classes]
        if reach is None:
            done = arrived(logits, targets[active], climb.confidence)
            if done.any():  # the bytes are tried only where the floats have arrived: a pass less for all other steps
                those = active[done]
                done[done.clone()] = bytes_arrived(nets, climb, x[those], start[those], targets[those])
        else:
            done = lengths(x[active] - origin[active]) >= reach[active].to(x) * (1 - 1e-6)
        reached[active[done]], steps[active] = True, step
        if done.all() or step == climb.max_steps:
            break
        (gradient,) = torch.autograd.grad(score(torch.stack(logits).mean(0), targets[active])[~done].sum(), here)
        active, gradient = active[~done], gradient[~done]
        if climb.momentum:
            gradient = memory[active] = climb.momentum * memory[active] + gradient / size_of(
                gradient.abs().mean((1, 2, 3))
            )
        stride = length[active].view(-1, 1, 1, 1) * gradient / size_of(lengths(gradient))
        x[active] = climb.budget.within(x[active] + stride, origin[active])
    if reach is not None:  # the last step went past it
        share = (reach.to(x) / lengths(x - origin).clamp(min=1e-12)).clamp(max=1)
        x = origin + share.view(-1, 1, 1, 1) * (x - origin)
    return climb.budget.as_bytes(x, start), steps, reached


def respond(nets: Sequence[PixelNet], x: Pixels) -> list[Logits]:
    with torch.enable_grad():
        return [net.respond(seen(x, net, number)) for number, net in enumerate(nets)]


def arrived(logits: Sequence[Logits], targets: Targets, confidence: float) -> Bool[Tensor, "n"]:
    """Whether all networks take the pictures for their targets, with the confidence wanted."""
    votes = [(z.argmax(1) == targets) & (logit(z.detach().double().softmax(1), targets) >= confidence) for z in logits]
    return torch.stack(votes).all(0)


def bytes_arrived(
    nets: Sequence[PixelNet], climb: Climb, x: Pixels, start: Bytes, targets: Targets
) -> Bool[Tensor, "n"]:
    """Whether all networks take the pictures in 8 bits for their targets."""
    pixels = as_pixels(nets[0], climb.budget.as_bytes(x, start))
    with torch.no_grad():
        return arrived(
            [net.respond(seen(pixels, net, number)) for number, net in enumerate(nets)], targets, climb.confidence
        )


def size_of(values: Float[Tensor, "n"]) -> Float[Tensor, "n 1 1 1"]:
    """What to divide each picture's gradient by; a gradient of nothing stays nothing."""
    return values.clamp(min=1e-30).view(-1, 1, 1, 1)
