"""The losses that a recipe can name: what a training minimizes. Its metrics stay cross-entropy and accuracy."""

import inspect
import math
import reprlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import BeforeValidator, Discriminator, Tag, model_validator
from torch import Tensor, nn

from convolab.core.errors import require
from convolab.core.rng import lent_generators
from convolab.core.types import (
    Frozen,
    NonNegativeFloat,
    PositiveFloat,
    ValidationContext,
    list_to_tuple,
    stored_sections,
)
from convolab.models.own_code import own_code_errors
from convolab.training.parts import OtherPart, PartKind
from convolab.training.transforms import Targets

LOSS_FUNCTIONS = PartKind(section="loss", module="", base="", given=())  # a library's losses take more than labels
GIVEN = ("logits", "targets")  # what a loss is called with

LossFunction = Callable[[Float[Tensor, "n classes"], Targets], Float[Tensor, ""]]


def check_class_weights(value: object) -> object:
    """Raise LabError for what are no weights of classes; a list becomes a tuple."""
    value = list_to_tuple(value)
    is_list = isinstance(value, tuple) and all(
        isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < math.inf for weight in value
    )
    require(
        value is None or value == "balanced" or is_list,
        f"loss.class_weights = {reprlib.repr(value)}: give 'balanced', or a number above 0 for each class",
    )
    return value


ClassWeights = Annotated[Literal["balanced"] | tuple[PositiveFloat, ...] | None, BeforeValidator(check_class_weights)]


class CrossEntropy(Frozen):
    """Cross-entropy, with a weight for each class on request; the mean is one of weights, as in torch.nn.

    `class_weights = "balanced"` gives each class images / (classes x its images), as in scikit-learn.

    >>> CrossEntropy(class_weights=(1.0, 3.0)).build(torch.tensor([0, 0, 1]), 2)(torch.zeros(1, 2), torch.tensor([1]))
    tensor(0.6931)
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    class_weights: ClassWeights = None

    def build(self, labels: Int64[Tensor, "n"], num_classes: int, label_smoothing: float = 0.0) -> LossFunction:
        """The loss as a function of logits [N, classes] and labels [N] or probabilities [N, classes]; in nats.

        `labels` are those of the training images. Raises LabError unless there is a weight for each class.
        """
        weights = resolve_class_weights(self.class_weights, labels, num_classes)

        def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
            weight = None if weights is None else weights.to(logits.device)
            return F.cross_entropy(logits, targets, weight, label_smoothing=label_smoothing)

        return cross_entropy


class Focal(Frozen):
    """Cross-entropy times (1 - p)^gamma, p being the class's probability: what is classified well counts less.

    Lin et al. 2017, arXiv:1708.02002, for classes that exclude each other; the mean over the images.

    >>> even = Focal(gamma=2.0).build(torch.tensor([0]), 2)(torch.zeros(1, 2), torch.tensor([0]))
    >>> round(even.item() / 0.5**2, 4)
    0.6931
    """

    name: Literal["focal"] = "focal"
    gamma: NonNegativeFloat = 2.0
    class_weights: ClassWeights = None

    def build(self, labels: Int64[Tensor, "n"], num_classes: int, label_smoothing: float = 0.0) -> LossFunction:
        """See `CrossEntropy.build`. Raises LabError for label smoothing too."""
        require(not label_smoothing, "the focal loss takes no label smoothing: leave training.label_smoothing out")
        weights = resolve_class_weights(self.class_weights, labels, num_classes)

        def focal(logits: Tensor, targets: Tensor) -> Tensor:
            log_probabilities = F.log_softmax(logits, 1)  # [N, classes]
            target = targets if targets.is_floating_point() else F.one_hot(targets, num_classes).to(logits)
            if weights is not None:
                target = target * weights.to(logits.device)
            # Above 0, where a power below 1 has no finite slope: below the smallest step from 1 the gradient is 0.
            factor = (1 - log_probabilities.exp()).clamp(min=torch.finfo(logits.dtype).eps) ** self.gamma
            return -(target * factor * log_probabilities).sum(1).mean()

        return focal


def resolve_class_weights(
    class_weights: ClassWeights, labels: Int64[Tensor, "n"], num_classes: int
) -> Float[Tensor, "classes"] | None:
    """The weight of each class; None for none. Raises LabError unless there is one for each class."""
    if class_weights is None:
        return None
    if class_weights == "balanced":
        counts = labels.bincount(minlength=num_classes)
        return len(labels) / (num_classes * counts.clamp(min=1)).float()
    require(
        len(class_weights) == num_classes,
        f"loss.class_weights has {len(class_weights)} weights for {num_classes} classes: give one for each",
    )
    return torch.tensor(class_weights, dtype=torch.float32)


class OtherLoss(OtherPart):
    """A loss of a person's own, `file.py:Name`, with its own options.

    A function is called with the logits [N, classes], the targets and its options; a class is made with its options, and
    then called with logits and targets. The targets are labels [N], or probabilities [N, classes] where a transform
    mixes images.
    """

    @model_validator(mode="before")
    @classmethod
    def fill_options(cls, values: object, info: ValidationContext) -> object:
        """Fill in every option; a stored recipe has them all, and no code of a person's own is run."""
        if not isinstance(values, Mapping) or "loss" in stored_sections(info):
            return values
        name = values["name"]
        given = GIVEN if inspect.isfunction(LOSS_FUNCTIONS.find(name)) else ()
        options = {key: value for key, value in values.items() if key != "name"}
        return {"name": name, **LOSS_FUNCTIONS.fill_options(name, options, given)}

    def build(self, labels: Int64[Tensor, "n"], num_classes: int, label_smoothing: float = 0.0) -> LossFunction:
        """See `CrossEntropy.build`. Raises LabError for label smoothing, and for a loss that cannot be used."""
        require(not label_smoothing, f"the loss '{self.name}' is your own: leave training.label_smoothing out")
        factory = LOSS_FUNCTIONS.find(self.name, self._code)
        if inspect.isfunction(factory):
            function: Callable[[Tensor, Tensor], Any] = partial(factory, **self.options)
        else:
            function = LOSS_FUNCTIONS.build(self.name, self._code, [], self.options)
            require(
                callable(function), f"the loss '{self.name}' gives {type(function).__name__}, which cannot be called"
            )
        num_parameters = sum(1 for _ in function.parameters()) if isinstance(function, nn.Module) else 0
        require(
            not num_parameters,
            f"the loss '{self.name}' has parameters of its own, which would not be trained: leave them out",
        )
        return checked_loss(function, f"the loss '{self.name}'")


