"""The networks that a recipe can name: register your own, find one by name, check its options, build it.

A network's factory takes `(shape, classes)` and then options with types and defaults, which are the recipe's `model.*`
keys.
"""

import importlib
import importlib.util
import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from pydantic import PydanticUserError, ValidationError, create_model
from torch import nn

from convolab.core.errors import LabError, require, suggest
from convolab.core.rng import isolated_rng, seed_default_generator
from convolab.models import zoo
from convolab.models.zoo import ImageShape

NetworkFactory = Callable[..., nn.Module]  # (shape, classes, **options) -> network
Factory = TypeVar("Factory", bound=NetworkFactory)

NETWORKS: dict[str, NetworkFactory] = {
    "shallow_net": zoo.shallow_net,
    "shallow_net_class": zoo.ShallowNet,
    "simple_convnet": zoo.SimpleConvnet,
    "resnet_small": zoo.ResNetSmall,
}


def register(factory: Factory, name: str | None = None) -> Factory:
    """Register a network so that recipes can name it; also a decorator. A name that is taken gets the new factory.

    Args:
        factory: a function or class called with `(shape, classes, **options)`, `shape` being (channels, height, width).
            It returns a network that takes [N, channels, height, width] and gives logits [N, classes].
        name: its name in recipes; the factory's own if left out.

    Returns:
        The factory.

    >>> @register
    ... def one_layer(shape: tuple[int, int, int], classes: int, bias: bool = True) -> nn.Module:
    ...     return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes, bias=bias))
    >>> build("one_layer", (1, 8, 8), 10, bias=False)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    >>> del NETWORKS["one_layer"]
    """
    NETWORKS[name or factory.__name__] = factory
    return factory


def build(name: str, shape: ImageShape, classes: int, *, seed: int = 0, **model_options: object) -> nn.Module:
    """Build a network; its initial weights are a pure function of the seed and each layer's name.

    So two networks that share a layer (same name, same shape) start with the same weights in it.

    Args:
        name: a registered name, `file.py:Name` or `package.module:Name`.
        shape: (channels, height, width) of its images, in pixels.
        classes: the number of classes.
        seed: of the initial weights.
        model_options: the network's own options, such as `channels=[8, 16]`.

    Returns:
        The network, which takes [N, channels, height, width] and gives logits [N, classes].

    Raises LabError for an unknown name or option, or a shape the network cannot take.

    >>> build("simple_convnet", (3, 32, 32), 10, channels=[8, 16])(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    factory = resolve_factory(name)
    resolved_options = resolve_options(name, model_options)
    with isolated_rng():
        network = factory(shape, classes, **resolved_options)
        initialize_weights(network, seed)
    return network


def initialize_weights(network: nn.Module, seed: int) -> None:
    """Re-initialize every layer by its own `reset_parameters`, seeded by (seed, layer name).

    Must run inside `isolated_rng`.
    """
    for name, layer in network.named_modules():
        if callable(reset := getattr(layer, "reset_parameters", None)):
            seed_default_generator(torch.device("cpu"), seed, "weights", name)
            reset()


def resolve_factory(name: str) -> NetworkFactory:
    """The factory of a registered name, or of `file.py:Name` or `package.module:Name`, which are imported.

    Raises LabError for an unknown name, with the nearest known one.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    require(":" in name, f"unknown network '{name}': {suggest(name, NETWORKS)} (or give your own as file.py:Name)")
    source, _, attribute = name.rpartition(":")
    is_relative = source.startswith(".") and not source.endswith(".py")
    require(
        source and attribute and not is_relative,
        f"'{name}' is not the name of a network: write file.py:Name or package.module:Name",
    )
    try:
        module = import_source(source, attribute)
    except ImportError as error:
        raise LabError(f"cannot import '{source}' for the network {attribute}: {error}") from error
    public_names = [n for n in vars(module) if not n.startswith("_")]
    require(hasattr(module, attribute), f"{source} has no {attribute}: {suggest(attribute, public_names)}")
    factory = getattr(module, attribute)
    require(
        callable(factory), f"the network '{name}' is {factory!r}: give a class, or a function that returns the network"
    )
    return factory


def import_source(source: str, attribute: str) -> ModuleType:
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = Path(source)
    require(
        path.is_file(),
        f"no file {source} to find the network {attribute} in: give its path relative to the current directory",
    )
    return import_file(path.absolute(), path.stat().st_mtime_ns)


@cache
def import_file(path: Path, mtime_ns: int) -> ModuleType:
    """Import a file as a module, once for each modification time."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise LabError(f"{path} is not a Python file: give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resolve_options(name: str, overrides: Mapping[str, object]) -> dict[str, Any]:
    """All options of a network: `overrides`, checked against its factory's types, and defaults for all others.

    Raises LabError for an option that the network does not have, and for a value of the wrong type.

    >>> resolve_options("simple_convnet", {"residual": True})
    {'channels': (16, 32, 64), 'batch_norm': True, 'residual': True}
    """
    signature = factory_signature(name)
    positional = signature.bind_partial("shape", "classes").arguments
    declared: dict[str, Any] = {
        key: (Any if p.annotation is p.empty else p.annotation, ... if p.default is p.empty else p.default)
        for key, p in signature.parameters.items()
        if key not in positional and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and not key.startswith("_")
    }
    for key in overrides:
        known = suggest(key, declared) if declared else "it has none"
        require(key in declared, f"the network '{name}' has no option '{key}': {known}")
    defaults = {key: default for key, (_, default) in declared.items() if default is not ...}
    for key, value in (defaults | dict(overrides)).items():
        require(
            is_json_serializable(value),
            f"model.{key} = {repr(value).splitlines()[0]}: a recipe holds strings, finite numbers, booleans and lists",
        )
    try:
        # Through JSON, where pydantic is strict about types but accepts a list for a tuple.
        options = json.dumps(dict(overrides))
        return create_model("Options", **declared).model_validate_json(options, strict=True).model_dump()
    except ValidationError as error:
        first_error = error.errors()[0]
        key = ".".join(map(str, first_error["loc"]))
        raise LabError(f"model.{key} = {first_error['input']!r}: {first_error['msg']}") from error
    except PydanticUserError as error:  # a type that no recipe value can have
        raise LabError(
            f"the network '{name}' takes {signature}, and a recipe cannot hold that: {str(error).splitlines()[0]}"
        ) from error


def factory_signature(name: str) -> inspect.Signature:
    """The signature of a network's factory. Raises LabError if it cannot be called with (shape, classes)."""
    factory = resolve_factory(name)
    try:
        signature = inspect.signature(factory, eval_str=True)
    except (NameError, SyntaxError) as error:
        raise LabError(
            f"a type in the signature of the network '{name}' does not exist at run time: {error}"
        ) from error
    except ValueError as error:
        raise LabError(f"the network '{name}' has no readable signature: {error}") from error
    try:
        signature.bind_partial("shape", "classes")
    except TypeError as error:
        raise LabError(f"the network '{name}' must take (shape, classes, ...options), and takes {signature}") from error
    return signature


def is_json_serializable(value: object) -> bool:
    """Whether JSON, and so a recipe, can hold a value; NaN and infinity are not JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
