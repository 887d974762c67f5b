"""The orders of the training images that a recipe can name: each epoch draws as many images as there are."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import BeforeValidator, Discriminator, Tag, model_validator
from torch import Generator, Tensor

from convolab.core.errors import require
from convolab.core.rng import lent_generators
from convolab.core.types import Frozen, NonNegativeFloat, ValidationContext, list_to_tuple, stored_sections
from convolab.models.own_code import own_code_errors
from convolab.training.parts import OtherPart, PartKind

SAMPLERS = PartKind(section="sampling", module="", base="", given=())
MAX_IMAGES = 2**24  # that torch.multinomial draws from

ImageWeights = Float[Tensor, "n"] | None  # of each image; None: each once


class Shuffled(Frozen):
    """Each image once, in a random order."""

    name: Literal["shuffled"] = "shuffled"

    def weights(self, labels: Int64[Tensor, "n"], num_classes: int) -> ImageWeights:
        """None: nothing is weighted."""
        return None


class Balanced(Frozen):
    """Each class as often as any other: images are drawn with replacement, from each class with equal probability.

    >>> Balanced().weights(torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.3333, 0.3333, 0.3333, 1.0000])
    """

    name: Literal["balanced"] = "balanced"

    def weights(self, labels: Int64[Tensor, "n"], num_classes: int) -> ImageWeights:
        """The relative probability of each image."""
        return 1 / labels.bincount(minlength=num_classes).clamp(min=1)[labels].float()


class Weighted(Frozen):
    """Images drawn with replacement, with the relative probability of their class.

    >>> Weighted(class_weights=(1.0, 2.0)).weights(torch.tensor([0, 0, 1]), 2)
    tensor([1., 1., 2.])
    """

    name: Literal["weighted"] = "weighted"
    class_weights: Annotated[tuple[NonNegativeFloat, ...], BeforeValidator(list_to_tuple)]

    def weights(self, labels: Int64[Tensor, "n"], num_classes: int) -> ImageWeights:
        """The relative probability of each image. Raises LabError unless there is a weight for each class."""
        require(
            len(self.class_weights) == num_classes,
            f"sampling.class_weights has {len(self.class_weights)} weights for {num_classes} classes: give one for each",
        )
        return torch.tensor(self.class_weights, dtype=torch.float32)[labels]


class OtherSampling(OtherPart):
    """Weights of a person's own, `file.py:name`: a function of the labels [N] that gives a weight [N] for each image."""

    @model_validator(mode="before")
    @classmethod
    def fill_options(cls, values: object, info: ValidationContext) -> object:
        """Fill in every option; a stored recipe has them all, and no code of a person's own is run."""
        if not isinstance(values, Mapping) or "sampling" in stored_sections(info):
            return values
        options = {key: value for key, value in values.items() if key != "name"}
        return {"name": values["name"], **SAMPLERS.fill_options(values["name"], options, ("labels",))}

    def weights(self, labels: Int64[Tensor, "n"], num_classes: int) -> ImageWeights:
        """The relative probability of each image. Raises LabError, in one line, for what are no weights."""
        what = f"the sampling '{self.name}'"
        factory: Callable[..., object] = SAMPLERS.find(self.name, self._code)
        require(inspect.isfunction(factory), f"{what} is a class: give a function of the labels")
        drawn: list[Tensor] = []
        for _ in range(2):
            with own_code_errors(f"{what} failed"), lent_generators("cpu", 0):  # the same weights at every start
                drawn.append(torch.as_tensor(factory(labels.clone(), **self.options), dtype=torch.float32))
        weights, again = drawn
        require(
            torch.equal(weights, again) or not bool(weights.isfinite().all()),
            f"{what} gives other weights for the same labels, so a stopped run could not be resumed bit for bit: let it draw "
            "from torch's, NumPy's or Python's global generator, which are seeded for it",
        )
        require(
            weights.shape == labels.shape,
            f"{what} gives {list(weights.shape)} weights for {len(labels)} images: give one for each",
        )
        return weights


Sampling = Annotated[
    Annotated[Shuffled, Tag("shuffled")]
    | Annotated[Balanced, Tag("balanced")]
    | Annotated[Weighted, Tag("weighted")]
    | Annotated[OtherSampling, Tag("other")],
    Discriminator(SAMPLERS.tag),
]


def check_weights(weights: ImageWeights) -> None:
    """Raise LabError for weights that nothing can be drawn with."""
    if weights is None:
        return
    require(
        bool((weights.isfinite() & (weights >= 0)).all()) and float(weights.sum()) > 0,
        f"the sampling weights run from {float(weights.min()):g} to {float(weights.max()):g}: give finite ones of 0 or "
        "more, some of them above 0",
    )
    require(
        len(weights) <= MAX_IMAGES,
        f"sampling with weights takes {MAX_IMAGES:,} images at most: set data.limit, or sample without weights",
    )


def draw_order(count: int, weights: ImageWeights, generator: Generator) -> Int64[Tensor, "n"]:
    """The images of an epoch in order: each once, or drawn with replacement by their weights."""
    if weights is None:
        return torch.randperm(count, generator=generator)
    return torch.multinomial(weights, count, replacement=True, generator=generator)
