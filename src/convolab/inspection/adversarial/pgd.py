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

from convolab.core.errors import LabError, require, suggest
from convolab.inspection.adversarial.ensemble import differentiable_preprocess, input_diversity
from convolab.inspection.explain.methods import with_folded_batch_norm
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import frozen_eval

UInt8Images = UInt8[Tensor, "n c h w"]
Pixels = Float[Tensor, "n c h w"]
REFERENCE_VALUES = 3 * 224 * 224  # values of the picture that the defaults were measured on
REFERENCE_STEP_SIZE = 0.5  # there: larger steps are fewer and go further past the border than they need to
REFERENCE_BATCH_SIZE = 2  # such pictures a pass: more do not fit a small processor's cache
MAX_STEPS = 200
STEPS_TO_TARGET_DISTANCE = 10  # of a way of a length that is wanted
Logits = Float[Tensor, "n classes"]
Targets = Int64[Tensor, "n"]


def target_logit(logits: Logits, targets: Targets) -> Float[Tensor, "n"]:
    """The target's logit, as in the course. Others may rise with it, faster: then the target never wins."""
    return logits.gather(1, targets[:, None])[:, 0]


def target_log_probability(logits: Logits, targets: Targets) -> Float[Tensor, "n"]:
    """The target's log-probability: its logit up and the probable others down, as in training."""
    return target_logit(logits.log_softmax(1), targets)


def target_margin(logits: Logits, targets: Targets) -> Float[Tensor, "n"]:
    """The target's logit less the largest other one: what must be above 0 for the target to win (Carlini & Wagner 2017)."""
    others = logits.scatter(1, targets[:, None], -math.inf)
    return target_logit(logits, targets) - others.amax(1)


OBJECTIVES: dict[str, Callable[[Logits, Targets], Tensor]] = {
    "logit": target_logit,
    "log-probability": target_log_probability,
    "margin": target_margin,
}


@dataclass(frozen=True)
class PerturbationBudget:
    """How far a picture may go from where it started, in pixels of [0, 1].

    >>> str(Budget.parse("linf=8/255")), Budget.parse("l2=1.5").size, str(Budget.parse("none"))
    ('linf=8/255', 1.5, 'none')
    """

    norm: Literal["none", "l2", "linf"] = "none"
    epsilon: float = math.inf

    @staticmethod
    def parse(text: str) -> "PerturbationBudget":
        """`linf=8/255`, `l2=1.5` or `none`. Raises LabError for anything else, and for less than one of 255 levels."""
        norm, _, size = text.strip().casefold().partition("=")
        if norm == "none" and not size:
            return PerturbationBudget()
        require(norm in ("l2", "linf"), f"there is no budget '{text}': give linf=8/255, l2=1.5, or none")
        try:
            value = float(Fraction(size.strip()))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise LabError(f"the budget '{text}' has no number: give linf=8/255, l2=1.5, or none") from None
        require(
            value * 255 > 1 - 1e-6,
            f"the budget '{text}' is less than one of the 255 levels of a pixel: give 1/255 or more",
        )
        return PerturbationBudget("l2" if norm == "l2" else "linf", value)

    def __str__(self) -> str:
        if self.norm == "none":
            return "none"
        levels = self.epsilon * 255
        return f"{self.norm}={f'{round(levels)}/255' if self.norm == 'linf' and abs(levels - round(levels)) < 1e-6 else f'{self.epsilon:g}'}"

    def l2_radius(self, count: int) -> float:
        """The L2 length of the longest way within the budget, for pictures of so many values."""
        return self.epsilon * math.sqrt(count) if self.norm == "linf" else self.epsilon

    def project(self, x: Pixels, start: Pixels) -> Pixels:
        """The pictures brought back into the budget, and their values into [0, 1]."""
        change = x - start
        if self.norm == "linf":
            change = change.clamp(-self.epsilon, self.epsilon)
        if self.norm == "l2":
            change = change * (self.epsilon / l2_norms(change).clamp(min=1e-12)).clamp(max=1).view(-1, 1, 1, 1)
        return (start + change).clamp(0, 1)

    def quantize_into_ball(self, x: Pixels, start: UInt8Images) -> UInt8Images:
        """The pictures in 8 bits, within the budget exactly, as whole levels count it.

        Each value is rounded to the nearest level. Under Linf the difference is cut off at the whole levels within; under L2,
        where rounding makes a picture too long, its difference is shortened until the rounded one fits.
        """
        change = (255 * x - start).double()
        if self.norm == "linf":
            levels = math.floor(self.epsilon * 255 + 1e-6)
            change = change.round().clamp(-levels, levels)
        if self.norm == "l2":
            change = torch.stack([shrink_to_radius(one, self.epsilon * 255) for one in change])
        return (start + change.round()).clamp(0, 255).to(torch.uint8)


