"""The built-in networks, and the registry that users add their own networks to."""

import importlib
import importlib.util
import inspect
import json
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt, PydanticUserError, ValidationError, create_model
from torch import Tensor, nn

from convolab.core.errors import LabError, require, suggest
from convolab.core.rng import isolated_rng, seed_default_generator

ImageShape = tuple[int, int, int]  # channels, height, width of an image
NetworkFactory = Callable[..., nn.Module]  # (shape, classes, **options) -> network

NETWORKS: dict[str, NetworkFactory] = {}


def register(factory: NetworkFactory, name: str | None = None) -> NetworkFactory:
    """Register a network so that recipes can name it. Its factory takes `(shape, classes)` and then options with types and defaults.

    >>> @register
    ... def one_layer(shape: tuple[int, int, int], classes: int, bias: bool = True) -> nn.Module:
    ...     return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes, bias=bias))
    >>> build("one_layer", (1, 8, 8), 10, bias=False)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    >>> del NETWORKS["one_layer"]
    """
    NETWORKS[name or factory.__name__] = factory
    return factory


def resolve_factory(name: str) -> NetworkFactory:
    """The factory of a registered name, or of `file.py:Name` or `package.module:Name`, which are imported.

    Raises LabError for an unknown name, with the nearest known one.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    require(":" in name, f"unknown network '{name}': {suggest(name, NETWORKS)} (or give your own as file.py:Name)")
    source, _, attribute = name.rpartition(":")
    relative = source.startswith(".") and not source.endswith(".py")
    require(
        source and attribute and not relative, f"'{name}' is not the name of a network: write file.py:Name or package.module:Name"
    )
    try:
        if source.endswith(".py"):
            require(
                Path(source).is_file(), f"no file {source} to find the network {attribute} in: give its path relative to the current directory"
            )
            module = import_file(Path(source).absolute(), Path(source).stat().st_mtime_ns)
        else:
            module = importlib.import_module(source)
    except ImportError as error:
        raise LabError(f"cannot import '{source}' for the network {attribute}: {error}") from error
    require(
        hasattr(module, attribute),
        f"{source} has no {attribute}: {suggest(attribute, [n for n in vars(module) if n[0] != '_'])}",
    )
    factory = getattr(module, attribute)
    require(
        callable(factory), f"the network '{name}' is {factory!r}: give a class, or a function that returns the network"
    )
    return factory


@cache
def import_file(path: Path, mtime_ns: int) -> ModuleType:
    """Import a file as a module, once for each modification time."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resolve_options(name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """All options of a network: `overrides`, checked against the types in its factory's signature, and defaults for all others.

    >>> resolve_options("simple_convnet", {"residual": True})
    {'channels': (16, 32, 64), 'batch_norm': True, 'residual': True}
    """
    signature = factory_signature(name)
    positional = signature.bind_partial("shape", "classes").arguments
    declared = {
        key: (Any if p.annotation is p.empty else p.annotation, ... if p.default is p.empty else p.default)
        for key, p in signature.parameters.items()
        if key not in positional and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and key[0] != "_"
    }
    for key in overrides:
        require(
            key in declared,
            f"the network '{name}' has no option '{key}': {suggest(key, declared) if declared else 'it has none'}",
        )
    defaults = {key: default for key, (_, default) in declared.items() if default is not ...}
    for key, value in (defaults | overrides).items():
        require(
            is_json_serializable(value),
            f"model.{key} = {repr(value).splitlines()[0]}: a recipe holds strings, finite numbers, booleans and lists",
        )
    try:
        # Through JSON, where pydantic is strict about types but accepts a list for a tuple.
        return create_model("Options", **declared).model_validate_json(json.dumps(overrides), strict=True).model_dump()
    except ValidationError as error:
        first_error = error.errors()[0]
        raise LabError(
            f"model.{'.'.join(map(str, first_error['loc']))} = {first_error['input']!r}: {first_error['msg']}"
        ) from error
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
        raise LabError(f"a type in the signature of the network '{name}' does not exist at run time: {error}") from error
    except ValueError as error:
        raise LabError(f"the network '{name}' has no readable signature: {error}") from error
    try:
        signature.bind_partial("shape", "classes")
    except TypeError as error:
        raise LabError(f"the network '{name}' must take (shape, classes, ...options), and takes {signature}") from error
    return signature


def is_json_serializable(value: Any) -> bool:
    """Whether JSON, and with it a recipe, can hold a value; it knows no NaN or infinity."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def build(name: str, shape: ImageShape, classes: int, *, seed: int = 0, **model_options: Any) -> nn.Module:
    """Build a network for images of `shape`; its initial weights are a pure function of the seed and each layer's name.

    So two networks that share a layer (same name, same shape) start with the same weights in it.
    Raises LabError for an unknown name or option, or a shape the network cannot take.
    """
    factory, resolved_options = resolve_factory(name), resolve_options(name, model_options)
    with isolated_rng():
        network = factory(shape, classes, **resolved_options)
        initialize_weights(network, seed)
    return network


