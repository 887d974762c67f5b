"""The built-in networks: two shallow ones, a small convolutional network and a small residual one.

Layer attribute names are keys of saved weights, and enter the seeds of the initial weights: they never change.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from convolab.core.errors import require

ImageShape = tuple[int, int, int]  # channels, height, width of an image
MAX_WIDTH, MAX_STAGES, MAX_DEPTH, MAX_KERNEL, MAX_BLOCKS = 1_000_000, 100, 100, 63, 200
MAX_SIDE = 512  # pixels of an image
Width = Annotated[int, Field(gt=0, le=MAX_WIDTH)]  # channels, or hidden units
StageChannels = Annotated[tuple[Width, ...], Field(max_length=MAX_STAGES)]  # the output channels of each stage

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {  # with torch's defaults
    "relu": partial(F.relu, inplace=True),
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


def check_input_shape(shape: ImageShape) -> None:
    """Raise LabError unless the built-in networks accept images of this shape."""
    channels, height, width = shape
    require(channels in (1, 3), f"images have {channels} channels: give 1 (gray) or 3 (RGB)")
    require(
        min(height, width) >= 8 and max(height, width) <= MAX_SIDE,
        f"images are {height}x{width}: give sides of 8 to {MAX_SIDE} pixels",
    )


def shallow_net(shape: ImageShape, classes: int, hidden: Width = 128) -> nn.Sequential:
    """One hidden layer on the flattened image: `shallow_net` writes it as `nn.Sequential`, `ShallowNet` as a class.

        flatten   C x H x W -> C*H*W
        hidden    Linear(C*H*W, hidden)
        relu
        output    Linear(hidden, classes)

    Both have the same parameters under the same names, and the same outputs bit for bit.
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
    __doc__ = shallow_net.__doc__

    def __init__(self, shape: ImageShape, classes: int, hidden: Width = 128) -> None:
        super().__init__()
        check_input_shape(shape)
        self.hidden = nn.Linear(shape[0] * shape[1] * shape[2], hidden)
        self.output = nn.Linear(hidden, classes)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        hidden = F.relu(self.hidden(pixels.flatten(1)))  # [N, hidden]
        return self.output(hidden)  # [N, classes]


