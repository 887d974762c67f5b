"""The networks that a recipe can name: register your own, find one by name, check its options, build it.

A network's factory takes `(shape, classes)` and then options with types and defaults, which are the recipe's `model.*`
keys.
"""

import inspect
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from convolab.core.errors import LabError, require, suggest, translate_memory_errors
from convolab.core.rng import lent_generators, seed_all_generators, seed_default_generator
from convolab.core.types import python_values
from convolab.models import efficientnet_lite, whitened_convnet, zoo
from convolab.models.inference import eval_mode
from convolab.models.libraries import (
    build_library_network,
    check_library_options,
    is_library_network,
    refuse_bare_name,
)
from convolab.models.options import fill_options, readable_signature
from convolab.models.own_code import OwnCode, find_own_code, is_own_code, own_code_errors
from convolab.models.zoo import ImageShape

NetworkFactory = Callable[..., nn.Module]  # (shape, classes, **options) -> network
MAX_PARAMETERS = 500_000_000  # of a built-in network or a library's; its training takes 16 bytes and more for each
RegisteredFactory = TypeVar("RegisteredFactory", bound=NetworkFactory)

NETWORKS: dict[str, NetworkFactory] = {
    "shallow_net": zoo.shallow_net,
    "shallow_net_class": zoo.ShallowNet,
    "simple_convnet": zoo.SimpleConvnet,
    "resnet_small": zoo.ResNetSmall,
    "whitened_convnet": whitened_convnet.WhitenedConvnet,
    "efficientnet_lite0": efficientnet_lite.efficientnet_lite0,
    "efficientnet_lite1": efficientnet_lite.efficientnet_lite1,
    "efficientnet_lite2": efficientnet_lite.efficientnet_lite2,
}


def register(factory: RegisteredFactory, name: str | None = None) -> RegisteredFactory:
    """Register a network so that recipes can name it; also a decorator. A name that is taken gets the new factory.

    Args:
        factory: a function or class called with `(shape, classes, **options)`, `shape` being (channels, height, width).
            It returns a network that takes [N, channels, height, width] and gives logits [N, classes].
        name: its name in recipes; the factory's own, where it has one, if left out.

    Its initial weights are those that the factory makes. For that the global generators of torch, NumPy and Python are
    seeded with the recipe's seed.

    Returns:
        The factory. That it gives a network which fits is checked when one is built.

    >>> @register
    ... def one_layer(shape: tuple[int, int, int], classes: int, bias: bool = True) -> nn.Module:
    ...     return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes, bias=bias))
    >>> build("one_layer", (1, 8, 8), 10, bias=False)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    >>> del NETWORKS["one_layer"]
    """
    require(
        callable(factory),
        f"register = {reprlib.repr(factory)}: give a function or class that makes a network, called with (shape, classes)",
    )
    require(
        name or hasattr(factory, "__name__"),
        f"register = {reprlib.repr(factory)}: it has no name of its own: give one, as in register(factory, name='mine')",
    )
    NETWORKS[name or factory.__name__] = factory
    return factory


def build(name: str, shape: ImageShape, classes: int, *, seed: int = 0, **model_options: object) -> nn.Module:
    """Build a network; its initial weights are a pure function of the seed.

    In a network of convolab's those of a layer are one of the seed and the layer's name: two networks that share a layer
    (same name, same shape) start with the same weights in it. A network of timm or torchvision has the initial weights
    that its library draws, one of your own those that its constructor makes, each with the seeded global generators. Code
    of your own that you name here may run from now on.

    Args:
        name: a registered name, `timm/NAME`, `torchvision/NAME`, `file.py:Name` or `package.module:Name`.
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
    trust_named(name)
    shape, classes, seed = python_values((shape, classes, seed))
    return build_by_name(name, shape, classes, model_options, seed=seed)


def build_by_name(
    name: str,
    shape: ImageShape,
    classes: int,
    model_options: Mapping[str, object],
    *,
    seed: int = 0,
    code: OwnCode | None = None,
) -> nn.Module:
    """As `build`, for a name that is read from a file: code of somebody's own runs only if it is trusted.

    `code` is the copy of it to use; by default what the name stands for in the current folder.
    """
    require(classes > 0, f"the network '{name}' is asked for {classes} classes: give at least 1")
    factory = resolve_factory(name, code)
    resolved_options = resolve_options(name, model_options, code)
    advice = f"the network '{name}' is too large for this machine with {resolved_options}"
    changes = (
        f": leave out or change {', '.join(f'model.{option}' for option in model_options)}" if model_options else ""
    )
    with lent_generators("cpu", 0), translate_memory_errors(advice):
        with own_code_errors(f"the network '{name}' cannot be built", changes):
            if is_bounded(name, factory) and torch.get_default_device().type != "meta":
                require_small_enough(name, factory, shape, classes, resolved_options)
            # For a library's network and a person's own, which draw their own weights.
            seed_all_generators(torch.device("cpu"), seed, "weights")
            network = factory(shape, classes, **resolved_options)
        require(
            isinstance(network, nn.Module),
            f"the network '{name}' gives {type(network).__name__}: it must give a torch.nn.Module",
        )
        if is_own_factory(factory):
            if any(map(is_lazy, (*network.parameters(), *network.buffers()))):
                with (
                    own_code_errors(f"the network '{name}' cannot be built", changes),
                    eval_mode(network),
                    torch.no_grad(),
                ):
                    network(torch.zeros(2, *shape))  # its lazy layers take their shapes from it
        elif not is_library_network(name):
            initialize_weights(network, seed)
    return network


def is_own_factory(factory: NetworkFactory) -> bool:
    """Whether what makes a network is a person's own; what makes a library's network is convolab's."""
    return not (factory.__module__ or "").startswith("convolab.")  # None: of a function that `exec` made


