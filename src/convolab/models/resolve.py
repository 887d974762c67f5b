"""Networks by name: those of the registry, the user's own, and timm's and torchvision's definitions."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from convolab.core.errors import LabError, require, suggest
from convolab.models.libraries import (
    create_in_torchvision,
    find_in_timm,
    find_in_torchvision,
    refuse_bare_name,
    split_library,
)
from convolab.models.registry import NETWORKS, build_by_name, resolve_factory

InputShape = tuple[int, ...]
DEFAULT_INPUT_SHAPE: InputShape = (3, 32, 32)  # of networks that are built for any images: those of CIFAR-10
NAME_ALIASES = {f"efficientnet_lite{n}": f"timm/tf_efficientnet_lite{n}" for n in range(5)}


@dataclass(frozen=True)
class ModelSpec:
    """A network's definition: how to build it, without pretrained weights, and its input shape."""

    name: str
    build: Callable[[], nn.Module]
    input_shape: InputShape  # channels, height, width


def resolve_model(
    name: str,
    shape: InputShape | None = None,
    classes: int | None = None,
    model_options: Mapping[str, object] | None = None,
) -> ModelSpec:
    """Resolve a network by name; nothing is built, and no weights are loaded.

    Args:
        name: one of the registry, `file.py:Name`, `timm/NAME`, `torchvision/NAME`, or `efficientnet_lite0` to 4.
        shape: (channels, height, width) of its images; the registry's networks and the user's own are built for it, by
            default for 3x32x32.
        classes: the number of classes; if left out, 10 for those and the library's own number for the others.
        model_options: options of those, such as {"channels": [8, 16]}.

    Raises LabError for an unknown name, with the nearest known one, for options of a library's network, and for a library
    that is not installed.

    >>> resolve_model("simple_convnet", (3, 32, 32)).build().head.linear
    Linear(in_features=64, out_features=10, bias=True)
    """
    library, model = split_library(NAME_ALIASES.get(name, name))
    require(
        not (library and model_options),
        f"the options {', '.join(model_options or ())} of '{name}': only convolab's own networks and yours take options here; "
        "leave them out",
    )
    if library == "timm":
        return timm_model_spec(name, model, shape, classes)
    if library == "torchvision":
        return torchvision_model_spec(name, classes)
    if name not in NETWORKS:
        refuse_bare_name(name)
    require(
        name in NETWORKS or ":" in name,
        f"unknown network '{name}': {suggest(name, [*NETWORKS, *NAME_ALIASES])} "
        "(or timm/NAME, torchvision/NAME, file.py:Name)",
    )
    resolve_factory(name)
    image_shape = shape or DEFAULT_INPUT_SHAPE

    def build_registered() -> nn.Module:
        if len(image_shape) != 3:
            raise LabError(f"the network '{name}' needs the shape of an image, such as 3x32x32")
        channels, height, width = image_shape
        return build_by_name(name, (channels, height, width), classes or 10, model_options or {})

    return ModelSpec(name, build_registered, image_shape)


def timm_model_spec(name: str, model: str, shape: InputShape | None, classes: int | None) -> ModelSpec:
    timm, full_name = find_in_timm(f"timm/{model}")
    options: dict[str, object] = {} if classes is None else {"num_classes": classes}
    if shape and len(shape) == 3 and shape[0] != 3:
        options["in_chans"] = shape[0]
    config = timm.get_pretrained_cfg(full_name) or timm.get_pretrained_cfg(full_name.partition(".")[0])
    if config is None:
        raise LabError(f"timm does not say what images '{full_name}' takes: choose another network")

    def build_from_timm() -> nn.Module:
        with warnings.catch_warnings(action="ignore"):
            return timm.create_model(full_name, pretrained=False, **options)

    return ModelSpec(name, build_from_timm, tuple(config.input_size))


def torchvision_model_spec(name: str, classes: int | None) -> ModelSpec:
    models, model = find_in_torchvision(name)
    options: dict[str, object] = {} if classes is None else {"num_classes": classes}

    def build_from_torchvision() -> nn.Module:
        with warnings.catch_warnings(action="ignore"):
            return create_in_torchvision(name, **options)

    return ModelSpec(name, build_from_torchvision, (3, *torchvision_image_size(models, model)))


def torchvision_image_size(models: ModuleType, model: str) -> tuple[int, int]:
    """The height and width of the images that a network's default weights are for, which are not loaded; else 224."""
    default = getattr(models.get_model_weights(model), "DEFAULT", None)
    crop_size = getattr(default.transforms(), "crop_size", None) if default else None
    # Without weights a vision transformer is built for 224 pixels.
    if crop_size is None or model.startswith("vit_"):
        return 224, 224
    sides = [crop_size] if isinstance(crop_size, int) else list(crop_size)
    return sides[0], sides[-1]
