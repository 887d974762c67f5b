"""What a layer's attributes alone say: its cost by the textbook's formula, which is the count's self-check, and what it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


@dataclass(frozen=True)
class ClosedForm:
    """Multiply-accumulates and parameters by formula."""

    formula: str  # of the multiply-accumulates, with the numbers put in
    macs: int
    num_parameters: int


def closed_form(module: nn.Module | None, input_shape: Sequence[int], output_shape: Sequence[int]) -> ClosedForm | None:
    """The closed form of a linear or convolutional layer that takes one shape and gives another; None for any other layer.

    >>> closed_form(nn.Linear(100, 1000, bias=False), (1, 100), (1, 1000))
    ClosedForm(formula='100×1000', macs=100000, parameters=100000)
    >>> closed_form(nn.Conv1d(1, 10, 3, padding=1, bias=False), (1, 1, 100), (1, 10, 100))
    ClosedForm(formula='10×1×3×100', macs=3000, parameters=30)
    """
    if isinstance(module, nn.Linear):
        rows = prod(input_shape[:-1])
        factors = [*([rows] if rows > 1 else []), module.in_features, module.out_features]
        parameters = module.in_features * module.out_features + module.out_features * (module.bias is not None)
    elif isinstance(module, _ConvNd):
        if isinstance(module, _ConvTransposeNd):  # every input position is multiplied with the whole kernel
            positions = list(input_shape[2:])
        elif type(module).__module__ == "torch.nn.modules.conv":
            positions = [output_positions(module, input_shape, axis) for axis in range(len(module.kernel_size))]
        else:  # a subclass may pad in its own way, so its positions are those it gave
            positions = list(output_shape[2:])
        inputs = module.in_channels // module.groups
        outputs = module.out_channels
        kernel = prod(module.kernel_size)
        factors = [*([input_shape[0]] if input_shape[0] > 1 else []), outputs, inputs, *module.kernel_size, *positions]
        parameters = outputs * inputs * kernel + outputs * (module.bias is not None)
    else:
        return None
    return ClosedForm("×".join(map(str, factors)), prod(factors), parameters)


def output_positions(module: _ConvNd, input_shape: Sequence[int], axis: int) -> int:
    """Output positions along an axis: floor((n + 2 p - d (k - 1) - 1) / s) + 1 (Dumoulin & Visin 2016, arXiv:1603.07285)."""
    n, k, s, d = input_shape[2 + axis], module.kernel_size[axis], module.stride[axis], module.dilation[axis]
    if module.padding == "same":
        return n
    p = 0 if module.padding == "valid" else module.padding[axis]
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


def expected_input(module: nn.Module, input_shape: tuple[int, ...]) -> str | None:
    """The shape that a layer wants where it is not the one it got; None where the layer does not say, or got it."""
    channels = input_shape[1] if len(input_shape) > 1 else None
    if isinstance(module, nn.Linear):
        return None if input_shape[-1] == module.in_features else f"[..., {module.in_features}]"
    if isinstance(module, _ConvNd):
        min_sizes = [d * (k - 1) + 1 for k, d in zip(module.kernel_size, module.dilation, strict=True)]
        if isinstance(module, _ConvTransposeNd) or module.padding == "same":
            min_sizes = [1] * len(min_sizes)
        elif module.padding != "valid":
            min_sizes = [max(n - 2 * p, 1) for n, p in zip(min_sizes, module.padding, strict=True)]
        fits = (
            channels == module.in_channels
            and len(input_shape) == 2 + len(min_sizes)
            and all(n >= m for n, m in zip(input_shape[2:], min_sizes, strict=True))
        )
        return None if fits else f"[N, {module.in_channels}, {', '.join(f'>= {n}' for n in min_sizes)}]"
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return None if channels == module.num_features else f"[N, {module.num_features}, ...]"
    if isinstance(module, nn.GroupNorm):
        return None if channels == module.num_channels else f"[N, {module.num_channels}, ...]"
    if isinstance(module, nn.LayerNorm):
        normalized_shape = tuple(module.normalized_shape)
        return (
            None
            if input_shape[-len(normalized_shape) :] == normalized_shape
            else f"[..., {', '.join(map(str, normalized_shape))}]"
        )
    return None
