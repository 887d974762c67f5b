"""The second half of question 1(a): equivariance to translation, measured layer by layer."""

import math
from collections.abc import Sequence

from convolab.theory import equivariance
from convolab.theory.equivariance import EquivarianceMeasurement
from convolab.theory.sheet import ContentBlock, SheetFigure, Table, Text, make_sheet_table, run_sheet_check


def equivariance_blocks(seed: int) -> list[ContentBlock]:
    """The measurements of every layer, what they mean, and their checks."""
    measurements = equivariance.measure_all_layers(seed)
    return [
        Text(
            "**Equivariance, measured.** The input of each layer is shifted by $s$ pixels, circularly, and its output "
            "is compared with the shifted output of the original input. The error is the norm of the difference, "
            "relative to the norm of the output minus its mean: 0 is equivariant, and two unrelated outputs give "
            "about 141 %. A layer of stride 2 can move its output only by output pixels, of two input pixels each; "
            "the better of the two nearest shifts is used. The input is random pixels. Smooth images, such as photos, "
            "give other numbers: smaller errors where a stride skips pixels, and larger ones at a zero-padded border, "
            "where the padding makes an edge that the image does not have."
        ),
        equivariance_table(measurements),
        SheetFigure("equivariance", "Equivariance error against the shift.", measurements),
        Text(
            "**Zero padding** breaks equivariance at the border only, because there the layer sees the edge of the "
            "image; layer by layer the border grows inward. **Stride and pooling** keep it for shifts by multiples of "
            "the stride, and break it between them: other pixels are sampled, or grouped in another way. Blurring "
            "before the stride (anti-aliasing) reduces that. **Global pooling** turns equivariance into invariance: "
            "the position is discarded, the content kept."
        ),
        run_sheet_check(
            "a convolution with circular padding, ReLU, batch norm and stride-1 pooling are equivariant under every "
            "shift",
            lambda: check_stride_one_equivariance(measurements),
        ),
        run_sheet_check(
            "zero padding breaks it at the border only: all values that differ are next to an edge, or to where the "
            "shift moves one",
            lambda: check_zero_padding_border(seed),
        ),
        run_sheet_check(
            "stride and pooling keep it for multiples of the stride, and for no other shift",
            lambda: check_stride_multiples(measurements),
        ),
        run_sheet_check(
            "on smooth images the error of zero padding is larger than on random pixels, and that of strided pooling "
            "smaller",
            lambda: check_smooth_images(seed),
        ),
        run_sheet_check(
            "global average pooling is invariant; a fully-connected layer is not equivariant",
            lambda: check_pooling_and_linear(measurements),
        ),
    ]


def equivariance_table(measurements: Sequence[EquivarianceMeasurement]) -> Table:
    """A row per layer: its stride, its errors by shift, and how many values differ."""
    by_layer_and_shift = {(m.layer, m.shift): m for m in measurements}
    rows = []
    for layer_name in dict.fromkeys(m.layer for m in measurements):
        first = by_layer_and_shift[layer_name, 1]
        stride = first.stride if first.stride < equivariance.IMAGE_SIZE else "global"
        errors = [format_relative_error(by_layer_and_shift[layer_name, shift].relative_error) for shift in (1, 2, 4, 8)]
        rows.append([layer_name, stride, *errors, format_changed_fraction(first.changed_fraction)])
    headers = ("layer", "stride", "s = 1", "s = 2", "s = 4", "s = 8", "values that differ at s = 1")
    return make_sheet_table("Equivariance error, by layer and shift", headers, rows)


def check_stride_one_equivariance(measurements: list[EquivarianceMeasurement]) -> tuple[str, bool]:
    names = ("convolution 3x3, circular padding", "ReLU", "batch norm", "max pooling 3x3, stride 1, circular padding")
    errors = [m.relative_error for m in measurements if m.layer in names and m.shift]
    message = f"{len(errors)} shifts of {len(names)} layers: largest error {max(errors):.1g}"
    return message, max(errors) < equivariance.ROUNDING_TOLERANCE