class ConvBlock(nn.Module):
    """Convolutions, max pooling 2x2, batch norm, activation: half the resolution, `out_channels` channels.

    Of `depth` convolutions each but the last is followed by a batch norm and an activation of its own. Pooling comes
    before the last ones because it commutes with ReLU, and the two layers then process a quarter of the values.
    With `residual` a parameter-free shortcut is added before the last activation: the input, averaged 2x2, its new
    channels zero (He et al. 2016, arXiv:1512.03385, option A). So a network with it and one without have the same
    parameters.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        pool: bool,
        batch_norm: bool,
        residual: bool,
        activation: Activation = "relu",
        depth: int = 1,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=not batch_norm)
        for index in range(1, depth):
            self.add_module(f"norm{index}", nn.BatchNorm2d(out_channels) if batch_norm else nn.Identity())
            conv = nn.Conv2d(out_channels, out_channels, kernel, padding=padding, bias=not batch_norm)
            self.add_module(f"conv{index}", conv)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm = nn.BatchNorm2d(out_channels) if batch_norm else nn.Identity()
        self.residual = residual
        self.depth = depth
        self.activation: Activation = activation

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        activate = ACTIVATIONS[self.activation]
        y = self.conv(x)
        for index in range(1, self.depth):
            y = activate(self.get_submodule(f"norm{index}")(y))
            y = self.get_submodule(f"conv{index}")(y)
        y = self.norm(self.pool(y))
        if self.residual:
            y = y + shortcut(x, y)
        return activate(y)


def shortcut(
    x: Float[Tensor, "n inputs h w"], like: Float[Tensor, "n outputs h2 w2"]
) -> Float[Tensor, "n outputs h2 w2"]:
    """The identity, averaged down to the size of `like` and padded with zero channels to its number of channels."""
    if x.shape[2:] != like.shape[2:]:
        # A convolution of stride 2 keeps the last row of an odd number, pooling drops it.
        rounds_up = tuple(like.shape[2:]) != (x.shape[2] // 2, x.shape[3] // 2)
        x = F.avg_pool2d(x, 2, ceil_mode=rounds_up)
    return F.pad(x, (0, 0, 0, 0, 0, like.shape[1] - x.shape[1]))


class SimpleConvnet(nn.Module):
    """A few 3x3 convolutions, each followed by pooling; the last feature map is averaged and classified linearly.

        features.0   Conv(C, 16, 3x3, padding 1) - MaxPool 2x2 - BatchNorm - ReLU      16 x H/2 x W/2
        features.1   Conv(16, 32, 3x3, padding 1) - MaxPool 2x2 - BatchNorm - ReLU     32 x H/4 x W/4
        features.2   Conv(32, 64, 3x3, padding 1) - MaxPool 2x2 - BatchNorm - ReLU     64 x H/8 x W/8
        head         mean over the map - Linear(64, classes)

    `channels` gives the output channels of each stage. Without `batch_norm` there are no norms, and the convolutions
    have biases. With `residual` every stage but the first gets a parameter-free shortcut (see `ConvBlock`). A side of
    1 pixel is not pooled further. `activation` replaces the ReLU, `kernel` the 3 by another odd size. With a `depth`
    of more than 1 every stage has so many convolutions, the further ones named features.0.conv1 and so on. `dropout`
    is the probability that a mean is set to zero before the last layer, in training.
    """

    # Options that came after the first runs were stored: a recipe leaves them out at their defaults, so that keys stay.
    later_options: ClassVar = ("activation", "depth", "kernel", "dropout")

    def __init__(
        self,
        shape: ImageShape,
        classes: int,
        channels: StageChannels = (16, 32, 64),
        batch_norm: bool = True,
        residual: bool = False,
        activation: Activation = "relu",
        depth: Annotated[int, Field(gt=0, le=MAX_DEPTH)] = 1,
        kernel: Annotated[int, Field(gt=0, le=MAX_KERNEL)] = 3,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        check_input_shape(shape)
        require(kernel % 2, f"model.kernel = {kernel}: give an odd size, so that a convolution keeps the map's size")
        require(channels, "model.channels is empty: give at least one number of channels")
        require(
            not residual or all(a <= b for a, b in pairwise(channels)),
            f"model.channels = {list(channels)} decrease: a shortcut cannot drop channels",
        )
        side, stages = min(shape[1:]), []
        for inputs, outputs in zip((shape[0], *channels), channels, strict=False):
            stages.append(
                ConvBlock(
                    inputs, outputs, pool=side >= 2, batch_norm=batch_norm, residual=residual and bool(stages),
                    activation=activation, depth=depth, kernel=kernel,
                )
            )  # fmt: skip
            side = max(side // 2, 1)
        self.features = nn.Sequential(*stages)
        self.head = make_pooling_head(channels[-1], classes, dropout)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.features(pixels))


def make_pooling_head(channels: int, classes: int, dropout: float = 0.0) -> nn.Sequential:
    """Global average pooling, dropout if there is any, one linear layer: [N, channels, h, w] -> [N, classes]."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(pool=GlobalAvgPool2d(), flatten=nn.Flatten())
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    layers["linear"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


class GlobalAvgPool2d(nn.AdaptiveAvgPool2d):
    """The mean over a map of any size, as `nn.AdaptiveAvgPool2d(1)` gives it: [N, C, H, W] -> [N, C, 1, 1].

    Its gradient has the memory format of the map. The gradient of torch's own layer is always contiguous (NCHW), which
    slows the layers before it when their maps are channels_last.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 1 1"]:
        return F.avg_pool2d(input, input.shape[2:])


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

    `channels` gives the output channels of each stage, `blocks` the residual blocks in each: with three stages it has
    6 * blocks + 2 layers with weights. Sides must be divisible by 2 ** (stages - 1).
    """

    def __init__(
        self,
        shape: ImageShape,
        classes: int,
        channels: StageChannels = (32, 64, 128),
        blocks: Annotated[int, Field(gt=0, le=MAX_BLOCKS)] = 1,
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
            f"images of {shape[1]}x{shape[2]} cannot be halved {len(channels) - 1} times: "
            f"give sides divisible by {divisor}",
        )
        stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(shape[0], channels[0], 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(channels[0]),
                relu=nn.ReLU(inplace=True),
            )
        )
        stages: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
        for number, (inputs, outputs) in enumerate(zip((channels[0], *channels), channels, strict=False), start=1):
            first_block = ResidualBlock(inputs, outputs, stride=1 if number == 1 else 2)
            stages[f"stage{number}"] = nn.Sequential(
                first_block, *(ResidualBlock(outputs, outputs, stride=1) for _ in range(blocks - 1))
            )
        self.features = nn.Sequential(stages)
        self.head = make_pooling_head(channels[-1], classes)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.features(pixels))
