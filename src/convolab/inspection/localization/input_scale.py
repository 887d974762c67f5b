"""How large a network sees a picture."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from convolab.core.errors import need
from convolab.data import image_io
from convolab.models.classifier import PixelNet

MAX_INPUT = 6_000_000  # pixels of a picture that a network looks at: lite0 takes 2 GB for them


@dataclass(frozen=True)
class Scale:
    """How large a network sees a picture: `factor` times its own size, or `shorter` pixels along its shorter side."""

    factor: float | None = None
    shorter: int | None = None

    def size(self, own: tuple[int, int]) -> tuple[int, int]:
        """
        >>> Scale(shorter=448).size((480, 640)), Scale(0.5).size((480, 640))
        ((448, 597), (240, 320))
        """
        factor = self.factor or self.shorter / min(own)
        return max(1, round(factor * own[0])), max(1, round(factor * own[1]))

    def seen_by(self, net: PixelNet, photo: UInt8[Tensor, "c h w"]) -> Float[Tensor, "1 channels rows columns"]:
        """The whole photo at this scale as pixels for a network. Raises LabError for more than MAX_INPUT."""
        size = self.size(tuple(photo.shape[1:]))
        need(
            size[0] * size[1] <= MAX_INPUT,
            f"at scale {self} the network would see {size[1]} x {size[0]} pixels, more than {MAX_INPUT:,}: give a smaller --scale, such as 1000px",
        )
        seen = image_io.resized(photo, size, net.channels, interpolation=net.interpolation).unsqueeze(0) / 255
        return seen.to(net.scale).contiguous(memory_format=torch.channels_last)

    def __str__(self) -> str:
        return f"{self.shorter}px" if self.shorter else f"{self.factor:g}"


def find_scales(words: str) -> tuple[Scale, ...]:
    """Scales with commas between them: a factor, or the shorter side in pixels.

    >>> [str(scale) for scale in find_scales("1, 0.5,448px")]
    ['1', '0.5', '448px']
    """
    found = []
    for word in (part.strip() for part in words.split(",")):
        try:
            scale = Scale(shorter=int(word[:-2])) if word.endswith("px") else Scale(factor=float(word))
        except ValueError:
            scale = Scale(factor=0.0)
        value = scale.shorter if scale.shorter is not None else scale.factor
        need(
            0 < value < math.inf, f"'{word}' is no scale: give a factor such as 0.5, or the shorter side such as 448px"
        )
        found.append(scale)
    return tuple(dict.fromkeys(found))
