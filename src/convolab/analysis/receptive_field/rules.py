"""The receptive-field rule of each PyTorch operation, by the name that it has below autograd."""

from convolab.analysis.receptive_field.propagation import RFRule, Rule, SplitRule
from convolab.analysis.receptive_field.shape_rules import (
    attention_rule,
    batch_norm_rule,
    concat_rule,
    constant_rule,
    expand_rule,
    flip_rule,
    glu_rule,
    identity_rule,
    matmul_rule,
    normalization_rule,
    permute_rule,
    pointwise_rule,
    reduction_rule,
    reshape_rule,
    roll_rule,
    select_rule,
    slice_rule,
    split_rule,
    stack_rule,
    transpose_rule,
    unbind_rule,
)
from convolab.analysis.receptive_field.window_rules import (
    adaptive_pooling_rule,
    convolution_rule,
    pad_rule,
    pixel_shuffle_rule,
    pixel_unshuffle_rule,
    pooling_rule,
    upsampling_rule,
)

POINTWISE = Rule(pointwise_rule, is_elementwise=True)


def rules(names: str, of_output: RFRule | SplitRule, is_elementwise: bool = False) -> dict[str, Rule]:
    """One rule for several operations, their names separated by spaces."""
    return dict.fromkeys(names.split(), Rule(of_output, is_elementwise))


RF_RULES: dict[str, Rule] = {
    **rules("alias detach contiguous clone _to_copy lift_fresh dropout", identity_rule, is_elementwise=True),
    **rules("hardswish _prelu_kernel log_sigmoid_forward rrelu_with_noise", pointwise_rule, is_elementwise=True),
    **rules("zeros_like ones_like empty_like full_like rand_like randn_like", constant_rule),
    **rules("new_zeros new_ones new_empty new_full new_empty_strided empty_strided zero_ fill_", constant_rule),
    **rules("view _unsafe_view reshape _reshape_alias squeeze unsqueeze flatten unflatten view_as", reshape_rule),
    **rules("permute", permute_rule),
    **rules("transpose t numpy_T", transpose_rule),
    **rules("expand", expand_rule),
    **rules("select", select_rule),
    **rules("slice", slice_rule),
    **rules("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk", split_rule),
    **rules("unbind", unbind_rule),
    **rules("cat", concat_rule),
    **rules("stack", stack_rule),
    **rules("flip", flip_rule),
    **rules("roll", roll_rule),
    **rules("glu", glu_rule),
    **rules("mean sum amax amin max min var std var_mean std_mean logsumexp any all", reduction_rule(1)),
    **rules("linalg_vector_norm norm", reduction_rule(2)),
    **rules(
        "_softmax _log_softmax _safe_softmax softmax log_softmax",
        normalization_rule(lambda call: [call.integer(1, "dim") % call.tensor().ndim]),
    ),
    **rules(
        "native_layer_norm _fused_rms_norm",
        normalization_rule(lambda call: range(call.tensor().ndim - len(call.integers(1)), call.tensor().ndim)),
    ),
    **rules("native_group_norm", normalization_rule(lambda call: range(1, call.tensor().ndim))),
    **rules("native_batch_norm _native_batch_norm_legit cudnn_batch_norm", batch_norm_rule),
    **rules("mm bmm addmm baddbmm", matmul_rule),
    **rules(
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
        "_scaled_dot_product_efficient_attention",
        attention_rule,
    ),
    **rules("convolution", convolution_rule),
    **rules(
        "max_pool2d_with_indices max_pool3d_with_indices max_pool1d max_pool2d max_pool3d",
        pooling_rule(has_dilation=True),
    ),
    **rules("avg_pool1d avg_pool2d avg_pool3d", pooling_rule(has_dilation=False)),
    **rules("_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d", adaptive_pooling_rule),
    **rules(
        "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d "
        "replication_pad1d replication_pad2d replication_pad3d",
        pad_rule,
    ),
    **rules("upsample_nearest1d upsample_nearest2d upsample_nearest3d", upsampling_rule("nearest")),
    **rules(
        "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d",
        upsampling_rule("nearest-exact"),
    ),
    **rules("upsample_linear1d upsample_bilinear2d upsample_trilinear3d", upsampling_rule("linear")),
    **rules("upsample_bicubic2d", upsampling_rule("cubic")),
    **rules("pixel_shuffle", pixel_shuffle_rule),
    **rules("pixel_unshuffle", pixel_unshuffle_rule),
}


def find_rf_rule(name: str, is_pointwise: bool) -> Rule | None:
    """The rule of an operation: its own, or the elementwise one for all that PyTorch tags as pointwise."""
    return RF_RULES.get(name) or (POINTWISE if is_pointwise else None)
