"""Passes of a network, watched call by call: which functions are called where, and what goes in and out.

Modules do not show it all: much of a network is functions called in the body of a `forward`. Here a call is known by its module,
its function and which of that function's calls it is there, so that it is found again in another pass.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Place:
    """A function call in a network: the `turn`-th of this function in the body of a module, whatever the picture's size."""

    module: str
    function: str
    turn: int

    def __str__(self) -> str:
        return f"'{self.module or 'forward'}' ({self.function})"


@dataclass(frozen=True)
class Call:
    """One function call of a recorded pass. It keeps its tensors, so that no two of a pass share an id."""

    place: Place
    out: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def function(self) -> str:
        return self.place.function

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors that went in, also those in lists."""
        values = (*self.args, *self.kwargs.values())
        flat = (v for value in values for v in (value if isinstance(value, list | tuple) else [value]))
        return [value for value in flat if isinstance(value, Tensor)]

    def argument(self, position: int, name: str) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name)


class Listener(TorchFunctionMode):
    """Meets every function call made in the bodies of the modules that `listening` tells it of."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.turns: dict[tuple[str, str], int] = {}

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not self.inside:
            return function(*args, **(kwargs or {}))
        key = self.inside[-1], function.__name__
        turn = self.turns[key] = self.turns.get(key, -1) + 1
        return self.met(Place(*key, turn), function, args, kwargs or {})

    def met(self, place: Place, function: Callable, args: tuple, kwargs: dict) -> Any:
        """What a call gives."""
        raise NotImplementedError


class Record(Listener):
    """Writes down every call that gives a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def met(self, place: Place, function: Callable, args: tuple, kwargs: dict) -> Any:
        out = function(*args, **kwargs)
        if isinstance(out, Tensor):
            self.calls.append(Call(place, out, args, kwargs))
        return out


@contextmanager
def recording(network: nn.Module) -> Iterator[Record]:
    """Record the passes made meanwhile."""
    record = Record()
    with listening(record, network, [name for name, _ in network.named_modules()]):
        yield record


@contextmanager
def listening(listener: Listener, network: nn.Module, modules: Collection[str]) -> Iterator[None]:
    """Let the listener meet the calls in the bodies of some modules, and in those alone."""
    near = dict.fromkeys(modules)  # those, and what they call: a call in a child is not one in its parent's body
    for name in modules:
        near |= dict.fromkeys(
            f"{name}.{child}" if name else child for child, _ in network.get_submodule(name).named_children()
        )
    hooks = []

    def leaving(*_: object) -> None:
        listener.inside.pop()

    try:
        for name in near:
            module = network.get_submodule(name)
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: listener.inside.append(name)))
            hooks.append(module.register_forward_hook(leaving, always_call=True))
        with listener:
            yield
    finally:
        for hook in hooks:
            hook.remove()
