"""A small wide convolutional network that learns fast: its first layer is computed from the images, the others start as the identity.

Layer attribute names are keys of saved weights, and enter the seeds of the initial weights: they never change.
"""

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convolab.core.errors import require
from convolab.models.zoo import ImageShape, StageChannels, check_input_shape

WHITENING_EPSILON = 5e-4  # added to the eigenvalues, so that directions in which images hardly vary are not blown up
FIT_BATCH = 500  # images whose patches are in memory at once
NORM_MOMENTUM = 0.4  # in few long steps the running statistics must follow fast
# The last layer's weights are learned in a unit in which the learning rate of the norms' biases suits them too. Published are
# 0.67 and 0.053 for the two; a unit of the root of their ratio gives the same steps.
HEAD_UNIT = 3.556


class WhiteningConv(nn.Conv2d):
    """Filters that decorrelate 2x2 patches of the images, each with its negative; they are fixed, their biases learned.

    The filters are the eigenvectors of the patches' second moments, each divided by the root of its eigenvalue: over all
    patches the mean square of its values is about 1 (Page 2018, "How to train your ResNet"). Until `fit` they are those of
    white noise.
    """

    def __init__(self, channels: int, size: int = 2) -> None:
        super().__init__(channels, 2 * channels * size**2, size)
        self.weight.requires_grad_(False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        filters = torch.eye(self.out_channels // 2).view(-1, *self.weight.shape[1:])
        with torch.no_grad():
            self.weight.copy_(torch.cat([filters, -filters]))

    @torch.no_grad()
    def fit(self, pixels: Float[Tensor, "n c h w"]) -> None:
        """Compute the filters from images, as the network gets them."""
        size = self.weight[0].numel()
        products, count = torch.zeros(size, size, dtype=torch.float64), 0
        for batch in pixels.split(FIT_BATCH):
            patches = F.unfold(batch, self.weight.shape[2:]).transpose(1, 2).reshape(-1, size).double()
            products, count = products + patches.T @ patches, count + len(patches)
        moments, directions = torch.linalg.eigh(products / count)
        filters = (directions / (moments + WHITENING_EPSILON).sqrt()).T.reshape(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([filters, -filters]))


class IdentityConv(nn.Conv2d):
    """A 3x3 convolution without bias whose first filters start as the identity of their channel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.dirac_(self.weight.data[: self.in_channels])


class BatchNormWithoutScale(nn.BatchNorm2d):
    """Batch norm with a learned shift, but without a learned scale.

    Its epsilon is torch's, not the published 1e-12: a channel that is constant, as where the images have one, would have
    gradients a million times too large.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=NORM_MOMENTUM)
        self.weight.requires_grad_(False)


class ScaledLinear(nn.Linear):
    """A linear layer without bias whose weights are multiplied by `HEAD_UNIT` over the number of inputs when it is applied."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        with torch.no_grad():
            self.weight.div_(self.weight.std() * HEAD_UNIT)

    def forward(self, input: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        return F.linear(input, self.weight * (HEAD_UNIT / self.in_features))


class DoubleConvBlock(nn.Module):
    """Two convolutions, each with norm and activation, and 2x2 max pooling after the first: half the resolution."""

    def __init__(self, in_channels: int, out_channels: int, *, pool: bool) -> None:
        super().__init__()
        self.conv1 = IdentityConv(in_channels, out_channels)
        self.pool = nn.MaxPool2d(2) if pool else nn.Identity()
        self.norm1 = BatchNormWithoutScale(out_channels)
        self.conv2 = IdentityConv(out_channels, out_channels)
        self.norm2 = BatchNormWithoutScale(out_channels)

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h2 w2"]:
        x = F.gelu(self.norm1(self.pool(self.conv1(x))))
        return F.gelu(self.norm2(self.conv2(x)))


class GlobalMaxPool2d(nn.AdaptiveMaxPool2d):
    """The maximum over a map of any size: [N, C, H, W] -> [N, C, 1, 1].

    A kind of `AdaptiveMaxPool2d`, as which it is counted and drawn; max pooling of the whole map gives the same, faster.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 1 1"]:
        return F.max_pool2d(input, input.shape[2:])


class WhitenedConvnet(nn.Module):
    """The network of Jordan 2024 (arXiv:2404.00498), which learns CIFAR-10 in few passes, for images of any size.

        features.whiten   Conv(C, 8 C, 2x2): fixed, see `WhiteningConv` - GELU       24 x H-1 x W-1 of color images
        features.block1   Conv(24, 64, 3x3, padding 1) - MaxPool 2x2 - Norm - GELU
                          Conv(64, 64, 3x3, padding 1) - Norm - GELU                 64 x (H-1)/2 x (W-1)/2
        features.block2   the same, 256 channels                                    256 x (H-1)/4 x (W-1)/4
        features.block3   the same, 256 channels                                    256 x (H-1)/8 x (W-1)/8
        head              maximum over the map - Linear(256, classes)

    `channels` gives the output channels of each block. A side of 1 pixel is not pooled further.
    """

    def __init__(self, shape: ImageShape, classes: int, channels: StageChannels = (64, 256, 256)) -> None:
        super().__init__()
        check_input_shape(shape)
        require(channels, "model.channels is empty: give at least one number of channels")
        whiten = WhiteningConv(shape[0])
        layers: OrderedDict[str, nn.Module] = OrderedDict(whiten=whiten, activation=nn.GELU())
        side = min(shape[1:]) - 1
        for number, (inputs, outputs) in enumerate(pairwise((whiten.out_channels, *channels)), 1):
            layers[f"block{number}"] = DoubleConvBlock(inputs, outputs, pool=side >= 2)
            side = max(side // 2, 1)
        self.features = nn.Sequential(layers)
        self.head = nn.Sequential(
            OrderedDict(pool=GlobalMaxPool2d(), flatten=nn.Flatten(), linear=ScaledLinear(channels[-1], classes))
        )

    def initialize_from_images(self, pixels: Float[Tensor, "n c h w"]) -> None:
        """Compute the first layer from normalized images of the training set."""
        layer = self.features.get_submodule("whiten")
        assert isinstance(layer, WhiteningConv)
        layer.fit(pixels)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.head(self.features(pixels))
