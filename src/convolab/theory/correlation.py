"""Circular cross-correlation: three forms that agree, its Jacobians, and its own backward pass.

z[k] = sum_i x[i] y[(i + k) mod n]: how similar y, shifted left by k, is to x. (Oppenheim & Schafer, Discrete-Time
Signal Processing, 3rd ed., ch. 8.) A convolution is the same with x reversed in time, x[-i mod n].

Signals are real. float64, float32 and the two half precisions are accepted; half-precision inputs are summed in float32
and rounded at the end. Integers are refused, because an FFT would silently convert them to floating point, and complex
signals, because there x is conjugated by convention.
"""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from convolab.core.errors import require

Signals = Shaped[Tensor, "..."]  # [..., n], floats; `prepare_signals` checks them, and says what to do
HALF_DTYPES = (torch.float16, torch.bfloat16)
ELEMENTWISE_SUBSCRIPTS = ("...", "...", "...")  # each signal of x with the same one of y
CHANNEL_SUBSCRIPTS = ("oc", "bc", "bo")  # kernels [out, in], signals [batch, in], outputs [batch, out]


def correlate(x: Signals, y: Signals) -> Float[Tensor, "*zs n"]:
    """Circular cross-correlation z[k] = sum_i x[i] y[(i + k) mod n] by FFT: O(n log n), with its own backward pass.

    Dimensions before the last are batches, broadcast as usual. Differentiable any number of times.
    Raises LabError for signals that are empty, of different lengths, not finite, complex or of integers.

    >>> correlate(torch.tensor([1.0, 0, 0]), torch.tensor([5.0, 6, 7]))
    tensor([5., 6., 7.])
    """
    return apply_spectral_product(x, y, is_convolution=False)


def convolve(x: Signals, y: Signals) -> Float[Tensor, "*zs n"]:
    """Circular convolution z[k] = sum_i x[i] y[(k - i) mod n] by FFT: the correlation of the time-reversed x with y.

    >>> x, y = torch.tensor([1.0, 2, 3]), torch.tensor([5.0, 6, 7])
    >>> torch.allclose(convolve(x, y), correlate(time_reverse(x), y)), torch.allclose(convolve(x, y), convolve(y, x))
    (True, True)
    """
    return apply_spectral_product(x, y, is_convolution=True)


def time_reverse(x: Shaped[Tensor, "*xs n"]) -> Shaped[Tensor, "*xs n"]:
    """x[-i mod n]: sample 0 stays, the others run backwards.

    >>> time_reverse(torch.tensor([1, 2, 3]))
    tensor([1, 3, 2])
    """
    return x.flip(-1).roll(1, -1)


def correlate_direct(x: Signals, y: Signals) -> Float[Tensor, "*zs n"]:
    """The correlation as its definition reads, O(n^2): for every k, y is shifted left by k and multiplied by x.

    >>> correlate_direct(torch.tensor([1.0, 0, 0]), torch.tensor([5.0, 6, 7]))
    tensor([5., 6., 7.])
    """
    a, b, dtype = prepare_signals(x, y)
    return torch.stack([(a * b.roll(-k, -1)).sum(-1) for k in range(a.shape[-1])], dim=-1).to(dtype)


def correlate_circulant(x: Signals, y: Signals) -> Float[Tensor, "*zs n"]:
    """The correlation as a product with the circulant matrix of x, O(n^2) in time and memory.

    >>> correlate_circulant(torch.tensor([1.0, 0, 0]), torch.tensor([5.0, 6, 7]))
    tensor([5., 6., 7.])
    """
    a, b, dtype = prepare_signals(x, y)
    return (jacobian_y(a) @ b.unsqueeze(-1)).squeeze(-1).to(dtype)


def jacobian_x(y: Shaped[Tensor, "*ys n"]) -> Shaped[Tensor, "*ys n n"]:
    """dz[k]/dx[i] = y[(i + k) mod n]: row k is y shifted left by k, so every anti-diagonal is constant (Hankel).

    >>> jacobian_x(torch.tensor([5, 6, 7]))
    tensor([[5, 6, 7],
            [6, 7, 5],
            [7, 5, 6]])
    """
    k, i = row_column_indices(y.shape[-1])
    return y[..., (i + k) % y.shape[-1]]


def jacobian_y(x: Shaped[Tensor, "*xs n"]) -> Shaped[Tensor, "*xs n n"]:
    """dz[k]/dy[j] = x[(j - k) mod n]: row k is x shifted right by k, so every diagonal is constant (circulant).

    >>> jacobian_y(torch.tensor([1, 2, 3]))
    tensor([[1, 2, 3],
            [3, 1, 2],
            [2, 3, 1]])
    """
    k, j = row_column_indices(x.shape[-1])
    return x[..., (j - k) % x.shape[-1]]


def row_column_indices(n: int) -> tuple[Shaped[Tensor, "n 1"], Shaped[Tensor, "1 n"]]:
    """Row and column indices of an n x n matrix, to be broadcast."""
    indices = torch.arange(n)
    return indices[:, None], indices[None, :]


