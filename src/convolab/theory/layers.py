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
MAX_WEIGHTS_TO_RUN = 10_000_000  # of f in float64: 80 MB
MAX_MACS_TO_RUN = 2_000_000_000  # to write g as a matrix: about ten seconds


@dataclass(frozen=True)
class LayerCost:
    """What one pass of one input costs."""

    output_shape: SampleShape
    num_parameters: int
    macs: int
    additions: int  # of products, and of the bias where there is one
    activation_evaluations: int  # of sigma, one for each output, if one follows

    @property
    def num_outputs(self) -> int:
        return math.prod(self.output_shape)

    @property
    def flops(self) -> int:
        """2 x MACs, as papers count."""
        return 2 * self.macs

    @property
    def arithmetic_operations(self) -> int:
        """Multiplications and additions as they are: a sum of m products takes m - 1 additions."""
        return self.macs + self.additions


@dataclass(frozen=True)
class LayerSizes:
    """The sizes of question 1(c), whose defaults are the course's.

    Raises:
        LabError: a size is not a whole number from 1, the kernel size is even or longer than the signal, or the layers
            are too large to be run.

    >>> LayerSizes(samples=64, maps=4, kernel_size=5).num_outputs
    256
    """

    samples: int = 100  # n, the length of the signal: the inputs of f
    maps: int = 10  # feature maps of g: its output channels
    kernel_size: int = 3
    outputs: int | None = None  # of f; None: as many as g gives

    def __post_init__(self) -> None:
        sizes = {"samples": self.samples, "maps": self.maps, "kernel size": self.kernel_size, "outputs": self.outputs}
        for name, size in sizes.items():
            is_size = isinstance(size, int) and not isinstance(size, bool) and size >= 1
            require(
                is_size or (name == "outputs" and size is None), f"{name} {size}: give a whole number of at least 1"
            )
        require_same_padding(self.kernel_size)
        require(
            self.kernel_size <= self.samples,
            f"kernel size {self.kernel_size} is longer than the signal of {self.samples} samples: give at most "
            f"{self.samples}",
        )
        num_weights = max(self.num_outputs, self.maps * self.samples) * self.samples
        require(
            num_weights <= MAX_WEIGHTS_TO_RUN,
            f"{self.samples:,} samples, {self.maps:,} maps and {self.num_outputs:,} outputs make a fully-connected "
            f"layer of {num_weights:,} weights: the checks run it, so give at most {MAX_WEIGHTS_TO_RUN:,}",
        )
        num_macs = self.maps * self.samples**2 * self.kernel_size
        require(
            num_macs <= MAX_MACS_TO_RUN,
            f"{self.samples:,} samples, {self.maps:,} maps and kernel size {self.kernel_size:,} take {num_macs:,} MACs "
            f"to write the convolution as a matrix: give at most {MAX_MACS_TO_RUN:,}",
        )

    @property
    def num_outputs(self) -> int:
        """The outputs of f."""
        return self.maps * self.samples if self.outputs is None else self.outputs

    def make_layers(self, bias: bool = False) -> tuple[nn.Linear, nn.Conv1d]:
        """f and g, on the meta device."""
        return course_layers(self.samples, self.maps, self.kernel_size, bias, self.num_outputs)


def require_same_padding(kernel_size: int) -> None:
    """Raise LabError for an even kernel size, whose output would not be as long as its input."""
    require(
        kernel_size % 2 == 1,
        f"kernel size {kernel_size} is even: give an odd one, so that the output is as long as the input",
    )


def course_layers(
    samples: int = 100, maps: int = 10, kernel_size: int = 3, bias: bool = False, outputs: int | None = None
) -> tuple[nn.Linear, nn.Conv1d]:
    """The question's f and g: a fully-connected and a convolutional layer.

    f = Linear(samples -> outputs), g = Conv1d(1 -> maps, kernel_size, padding (kernel_size - 1) / 2). On the meta
    device, where a layer has shapes but no weights, so they can be arbitrarily large.

    Args:
        samples: the length of the signal.
        maps: feature maps of g.
        kernel_size: of g.
        bias: whether both add one.
        outputs: of f; None: maps x samples, as many as g gives.

    Raises:
        LabError: a size is below 1, or the kernel size is even.

    >>> f, g = course_layers()
    >>> f.weight.shape, g.weight.shape
    (torch.Size([1000, 100]), torch.Size([10, 1, 3]))
    """
    outputs = maps * samples if outputs is None else outputs
    require(
        min(samples, maps, kernel_size, outputs) >= 1,
        f"{samples} samples, {maps} maps, kernel size {kernel_size} and {outputs} outputs: give each at least 1",
    )
    require_same_padding(kernel_size)
    with torch.device("meta"):
        f = nn.Linear(samples, outputs, bias=bias)
        g = nn.Conv1d(1, maps, kernel_size, padding=kernel_size // 2, bias=bias)
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
    i, [maps, n] flattened; the matrix has `maps` bands of the kernel's width.

    >>> layer = nn.Conv1d(1, 1, 3, padding=1, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[[1.0, 2, 3]]]))
    >>> convolution_matrix(layer, 4)
    tensor([[2., 3., 0., 0.],
            [1., 2., 3., 0.],
            [0., 1., 2., 3.],
            [0., 0., 1., 2.]])
    """
    batch_size = max(1, MAX_WEIGHTS_TO_RUN // (n * layer.kernel_size[0]))  # a convolution copies a window per output
    impulses = torch.eye(n, dtype=layer.weight.dtype)[:, None].split(batch_size)
    with torch.no_grad():
        return torch.cat([layer(batch).flatten(1) for batch in impulses]).T
