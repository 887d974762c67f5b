"""What a layer costs: outputs, parameters, multiplications and additions, counted on the layer itself.

Convention: a MAC is one multiplication of a weight with an input, and the addition that goes with it. Products with the zeros
of the padding count, because the layer does them; biases and activations do not. FLOPs = 2 x MACs.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convolab.core.errors import LabError, require

SampleShape = tuple[int, ...]


@dataclass(frozen=True)
class LayerCost:
    """What one pass of one input costs."""

    output_shape: SampleShape
    num_parameters: int
    macs: int
    additions: int  # of products, and of the bias where there is one
    activation_evaluations: int  # of sigma, one for each output, if one follows

    @property
    def flops(self) -> int:
        """2 x MACs, as papers count."""
        return 2 * self.macs

    @property
    def arithmetic_operations(self) -> int:
        """Multiplications and additions as they are: a sum of m products takes m - 1 additions."""
        return self.macs + self.additions


def course_layers(
    n: int = 100, features: int = 10, kernel_size: int = 3, bias: bool = False
) -> tuple[nn.Linear, nn.Conv1d]:
    """The question's f and g: a fully-connected and a convolutional layer that give the same number of outputs.

    f = Linear(n -> features n), g = Conv1d(1 -> features, kernel, padding (kernel - 1) / 2). On the meta device, where a
    layer has shapes but no weights, so that they may be as large as one likes.
    Raises LabError for an even kernel, whose output would not be as long as its input.

    >>> course_layers()
    (Linear(in_features=100, out_features=1000, bias=False), Conv1d(1, 10, kernel_size=(3,), stride=(1,), padding=(1,), bias=False))
    """
    require(
        min(n, features, kernel_size) >= 1,
        f"n = {n}, {features} features and a kernel of {kernel_size}: give each at least 1",
    )
    require(
        kernel_size % 2 == 1,
        f"a kernel of {kernel_size} has no middle: give an odd one, so that the output is as long as the input",
    )
    with torch.device("meta"):
        return nn.Linear(n, features * n, bias=bias), nn.Conv1d(
            1, features, kernel_size, padding=kernel_size // 2, bias=bias
        )


def layer_input_shape(layer: nn.Linear | nn.Conv1d, n: int) -> SampleShape:
    """The shape of one input of length n: [n] for a linear layer, [channels, n] for a convolution."""
    return (n,) if isinstance(layer, nn.Linear) else (layer.in_channels, n)


def layer_cost(layer: nn.Linear | nn.Conv1d, n: int) -> LayerCost:
    """The cost of a layer on one input of length n, counted by torch while the layer runs on the meta device.

    Raises LabError if the input does not fit the layer.

    >>> [cost(layer, 100).macs for layer in course_layers()]
    [100000, 3000]
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes 1 s to import

    meta_layer = copy.deepcopy(layer).to("meta")
    try:
        with FlopCounterMode(display=False) as counter:
            output_shape = tuple(meta_layer(torch.empty(1, *layer_input_shape(layer, n), device="meta")).shape[1:])
    except RuntimeError as error:
        raise LabError(f"{layer} cannot take an input of length {n}: {str(error).splitlines()[0]}") from error
    macs, num_outputs = counter.get_total_flops() // 2, math.prod(output_shape)
    return LayerCost(
        output_shape=output_shape,
        num_parameters=sum(p.numel() for p in layer.parameters()),
        macs=macs,
        additions=macs - num_outputs + (num_outputs if layer.bias is not None else 0),
        activation_evaluations=num_outputs,
    )


def count_products(layer: nn.Linear | nn.Conv1d, n: int, padding_value: float = 1.0) -> int:
    """How many products a layer sums, by running it: with weights and inputs of 1, every product adds 1 to the outputs.

    `padding` is what the input is padded with: 1 counts the products with the padding too, 0 leaves them out.

    >>> f, g = course_layers()
    >>> products(f, 100), products(g, 100), products(g, 100, padding=0.0)
    (100000, 3000, 2980)
    """
    ones_layer = nn.utils.skip_init(
        type(layer), *layer_dimensions(layer), bias=False, dtype=torch.float64
    )  # drawn weights would be thrown away
    nn.init.ones_(ones_layer.weight)
    ones = torch.ones(1, *layer_input_shape(layer, n), dtype=torch.float64)
    if isinstance(layer, nn.Conv1d):
        ones = F.pad(ones, (layer.padding[0], layer.padding[0]), value=padding_value)
    with torch.inference_mode():
        return round(ones_layer(ones).sum().item())


def layer_dimensions(layer: nn.Linear | nn.Conv1d) -> Sequence[int]:
    """The arguments that make a layer of the same shape, a convolution without its padding."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    require(
        layer.stride == (1,) and layer.dilation == (1,) and layer.groups == 1,
        f"{layer}: its products are counted without stride, dilation or groups only",
    )
    return layer.in_channels, layer.out_channels, layer.kernel_size[0]


def convolution_matrix(layer: nn.Conv1d, n: int) -> Float[Tensor, "outputs n"]:
    """The matrix of a convolution without bias on one input channel of length n: what a fully-connected layer would have to learn.

    Column i is the layer's answer to a 1 at sample i, [features, n] flattened; it has `features` bands of the kernel's width.

    >>> layer = nn.Conv1d(1, 1, 3, padding=1, bias=False); _ = layer.weight.data.copy_(torch.tensor([[[1.0, 2, 3]]]))
    >>> as_matrix(layer, 4)
    tensor([[2., 3., 0., 0.],
            [1., 2., 3., 0.],
            [0., 1., 2., 3.],
            [0., 0., 1., 2.]])
    """
    with torch.no_grad():
        return layer(torch.eye(n, dtype=layer.weight.dtype)[:, None]).flatten(1).T
