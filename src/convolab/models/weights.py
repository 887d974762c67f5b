"""Weights that a training starts from: a library's own, a file's or a run's, and what of them a network takes.

Nothing in a file is executed: `.safetensors` holds numbers alone, and a pickle (`.pth`, `.pt`, `.bin`, or one in torch's
cache) is read with torch's `weights_only`.
"""

import io
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlsplit

import safetensors.torch
import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from convolab.core.errors import LabError, describe_exception, require
from convolab.core.files import sha256_of, sha256_of_file, size_of_file, user_path
from convolab.core.records import validate_record
from convolab.core.run_files import BEST_FILE
from convolab.models.classifier import ImageClassifier
from convolab.models.libraries import find_in_timm, import_library, split_library
from convolab.models.pretrained import BUNDLED_NETWORKS, offline_if_unreachable, pretrained

START_KEYS = ("weights", "weights_sha256", "freeze", "pretrained_lr_factor")  # of a recipe's model; no options
OWN_WEIGHTS = "pretrained"  # the value of model.weights that names a library's own
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
MAX_WEIGHTS_BYTES = 4_000_000_000
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of torchvision's networks
Normalization = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each channel


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and what is known about them.

    Attributes:
        source: what they are, for messages.
        sha256: of the file; of weights that timm loads, of their tensors.
        tensors: by their names in the network.
        normalization: mean and standard deviation of the pixels that they expect, if known.
        classes: the names of their classes, if known.
    """

    source: str
    sha256: str
    tensors: dict[str, Tensor]
    normalization: Normalization | None = None
    classes: tuple[str, ...] | None = None


class PreprocessingRecord(TypedDict):
    """What convolab writes into a file of weights that a training can start from."""

    mean: list[float]  # of each channel, pixels in [0, 1]
    std: list[float]
    classes: list[str]


_PROVIDED: dict[str, bytes] = {}  # by name: files that came to this process as bytes, from another machine


def provide_weights(name: str, content: bytes) -> None:
    """Let the name of a weights file stand for bytes that another process sent."""
    _PROVIDED[name] = content


def read_weights_bytes(name: str) -> bytes:
    """The bytes of a weights file, or of a run's best weights. Raises LabError if there are none."""
    if name in _PROVIDED:
        return _PROVIDED[name]
    path = weights_path(name)
    try:
        require(
            size_of_file(path) <= MAX_WEIGHTS_BYTES,
            f"model.weights: {path} has more than {MAX_WEIGHTS_BYTES:,} bytes: it is too large",
        )
        return path.read_bytes()
    except OSError as error:
        raise LabError(f"model.weights: cannot read {path} ({error.strerror}): check the path") from error


def weights_path(name: str) -> Path:
    """The file that `model.weights` names. Raises LabError for what is neither a weights file nor a run's folder."""
    path = user_path(name)
    if path.is_dir():
        require((path / BEST_FILE).is_file(), f"model.weights: {path} holds no {BEST_FILE}: give a trained run")
        return path / BEST_FILE
    require(
        path.suffix in SUFFIXES,
        f"model.weights = {name!r}: give '{OWN_WEIGHTS}' for the network's own, a file ({', '.join(SUFFIXES)}), or the "
        "folder of a run",
    )
    require(path.is_file(), f"model.weights: there is no file {path}: check the path")
    return path


def sha256_of_weights(name: str, network: str) -> str:
    """The SHA-256 of the weights that `model.weights` names for a network. Raises LabError if there are none."""
    if name == OWN_WEIGHTS:
        return read_own_weights(network).sha256
    if name in _PROVIDED:
        return sha256_of(_PROVIDED[name])
    stat = os.stat(path := weights_path(name))
    require(
        stat.st_size <= MAX_WEIGHTS_BYTES,
        f"model.weights: {path} has more than {MAX_WEIGHTS_BYTES:,} bytes: it is too large",
    )
    return file_sha256(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=100)
def file_sha256(path: Path, state: tuple[int, int, int]) -> str:
    """The SHA-256 of a file that was not changed since the last call with the same state."""
    return sha256_of_file(path)


