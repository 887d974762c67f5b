"""The one pixel contract: a network takes pixels in [0, 1], and everything it wants done to them is inside."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from convolab.core.errors import require
from convolab.data import image_io
from convolab.models.class_names import Synonyms, find_class


class ImageClassifier(nn.Module):
    """A network that takes `[0, 1]` pixels [N, C, H, W] and gives logits [N, classes].

    Normalisation by each channel's `mean` and `std` happens inside, so training, saliency, attacks and saved files agree
    on what a pixel is. `size` is the height and width it was made for; `interpolation` and `crop` say how a photo is brought to
    that size, see `photo.fit`. `synonyms` are other words for each class.

    A `strict` network, as `pretrained` gives, refuses in evaluation what breaks the contract; while it is trained nothing is
    checked, nor by `respond`, which lenses call when they leave the range on purpose.

    >>> net = PixelNet(nn.Flatten(), mean=(0.5,), std=(0.25,), size=(1, 2), classes=("dark", "light"))
    >>> net(torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[-2.,  2.]])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        input_size: tuple[int, int],
        classes: Sequence[str],
        synonyms: Synonyms = (),
        interpolation: image_io.Interpolation = "bilinear",
        crop_fraction: float | None = None,
        validate_inputs: bool = False,
    ) -> None:
        super().__init__()
        require(
            len(mean) == len(std) and all(s >= 0 for s in std),
            f"means {list(mean)} and standard deviations {list(std)} do not fit: give one of each a channel",
        )
        self.network = network
        self.mean, self.std, self.input_size, self.classes = tuple(mean), tuple(std), tuple(input_size), tuple(classes)
        self.synonyms, self.interpolation, self.crop_fraction, self.validate_inputs = (
            synonyms,
            interpolation,
            crop_fraction,
            validate_inputs,
        )
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
        if self.validate_inputs and not self.training:
            self.check_pixels(pixels)
        return self.forward_unchecked(pixels)

    def forward_unchecked(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The logits of any pixels, in range or not."""
        # Spread over one whole picture in the pixels' own layout, both factors run along with the batch: five times faster
        # than three of them broadcast over every pixel.
        layout = (
            torch.channels_last if pixels.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        scale, shift = (
            t.expand(1, *pixels.shape[1:]).contiguous(memory_format=layout) for t in (self.scale, self.shift)
        )
        return self.network(torch.addcmul(shift, pixels, scale))

    def check_pixels(self, pixels: Tensor, *, require_input_size: bool = False) -> None:
        """Raise LabError unless these are pixels for this network: floats [N, C, H, W] in [0, 1], of its `own_size` if so wanted."""
        expected_shape = f"[pictures, {self.channels}, {self.input_size[0]}, {self.input_size[1]}]"
        actual_shape = list(pixels.shape)
        require(
            pixels.is_floating_point(),
            f"pixels are {str(pixels.dtype).removeprefix('torch.')}: give floats in [0, 1], which are bytes / 255",
        )
        require(
            pixels.ndim == 4 and pixels.shape[1] == self.channels and pixels.numel(),
            f"pixels have the shape {actual_shape}: give {expected_shape}",
        )
        require(
            not require_input_size or tuple(pixels.shape[2:]) == self.input_size,
            f"pictures are {actual_shape[2]} x {actual_shape[3]}: give {expected_shape}, or use fit(photo)",
        )
        if pixels.is_meta:
            return
        low, high = (float(bound) for bound in pixels.detach().aminmax())
        require(low == low, "pixels hold NaN: give floats in [0, 1]")
        require(low >= 0 and high <= 1, f"pixels run from {low:.4g} to {high:.4g}: give floats in [0, 1]")

    def preprocess(
        self, photo: UInt8[Tensor, "c h w"]
    ) -> Float[Tensor, "1 {self.channels} {self.size[0]} {self.size[1]}"]:
        """A photo as this network wants to see it: resized, its centre cropped, in [0, 1]."""
        resized = image_io.resize_and_center_crop(
            photo, self.input_size, self.channels, interpolation=self.interpolation, crop=self.crop_fraction
        )
        return resized.unsqueeze(0) / 255

    def crop_region(self, photo: UInt8[Tensor, "c h w"]) -> tuple[float, float, float, float]:
        """The part of a photo that `fit` shows: left, top, right, bottom in the photo's pixels."""
        return image_io.crop_region(tuple(photo.shape[1:]), self.input_size, self.crop_fraction)

    def find_class(self, query: str | int) -> int:
        """The index of the class a person means, by name, unambiguous beginning, index or synonym; see `classes.find_class`."""
        return find_class(query, self.classes, self.synonyms)


@contextmanager
def frozen_eval(net: nn.Module) -> Iterator[None]:
    """Look through a network without leaving a trace: it is in evaluation mode and its parameters take no gradients meanwhile.

    Each module's mode and each parameter's wish for gradients are put back, whatever happens; gradients that lie there stay.

    >>> net = nn.Dropout()
    >>> with undisturbed(net): inside = net.training
    >>> inside, net.training
    (False, True)
    """
    modes = [(module, module.training) for module in net.modules()]
    requires_grad_flags = [(parameter, parameter.requires_grad) for parameter in net.parameters()]
    try:
        net.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, required_grad in requires_grad_flags:
            parameter.requires_grad_(required_grad)
