"""Projected gradient ascent on images until a network classifies each as a chosen class.

A step is the course's: X += step_size * g / ||g||_2, with g the gradient of the target's objective (Simonyan et al.
2013, arXiv:1312.6034; Szegedy et al. 2013, arXiv:1312.6199; PGD: Madry et al. 2017, arXiv:1706.06083). All claims are
about 8-bit images: success is tested on the quantized image, and a budget holds for it exactly.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from convolab.core.errors import require, suggest
from convolab.core.types import MessageCallback
from convolab.inspection.adversarial.budget import PerturbationBudget, l2_norms
from convolab.inspection.adversarial.ensemble import differentiable_preprocess, input_diversity
from convolab.inspection.passes import gradient_of, is_batch_independent, noisy_copy
from convolab.inspection.types import ClassIndices, Logits, Pixels, SinglePixels, UInt8Images
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import frozen_eval, require_finite_logits

# Called at each step of a batch with its number, and for the images that still climb the target's probability [n] and
# the pixels [n, C, H, W].
StepCallback: TypeAlias = Callable[[int, list[float], Pixels], None]
NO_BUDGET = PerturbationBudget()
DEFAULT_STEPS = 200
MAX_STEPS = 1_000_000
MAX_STEP_SIZE = 1000  # the L2 norm from black to white is 388 for 3 x 224 x 224 values
REFERENCE_VALUES = 3 * 224 * 224  # values of the images that the defaults were measured on
REFERENCE_STEP_SIZE = 0.5  # for them: larger steps are fewer and go further past the decision boundary than needed
REFERENCE_BATCH_SIZE = 2  # such images in one pass: more do not fit into a small processor's cache
MAX_BATCH_SIZE = 128
NO_GRADIENT_REMEDY = "choose a network that computes with gradients"
STEPS_TO_TARGET_DISTANCE = 10  # the largest number of steps to a `target_distance`


def target_logit(logits: Logits, targets: ClassIndices) -> Float[Tensor, "n"]:
    """The target's logit, as in the course. Others may rise with it, faster: then the target never wins."""
    return logits.gather(1, targets[:, None])[:, 0]


def target_log_probability(logits: Logits, targets: ClassIndices) -> Float[Tensor, "n"]:
    """The target's log-probability: its logit up and the probable others down, as in training."""
    return target_logit(logits.log_softmax(1), targets)


def target_margin(logits: Logits, targets: ClassIndices) -> Float[Tensor, "n"]:
    """The target's logit minus the largest other one: above 0 the target wins.

    Carlini & Wagner 2017, arXiv:1608.04644.
    """
    others = logits.scatter(1, targets[:, None], -math.inf)
    return target_logit(logits, targets) - others.amax(1)


OBJECTIVES: dict[str, Callable[[Logits, ClassIndices], Tensor]] = {
    "logit": target_logit,
    "log-probability": target_log_probability,
    "margin": target_margin,
}


@dataclass(frozen=True)
class AttackConfig:
    """What the attack maximizes, how far it may go, and when it stops.

    Attributes:
        objective: one of `OBJECTIVES`.
        budget: the norm ball that the images stay in.
        step_size: the L2 norm of a step in pixels of [0, 1]; None for the default of `step_size_for`.
        max_steps: the largest number of steps.
        confidence: the probability that the target must reach besides being the largest.
        momentum: the decay of the accumulated gradient (MI-FGSM: Dong et al. 2018, arXiv:1710.06081); 0: no momentum.
        diversity_probability: how often the gradient is taken at a shrunk image (`input_diversity`).
    """

    objective: str = "log-probability"
    budget: PerturbationBudget = NO_BUDGET
    step_size: float | None = None
    max_steps: int = DEFAULT_STEPS
    confidence: float = 0.0
    momentum: float = 0.0
    diversity_probability: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.objective in OBJECTIVES,
            f"unknown objective '{self.objective}': {suggest(self.objective, OBJECTIVES)}",
        )
        require(
            self.step_size is None or 0 < self.step_size <= MAX_STEP_SIZE,
            f"the step size is {self.step_size}: give a length above 0 and at most {MAX_STEP_SIZE}, in pixels of [0, 1]",
        )
        require(1 <= self.max_steps <= MAX_STEPS, f"{self.max_steps} steps: give 1 to {MAX_STEPS:,}")
        require(
            0 <= self.confidence < 1,
            f"the confidence is {self.confidence}: give a probability from 0 to below 1, such as 0.9",
        )
        require(
            0 <= self.momentum <= 10 and 0 <= self.diversity_probability <= 1,
            "the momentum is from 0 to 10, the diversity's probability from 0 to 1",
        )

    def step_size_for(self, num_values: int) -> float:
        """The L2 norm of a step for images of `num_values` values.

        By default it is 0.5 for 3 x 224 x 224 values and grows with the fourth root of their number (0.19 for 3 x 32 x
        32, 0.07 for 1 x 8 x 8): small images need shorter perturbations, but larger ones per value. It is at most a
        quarter of the budget's L2 radius.
        """
        default = REFERENCE_STEP_SIZE * (num_values / REFERENCE_VALUES) ** 0.25
        return self.step_size or min(default, self.budget.l2_radius(num_values) / 4)


