"""A layer written as in Python, such as `Conv1d(1, 10, 3, padding=1, bias=False)`: parsed, never evaluated."""

import ast
import inspect
from typing import Any

import torch
from torch import nn

from convolab.core.errors import LabError, nearest, need

LAYERS: dict[str, type[nn.Module]] = {
    name: kind
    for name, kind in vars(nn).items()
    if isinstance(kind, type)
    and issubclass(kind, nn.Module)
    and not name.startswith("_")
    and "Loss" not in name
    and name != "Module"
}
CONTAINERS = {"Sequential"}


def parse_layer(text: str) -> nn.Module:
    """The layer of `torch.nn` that an expression names, made without weights (on the meta device).

    Arguments are numbers, strings, True, False, None, and tuples or lists of them; `Sequential` takes layers. Nothing is
    evaluated, so nothing but a layer can come of it. Raises LabError if the text is no such expression.

    >>> parse_layer("Linear(100, 1000, bias=False)")
    Linear(in_features=100, out_features=1000, bias=False)
    >>> parse_layer("Sequential(Conv1d(1, 10, 3, padding=1), ReLU())")[1]
    ReLU()
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise LabError(
            f"'{shortened(text)}' is no layer: write one as in Python, such as \"Linear(100, 1000, bias=False)\""
        ) from error
    with torch.device("meta"):
        return made(tree, text)


def made(tree: ast.expr, text: str) -> nn.Module:
    """The layer of a call, and of the calls in it."""
    need(
        isinstance(tree, ast.Call),
        f"'{shortened(text)}' is no layer: write one as in Python, such as \"Linear(100, 1000, bias=False)\"",
    )
    name = ast.unparse(tree.func).removeprefix("torch.").removeprefix("nn.")
    need(name in LAYERS, f"torch.nn has no layer '{shortened(name)}': {nearest_layer(name)}")
    positional = [value_of(argument, name, text) for argument in tree.args]
    need(all(keyword.arg for keyword in tree.keywords), f"'{shortened(text)}' has a ** in it: name every argument")
    named = {keyword.arg: value_of(keyword.value, name, text) for keyword in tree.keywords}
    kind = LAYERS[name]
    try:
        inspect.signature(kind).bind(*positional, **named)
        return kind(*positional, **named)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        AssertionError,
        IndexError,
        ZeroDivisionError,
        OverflowError,
        KeyError,
    ) as error:
        raise LabError(
            f"{name} cannot be made from '{shortened(text)}': {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error


def value_of(tree: ast.expr, name: str, text: str) -> Any:
    """An argument: a literal, or a layer where the layer takes layers."""
    if isinstance(tree, ast.Call) and name in CONTAINERS:
        return made(tree, text)
    try:
        value = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise LabError(
            f"'{shortened(ast.unparse(tree))}' in '{shortened(text)}' is no number, string or tuple of them: write it out"
        ) from error
    need(
        plain(value),
        f"'{shortened(ast.unparse(tree))}' in '{shortened(text)}' is no number, string or tuple of them: write it out",
    )
    return value


def plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def nearest_layer(name: str) -> str:
    hint = nearest(name, LAYERS)
    return hint if hint.startswith("did") else "give one of torch.nn's, such as Linear, Conv2d or BatchNorm2d"


def shortened(text: str, most: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