def shrink_to_radius(change: Float[Tensor, "c h w"], radius: float) -> Float[Tensor, "c h w"]:
    """A difference in levels, shortened until it is no longer than `size` when rounded. Halving finds the factor."""
    if float(change.round().norm()) <= radius:
        return change
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if float((middle * change).round().norm()) <= radius else (low, middle)
    return low * change


def l2_norms(change: Pixels) -> Float[Tensor, "n"]:
    return change.flatten(1).norm(dim=1)


@dataclass(frozen=True)
class AttackConfig:
    """How to climb."""

    objective: str = "log-probability"
    budget: PerturbationBudget = PerturbationBudget()
    step_size: float | None = None  # the length of a step in pixels of [0, 1]; see `step_for`
    max_steps: int = MAX_STEPS
    confidence: float = 0.0  # that the target's probability must reach besides being the largest
    momentum: float = 0.0  # what is kept of the steps before (MI-FGSM: Dong et al. 2018, arXiv:1710.06081)
    diversity_probability: float = (
        0.0  # how often the gradient is taken at a shrunken picture (DI: Xie et al. 2019, arXiv:1803.06978)
    )

    def __post_init__(self) -> None:
        require(
            self.objective in OBJECTIVES,
            f"there is no objective '{self.objective}': {suggest(self.objective, OBJECTIVES)}",
        )
        is_valid_step = self.step_size is None or (math.isfinite(self.step_size) and self.step_size > 0)
        require(is_valid_step, f"the step is {self.step_size}: give a length above 0, in pixels of [0, 1]")
        require(1 <= self.max_steps <= 1_000_000, f"{self.max_steps} steps: give 1 to 1,000,000")
        require(
            0 <= self.confidence < 1,
            f"the confidence is {self.confidence}: give a probability from 0 to below 1, such as 0.9",
        )
        require(
            self.momentum >= 0 and 0 <= self.diversity_probability <= 1,
            "momentum is at least 0, diversity a share from 0 to 1",
        )

    def step_size_for(self, num_values: int) -> float:
        """The length of a step for pictures of so many values.

        By default 0.5 for 3 x 224 x 224 of them and less with the fourth root of their number (0.19 for 3 x 32 x 32, 0.07 for
        8 x 8): small pictures need shorter ways, yet more in each value. It is at most a quarter of the budget's radius.
        """
        return self.step_size or min(
            REFERENCE_STEP_SIZE * (num_values / REFERENCE_VALUES) ** 0.25, self.budget.l2_radius(num_values) / 4
        )


@dataclass(frozen=True)
class AttackResult:
    """Where the pictures got to."""

    images: UInt8Images
    steps: Int64[Tensor, "n"]
    reached: Bool[Tensor, "n"]  # whether the bytes were what was wanted, to all networks climbed on


def run_pgd(
    nets: ImageClassifier | Sequence[ImageClassifier],
    clean: UInt8Images,
    targets: Targets,
    config: AttackConfig = AttackConfig(),
    *,
    target_distance: Float[Tensor, "n"] | None = None,
    seed: int = 0,
    image_indices: Sequence[int] | None = None,
    on_progress: Callable[[str], None] = lambda what: None,
) -> AttackResult:
    """Change pictures, each until its bytes are taken for its target with the confidence wanted, or the steps are used up.

    Pictures do not know each other: one that is done leaves the batch and is not stepped on any more. Of several networks the
    logits are averaged and all must be fooled; the first sees the pictures as they are, the others as `ensemble.brought` does it.
    With `reach` a picture goes on, whatever it is taken for, until it is so far (L2) from its start, in steps of at least a tenth
    of the way: shorter ones turn about and get nowhere. `seed` and each picture's
    number decide the draws of diversity. Raises LabError for pictures that are not of the first network's channels.
    """
    nets = (nets,) if isinstance(nets, ImageClassifier) else tuple(nets)
    image_indices = range(len(clean)) if image_indices is None else image_indices
    size = max(1, min(128, round(REFERENCE_BATCH_SIZE * REFERENCE_VALUES / clean[0].numel())))
    batch_results = []
    with prepared_networks(nets, clean):
        for first in range(0, len(clean), size):
            batch = slice(first, first + size)
            on_progress(f"picture {first + 1} of {len(clean)}")
            batch_distance = None if target_distance is None else target_distance[batch]
            batch_results.append(
                run_pgd_batch(
                    nets, clean[batch], targets[batch], config, batch_distance, seed, list(image_indices[batch])
                )
            )
    images, steps, reached = (torch.cat(values) for values in zip(*batch_results, strict=True))
    return AttackResult(images, steps, reached)


@contextmanager
def prepared_networks(nets: Sequence[ImageClassifier], clean: UInt8Images) -> Iterator[None]:
    """The networks looked through and left as they were, their batch norms folded meanwhile."""
    first = to_pixels(nets[0], clean[:1])
    nets[0].check_pixels(first)
    with ExitStack() as stack:
        for number, net in enumerate(nets):
            stack.enter_context(frozen_eval(net))
            stack.enter_context(with_folded_batch_norm(net, network_input(first, net, number)))
        yield


