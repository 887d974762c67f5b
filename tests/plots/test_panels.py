"""Findings as figures: the colors of heatmaps, boxes, captions and warnings."""

import numpy as np
import pytest
import torch

from convolab.inspection.result import Box, Finding, Panel
from convolab.plots import panels


def photo(rows: int = 40, columns: int = 60, value: int = 120) -> torch.Tensor:
    return torch.full((3, rows, columns), value, dtype=torch.uint8)


def finding(*row: Panel, warnings: tuple[str, ...] = ()) -> Finding:
    return Finding("test", ("a title", "a subtitle"), {}, {}, (row,), warnings)


def test_zero_has_the_first_or_the_middle_color_and_the_limit_the_last():
    signed = panels.colorize_heatmap(torch.tensor([[-2.0, 0.0, 2.0]]), signed=True)
    assert [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.asarray(signed)[0]] == [
        panels.DIVERGING_COLORMAP[0],
        "#f7f7f7",
        panels.DIVERGING_COLORMAP[-1],
    ]
    plain = panels.colorize_heatmap(torch.tensor([[0.0, 4.0]]), signed=False)
    assert [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.asarray(plain)[0]] == [
        panels.SEQUENTIAL_COLORMAP[0],
        panels.SEQUENTIAL_COLORMAP[-1],
    ]


def test_the_color_limit_is_the_maximum_of_few_cells_and_a_percentile_of_many_pixels():
    assert panels.color_limit(torch.tensor([[1.0, -8.0]]), signed=True) == 8
    assert panels.color_limit(torch.tensor([[1.0, -8.0]]), signed=False) == 1
    many = torch.linspace(0, 1, 10_000).view(100, 100)
    many[0, 0] = 1000
    assert 0.99 < panels.color_limit(many, signed=False) < 1.01
    assert panels.color_limit(torch.zeros(2, 2), signed=True) == 1


@pytest.mark.slow
def test_a_raw_map_shows_its_cells_and_a_photo_keeps_its_shape():
    frame = np.asarray(panels.render_frame(Panel(title="", heatmap=torch.eye(2))))
    assert frame.shape == (panels.FRAME_WIDTHS[0], panels.FRAME_WIDTHS[0], 3)
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) == 2
    assert panels.render_frame(Panel(title="", image=photo())).size == (
        panels.FRAME_WIDTHS[0],
        panels.FRAME_WIDTHS[0] * 40 // 60,
    )


def test_an_overlay_is_gray_where_the_map_is_zero_and_colored_where_it_is_strong():
    heatmap = torch.zeros(10, 10)
    heatmap[:, 5:] = 1.0
    frame = np.asarray(panels.render_frame(Panel(title="", image=photo(50, 50), heatmap=heatmap))).astype(int)
    left, right = frame[150, 20], frame[150, -20]
    assert left.max() - left.min() == 0
    assert right[0] - right[2] > 50


def test_a_nonfinite_map_has_a_marked_frame_and_a_warning_above_it():
    nan_map = torch.full((4, 4), float("nan"))
    figure = panels.render_finding(
        finding(
            Panel(title="nan", heatmap=nan_map),
            Panel(title="over", image=photo(), heatmap=nan_map),
            warnings=("the map is not finite",),
        )
    )
    assert figure.width == 2 * (panels.FRAME_WIDTHS[1] + panels.FRAME_GAP) + panels.FRAME_GAP
    warning_color = np.array([int(panels.WARNING_COLOR[i : i + 2], 16) for i in (1, 3, 5)])
    assert (np.abs(np.asarray(figure).astype(int) - warning_color).sum(2) < 60).any()


def test_a_box_is_drawn_at_its_position():
    frame = np.asarray(
        panels.render_frame(Panel(title="", image=photo(30, 30, 200), boxes=(Box(10, 5, 20, 25, "cat"),)))
    ).astype(int)
    assert (np.abs(frame - np.array([0xFF, 0xD4, 0x00])).sum(2) < 30)[50:250, 100:200].any()
    assert (frame[270:, 210:] == 200).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(30, 30), (2000, 3000)])
