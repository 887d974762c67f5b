"""3x3 convolutions with a quarter of the multiplications: minimal filtering F(4x4, 3x3) (Lavin & Gray 2016, arXiv:1509.09308).

A tile of 4x4 outputs and the 6x6 inputs that it depends on are transformed so that the convolution is 36 products, where it
was 144. Each of the 36 is a matrix product over the channels. In float32 the result has about ten times the rounding error
of a direct convolution: a few millionths of the largest output.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from convolab.core.torch_functions import Args, Function, FunctionCalls, Kwargs

TILE, INPUT_TILE = 4, 6  # outputs along an axis that are computed together, and the inputs that they depend on
MIN_CHANNELS = 64  # below, the transforms take longer than the products save
CHUNK_VALUES = 1_200_000  # of the transformed images that are worked on at once, so that they stay in the cache

# The transforms along one axis, for the points 0, 1, -1, 2, -2 and infinity.
INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float32,
)
FILTER = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float32
)


class WinogradConvolutions(FunctionCalls):
    """Inside this block convolutions that suit it are computed by minimal filtering, forward and backward.

    These are 3x3 convolutions with a stride of 1, without dilation or groups, from at least 64 channels to at least 64, in
    float32 on a processor, where gradients are wanted and the tiles are full enough: see `worthwhile_fill`. All others
    are torch's.

    >>> pixels, layer = torch.zeros(2, 64, 8, 8), torch.nn.Conv2d(64, 64, 3, padding=1)
    >>> with WinogradConvolutions():
    ...     output = layer(pixels)
    >>> output.shape, "Winograd" in str(output.grad_fn.next_functions)
    (torch.Size([2, 64, 8, 8]), True)
    """

    def on_function(self, function: Function, args: Args, kwargs: Kwargs) -> object:
        return (conv2d if function is torch.conv2d else function)(*args, **kwargs)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.conv2d`, by minimal filtering where that suits."""
    pixels_around = {0: 0, 1: 1, 2: 2, "valid": 0, "same": 1}.get(value_of_axes(padding))
    is_plain = (value_of_axes(stride), value_of_axes(dilation), groups) == (1, 1, 1)
    is_plain = is_plain and (bias is None or (bias.dtype == input.dtype and bias.shape == weight.shape[:1]))
    if not is_plain or pixels_around is None or not suits_winograd(input, weight, pixels_around):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    output = WinogradConv2d.apply(input, weight, pixels_around)
    return output if bias is None else output + bias[:, None, None]


def value_of_axes(value: int | str | Sequence[int]) -> int | str | None:
    """What both axes have; None if they differ, and for what only torch knows.

    >>> value_of_axes((1, 1)), value_of_axes((1, 2)), value_of_axes("same")
    (1, None, 'same')
    """
    if isinstance(value, int | str):
        return value
    axes: set[int] = set(value) if isinstance(value, list | tuple) and len(value) <= 2 else set()
    return axes.pop() if len(axes) == 1 else None


def suits_winograd(input: Tensor, weight: Tensor, pixels_around: int) -> bool:
    """Whether minimal filtering computes a convolution of these, and is worth it."""
    is_float32 = input.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    is_on_cpu = input.device.type == weight.device.type == "cpu"
    if not (is_float32 and is_on_cpu and weight.requires_grad and torch.is_grad_enabled()):
        return False
    out_channels, in_channels, *kernel_size = weight.shape
    if input.ndim != 4 or kernel_size != [3, 3] or min(in_channels, out_channels) < MIN_CHANNELS:
        return False
    tiling = Tiling(input.shape[2], input.shape[3], pixels_around)
    is_empty = min(tiling.out_height, tiling.out_width) < 1
    return not is_empty and tiling.fill >= worthwhile_fill(in_channels, out_channels)


