"""What a person gives, as what the layers below take: names, paths and arrays become networks, images and overrides."""

import inspect
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from convolab.core.errors import LabError, require, suggest
from convolab.core.types import Json, python_values
from convolab.data.image_io import ImageLike, open_image
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import freeze_for_inference
from convolab.models.libraries import split_library
from convolab.models.pretrained import BUNDLED_NETWORKS, offline_if_unreachable, pretrained
from convolab.models.registry import NETWORKS, is_own_factory
from convolab.training.recipe import Recipe
from convolab.training.run import Run

NetworkSource: TypeAlias = ImageClassifier | Run | str | Path  # a network, a run, or the name or folder of one

TRAIN_KEYWORDS = {  # of `train`: the recipe key of each
    "data": "data.name",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "seed": "training.seed",
    "lr": "optimizer.lr",
    "optimizer": "optimizer.name",
    "schedule": "schedule.name",
    "augment": "data.augment",
}

OTHER_KEYWORDS = ("network", "out", "data_dir", "device", "callbacks", "log", "overrides", "trust")  # of `train`


def train_overrides(
    values: Mapping[str, Json], settings: Mapping[str, Json], overrides: Mapping[str, Json]
) -> dict[str, Json]:
    """The recipe keys that the arguments of `train` set; arrays and their numbers become Python's.

    Args:
        values: its keywords of `TRAIN_KEYWORDS` by name, None where one was not given; one may be a whole section.
        settings: sections of a recipe.
        overrides: any recipe keys, which are the last word.

    >>> train_overrides({"lr": 0.1, "seed": None, "optimizer": {"name": "adam"}}, {"model": {"bias": True}}, {})
    {'optimizer.lr': 0.1, 'model.bias': True, 'optimizer.name': 'adam'}
    """
    sections = {name: v for name, v in values.items() if name in Recipe.model_fields and isinstance(v, Mapping)}
    named = {TRAIN_KEYWORDS[name]: v for name, v in values.items() if v is not None and name not in sections}
    changes = {**named, **flatten_sections({**settings, **sections}), **overrides}
    return python_values(changes)


def flatten_sections(settings: Mapping[str, Json]) -> dict[str, Json]:
    """Sections of a recipe as overrides. Raises LabError for what is no section, with what to write in its place.

    >>> flatten_sections({"model": {"name": "simple_convnet", "residual": True}})
    {'model.name': 'simple_convnet', 'model.residual': True}
    """
    overrides: dict[str, Json] = {}
    for name, value in settings.items():
        if name not in Recipe.model_fields and "." not in name:
            raise LabError(f"train has no keyword '{name}': {advise_keyword(name)}")
        if isinstance(value, Mapping):
            overrides |= {f"{name}.{key}": entry for key, entry in value.items()}
        else:
            require("." in name, f"{name} = {value!r}: give the section's keys as a dict, such as {{'name': ...}}")
            overrides[name] = value
    return overrides


def advise_keyword(name: str) -> str:
    """What to write for a keyword that `train` does not have: the recipe's section with such a key, or the nearest word.

    >>> advise_keyword("weight_decay"), advise_keyword("dropout"), advise_keyword("epoch")
    ("give optimizer={'weight_decay': ...}", "give model={'dropout': ...}", "did you mean 'epochs'?")
    """
    if name in ("learning_rate", "rate"):
        return "did you mean 'lr'?"
    sections = [section for section, keys in Recipe() if keys is not None and name in type(keys).model_fields]
    ours = [factory for factory in NETWORKS.values() if not is_own_factory(factory)]
    if any(name in list(inspect.signature(factory).parameters)[2:] for factory in ours):
        sections.append("model")
    if len(sections) == 1:
        return f"give {sections[0]}={{'{name}': ...}}"
    return suggest(name, {*TRAIN_KEYWORDS, *OTHER_KEYWORDS, *Recipe.model_fields})


def parse_input_shape(shape: Sequence[int] | str) -> tuple[int, ...]:
    """The shape of an input, given as numbers or as text.

    >>> parse_input_shape("3x32x32"), parse_input_shape("100"), parse_input_shape([1, 8, 8])
    ((3, 32, 32), (100,), (1, 8, 8))
    """
    shape = python_values(shape)
    if not isinstance(shape, str):
        is_shape = isinstance(shape, Sequence) and len(shape) and all(type(n) is int and n > 0 for n in shape)
        require(
            is_shape, f"input_shape = {shape!r} is not a shape: give channels, height and width, such as (3, 32, 32)"
        )
        return tuple(shape)
    parts = shape.lower().replace("×", "x").replace(",", "x").split("x")
    require(
        all(part.strip().isdecimal() and len(part) < 10 and int(part) > 0 for part in parts),
        f"{shape} is not a shape: give positive integers, channels first, such as 3x224x224",
    )
    return tuple(map(int, parts))


def is_run_folder(name: str | Path) -> bool:
    """Whether a name is a folder, and not a network's."""
    return str(name) not in NETWORKS and Path(name).is_dir()


def resolve_classifier(net: NetworkSource) -> ImageClassifier:
    """A network to inspect, in evaluation mode: given itself, as a run, by a run's folder or by its name.

    While it is loaded, the client of timm's hub is silent and does not wait for a hub that cannot be reached.

    Raises LabError for a name that is neither a pretrained network's nor a run's folder, and for a run without weights.
    """
    if isinstance(net, ImageClassifier):
        return net
    if isinstance(net, Run):
        return freeze_for_inference(net.net())
    name = str(net)
    if name in BUNDLED_NETWORKS:
        return pretrained(name)
    if split_library(name)[0] == "timm":
        with offline_if_unreachable():
            return pretrained(name)
    if Path(name).is_dir():
        return freeze_for_inference(Run(name).net())
    raise LabError(
        f"'{name}' is neither a pretrained network nor the folder of a run: {suggest(name, BUNDLED_NETWORKS)} "
        "(or timm/NAME, or a folder that convolab train has made)"
    )


def list_networks(nets: NetworkSource | Sequence[NetworkSource]) -> list[NetworkSource]:
    """Networks given one by one, in a list, or as names with commas between them.

    >>> list_networks("efficientnet_lite1,efficientnet_lite2"), list_networks([])
    (['efficientnet_lite1', 'efficientnet_lite2'], [])
    """
    if isinstance(nets, str):
        return [name.strip() for name in nets.split(",")]
    return [nets] if isinstance(nets, Path | Run | nn.Module) else list(nets)


def resolve_several(
    nets: NetworkSource | Sequence[NetworkSource] | Mapping[str, NetworkSource],
) -> dict[str, ImageClassifier]:
    """Networks by name: the given one, or what each is called; further ones that are called alike get a number."""
    if isinstance(nets, Mapping):
        return {str(name): resolve_classifier(net) for name, net in nets.items()}
    named: dict[str, ImageClassifier] = {}
    for net in list_networks(nets):
        label = network_label(net)
        if isinstance(net, nn.Module) and label in named:
            label = next(free for n in count(2) if (free := f"{label} {n}") not in named)
        named[label] = resolve_classifier(net)
    return named


def network_label(net: NetworkSource) -> str:
    """What a network is called in a result."""
    return str(net.folder) if isinstance(net, Run) else type(net).__name__ if isinstance(net, nn.Module) else str(net)


def resolve_image(image: ImageLike | nn.Module | Run) -> tuple[str, Tensor]:
    """What an image is called, and its pixels, bytes [C, H, W]. Raises LabError for what is not an image."""
    if isinstance(image, nn.Module | Run):
        raise LabError("the image comes first, then the network: explain(image, net)")
    return open_image(image)