def test_a_box_of_one_pixel_is_drawn_and_visible(size):
    frame = np.asarray(
        panels.render_frame(
            Panel(title="", image=photo(*size, 200), boxes=(Box(0, 0, 1, 1, "x"), Box(size[1] - 1, 9, size[1], 10)))
        )
    ).astype(int)
    assert (np.abs(frame - np.array([0xFF, 0xD4, 0x00])).sum(2) < 30).any()


@pytest.mark.parametrize("width", [80, 300])
def test_no_line_is_wider_than_its_frame_and_no_word_is_dropped(width):
    font = panels.ImageFont.load_default(13)
    text = "mean + bias = logit, to 4e-07\nframe: the network's input, in its own size and colors"
    lines = panels.wrap_text(text, font, width)
    assert all(font.getlength(line) <= width for line in lines)
    assert " ".join(lines).split() == text.split()


def test_captions_and_rows_of_different_heights_do_not_overlap():
    rows = (
        (Panel(title="a", image=photo(), caption="one\ntwo\nthree"), Panel(title="b", heatmap=torch.rand(3, 3))),
        (Panel(title=""), Panel(title="c", image=photo())),
    )
    figure = panels.render_finding(Finding("test", ("title",), {}, {}, rows))
    assert figure.height > sum(max(panels.render_panel(panel).height for panel in row) for row in rows)


def test_a_curve_rises_from_the_bottom_left_to_the_top_right() -> None:
    frame = np.asarray(panels.render_frame(Panel(title="", curve=(0.0, 10.0, 100.0)), 300)).astype(int)
    blue = np.abs(frame - np.array([0x00, 0x72, 0xB2])).sum(2) < 30
    assert blue[240:255, 50:70].any()
    assert blue[5:20, 280:295].any()
    assert not blue[:150, :200].any()


def test_a_figure_of_up_to_four_columns_fits_a_page_of_1400_pixels() -> None:
    for columns in range(1, 5):
        width = columns * (panels.frame_width(columns) + panels.FRAME_GAP) + panels.FRAME_GAP
        assert width <= panels.FIGURE_WIDTH <= 1400


def test_a_grid_is_drawn_and_named_only_where_its_cells_are_large_on_the_figure() -> None:
    def grid(spacing: int) -> Panel:
        lines = tuple(float(position) for position in range(0, 301, spacing))
        return Panel(title="", image=photo(300, 300), grid=(lines, lines))

    coarse, fine = grid(15), grid(13)
    assert len(panels.visible_grid_lines(coarse, 300)) == 2 * 19
    assert panels.visible_grid_lines(fine, 300) == []
    assert panels.visible_grid_lines(fine, 408)  # a larger frame has larger cells
    heights = {panels.render_panel(panel, 300).height for panel in (fine, Panel(title="", image=photo(300, 300)))}
    assert len(heights) == 1
    assert panels.render_panel(coarse, 300).height > heights.pop()  # a line says what the lines are


def test_a_title_that_is_too_long_ends_in_dots_and_a_box_label_stays_in_the_frame() -> None:
    font = panels.ImageFont.load_default(19)
    assert panels.shorten_text("CAM", font, 300) == "CAM"
    short = panels.shorten_text("German short-haired pointer " * 3, font, 300)
    assert short.endswith("...")
    assert font.getlength(short) <= 300
    box = Box(280, 280, 300, 300, "46 % on this box alone")
    frame = np.asarray(panels.render_frame(Panel(title="", image=photo(300, 300, 200), boxes=(box,)))).astype(int)
    assert (np.abs(frame - np.array([0xFF, 0xD4, 0x00])).sum(2) < 30)[:, 140:180].any()  # it begins left of its box


def test_a_constant_map_says_so_below_it_and_any_other_does_not() -> None:
    constant, other = torch.zeros(4, 4), torch.eye(4)
    assert panels.describe_constant(constant) == "constant map: every cell is 0"
    assert panels.describe_constant(other) == ""
    heights = [panels.render_panel(Panel(title="map", heatmap=heatmap)).height for heatmap in (constant, other)]
    assert heights[0] > heights[1]