def to_pixels(net: ImageClassifier, images: UInt8Images) -> Pixels:
    """Bytes as a network's pixels; its layers like them with the channels last."""
    pixels = images.to(next(net.parameters(), net.scale)) / 255
    return pixels.contiguous(memory_format=torch.channels_last)


def network_input(x: Pixels, net: ImageClassifier, network_index: int) -> Float[Tensor, "n c rows columns"]:
    """What the network of this number sees of a picture."""
    return x if network_index == 0 else differentiable_preprocess(x, net)


def run_pgd_batch(
    nets: Sequence[ImageClassifier],
    clean: UInt8Images,
    targets: Targets,
    config: AttackConfig,
    target_distance: Float[Tensor, "n"] | None,
    seed: int,
    image_indices: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """The ascent of one batch: pictures, steps, whether they reached their goal."""
    origin = to_pixels(nets[0], clean)
    x, momentum_buffer = origin.clone(), torch.zeros_like(origin)
    steps, reached = torch.zeros(len(x), dtype=torch.int64), torch.zeros(len(x), dtype=torch.bool)
    objective, step_sizes = (
        OBJECTIVES[config.objective],
        torch.full((len(x),), config.step_size_for(x[0].numel())).to(x),
    )
    if target_distance is not None:
        step_sizes = step_sizes.maximum(target_distance.to(x) / STEPS_TO_TARGET_DISTANCE)
    active = torch.arange(len(x))
    for step in range(config.max_steps + 1):
        active_pixels = x[active].requires_grad_()
        attacked_pixels = active_pixels
        if config.diversity_probability:
            attacked_pixels = input_diversity(
                active_pixels, config.diversity_probability, seed, [image_indices[i] for i in active.tolist()], step
            )
        logits = network_logits(nets, attacked_pixels)  # a network each, [active, classes]
        if target_distance is None:
            done = is_successful(logits, targets[active], config.confidence)
            if done.any():  # the bytes are tried only where the floats have arrived: a pass less for all other steps
                successful = active[done]
                done[done.clone()] = is_successful_after_quantization(
                    nets, config, x[successful], clean[successful], targets[successful]
                )
        else:
            done = l2_norms(x[active] - origin[active]) >= target_distance[active].to(x) * (1 - 1e-6)
        reached[active[done]], steps[active] = True, step
        if done.all() or step == config.max_steps:
            break
        (gradient,) = torch.autograd.grad(
            objective(torch.stack(logits).mean(0), targets[active])[~done].sum(), active_pixels
        )
        active, gradient = active[~done], gradient[~done]
        if config.momentum:
            gradient = momentum_buffer[active] = config.momentum * momentum_buffer[active] + gradient / safe_divisor(
                gradient.abs().mean((1, 2, 3))
            )
        update = step_sizes[active].view(-1, 1, 1, 1) * gradient / safe_divisor(l2_norms(gradient))
        x[active] = config.budget.project(x[active] + update, origin[active])
    if target_distance is not None:  # the last step went past it
        shrink_factor = (target_distance.to(x) / l2_norms(x - origin).clamp(min=1e-12)).clamp(max=1)
        x = origin + shrink_factor.view(-1, 1, 1, 1) * (x - origin)
    return config.budget.quantize_into_ball(x, clean), steps, reached


def network_logits(nets: Sequence[ImageClassifier], x: Pixels) -> list[Logits]:
    with torch.enable_grad():
        return [net.forward_unchecked(network_input(x, net, number)) for number, net in enumerate(nets)]


def is_successful(logits: Sequence[Logits], targets: Targets, confidence: float) -> Bool[Tensor, "n"]:
    """Whether all networks take the pictures for their targets, with the confidence wanted."""
    successes = [
        (z.argmax(1) == targets) & (target_logit(z.detach().double().softmax(1), targets) >= confidence) for z in logits
    ]
    return torch.stack(successes).all(0)


def is_successful_after_quantization(
    nets: Sequence[ImageClassifier], config: AttackConfig, x: Pixels, clean: UInt8Images, targets: Targets
) -> Bool[Tensor, "n"]:
    """Whether all networks take the pictures in 8 bits for their targets."""
    pixels = to_pixels(nets[0], config.budget.quantize_into_ball(x, clean))
    with torch.no_grad():
        return is_successful(
            [net.forward_unchecked(network_input(pixels, net, number)) for number, net in enumerate(nets)],
            targets,
            config.confidence,
        )


def safe_divisor(values: Float[Tensor, "n"]) -> Float[Tensor, "n 1 1 1"]:
    """What to divide each picture's gradient by; a gradient of nothing stays nothing."""
    return values.clamp(min=1e-30).view(-1, 1, 1, 1)
