"""Test-time views: the logits of an image averaged over copies of it that show the same."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from convolab.training.transforms import ReflectCrop


class AveragedViews(nn.Module):
    """A network whose logits are averaged over 2 or 6 views of each image.

    Two are the image and its mirror image. Six are also those of the image shifted up left and down right by one pixel,
    mirrored at its edge; the two that are not shifted have half of the weight (Jordan 2024, arXiv:2404.00498).

    Args:
        net: takes pixels [N, C, H, W] and gives logits [N, classes]; it is called `views` times.
        views: 2 or 6.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, 3.0]]))
    >>> AveragedViews(net, 2)(torch.tensor([[[[1.0, 0.0]]]]))
    tensor([[2.]], grad_fn=<MulBackward0>)
    """

    def __init__(self, net: nn.Module, views: int) -> None:
        super().__init__()
        self.net = net
        self.views = views

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        # A view of channels-last pixels is not contiguous, and convolutions of it are slow.
        is_channels_last = pixels.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_channels_last else torch.contiguous_format

        def both_sides(view: Tensor) -> Tensor:
            original, mirrored = (side.contiguous(memory_format=layout) for side in (view, view.flip(3)))
            return 0.5 * (self.net(original) + self.net(mirrored))

        unshifted = both_sides(pixels)
        if self.views == 2:
            return unshifted
        padded = ReflectCrop(1).pad(pixels)
        return 0.5 * unshifted + 0.25 * (both_sides(padded[:, :, :-2, :-2]) + both_sides(padded[:, :, 2:, 2:]))
