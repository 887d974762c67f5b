"""Optimizers that are not convolab's: any class of torch.optim, and a person's own."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor, nn

from convolab.core.errors import LabError, require
from convolab.core.rng import lent_generators, make_generator, seed_all_generators
from convolab.core.types import Json, PositiveFloat, ValidationContext, stored_sections
from convolab.models.own_code import is_own_code, own_code_errors
from convolab.training.parts import OtherPart, PartKind
from convolab.training.unsaved_state import has_same_bits

OPTIMIZERS = PartKind(
    section="optimizer",
    module="torch.optim",
    base="Optimizer",
    given=("params",),
    refused={
        "LBFGS": "it evaluates the loss several times in a step",
        "SparseAdam": "it takes sparse gradients only",
    },
)
PROOF_STEPS = 3  # before the state is saved, and after it


class OtherOptimizer(OtherPart):
    """A class of torch.optim by its name, such as `RMSprop`, or `file.py:Name`, with its own options.

    One of a person's own is a subclass of `torch.optim.Optimizer`, or a function that returns one; it is called with the
    parameters and its options, one of which is `lr`.

    >>> OtherOptimizer(name="RMSprop", lr=0.01, centered=True).options["alpha"]
    0.99
    """

    lr: PositiveFloat

    @model_validator(mode="before")
    @classmethod
    def fill_options(cls, values: object, info: ValidationContext) -> object:
        """Fill in every option; a stored recipe has them all, and no code of a person's own is run."""
        if not isinstance(values, Mapping) or (is_own_code(values["name"]) and "optimizer" in stored_sections(info)):
            return values
        name = OPTIMIZERS.short_name(values["name"])
        options = OPTIMIZERS.fill_options(name, {key: value for key, value in values.items() if key != "name"})
        require("lr" in options, f"the optimizer '{name}' must take a learning rate: give it an option 'lr'")
        return {"name": name, **options}

    def build(
        self, parameters: Iterable[nn.Parameter], lr_factors: Mapping[nn.Parameter, float] | None = None
    ) -> "TorchOptimizerState":
        """The state of this optimizer for some parameters. Raises LabError, in one line, if it cannot be made."""

        def make(parameters: list[Any]) -> Any:  # noqa: ANN401 (whatever a person's code returns)
            options = {"lr": self.lr, **self.options}
            return OPTIMIZERS.build(self.name, self._code, [parameters], options)

        parameters = [p for p in parameters if p.requires_grad]
        factors = [(lr_factors or {}).get(p, 1.0) for p in parameters]
        return TorchOptimizerState(make, parameters, f"the optimizer '{self.name}'", factors, is_own_code(self.name))