class CircularCorrelation(nn.Module):
    """A layer of circular correlations over channels: z[b, o, k] = sum_c sum_i weight[o, c, i] y[b, c, (i + k) mod n].

    It is `nn.Conv1d` with circular padding, without bias, up to a circular shift of the output by its padding: what
    deep learning calls a convolution is a correlation. A kernel as long as the signal costs no more than a short one.

    >>> layer = CircularCorrelation(in_channels=2, out_channels=4, kernel_size=3)
    >>> layer(torch.randn(8, 2, 100)).shape
    torch.Size([8, 4, 100])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        require(
            min(in_channels, out_channels, kernel_size) >= 1,
            f"{in_channels} input channels, {out_channels} output channels and kernel size {kernel_size}: "
            "give each at least 1",
        )
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as `nn.Conv1d` does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, y: Signals) -> Float[Tensor, "batch outputs n"]:
        require(
            y.ndim == 3 and y.shape[1] == self.weight.shape[1],
            f"the signals are {list(y.shape)}: give [batch, {self.weight.shape[1]}, n], because the layer has "
            f"{self.weight.shape[1]} input channels",
        )
        n, kernel_size = y.shape[2], self.weight.shape[2]
        require(
            kernel_size <= n,
            f"the kernel has {kernel_size} samples and the signals have {n}: give signals at least as long",
        )
        weight, y, dtype = prepare_signals(F.pad(self.weight, (0, n - kernel_size)), y, require_broadcastable=False)
        return SpectralProduct.apply(weight, y, CHANNEL_SUBSCRIPTS, False).to(dtype)


if TYPE_CHECKING:

    class SpectralContext(FunctionCtx):
        """What the forward pass keeps for the backward pass."""

        subscripts: tuple[str, str, str]
        is_convolution: bool
        saved_tensors: tuple[Tensor, Tensor]
        needs_input_grad: tuple[bool, ...]

else:
    SpectralContext = object  # torch passes classes of its own; those of torch.func are not even a FunctionCtx


class SpectralProduct(torch.autograd.Function):
    """A correlation or convolution as a product of spectra; einsum subscripts combine the dimensions before the last.

    Its backward pass is two products of the same kind, so it can be differentiated again and again. With g = dL/dz:
    of a correlation  dL/dx = correlate(g, y) and dL/dy = convolve(x, g);
    of a convolution  dL/dx = correlate(y, g) and dL/dy = correlate(x, g).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, subscripts: tuple[str, str, str], is_convolution: bool) -> Tensor:
        x_subscripts, y_subscripts, z_subscripts = subscripts
        x_spectrum = torch.fft.rfft(x)
        x_factor = x_spectrum if is_convolution else x_spectrum.conj()
        equation = f"{x_subscripts}f,{y_subscripts}f->{z_subscripts}f"
        return torch.fft.irfft(torch.einsum(equation, x_factor, torch.fft.rfft(y)), n=x.shape[-1])

    @staticmethod
    def setup_context(
        ctx: SpectralContext, inputs: tuple[Tensor, Tensor, tuple[str, str, str], bool], output: Tensor
    ) -> None:
        x, y, ctx.subscripts, ctx.is_convolution = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] (torch's stub takes any number of gradients)
        ctx: SpectralContext, g: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, y = ctx.saved_tensors
        x_subscripts, y_subscripts, z_subscripts = ctx.subscripts
        dx = dy = None
        if ctx.needs_input_grad[0]:
            dx_arguments = (
                (y, g, (y_subscripts, z_subscripts, x_subscripts))
                if ctx.is_convolution
                else (g, y, (z_subscripts, y_subscripts, x_subscripts))
            )
            dx = SpectralProduct.apply(*dx_arguments, False)
        if ctx.needs_input_grad[1]:
            dy = SpectralProduct.apply(x, g, (x_subscripts, z_subscripts, y_subscripts), not ctx.is_convolution)
        return dx, dy, None, None


def apply_spectral_product(x: Signals, y: Signals, is_convolution: bool) -> Tensor:
    x, y, dtype = prepare_signals(x, y)
    return SpectralProduct.apply(*torch.broadcast_tensors(x, y), ELEMENTWISE_SUBSCRIPTS, is_convolution).to(dtype)


def prepare_signals(x: Signals, y: Signals, require_broadcastable: bool = True) -> tuple[Tensor, Tensor, torch.dtype]:
    """Two signals, checked, in the precision to compute in; and the dtype of the result.

    Raises LabError for signals that cannot be correlated.
    """
    for name, signal in (("x", x), ("y", y)):
        require(
            signal.ndim and signal.shape[-1],
            f"{name} is {list(signal.shape)} and has no samples: give [..., n] with n >= 1",
        )
        require(
            signal.is_floating_point(),
            f"{name} has dtype {str(signal.dtype).removeprefix('torch.')}: give real floating-point signals, "
            f"e.g. {name}.double()",
        )
    require(
        x.shape[-1] == y.shape[-1],
        f"x has {x.shape[-1]} samples and y has {y.shape[-1]}: give both the same length, "
        "e.g. by zero-padding the shorter one",
    )
    for name, signal in (("x", x), ("y", y)):
        nonfinite_count = int((~torch.isfinite(signal.detach())).sum())
        require(nonfinite_count == 0, f"{name} has {nonfinite_count} NaN or infinite samples: remove them first")
    if require_broadcastable:
        try:
            torch.broadcast_shapes(x.shape, y.shape)
        except RuntimeError:
            require(
                False,
                f"x is {list(x.shape)} and y {list(y.shape)}: give batches of the same shape, or one signal for all",
            )
    dtype = torch.promote_types(x.dtype, y.dtype)
    compute_dtype = torch.float32 if dtype in HALF_DTYPES else dtype
    return x.to(compute_dtype), y.to(compute_dtype), dtype