def initialize_weights(network: nn.Module, seed: int) -> None:
    """Re-initialize every layer by its own `reset_parameters`, seeded by (seed, layer name).

    Must run inside `own_global_generators`.
    """
    for name, layer in network.named_modules():
        if callable(reset := getattr(layer, "reset_parameters", None)):
            seed_default_generator(torch.device("cpu"), seed, "weights", name)
            reset()


def check_input_shape(shape: ImageShape) -> None:
    """Raise LabError unless the built-in networks accept images of this shape."""
    channels, height, width = shape
    require(channels in (1, 3), f"images have {channels} channels: give 1 (gray) or 3 (RGB)")
    require(
        min(height, width) >= 8 and max(height, width) <= 64,
        f"images are {height}x{width}: give sides of 8 to 64 pixels",
    )


@register
def shallow_net(shape: ImageShape, classes: int, hidden: PositiveInt = 128) -> nn.Sequential:
    """One hidden layer on the flattened image, as `nn.Sequential`.

    flatten   C x H x W -> C*H*W
    hidden    Linear(C*H*W, hidden)
    relu
    output    Linear(hidden, classes)
    """
    check_input_shape(shape)
    inputs = shape[0] * shape[1] * shape[2]
    layers = {
        "flatten": nn.Flatten(),
        "hidden": nn.Linear(inputs, hidden),
        "relu": nn.ReLU(),
        "output": nn.Linear(hidden, classes),
    }
    return nn.Sequential(OrderedDict(layers))


