"""The optimisers a recipe can name, as torch's fused updates: one pass over all parameters and their memory.

torch.optim runs the same updates, but its every step needs the compiler's package, which takes a second and 140 MB to
import; and a training's state is simpler to keep when the memory is ours.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from convolab.core.errors import need
from convolab.core.types import Fraction, Frozen, NonNegativeFloat, PositiveFloat


class Sgd(Frozen):
    """Stochastic gradient descent with momentum, Nesterov's on request (Sutskever et al. 2013)."""

    counts: ClassVar = False  # needs not know the steps it has done
    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 0.01
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 5e-4  # L2, added to the gradient

    @property
    def slots(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def build(self, parameters: Iterable[nn.Parameter]) -> "Stepper":
        need(self.momentum or not self.nesterov, "optimizer.nesterov needs a momentum above 0: set optimizer.momentum")
        return Stepper(self, parameters)

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        memory: dict[str, list[Tensor]],
        steps: Sequence[Tensor],
        lr: float,
    ) -> None:
        torch._fused_sgd_(
            parameters, gradients, memory.get("momentum", []), lr=lr, momentum=self.momentum, nesterov=self.nesterov,
            weight_decay=self.weight_decay, dampening=0.0, maximize=False, is_first_step=False,
        )  # fmt: skip


class AdamBase(Frozen):
    """What Adam and AdamW share: the mean of the gradient and of its square, both corrected for their start at 0."""

    slots: ClassVar[tuple[str, ...]] = ("mean", "square")
    counts: ClassVar = True  # needs to know the steps it has done
    fused: ClassVar[Callable[..., None]]  # torch's update
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)

    def build(self, parameters: Iterable[nn.Parameter]) -> "Stepper":
        return Stepper(self, parameters)

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        memory: dict[str, list[Tensor]],
        steps: Sequence[Tensor],
        lr: float,
    ) -> None:
        self.fused(
            parameters, gradients, memory["mean"], memory["square"], [], steps, lr=lr, beta1=self.betas[0], beta2=self.betas[1],
            weight_decay=self.weight_decay, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip


class Adam(AdamBase):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

    fused: ClassVar = torch._fused_adam_
    name: Literal["adam"] = "adam"
    weight_decay: NonNegativeFloat = 0.0  # L2, added to the gradient


class AdamW(AdamBase):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    fused: ClassVar = torch._fused_adamw_
    name: Literal["adamw"] = "adamw"
    weight_decay: NonNegativeFloat = 0.01  # a share of the weight at each step, times the rate


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]


class Stepper:
    """Parameters under an optimiser: `memory` and `steps` are all that it carries from one step to the next.

    >>> weight = nn.Parameter(torch.ones(2)); stepper = Sgd(momentum=0, weight_decay=0).build([weight])
    >>> weight.sum().backward(); stepper.step(lr=0.25); weight.tolist()
    [0.75, 0.75]
    """

    def __init__(self, rule: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        self.rule = rule
        self.parameters = [p for p in parameters if p.requires_grad]
        # zeros_like keeps each parameter's layout: the fused updates walk straight through memory.
        self.memory = {slot: [torch.zeros_like(p) for p in self.parameters] for slot in rule.slots}
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters] if rule.counts else []

    def forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float | None = None) -> None:
        """Move every parameter that has a gradient, at the rate `lr`, or the optimiser's own."""
        moved = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        parameters = [self.parameters[i] for i in moved]
        memory = {slot: [tensors[i] for i in moved] for slot, tensors in self.memory.items()}
        steps = [self.steps[i] for i in moved] if self.steps else []
        if steps:
            torch._foreach_add_(steps, 1)
        self.rule.update(parameters, [p.grad for p in parameters], memory, steps, self.rule.lr if lr is None else lr)

    def state(self) -> dict[str, Tensor]:
        """Its memory by name, the very tensors."""
        named = {
            f"{number}.{slot}": tensor for slot, tensors in self.memory.items() for number, tensor in enumerate(tensors)
        }
        return named | {f"{number}.steps": tensor for number, tensor in enumerate(self.steps)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take its memory from a `state`. Raises ValueError if it is another optimiser's or of other parameters."""
        own = self.state()
        if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
            raise ValueError(f"its optimiser is another than {self.rule.name} on {len(self.parameters)} parameters")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