def worthwhile_fill(in_channels: int, out_channels: int) -> float:
    """The fraction of the tiles' outputs that must be wanted ones, so that minimal filtering is as fast as a convolution.

    Its products are a quarter of a convolution's, but take a little longer each; the transforms of the inputs and the
    outputs weigh less where there are more channels on the other side. The numbers were measured with square images of 1
    to 31 pixels and 64, 128 and 256 channels.

    >>> worthwhile_fill(64, 64), worthwhile_fill(64, 256), worthwhile_fill(256, 256)
    (0.8, 0.6125, 0.425)
    """
    return 0.3 + 16 / in_channels + 16 / out_channels


@dataclass(frozen=True)
class Tiling:
    """How images [N, H, W, C] are cut into tiles, and put together again."""

    height: int
    width: int
    padding: int

    @property
    def out_height(self) -> int:
        return self.height + 2 * self.padding - 2

    @property
    def out_width(self) -> int:
        return self.width + 2 * self.padding - 2

    @property
    def rows(self) -> int:
        """Tiles from top to bottom; the last may reach past the output."""
        return -(-self.out_height // TILE)

    @property
    def columns(self) -> int:
        return -(-self.out_width // TILE)

    @property
    def fill(self) -> float:
        """The fraction of the tiles' outputs that are within the output."""
        return self.out_height * self.out_width / (TILE**2 * self.rows * self.columns)

    def chunks(self, count: int, channels: int) -> Iterator[slice]:
        """So many images at a time as are worked on at once."""
        size = max(1, CHUNK_VALUES // (INPUT_TILE**2 * self.rows * self.columns * channels))
        return (slice(start, min(start + size, count)) for start in range(0, count, size))

    def input_tiles(self, images: Float[Tensor, "n h w c"]) -> Float[Tensor, "36 values"]:
        """The 36 pixels of each tile, which overlap: [6 * 6, N * tiles * C]."""
        bottom = TILE * self.rows + 2 - self.height - self.padding
        right = TILE * self.columns + 2 - self.width - self.padding
        padded = F.pad(images, (0, 0, self.padding, right, self.padding, bottom))
        tiles = padded.unfold(1, INPUT_TILE, TILE).unfold(2, INPUT_TILE, TILE)  # [N, rows, columns, C, 6, 6]
        return tiles.permute(4, 5, 0, 1, 2, 3).reshape(INPUT_TILE**2, -1)

    def output_tiles(self, outputs: Float[Tensor, "n h2 w2 k"]) -> Float[Tensor, "16 values"]:
        """The 16 pixels of each tile, zeros past the border: [4 * 4, N * tiles * K]."""
        n, _, _, channels = outputs.shape
        below, right = TILE * self.rows - self.out_height, TILE * self.columns - self.out_width
        padded = F.pad(outputs, (0, 0, 0, right, 0, below)) if below or right else outputs
        tiles = padded.reshape(n, self.rows, TILE, self.columns, TILE, channels)
        return tiles.permute(2, 4, 0, 1, 3, 5).reshape(TILE**2, -1)

    def join_outputs(self, tiles: Float[Tensor, "16 values"], n: int) -> Float[Tensor, "n h2 w2 k"]:
        """The inverse of `output_tiles`."""
        pixels = tiles.view(TILE, TILE, n, self.rows, self.columns, -1).permute(2, 3, 0, 4, 1, 5)
        whole = pixels.reshape(n, TILE * self.rows, TILE * self.columns, -1)
        return whole[:, : self.out_height, : self.out_width]

    def add_inputs(self, tiles: Float[Tensor, "36 values"], n: int) -> Float[Tensor, "n h w c"]:
        """The sum over the tiles of each pixel: the transpose of `input_tiles`."""
        parts = tiles.view(INPUT_TILE, INPUT_TILE, n, self.rows, self.columns, -1)
        sums = tiles.new_zeros(n, TILE * (self.rows + 1), TILE * (self.columns + 1), parts.shape[-1])
        grid = sums.view(n, self.rows + 1, TILE, self.columns + 1, TILE, -1).permute(2, 4, 0, 1, 3, 5)
        here, next_one = slice(None, -1), slice(1, None)  # the last two pixels of a tile are the next one's first
        grid[:, :, :, here, here] = parts[:TILE, :TILE]
        grid[:2, :, :, next_one, here] += parts[TILE:, :TILE]
        grid[:, :2, :, here, next_one] += parts[:TILE, TILE:]
        grid[:2, :2, :, next_one, next_one] += parts[TILE:, TILE:]
        top, left = self.padding, self.padding
        return sums[:, top : top + self.height, left : left + self.width]


def along_both_axes(transform: Tensor, tiles: Float[Tensor, "s values"]) -> Float[Tensor, "t values"]:
    """Transform the rows and the columns of tiles [side * side, values]."""
    size, side = transform.shape
    rows = torch.mm(transform, tiles.reshape(side, -1)).view(size, side, -1)
    return torch.bmm(transform.expand(size, size, side), rows).view(size * size, -1)


class WinogradConv2d(torch.autograd.Function):
    """A 3x3 convolution of stride 1: images [N, C, H, W] and weights [K, C, 3, 3] -> [N, K, H', W'], H' = H + 2 padding - 2.

    The transformed images are kept for the gradient of the weights: 2.25 times the images, and more where the sides are
    not multiples of 4.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, padding: int) -> Tensor:  # noqa: ANN401 (torch's)
        tiling = Tiling(images.shape[2], images.shape[3], padding)
        (n, channels), filters = images.shape[:2], weight.shape[0]
        pixels = images.permute(0, 2, 3, 1)
        kernels = along_both_axes(FILTER, weight.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, channels, filters)
        outputs = images.new_empty(n, tiling.out_height, tiling.out_width, filters)
        kept = []
        for chunk in tiling.chunks(n, max(channels, filters)):
            inputs = along_both_axes(INPUT, tiling.input_tiles(pixels[chunk])).view(INPUT_TILE**2, -1, channels)
            products = torch.bmm(inputs, kernels).view(INPUT_TILE**2, -1)
            outputs[chunk] = tiling.join_outputs(along_both_axes(OUTPUT, products), chunk.stop - chunk.start)
            kept.append(inputs)
        ctx.save_for_backward(kernels, *kept)
        ctx.tiling, ctx.shape = tiling, (n, channels, filters)
        return outputs.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable  # whose result has no names of its parameters:
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401 (torch's)
        *gradients: Tensor,
    ) -> tuple[Tensor | None, Tensor, None]:
        kernels, *kept = ctx.saved_tensors
        tiling, (n, channels, filters) = ctx.tiling, ctx.shape
        of_outputs = gradients[0].permute(0, 2, 3, 1)
        of_kernels = torch.zeros_like(kernels)
        of_images = of_outputs.new_empty(n, tiling.height, tiling.width, channels) if ctx.needs_input_grad[0] else None
        for chunk, inputs in zip(tiling.chunks(n, max(channels, filters)), kept, strict=True):
            tiles = along_both_axes(OUTPUT.T, tiling.output_tiles(of_outputs[chunk]))
            of_products = tiles.view(INPUT_TILE**2, -1, filters)
            of_kernels.baddbmm_(inputs.transpose(1, 2), of_products)
            if of_images is not None:
                of_inputs = torch.bmm(of_products, kernels.transpose(1, 2)).view(INPUT_TILE**2, -1)
                of_images[chunk] = tiling.add_inputs(along_both_axes(INPUT.T, of_inputs), chunk.stop - chunk.start)
        of_weight = along_both_axes(FILTER.T, of_kernels.view(INPUT_TILE**2, -1)).view(3, 3, channels, filters)
        return None if of_images is None else of_images.permute(0, 3, 1, 2), of_weight.permute(3, 2, 0, 1), None
