"""EfficientNet-Lite 0 to 2, layer by layer: small ImageNet networks without squeeze-and-excite, with ReLU6 throughout.

Tan & Le 2019 (arXiv:1905.11946), scaled as in github.com/tensorflow/tpu, models/official/efficientnet/lite. Layers have
timm's names, so a state dict of timm's `tf_efficientnet_lite0` loads as it is. They are defined here because importing
timm takes longer than explaining an image.
"""

import math
from collections import OrderedDict

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convolab.models.zoo import ImageShape

BASE_STAGES = (  # kernel, stride, expansion, channels, blocks: those of EfficientNet-B0
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
WIDTH_DEPTH_MULTIPLIERS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # multipliers of channels and blocks


class Conv2dSame(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: its output's side is ceil(side / stride).

    Where the padding is odd, the bottom and the right get the extra pixel.
    """

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h2 w2"]:
        top, bottom = same_padding(input.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(input.shape[3], self.kernel_size[1], self.stride[1])
        if (left, top) == (right, bottom):  # the convolution's own padding, which copies nothing
            return F.conv2d(input, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


def same_padding(side: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """The pixels before and after a side, so that a convolution gives ceil(side / stride).

    >>> same_padding(224, 3, 2), same_padding(7, 5, 1)
    ((0, 1), (2, 2))
    """
    padding = max((math.ceil(side / stride) - 1) * stride + kernel_size - side, 0)
    return padding // 2, padding - padding // 2


def make_conv(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> Conv2dSame:
    return Conv2dSame(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)


def make_batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class DepthwiseSeparableConv(nn.Module):
    """Depthwise convolution, batch norm, ReLU6; pointwise convolution, batch norm; no activation after the projection.

    A skip connection adds the input where the shapes agree.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = make_conv(in_channels, in_channels, kernel_size, stride, groups=in_channels)
        self.bn1 = make_batch_norm(in_channels)
        self.act1 = nn.ReLU6(inplace=True)
        self.conv_pw = make_conv(in_channels, out_channels)
        self.bn2 = make_batch_norm(out_channels)
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h2 w2"]:
        y = self.bn2(self.conv_pw(self.act1(self.bn1(self.conv_dw(x)))))
        return x + y if self.has_skip else y


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution, pointwise projection (MobileNetV2, Sandler et al. 2018).

    A skip connection adds the input where the shapes agree.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        expanded_channels = in_channels * expansion
        self.conv_pw = make_conv(in_channels, expanded_channels)
        self.bn1 = make_batch_norm(expanded_channels)
        self.act1 = nn.ReLU6(inplace=True)
        self.conv_dw = make_conv(expanded_channels, expanded_channels, kernel_size, stride, groups=expanded_channels)
        self.bn2 = make_batch_norm(expanded_channels)
        self.act2 = nn.ReLU6(inplace=True)
        self.conv_pwl = make_conv(expanded_channels, out_channels)
        self.bn3 = make_batch_norm(out_channels)
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h2 w2"]:
        y = self.act1(self.bn1(self.conv_pw(x)))
        y = self.act2(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.has_skip else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite: normalized pixels [N, channels, H, W] -> logits [N, classes]; its last map is [N, 1280, H/32, W/32].

    `variant` 0, 1 or 2 decides the width and the depth.

    >>> import torch
    >>> EfficientNetLite(0)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    """

    def __init__(self, variant: int, classes: int = 1000, channels: int = 3) -> None:
        super().__init__()
        width, depth = WIDTH_DEPTH_MULTIPLIERS[variant]
        self.conv_stem = make_conv(channels, 32, kernel_size=3, stride=2)
        self.bn1 = make_batch_norm(32)
        self.act1 = nn.ReLU6(inplace=True)
        stages = []
        inputs = 32
        for number, (kernel, stride, expansion, channels, blocks) in enumerate(BASE_STAGES):
            outputs = round_channels(channels * width)
            is_outer = number in (0, len(BASE_STAGES) - 1)  # Lite does not scale the first and last stage
            stage = []
            for block in range(blocks if is_outer else math.ceil(blocks * depth)):
                block_stride = stride if block == 0 else 1
                if expansion == 1:
                    stage.append(DepthwiseSeparableConv(inputs, outputs, kernel, block_stride))
                else:
                    stage.append(InvertedResidual(inputs, outputs, kernel, block_stride, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = make_conv(inputs, 1280)
        self.bn2 = make_batch_norm(1280)
        self.act2 = nn.ReLU6(inplace=True)
        self.global_pool = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        x = self.act1(self.bn1(self.conv_stem(x)))  # [N, 32, H/2, W/2]
        x = self.blocks(x)  # [N, 320, H/32, W/32]
        x = self.act2(self.bn2(self.conv_head(x)))  # [N, 1280, H/32, W/32]
        return self.classifier(self.global_pool(x))


def round_channels(channels: float) -> int:
    """The nearest multiple of 8, but at least 90 % of `channels`."""
    multiple = max(8, int(channels + 4) // 8 * 8)
    return multiple if multiple >= 0.9 * channels else multiple + 8


def efficientnet_lite0(shape: ImageShape, classes: int) -> EfficientNetLite:
    """EfficientNet-Lite0 for images of any size; a registered network. Its last map has a 32nd of their height and width."""
    return EfficientNetLite(0, classes, shape[0])


def efficientnet_lite1(shape: ImageShape, classes: int) -> EfficientNetLite:
    """As `efficientnet_lite0`, deeper by a tenth."""
    return EfficientNetLite(1, classes, shape[0])


def efficientnet_lite2(shape: ImageShape, classes: int) -> EfficientNetLite:
    """As `efficientnet_lite0`, deeper by a fifth and wider by a tenth."""
    return EfficientNetLite(2, classes, shape[0])
