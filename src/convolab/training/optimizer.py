"""The optimisers a recipe can name; torch does the work, in one fused pass over the parameters."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from convolab.ground.errors import need
from convolab.ground.values import Fraction, Frozen, NonNegativeFloat, PositiveFloat


class Sgd(Frozen):
    """Stochastic gradient descent with momentum, Nesterov's on request (Sutskever et al. 2013)."""

    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 0.01
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 5e-4  # L2, added to the gradient

    @property
    def slots(self) -> frozenset[str]:
        """What it remembers of every parameter between two steps."""
        return frozenset({"momentum_buffer"} if self.momentum else ())

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        need(self.momentum or not self.nesterov, "optimizer.nesterov needs a momentum above 0: set optimizer.momentum")
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay, fused=True
        )


class Adam(Frozen):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

    name: Literal["adam"] = "adam"
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0  # L2, added to the gradient
    slots: ClassVar = frozenset({"step", "exp_avg", "exp_avg_sq"})

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)


class AdamW(Frozen):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    name: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.01  # a share of the weight at each step, times the rate
    slots: ClassVar = Adam.slots

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=True)


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]
