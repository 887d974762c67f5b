"""The cost of a layer by the textbook formula, from its attributes alone, and the input shape that it expects.

The formula is the self-check of the counter: `summary` compares both for every linear and convolutional layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

from torch import nn

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConvolution: TypeAlias = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BATCH_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


@dataclass(frozen=True)
class ClosedForm:
    """Multiply-accumulates and parameters by formula."""

    formula: str  # of the multiply-accumulates, with numbers for its variables
    macs: int
    num_parameters: int
    parameter_formula: str = field(default="", repr=False)  # with numbers for its variables


def closed_form(module: nn.Module | None, input_shape: Sequence[int], output_shape: Sequence[int]) -> ClosedForm | None:
    """The closed form of a linear or convolutional layer, None for any other; the shapes include the batch.

    >>> closed_form(nn.Linear(100, 1000, bias=False), (1, 100), (1, 1000))
    ClosedForm(formula='100×1000', macs=100000, num_parameters=100000)
    >>> closed_form(nn.Conv1d(1, 10, 3, padding=1, bias=False), (1, 1, 100), (1, 10, 100))
    ClosedForm(formula='10×1×3×100', macs=3000, num_parameters=30)
    """
    if isinstance(module, nn.Linear):
        rows = prod(input_shape[:-1])
        factors = [*([rows] if rows > 1 else []), module.in_features, module.out_features]
        weights = [module.in_features, module.out_features]
        outputs = module.out_features
    elif isinstance(module, (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)):
        if isinstance(module, TRANSPOSED_CONVOLUTIONS):  # every input position is multiplied with the whole kernel
            positions = list(input_shape[2:])
        elif type(module) in CONVOLUTIONS:
            positions = [output_positions(module, input_shape, axis) for axis in range(len(module.kernel_size))]
        else:  # a subclass may pad in its own way, so its positions are those of its output
            positions = list(output_shape[2:])
        inputs = module.in_channels // module.groups
        outputs = module.out_channels
        batch = [input_shape[0]] if input_shape[0] > 1 else []
        factors = [*batch, outputs, inputs, *module.kernel_size, *positions]
        weights = [outputs, inputs, *module.kernel_size]
    else:
        return None
    # A subclass may learn more than its weight and bias, such as the gain of a standardized convolution; and under
    # torch.nn.utils.weight_norm, spectral_norm or prune it learns other tensors, from which these are computed.
    numbers = {name: parameter.numel() for name, parameter in module.named_parameters(recurse=False)}
    num_weights = prod(weights) if numbers.pop("weight", None) is not None else 0
    num_biases = outputs if numbers.pop("bias", None) is not None else 0
    added = [num for num in (num_biases, *numbers.values()) if num]
    parameter_formula = " + ".join([*(["×".join(map(str, weights))] if num_weights else []), *map(str, added)])
    return ClosedForm("×".join(map(str, factors)), prod(factors), num_weights + sum(added), parameter_formula)


def output_positions(module: Convolution, input_shape: Sequence[int], axis: int) -> int:
    """Output positions along an axis: floor((n + 2 p - d (k - 1) - 1) / s) + 1.

    After Dumoulin & Visin 2016, arXiv:1603.07285.
    """
    n = input_shape[2 + axis]
    k = module.kernel_size[axis]
    s = module.stride[axis]
    d = module.dilation[axis]
    if module.padding == "same":
        return n
    p = 0 if isinstance(module.padding, str) else module.padding[axis]
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


def expected_input(module: nn.Module, input_shape: tuple[int, ...]) -> str | None:
    """The shape that a layer expects; None where `input_shape`, with the batch, fits, or the layer does not say."""
    channels = input_shape[1] if len(input_shape) > 1 else None
    if isinstance(module, nn.Linear):
        return None if input_shape[-1:] == (module.in_features,) else f"[..., {module.in_features}]"
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)):
        min_sizes = smallest_input(module)
        fits = (
            channels == module.in_channels
            and len(input_shape) == 2 + len(min_sizes)
            and all(n >= m for n, m in zip(input_shape[2:], min_sizes, strict=True))
        )
        return None if fits else f"[N, {module.in_channels}, {', '.join(f'>= {n}' for n in min_sizes)}]"
    if isinstance(module, BATCH_NORMS):
        return None if channels == module.num_features else f"[N, {module.num_features}, ...]"
    if isinstance(module, nn.GroupNorm):
        return None if channels == module.num_channels else f"[N, {module.num_channels}, ...]"
    if isinstance(module, nn.LayerNorm):
        normalized_shape = tuple(int(n) for n in module.normalized_shape)
        fits = input_shape[-len(normalized_shape) :] == normalized_shape
        return None if fits else f"[..., {', '.join(map(str, normalized_shape))}]"
    return None


def smallest_input(module: Convolution | TransposedConvolution) -> list[int]:
    """The smallest input size along each axis that gives an output."""
    if isinstance(module, TRANSPOSED_CONVOLUTIONS) or module.padding == "same":
        return [1] * len(module.kernel_size)
    kernel_extents = [d * (k - 1) + 1 for k, d in zip(module.kernel_size, module.dilation, strict=True)]
    if isinstance(module.padding, str):
        return kernel_extents
    return [max(n - 2 * p, 1) for n, p in zip(kernel_extents, module.padding, strict=True)]
