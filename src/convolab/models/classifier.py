"""The pixel contract: a network takes pixels in [0, 1], and its normalization is part of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from convolab.core.calls import one_line_construction, public_names, unknown_attribute
from convolab.core.errors import require
from convolab.core.types import python_values
from convolab.data import image_io
from convolab.models.class_names import Synonyms, find_class


@one_line_construction
class ImageClassifier(nn.Module):
    """A network that takes `[0, 1]` pixels [N, C, H, W] and gives logits [N, classes].

    Normalization happens inside, so training, saliency, attacks and saved files agree on what a pixel is.

    Args:
        network: takes normalized pixels [N, C, H, W] and gives logits [N, classes].
        mean: of each channel, of pixels in [0, 1].
        std: standard deviation of each channel, of pixels in [0, 1]; a channel whose deviation is 0 is only centered.
        input_size: the height and width that it was trained for, in pixels.
        classes: the class names, in the order of the logits.
        synonyms: other names of each class.
        interpolation: how a photo is resized to `input_size`, see `image_io.resize_and_center_crop`.
        crop_fraction: the side of the center crop as a fraction of the resized photo's shorter side; None for no crop.
        validate_inputs: in evaluation mode, refuse pixels that break the contract, as `pretrained` sets it. In training
            mode nothing is checked, nor by `forward_unchecked`, which inspection methods call when they leave [0, 1]
            on purpose.

    Raises LabError if `mean` and `std` differ in number or a standard deviation is negative.

    >>> net = ImageClassifier(nn.Flatten(), mean=(0.5,), std=(0.25,), input_size=(1, 2), classes=("dark", "light"))
    >>> net(torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[-2.,  2.]])
    """

    _internal_names = frozenset({"check_pixels", "crop_region", "forward_unchecked", "normalize", "scale", "shift"})

    scale: Tensor  # 1 / std, [1, C, 1, 1]
    shift: Tensor  # -mean / std

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
        mean, std = python_values(mean), python_values(std)
        for name, values in (("mean", mean), ("std", std)):
            is_list = isinstance(values, list | tuple) and all(isinstance(value, int | float) for value in values)
            require(is_list, f"{name} = {values!r}: give a number for each channel, such as (0.5, 0.5, 0.5)")
        require(
            len(mean) == len(std) and all(s >= 0 for s in std),
            f"means {list(mean)} and standard deviations {list(std)} differ in number or are negative: "
            "give one mean and one standard deviation >= 0 per channel",
        )
        self.network = network
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.input_size = input_size
        self.classes = tuple(classes)
        self.synonyms = synonyms
        self.interpolation: image_io.Interpolation = interpolation
        self.crop_fraction = crop_fraction
        self.validate_inputs = validate_inputs
        self.caution = ""  # what every finding about it must say, such as that it hardly beats chance
        # As a scale and a shift, so that normalization is one multiply-add over the batch.
        scale = torch.tensor([1 / s if s > 0 else 1.0 for s in std], dtype=torch.float64).view(1, -1, 1, 1)
        shift = -torch.tensor(mean, dtype=torch.float64).view(1, -1, 1, 1) * scale
        self.register_buffer("scale", scale.float(), persistent=False)
        self.register_buffer("shift", shift.float(), persistent=False)

    def __dir__(self) -> list[str]:
        return public_names(self, super().__dir__())

    if not TYPE_CHECKING:  # else every attribute would pass

        def __getattr__(self, name: str) -> object:
            try:
                return super().__getattr__(name)
            except AttributeError:
                if name.startswith("_") or hasattr(type(self), name):
                    raise
                raise unknown_attribute(self, name) from None

    @property
    def channels(self) -> int:
        """The number of channels of its input images."""
        return len(self.mean)

    def forward(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The logits of pixels in [0, 1]. Raises LabError for others, in evaluation mode and with `validate_inputs`."""
        if self.validate_inputs and not self.training:
            self.check_pixels(pixels)
        return self.forward_unchecked(pixels)

    def forward_unchecked(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The logits of any pixels, in range or not."""
        return self.network(self.normalize(pixels))

    def normalize(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """What the network gets of pixels."""
        # Expanded to one full image in the pixels' memory format, both are read along with the batch: five times faster
        # than broadcasting three numbers over every pixel.
        layout = (
            torch.channels_last if pixels.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        )
        scale, shift = (
            t.expand(1, *pixels.shape[1:]).contiguous(memory_format=layout) for t in (self.scale, self.shift)
        )
        return torch.addcmul(shift, pixels, scale)

    def check_pixels(self, pixels: Tensor, *, require_input_size: bool = False) -> None:
        """Raise LabError unless pixels are floats [N, C, H, W] in [0, 1]; with `require_input_size`, of that size."""
        expected_shape = f"[images, {self.channels}, {self.input_size[0]}, {self.input_size[1]}]"
        actual_shape = list(pixels.shape)
        require(
            pixels.is_floating_point(),
            f"pixels are {str(pixels.dtype).removeprefix('torch.')}: give floats in [0, 1] (uint8 / 255)",
        )
        require(
            pixels.ndim == 4 and pixels.shape[1] == self.channels and pixels.numel(),
            f"pixels have shape {actual_shape}: give {expected_shape}",
        )
        require(
            not require_input_size or tuple(pixels.shape[2:]) == self.input_size,
            f"images are {actual_shape[2]} x {actual_shape[3]}: give {expected_shape}, or use preprocess(photo)",
        )
        if pixels.is_meta:
            return
        low, high = (float(bound) for bound in pixels.detach().aminmax())
        require(low == low, "pixels contain NaN: give floats in [0, 1]")
        require(low >= 0 and high <= 1, f"pixels range from {low:.4g} to {high:.4g}: give floats in [0, 1]")

    def preprocess(
        self, photo: UInt8[Tensor, "c h w"]
    ) -> Float[Tensor, "1 {self.channels} {self.input_size[0]} {self.input_size[1]}"]:
        """A photo, resized and center-cropped to this network's input size, as pixels in [0, 1]."""
        resized = image_io.resize_and_center_crop(
            photo, self.input_size, self.channels, interpolation=self.interpolation, crop=self.crop_fraction
        )
        return resized.unsqueeze(0) / 255

    def crop_region(self, photo: UInt8[Tensor, "c h w"]) -> tuple[float, float, float, float]:
        """The region of a photo that `preprocess` keeps: left, top, right, bottom in the photo's pixels."""
        _, height, width = photo.shape
        return image_io.crop_region((height, width), self.input_size, self.crop_fraction)

    def find_class(self, query: str | int) -> int:
        """The index of a class, by name, unambiguous prefix, index or synonym; see `class_names.find_class`."""
        return find_class(query, self.classes, self.synonyms)