@dataclass(frozen=True)
class AttackResult:
    """What an attack made of the images.

    Attributes:
        images: uint8 [N, C, H, W].
        steps: how many steps each took.
        reached: whether the 8-bit image fulfills the attack's goal on all attacked networks.
        paths: of each, its target's probability for the first network before each step and after the last, before it is
            rounded to 8 bits; with input diversity, at the image as it was varied for the step.
        forward_passes: how many passes without a gradient each took, where a search for the shortest counted them.
    """

    images: UInt8Images
    steps: Int64[Tensor, "n"]
    reached: Bool[Tensor, "n"]
    paths: tuple[tuple[float, ...], ...]
    forward_passes: Int64[Tensor, "n"] | None = None


def run_pgd(
    nets: ImageClassifier | Sequence[ImageClassifier],
    clean: UInt8Images,
    targets: ClassIndices,
    config: AttackConfig = AttackConfig(),
    *,
    target_distance: Float[Tensor, "n"] | None = None,
    seed: int = 0,
    image_indices: Sequence[int] | None = None,
    on_progress: MessageCallback = lambda message: None,
    on_step: StepCallback | None = None,
) -> AttackResult:
    """Change each image until its 8-bit version is classified as its target, or the steps are used up.

    Images do not influence each other: one that is done leaves the batch and is changed no more. Of several networks
    the logits are averaged and all must be fooled; the first takes the images as they are, the others as
    `differentiable_preprocess` gives them. The networks are left as they were; while they are attacked there are hooks
    on them, so a network serves one thread at a time (`fool` gives each call its own view).

    Args:
        nets: the network, or several.
        clean: the images, uint8 [N, C, H, W] of the first network's channels and size.
        targets: the class of each image, [N].
        config: objective, budget, steps and stop.
        target_distance: go on, whatever the image is classified as, until it has this L2 distance from its start, [N];
            in steps of at least a tenth of it, because shorter ones turn around and get nowhere.
        seed: of input diversity, together with each image's index.
        image_indices: the images' indices, by default 0, 1, ...
        on_progress: called with a line of text before each batch.
        on_step: called before each step, and once more after the last.

    Returns:
        The images in 8 bits, whether each reached what stops it, its steps, and the path of the target's probability.

    Raises LabError for images that are not of the first network's channels, and for networks without a gradient.
    """
    nets = (nets,) if isinstance(nets, ImageClassifier) else tuple(nets)
    indices = list(range(len(clean)) if image_indices is None else image_indices)
    batch_size = round(REFERENCE_BATCH_SIZE * REFERENCE_VALUES / clean[0].numel())
    batch_size = max(1, min(MAX_BATCH_SIZE, batch_size))
    results = []
    with prepared_networks(nets, clean):
        if len(clean) > 1 and not are_batch_independent(nets, to_attack_pixels(nets[0], clean[:1])):
            batch_size = 1
        for first in range(0, len(clean), batch_size):
            on_progress(f"image {first + 1} of {len(clean)}")
            batch = slice(first, first + batch_size)
            distance = None if target_distance is None else target_distance[batch]
            results.append(
                run_pgd_batch(nets, clean[batch], targets[batch], config, distance, seed, indices[batch], on_step)
            )
    return AttackResult(
        images=torch.cat([result.images for result in results]),
        steps=torch.cat([result.steps for result in results]),
        reached=torch.cat([result.reached for result in results]),
        paths=tuple(path for result in results for path in result.paths),
    )


@contextmanager
def prepared_networks(nets: Sequence[ImageClassifier], clean: UInt8Images) -> Iterator[None]:
    """Inside the block the networks are in evaluation mode, otherwise as they are: most ascents are of few passes."""
    nets[0].check_pixels(to_attack_pixels(nets[0], clean[:1]))
    with ExitStack() as stack:
        for net in nets:
            stack.enter_context(frozen_eval(net))
        yield


def are_batch_independent(nets: Sequence[ImageClassifier], x: SinglePixels) -> bool:
    """Whether an image has the same logits beside another one, which is a noisy copy: a second image may be the first."""
    pair = torch.cat([x, noisy_copy(x)])
    return all(is_batch_independent(net, network_input(pair, net, index)) for index, net in enumerate(nets))


def to_pixels(net: ImageClassifier, images: UInt8Images) -> Pixels:
    """8-bit images of a network's input size as its pixels in [0, 1]."""
    return images.to(next(net.parameters(), net.scale)) / 255


def to_attack_pixels(net: ImageClassifier, images: UInt8Images) -> Pixels:
    """The same, in the layout in which convolutions and their gradients are fastest."""
    return to_pixels(net, images).contiguous(memory_format=torch.channels_last)


def network_input(x: Pixels, net: ImageClassifier, network_index: int) -> Float[Tensor, "n c rows columns"]:
    """The images as a network takes them: the first as they are, the others at their own input size."""
    return x if network_index == 0 else differentiable_preprocess(x, net)


