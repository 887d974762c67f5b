"""Networks of timm and torchvision by name: looked up, their options checked, and built for a dataset's images.

Their initial weights are those that the library's authors chose: drawn by the library itself, from torch's generator.
Their warnings are ignored: they concern the developers, and users cannot act on them.
"""

import importlib
import importlib.util
import inspect
import types
import typing
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from convolab.core.errors import LabError, require, suggest
from convolab.models.options import fill_options
from convolab.models.zoo import ImageShape

LIBRARIES = ("timm", "torchvision")
MAX_LISTED = 20  # names in a message
MAX_LAYERS = 500  # that an option of a library's network may ask for: each takes time before anything else is known
LAYER_OPTIONS = ("depth", "layer", "block", "stage")  # parts of the names of options that say how many layers there are
# What the data decides, and what says where weights come from, which `model.weights` does.
NO_OPTIONS = {"num_classes", "in_chans", "pretrained", "weights", "progress", "self"}
IMAGE_SIZE = {"timm": "img_size", "torchvision": "image_size"}  # an option of networks that are built for one size
PLAIN_TYPES = (bool, int, float, str, type(None))
DRAWS_ON_REQUEST = ("googlenet", "inception_v3")  # torchvision asks whether they shall draw initial weights


def split_library(name: str) -> tuple[str, str]:
    """The library in a network's name, `timm`, `torchvision` or none, and the name without it.

    >>> split_library("timm/resnet18"), split_library("simple_convnet"), split_library("timm/nets.py:Net")
    (('timm', 'resnet18'), ('', 'simple_convnet'), ('', 'timm/nets.py:Net'))
    """
    library, slash, model = name.partition("/")
    return (library, model) if slash and library in LIBRARIES and ":" not in name else ("", name)


def libraries_with(name: str) -> list[str]:
    """The networks of installed libraries that have this very name, looked up in their source: to import it takes seconds."""
    found: list[str] = []
    for library in LIBRARIES if name.isidentifier() and not name.startswith("_") else ():
        spec = importlib.util.find_spec(library)
        folder = Path(spec.origin).parent / "models" if spec and spec.origin else Path()
        files = (file.read_text(encoding="utf-8", errors="replace") for file in folder.glob("*.py"))
        found += [f"{library}/{name}"] if any(f"\ndef {name}(" in text for text in files) else []
    return found


def refuse_bare_name(name: str) -> None:
    """Raise LabError for the name of a library's network that is given without its library."""
    if theirs := libraries_with(name):
        raise LabError(f"unknown network '{name}': did you mean {' or '.join(theirs)}?")


def is_library_network(name: str) -> bool:
    """Whether a network's name is one of a library's."""
    return bool(split_library(name)[0])


def build_library_network(name: str, shape: ImageShape, classes: int, options: Mapping[str, object]) -> nn.Module:
    """A network of a library for images [channels, height, width], with the library's own initial weights.

    They are drawn from torch's global generator, which the caller has seeded. A network that is built for one image
    size is built for this one. torchvision's networks take three channels: for images of fewer, the first convolution
    keeps its weights of the first ones.
    """
    library, model = split_library(name)
    given: dict[str, object] = {}
    if IMAGE_SIZE[library] in constructor_signature(name).parameters:
        given[IMAGE_SIZE[library]] = shape[1:] if library == "timm" else shape[1]
    if library == "timm":
        timm, full_name = find_in_timm(name)
        given |= {"num_classes": classes, "in_chans": shape[0]}
        with warnings.catch_warnings(action="ignore"):
            return timm.create_model(full_name, pretrained=False, **{**given, **options})
    if model in DRAWS_ON_REQUEST:
        given["init_weights"] = True
    with warnings.catch_warnings(action="ignore"):
        network = create_in_torchvision(name, num_classes=classes, **{**given, **options})
    if shape[0] != 3:
        narrow_first_convolution(network, name, shape[0])
    return network


def check_library_options(name: str, options: Mapping[str, object]) -> dict[str, Any]:
    """The options given for a library's network, checked against its class.

    Those that are not given stay the library's, which knows other values for each network of a class.

    Raises LabError for an unknown network or option, with the nearest, and for a value of the wrong type.
    """
    signature, what = constructor_signature(name), f"the network '{name}'"
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    known = {key: p for key, p in signature.parameters.items() if key not in NO_OPTIONS and p.kind not in variable}
    for key, value in options.items():
        require(key in known, f"{what} has no option '{key}': {suggest(key, known)}")
        require(
            layers_asked_for(key, value) <= MAX_LAYERS,
            f"{what} would have {layers_asked_for(key, value):,} layers by '{key}', and may have {MAX_LAYERS:,}: give fewer",
        )
    parameters = [
        inspect.Parameter(
            key, inspect.Parameter.KEYWORD_ONLY, default=known[key].default, annotation=plain_type(known[key])
        )
        for key in options
    ]
    return fill_options(inspect.Signature(parameters), (), options, what, "model")


