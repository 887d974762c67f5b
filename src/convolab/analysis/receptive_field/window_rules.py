"""From which cells of its inputs each of PyTorch's operations computes a cell of its output.

Operations are named as below PyTorch's autograd, where few kinds are left; a rule takes the operation's arguments and output.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from convolab.analysis.receptive_field.interval_map import Windows, enlarged, listed, pooled_adaptively
from convolab.analysis.receptive_field.propagation import (
    NotFollowed,
    Place,
    Rule,
    Sight,
    every,
    first_tensor,
    mixed,
    sight_of,
)
from convolab.analysis.receptive_field.shape_rules import (
    along,
    attention,
    batch_norm,
    combined,
    concatenated,
    expanded,
    flipped,
    gated,
    multiplied,
    nothing,
    permuted,
    pieces,
    pointwise,
    reshaped,
    rolled,
    same,
    selected,
    sliced,
    stacked,
    transposed,
    unbound,
)

# Windows that slide


def slid(
    value: Tensor, slide: Callable[[Windows, int, int], Windows | None], out: Tensor, channels_mix: bool = True
) -> Sight:
    """Apply `slide(windows, axis, cells)` to the places on the last dimensions, [N, C, ...axes]; combine the channels."""

    def change(place: Place) -> Place:
        if place.dim == 1 and channels_mix:
            return mixed(place, [1], kept=False)
        if place.dim < 2:
            return place
        if place.inner != 1 or place.cells != value.shape[place.dim]:
            raise NotFollowed("a sliding window across merged axes")
        cells = out.shape[place.dim]
        windows = slide(place.windows, place.dim - 2, cells)
        if windows is None:
            raise NotFollowed("a map with cells that see nothing")
        if cells == 1:
            return place.alone(windows[0])
        return place._replace(windows=windows, cells=cells)

    return every(sight_of(value), change)


def axis(values: Sequence[int] | int, number: int) -> int:
    return values if isinstance(values, int) else values[number % len(values)]


def convolution(args, kwargs, out) -> Sight:
    value, weight, _, stride, padding, dilation, is_transposed, _, groups = args
    if groups > 1 and any(place.dim == 1 for place in sight_of(value)):
        raise NotFollowed("a grouped convolution with an axis for channels")

    def slide(windows: Windows, number: int, cells: int) -> Windows | None:
        how = windows.transposed if is_transposed else windows.convolved
        return how(
            weight.shape[2 + number],
            axis(stride, number),
            axis(padding, number),
            dilation=axis(dilation, number),
            cells=cells,
        )

    return slid(value, slide, out)


def pooling(has_dilation: bool) -> Rule:
    """(input, kernel, stride, padding, dilation or ceil_mode, ...) over the last dimensions."""

    def rule(args, kwargs, out) -> Sight:
        value, kernel, stride, padding, dilation = (*args[:5], *([], 0, 1)[max(len(args[:5]) - 2, 0) :])
        dilation = dilation if has_dilation else 1
        out = first_tensor(out)
        batchless = 2 + len(kernel) - value.ndim  # a map without a batch, [C, ...axes]
        if batchless:
            raise NotFollowed("pooling of a map without a batch dimension")

        def slide(windows: Windows, number: int, cells: int) -> Windows | None:
            return windows.convolved(
                axis(kernel, number),
                axis(stride or kernel, number),
                axis(padding, number),
                axis(dilation, number),
                cells=cells,
            )

        return slid(value, slide, out, channels_mix=False)

    return rule


def adaptive_pooling(args, kwargs, out) -> Sight:
    value, out = args[0], first_tensor(out)

    def slide(windows: Windows, number: int, cells: int) -> Windows | None:
        before = value.shape[2 + number]
        if before % cells == 0:
            return windows.convolved(before // cells, before // cells, cells=cells)
        reads = pooled_adaptively(before, cells)
        return listed(windows.over(reads(cell)) for cell in range(cells))

    return slid(value, slide, out, channels_mix=False)


def padded(args, kwargs, out) -> Sight:
    """Padding moves the cells; what stands beyond the border counts as the map's continuation."""
    value, pad = args[:2]
    before = {value.ndim - 1 - i: pad[2 * i] for i in range(len(pad) // 2)}

    def change(place: Place) -> Place:
        cells = out.shape[place.dim]
        if cells == value.shape[place.dim] and not before.get(place.dim):
            return place
        if place.inner != 1 or place.cells != value.shape[place.dim] or place.windows.step is None:
            raise NotFollowed("padding across merged or uneven cells")
        return place._replace(windows=place.windows.convolved(1, 1, before[place.dim], cells=cells), cells=cells)

    return every(sight_of(value), change)


def upsampling(kind: str) -> Rule:
    def rule(args, kwargs, out) -> Sight:
        value, out = args[0], first_tensor(out)
        corners = kind in ("linear", "cubic") and len(args) > 2 and args[2] is True
        scales = args[3 if kind in ("linear", "cubic") else 2 :]

        def slide(windows: Windows, number: int, cells: int) -> Windows | None:
            before = value.shape[2 + number]
            if kind == "nearest" and cells % before == 0:
                return windows.through(lambda o: [o * before // cells], Fraction(before, cells), cells)
            if corners and kind == "cubic":
                raise NotFollowed("bicubic interpolation with align_corners")
            scale = scales[number] if len(scales) > number else None
            reads = enlarged(before, cells, "linear-corners" if corners else kind, scale)
            return listed(windows.over(reads(cell)) for cell in range(cells))

        return slid(value, slide, out, channels_mix=False)

    return rule


def shuffled(args, kwargs, out) -> Sight:
    value, factor = args[:2]
    return slid(
        value, lambda windows, _, cells: windows.through(lambda o: [o // factor], Fraction(1, factor), cells), out
    )


def unshuffled(args, kwargs, out) -> Sight:
    value, factor = args[:2]
    return slid(value, lambda windows, _, cells: windows.convolved(factor, factor, cells=cells), out)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        [
            "view",
            "_unsafe_view",
            "reshape",
            "_reshape_alias",
            "squeeze",
            "unsqueeze",
            "flatten",
            "unflatten",
            "view_as",
        ],
        reshaped,
    ),
    **dict.fromkeys(["alias", "detach", "contiguous", "clone", "_to_copy", "lift_fresh", "dropout"], same),
    **dict.fromkeys(
        [
            "zeros_like",
            "ones_like",
            "empty_like",
            "full_like",
            "rand_like",
            "randn_like",
            "new_zeros",
            "new_ones",
            "new_empty",
            "new_full",
        ],
        nothing,
    ),
    **dict.fromkeys(["zero_", "fill_", "new_empty_strided", "empty_strided"], nothing),
    **dict.fromkeys(["hardswish", "_prelu_kernel", "log_sigmoid_forward", "rrelu_with_noise"], pointwise),
    "glu": gated,
    "permute": permuted,
    **dict.fromkeys(("transpose", "t", "numpy_T"), transposed),
    "expand": expanded,
    "select": selected,
    "slice": sliced,
    **dict.fromkeys(
        ["split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "chunk", "unsafe_chunk"], pieces
    ),
    "unbind": unbound,
    "cat": concatenated,
    "stack": stacked,
    "flip": flipped,
    "roll": rolled,
    **dict.fromkeys(
        [
            "mean",
            "sum",
            "amax",
            "amin",
            "max",
            "min",
            "var",
            "std",
            "var_mean",
            "std_mean",
            "logsumexp",
            "linalg_vector_norm",
            "norm",
            "any",
            "all",
        ],
        combined,
    ),
    **dict.fromkeys(
        ["_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax"],
        along(lambda args: [args[1] % args[0].ndim]),
    ),
    "native_layer_norm": along(lambda args: range(args[0].ndim - len(args[1]), args[0].ndim)),
    "_fused_rms_norm": along(lambda args: range(args[0].ndim - len(args[1]), args[0].ndim)),
    "native_group_norm": along(lambda args: range(1, args[0].ndim)),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"), batch_norm),
    **dict.fromkeys(["mm", "bmm", "addmm", "baddbmm"], multiplied),
    **dict.fromkeys(
        [
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
        ],
        attention,
    ),
    "convolution": convolution,
    **dict.fromkeys(
        [f"max_pool{d}d_with_indices" for d in (2, 3)] + ["max_pool2d", "max_pool3d", "max_pool1d"], pooling(True)
    ),
    **dict.fromkeys([f"avg_pool{d}d" for d in (1, 2, 3)], pooling(False)),
    **dict.fromkeys(
        ["_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"], adaptive_pooling
    ),
    **dict.fromkeys(
        ["constant_pad_nd", *(f"{kind}_pad{d}d" for kind in ("reflection", "replication") for d in (1, 2, 3))], padded
    ),
    **dict.fromkeys([f"upsample_nearest{d}d" for d in (1, 2, 3)], upsampling("nearest")),
    **dict.fromkeys([f"_upsample_nearest_exact{d}d" for d in (1, 2, 3)], upsampling("nearest-exact")),
    **dict.fromkeys(["upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d"], upsampling("linear")),
    "upsample_bicubic2d": upsampling("cubic"),
    "pixel_shuffle": shuffled,
    "pixel_unshuffle": unshuffled,
}


def rule_for(func: torch._ops.OpOverload, name: str) -> Rule | None:
    """The rule of an operation: its own, or the elementwise one for all that PyTorch tags so."""
    if name in RULES:
        return RULES[name]
    return pointwise if torch.Tag.pointwise in func.tags else None