def run_pgd_batch(
    nets: Sequence[ImageClassifier],
    clean: UInt8Images,
    targets: ClassIndices,
    config: AttackConfig,
    target_distance: Float[Tensor, "n"] | None,
    seed: int,
    image_indices: Sequence[int],
    on_step: StepCallback | None = None,
) -> AttackResult:
    """The ascent of one batch."""
    objective = OBJECTIVES[config.objective]
    origin = to_attack_pixels(nets[0], clean)
    x = origin.clone()
    momentum_buffer = torch.zeros_like(origin)
    step_sizes = torch.full((len(x),), config.step_size_for(x[0].numel())).to(x)
    if target_distance is not None:
        step_sizes = step_sizes.maximum(target_distance.to(x) / STEPS_TO_TARGET_DISTANCE)
    steps = torch.zeros(len(x), dtype=torch.int64)
    reached = torch.zeros(len(x), dtype=torch.bool)
    active = torch.arange(len(x))
    paths: list[list[float]] = [[] for _ in x]
    for step in range(config.max_steps + 1):
        active_pixels = x[active].requires_grad_()
        attacked_pixels = active_pixels
        if config.diversity_probability:
            active_indices = [image_indices[i] for i in active.tolist()]
            attacked_pixels = input_diversity(active_pixels, config.diversity_probability, seed, active_indices, step)
        logits = network_logits(nets, attacked_pixels)  # of each network, [active, classes]
        require_finite_logits(torch.stack(logits), f"an image after {step} steps")
        probabilities = target_logit(logits[0].detach().double().softmax(1), targets[active])
        for index, probability in zip(active.tolist(), probabilities.tolist(), strict=True):
            paths[index].append(probability)
        if on_step is not None:
            on_step(step, probabilities.tolist(), x[active])
        if target_distance is None:
            done = is_successful(logits, targets[active], config.confidence)
            # The 8-bit images are tested only where the floats succeed, which saves a pass in all other steps.
            if done.any():
                successful = active[done]
                done[done.clone()] = is_successful_after_quantization(
                    nets, config, x[successful], clean[successful], targets[successful]
                )
        else:
            done = l2_norms(x[active] - origin[active]) >= target_distance[active].to(x) * (1 - 1e-6)
        reached[active[done]] = True
        steps[active] = step
        if done.all() or step == config.max_steps:
            break
        score = objective(torch.stack(logits).mean(0), targets[active])[~done].sum()
        gradient = gradient_of(score, active_pixels, remedy=NO_GRADIENT_REMEDY)
        active = active[~done]
        gradient = gradient[~done]
        require(
            gradient.isfinite().all(),
            f"the gradient of the target's {config.objective} is not finite after {step} steps: there is no direction "
            "to go in; choose another objective or image",
        )
        if config.momentum:
            gradient = gradient / safe_divisor(gradient.double().abs().mean((1, 2, 3))).to(gradient)
            gradient = momentum_buffer[active] = config.momentum * momentum_buffer[active] + gradient
        largest = safe_divisor(
            gradient.abs().amax((1, 2, 3))
        )  # the squares of what is left stay in the range of floats
        update = step_sizes[active].view(-1, 1, 1, 1) * gradient / largest / safe_divisor(l2_norms(gradient / largest))
        x[active] = config.budget.project(x[active] + update, origin[active])
    if target_distance is not None:  # the last step overshot it
        shrink_factor = (target_distance.to(x) / l2_norms(x - origin).clamp(min=1e-12)).clamp(max=1)
        x = origin + shrink_factor.view(-1, 1, 1, 1) * (x - origin)
    return AttackResult(config.budget.quantize_into_ball(x, clean), steps, reached, tuple(map(tuple, paths)))


def network_logits(nets: Sequence[ImageClassifier], x: Pixels) -> list[Logits]:
    """The logits of each network, with gradients."""
    with torch.enable_grad():
        return [net.forward_unchecked(network_input(x, net, index)) for index, net in enumerate(nets)]


def is_successful(logits: Sequence[Logits], targets: ClassIndices, confidence: float) -> Bool[Tensor, "n"]:
    """Whether all networks classify the images as their targets, with the requested confidence."""
    successes = [
        (z.argmax(1) == targets) & (target_logit(z.detach().double().softmax(1), targets) >= confidence) for z in logits
    ]
    return torch.stack(successes).all(0)


def is_successful_after_quantization(
    nets: Sequence[ImageClassifier], config: AttackConfig, x: Pixels, clean: UInt8Images, targets: ClassIndices
) -> Bool[Tensor, "n"]:
    """Whether all networks classify the images in 8 bits as their targets."""
    pixels = to_attack_pixels(nets[0], config.budget.quantize_into_ball(x, clean))
    with torch.no_grad():
        logits = [net.forward_unchecked(network_input(pixels, net, index)) for index, net in enumerate(nets)]
    return is_successful(logits, targets, config.confidence)


def safe_divisor(values: Float[Tensor, "n"]) -> Float[Tensor, "n 1 1 1"]:
    """What to divide each image's gradient by; a gradient of zeros stays zeros."""
    return values.clamp(min=1e-30).view(-1, 1, 1, 1)
