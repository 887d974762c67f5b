"""What a layer costs: outputs, parameters, multiplications and additions, counted on the layer itself.

Convention: a MAC is one multiplication of a weight with an input, and the addition that goes with it. Products with the
zeros of the padding count, because the layer does them; biases and activations do not. FLOPs = 2 x MACs.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from convolab.analysis.summary import summarize_network
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

    f = Linear(n -> features n), g = Conv1d(1 -> features, kernel_size, padding (kernel_size - 1) / 2). On the meta
    device, where a layer has shapes but no weights, so they can be arbitrarily large.
    Raises LabError for an even kernel size, whose output would not be as long as its input.

    >>> f, g = course_layers()
    >>> f.weight.shape, g.weight.shape
    (torch.Size([1000, 100]), torch.Size([10, 1, 3]))
    """
    require(
        min(n, features, kernel_size) >= 1,
        f"n = {n}, {features} features and kernel size {kernel_size}: give each at least 1",
    )
    require(
        kernel_size % 2 == 1,
        f"kernel size {kernel_size} is even: give an odd one, so that the output is as long as the input",
    )
    with torch.device("meta"):
        f = nn.Linear(n, features * n, bias=bias)
        g = nn.Conv1d(1, features, kernel_size, padding=kernel_size // 2, bias=bias)
    return f, g


def layer_input_shape(layer: nn.Linear | nn.Conv1d, n: int) -> SampleShape:
    """The shape of one input of length n: [n] for a linear layer, [channels, n] for a convolution."""
    return (n,) if isinstance(layer, nn.Linear) else (layer.in_channels, n)


def layer_cost(layer: nn.Linear | nn.Conv1d, n: int) -> LayerCost:
    """The cost of a layer on one input of length n, counted by `summary` while the layer runs on the meta device.

    Raises LabError if the input does not fit the layer.

    >>> [layer_cost(layer, 100).macs for layer in course_layers()]
    [100000, 3000]
    """
    try:
        result = summarize_network(layer, layer_input_shape(layer, n))
    except LabError as error:
        raise LabError(f"{layer} cannot take an input of length {n}: {error}") from error
    output_shape = result.layers[-1].output_shape[1:]
    num_outputs = math.prod(output_shape)
    return LayerCost(
        output_shape=output_shape,
        num_parameters=result.num_parameters,
        macs=result.macs,
        additions=result.macs - num_outputs + (num_outputs if layer.bias is not None else 0),
        activation_evaluations=num_outputs,
    )


def count_products(layer: nn.Linear | nn.Conv1d, n: int, padding_value: float = 1.0) -> int:
    """How many products a layer sums, by running it: with weights and inputs of 1, every product adds 1 to the outputs.

    `padding_value` is what the input is padded with: 1 counts the products with the padding too, 0 excludes them.

    >>> f, g = course_layers()
    >>> count_products(f, 100), count_products(g, 100), count_products(g, 100, padding_value=0.0)
    (100000, 3000, 2980)
    """
    require_plain(layer)
    ones = torch.ones(1, *layer_input_shape(layer, n), dtype=torch.float64)
    with torch.inference_mode():
        if isinstance(layer, nn.Linear):
            return round(F.linear(ones, torch.ones(layer.weight.shape, dtype=torch.float64)).sum().item())
        padding = int(layer.padding[0])
        padded = F.pad(ones, (padding, padding), value=padding_value)
        return round(F.conv1d(padded, torch.ones(layer.weight.shape, dtype=torch.float64)).sum().item())


def require_plain(layer: nn.Linear | nn.Conv1d) -> None:
    """Raise LabError for a convolution with a stride, a dilation, groups or padding by name."""
    require(
        isinstance(layer, nn.Linear)
        or (
            layer.stride == (1,)
            and layer.dilation == (1,)
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
        ),
        f"{layer}: products are counted only for stride 1, dilation 1, groups 1 and padding with zeros by a number",
    )


def convolution_matrix(layer: nn.Conv1d, n: int) -> Float[Tensor, "outputs n"]:
    """The matrix of a convolution without bias on one input channel of length n.

    It is what a fully-connected layer would have to learn. Column i is the layer's response to a unit impulse at sample
    i, [features, n] flattened; the matrix has `features` bands of the kernel's width.

    >>> layer = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[[1.0, 2, 3]]]))
    >>> convolution_matrix(layer, 4)
    tensor([[2., 3., 0., 0.],
            [1., 2., 3., 0.],
            [0., 1., 2., 3.],
            [0., 0., 1., 2.]])
    """
    with torch.no_grad():
        return layer(torch.eye(n, dtype=layer.weight.dtype)[:, None]).flatten(1).T
