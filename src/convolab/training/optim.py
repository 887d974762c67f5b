"""The optimisers a recipe can name, as torch's fused updates: one pass over all parameters and their memory.

torch.optim runs the same updates, but its every step needs the compiler's package, which takes a second and 140 MB to
import; and a training's state is simpler to keep when the memory is ours.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from convolab.core.errors import require
from convolab.core.types import Fraction, Frozen, NonNegativeFloat, PositiveFloat


class SGD(Frozen):
    """Stochastic gradient descent with momentum, Nesterov's on request (Sutskever et al. 2013)."""

    needs_step_count: ClassVar = False  # needs not know the steps it has done
    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 0.01
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 5e-4  # L2, added to the gradient

    @property
    def buffer_names(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def build(self, parameters: Iterable[nn.Parameter]) -> "OptimizerState":
        require(
            self.momentum or not self.nesterov, "optimizer.nesterov needs a momentum above 0: set optimizer.momentum"
        )
        return OptimizerState(self, parameters)

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        buffers: dict[str, list[Tensor]],
        steps: Sequence[Tensor],
        lr: float,
    ) -> None:
        torch._fused_sgd_(
            parameters, gradients, buffers.get("momentum", []), lr=lr, momentum=self.momentum, nesterov=self.nesterov,
            weight_decay=self.weight_decay, dampening=0.0, maximize=False, is_first_step=False,
        )  # fmt: skip


class AdamBase(Frozen):
    """What Adam and AdamW share: the mean of the gradient and of its square, both corrected for their start at 0."""

    buffer_names: ClassVar[tuple[str, ...]] = ("mean", "square")
    needs_step_count: ClassVar = True  # needs to know the steps it has done
    fused_update: ClassVar[Callable[..., None]]  # torch's update
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)

    def build(self, parameters: Iterable[nn.Parameter]) -> "OptimizerState":
        return OptimizerState(self, parameters)

    def update(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        buffers: dict[str, list[Tensor]],
        steps: Sequence[Tensor],
        lr: float,
    ) -> None:
        self.fused_update(
            parameters, gradients, buffers["mean"], buffers["square"], [], steps, lr=lr, beta1=self.betas[0], beta2=self.betas[1],
            weight_decay=self.weight_decay, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip


class Adam(AdamBase):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

    fused_update: ClassVar = torch._fused_adam_
    name: Literal["adam"] = "adam"
    weight_decay: NonNegativeFloat = 0.0  # L2, added to the gradient


class AdamW(AdamBase):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    fused_update: ClassVar = torch._fused_adamw_
    name: Literal["adamw"] = "adamw"
    weight_decay: NonNegativeFloat = 0.01  # a share of the weight at each step, times the rate


Optimizer = Annotated[SGD | Adam | AdamW, Field(discriminator="name")]


class OptimizerState:
    """Parameters under an optimiser: `memory` and `steps` are all that it carries from one step to the next.

    >>> weight = nn.Parameter(torch.ones(2)); stepper = Sgd(momentum=0, weight_decay=0).build([weight])
    >>> weight.sum().backward(); stepper.step(lr=0.25); weight.tolist()
    [0.75, 0.75]
    """

    def __init__(self, optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        self.optimizer = optimizer
        self.parameters = [p for p in parameters if p.requires_grad]
        # zeros_like keeps each parameter's layout: the fused updates walk straight through memory.
        self.buffers = {slot: [torch.zeros_like(p) for p in self.parameters] for slot in optimizer.buffer_names}
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters] if optimizer.needs_step_count else []

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float | None = None) -> None:
        """Move every parameter that has a gradient, at the rate `lr`, or the optimiser's own."""
        updated = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        parameters = [self.parameters[i] for i in updated]
        buffers = {slot: [tensors[i] for i in updated] for slot, tensors in self.buffers.items()}
        steps = [self.steps[i] for i in updated] if self.steps else []
        if steps:
            torch._foreach_add_(steps, 1)
        self.optimizer.update(
            parameters, [p.grad for p in parameters], buffers, steps, self.optimizer.lr if lr is None else lr
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Its memory by name, the very tensors."""
        by_name = {
            f"{index}.{slot}": tensor for slot, tensors in self.buffers.items() for index, tensor in enumerate(tensors)
        }
        return by_name | {f"{number}.steps": tensor for number, tensor in enumerate(self.steps)}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take its memory from a `state`. Raises ValueError if it is another optimiser's or of other parameters."""
        current = self.state_dict()
        if current.keys() != tensors.keys() or any(current[name].shape != tensors[name].shape for name in current):
            raise ValueError(
                f"its optimiser is another than {self.optimizer.name} on {len(self.parameters)} parameters"
            )
        for name, tensor in current.items():
            tensor.copy_(tensors[name])
