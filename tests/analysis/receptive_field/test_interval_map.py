"""The arithmetic of interval maps, compared with a computation pixel by pixel."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from convolab.analysis.receptive_field.interval_map import (
    IntervalMap,
    adaptive_pool_taps,
    interpolation_taps,
)

IMAGE = IntervalMap((0,), (0,), 1)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2)), min_size=1, max_size=4
    ),
    st.integers(0, 9),
)
def test_consecutive_convolutions_depend_on_all_pixels_that_their_taps_reach(
    layers: list[tuple[int, int, int, int]], cell: int
) -> None:
    intervals, pixels = IMAGE, {cell}
    for kernel, stride, padding, dilation in layers:
        intervals = intervals.convolve(kernel, stride, padding, dilation)
    for kernel, stride, padding, dilation in reversed(layers):
        pixels = {p * stride - padding + t * dilation for p in pixels for t in range(kernel)}
    assert intervals[cell] == (min(pixels), max(pixels))
    assert intervals.size == max(pixels) - min(pixels) + 1


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), st.integers(0, 30))
def test_a_transposed_convolution_reads_the_cells_that_reach_it(
    kernel: int, stride: int, padding: int, before: int, cell: int
) -> None:
    inputs = IMAGE.convolve(3, before)
    intervals = inputs.conv_transpose(kernel, stride, padding, 1, 99)
    reached = [i for i in range(-20, 60) if 0 <= cell + padding - i * stride < kernel]
    if kernel < stride:
        assert intervals is None  # some cells depend on no pixel
    else:
        assert intervals[cell] == inputs.cells_hull(reached)
        assert intervals.stride == Fraction(before, stride)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize(("cells", "size"), [(7, 14), (7, 15), (7, 9), (12, 5), (5, 20)])
def test_interpolation_reads_the_cells_with_a_weight_in_torch(mode: str, cells: int, size: int) -> None:
    kind = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    eye = torch.eye(cells, dtype=torch.float64).view(cells, 1, cells, 1).expand(-1, -1, -1, 2)
    options = {} if "nearest" in mode else {"align_corners": False}
    weight = F.interpolate(eye, size=(size, 2), mode=mode, **options)[:, 0, :, 0]  # [cell read, cell given]
    for cell in range(size):
        cells_with_weight = {i for i in range(cells) if abs(weight[i, cell]) > 1e-12}
        taps = set(interpolation_taps(cells, size, kind)(cell))
        assert (min(cells_with_weight), max(cells_with_weight)) == (min(taps), max(taps))


def test_interpolation_with_aligned_corners_reads_the_same_cells_as_torch() -> None:
    eye = torch.eye(6, dtype=torch.float64).view(6, 1, 6)
    weight = F.interpolate(eye, size=11, mode="linear", align_corners=True)[:, 0]
    for cell in range(11):
        cells_with_weight = [i for i in range(6) if abs(weight[i, cell]) > 1e-9]
        assert cells_with_weight == sorted(set(interpolation_taps(6, 11, "linear-corners")(cell)))


@pytest.mark.parametrize(("cells", "size"), [(7, 3), (10, 4), (9, 9), (6, 3), (3, 7)])
def test_adaptive_pooling_reads_the_cells_that_torch_averages(cells: int, size: int) -> None:
    weight = F.adaptive_avg_pool1d(torch.eye(cells).view(cells, 1, cells), size)[:, 0]
    for cell in range(size):
        assert list(adaptive_pool_taps(cells, size)(cell)) == weight[:, cell].nonzero().flatten().tolist()


def test_intervals_of_branches_are_united_cell_by_cell() -> None:
    wide, narrow = IMAGE.convolve(5, 2, 2), IMAGE.convolve(2, 2)
    assert wide.union(narrow, 9) == wide
    assert IMAGE.convolve(1, 2, 3).union(narrow, 9) == IntervalMap((-3,), (1,), 2)
    upsampled = IMAGE.convolve(2, 2).compose(lambda o: [o // 2], Fraction(1, 2), 8)  # nearest upsampling
    assert (upsampled.first, upsampled.last, upsampled.step) == ((0, 0), (1, 1), 2)
    union = upsampled.union(IMAGE, 8)
    assert [union[cell] for cell in range(4)] == [(0, 1), (0, 1), (2, 3), (2, 3)]
    assert IMAGE.union(IntervalMap((3,), (4,), 0), 5)[0] == (0, 4)


def test_identical_phases_are_merged() -> None:
    halved = IMAGE.convolve(2, 2).compose(lambda o: [o // 2], Fraction(1, 2), 8).convolve(2, 2)
    assert halved == IMAGE.convolve(2, 2)


def test_cells_that_depend_on_no_pixel_are_not_in_the_hull() -> None:
    intervals = IntervalMap.from_list([None, (3, 5), (4, 9)])
    assert intervals[0] is None
    assert intervals.cells_hull(range(3)) == (3, 9)
    assert intervals.size == 6
    assert intervals.stride is None
