"""How many multiply-accumulates an operation does, from the shapes that went in and came out.

Named as below PyTorch's autograd, where linear layers, einsum, attention and every convolution have become one of these.
"""

from collections.abc import Callable
from math import prod

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
