"""What each PyTorch operation costs, from its input and output shapes, and how it is treated otherwise.

Operations have ATen's names, as PyTorch dispatches them below autograd, where linear layers, einsum, attention and
every convolution have become one of these.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from convolab.analysis.op_call import OpCall
from convolab.analysis.receptive_field.rules import find_rf_rule

MacCounter: TypeAlias = Callable[[OpCall], int]


@runtime_checkable
class Operator(Protocol):
    """A PyTorch operation as `__torch_dispatch__` gets it (an OpOverload, which PyTorch does not export)."""

    @property
    def tags(self) -> Sequence[torch.Tag]: ...
    @property
    def is_view(self) -> bool: ...
    def name(self) -> str: ...
    def decompose(self, *args: object, **kwargs: object) -> object: ...
    def __call__(self, *args: object, **kwargs: object) -> object: ...


def convolution_macs(call: OpCall) -> int:
    """N x out x (kernel x in / groups) for every output position; for a transposed one for every input position."""
    value = call.tensor(0)
    positions = value if call.value(6) else call.out
    return value.shape[0] * prod(positions.shape[2:]) * prod(call.tensor(1).shape)


def matmul_macs(call: OpCall) -> int:
    """[..., n, k] x [..., k, m], with or without something added: n x k x m each."""
    return prod(call.out.shape) * call.tensor(-2).shape[-1]


def addbmm_macs(call: OpCall) -> int:
    """addbmm: [b, n, k] x [b, k, m] summed over b."""
    b, _, k = call.tensor(1).shape
    return prod(call.out.shape) * b * k


def matvec_macs(call: OpCall) -> int:
    """mv and addmv, [n, k] x [k]: n x k; dot and vdot, [k] x [k]: k."""
    return prod(call.tensor(-2).shape)


def attention_macs(call: OpCall) -> int:
    """q k^T and its product with v: [..., l, e] x [..., s, e] and [..., l, s] x [..., s, d]."""
    query = call.tensor(0)
    key = call.tensor(1)
    value = call.tensor(2)
    return prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def bilinear_macs(call: OpCall) -> int:
    """_trilinear(x1, weight, x2): every output sums x1 x weight x x2 over both inputs, two multiplications each."""
    return 2 * call.tensor(0).shape[0] * prod(call.tensor(1).shape[-3:])


def deform_conv_macs(call: OpCall) -> int:
    """deform_conv2d: as a convolution of the same sizes, without the interpolation of its samples."""
    return call.out.shape[0] * prod(call.out.shape[2:]) * prod(call.tensor(1).shape)


def name_set(text: str) -> frozenset[str]:
    """Names separated by white space."""
    return frozenset(text.split())


ATTENTION_OPS = name_set(
    """_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu
    _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention"""
)
MAC_COUNTERS: dict[str, MacCounter] = {
    "convolution": convolution_macs,
    **dict.fromkeys(["mm", "addmm", "bmm", "baddbmm"], matmul_macs),
    "addbmm": addbmm_macs,
    **dict.fromkeys(["mv", "addmv", "dot", "vdot"], matvec_macs),
    **dict.fromkeys(ATTENTION_OPS, attention_macs),
    "_trilinear": bilinear_macs,
    "deform_conv2d": deform_conv_macs,
}

# Operations that only move or make values; any that is neither here nor counted is listed by name.
DATA_MOVEMENT_OPS = name_set(
    """view _unsafe_view reshape _reshape_alias _reshape_copy squeeze unsqueeze flatten unflatten permute transpose t
    numpy_T movedim expand expand_as select slice split split_with_sizes unsafe_split unsafe_split_with_sizes chunk
    unbind narrow diagonal unfold as_strided alias detach contiguous clone copy _to_copy to copy_ lift_fresh lift cat
    stack repeat flip roll index gather index_select constant_pad_nd pad reflection_pad1d reflection_pad2d
    reflection_pad3d replication_pad1d replication_pad2d replication_pad3d im2col pixel_shuffle pixel_unshuffle empty
    zeros ones full arange linspace eye scalar_tensor rand randn empty_like zeros_like ones_like full_like new_empty
    new_zeros new_ones new_full new_empty_strided empty_strided zero_ fill_ dropout where masked_fill embedding
    _local_scalar_dense item resize_ set_ is_same_size tril triu"""
)

# Operations that compute, and have no multiply-accumulates by definition: norms, pooling, interpolation, reductions.
IGNORED_OPS = name_set(
    """native_batch_norm _native_batch_norm_legit native_layer_norm native_group_norm _fused_rms_norm
    max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d
    _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d mean sum prod amax amin max min argmax argmin var std
    var_mean std_mean logsumexp linalg_vector_norm norm cumsum cumprod sort topk _softmax _log_softmax _safe_softmax
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d col2im any
    all glu hardswish _prelu_kernel log_sigmoid_forward rrelu_with_noise native_dropout bernoulli"""
)


def meta_convolution(call: OpCall) -> Tensor | None:
    """The output of a convolution from shapes alone: three times as fast as PyTorch's own on the meta device.

    None for a case that it leaves to PyTorch, among them every wrong input, so that PyTorch says what is wrong.
    """
    value = call.tensor(0)
    weight = call.tensor(1)
    if call.value(6) or value.ndim != weight.ndim or not value.is_meta:
        return None
    if value.shape[1] != weight.shape[1] * call.integer(8):
        return None
    sizes = []
    stride, padding, dilation = (call.integers(index) for index in (3, 4, 5))
    for i in range(weight.ndim - 2):
        s, p, d = (values[i % len(values)] for values in (stride, padding, dilation))
        sizes.append((value.shape[2 + i] + 2 * p - d * (weight.shape[2 + i] - 1) - 1) // s + 1)
    if min(sizes) < 1:
        return None
    return value.new_empty((value.shape[0], weight.shape[0], *sizes))


def meta_batch_norm(call: OpCall) -> tuple[Tensor, Tensor, Tensor] | None:
    """The outputs of batch norm with running statistics: eighteen times as fast as PyTorch's own."""
    value = call.tensor(0)
    running_mean = call.value(3)
    is_training = call.value(5)
    if is_training or not isinstance(running_mean, Tensor) or not value.is_meta:
        return None
    if value.shape[1] != running_mean.shape[0]:
        return None
    return torch.empty_like(value), value.new_empty(0), value.new_empty(0)


