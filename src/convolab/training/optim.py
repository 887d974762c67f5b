"""The optimizers a recipe can name, as torch's fused updates: one pass over all parameters and their buffers.

torch.optim runs the same updates, but its every step needs the compiler's package, which takes a second and 140 MB to
import; and the state of a training is simpler to keep when the buffers are ours. The fused updates are private
functions of torch: `fused_function` is the one place that looks for them, and where a torch lacks one,
`OptimizerState` steps by torch.optim itself. Its bits are the same, because `fused=True` there calls the same kernels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import BeforeValidator, Discriminator, Field, Tag
from torch import Tensor, nn

from convolab.core.errors import require
from convolab.core.types import Fraction, Frozen, NonNegativeFloat, PositiveFloat, list_to_tuple
from convolab.training.torch_optim import OPTIMIZERS, OtherOptimizer

FusedFunction = Callable[..., object]
NO_FACTORS: Mapping[nn.Parameter, float] = {}
Buffers = Mapping[str, Sequence[Tensor]]


def fused_function(name: str) -> FusedFunction | None:
    """A fused update of torch by its private name, such as `_fused_sgd_`; None where this torch has none."""
    return getattr(torch, name, None)


class SGD(Frozen):
    """Stochastic gradient descent with momentum, Nesterov's on request (Sutskever et al. 2013)."""

    fused_name: ClassVar[str] = "_fused_sgd_"
    needs_step_count: ClassVar[bool] = False
    torch_buffer_names: ClassVar[dict[str, str]] = {"momentum": "momentum_buffer"}  # our name -> torch.optim's
    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 0.01
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 5e-4  # L2, added to the gradient

    @property
    def buffer_names(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def build(
        self, parameters: Iterable[nn.Parameter], lr_factors: Mapping[nn.Parameter, float] = NO_FACTORS
    ) -> "OptimizerState":
        """The state of this optimizer for some parameters. Raises LabError for Nesterov's rule without momentum."""
        require(
            self.momentum or not self.nesterov, "optimizer.nesterov needs a momentum above 0: set optimizer.momentum"
        )
        return OptimizerState(self, parameters, lr_factors)

    def fused_update(
        self,
        function: FusedFunction,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        buffers: Buffers,
        steps: Sequence[Tensor],
        lr: float,
    ) -> None:
        function(
            parameters, gradients, buffers.get("momentum", []), lr=lr, momentum=self.momentum, nesterov=self.nesterov,
            weight_decay=self.weight_decay, dampening=0.0, maximize=False, is_first_step=False,
        )  # fmt: skip

    def torch_optimizer(self, parameters: Sequence[dict[str, list[nn.Parameter]]]) -> torch.optim.Optimizer:
        """The same optimizer of torch.optim."""
        return torch.optim.SGD(
            parameters, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay,
            fused=True,
        )  # fmt: skip


class AdamBase(Frozen):
    """What Adam and AdamW share: the mean of the gradient and of its square, both corrected for their start at 0."""

    fused_name: ClassVar[str]
    needs_step_count: ClassVar[bool] = True
    torch_class: ClassVar[type[torch.optim.Adam]]
    torch_buffer_names: ClassVar[dict[str, str]] = {"mean": "exp_avg", "square": "exp_avg_sq", "steps": "step"}
    buffer_names: ClassVar[tuple[str, ...]] = ("mean", "square")
    lr: PositiveFloat = 1e-3
    betas: Annotated[tuple[Fraction, Fraction], BeforeValidator(list_to_tuple)] = (0.9, 0.999)
    weight_decay: NonNegativeFloat

    def build(
        self, parameters: Iterable[nn.Parameter], lr_factors: Mapping[nn.Parameter, float] = NO_FACTORS
    ) -> "OptimizerState":
        """The state of this optimizer for some parameters."""
        return OptimizerState(self, parameters, lr_factors)

    def fused_update(
        self,
        function: FusedFunction,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        buffers: Buffers,
        steps: Sequence[Tensor],
        lr: float,
    ) -> None:
        for step in steps:
            step.add_(1)
        function(
            parameters, gradients, buffers["mean"], buffers["square"], [], steps, lr=lr, beta1=self.betas[0],
            beta2=self.betas[1], weight_decay=self.weight_decay, eps=1e-8, amsgrad=False, maximize=False,
        )  # fmt: skip

    def torch_optimizer(self, parameters: Sequence[dict[str, list[nn.Parameter]]]) -> torch.optim.Optimizer:
        """The same optimizer of torch.optim."""
        return self.torch_class(
            parameters, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, eps=1e-8, fused=True
        )


class Adam(AdamBase):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

    fused_name: ClassVar[str] = "_fused_adam_"
    torch_class: ClassVar[type[torch.optim.Adam]] = torch.optim.Adam
    name: Literal["adam"] = "adam"
    weight_decay: NonNegativeFloat = 0.0  # L2, added to the gradient


class AdamW(AdamBase):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    fused_name: ClassVar[str] = "_fused_adamw_"
    torch_class: ClassVar[type[torch.optim.Adam]] = torch.optim.AdamW
    name: Literal["adamw"] = "adamw"
    weight_decay: NonNegativeFloat = 0.01  # fraction of the weight removed at each step, times the learning rate


class Muon(Frozen):
    """Orthogonalized momentum for the filters of 2D convolutions, and SGD with Nesterov's momentum for all else.

    Jordan et al. 2024 (github.com/KellerJordan/Muon). The momentum of a convolution's weight, as a matrix of one row for each
    filter, is replaced by the nearest orthogonal matrix, so that no direction is learned at the cost of the others.
    """

    name: Literal["muon"] = "muon"
    lr: PositiveFloat = 0.02  # of the filters
    momentum: Fraction = 0.95
    weight_decay: NonNegativeFloat = 0.0  # fraction of a filter removed at each step, times the learning rate
    iterations: Annotated[int, Field(ge=1, le=20)] = 5  # of Newton and Schulz
    normalize_filters: bool = False  # before each step: every filter has a squared norm of 1 on average
    others_lr: PositiveFloat = 0.01  # at the start: it follows the schedule as `lr` does
    others_momentum: Fraction = 0.9
    others_weight_decay: NonNegativeFloat = 5e-4  # L2, added to the gradient

    def build(
        self, parameters: Iterable[nn.Parameter], lr_factors: Mapping[nn.Parameter, float] = NO_FACTORS
    ) -> "MuonState":
        """The state of this optimizer for some parameters. Raises LabError if none is the weight of a 2D convolution."""
        return MuonState(self, parameters, lr_factors)


Optimizer = Annotated[
    Annotated[SGD, Tag("sgd")]
    | Annotated[Adam, Tag("adam")]
    | Annotated[AdamW, Tag("adamw")]
    | Annotated[Muon, Tag("muon")]
    | Annotated[OtherOptimizer, Tag("other")],
    Discriminator(OPTIMIZERS.tag),
]


def name_rates(optimizer: Optimizer) -> str:
    """The recipe keys of its learning rates: optimizer.lr, and Muon's second."""
    return " and ".join(f"optimizer.{key}" for key in ("lr", "others_lr") if hasattr(optimizer, key))


def without_weight_decay(optimizer: Optimizer) -> Optimizer:
    """The same optimizer with a weight decay of 0, wherever it has one."""
    decays = [key for key in ("weight_decay", "others_weight_decay") if hasattr(optimizer, key)]
    return optimizer.model_copy(update=dict.fromkeys(decays, 0.0))


class OptimizerState:
    """Parameters under an optimizer: `buffers` and `steps` are all that it carries from one step to the next.

    The learning rate of a parameter is multiplied by its entry in `lr_factors`, if it has one.

    >>> weight = nn.Parameter(torch.ones(2))
    >>> state = SGD(momentum=0, weight_decay=0).build([weight])
    >>> weight.sum().backward()
    >>> state.step(lr=0.25)
    >>> weight.tolist()
    [0.75, 0.75]
    """

    def __init__(
        self,
        optimizer: SGD | AdamBase,
        parameters: Iterable[nn.Parameter],
        lr_factors: Mapping[nn.Parameter, float] = NO_FACTORS,
    ) -> None:
        self.optimizer = optimizer
        self.parameters = [p for p in parameters if p.requires_grad]
        self.indices_by_factor: dict[float, list[int]] = {}
        for index, parameter in enumerate(self.parameters):
            self.indices_by_factor.setdefault(lr_factors.get(parameter, 1.0), []).append(index)
        # zeros_like keeps each parameter's memory layout: the fused updates walk straight through memory.
        self.buffers = {name: [torch.zeros_like(p) for p in self.parameters] for name in optimizer.buffer_names}
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters] if optimizer.needs_step_count else []
        self.torch_optimizer: torch.optim.Optimizer | None = None  # made where torch has no fused function for us

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float | None = None) -> None:
        """Update every parameter that has a gradient, with the learning rate `lr`, or the optimizer's own."""
        lr = self.optimizer.lr if lr is None else lr
        function = fused_function(self.optimizer.fused_name)
        if function is None:
            self._public_step(lr)
            return
        for factor, indices in self.indices_by_factor.items():
            updated = [i for i in indices if self.parameters[i].grad is not None]
            parameters = [self.parameters[i] for i in updated]
            gradients = [p.grad for p in parameters if p.grad is not None]
            buffers = {name: [tensors[i] for i in updated] for name, tensors in self.buffers.items()}
            steps = [self.steps[i] for i in updated] if self.steps else []
            self.optimizer.fused_update(function, parameters, gradients, buffers, steps, lr * factor)

    def _public_step(self, lr: float) -> None:
        """The same step by torch.optim, which works on our buffers."""
        if self.torch_optimizer is None:
            groups = [{"params": [self.parameters[i] for i in ids]} for ids in self.indices_by_factor.values()]
            self.torch_optimizer = self.optimizer.torch_optimizer(groups)
            tensors = {**self.buffers, **({"steps": self.steps} if self.steps else {})}
            for index, parameter in enumerate(self.parameters):
                names = self.optimizer.torch_buffer_names
                self.torch_optimizer.state[parameter] = {names[name]: tensors[name][index] for name in tensors}
        for group, factor in zip(self.torch_optimizer.param_groups, self.indices_by_factor, strict=True):
            group["lr"] = lr * factor
        self.torch_optimizer.step()

    def state_dict(self) -> dict[str, Tensor]:
        """The buffers by name: the tensors themselves, not copies."""
        by_name = {
            f"{index}.{name}": tensor for name, tensors in self.buffers.items() for index, tensor in enumerate(tensors)
        }
        return by_name | {f"{index}.steps": tensor for index, tensor in enumerate(self.steps)}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Load buffers from a `state_dict`.

        Raises ValueError if they belong to another optimizer or to other parameters.
        """
        what = f"{type(self.optimizer).__name__} on {len(self.parameters)} parameters"
        load_buffers(self.state_dict(), tensors, what)


def load_buffers(current: Mapping[str, Tensor], stored: Mapping[str, Tensor], what: str) -> None:
    """Copy stored buffers into the current ones. Raises ValueError if their names or shapes differ."""
    if current.keys() != stored.keys() or any(current[name].shape != stored[name].shape for name in current):
        raise ValueError(f"the optimizer state is not that of {what}")
    for name, tensor in current.items():
        tensor.copy_(stored[name])


class MuonState:
    """Parameters under Muon: the momentum of the filters, and the SGD of all others."""

    def __init__(
        self,
        optimizer: Muon,
        parameters: Iterable[nn.Parameter],
        lr_factors: Mapping[nn.Parameter, float] = NO_FACTORS,
    ) -> None:
        self.optimizer = optimizer
        self.parameters = [p for p in parameters if p.requires_grad]
        self.filters = [p for p in self.parameters if is_filters(p)]
        require(self.filters, "muon is for 2D convolutions, and none is trained here: give another optimizer")
        self.factors = [lr_factors.get(p, 1.0) for p in self.filters]
        self.momenta = [torch.zeros_like(p) for p in self.filters]
        self.others = SGD(
            lr=optimizer.others_lr,
            momentum=optimizer.others_momentum,
            nesterov=optimizer.others_momentum > 0,
            weight_decay=optimizer.others_weight_decay,
        ).build([p for p in self.parameters if not is_filters(p)], lr_factors)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float | None = None) -> None:
        """Update every parameter that has a gradient; the others' learning rate is to `lr` as at the start."""
        settings = self.optimizer
        lr = settings.lr if lr is None else lr
        for weight, momentum, factor in zip(self.filters, self.momenta, self.factors, strict=True):
            if weight.grad is None:
                continue
            momentum.mul_(settings.momentum).add_(weight.grad)
            direction = orthogonalize(
                weight.grad.add(momentum, alpha=settings.momentum).flatten(1), settings.iterations
            )
            rows, columns = direction.shape
            if settings.normalize_filters:
                weight.mul_(rows**0.5 / weight.norm().clamp(min=1e-12))
            weight.mul_(1 - lr * factor * settings.weight_decay)
            # With more filters than inputs an orthogonal matrix's rows are shorter than 1.
            weight.add_(direction.view_as(weight), alpha=-lr * factor * max(1.0, rows / columns) ** 0.5)
        self.others.step(settings.others_lr * lr / settings.lr)

    def state_dict(self) -> dict[str, Tensor]:
        """The buffers by name: the tensors themselves, not copies."""
        filters = {f"filters.{index}.momentum": tensor for index, tensor in enumerate(self.momenta)}
        return filters | {f"others.{name}": tensor for name, tensor in self.others.state_dict().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Load buffers from a `state_dict`.

        Raises ValueError if they belong to another optimizer or to other parameters.
        """
        load_buffers(self.state_dict(), tensors, f"Muon on {len(self.parameters)} parameters")


def is_filters(parameter: nn.Parameter) -> bool:
    """Whether it has the shape of a 2D convolution's weight; a scale or an embedding has fewer dimensions."""
    return parameter.ndim == 4


def orthogonalize(matrix: Float[Tensor, "rows columns"], iterations: int) -> Float[Tensor, "rows columns"]:
    """About the nearest orthogonal matrix: the same singular vectors, with singular values from 0.7 to 1.2.

    Newton's and Schulz's iteration with the quintic polynomial of Jordan et al. 2024, whose steep start brings small singular
    values up fast; five iterations bring up those above a hundredth of the matrix's norm. A matrix of zeros stays as it is.
    """
    x = matrix / matrix.norm().clamp(min=1e-7)
    is_tall = len(x) > x.shape[1]
    x = x.T if is_tall else x  # the smaller of both products
    # Each step multiplies x by a polynomial of x x^T, and all of these commute: so the steps are taken on that small matrix,
    # and x is multiplied once, by all of them.
    gram, product = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        step = 2.0315 * gram @ gram - 4.7750 * gram
        step.diagonal().add_(3.4445)
        product = step @ product
        gram = step @ gram @ step
    x = product @ x
    return x.T if is_tall else x
