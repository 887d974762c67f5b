"""The shortest perturbation that fools as saved: a walk along the decision boundary, judged after rounding to 8 bits.

Plain PGD first reaches the target. Then the direction of the perturbation is pulled toward the gradient, less and less,
and its length is found again by bisection with forward passes alone. On a flat boundary the shortest perturbation is
along the gradient, and rounding it to whole levels is then the best choice of levels: d = round(c g) maximizes
g d - d^2 / (2 c) over whole d. Direction and norm are apart as in DDN (Rony et al. 2019, arXiv:1811.09600); there a
fixed factor changes the norm, here a search does, and every candidate is an 8-bit image.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import require
from convolab.core.types import MessageCallback
from convolab.inspection.adversarial.pgd import (
    NO_GRADIENT_REMEDY,
    OBJECTIVES,
    AttackConfig,
    AttackResult,
    StepCallback,
    is_successful,
    network_logits,
    prepared_networks,
    safe_divisor,
    target_logit,
    to_attack_pixels,
)
from convolab.inspection.passes import gradient_of
from convolab.inspection.types import ClassIndices, SinglePixels, UInt8Images
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import require_finite_logits

DEFAULT_GRADIENTS = 40
FIRST_PULL, LAST_PULL = 0.5, 0.02  # the gradient's weight in the new direction, falling along a cosine
FORWARD_PASSES = 4  # of one search for the length


def run_shortest(
    net: ImageClassifier,
    clean: UInt8Images,
    targets: ClassIndices,
    config: AttackConfig,
    *,
    on_progress: MessageCallback = lambda message: None,
    on_step: StepCallback | None = None,
) -> AttackResult:
    """Find for each image a short perturbation in L2 whose 8-bit image is classified as its target.

    Args:
        net: the network, which is left as it was.
        clean: the images, uint8 [N, C, H, W] of the network's channels and size.
        targets: the class of each image, [N].
        config: the objective, the step size of the ascent in pixels of [0, 1], and in `max_steps` how many gradients
            each image may take.
        on_progress: called with a line of text before each image.
        on_step: called at each gradient, and once more after the last.

    Returns:
        Of each image the shortest that fooled, with its gradients as `steps` and its forward passes. What did not fool
        within its gradients has `reached` False and is where the ascent ended.

    Raises LabError for images that are not of the network's channels, for logits and gradients that are not finite, and
    for a network without a gradient.

    >>> from convolab.inspection.adversarial.budget import l2_distances
    >>> from torch import nn
    >>> layer = nn.Linear(4, 2, bias=False)
    >>> layer.weight.data = torch.tensor([[0.0, 0, 0, 0], [1, 1, -1, -1]])
    >>> net = ImageClassifier(
    ...     nn.Sequential(nn.Flatten(), layer), mean=(0.0,), std=(1.0,), input_size=(2, 2), classes=("a", "b")
    ... )
    >>> clean = torch.tensor([[[[100, 100], [102, 102]]]], dtype=torch.uint8)
    >>> result = run_shortest(net.eval(), clean, torch.tensor([1]), AttackConfig(max_steps=5))
    >>> result.reached.tolist(), l2_distances(result.images, clean).mul(255).tolist()
    ([True], [4.0])
    """
    results = []
    with prepared_networks((net,), clean):
        for index in range(len(clean)):
            on_progress(f"image {index + 1} of {len(clean)}")
            one = slice(index, index + 1)
            results.append(BoundaryWalk(net, clean[one], targets[one], config).run(on_step))
    return AttackResult(
        images=torch.cat([walk.image for walk in results]),
        steps=torch.tensor([len(walk.path) - 1 for walk in results]),
        reached=torch.tensor([math.isfinite(walk.shortest) for walk in results]),
        paths=tuple(tuple(walk.path) for walk in results),
        forward_passes=torch.tensor([walk.forward_passes for walk in results]),
    )


class BoundaryWalk:
    """The search of one image: the shortest 8-bit image so far that is classified as the target."""

    def __init__(self, net: ImageClassifier, clean: UInt8Images, target: ClassIndices, config: AttackConfig) -> None:
        self.net, self.clean, self.target, self.config = net, clean, target, config
        self.origin = to_attack_pixels(net, clean)
        self.image = clean
        self.shortest = math.inf  # in levels
        self.forward_passes = 0  # without those of the gradients
        self.path: list[float] = []

    def run(self, on_step: StepCallback | None) -> "BoundaryWalk":
        """Ascend until the target is reached, then walk along the boundary until the gradients are used up."""
        max_steps = self.config.max_steps
        step_size = self.config.step_size_for(self.origin.numel())
        x, start, length = self.origin, 0, 0.0
        direction = torch.zeros_like(x)
        for step in range(max_steps):
            gradient = self._gradient_direction(x, step, on_step)
            if not math.isfinite(self.shortest):
                x = (x + step_size * gradient).clamp(0, 1)
                if self._fools(x):
                    start, length = step + 1, float((x - self.origin).norm())
                    direction = (x - self.origin) / length
                    length = self._bisect(direction, length / 2, length)
                    x = self._rounded(direction, length)
                continue
            phase = (step - start) / max(1, max_steps - start)
            pull = LAST_PULL + (FIRST_PULL - LAST_PULL) * (1 + math.cos(math.pi * phase)) / 2
            direction = (1 - pull) * direction + pull * gradient
            direction = direction / direction.norm().clamp(min=1e-12)
            length = self._find_length(direction, length, factor=1.02 + 0.32 * pull)
            # A new direction may miss the target at any length: without a limit the walk would run away.
            length = min(length, (1.1 * self.shortest + 8) / 255)
            x = self._rounded(direction, length)
        if not math.isfinite(self.shortest):
            self.image = round_to_bytes(x)
        final = self.image.to(self.origin) / 255
        self._record(final, self._logits(final), max_steps, on_step)
        return self

    def _gradient_direction(self, x: SinglePixels, step: int, on_step: StepCallback | None) -> SinglePixels:
        """The gradient of the objective, of L2 norm 1; zeros stay zeros."""
        points = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        (logits,) = network_logits((self.net,), points)
        self._record(x, logits, step, on_step)
        score = OBJECTIVES[self.config.objective](logits, self.target).sum()
        gradient = gradient_of(score, points, remedy=NO_GRADIENT_REMEDY)
        require(
            gradient.isfinite().all(),
            f"the gradient of the target's {self.config.objective} is not finite after {step} steps: there is no "
            "direction to go in; choose another objective or image",
        )
        gradient = gradient / safe_divisor(gradient.abs().amax((1, 2, 3)))
        return gradient / safe_divisor(gradient.flatten(1).norm(dim=1))

    def _record(
        self, x: SinglePixels, logits: Float[Tensor, "1 classes"], step: int, on_step: StepCallback | None
    ) -> None:
        require_finite_logits(logits, f"an image after {step} steps")
        probability = float(target_logit(logits.detach().double().softmax(1), self.target))
        self.path.append(probability)
        if on_step is not None:
            on_step(step, [probability], x)

    def _logits(self, x: SinglePixels) -> Float[Tensor, "1 classes"]:
        self.forward_passes += 1
        with torch.no_grad():
            return self.net.forward_unchecked(x)

    def _rounded(self, direction: SinglePixels, length: float) -> SinglePixels:
        """The 8-bit image at a length along a direction, as pixels in [0, 1]."""
        return round_to_bytes(self.origin + length * direction).to(self.origin) / 255

    def _fools(self, x: SinglePixels) -> bool:
        """Whether an image fools in 8 bits; the shortest one is kept."""
        image = round_to_bytes(x)
        fools = bool(is_successful([self._logits(image.to(x) / 255)], self.target, 0.0))
        levels = float((image.double() - self.clean.double()).norm())
        if fools and levels < self.shortest:
            self.image, self.shortest = image, levels
        return fools

    def _bisect(self, direction: SinglePixels, low: float, high: float) -> float:
        """A length that fools, at most `high`, which does."""
        for _ in range(FORWARD_PASSES):
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self._fools(self.origin + middle * direction) else (middle, high)
        return high

    def _find_length(self, direction: SinglePixels, length: float, factor: float) -> float:
        """The length at the boundary: steps by a factor until it lies between two lengths, then bisection."""
        low, high = 0.0, math.inf
        for _ in range(FORWARD_PASSES):
            if self._fools(self.origin + length * direction):
                high = length
            else:
                low = length
            is_between = low > 0 and high < math.inf
            length = math.sqrt(low * high) if is_between else min(low * factor or math.inf, high / factor)
        return high if high < math.inf else low * factor


def round_to_bytes(x: SinglePixels) -> UInt8Images:
    return (255 * x).round().clamp(0, 255).to(torch.uint8)
