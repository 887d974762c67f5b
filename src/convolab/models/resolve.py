"""Networks by name: built-in ones, and timm's and torchvision's definitions, each as a function without arguments that builds it."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from convolab.core.errors import LabError, require, suggest
from convolab.models.registry import NETWORKS, build, resolve_factory

InputShape = tuple[int, ...]
NAME_ALIASES = {f"efficientnet_lite{n}": f"timm/tf_efficientnet_lite{n}" for n in range(5)}
LIBRARIES = ("timm", "torchvision")


@dataclass(frozen=True)
class ModelSpec:
    """A network's definition: how to build it, without pretrained weights, and its input shape."""

    name: str
    build: Callable[[], nn.Module]
    input_shape: InputShape | None  # channels, height, width; None if unknown


def resolve_model(name: str, shape: InputShape | None = None, classes: int | None = None) -> ModelSpec:
    """Resolve a network by name: one of the registry, `file.py:Name`, `timm/NAME`, `torchvision/NAME`, `efficientnet_lite0` to 4.

    `shape` [channels, height, width] is needed for the registry's networks, which are built for one image shape;
    `classes` is 10 for those and the library's own number for the others, if left out.
    Raises LabError for an unknown name, with the nearest known one, and for a library that is not installed.

    >>> resolve_model("simple_convnet", (3, 32, 32)).build().head.linear
    Linear(in_features=64, out_features=10, bias=True)
    """
    library, slash, model = NAME_ALIASES.get(name, name).partition("/")
    if slash and library in LIBRARIES and not name.endswith(".py"):
        return (
            timm_model_spec(name, model, shape, classes)
            if library == "timm"
            else torchvision_model_spec(name, model, classes)
        )
    require(
        name in NETWORKS or ":" in name,
        f"unknown network '{name}': {suggest(name, [*NETWORKS, *NAME_ALIASES])} (or timm/NAME, torchvision/NAME, file.py:Name)",
    )
    resolve_factory(name)

    def build_registered() -> nn.Module:
        require(
            shape is not None and len(shape) == 3,
            f"the network '{name}' needs the image shape: give --input, such as 3x32x32",
        )
        return build(name, shape, classes or 10)

    return ModelSpec(name, build_registered, None)


def timm_model_spec(name: str, model: str, shape: InputShape | None, classes: int | None) -> ModelSpec:
    timm = import_library("timm", name)
    architecture, _, tag = model.partition(".")
    require(
        timm.is_model(architecture),
        f"timm has no network '{model}': {suggest_or_count(architecture, timm.list_models())}",
    )
    options = {} if classes is None else {"num_classes": classes}
    if shape and len(shape) == 3 and shape[0] != 3:
        options["in_chans"] = shape[0]
    native_shape = (
        timm.get_pretrained_cfg(model if tag else architecture) or timm.get_pretrained_cfg(architecture)
    ).input_size
    return ModelSpec(
        name,
        lambda: build_without_warnings(lambda: timm.create_model(model, pretrained=False, **options)),
        tuple(native_shape),
    )


def torchvision_model_spec(name: str, model: str, classes: int | None) -> ModelSpec:
    models = import_library("torchvision.models", name)
    known = models.list_models()
    require(model in known, f"torchvision has no network '{model}': {suggest_or_count(model, known)}")
    options = {} if classes is None else {"num_classes": classes}
    if model in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # else it spends minutes on initial weights that are not used
    side = 299 if model == "inception_v3" else 224
    if "weights_backbone" in inspect.signature(models.get_model_builder(model)).parameters:
        options["weights_backbone"] = None  # else its backbone's weights are downloaded
    return ModelSpec(
        name, lambda: build_without_warnings(lambda: models.get_model(model, weights=None, **options)), (3, side, side)
    )


def import_library(module: str, name: str) -> ModuleType:
    """Import a library's module. Raises LabError, saying how to install it, if it is missing."""
    from importlib import import_module

    library = module.partition(".")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ImportError as error:
        raise LabError(
            f"the network '{name}' needs {library}, which is not installed: pip install {library}"
        ) from error


def build_without_warnings(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with the library's warnings suppressed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()


def suggest_or_count(name: str, known: list[str]) -> str:
    hint = suggest(name, known)
    return hint if hint.startswith("did") else f"it has {len(known)} others"
