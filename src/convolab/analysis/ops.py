"""What is known of each of PyTorch's operations: its multiply-accumulates, from the shapes that went in and came out, and more.

Named as below PyTorch's autograd, where linear layers, einsum, attention and every convolution have become one of these.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from convolab.analysis.receptive_field.window_rules import find_rf_rule

MacCounter = Callable[..., int]  # (args, output) of the operation -> multiply-accumulates


def convolution_macs(args, out) -> int:
    """N x out x (kernel x in / groups) for every output position; for a transposed one for every input position."""
    value, weight, transposed = args[0], args[1], args[6]
    positions = value if transposed else out
    return value.shape[0] * prod(positions.shape[2:]) * prod(weight.shape)


def matmul_macs(args, out) -> int:
    """[..., n, k] x [..., k, m], with or without something added: n x k x m each."""
    return prod(out.shape) * args[-2].shape[-1]


def addbmm_macs(args, out) -> int:
    """addbmm: [b, n, k] x [b, k, m] summed over b."""
    return prod(out.shape) * args[1].shape[0] * args[1].shape[2]


def matvec_macs(args, out) -> int:
    return prod(args[-2].shape)


def attention_macs(args, out) -> int:
    """q k^T and its product with v: [..., l, e] x [..., s, e] and [..., l, s] x [..., s, d]."""
    query, key, value = args[:3]
    return prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def bilinear_macs(args, out) -> int:
    """_trilinear(x1, weight, x2): every output sums x1 x weight x x2 over both inputs, two multiplications each."""
    batch, weight = args[0].shape[0], args[1].shape[-3:]
    return 2 * batch * prod(weight)


def deform_conv_macs(args, out) -> int:
    return out.shape[0] * prod(out.shape[2:]) * prod(args[1].shape)


MAC_COUNTERS: dict[str, MacCounter] = {
    "convolution": convolution_macs,
    **dict.fromkeys(["mm", "addmm", "bmm", "baddbmm"], matmul_macs),
    "addbmm": addbmm_macs,
    **dict.fromkeys(["mv", "addmv", "dot", "vdot"], matvec_macs),
    **dict.fromkeys(
        [
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
        ],
        attention_macs,
    ),
    "_trilinear": bilinear_macs,
    "deform_conv2d": deform_conv_macs,
}


def name_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operations that only move or make values; whatever is neither here nor counted is listed by name.
DATA_MOVEMENT_OPS = name_set(
    """view _unsafe_view reshape _reshape_alias _reshape_copy squeeze unsqueeze flatten unflatten permute transpose t numpy_T movedim
    expand expand_as select slice split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unbind narrow diagonal unfold
    as_strided alias detach contiguous clone copy _to_copy to copy_ lift_fresh lift cat stack repeat flip roll index gather index_select
    constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d im2col
    pixel_shuffle pixel_unshuffle empty zeros ones full arange linspace eye scalar_tensor rand randn empty_like zeros_like ones_like
    full_like new_empty new_zeros new_ones new_full new_empty_strided empty_strided zero_ fill_ dropout where masked_fill embedding
    _local_scalar_dense item resize_ set_ is_same_size tril triu"""
)

# Operations that compute, and have no multiply-accumulates by the definition: norms, pooling, interpolation, reductions.
IGNORED_OPS = name_set(
    """native_batch_norm _native_batch_norm_legit native_layer_norm native_group_norm _fused_rms_norm max_pool2d_with_indices
    max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d
    adaptive_max_pool3d mean sum prod amax amin max min argmax argmin var std var_mean std_mean logsumexp linalg_vector_norm norm
    cumsum cumprod sort topk _softmax _log_softmax _safe_softmax upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d
    upsample_trilinear3d upsample_bicubic2d any all glu hardswish _prelu_kernel
    log_sigmoid_forward rrelu_with_noise native_dropout bernoulli"""
)


def meta_convolution(args: Any) -> Tensor | None:
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


def meta_batch_norm(args: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """The outputs of batch norm with running statistics: eighteen times as fast as PyTorch's own."""
    value, _, _, mean, _, training = args[:6]
    if training or mean is None or not value.is_meta or value.shape[1] != mean.shape[0]:
        return None
    return torch.empty_like(value), value.new_empty(0), value.new_empty(0)


META_SHORTCUTS = {"convolution": meta_convolution, "native_batch_norm": meta_batch_norm}


class OpInfo:
    """What is known of an operation, looked up once."""

    __slots__ = (
        "base_name",
        "count_macs",
        "is_composite",
        "is_data_movement",
        "is_ignored",
        "is_mutating",
        "is_view",
        "meta_shortcut",
        "name",
        "rf_rule",
    )

    def __init__(self, func: Any) -> None:
        self.name = func._schema.name.partition("::")[2]
        functional_name = self.name.removesuffix("_") if self.name not in ("copy_", "zero_", "fill_") else self.name
        self.base_name = functional_name.strip("_")
        self.count_macs = MAC_COUNTERS.get(self.name)
        self.is_data_movement = functional_name in DATA_MOVEMENT_OPS or self.name in DATA_MOVEMENT_OPS
        self.is_view = self.is_data_movement and func.is_view
        self.is_mutating = func._schema.is_mutable
        self.meta_shortcut = META_SHORTCUTS.get(self.name)
        self.is_composite = not self.is_data_movement and torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        )
        is_known = functional_name in IGNORED_OPS or torch.Tag.pointwise in func.tags
        self.is_ignored = (
            None if self.count_macs or self.is_data_movement else is_known
        )  # True: known not to multiply-accumulate
        self.rf_rule = find_rf_rule(func, functional_name)


OP_INFO_CACHE: dict[Any, OpInfo] = {}