def check_zero_padding_border(seed: int) -> tuple[str, bool]:
    """Which columns differ: the first and last see the edge, and a shift by s moves them to s and s - 1."""
    image_size = equivariance.IMAGE_SIZE
    images = equivariance.random_images(seed)
    zero_padded_conv = next(
        layer for layer in equivariance.layers_to_measure(seed) if layer.name == equivariance.ZERO_PADDED_CONV
    )
    columns_by_shift = {}
    for shift in range(1, 9):
        residual = equivariance.equivariance_residual(zero_padded_conv, images, shift).abs().amax((0, 1, 2))
        is_changed = residual > equivariance.ROUNDING_TOLERANCE
        columns_by_shift[shift] = set(is_changed.nonzero().flatten().tolist())
    first, last = (", ".join(map(str, sorted(columns_by_shift[shift]))) for shift in (1, 8))
    message = f"shift 1: columns {first}; shift 8: columns {last} of 0 to {image_size - 1}"
    return message, all(columns == {0, image_size - 1, shift - 1, shift} for shift, columns in columns_by_shift.items())


def check_stride_multiples(measurements: list[EquivarianceMeasurement]) -> tuple[str, bool]:
    strided = [
        m
        for m in measurements
        if 1 < m.stride < equivariance.IMAGE_SIZE and m.layer != "features of simple_convnet" and m.shift
    ]
    aligned_errors = [m.relative_error for m in strided if m.shift % m.stride == 0]
    misaligned_errors = [m.relative_error for m in strided if m.shift % m.stride]
    num_layers = len({m.layer for m in strided})
    message = (
        f"{num_layers} layers: at multiples of their strides at most {max(aligned_errors):.1g}, at other shifts at "
        f"least {format_relative_error(min(misaligned_errors))}"
    )
    return message, max(aligned_errors) < equivariance.ROUNDING_TOLERANCE and min(misaligned_errors) > 0.05


def check_smooth_images(seed: int) -> tuple[str, bool]:
    """Compare the errors of one zero-padded and one strided layer, under a shift by 1, on both kinds of images."""
    layers = {layer.name: layer for layer in equivariance.layers_to_measure(seed)}
    names = (equivariance.ZERO_PADDED_CONV, "max pooling 2x2, stride 2")
    on_random, on_smooth = (
        [equivariance.measure_equivariance(layers[name], images, 1).relative_error for name in names]
        for images in (equivariance.random_images(seed), equivariance.smooth_images(seed))
    )
    message = "; ".join(
        f"{name}: {format_relative_error(random)} on random pixels, {format_relative_error(smooth)} on smooth images"
        for name, random, smooth in zip(names, on_random, on_smooth, strict=True)
    )
    return message, on_smooth[0] > on_random[0] and on_smooth[1] < on_random[1]


def check_pooling_and_linear(measurements: list[EquivarianceMeasurement]) -> tuple[str, bool]:
    averages = [m.relative_error for m in measurements if m.layer == "global average pooling"]
    fully_connected = [m.relative_error for m in measurements if m.layer == "fully-connected" and m.shift]
    message = (
        f"average: largest error {max(averages):.1g}; fully-connected: {format_relative_error(min(fully_connected))} "
        f"to {format_relative_error(max(fully_connected))}"
    )
    return message, max(averages) < equivariance.ROUNDING_TOLERANCE and min(fully_connected) > 1


def format_relative_error(error: float) -> str:
    """As a percentage; 0 for what rounding explains."""
    if error < equivariance.ROUNDING_TOLERANCE:
        return "0"
    return f"{100 * error:.0f} %" if error >= 0.005 else f"{100 * error:.1g} %"


def format_changed_fraction(changed_fraction: float) -> str:
    return "none" if changed_fraction == 0 else f"{math.ceil(100 * changed_fraction)} %"