class ShallowNet(nn.Module):
    """The layers of `shallow_net` as a class: same parameters, same outputs bit for bit."""

    def __init__(self, shape: ImageShape, classes: int, hidden: PositiveInt = 128) -> None:
        super().__init__()
        check_input_shape(shape)
        self.hidden = nn.Linear(shape[0] * shape[1] * shape[2], hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        hidden = F.relu(self.hidden(pixels.flatten(1)))  # [N, hidden]
        return self.output(hidden)  # [N, classes]


register(ShallowNet, "shallow_net_class")


class ConvBlock(nn.Module):
    """Convolution 3x3, max pooling 2x2, batch norm, ReLU: half the resolution, `out_channels` channels.

    Pooling comes first because it commutes with ReLU, and the two layers behind it then touch a quarter of the values.
    With `residual` a parameter-free shortcut is added before the ReLU: the stage's input, averaged 2x2, its new channels
    zero (He et al. 2016, arXiv:1512.03385, option A). So a network with and one without have the same parameters.
    """

    def __init__(self, in_channels: int, out_channels: int, *, pool: bool, batch_norm: bool, residual: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=not batch_norm)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm = nn.BatchNorm2d(out_channels) if batch_norm else nn.Identity()
        self.residual = residual

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        y = self.norm(self.pool(self.conv(x)))
        if self.residual:
            y = y + shortcut(x, y)
        return F.relu(y, inplace=True)


def shortcut(
    x: Float[Tensor, "n inputs h w"], like: Float[Tensor, "n outputs h2 w2"]
) -> Float[Tensor, "n outputs h2 w2"]:
    """The identity, averaged down to the size of `like` and padded with zero channels to its number of channels."""
    if x.shape[2:] != like.shape[2:]:
        # A convolution of stride 2 keeps the last row of an odd number, pooling drops it.
        rounds_up = tuple(like.shape[2:]) != (x.shape[2] // 2, x.shape[3] // 2)
        x = F.avg_pool2d(x, 2, ceil_mode=rounds_up)
    return F.pad(x, (0, 0, 0, 0, 0, like.shape[1] - x.shape[1]))


StageChannels = tuple[PositiveInt, ...]


class SimpleConvnet(nn.Module):
    """A few 3x3 convolutions, each followed by pooling; the last feature map is averaged and classified linearly.

        features.0   Conv(C, 16, 3x3, padding 1) - MaxPool 2x2 - BatchNorm - ReLU      16 x H/2 x W/2
        features.1   Conv(16, 32, 3x3, padding 1) - MaxPool 2x2 - BatchNorm - ReLU     32 x H/4 x W/4
        features.2   Conv(32, 64, 3x3, padding 1) - MaxPool 2x2 - BatchNorm - ReLU     64 x H/8 x W/8
        head         mean over the map - Linear(64, classes)

    `channels` gives the output channels of each stage. Without `batch_norm` the norms are gone and the convolutions have biases. With `residual`
    every stage but the first gets a parameter-free shortcut (see `ConvBlock`). A side of 1 pixel is not pooled further.
    """

    def __init__(
        self,
        shape: ImageShape,
        classes: int,
        channels: StageChannels = (16, 32, 64),
        batch_norm: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__()
        check_input_shape(shape)
        require(channels, "model.channels is empty: give at least one number of channels")
        require(
            not residual or all(a <= b for a, b in pairwise(channels)),
            f"model.channels = {list(channels)} decrease: a shortcut cannot drop channels",
        )
        side, stages = min(shape[1:]), []
        for inputs, outputs in zip((shape[0], *channels), channels, strict=False):
            stages.append(
                ConvBlock(inputs, outputs, pool=side >= 2, batch_norm=batch_norm, residual=residual and bool(stages))
            )
            side = max(side // 2, 1)
        self.features = nn.Sequential(*stages)
        self.head = make_pooling_head(channels[-1], classes)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.features(pixels))


register(SimpleConvnet, "simple_convnet")


def make_pooling_head(channels: int, classes: int) -> nn.Sequential:
    """Global average pooling, then one linear layer: [N, channels, h, w] -> [N, classes]."""
    return nn.Sequential(OrderedDict(pool=GlobalAvgPool2d(), flatten=nn.Flatten(), linear=nn.Linear(channels, classes)))


class GlobalAvgPool2d(nn.AdaptiveAvgPool2d):
    """The mean over a map of any size, as `nn.AdaptiveAvgPool2d(1)` gives it: [N, C, H, W] -> [N, C, 1, 1].

    Its gradient has the memory format of the map. The gradient of torch's own layer is always contiguous (NCHW), which slows the layers
    before it when their maps are channels_last.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 1 1"]:
        return F.avg_pool2d(features, features.shape[2:])


class ResidualBlock(nn.Module):
    """Conv 3x3 - BatchNorm - ReLU - Conv 3x3 - BatchNorm, plus the parameter-free shortcut, ReLU (He et al. 2016)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y + shortcut(x, y), inplace=True)


class ResNetSmall(nn.Module):
    """A residual network for small images (He et al. 2016, section 4.2).

        features.stem      Conv(C, 32, 3x3, padding 1) - BatchNorm - ReLU              32 x H x W
        features.stage1    `blocks` residual blocks                                   32 x H x W
        features.stage2    `blocks` residual blocks, the first with stride 2          64 x H/2 x W/2
        features.stage3    `blocks` residual blocks, the first with stride 2         128 x H/4 x W/4
        head               mean over the map - Linear(128, classes)

    `channels` sets the stages, `blocks` the residual blocks in each: 6 * blocks + 2 layers with weights.
    Sides must be divisible by 2 ** (stages - 1).
    """

    def __init__(
        self, shape: ImageShape, classes: int, channels: StageChannels = (32, 64, 128), blocks: PositiveInt = 1
    ) -> None:
        super().__init__()
        check_input_shape(shape)
        require(
            channels and all(a <= b for a, b in pairwise(channels)),
            f"model.channels = {list(channels)}: give at least one number, in non-decreasing order",
        )
        divisor = 2 ** (len(channels) - 1)
        require(
            shape[1] % divisor == 0 and shape[2] % divisor == 0,
            f"pictures of {shape[1]}x{shape[2]} cannot be halved {len(channels) - 1} times: give sides that divide by {divisor}",
        )
        stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(shape[0], channels[0], 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(channels[0]),
                relu=nn.ReLU(inplace=True),
            )
        )
        stages = OrderedDict(stem=stem)
        for number, (inputs, outputs) in enumerate(zip((channels[0], *channels), channels, strict=False), start=1):
            first_block = ResidualBlock(inputs, outputs, stride=1 if number == 1 else 2)
            stages[f"stage{number}"] = nn.Sequential(
                first_block, *(ResidualBlock(outputs, outputs, stride=1) for _ in range(blocks - 1))
            )
        self.features = nn.Sequential(stages)
        self.head = make_pooling_head(channels[-1], classes)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.features(pixels))


register(ResNetSmall, "resnet_small")
