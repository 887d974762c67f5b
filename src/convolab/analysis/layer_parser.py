"""A layer written as in Python, such as `Conv1d(1, 10, 3, padding=1, bias=False)`: parsed, never evaluated."""

import ast
import inspect
import warnings
from typing import TypeAlias

import torch
from torch import nn

from convolab.core.errors import LabError, require, suggest
from convolab.models.libraries import MAX_LAYERS

LAYER_CLASSES: dict[str, type[nn.Module]] = {
    name: kind
    for name, kind in vars(nn).items()
    if isinstance(kind, type)
    and issubclass(kind, nn.Module)
    and not name.startswith("_")
    and "Loss" not in name
    and name != "Module"
}
CONTAINER_NAMES = {"Sequential"}
# The places of the arguments that say how many layers there are, each of which takes time to build; by name they end in
# _layers.
LAYER_COUNTS = {"RNNBase": (3,), "RNN": (2,), "LSTM": (2,), "GRU": (2,), "Transformer": (2, 3)}
Argument: TypeAlias = int | float | str | list[object] | tuple[object, ...] | nn.Module | None  # bool is an int
# What constructors of layers raise for wrong arguments.
BUILD_ERRORS = (
    *(TypeError, ValueError, RuntimeError, AssertionError, IndexError, ZeroDivisionError, OverflowError, KeyError),
)


def parse_layer(text: str) -> nn.Module:
    """The layer of `torch.nn` that an expression names, built without weights (on the meta device).

    Arguments are numbers, strings, True, False, None, and tuples or lists of them; `Sequential` takes layers. Nothing
    is evaluated, so the result can only be a layer. Raises LabError if the text is not such an expression.

    >>> parse_layer("Linear(100, 1000, bias=False)")
    Linear(in_features=100, out_features=1000, bias=False)
    >>> parse_layer("Sequential(Conv1d(1, 10, 3, padding=1), ReLU())")[1]
    ReLU()
    """
    text = text.strip()
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise not_a_layer(text) from error
    # Its warnings are of a layer without weights, which is refused later or means to have none.
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        return build_layer(tree, text)


def build_layer(tree: ast.expr, text: str) -> nn.Module:
    """The layer of a call, and of the calls in it."""
    if not isinstance(tree, ast.Call):
        raise not_a_layer(text)
    # The source itself: to write a number of it again may take Python more digits than it allows.
    source = "".join((ast.get_source_segment(text, tree.func) or "").split())
    name = source.removeprefix("torch.").removeprefix("nn.")
    require(name in LAYER_CLASSES, f"torch.nn has no layer '{abbreviate(name)}': {suggest_layer(name)}")
    positional = [parse_argument(argument, name, text) for argument in tree.args]
    keywords: dict[str, Argument] = {}
    for keyword in tree.keywords:
        if keyword.arg is None:
            raise LabError(f"'{abbreviate(text)}' unpacks arguments with **: write every argument by name")
        keywords[keyword.arg] = parse_argument(keyword.value, name, text)
    counts = [positional[place] for place in LAYER_COUNTS.get(name, ()) if place < len(positional)]
    counts += [value for keyword, value in keywords.items() if keyword.endswith("_layers")]
    require(
        all(count <= MAX_LAYERS for count in counts if isinstance(count, int)),
        f"'{abbreviate(text)}' would have more than {MAX_LAYERS:,} layers: give fewer",
    )
    kind = LAYER_CLASSES[name]
    try:
        inspect.signature(kind).bind(*positional, **keywords)
        return kind(*positional, **keywords)
    except BUILD_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise LabError(f"{name} cannot be built from '{abbreviate(text)}': {reason}") from error


def not_a_layer(text: str) -> LabError:
    """The error for a text that is no call of a layer."""
    return LabError(
        f"'{abbreviate(text)}' is not a layer: write one as in Python, such as \"Linear(100, 1000, bias=False)\""
    )


def parse_argument(tree: ast.expr, name: str, text: str) -> Argument:
    """An argument: a literal, or a layer where the layer takes layers."""
    if isinstance(tree, ast.Call) and name in CONTAINER_NAMES:
        return build_layer(tree, text)
    source = ast.get_source_segment(text, tree) or ""
    message = f"'{abbreviate(source)}' in '{abbreviate(text)}' is not a number, string or tuple of them"
    try:
        value = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise LabError(f"{message}: write a literal value") from error
    require(is_literal(value), f"{message}: write a literal value")
    return value


def is_literal(value: object) -> bool:
    """Whether a value is a number, string, True, False, None, or a tuple or list of them."""
    if isinstance(value, (tuple, list)):
        return all(map(is_literal, value))
    return value is None or isinstance(value, (bool, int, float, str))


def suggest_layer(name: str) -> str:
    """How an error about an unknown layer ends: the closest one, or a few of the usual ones."""
    hint = suggest(name, LAYER_CLASSES)
    return hint if hint.startswith("did") else "give one of torch.nn's, such as Linear, Conv2d or BatchNorm2d"


def abbreviate(text: str, max_length: int = 60) -> str:
    """A text in one line, cut after `max_length` characters."""
    text = " ".join(text.split())
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
