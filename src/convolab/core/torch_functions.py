"""The functions of PyTorch that Python calls inside a block."""

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode

Function = Callable[..., object]  # one of torch's, or a method of a tensor
Args = tuple[Any, ...]
Kwargs = dict[str, Any]


class FunctionCalls(TorchFunctionMode):
    """Inside this block every function of PyTorch that Python calls is run by `on_function`.

    Inside of `on_function` they are called as usual, so that it may call the function itself.

    >>> import torch
    >>> class Names(FunctionCalls):
    ...     def on_function(self, function, args, kwargs):
    ...         print(function.__name__)
    ...         return function(*args, **kwargs)
    >>> with Names():
    ...     output = torch.relu(torch.ones(2).neg())
    ones
    neg
    relu
    >>> output
    tensor([0., 0.])
    """

    def __torch_function__(
        self, func: Function, types: object, args: Args = (), kwargs: Kwargs | None = None
    ) -> object:
        return self.on_function(func, args, kwargs or {})

    def on_function(self, function: Function, args: Args, kwargs: Kwargs) -> object:
        """Run the call, or something in its place, and return the result."""
        raise NotImplementedError
