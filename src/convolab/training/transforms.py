"""Random transforms of the training images, a whole batch at once on the tensors.

A recipe names them in order, with an optional strength: `augment = ["crop:4", "flip", "mixup:0.2"]`. Each takes the
batch and a generator, and draws for every image separately. Those that only move pixels work on
uint8 images as well as on [0, 1] pixels; the others get [0, 1] pixels. One that goes on from epoch to epoch takes the
batch's origin instead of the generator.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Generator, Tensor

from convolab.core.rng import make_generator

AnyPixels = Shaped[Tensor, "n c h w"]
ResizedPixels = Shaped[Tensor, "n c h2 w2"]
Targets = Int64[Tensor, "n"] | Float[Tensor, "n classes"]  # labels, or a probability for each class


@dataclass(frozen=True)
class BatchOrigin:
    """Which images of the training set a batch has, and when."""

    indices: Int64[Tensor, "n"]
    set_size: int  # images in the training set
    epoch: int  # from 0
    progress: float  # the part of the training that is done, in [0, 1)
    seed: int  # of the training


@dataclass(frozen=True)
class RandomCrop:
    """Pad by `padding` black pixels on every side, then crop to the old size at a uniformly random offset."""

    padding: int = 4
    valid_range: ClassVar = (1, 32)
    supports_uint8: ClassVar = True

    def __call__(self, pixels: AnyPixels, generator: Generator) -> AnyPixels:
        n, c, h, w = pixels.shape
        p = self.padding
        padded = self.pad(pixels).contiguous()  # floats may be channels last, and rows are sliced below
        y, x = torch.randint(2 * p + 1, (2, n, 1, 1), generator=generator)
        # Row i of `rows` is the w pixels from position i on, so each row of each crop is one copy of adjacent bytes.
        rows = padded.as_strided((padded.numel() - w + 1, w), (1, 1))
        offsets = row_offsets(n, c, h, h + 2 * p, w + 2 * p) + (y * (w + 2 * p) + x)  # [N, C, H]
        return rows.index_select(0, offsets.view(-1).to(pixels.device)).view(n, c, h, w)

    def pad(self, pixels: AnyPixels) -> ResizedPixels:
        return F.pad(pixels, (self.padding,) * 4)


@dataclass(frozen=True)
class ReflectCrop(RandomCrop):
    """As `RandomCrop`, but the padding mirrors the image at its edge, whose own pixels are not doubled."""

    padding: int = 2

    def pad(self, pixels: AnyPixels) -> ResizedPixels:
        rows, columns = (reflected_indices(side, self.padding).to(pixels.device) for side in pixels.shape[2:])
        return pixels.index_select(2, rows).index_select(3, columns)


def reflected_indices(side: int, padding: int) -> Int64[Tensor, "padded"]:
    """Which pixel of a line stands where when it goes on, mirrored at its ends again and again.

    >>> reflected_indices(4, 2).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    period = max(1, 2 * (side - 1))
    positions = torch.arange(-padding, side + padding) % period
    return torch.minimum(positions, period - positions)


