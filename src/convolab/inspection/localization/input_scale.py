"""The size at which a network sees an image."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.data import image_io
from convolab.models.classifier import ImageClassifier

MIN_INPUT_SIDE = 8  # pixels
MAX_FACTOR = 1000
MAX_SHORTER_SIDE = 6000
MAX_INPUT_PIXELS = 6_000_000  # pixels of an image that a network takes: EfficientNet-Lite0 needs 2 GB for them


@dataclass(frozen=True)
class InputScale:
    """The size at which a network sees an image: its own times `factor`, unless `shorter_side` (pixels) is given."""

    factor: float = 1.0
    shorter_side: int | None = None

    def scaled_size(self, original_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width at this scale.

        >>> InputScale(shorter_side=448).scaled_size((480, 640)), InputScale(0.5).scaled_size((480, 640))
        ((448, 597), (240, 320))
        """
        factor = self.shorter_side / min(original_size) if self.shorter_side else self.factor
        return max(1, round(factor * original_size[0])), max(1, round(factor * original_size[1]))

    def require_size(self, original_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width at this scale. Raises LabError for less than MIN_INPUT_SIDE pixels a side, and more than
        MAX_INPUT_PIXELS in all.
        """
        height, width = self.scaled_size(original_size)
        require(
            min(height, width) >= MIN_INPUT_SIDE,
            f"at scale {self} the network would see {width} x {height} pixels: give a larger scale or image, of at least "
            f"{MIN_INPUT_SIDE} pixels a side",
        )
        require(
            height * width <= MAX_INPUT_PIXELS,
            f"at scale {self} the network would see {width} x {height} pixels, more than {MAX_INPUT_PIXELS:,}: "
            "give a smaller scale, such as 1000px",
        )
        return height, width

    def prepare_input(
        self, net: ImageClassifier, image: UInt8[Tensor, "c h w"]
    ) -> Float[Tensor, "1 channels rows columns"]:
        """The image, uncropped, at this scale as pixels in [0, 1]. Raises LabError as `require_size` does."""
        height, width = self.require_size((image.shape[1], image.shape[2]))
        resized = image_io.resize_image(image, (height, width), net.channels, interpolation=net.interpolation)
        pixels = resized.unsqueeze(0) / 255
        return pixels.to(net.scale).contiguous(memory_format=torch.channels_last)

    def __str__(self) -> str:
        return f"{self.shorter_side}px" if self.shorter_side else f"{self.factor:g}"


def parse_scales(text: str) -> tuple[InputScale, ...]:
    """Comma-separated scales: a factor, or the shorter side in pixels; each once.

    Raises LabError for a word that is neither.

    >>> [str(scale) for scale in parse_scales("1, 0.5,448px")]
    ['1', '0.5', '448px']
    """
    return tuple(dict.fromkeys(parse_scale(word.strip()) for word in text.split(",")))


def parse_scale(word: str) -> InputScale:
    try:
        value = int(word[:-2]) if word.endswith("px") else float(word)
    except ValueError:
        value = math.nan
    largest = MAX_SHORTER_SIDE if word.endswith("px") else MAX_FACTOR
    shown = word if len(word) <= 20 else f"{word[:16]}..."
    require(
        0 < value <= largest,
        f"'{shown}' is not a scale: give a factor such as 0.5, at most {MAX_FACTOR}, or the shorter side such as 448px, "
        f"at most {MAX_SHORTER_SIDE}px",
    )
    return InputScale(shorter_side=int(value)) if word.endswith("px") else InputScale(factor=value)
