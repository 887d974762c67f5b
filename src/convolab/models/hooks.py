"""Hooks on every function call of a forward pass: which function is called where, with what inputs and output.

Module hooks miss functions called in the body of a `forward`. Here a call is identified by its module, its function and
its index among that function's calls there, so that it is found again in another pass.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convolab.core.torch_functions import Args, Function, FunctionCalls, Kwargs


@dataclass(frozen=True)
class CallSite:
    """A function call in a network: number `call_index` of this function in a module's body, for any image size."""

    module: str
    function: str
    call_index: int

    def __str__(self) -> str:
        return f"'{self.module or 'forward'}' ({self.function})"


@dataclass(frozen=True)
class RecordedCall:
    """One function call of a recorded pass. It keeps its tensors alive, so that their ids stay unique."""

    call_site: CallSite
    output: Tensor
    args: Args
    kwargs: Kwargs

    @property
    def function(self) -> str:
        return self.call_site.function

    @property
    def input_tensors(self) -> list[Tensor]:
        """The input tensors, also those in lists and tuples."""
        values = (*self.args, *self.kwargs.values())
        flat = (v for value in values for v in (value if isinstance(value, list | tuple) else [value]))
        return [value for value in flat if isinstance(value, Tensor)]

    def argument(self, position: int, name: str) -> object:
        """An argument that may have been passed by position or by name; None if it was left out."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name)

    def tensor_argument(self, position: int, name: str) -> Tensor | None:
        """An argument that is a tensor; None if it was left out or is something else."""
        value = self.argument(position, name)
        return value if isinstance(value, Tensor) else None


class FunctionCallHook(FunctionCalls):
    """Is called for every function call in the bodies of the modules given to `hook_calls`."""

    def __init__(self) -> None:
        super().__init__()
        self.module_stack: list[str] = []
        self.call_counts: dict[tuple[str, str], int] = {}

    def on_function(self, function: Function, args: Args, kwargs: Kwargs) -> object:
        if not self.module_stack:
            return function(*args, **kwargs)
        key = self.module_stack[-1], function.__name__
        call_index = self.call_counts[key] = self.call_counts.get(key, -1) + 1
        return self.on_call(CallSite(*key, call_index), function, args, kwargs)

    def on_call(self, call_site: CallSite, function: Function, args: Args, kwargs: Kwargs) -> object:
        """Run the call, or something in its place, and return the result."""
        raise NotImplementedError


class CallRecorder(FunctionCallHook):
    """Records every call that returns a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[RecordedCall] = []

    def on_call(self, call_site: CallSite, function: Function, args: Args, kwargs: Kwargs) -> object:
        out = function(*args, **kwargs)
        if isinstance(out, Tensor):
            self.calls.append(RecordedCall(call_site, out, args, kwargs))
        return out


@contextmanager
def record_calls(network: nn.Module) -> Iterator[CallRecorder]:
    """Record the forward passes made inside the block.

    >>> with record_calls(net := nn.Sequential(nn.Linear(2, 3), nn.ReLU())) as recorder:
    ...     output = net(Tensor([[1.0, 2.0]]))
    >>> [str(call.call_site) for call in recorder.calls]
    ["'0' (linear)", "'1' (relu)"]
    """
    recorder = CallRecorder()
    with hook_calls(recorder, network, [name for name, _ in network.named_modules()]):
        yield recorder


@contextmanager
def hook_calls(function_hook: FunctionCallHook, network: nn.Module, module_names: Collection[str]) -> Iterator[None]:
    """Call the hook for function calls in the bodies of these modules, and no others."""
    hooked_names = dict.fromkeys(module_names)
    for name in module_names:  # and their children: a call in a child is not one in its parent's body
        children = (child for child, _ in network.get_submodule(name).named_children())
        hooked_names |= dict.fromkeys(f"{name}.{child}" if name else child for child in children)

    def push_module(name: str) -> Callable[..., None]:
        return lambda *_: function_hook.module_stack.append(name)

    def pop_module(*_: object) -> None:
        function_hook.module_stack.pop()

    handles = []
    try:
        for name in hooked_names:
            module = network.get_submodule(name)
            if isinstance(module, torch.jit.ScriptModule):  # takes no hooks, and its inner calls are not Python's
                continue
            handles.append(module.register_forward_pre_hook(push_module(name)))
            handles.append(module.register_forward_hook(pop_module, always_call=True))
        with function_hook:
            yield
    finally:
        for handle in handles:
            handle.remove()