META_SHORTCUTS: dict[str, Callable[[OpCall], Tensor | tuple[Tensor, ...] | None]] = {
    "convolution": meta_convolution,
    "native_batch_norm": meta_batch_norm,
}


class OpInfo:
    """What is known of an operation, looked up once.

    Attributes:
        name: its name without namespace and overload.
        base_name: its name as it is listed, without underscores.
        count_macs: counts its multiply-accumulates; None if it has none, or they are not known.
        is_data_movement: whether it only moves or makes values.
        is_view: whether its output shares memory with its input.
        computes: whether it does more than give a view.
        is_mutating: whether it writes into one of its arguments.
        meta_shortcut: computes its output's shape faster than PyTorch does; None if there is no shortcut.
        is_ignored: True if it is known to have no multiply-accumulates, False if that is not known, None if it is
            counted or only moves data.
        may_decompose: whether it may be composed of other operations: until PyTorch says that it is not.
        rf_rule: how it passes receptive fields on; None if there is no rule.
    """

    __slots__ = (
        "base_name",
        "computes",
        "count_macs",
        "is_data_movement",
        "is_ignored",
        "is_mutating",
        "is_view",
        "may_decompose",
        "meta_shortcut",
        "name",
        "rf_rule",
    )

    def __init__(self, func: Operator) -> None:
        self.name, _, overload = func.name().partition("::")[2].partition(".")
        in_place = self.name.endswith("_") and not self.name.endswith("__")
        functional_name = self.name[:-1] if in_place and self.name not in ("copy_", "zero_", "fill_") else self.name
        is_pointwise = torch.Tag.pointwise in func.tags
        self.base_name = functional_name.strip("_")
        self.count_macs = MAC_COUNTERS.get(self.name)
        self.is_data_movement = functional_name in DATA_MOVEMENT_OPS or self.name in DATA_MOVEMENT_OPS
        self.is_view = func.is_view
        self.computes = not (self.is_data_movement and self.is_view)
        self.is_mutating = in_place or overload.endswith("out")
        self.meta_shortcut = META_SHORTCUTS.get(self.name)
        is_known = functional_name in IGNORED_OPS or is_pointwise
        self.is_ignored = None if self.count_macs or self.is_data_movement else is_known
        self.may_decompose = self.is_ignored is False
        self.rf_rule = find_rf_rule(functional_name, is_pointwise)


OP_INFO_CACHE: dict[Operator, OpInfo] = {}


def op_info(func: Operator) -> OpInfo:
    """What is known of an operation, from the cache."""
    info = OP_INFO_CACHE.get(func)
    if info is None:
        info = OP_INFO_CACHE[func] = OpInfo(func)
    return info
