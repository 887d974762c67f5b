"""How far an image may move from its original: norm balls, exactly for 8-bit images, and L2 distances."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.inspection.types import Pixels, UInt8Images

MAX_L2 = 1000  # from black to white it is 388 for 3 x 224 x 224 values
BUDGET_HINT = "give linf=8/255, l2=1.5, or none"


@dataclass(frozen=True)
class PerturbationBudget:
    """A norm and the largest size of a perturbation in it, in pixels of [0, 1].

    >>> budget = PerturbationBudget.parse("linf=8/255")
    >>> str(budget), PerturbationBudget.parse("l2=1.5").epsilon, str(PerturbationBudget.parse("none"))
    ('linf=8/255', 1.5, 'none')
    """

    norm: Literal["none", "l2", "linf"] = "none"
    epsilon: float = math.inf

    @staticmethod
    def parse(text: str) -> "PerturbationBudget":
        """`linf=8/255`, `l2=1.5` or `none`. Raises LabError for anything else, and out of range."""
        norm, _, size = text.strip().casefold().partition("=")
        if norm == "none" and not size:
            return PerturbationBudget()
        require(norm in ("l2", "linf"), f"unknown budget '{text}': {BUDGET_HINT}")
        numerator, _, denominator = size.partition("/")
        try:
            epsilon = float(numerator) / float(denominator or 1)
        except (ValueError, ZeroDivisionError):
            raise LabError(f"the budget '{text}' has no number: {BUDGET_HINT}") from None
        largest = 1 if norm == "linf" else MAX_L2
        smallest = "1/255, one level of a pixel," if norm == "linf" else "1/255"
        levels = (
            f"; did you mean linf={size}/255?" if norm == "linf" and size.isdecimal() and 1 < epsilon <= 255 else ""
        )
        require(
            epsilon * 255 > 1 - 1e-6 and epsilon <= largest,
            f"the budget '{text}' is out of range: give a number from {smallest} to {largest}{levels}",
        )
        return PerturbationBudget("l2" if norm == "l2" else "linf", epsilon)

    def __str__(self) -> str:
        if self.norm == "none":
            return "none"
        levels = self.epsilon * 255
        is_whole = self.norm == "linf" and abs(levels - round(levels)) < 1e-6
        return f"{self.norm}={f'{round(levels)}/255' if is_whole else f'{self.epsilon:g}'}"

    def l2_radius(self, num_values: int) -> float:
        """The L2 norm of the longest perturbation within the budget, for images of `num_values` values."""
        return self.epsilon * math.sqrt(num_values) if self.norm == "linf" else self.epsilon

    def project(self, x: Pixels, origin: Pixels) -> Pixels:
        """The images projected onto the ball around `origin`, and their values clipped to [0, 1]."""
        perturbation = x - origin
        if self.norm == "linf":
            perturbation = perturbation.clamp(-self.epsilon, self.epsilon)
        if self.norm == "l2":
            factor = (self.epsilon / l2_norms(perturbation).clamp(min=1e-12)).clamp(max=1)
            perturbation = perturbation * factor.view(-1, 1, 1, 1)
        return (origin + perturbation).clamp(0, 1)

    def quantize_into_ball(self, x: Pixels, clean: UInt8Images) -> UInt8Images:
        """The images in 8 bits, exactly within the budget when whole levels are counted.

        Each value is rounded to the nearest level. Under Linf the difference is clipped to the whole levels within the
        budget; under L2, where rounding makes a difference too long, it is shrunk until the rounded one fits.
        """
        perturbation = (255 * x - clean).double()
        if self.norm == "linf":
            levels = math.floor(self.epsilon * 255 + 1e-6)
            perturbation = perturbation.round().clamp(-levels, levels)
        if self.norm == "l2":
            perturbation = torch.stack([shrink_to_radius(one, self.epsilon * 255) for one in perturbation])
        return (clean + perturbation.round()).clamp(0, 255).to(torch.uint8)


def shrink_to_radius(perturbation: Float[Tensor, "c h w"], radius: float) -> Float[Tensor, "c h w"]:
    """A difference in levels, shrunk until its L2 norm is at most `radius` when rounded. Bisection finds the factor."""
    if float(perturbation.round().norm()) <= radius:
        return perturbation
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        fits = float((middle * perturbation).round().norm()) <= radius
        low, high = (middle, high) if fits else (low, middle)
    return low * perturbation


def l2_norms(perturbations: Pixels) -> Float[Tensor, "n"]:
    """The L2 norm of each image's perturbation."""
    return perturbations.flatten(1).norm(dim=1)


def l2_distances(images: UInt8Images, clean: UInt8Images) -> Float[Tensor, "n"]:
    """The L2 distance of each image from its clean one, in pixels of [0, 1]."""
    return l2_norms(images.double() - clean.double()) / 255