def checked_loss(function: Callable[[Tensor, Tensor], Any], what: str) -> LossFunction:
    """A loss of a person's own: whatever it raises or gives that is not a loss is a LabError, in one line."""

    def check_gradient(gradient: Tensor) -> None:
        require(bool(gradient.isfinite().all()), f"{what} has a gradient by the logits that is NaN or infinite")

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        given = logits.clone()  # what it writes to it is its own
        if given.requires_grad:
            given.register_hook(check_gradient)
        with own_code_errors(f"{what} failed"):
            value = function(given, targets.clone())
        is_loss = isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
        shown = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        require(is_loss, f"{what} gives {shown}: it must give one number, the mean over the batch")
        require(value.requires_grad, f"{what} has no gradient by the logits: compute it from them, with torch")
        require(
            bool(value.isfinite()) or not bool(logits.isfinite().all()), f"{what} is {value.item()} for finite logits"
        )
        return value

    return loss


def check_loss(loss: LossFunction, labels: Int64[Tensor, "n"], num_classes: int, *, mixes: bool) -> None:
    """Try a loss on made-up logits and the labels of a batch. Raises LabError if it cannot be used.

    `mixes`: whether a transform makes probabilities of the labels.
    """
    with lent_generators("cpu", 0), torch.enable_grad():
        logits = torch.randn(len(labels), num_classes, requires_grad=True)
        value = loss(logits, trial_targets(labels, num_classes, mixes))
        require(bool(value.isfinite()), f"the loss is {value.item()} for logits of usual size: it must be finite")
        with own_code_errors("the gradient of the loss failed"):
            (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
    require(gradient is not None, "the loss has no gradient by the logits: compute it from them, with torch")


def trial_targets(labels: Int64[Tensor, "n"], num_classes: int, mixes: bool) -> Tensor:
    """The labels as a loss gets them: probabilities [N, classes] where a transform mixes images."""
    return F.one_hot(labels, num_classes).float() if mixes else labels


def try_loss(loss: LossFunction, labels: Int64[Tensor, "n"], num_classes: int, *, mixes: bool) -> float:
    """A loss of made-up logits, always the same."""
    targets = trial_targets(labels, num_classes, mixes)
    with lent_generators("cpu", 0), torch.enable_grad():
        return loss(torch.randn(len(labels), num_classes, requires_grad=True), targets).item()


def loss_depends_on_the_past(
    part: OtherLoss, loss: LossFunction, labels: Int64[Tensor, "n"], num_classes: int, *, mixes: bool
) -> bool:
    """Whether a loss, made of a person's own, gives values that its input and the seed do not decide: it is tried."""
    fresh = part.build(labels, num_classes)
    return len({try_loss(one, labels, num_classes, mixes=mixes) for one in (loss, loss, fresh, loss)}) > 1


Loss = Annotated[
    Annotated[CrossEntropy, Tag("cross_entropy")] | Annotated[Focal, Tag("focal")] | Annotated[OtherLoss, Tag("other")],
    Discriminator(LOSS_FUNCTIONS.tag),
]


def build_loss(
    loss: Loss | Callable[[Tensor, Tensor], Any] | None,
    labels: Int64[Tensor, "n"],
    num_classes: int,
    label_smoothing: float,
) -> LossFunction:
    """The function of a recipe's loss, of a function of logits and targets, or by default of cross-entropy."""
    if loss is None:
        loss = CrossEntropy()
    if isinstance(loss, CrossEntropy | Focal | OtherLoss):
        return loss.build(labels, num_classes, label_smoothing)
    name = getattr(loss, "__name__", type(loss).__name__)
    require(callable(loss), f"'{name}' is not a loss: give CrossEntropy(), Focal() or a function of logits and labels")
    require(not label_smoothing, f"the loss '{name}' is your own: leave training.label_smoothing out")
    return checked_loss(loss, f"the loss '{name}'")