@lru_cache(maxsize=4)  # a training needs those of its batch and of its last batch; they are only read
def row_offsets(n: int, c: int, crop_height: int, height: int, width: int) -> Int64[Tensor, "n c rows"]:
    """Where the first rows of each channel of each image begin in [N, C, height, width] pixels."""
    return torch.arange(n * c).view(n, c, 1) * (height * width) + torch.arange(crop_height) * width


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror left to right, each image with this probability."""

    probability: float = 0.5
    valid_range: ClassVar = (0.0, 1.0)
    supports_uint8: ClassVar = True

    def __call__(self, pixels: AnyPixels, generator: Generator) -> AnyPixels:
        return mirror_chosen(pixels, torch.rand(len(pixels), generator=generator) < self.probability)


@dataclass(frozen=True)
class AlternatingFlip:
    """Mirror each image left to right in every second epoch; which half begins mirrored is random.

    Jordan 2024, arXiv:2404.00498: in two epochs a network sees both sides of each image once, which chance seldom gives.
    """

    valid_range: ClassVar = None
    supports_uint8: ClassVar = True

    def __call__(self, pixels: AnyPixels, origin: BatchOrigin) -> AnyPixels:
        mirrored = first_mirrored(origin.seed, origin.set_size)[origin.indices] ^ (origin.epoch % 2 == 1)
        return mirror_chosen(pixels, mirrored)


@lru_cache(maxsize=2)  # the whole set's, at each step; they are only read
def first_mirrored(seed: int, set_size: int) -> Bool[Tensor, "images"]:
    """Which images are mirrored in the first epoch: half of them, on average."""
    return torch.rand(set_size, generator=make_generator(seed, "alternating flip")) < 0.5


def mirror_chosen(pixels: AnyPixels, mirrored: Bool[Tensor, "n"]) -> AnyPixels:
    """The images, those mirrored left to right that are chosen."""
    n = len(pixels)
    # Choosing whole images from both is one copy per image, four times faster than torch.where.
    return torch.cat([pixels, pixels.flip(3)]).index_select(0, (torch.arange(n) + n * mirrored).to(pixels.device))


@dataclass(frozen=True)
class Progressive:
    """Resize the images to a fraction of their sides at first, which grows to 1 while the training goes on.

    The fractions `start` and `later` follow one another, each for an equal part of the first four fifths of the training; without
    `later` the fraction grows by an eighth at a time. In the last fifth the images are as large as they are evaluated.
    Bilinear, antialiased. Howard 2018 (fast.ai, "Training Imagenet in 3 hours"); Tan & Le 2021, arXiv:2104.00298. Steps on
    small images take less time.
    """

    start: float = 0.75
    later: tuple[float, ...] = ()
    valid_range: ClassVar = (0.1, 0.99)
    supports_uint8: ClassVar = False

    def __call__(self, pixels: AnyPixels, origin: BatchOrigin) -> ResizedPixels:
        height, width = pixels.shape[2:]
        size = self.size(height, width, origin.progress)
        if size == (height, width):
            return pixels
        return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False).clamp_(0, 1)

    def size(self, height: int, width: int, progress: float) -> tuple[int, int]:
        """The size of the images after this part of the training, in pixels.

        >>> [Progressive(0.75).size(32, 48, progress) for progress in (0, 0.39, 0.41, 0.79, 0.81)]
        [(24, 36), (24, 36), (28, 42), (28, 42), (32, 48)]
        >>> [Progressive(0.25, (0.5,)).size(32, 48, progress) for progress in (0, 0.39, 0.41, 0.79, 0.81)]
        [(8, 12), (8, 12), (16, 24), (16, 24), (32, 48)]
        """
        fractions = (self.start, *self.later)
        if not self.later:
            fractions = tuple(self.start + stage / 8 for stage in range(math.ceil((1 - self.start) * 8)))
        stage = int(progress * 1.25 * len(fractions))
        fraction = fractions[stage] if stage < len(fractions) else 1.0
        return max(1, round(height * fraction)), max(1, round(width * fraction))


@dataclass(frozen=True)
class Cutout:
    """Make a square of `side` pixels mid-gray; its center is equally likely anywhere, so it may reach over the edge.

    DeVries & Taylor 2017, arXiv:1708.04552.
    """

    side: int = 8
    valid_range: ClassVar = (1, 512)
    supports_uint8: ClassVar = True

    def __call__(self, pixels: AnyPixels, generator: Generator) -> AnyPixels:
        n, _, h, w = pixels.shape
        top = torch.randint(h, (n,), generator=generator) - self.side // 2
        left = torch.randint(w, (n,), generator=generator) - self.side // 2
        mask = box_mask(top, top + self.side, left, left + self.side, h, w).to(pixels.device)
        return pixels.masked_fill(mask, 0.5 if pixels.is_floating_point() else 128)


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, then contrast, then saturation, each by a factor uniform in [1 - strength, 1 + strength]."""

    strength: float = 0.2
    valid_range: ClassVar = (0.0, 1.0)
    supports_uint8: ClassVar = False

    def __call__(self, pixels: AnyPixels, generator: Generator) -> AnyPixels:
        factors = 1 + self.strength * (2 * torch.rand(3, len(pixels), 1, 1, 1, generator=generator) - 1)
        brightness, contrast, saturation = factors.to(pixels.device).unbind()
        pixels = (pixels * brightness).clamp_(0, 1)
        pixels = torch.lerp(luma(pixels).mean((2, 3), keepdim=True).expand_as(pixels), pixels, contrast).clamp_(0, 1)
        return torch.lerp(luma(pixels).expand_as(pixels), pixels, saturation).clamp_(0, 1)


