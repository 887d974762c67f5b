"""Translation equivariance and invariance of layers, measured: shift the input and compare the outputs."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convolab.core.rng import isolated_rng, make_generator
from convolab.core.stats import Interval, mean_interval
from convolab.data.image_io import SAMPLE_IMAGES, read_image, resize_and_center_crop
from convolab.models.registry import initialize_weights
from convolab.models.zoo import SimpleConvnet

IMAGE_SIZE = 32  # pixels
# A fraction of an output's magnitude; a float64 sum of 1,000 products changes by less when its order changes.
ROUNDING_TOLERANCE = 1e-12
ZERO_PADDED_CONV = "convolution 3x3, zero padding"
LAYERS_ON_PHOTOS = (  # what is measured on photos too
    ZERO_PADDED_CONV,
    "max pooling 2x2, stride 2",
    "average pooling 2x2, stride 2",
    "blur 3x3, then stride 2",
    "convolution 3x3, circular padding, stride 2",
)
WEIGHT_DRAWS = 50  # random weights of each of these


@dataclass(frozen=True)
class NamedLayer:
    """A layer to measure, with its name on the sheet."""

    name: str
    module: nn.Module
    stride: int  # input pixels to one output pixel; IMAGE_SIZE for a layer whose output has no spatial position


@dataclass(frozen=True)
class EquivarianceMeasurement:
    """How far a layer is from equivariant under one shift."""

    layer: str
    stride: int
    shift: int  # input pixels, to the right; circular
    relative_error: float  # norm of the difference from the shifted output, relative to the output minus its mean
    changed_fraction: float  # fraction of the output's values that differ


@dataclass(frozen=True)
class ImageComparison:
    """The error of a layer under a shift by 1 on random pixels and on photos, over several draws of its weights."""

    layer: str
    on_random: Interval
    on_photos: Interval
    difference: Interval  # photos minus random pixels, draw by draw
    num_larger_on_photos: int  # of the draws


class BlurPool(nn.Module):
    """Each channel smoothed by the binomial filter (1, 2, 1) / 4 along both sides, circularly, then every second pixel.

    Zhang 2019, arXiv:1904.11486.
    """

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        tap = torch.tensor([1.0, 2, 1], dtype=x.dtype) / 4
        kernel = (tap[:, None] * tap).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), kernel, stride=2, groups=x.shape[1])


class FullyConnectedLayer(nn.Module):
    """Each output pixel is a weighted sum of all input pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(IMAGE_SIZE**2, IMAGE_SIZE**2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return self.linear(x.flatten(2)).view(x.shape)


def layers_to_measure(seed: int = 0, names: Collection[str] | None = None) -> list[NamedLayer]:
    """The layers to measure, in float64; the seed decides their random weights. `names` chooses some of them."""

    def conv3x3(padding_mode: Literal["zeros", "circular"] = "zeros", stride: int = 1) -> nn.Module:
        return nn.Conv2d(1, 4, 3, padding=1, padding_mode=padding_mode, stride=stride)

    cases: list[tuple[str, Callable[[], nn.Module], int]] = [
        ("convolution 3x3, circular padding", lambda: conv3x3(padding_mode="circular"), 1),
        (ZERO_PADDED_CONV, conv3x3, 1),
        ("ReLU", nn.ReLU, 1),
        ("batch norm", lambda: nn.BatchNorm2d(1), 1),
        (
            "max pooling 3x3, stride 1, circular padding",
            lambda: nn.Sequential(nn.CircularPad2d(1), nn.MaxPool2d(3, stride=1)),
            1,
        ),
        ("max pooling 2x2, stride 2", lambda: nn.MaxPool2d(2), 2),
        ("average pooling 2x2, stride 2", lambda: nn.AvgPool2d(2), 2),
        ("blur 3x3, then stride 2", BlurPool, 2),
        ("convolution 3x3, circular padding, stride 2", lambda: conv3x3(padding_mode="circular", stride=2), 2),
        ("convolution 3x3, circular padding, stride 4", lambda: conv3x3(padding_mode="circular", stride=4), 4),
        ("features of simple_convnet", lambda: simple_convnet_features("zeros"), 8),
        ("the same with circular padding", lambda: simple_convnet_features("circular"), 8),
        ("global average pooling", lambda: nn.AdaptiveAvgPool2d(1), IMAGE_SIZE),
        ("fully-connected", FullyConnectedLayer, 1),
    ]
    layers = []
    with isolated_rng():
        for name, make, stride in cases:
            if names is None or name in names:
                layer = make().double().eval()
                initialize_weights(layer, seed)
                layers.append(NamedLayer(name, layer, stride))
    return layers


def simple_convnet_features(padding_mode: Literal["zeros", "circular"]) -> nn.Module:
    """The convolutional stages of simple_convnet (total stride 8), padded with zeros or circularly."""
    features = SimpleConvnet((1, IMAGE_SIZE, IMAGE_SIZE), 10).features
    for layer in features.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = padding_mode
    return features


def random_images(seed: int = 0) -> Float[Tensor, "n 1 h w"]:
    """Random pixels, uniform in [0, 1]: neighboring pixels are independent."""
    return torch.rand(8, 1, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.float64, generator=make_generator(seed, "equivariance"))


def sample_photos() -> Float[Tensor, "n 1 h w"]:
    """The bundled sample photos in gray, their centers resized."""
    size = (IMAGE_SIZE, IMAGE_SIZE)
    images = [resize_and_center_crop(read_image(name), size, channels=1) for name in SAMPLE_IMAGES]
    return torch.stack(images).double() / 255


@torch.inference_mode()
def equivariance_residual(
    named_layer: NamedLayer, x: Float[Tensor, "n c h w"], shift: int
) -> Float[Tensor, "n c2 h2 w2"]:
    """The output of the shifted input minus the shifted output, which is 0 for an equivariant layer.

    A shift that is not a multiple of the stride would be a fraction of an output pixel; the better of the
    two nearest whole output pixels is used. Shifts are circular, so that no image loses a pixel.
    """
    y, output_of_shifted = named_layer.module(x), named_layer.module(x.roll(shift, -1))
    output_shifts = {math.floor(shift / named_layer.stride), math.ceil(shift / named_layer.stride)}
    return min((output_of_shifted - y.roll(k, -1) for k in output_shifts), key=lambda d: d.norm().item())


@torch.inference_mode()
def measure_equivariance(named_layer: NamedLayer, x: Float[Tensor, "n c h w"], shift: int) -> EquivarianceMeasurement:
    """How far a layer is from equivariant under one shift.

    >>> pooling = NamedLayer("pooling", nn.MaxPool2d(2), 2)
    >>> [measure_equivariance(pooling, random_images(), shift).relative_error > 0 for shift in (1, 2)]
    [True, False]
    """
    y, residual = named_layer.module(x), equivariance_residual(named_layer, x, shift)
    reference_norm = (y - y.mean((-2, -1), keepdim=True)).norm() if y.shape[-1] > 1 else y.norm()
    is_changed = residual.abs() > ROUNDING_TOLERANCE * y.abs().max()
    return EquivarianceMeasurement(
        named_layer.name,
        named_layer.stride,
        shift,
        (residual.norm() / reference_norm).item(),
        is_changed.double().mean().item(),
    )


def measure_all_layers(seed: int = 0, shifts: tuple[int, ...] = tuple(range(9))) -> list[EquivarianceMeasurement]:
    """Every layer under every shift."""
    x = random_images(seed)
    return [measure_equivariance(layer, x, shift) for layer in layers_to_measure(seed) for shift in shifts]


def compare_on_photos(seed: int = 0, draws: int = WEIGHT_DRAWS) -> list[ImageComparison]:
    """The layers of `LAYERS_ON_PHOTOS` on random pixels and on photos, for several draws of their weights."""
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in LAYERS_ON_PHOTOS}
    images = (random_images(seed), sample_photos())
    for draw in range(seed, seed + draws):
        for layer in layers_to_measure(draw, LAYERS_ON_PHOTOS):
            on_random, on_photos = (measure_equivariance(layer, x, 1).relative_error for x in images)
            errors[layer.name].append((on_random, on_photos))
    comparisons = []
    for name, pairs in errors.items():
        on_random, on_photos = zip(*pairs, strict=True)
        difference = [photo - random for random, photo in pairs]
        num_larger = sum(value > 0 for value in difference)
        comparisons.append(
            ImageComparison(
                name, mean_interval(on_random), mean_interval(on_photos), mean_interval(difference), num_larger
            )
        )
    return comparisons