def layers_asked_for(key: str, value: object) -> int:
    """How many layers an option asks for: its number, or the sum of its list.

    >>> layers_asked_for("depths", [3, 4, 6, 3]), layers_asked_for("embed_dim", 4096), layers_asked_for("depth", "x")
    (16, 0, 0)
    """
    if not any(word in key for word in LAYER_OPTIONS):
        return 0
    values = value if isinstance(value, list | tuple) else [value]
    return sum(max(0, entry) for entry in values if isinstance(entry, int) and not isinstance(entry, bool))


def plain_type(parameter: inspect.Parameter) -> object:
    """The type of an option if a recipe can hold it, by its annotation or its default; else anything."""
    annotation = parameter.annotation
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    if annotation in PLAIN_TYPES or (is_union and all(part in PLAIN_TYPES for part in typing.get_args(annotation))):
        return annotation
    kind = type(parameter.default)
    return kind if annotation is parameter.empty and kind in (bool, int, float, str) else Any


@lru_cache(maxsize=100)
def constructor_signature(name: str) -> inspect.Signature:
    """The signature of a network's class, which is known when it is built; on the meta device that is quick.

    Raises LabError for an unknown network, and if the library is not installed.
    """
    library, _ = split_library(name)
    with warnings.catch_warnings(action="ignore"), torch.device("meta"):
        if library == "timm":
            timm, full_name = find_in_timm(name)
            network = timm.create_model(full_name)
        else:
            network = create_in_torchvision(name)
    return inspect.signature(type(network).__init__)


def find_in_timm(name: str) -> tuple[ModuleType, str]:
    """timm, and the full name there of a network: `ARCHITECTURE`, or with the tag of its weights `ARCHITECTURE.TAG`.

    Raises LabError if timm does not have it.
    """
    timm = import_library("timm", name)
    architecture, _, tag = split_library(name)[1].partition(".")
    if timm.is_model(architecture) and not tag and timm.get_pretrained_cfg(architecture) is None:
        architecture, tag = current_timm_name(timm, architecture)
    require(
        timm.is_model(architecture),
        f"timm has no network '{architecture}': {suggest(architecture, timm.list_models(), MAX_LISTED)}",
    )
    return timm, f"{architecture}.{tag}" if tag else architecture


def find_in_torchvision(name: str) -> tuple[ModuleType, str]:
    """torchvision's module of networks, and the name of one there. Raises LabError for an unknown one."""
    models, (_, model) = import_library("torchvision.models", name), split_library(name)
    known = models.list_models()
    require(model in known, f"torchvision has no network '{model}': {suggest(model, known, MAX_LISTED)}")
    return models, model


def create_in_torchvision(name: str, **options: object) -> nn.Module:
    """A network of torchvision without weights. Raises LabError for an unknown one."""
    models, model = find_in_torchvision(name)
    if model in DRAWS_ON_REQUEST:
        options = {"init_weights": False, **options}  # else it takes minutes
    if "weights_backbone" in inspect.signature(models.get_model_builder(model)).parameters:
        options["weights_backbone"] = None  # else its backbone's weights are downloaded
    return models.get_model(model, weights=None, **options)


def narrow_first_convolution(network: nn.Module, name: str, channels: int) -> None:
    """Let the first convolution take fewer channels: it keeps its weights of the first ones."""
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    require(
        first is not None and first.groups == 1 and channels < first.in_channels,
        f"the network '{name}' takes images of 3 channels, and these have {channels}: choose another network",
    )
    assert first is not None
    first.in_channels = channels
    first.weight = nn.Parameter(first.weight.detach()[:, :channels].clone())


def import_library(module: str, name: str) -> ModuleType:
    """Import a library's module. Raises LabError, saying how to install it, if it is missing."""
    library = module.partition(".")[0]
    try:
        with warnings.catch_warnings(action="ignore"):
            return importlib.import_module(module)
    except ImportError as error:
        raise LabError(
            f"the network '{name}' needs {library}, which is not installed: pip install {library}"
        ) from error


def current_timm_name(timm: ModuleType, architecture: str) -> tuple[str, str]:
    """The architecture and tag that a deprecated name of timm stands for; the network, without weights, knows it."""
    with warnings.catch_warnings(action="ignore"), torch.device("meta"):
        config: dict[str, str] = getattr(timm.create_model(architecture), "pretrained_cfg", {})
    return config.get("architecture") or architecture, config.get("tag") or ""
