"""Circular cross-correlation: three forms that agree, its Jacobians, and a differentiable one with its own backward pass.

z[k] = sum_i x[i] y[(i + k) mod n]: how much y, turned back by k, looks like x. (Oppenheim & Schafer, Discrete-Time Signal
Processing, 3rd ed., ch. 8.) A convolution is its mirror: it runs through x backwards, x[-i mod n].

Signals are real. float64, float32 and the two half precisions are taken; the halves are summed in float32 and rounded at the end.
Integers are refused, because an FFT would round them unasked, and complex signals, because there x is conjugated by convention.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from convolab.core.errors import require

Signals = Shaped[Tensor, "..."]  # [..., n], floats; what is taken is checked with a word of what to do
HALF_DTYPES = (torch.float16, torch.bfloat16)
ELEMENTWISE_SUBSCRIPTS = ("...", "...", "...")  # signals by pairs
CHANNEL_SUBSCRIPTS = ("oc", "bc", "bo")  # kernels [out, in], signals [batch, in], outputs [batch, out]


def correlate(x: Signals, y: Signals) -> Float[Tensor, "*zs n"]:
    """Circular cross-correlation z[k] = sum_i x[i] y[(i + k) mod n] by FFT: O(n log n), with its own backward pass.

    Dimensions before the last are batches, broadcast as usual. Twice differentiable, as often as wanted.
    Raises LabError for signals that are empty, of different lengths, not finite, complex or of integers.

    >>> correlate(torch.tensor([1.0, 0, 0]), torch.tensor([5.0, 6, 7]))
    tensor([5., 6., 7.])
    """
    return apply_spectral_product(x, y, is_convolution=False)


def convolve(x: Signals, y: Signals) -> Float[Tensor, "*zs n"]:
    """Circular convolution z[k] = sum_i x[i] y[(k - i) mod n] by FFT: the correlation of x's mirror with y.

    >>> x, y = torch.tensor([1.0, 2, 3]), torch.tensor([5.0, 6, 7])
    >>> torch.allclose(convolve(x, y), correlate(mirror(x), y)), torch.allclose(convolve(x, y), convolve(y, x))
    (True, True)
    """
    return apply_spectral_product(x, y, is_convolution=True)


def time_reverse(x: Shaped[Tensor, "*xs n"]) -> Shaped[Tensor, "*xs n"]:
    """x[-i mod n]: sample 0 stays, the others run backwards.

    >>> mirror(torch.tensor([1, 2, 3]))
    tensor([1, 3, 2])
    """
    return x.flip(-1).roll(1, -1)


def correlate_direct(x: Signals, y: Signals) -> Float[Tensor, "*zs n"]:
    """The correlation as its definition reads, O(n^2): y is turned back by k and multiplied with x, for every k.

    >>> correlate_directly(torch.tensor([1.0, 0, 0]), torch.tensor([5.0, 6, 7]))
    tensor([5., 6., 7.])
    """
    a, b, dtype = prepare_signals(x, y)
    return torch.stack([(a * b.roll(-k, -1)).sum(-1) for k in range(a.shape[-1])], dim=-1).to(dtype)


def correlate_circulant(x: Signals, y: Signals) -> Float[Tensor, "*zs n"]:
    """The correlation as a product with the circulant matrix of x, O(n^2) in time and memory.

    >>> correlate_by_matrix(torch.tensor([1.0, 0, 0]), torch.tensor([5.0, 6, 7]))
    tensor([5., 6., 7.])
    """
    a, b, dtype = prepare_signals(x, y)
    return (jacobian_y(a) @ b.unsqueeze(-1)).squeeze(-1).to(dtype)


def jacobian_x(y: Shaped[Tensor, "*ys n"]) -> Shaped[Tensor, "*ys n n"]:
    """dz[k]/dx[i] = y[(i + k) mod n]: row k is y turned back by k, so every anti-diagonal is constant (a Hankel matrix).

    >>> jacobian_x(torch.tensor([5, 6, 7]))
    tensor([[5, 6, 7],
            [6, 7, 5],
            [7, 5, 6]])
    """
    k, i = row_column_indices(y.shape[-1])
    return y[..., (i + k) % y.shape[-1]]


def jacobian_y(x: Shaped[Tensor, "*xs n"]) -> Shaped[Tensor, "*xs n n"]:
    """dz[k]/dy[j] = x[(j - k) mod n]: row k is x turned forward by k, so every diagonal is constant (a circulant matrix).

    >>> jacobian_y(torch.tensor([1, 2, 3]))
    tensor([[1, 2, 3],
            [3, 1, 2],
            [2, 3, 1]])
    """
    k, j = row_column_indices(x.shape[-1])
    return x[..., (j - k) % x.shape[-1]]


def row_column_indices(n: int) -> tuple[Shaped[Tensor, "n 1"], Shaped[Tensor, "1 n"]]:
    """Row and column numbers of an n x n matrix."""
    indices = torch.arange(n)
    return indices[:, None], indices[None, :]


class CircularCorrelation(nn.Module):
    """A layer of circular correlations over channels: z[b, o, k] = sum_c sum_i weight[o, c, i] y[b, c, (i + k) mod n].

    It is `nn.Conv1d` with circular padding, without bias, up to a turn of the output by its padding: what deep learning
    calls a convolution is a correlation. A kernel as long as the signal costs no more than a short one.

    >>> layer = CircularCorrelation(inputs=2, outputs=4, kernel=3)
    >>> layer(torch.randn(8, 2, 100)).shape
    torch.Size([8, 4, 100])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        require(
            min(in_channels, out_channels, kernel_size) >= 1,
            f"{in_channels} inputs, {out_channels} outputs and a kernel of {kernel_size}: give each at least 1",
        )
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as `nn.Conv1d` does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, y: Signals) -> Float[Tensor, "batch outputs n"]:
        require(
            y.ndim == 3 and y.shape[1] == self.weight.shape[1],
            f"the signals are {list(y.shape)}: give [batch, {self.weight.shape[1]}, n], as the layer has {self.weight.shape[1]} inputs",
        )
        n, kernel_size = y.shape[2], self.weight.shape[2]
        require(
            kernel_size <= n,
            f"the kernel has {kernel_size} samples and the signals have {n}: give signals at least as long",
        )
        weight, y, dtype = prepare_signals(F.pad(self.weight, (0, n - kernel_size)), y, require_broadcastable=False)
        return SpectralProduct.apply(weight, y, CHANNEL_SUBSCRIPTS, False).to(dtype)