def is_bounded(name: str, factory: NetworkFactory) -> bool:
    """Whether a network's size is checked before it is built: of ours and of the libraries', whose code is known."""
    ours = factory.__module__ in (zoo.__name__, whitened_convnet.__name__)
    return ours or (is_library_network(name) and name not in NETWORKS)


def require_small_enough(
    name: str, factory: NetworkFactory, shape: ImageShape, classes: int, options: Mapping[str, object]
) -> None:
    """Raise LabError for a network of more parameters than fit in memory; none is allocated to find out."""
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in factory(shape, classes, **options).parameters())
    require(
        num_parameters <= MAX_PARAMETERS,
        f"the network '{name}' would have {num_parameters:,} parameters, and may have {MAX_PARAMETERS:,}: "
        f"give smaller options than {reprlib.repr(dict(options))}",
    )


def own_code_of(name: str) -> OwnCode | None:
    """The code that a network's name stands for in the current folder; None for networks of convolab or registered."""
    return find_own_code(name) if is_own_code(name) and name not in NETWORKS else None


def trust_named(name: object) -> None:
    """Record that code may run which a person has named in a command or a call; other names are left as they are."""
    if isinstance(name, str) and (code := own_code_of(name)):
        code.trust()


def initialize_weights(network: nn.Module, seed: int) -> None:
    """Re-initialize every layer by its own `reset_parameters`, seeded by (seed, layer name).

    Must run inside `isolated_rng`.
    """
    for name, layer in network.named_modules():
        if callable(reset := getattr(layer, "reset_parameters", None)):
            seed_default_generator(torch.device("cpu"), seed, "weights", name)
            reset()


def resolve_factory(name: str, code: OwnCode | None = None) -> NetworkFactory:
    """The factory of a registered name, of a library's, or of `file.py:Name` or `package.module:Name`, imported from `code`.

    Raises LabError for an unknown name, with the nearest known one, and for code that is not trusted.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    if is_library_network(name):
        return lambda shape, classes, **options: build_library_network(name, shape, classes, options)
    require(
        not name.endswith(".toml"),
        f"'{name}' is a recipe, not a network: read it first, by convolab.Recipe.read('{name}') or --recipe {name}",
    )
    refuse_bare_name(name)
    require(
        is_own_code(name),
        f"unknown network '{name}': {suggest(name, NETWORKS)} "
        "(or give timm/NAME, torchvision/NAME, or your own as file.py:Name)",
    )
    code, attribute = code or find_own_code(name), name.rpartition(":")[2]
    factory: NetworkFactory = code.load(attribute)
    is_network_class = inspect.isclass(factory) and issubclass(factory, nn.Module)
    require(
        is_network_class or inspect.isfunction(factory),
        f"{attribute} of {code.entry} is not a network: give a subclass of torch.nn.Module, or a function that returns one",
    )
    return factory


def resolve_options(name: str, overrides: Mapping[str, object], code: OwnCode | None = None) -> dict[str, Any]:
    """All options of a network: `overrides`, checked against its factory's types, and defaults for all others.

    Options that a network of convolab got later, its `later_options`, are left out where they have their defaults: so
    the keys of earlier recipes stay the same.

    Raises LabError for an option that the network does not have, and for a value of the wrong type.

    >>> resolve_options("simple_convnet", {"residual": True})
    {'channels': (16, 32, 64), 'batch_norm': True, 'residual': True}
    """
    if is_library_network(name) and name not in NETWORKS:
        return check_library_options(name, overrides)
    signature = factory_signature(name, code)
    options = fill_options(signature, ("shape", "classes"), overrides, f"the network '{name}'", "model")
    later = getattr(NETWORKS.get(name), "later_options", ())
    return {k: v for k, v in options.items() if k not in later or v != signature.parameters[k].default}


def factory_signature(name: str, code: OwnCode | None = None) -> inspect.Signature:
    """The signature of a network's factory. Raises LabError if it cannot be called with (shape, classes)."""
    signature = readable_signature(resolve_factory(name, code), f"the network '{name}'")
    try:
        signature.bind_partial("shape", "classes")
    except TypeError as error:
        raise LabError(f"the network '{name}' must take (shape, classes, ...options), and takes {signature}") from error
    return signature
