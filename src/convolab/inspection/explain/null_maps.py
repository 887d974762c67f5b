"""What a map is compared with that does not depend on the network: phase-randomized maps, the image's edges."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from convolab.core.rng import make_generator
from convolab.inspection.types import Heatmap, SinglePixels


def rank_correlation(a: Heatmap, b: Heatmap) -> float | None:
    """Spearman's rank correlation of two maps' absolute values; None where one is constant or not finite.

    >>> round(rank_correlation(torch.tensor([[1.0, -2.0, 3.0]]), torch.tensor([[10.0, 20.0, -30.0]])), 6)
    1.0
    """
    first, second = (average_ranks(heatmap.abs().flatten()) for heatmap in (a, b))
    first, second = first - first.mean(), second - second.mean()
    norm_product = float(first.norm() * second.norm())
    if norm_product == 0 or not math.isfinite(norm_product) or not bool(a.isfinite().all() and b.isfinite().all()):
        return None
    return float(first @ second) / norm_product


def average_ranks(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Ranks from 1 in float64; equal values share their mean rank."""
    # NumPy sorts 50,000 values three times as fast as torch does.
    _, inverse, counts = np.unique(values.detach().double().cpu().numpy(), return_inverse=True, return_counts=True)
    return torch.from_numpy((counts.cumsum() - (counts - 1) / 2)[inverse])


def phase_randomized(heatmap: Heatmap, seed: int, map_index: int) -> Heatmap:
    """A random map as smooth as another: the spectrum of its absolute values with the phases of noise.

    Two maps that have only their smoothness in common are the more correlated by chance the smoother they are.
    """
    spectrum = torch.fft.rfft2(heatmap.abs().double() - heatmap.abs().double().mean()).abs()
    rng = make_generator(seed, "random map", map_index)
    noise = torch.fft.rfft2(torch.randn(heatmap.shape, generator=rng, dtype=torch.float64))
    random_heatmap = torch.fft.irfft2(spectrum * torch.exp(1j * noise.angle()), s=heatmap.shape)
    return random_heatmap - random_heatmap.min()


def sobel_edges(pixels: SinglePixels, heatmap: Heatmap) -> Heatmap:
    """The strength of the image's edges (Sobel's operator on its mean over channels), averaged to the size of a map."""
    gray = pixels.float().mean(1, keepdim=True)
    horizontal_kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    kernels = torch.stack([horizontal_kernel, horizontal_kernel.T]).unsqueeze(1)
    slopes = F.conv2d(F.pad(gray, (1, 1, 1, 1), mode="replicate"), kernels)
    rows, columns = heatmap.shape
    return F.adaptive_avg_pool2d(slopes.norm(dim=1), (rows, columns))[0]