class SpectralProduct(torch.autograd.Function):
    """A correlation or convolution as a product of spectra, the dimensions before the last combined as einsum letters.

    Its backward pass is two products of the same kind, so it can be differentiated again and again. With g = dL/dz:
    of a correlation  dL/dx = correlate(g, y) and dL/dy = convolve(x, g);
    of a convolution  dL/dx = correlate(y, g) and dL/dy = correlate(x, g).
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, subscripts: tuple[str, str, str], is_convolution: bool) -> Tensor:
        x_subscripts, y_subscripts, z_subscripts = subscripts
        x_spectrum = torch.fft.rfft(x)
        return torch.fft.irfft(
            torch.einsum(
                f"{x_subscripts}f,{y_subscripts}f->{z_subscripts}f",
                x_spectrum if is_convolution else x_spectrum.conj(),
                torch.fft.rfft(y),
            ),
            n=x.shape[-1],
        )

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, y, ctx.letters, ctx.mirrored = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx, g: Tensor):
        (x, y), (x_subscripts, y_subscripts, z_subscripts) = ctx.saved_tensors, ctx.letters
        dx = dy = None
        if ctx.needs_input_grad[0]:
            dx_arguments = (
                (y, g, (y_subscripts, z_subscripts, x_subscripts))
                if ctx.mirrored
                else (g, y, (z_subscripts, y_subscripts, x_subscripts))
            )
            dx = SpectralProduct.apply(*dx_arguments, False)
        if ctx.needs_input_grad[1]:
            dy = SpectralProduct.apply(x, g, (x_subscripts, z_subscripts, y_subscripts), not ctx.mirrored)
        return dx, dy, None, None


def apply_spectral_product(x: Signals, y: Signals, is_convolution: bool) -> Tensor:
    x, y, dtype = prepare_signals(x, y)
    return SpectralProduct.apply(*torch.broadcast_tensors(x, y), ELEMENTWISE_SUBSCRIPTS, is_convolution).to(dtype)


def prepare_signals(x: Signals, y: Signals, require_broadcastable: bool = True) -> tuple[Tensor, Tensor, torch.dtype]:
    """Two signals, checked, in the precision to calculate in; and the type of the answer."""
    for name, signal in (("x", x), ("y", y)):
        require(
            signal.ndim and signal.shape[-1],
            f"{name} is {list(signal.shape)}, which holds no samples: give [..., n] with n of 1 or more",
        )
        require(
            signal.is_floating_point(),
            f"{name} holds {str(signal.dtype).removeprefix('torch.')}: give real floating-point signals, e.g. {name}.double()",
        )
    require(
        x.shape[-1] == y.shape[-1],
        f"x has {x.shape[-1]} samples and y has {y.shape[-1]}: give both the same length, e.g. by adding zeros",
    )
    for name, signal in (("x", x), ("y", y)):
        nonfinite_count = int((~torch.isfinite(signal.detach())).sum())
        require(
            nonfinite_count == 0, f"{name} holds {nonfinite_count} samples that are NaN or infinite: remove them first"
        )
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