def read_weights_source(name: str, network: str) -> Weights:
    """The weights that `model.weights` names: `pretrained`, a file, or a run's folder.

    Raises LabError, in one line, if they cannot be had or the file is damaged.
    """
    if name == OWN_WEIGHTS:
        return read_own_weights(network)
    content = read_weights_bytes(name)
    digest = sha256_of(content)
    about: dict[str, Any] = {}
    try:
        if Path(name).suffix in SUFFIXES[1:] and not user_path(name).is_dir():
            with warnings.catch_warnings(action="ignore"):  # whatever it warns of, it loads or it fails
                tensors = plain_tensors(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
        else:
            tensors = safetensors.torch.load(content)
            about = safetensors_about(content)
    except UnpicklingError as error:  # whose advice is to read it with `weights_only=False`, which would run it
        raise LabError(
            f"model.weights: {name} is damaged or holds more than tensors by name, and reading more would run its code: "
            "save the network's state_dict alone, best as .safetensors"
        ) from error
    except Exception as error:  # both readers fail in many ways on a damaged file
        raise LabError(
            f"model.weights: {name} is damaged or holds more than tensors by name ({describe_exception(error)})"
        ) from error
    require(tensors, f"model.weights: {name} holds no tensors by name")
    damaged = next((key for key, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()), None)
    require(damaged is None, f"model.weights: {damaged} of {name} holds NaN or infinite numbers: it cannot be used")
    normalization, classes = library_normalization(network), None
    if {"mean", "std", "classes"} <= about.keys():  # a file of convolab's
        record = validate_record(PreprocessingRecord, about, f"model.weights: {name}")
        mean, std = record["mean"], record["std"]
        require(
            0 < len(mean) == len(std) and min(std) >= 0,
            f"model.weights: {name} is damaged: it needs a mean and a standard deviation >= 0 for each channel",
        )
        normalization, classes = (tuple(mean), tuple(std)), tuple(record["classes"])
    return Weights(name, digest, tensors, normalization, classes)


def safetensors_about(content: bytes) -> dict[str, Any]:
    """What convolab wrote into the header of a file of weights; nothing of another program's."""
    size = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + size]).get("__metadata__", {}).get("about")
    values = json.loads(about) if isinstance(about, str) else {}
    return values if isinstance(values, dict) else {}


def plain_tensors(value: object) -> dict[str, Tensor]:
    """The tensors by name in what a pickle holds: a state dict, itself or as an entry of a checkpoint."""
    for key in ("state_dict", "model"):
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
    entries = dict(value) if isinstance(value, Mapping) else {}
    require(
        all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in entries.items()),
        "it is not a state dict",
    )
    # Data-parallel training writes this before every name.
    return {key.removeprefix("module."): tensor.detach() for key, tensor in entries.items()}


@lru_cache(maxsize=4)
def read_own_weights(network: str) -> Weights:
    """The weights that a network's library gives for it. Raises LabError, saying how to get them, if it has none."""
    library, _ = split_library(network)
    if network in BUNDLED_NETWORKS or library == "timm":
        with offline_if_unreachable():
            try:
                net = pretrained(network)
            except LabError as error:
                raise LabError(f"{error}; or give a file as model.weights") from error
        return weights_of_classifier(network, net)
    require(
        library == "torchvision",
        f"the network '{network}' has no weights of its own: give a file or the folder of a run as model.weights",
    )
    return read_torchvision_weights(network)


def weights_of_classifier(network: str, net: ImageClassifier) -> Weights:
    tensors = {key: tensor.detach() for key, tensor in net.network.state_dict().items()}
    return Weights(f"the pretrained {network}", tensors_sha256(tensors), tensors, (net.mean, net.std), net.classes)


