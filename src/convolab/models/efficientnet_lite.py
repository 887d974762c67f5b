"""EfficientNet-Lite 0 to 2, layer by layer: small ImageNet networks without squeeze-and-excite, with ReLU6 throughout.

Tan & Le 2019 (arXiv:1905.11946), scaled as in github.com/tensorflow/tpu, models/official/efficientnet/lite. Layers have timm's
names, so a state dict of timm's `tf_efficientnet_lite0` loads as it is. They are defined here because importing timm takes
longer than explaining an image.
"""

import math
from collections import OrderedDict

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

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
    """A convolution with TensorFlow's "same" padding: output side ceil(side / stride), the odd pixel of padding at the right and bottom."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h2 w2"]:
        (right, left), (bottom, top) = (
            (p - p // 2, p // 2)
            for p in (
                max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
                for side, stride, kernel in zip(x.shape[:1:-1], self.stride[::-1], self.kernel_size[::-1], strict=True)
            )
        )
        if (left, top) == (right, bottom):  # the convolution's own padding, which copies nothing
            return F.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        return F.conv2d(F.pad(x, (left, right, top, bottom)), self.weight, self.bias, self.stride, groups=self.groups)


def make_conv(
    in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
) -> Conv2dSame:
    return Conv2dSame(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)


def make_batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class DepthwiseSeparableConv(nn.Module):
    """Depthwise convolution, batch norm, ReLU6; pointwise convolution, batch norm: no activation after the projection."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1, self.act1 = (
            make_conv(in_channels, in_channels, kernel_size, stride, groups=in_channels),
            make_batch_norm(in_channels),
            nn.ReLU6(inplace=True),
        )
        self.conv_pw, self.bn2 = make_conv(in_channels, out_channels), make_batch_norm(out_channels)
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h2 w2"]:
        y = self.bn2(self.conv_pw(self.act1(self.bn1(self.conv_dw(x)))))
        return x + y if self.has_skip else y


class InvertedResidual(nn.Module):
    """Pointwise expansion, depthwise convolution, pointwise projection, with a skip connection (MobileNetV2, Sandler et al. 2018)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        expanded_channels = in_channels * expansion
        self.conv_pw, self.bn1, self.act1 = (
            make_conv(in_channels, expanded_channels),
            make_batch_norm(expanded_channels),
            nn.ReLU6(inplace=True),
        )
        self.conv_dw, self.bn2, self.act2 = (
            make_conv(expanded_channels, expanded_channels, kernel_size, stride, groups=expanded_channels),
            make_batch_norm(expanded_channels),
            nn.ReLU6(inplace=True),
        )
        self.conv_pwl, self.bn3 = make_conv(expanded_channels, out_channels), make_batch_norm(out_channels)
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h2 w2"]:
        y = self.act1(self.bn1(self.conv_pw(x)))
        y = self.act2(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.has_skip else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite: normalized pixels [N, 3, H, W] -> logits [N, classes], the last map [N, 1280, H/32, W/32].

    >>> import torch
    >>> EfficientNetLite(0)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    """

    def __init__(self, variant: int, classes: int = 1000) -> None:
        super().__init__()
        width, depth = WIDTH_DEPTH_MULTIPLIERS[variant]
        self.conv_stem, self.bn1, self.act1 = (
            make_conv(3, 32, kernel_size=3, stride=2),
            make_batch_norm(32),
            nn.ReLU6(inplace=True),
        )
        stages, inputs = [], 32
        for number, (kernel, stride, expansion, channels, blocks) in enumerate(BASE_STAGES):
            outputs = round_channels(channels * width)
            repeats = (
                blocks if number in (0, len(BASE_STAGES) - 1) else math.ceil(blocks * depth)
            )  # Lite does not scale the first and last stage
            stage = []
            for block in range(repeats):
                block_stride = stride if block == 0 else 1
                stage.append(
                    DepthwiseSeparableConv(inputs, outputs, kernel, block_stride)
                    if expansion == 1
                    else InvertedResidual(inputs, outputs, kernel, block_stride, expansion)
                )
                inputs = outputs
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2, self.act2 = make_conv(inputs, 1280), make_batch_norm(1280), nn.ReLU6(inplace=True)
        self.global_pool = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        x = self.act1(self.bn1(self.conv_stem(x)))  # [N, 32, H/2, W/2]
        x = self.blocks(x)  # [N, 320, H/32, W/32]
        x = self.act2(self.bn2(self.conv_head(x)))  # [N, 1280, H/32, W/32]
        return self.classifier(self.global_pool(x))


def round_channels(channels: float) -> int:
    """The nearest multiple of 8, but at least 90 % of `channels`."""
    multiple = max(8, int(channels + 4) // 8 * 8)
    return multiple if multiple >= 0.9 * channels else multiple + 8
