"""The second half of question 1(a): equivariance to translation, measured layer by layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from convolab.core.stats import Interval
from convolab.theory import equivariance
from convolab.theory.equivariance import EquivarianceMeasurement, ImageComparison
from convolab.theory.sheet import Check, ContentBlock, SheetFigure, Table, Text, make_sheet_table, run_sheet_check

MAX_POOLING = "max pooling 2x2, stride 2"


@dataclass(frozen=True)
class EquivarianceResult:
    """What was measured: every layer under every shift, and some of them on photos too."""

    measurements: list[EquivarianceMeasurement]
    comparisons: list[ImageComparison]


def measure_for_sheet(seed: int) -> EquivarianceResult:
    """Measure everything that this half of the answer says."""
    return EquivarianceResult(equivariance.measure_all_layers(seed), equivariance.compare_on_photos(seed))


def equivariance_blocks(result: EquivarianceResult) -> list[ContentBlock]:
    """How equivariance is measured, the measurements, and what they mean."""
    return [
        Text(
            "**Equivariance, measured.** The input of each layer is shifted by $s$ pixels, circularly, and its output "
            "is compared with the shifted output of the original input. The error is the norm of the difference, "
            "relative to the norm of the output minus its mean: 0 is equivariant, and two unrelated outputs give "
            "about 141 %. A layer of stride 2 can move its output only by output pixels, of two input pixels each; "
            "the better of the two nearest shifts is used. The input is random pixels."
        ),
        equivariance_table(result.measurements),
        SheetFigure("equivariance", "Equivariance error against the shift, on random pixels.", result.measurements),
        Text(
            "**Zero padding** breaks equivariance at the border only, because there the layer sees the edge of the "
            "image; layer by layer the border grows inward. **Stride and pooling** keep it for shifts by multiples of "
            "the stride, and break it between them: other pixels are sampled, or grouped in another way. Blurring "
            "before the stride (anti-aliasing) reduces that. **Global pooling** turns equivariance into invariance: "
            "the position is discarded, the content kept."
        ),
        Text(describe_comparisons(result.comparisons)),
        photo_comparison_table(result.comparisons),
    ]


def describe_comparisons(comparisons: Sequence[ImageComparison]) -> str:
    """How photos differ from random pixels, in the words that the measured numbers ask for."""
    zero_padded = next(c for c in comparisons if c.layer == equivariance.ZERO_PADDED_CONV)
    pooled = next(c for c in comparisons if c.layer == MAX_POOLING)

    def errors(comparison: ImageComparison) -> str:
        larger = "more" if comparison.difference.mean > 0 else "less"
        on_photos, on_random = (format_relative_error(i.mean) for i in (comparison.on_photos, comparison.on_random))
        return f"{larger} on photos than on random pixels ({on_photos} against {on_random})"

    return (
        "**Photos** give other numbers than random pixels, because neighboring pixels resemble each other. Under a shift "
        f"by one pixel, over {zero_padded.difference.count} draws of the weights, the zero-padded convolution errs "
        f"{errors(zero_padded)} on average; in {zero_padded.num_larger_on_photos} of the draws it errs more. The "
        "zeros of the padding are an edge that the image does not have, and the error is relative to how much the output "
        f"varies, which is less for a smooth image. Max pooling with stride 2 errs {errors(pooled)}: a pixel that is "
        "skipped resembles its neighbors."
    )


def photo_comparison_table(comparisons: Sequence[ImageComparison]) -> Table:
    """A row per layer: its errors on both kinds of images."""
    rows = [
        [
            comparison.layer,
            format_relative_error(comparison.on_random.mean),
            format_relative_error(comparison.on_photos.mean),
            f"{comparison.num_larger_on_photos} of {comparison.difference.count}",
        ]
        for comparison in comparisons
    ]
    return make_sheet_table(
        f"Equivariance error at s = 1, mean over {comparisons[0].difference.count} draws of the weights",
        ("layer", "random pixels", "photos", "draws with more on photos"),
        rows,
    )


def equivariance_checks(result: EquivarianceResult, seed: int) -> list[Check]:
    """The checks of the measurements."""
    measurements = result.measurements
    return [
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
            "on photos zero padding errs more than on random pixels, on average over the draws of the weights, and "
            "every strided layer less",
            lambda: check_photos(result.comparisons),
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
    caption = (
        "Equivariance error, by layer and shift of s pixels: the norm of the output of the shifted input minus the "
        "shifted output, relative to the norm of the output minus its mean"
    )
    return make_sheet_table(caption, headers, rows)


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


def check_photos(comparisons: Sequence[ImageComparison]) -> tuple[str, bool]:
    """The sign of every layer's mean difference, beyond chance."""
    zero_padded, *strided = comparisons
    message = "; ".join(f"{c.layer}: {format_error_difference(c.difference)}" for c in comparisons)
    passed = zero_padded.difference.low > 0 and all(c.difference.high < 0 for c in strided)
    return f"photos minus random pixels, in percentage points (95 % confidence interval): {message}", passed


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


def format_error_difference(interval: Interval) -> str:
    """In percentage points, with its confidence interval where the draws differ."""
    mean, low, high = (
        f"{100 * value:+.0f}".replace("-", "−") for value in (interval.mean, interval.low, interval.high)
    )
    return mean if low == high else f"{mean} ({low} to {high})"


def format_changed_fraction(changed_fraction: float) -> str:
    return "none" if changed_fraction == 0 else f"{math.ceil(100 * changed_fraction)} %"
