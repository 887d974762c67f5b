"""How large a network sees a picture."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.errors import require
from convolab.data import image_io
from convolab.models.classifier import ImageClassifier

MAX_INPUT_PIXELS = 6_000_000  # pixels of a picture that a network looks at: lite0 takes 2 GB for them


@dataclass(frozen=True)
class InputScale:
    """How large a network sees a picture: `factor` times its own size, or `shorter` pixels along its shorter side."""

    factor: float | None = None
    shorter_side: int | None = None

    def scaled_size(self, original_size: tuple[int, int]) -> tuple[int, int]:
        """
        >>> Scale(shorter=448).size((480, 640)), Scale(0.5).size((480, 640))
        ((448, 597), (240, 320))
        """
        factor = self.factor or self.shorter_side / min(original_size)
        return max(1, round(factor * original_size[0])), max(1, round(factor * original_size[1]))

    def prepare_input(
        self, net: ImageClassifier, image: UInt8[Tensor, "c h w"]
    ) -> Float[Tensor, "1 channels rows columns"]:
        """The whole photo at this scale as pixels for a network. Raises LabError for more than MAX_INPUT."""
        size = self.scaled_size(tuple(image.shape[1:]))
        require(
            size[0] * size[1] <= MAX_INPUT_PIXELS,
            f"at scale {self} the network would see {size[1]} x {size[0]} pixels, more than {MAX_INPUT_PIXELS:,}: give a smaller --scale, such as 1000px",
        )
        resized = image_io.resize_image(image, size, net.channels, interpolation=net.interpolation).unsqueeze(0) / 255
        return resized.to(net.scale).contiguous(memory_format=torch.channels_last)

    def __str__(self) -> str:
        return f"{self.shorter_side}px" if self.shorter_side else f"{self.factor:g}"


def parse_scales(text: str) -> tuple[InputScale, ...]:
    """Scales with commas between them: a factor, or the shorter side in pixels.

    >>> [str(scale) for scale in find_scales("1, 0.5,448px")]
    ['1', '0.5', '448px']
    """
    parsed = []
    for word in (part.strip() for part in text.split(",")):
        try:
            scale = InputScale(shorter_side=int(word[:-2])) if word.endswith("px") else InputScale(factor=float(word))
        except ValueError:
            scale = InputScale(factor=0.0)
        value = scale.shorter_side if scale.shorter_side is not None else scale.factor
        require(
            0 < value < math.inf, f"'{word}' is no scale: give a factor such as 0.5, or the shorter side such as 448px"
        )
        parsed.append(scale)
    return tuple(dict.fromkeys(parsed))