class TorchOptimizerState:
    """Parameters under an optimizer of torch's kind, with the interface of `OptimizerState`.

    The learning rate of a step scales that of every group of parameters. Parameters whose `factors` of it differ are
    groups of their own.
    """

    def __init__(
        self,
        make: Callable[[list[Any]], Any],
        parameters: Iterable[nn.Parameter],
        what: str = "the optimizer",
        factors: Sequence[float] = (),
        is_own: bool = False,
    ) -> None:
        self.make, self.what, self.factors, self.is_own = make, what, factors, is_own
        self.parameters = [p for p in parameters if p.requires_grad]
        by_factor: dict[float, list[nn.Parameter]] = {}
        for parameter, factor in zip(self.parameters, factors or [1.0] * len(self.parameters), strict=True):
            by_factor.setdefault(factor, []).append(parameter)
        has_factors = list(by_factor) != [1.0]
        self.optimizer = make([{"params": group} for group in by_factor.values()] if has_factors else self.parameters)
        require(
            isinstance(self.optimizer, torch.optim.Optimizer),
            f"{what} gives {type(self.optimizer).__name__}: it must give a torch.optim.Optimizer",
        )
        groups = self.optimizer.param_groups
        require(
            not has_factors or len(groups) == len(by_factor),
            f"{what} makes groups of parameters of its own, so model.pretrained_lr_factor cannot be used with it",
        )
        group_factors = list(by_factor) if has_factors else [1.0] * len(groups)
        self.lr = max(float(group["lr"]) for group in groups)
        self.group_rates = [float(group["lr"]) * f for group, f in zip(groups, group_factors, strict=True)]
        require(self.lr > 0, f"{what} has a learning rate of {self.lr:g}: give one above 0")
        self.forms = self._forms()

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, lr: float | None = None) -> None:
        """Update every parameter that has a gradient, with the learning rate `lr`, or the optimizer's own."""
        factor = 1.0 if lr is None else lr / self.lr
        for group, rate in zip(self.optimizer.param_groups, self.group_rates, strict=True):
            group["lr"] = rate * factor
        with own_code_errors(f"{self.what} failed in its step"):
            self.optimizer.step()
        if self.is_own:
            require(
                self._forms() == self.forms,
                f"{self.what} changed its groups of parameters in its step, or a parameter's shape, dtype, device or "
                "requires_grad: let it change their values alone",
            )

    def _forms(self) -> list[object]:
        """What a step must leave as it is."""
        grouped = [id(p) for group in self.optimizer.param_groups for p in group["params"]]
        return [len(self.optimizer.param_groups), grouped, *map(describe_form, self.parameters)]

    @property
    def is_finite(self) -> tuple[bool, bool]:
        """Whether all parameters are finite, and all their gradients."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return all_finite(self.parameters), all_finite(gradients)

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of its state by name: themselves, not copies, unless they share memory."""
        tensors = {
            f"{index}.{name}": value
            for index, state in self._states()
            for name, value in state.items()
            if isinstance(value, Tensor) and is_plain(value)
        }
        # A file cannot hold two tensors that share memory.
        shared = Counter(value.untyped_storage().data_ptr() for value in (*tensors.values(), *self.parameters))
        return {
            name: value.clone() if shared[value.untyped_storage().data_ptr()] > 1 else value
            for name, value in tensors.items()
        }

    def extra_state(self) -> Json:
        """What else is in its state, as JSON can hold it; values that it cannot hold are left out."""
        states = {
            str(index): {name: value for name, value in state.items() if is_scalar(value)}
            for index, state in self._states()
        }
        groups = [
            {name: value for name, value in group.items() if is_scalar(value)} for group in self.optimizer.param_groups
        ]
        devices = {
            f"{index}.{name}": value.device.type
            for index, state in self._states()
            for name, value in state.items()
            if isinstance(value, Tensor) and value.device != self.parameters[index].device
        }
        return {"states": states, "groups": groups, "devices": devices}

    def load_state_dict(self, tensors: Mapping[str, Tensor], extra: Json = None) -> None:
        """Load a `state_dict` and an `extra_state`.

        Raises ValueError if they belong to other parameters.
        """
        stored, groups, devices = (as_mapping(extra).get(name) for name in ("states", "groups", "devices"))
        states = {int(index): dict(as_mapping(values)) for index, values in as_mapping(stored).items()}
        for name, tensor in tensors.items():
            index, _, key = name.partition(".")
            if not 0 <= int(index) < len(self.parameters):
                raise ValueError(f"the optimizer state is not one of {len(self.parameters)} parameters")
            parameter = self.parameters[int(index)]
            device = as_mapping(devices).get(name, parameter.device)
            states.setdefault(int(index), {})[key] = like_parameter(tensor, parameter).to(device)
        for index, state in states.items():
            self.optimizer.state[self.parameters[index]] = state
        for group, values in zip(self.optimizer.param_groups, groups if isinstance(groups, list) else (), strict=False):
            known = {name for name, value in group.items() if isinstance(value, bool | int | float | str)}
            group.update({name: value for name, value in as_mapping(values).items() if name in known})

    def _states(self) -> list[tuple[int, dict[str, Any]]]:
        states = self.optimizer.state
        return [(i, states[p]) for i, p in enumerate(self.parameters) if isinstance(states.get(p), dict)]

    def describe_unsaved(self) -> str | None:
        """What of its state a file cannot hold, in words; None if nothing."""
        parameters = {id(p) for p in self.parameters}
        for key, state in self.optimizer.state.items():
            if id(key) not in parameters:
                return f"a key of type {type(key).__name__}"
            if not isinstance(state, dict):
                return f"a value of type {type(state).__name__}"
            for name, value in state.items():
                if value is not None and not is_scalar(value) and not (isinstance(value, Tensor) and is_plain(value)):
                    return f"'{name}' of type {type(value).__name__}"
        return None

    def resumes_exactly(self) -> bool:
        """Whether a saved state continues bit for bit: tried on copies of the parameters, with made-up gradients."""
        with lent_generators("cpu", 0):
            used = TorchOptimizerState(self.make, copies_of(self.parameters), self.what, self.factors)
            used._try_steps(0)
        return used.continues_exactly()

    def continues_exactly(self) -> bool:
        """Whether what would be saved of it now is all that its next steps depend on: tried on copies."""
        saved = TorchOptimizerState(self.make, copies_of(self.parameters), self.what, self.factors)
        saved.load_state_dict({name: tensor.clone() for name, tensor in self.state_dict().items()}, self.extra_state())
        uninterrupted = self.look_ahead()
        try:
            with lent_generators("cpu", 0):
                saved._try_steps(PROOF_STEPS)
        except LabError:  # it misses what could not be saved
            return False
        return all(map(has_same_bits, uninterrupted, saved.parameters))

    def look_ahead(self) -> list[nn.Parameter]:
        """The parameters after the next steps, with made-up gradients: a copy of it takes them."""
        optimizer = object.__new__(type(self.optimizer))
        memo: dict[int, Any] = {id(self.optimizer): optimizer}
        with own_code_errors(f"{self.what} cannot be copied"):
            # Not a deepcopy of itself: torch's leaves the attributes of a person's own class out.
            vars(optimizer).update(copy.deepcopy(vars(self.optimizer), memo))
        twin = copy.copy(self)
        twin.optimizer = optimizer
        twin.parameters = [memo[id(p)] for p in self.parameters]
        twin.forms = twin._forms()
        with lent_generators("cpu", 0):
            twin._try_steps(PROOF_STEPS)
        return twin.parameters

    def _try_steps(self, first: int) -> None:
        for step in range(first, first + PROOF_STEPS):
            generator = make_generator(0, "optimizer proof", step)
            for parameter in self.parameters:
                gradient = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
            seed_all_generators(torch.device("cpu"), 0, "optimizer proof", step)
            self.step()


def copies_of(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return [nn.Parameter(p.detach().clone(memory_format=torch.preserve_format)) for p in parameters]


def describe_form(parameter: Tensor) -> tuple[object, ...]:
    """All of a parameter but its values."""
    return parameter.shape, parameter.dtype, parameter.device, parameter.requires_grad


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no number in some tensors is NaN or infinite."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def is_scalar(value: object) -> bool:
    """Whether a value is one that JSON holds and gives back."""
    return isinstance(value, bool | float | str) or (isinstance(value, int) and abs(value) < 2**63)


def is_plain(tensor: Tensor) -> bool:
    """Whether a file can hold a tensor: it is not sparse, quantized or complex."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_complex()


def like_parameter(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy of a saved tensor in the parameter's memory layout, if it has its shape."""
    return (
        torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.shape == parameter.shape else value.clone()
    )


def as_mapping(value: object) -> Mapping[str, Any]:
    """A value of a file, if it is a mapping; else an empty one."""
    return value if isinstance(value, Mapping) else {}
