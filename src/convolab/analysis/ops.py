"""What is known of each of PyTorch's operations: its multiply-accumulates, from the shapes that went in and came out, and more.

Named as below PyTorch's autograd, where linear layers, einsum, attention and every convolution have become one of these.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from convolab.analysis.receptive_field.window_rules import rule_for

Count = Callable[..., int]  # (args, output) of the operation -> multiply-accumulates


def convolution(args, out) -> int:
    """N x out x (kernel x in / groups) for every output position; for a transposed one for every input position."""
    value, weight, transposed = args[0], args[1], args[6]
    positions = value if transposed else out
    return value.shape[0] * prod(positions.shape[2:]) * prod(weight.shape)


def matrix_product(args, out) -> int:
    """[..., n, k] x [..., k, m], with or without something added: n x k x m each."""
    return prod(out.shape) * args[-2].shape[-1]


def summed_matrix_products(args, out) -> int:
    """addbmm: [b, n, k] x [b, k, m] summed over b."""
    return prod(out.shape) * args[1].shape[0] * args[1].shape[2]


def vector_product(args, out) -> int:
    return prod(args[-2].shape)


def attention(args, out) -> int:
    """q k^T and its product with v: [..., l, e] x [..., s, e] and [..., l, s] x [..., s, d]."""
    query, key, value = args[:3]
    return prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def bilinear(args, out) -> int:
    """_trilinear(x1, weight, x2): every output sums x1 x weight x x2 over both inputs, two multiplications each."""
    batch, weight = args[0].shape[0], args[1].shape[-3:]
    return 2 * batch * prod(weight)


def deformable(args, out) -> int:
    return out.shape[0] * prod(out.shape[2:]) * prod(args[1].shape)


COUNTS: dict[str, Count] = {
    "convolution": convolution,
    **dict.fromkeys(["mm", "addmm", "bmm", "baddbmm"], matrix_product),
    "addbmm": summed_matrix_products,
    **dict.fromkeys(["mv", "addmv", "dot", "vdot"], vector_product),
    **dict.fromkeys(
        [
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ],
        attention,
    ),
    "_trilinear": bilinear,
    "deform_conv2d": deformable,
}


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operations that only move or make values; whatever is neither here nor counted is listed by name.
MOVES = names(
    """view _unsafe_view reshape _reshape_alias _reshape_copy squeeze unsqueeze flatten unflatten permute transpose t numpy_T movedim
    expand expand_as select slice split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unbind narrow diagonal unfold
    as_strided alias detach contiguous clone copy _to_copy to copy_ lift_fresh lift cat stack repeat flip roll index gather index_select
    constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d im2col
    pixel_shuffle pixel_unshuffle empty zeros ones full arange linspace eye scalar_tensor rand randn empty_like zeros_like ones_like
    full_like new_empty new_zeros new_ones new_full new_empty_strided empty_strided zero_ fill_ dropout where masked_fill embedding
    _local_scalar_dense item resize_ set_ is_same_size tril triu"""
)

# Operations that compute, and have no multiply-accumulates by the definition: norms, pooling, interpolation, reductions.
UNCOUNTED = names(
    """native_batch_norm _native_batch_norm_legit native_layer_norm native_group_norm _fused_rms_norm max_pool2d_with_indices
    max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d
    adaptive_max_pool3d mean sum prod amax amin max min argmax argmin var std var_mean std_mean logsumexp linalg_vector_norm norm
    cumsum cumprod sort topk _softmax _log_softmax _safe_softmax upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
    upsample_trilinear3d upsample_bicubic2d any all glu hardswish _prelu_kernel
    log_sigmoid_forward rrelu_with_noise native_dropout bernoulli"""
)


def convolved_shape(args: Any) -> Tensor | None:
    """The output of a convolution by its shape alone: three times as fast as PyTorch's own on the meta device."""
    value, weight, _, stride, padding, dilation, transposed, _, groups = args
    axes = weight.ndim - 2
    if transposed or value.ndim != weight.ndim or value.shape[1] != weight.shape[1] * groups or not value.is_meta:
        return None
    sizes = []
    for i in range(axes):
        s, p, d = (v[i % len(v)] for v in (stride, padding, dilation))
        sizes.append((value.shape[2 + i] + 2 * p - d * (weight.shape[2 + i] - 1) - 1) // s + 1)
    if min(sizes) < 1:
        return None  # PyTorch says what is wrong
    return value.new_empty((value.shape[0], weight.shape[0], *sizes))


def normalised_shape(args: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """The outputs of batch norm with running statistics: eighteen times as fast as PyTorch's own."""
    value, _, _, mean, _, training = args[:6]
    if training or mean is None or not value.is_meta or value.shape[1] != mean.shape[0]:
        return None
    return torch.empty_like(value), value.new_empty(0), value.new_empty(0)


SHORTCUTS = {"convolution": convolved_shape, "native_batch_norm": normalised_shape}


class Operation:
    """What is known of an operation, looked up once."""

    __slots__ = ("composite", "count", "listed", "moves", "name", "plain", "rule", "shortcut", "views", "writes")

    def __init__(self, func: Any) -> None:
        self.name = func._schema.name.partition("::")[2]
        plain = self.name.removesuffix("_") if self.name not in ("copy_", "zero_", "fill_") else self.name
        self.plain = plain.strip("_")
        self.count = COUNTS.get(self.name)
        self.moves = plain in MOVES or self.name in MOVES
        self.views = self.moves and func.is_view
        self.writes = func._schema.is_mutable
        self.shortcut = SHORTCUTS.get(self.name)
        self.composite = not self.moves and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        )
        by_definition = plain in UNCOUNTED or torch.Tag.pointwise in func.tags
        self.listed = None if self.count or self.moves else by_definition  # True: known not to multiply-accumulate
        self.rule = rule_for(func, plain)


OPERATIONS: dict[Any, Operation] = {}