def luma(pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """Luma (perceived brightness) by ITU-R BT.601; of grayscale images the pixels themselves."""
    if pixels.shape[1] == 1:
        return pixels
    return (pixels * pixels.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


@dataclass(frozen=True)
class RandomRotation:
    """Rotate about the center by an angle uniform in [-degrees, degrees]; bilinear, edges mirrored."""

    degrees: float = 10.0
    valid_range: ClassVar = (0.0, 180.0)
    supports_uint8: ClassVar = False

    def __call__(self, pixels: AnyPixels, generator: Generator) -> AnyPixels:
        n, _, h, w = pixels.shape
        angle = torch.deg2rad(self.degrees * (2 * torch.rand(n, generator=generator) - 1)).to(pixels.device)
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # affine_grid's coordinates run from -1 to 1 on both axes, so a rotation has the ratio of the sides in it.
        theta = torch.stack([cos, -sin * h / w, zero, sin * w / h, cos, zero], dim=1).view(n, 2, 3)
        grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
        return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@dataclass(frozen=True)
class MixUp:
    """Blend every image with another of the batch, and their labels with the same weight, lambda ~ Beta(alpha, alpha).

    Zhang et al. 2018, arXiv:1710.09412, but each image draws its own lambda.
    """

    alpha: float = 0.2
    valid_range: ClassVar = (0.01, 100.0)
    supports_uint8: ClassVar = False

    def __call__(
        self, pixels: AnyPixels, targets: Float[Tensor, "n classes"], generator: Generator
    ) -> tuple[AnyPixels, Float[Tensor, "n classes"]]:
        lam = sample_beta(self.alpha, len(pixels), generator).to(pixels.device)
        permutation = torch.randperm(len(pixels), generator=generator)
        pixels = torch.lerp(pixels[permutation], pixels, lam.view(-1, 1, 1, 1))
        return pixels, torch.lerp(targets[permutation], targets, lam.view(-1, 1))


@dataclass(frozen=True)
class CutMix:
    """Paste a box of another image of the batch into every image; labels are mixed by area.

    Yun et al. 2019, arXiv:1905.04899: the box has the fraction 1 - Beta(alpha, alpha) of the area, and its center is
    equally likely anywhere; what reaches over the edge is cut off and does not count.
    """

    alpha: float = 1.0
    valid_range: ClassVar = (0.01, 100.0)
    supports_uint8: ClassVar = False

    def __call__(
        self, pixels: AnyPixels, targets: Float[Tensor, "n classes"], generator: Generator
    ) -> tuple[AnyPixels, Float[Tensor, "n classes"]]:
        n, _, h, w = pixels.shape
        side = (1 - sample_beta(self.alpha, n, generator)).sqrt()
        y = torch.randint(h, (n,), generator=generator)
        x = torch.randint(w, (n,), generator=generator)
        box_height, box_width = (side * h).round().long(), (side * w).round().long()
        top, left = y - box_height // 2, x - box_width // 2
        mask = box_mask(top, top + box_height, left, left + box_width, h, w)
        permutation = torch.randperm(n, generator=generator)
        lam = 1 - mask.float().mean((1, 2, 3))
        pixels = torch.where(mask.to(pixels.device), pixels[permutation], pixels)
        return pixels, torch.lerp(targets[permutation], targets, lam.view(-1, 1).to(pixels.device))


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cut out a random box and resize it to the full size, bilinear and antialiased, each image its own.

    As torchvision's: the box has a fraction of the area uniform in [min_area, 1], and a ratio of its sides log-uniform in
    [3/4, 4/3]; drawn up to ten times until it fits. If none does, the largest box in the center that has such a ratio.
    """

    min_area: float = 0.35
    valid_range: ClassVar = (0.01, 1.0)
    supports_uint8: ClassVar = False

    def __call__(self, pixels: AnyPixels, generator: Generator) -> AnyPixels:
        _, _, h, w = pixels.shape
        top, left, height, width = self.boxes(len(pixels), h, w, generator).unbind(1)
        rows = resize_weights(top, height, h).to(pixels.device)  # [N, H, H]
        columns = resize_weights(left, width, w).to(pixels.device)  # [N, W, W]
        return rows.unsqueeze(1) @ (pixels @ columns.mT.unsqueeze(1))

    def boxes(self, n: int, h: int, w: int, generator: Generator) -> Int64[Tensor, "n 4"]:
        """Top, left, height and width of each image's box, in pixels."""
        area = (
            h * w * (self.min_area + (1 - self.min_area) * torch.rand(n, 10, generator=generator, dtype=torch.float64))
        )
        low, high = math.log(3 / 4), math.log(4 / 3)
        ratio = (low + (high - low) * torch.rand(n, 10, generator=generator, dtype=torch.float64)).exp()
        widths, heights = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        fits = (widths > 0) & (widths <= w) & (heights > 0) & (heights <= h)
        tried = fits.long().argmax(1, keepdim=True)  # the first that fits
        any_fits = fits.any(1)
        width = widths.gather(1, tried)[:, 0].where(any_fits, min(w, round(h * 4 / 3)))
        height = heights.gather(1, tried)[:, 0].where(any_fits, min(h, round(w * 4 / 3)))
        place = torch.rand(2, n, generator=generator, dtype=torch.float64)
        top = (place[0] * (h - height + 1)).long().where(any_fits, (h - height) // 2)
        left = (place[1] * (w - width + 1)).long().where(any_fits, (w - width) // 2)
        return torch.stack([top, left, height, width], 1)


def resize_weights(start: Int64[Tensor, "n"], length: Int64[Tensor, "n"], size: int) -> Float[Tensor, "n size size"]:
    """How much of each pixel of a line is in each pixel of a part of it that is resized to the whole line's size.

    The filter is a triangle over one pixel of the result or of the part, whichever is longer; it ends at the part's ends.
    """
    scale = (length.double() / size).view(-1, 1, 1)
    centers = (torch.arange(size, dtype=torch.float64).view(1, -1, 1) + 0.5) * scale  # of the result, in the part
    positions = torch.arange(size, dtype=torch.float64).view(1, 1, -1) - start.view(-1, 1, 1)
    weights = (1 - (positions + 0.5 - centers).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((positions >= 0) & (positions < length.view(-1, 1, 1)))
    return (weights / weights.sum(2, keepdim=True)).float()


def box_mask(top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, h: int, w: int) -> Shaped[Tensor, "n 1 h w"]:
    """True inside each image's box; what lies outside the image is cut off."""
    y, x = torch.arange(h).view(1, -1, 1), torch.arange(w).view(1, 1, -1)
    top, bottom, left, right = (edge.view(-1, 1, 1) for edge in (top, bottom, left, right))
    return ((y >= top) & (y < bottom) & (x >= left) & (x < right)).unsqueeze(1)


def sample_beta(alpha: float, count: int, generator: Generator) -> Float[Tensor, "n"]:
    """`count` draws from Beta(alpha, alpha).

    NumPy draws them, because torch's own takes no generator; the torch generator seeds NumPy's.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count).astype(np.float32))


Transform = (
    RandomCrop
    | ReflectCrop
    | RandomHorizontalFlip
    | AlternatingFlip
    | Progressive
    | Cutout
    | ColorJitter
    | RandomRotation
    | RandomResizedCrop
    | MixUp
    | CutMix
)
MixingTransform = MixUp | CutMix  # they take the labels too, as probabilities
TimedTransform = AlternatingFlip | Progressive  # they take the batch's origin, instead of the generator
TRANSFORMS: dict[str, type[Transform]] = {
    "crop": RandomCrop,
    "reflect_crop": ReflectCrop,
    "flip": RandomHorizontalFlip,
    "alternating_flip": AlternatingFlip,
    "progressive": Progressive,
    "cutout": Cutout,
    "color": ColorJitter,
    "rotate": RandomRotation,
    "resized_crop": RandomResizedCrop,
    "mixup": MixUp,
    "cutmix": CutMix,
}
RENAMED_TRANSFORMS = {"colour": "color"}  # the first edition's name -> today's


def to_float01(pixels: AnyPixels) -> Float[Tensor, "n c h w"]:
    """uint8 to pixels in [0, 1]; floats pass through."""
    if pixels.is_floating_point():
        return pixels
    return pixels.to(torch.float32).div_(255)
