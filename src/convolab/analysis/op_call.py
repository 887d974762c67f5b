"""One call of a PyTorch operation, its arguments checked as the counters and receptive-field rules read them."""

from collections.abc import Sequence

import torch
from torch import Tensor


class OpCall:
    """The arguments and the output of one operation.

    The arguments of operations are not typed, so each accessor checks what it finds and raises TypeError where a rule
    asks for something that this operation does not have there: that is a bug of the rule.
    """

    __slots__ = ("args", "kwargs", "output")

    def __init__(self, args: Sequence[object], kwargs: dict[str, object], output: object) -> None:
        self.args = args
        self.kwargs = kwargs
        self.output = output

    def value(self, index: int, name: str = "", default: object = None) -> object:
        """The argument at a position, or by its name where it was not given by position."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def tensor(self, index: int = 0) -> Tensor:
        """The tensor at a position; negative positions count from the end."""
        value = self.args[index]
        if not isinstance(value, Tensor):
            raise TypeError(f"argument {index} is a {type(value).__name__}, not a tensor")
        return value

    def tensors(self, index: int = 0) -> list[Tensor]:
        """The list of tensors at a position."""
        value = self.args[index]
        return [item for item in value if isinstance(item, Tensor)] if isinstance(value, (list, tuple)) else []

    def integer(self, index: int, name: str = "", default: int = 0) -> int:
        """The integer at a position; `default` where it is left out or None."""
        value = self.value(index, name)
        if value is None:
            return default
        if not isinstance(value, (int, torch.SymInt)):
            raise TypeError(f"argument {index} is a {type(value).__name__}, not an integer")
        return int(value)

    def integers(self, index: int, name: str = "", default: Sequence[int] = ()) -> list[int]:
        """The integers at a position, one or several; `default` where they are left out or None."""
        value = self.value(index, name)
        if value is None:
            return list(default)
        return [int(item) for item in value] if isinstance(value, (list, tuple)) else [self.integer(index, name)]

    def outputs(self) -> list[Tensor]:
        """The tensors of the output, one or several."""
        values = self.output if isinstance(self.output, (list, tuple)) else [self.output]
        return [value for value in values if isinstance(value, Tensor)]

    @property
    def out(self) -> Tensor:
        """The output, or the first tensor of it."""
        return self.output if isinstance(self.output, Tensor) else self.outputs()[0]


def input_tensors(args: tuple[object, ...], kwargs: dict[str, object]) -> list[Tensor]:
    """The tensors among an operation's arguments, and in lists among them."""
    tensors = [arg for arg in args if isinstance(arg, Tensor)]
    for arg in args:
        if type(arg) is list or type(arg) is tuple:
            tensors += [item for item in arg if isinstance(item, Tensor)]
    return tensors + [value for value in kwargs.values() if isinstance(value, Tensor)]