def read_torchvision_weights(network: str) -> Weights:
    """torchvision's default weights, from torch's cache or from the internet."""
    models, (_, model) = import_library("torchvision.models", network), split_library(network)
    kinds = list(models.get_model_weights(model))
    require(kinds, f"torchvision has no weights of '{model}': give a file as model.weights")
    default = models.get_model_weights(model).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(default.url).path).name
    try:
        with redirect_stdout(sys.stderr):  # torch says there that it downloads: a command's output stays what it is
            # By torch's default a pickle in its cache would run code.
            content = default.get_state_dict(progress=False, check_hash=True, weights_only=True)
        tensors = plain_tensors(content)
    except UnpicklingError as error:
        raise LabError(
            f"{path} is damaged or holds more than tensors by name, and reading more would run its code: delete it, so that "
            "it is fetched again, or give a file as model.weights"
        ) from error
    except Exception as error:  # whatever the internet does
        raise LabError(
            f"the weights of {network} are not in torch's cache and cannot be fetched ({describe_exception(error)}): "
            f"download {default.url} to {path}, or give a file as model.weights"
        ) from error
    transforms = default.transforms()
    normalization = tuple(transforms.mean), tuple(transforms.std)
    classes = tuple(default.meta.get("categories", ())) or None
    return Weights(f"the pretrained {network}", tensors_sha256(tensors), tensors, normalization, classes)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """A SHA-256 of the names, types, shapes and bytes of tensors."""
    return sha256_of(safetensors.torch.save({key: t.contiguous().clone() for key, t in tensors.items()}))


def library_normalization(network: str) -> Normalization | None:
    """The mean and deviation that a library's networks expect, for a file of weights that does not say; else None."""
    library, _ = split_library(network)
    if network in BUNDLED_NETWORKS:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if library == "timm":
        timm, full_name = find_in_timm(network)
        config = timm.get_pretrained_cfg(full_name)
        return (tuple(config.mean), tuple(config.std)) if config else IMAGENET
    return IMAGENET if library else None


def last_layer_name(network: nn.Module, num_classes: int) -> str:
    """The name of the layer that gives the logits: the last one with a weight for each class, in order of definition.

    Raises LabError if there is none.
    """
    names = [
        name
        for name, layer in network.named_modules()
        if isinstance(weight := getattr(layer, "weight", None), Tensor) and weight.ndim and len(weight) == num_classes
    ]
    require(
        names, f"the network has no layer with a weight for each of the {num_classes} classes: its last is not known"
    )
    return names[-1]


def take_weights(
    network: nn.Module, weights: Weights, classes: Sequence[str], name: str = "the network"
) -> tuple[list[str], list[str]]:
    """Load weights into a network. Returns the names of the tensors that were taken, and of those that stay new.

    The last layer is taken only if its classes are known to be the network's, by name and in order; else it stays new.
    A first convolution of weights for three channels is summed over them for grey images, which is the same as showing
    it the grey value three times, but that the channels share one normalization (`normalization_for`). Every other tensor must fit, and none may be left over.

    Raises LabError, with the counts, if the weights do not fit.
    """
    own, tensors = network.state_dict(), dict(weights.tensors)
    last = last_layer_name(network, len(classes))
    first = next((key for key, layer in network.named_modules() if isinstance(layer, nn.Conv2d)), None)
    stem = f"{first}.weight"
    if stem in own and stem in tensors and own[stem].shape[1] == 1 and tensors[stem].shape[1:2] == (3,):
        tensors[stem] = tensors[stem].sum(1, keepdim=True)
    in_last = {key for key in own if key.rpartition(".")[0] == last}
    fitting = [key for key, value in own.items() if key in tensors and tensors[key].shape == value.shape]
    other_shape = [key for key in own if key in tensors and key not in fitting and key not in in_last]
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    missing = [key for key in own if key not in tensors and key not in in_last | optional]
    unused = [key for key in tensors if key not in own]
    problems = [
        f"{len(keys)} {what} ({keys[0]}{', ...' if len(keys) > 1 else ''})"
        for keys, what in (
            (other_shape, "have another shape"), (unused, "are not in the network"), (missing, "of the network are missing"),
        )
        if keys
    ]  # fmt: skip
    require(
        not problems,
        f"the weights {weights.source} do not fit {name}: of their {len(tensors)} tensors {len(fitting)} fit, "
        f"{'; '.join(problems)}",
    )
    same_classes = weights.classes == tuple(classes) and in_last <= set(fitting)
    taken = [key for key in fitting if same_classes or key not in in_last]
    network.load_state_dict({key: tensors[key] for key in taken}, strict=False)
    return taken, [key for key in own if key not in taken]


def normalization_for(weights: Weights, channels: int) -> Normalization | None:
    """What pixels of so many channels are normalized with for these weights; for grey the mean of the channels'."""
    if weights.normalization is None or len(weights.normalization[0]) == channels:
        return weights.normalization
    mean, std = ((sum(values) / len(values),) * channels for values in weights.normalization)
    return mean, std
