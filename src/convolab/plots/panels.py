"""Findings as figures, by Pillow: rows of images, maps and maps laid over images.

Only here do a map's numbers become colors; which number has which color is written below it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from convolab.core.escape import escape_line, printable_lines
from convolab.inspection.result import Finding, Panel, map_invalid_reason
from convolab.plots.images import to_pil_image
from convolab.plots.style import BLUE

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
FIGURE_WIDTH = 1320  # pixels of a figure of three or four columns
FRAME_WIDTHS = (300, 408)  # pixels of a frame, at least and at most
FRAME_GAP = 24  # pixels between frames
COLORBAR_HEIGHT = 14  # pixels of the bar alone
LEGEND_HEIGHT = 46  # pixels of the bar with the numbers below it
HEADING_SIZE, TITLE_SIZE, TEXT_SIZE = 24, 19, 16  # pixels of the type: of the figure, of a panel, of what is below it
LINE_HEIGHTS = {HEADING_SIZE: 32, TITLE_SIZE: 28, TEXT_SIZE: 22}
TEXT_COLOR, CAPTION_COLOR, WARNING_COLOR, BOX_COLOR = "#1a1a1a", "#666666", "#B00020", "#ffd400"
MIN_BOX_SIDE = 4  # pixels of a frame that a box takes at least
MIN_GRID_SPACING = 14  # pixels between lines of a grid that are still drawn
MAX_DOTTED_STEPS = 30  # of a curve whose points have dots
COLOR_QUANTILE = 0.995  # of a map's values that have colors of their own; what is beyond has the last color
MIN_QUANTILE_CELLS = 1000  # a map of fewer cells ends at its largest value
SEQUENTIAL_COLORMAP = ("#000004", "#420a68", "#932667", "#dd513a", "#fca50a", "#fcffa4")  # matplotlib's inferno
DIVERGING_COLORMAP = ("#003a5d", "#0072B2", "#8ec1df", "#f7f7f7", "#f0a977", "#D55E00", "#6e3000")  # against, 0, for


def render_finding(finding: Finding) -> Image.Image:
    """A finding's rows of panels, below the first lines of its summary and its warnings."""
    texts = [(finding.heading, HEADING_SIZE, TEXT_COLOR)]
    texts += [(text, TEXT_SIZE, CAPTION_COLOR) for text in finding.summary[1:2]]
    texts += [(f"Warning: {text}", TEXT_SIZE, WARNING_COLOR) for text in finding.warnings]
    return render_rows(finding.panels, texts)


def render_rows(panels: Sequence[Sequence[Panel]], texts: Sequence[tuple[str, int, str]]) -> Image.Image:
    """Rows of panels below texts, each with its size in pixels, a key of `LINE_HEIGHTS`, and its color."""
    columns = max(len(row) for row in panels)
    panel_width = frame_width(columns)
    width = columns * (panel_width + FRAME_GAP) + FRAME_GAP
    lines = [
        (line, size, color)
        for text, size, color in texts
        for line in wrap_text(text, ImageFont.load_default(size), width - 2 * FRAME_GAP)
    ]
    rows = [[render_panel(panel, panel_width) for panel in row] for row in panels]
    row_heights = [max(frame.height for frame in row) for row in rows]
    top = FRAME_GAP + sum(LINE_HEIGHTS[size] for _, size, _ in lines) + 10
    canvas = Image.new("RGB", (width, top + sum(row_heights) + FRAME_GAP // 2 * len(rows)), "white")
    draw = ImageDraw.Draw(canvas)
    y = FRAME_GAP
    for line, size, color in lines:
        draw.text((FRAME_GAP, y), line, fill=color, font=ImageFont.load_default(size))
        y += LINE_HEIGHTS[size]
    y = top
    for row, height in zip(rows, row_heights, strict=True):
        for column, frame in enumerate(row):
            canvas.paste(frame, (FRAME_GAP + column * (panel_width + FRAME_GAP), y))
        y += height + FRAME_GAP // 2
    return canvas


def frame_width(columns: int) -> int:
    """Pixels of a frame where there are so many side by side.

    >>> [frame_width(columns) for columns in (1, 3, 4, 5)]
    [408, 408, 300, 300]
    """
    least, most = FRAME_WIDTHS
    return max(least, min(most, (FIGURE_WIDTH - FRAME_GAP) // columns - FRAME_GAP))


def render_panel(panel: Panel, width: int = FRAME_WIDTHS[0]) -> Image.Image:
    """One panel: title, frame, color bar, and in words the bar's numbers, the caption and what the lines are."""
    font = ImageFont.load_default(TEXT_SIZE)
    frame = render_frame(panel, width)
    frame_top = LINE_HEIGHTS[TITLE_SIZE] if panel.title else 0
    frame_bottom = frame_top + (0 if frame is None else frame.height)
    colored = panel.heatmap if panel.colorbar_label else None
    if colored is not None and not is_finite_map(colored):
        colored = None
    caption_top = frame_bottom + (4 if colored is None else LEGEND_HEIGHT)
    colorbar_caption = (
        "" if colored is None else f"{panel.colorbar_label}\n{describe_color_limit(colored, panel.signed)}"
    )
    grid_caption = "lines: borders of the map's cells" if visible_grid_lines(panel, width) else ""
    constant_caption = "" if panel.heatmap is None else describe_constant(panel.heatmap)
    caption = "\n".join(filter(None, (constant_caption, colorbar_caption, panel.caption, grid_caption)))
    lines = wrap_text(caption, font, width)
    canvas = Image.new("RGB", (width, caption_top + LINE_HEIGHTS[TEXT_SIZE] * len(lines) + 8), "white")
    draw = ImageDraw.Draw(canvas)
    if panel.title:
        title_font = ImageFont.load_default(TITLE_SIZE)
        draw.text((0, 0), shorten_text(panel.title, title_font, width), fill=TEXT_COLOR, font=title_font)
    if frame is not None:
        canvas.paste(frame, (0, frame_top))
    if colored is not None:
        draw_colorbar(canvas, colored, panel.signed, frame_bottom + 6)
    for index, line in enumerate(lines):
        draw.text((0, caption_top + LINE_HEIGHTS[TEXT_SIZE] * index), line, fill=CAPTION_COLOR, font=font)
    return canvas


def render_frame(panel: Panel, width: int = FRAME_WIDTHS[0]) -> Image.Image | None:
    """A panel's frame, `width` pixels wide: its image, its curve or its map; None for a panel of text alone.

    Small images and raw maps keep their pixels and cells visible.
    """
    if panel.image is not None:
        return render_image(panel, panel.image, width)
    if panel.curve:
        return render_curve(panel.curve, width)
    if panel.heatmap is None:
        return None
    size = frame_size(panel.heatmap, width)
    if not is_finite_map(panel.heatmap):
        return placeholder_frame(size)
    return colorize_heatmap(panel.heatmap, panel.signed).resize(size, Image.Resampling.NEAREST)


def frame_size(pixels: Tensor, width: int) -> tuple[int, int]:
    """Width and height of the frame for an image or a map."""
    rows, columns = pixels.shape[-2:]
    return width, max(1, round(width * rows / columns))


def render_image(panel: Panel, image: Tensor, width: int) -> Image.Image:
    """A panel's image with its boxes, the map over it and the grid."""
    size, zoom = frame_size(image, width), width / image.shape[-1]
    frame = to_pil_image(image).resize(size, Image.Resampling.NEAREST if zoom > 2 else Image.Resampling.LANCZOS)
    draw_boxes(frame, panel, zoom)
    if panel.heatmap is not None and is_finite_map(panel.heatmap):
        frame = overlay_heatmap(frame, panel.heatmap, panel.signed)
    draw_grid(frame, visible_grid_lines(panel, width))
    return frame


def render_curve(percentages: Sequence[float], width: int) -> Image.Image:
    """Percentages against steps, from 0 to 100 %."""
    frame = Image.new("RGB", (width, width), "white")
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(TEXT_SIZE)
    left, right, top, bottom = 58, width - 12, 12, width - 52
    steps = max(1, len(percentages) - 1)
    for percent in (0, 50, 100):
        y = bottom + percent * (top - bottom) // 100
        draw.line((left, y, right, y), fill="#dddddd")
        draw.text((left - 8, y), f"{percent} %", fill=CAPTION_COLOR, font=font, anchor="rm")
    for step in sorted({0, steps // 2, steps}):
        x = left + step * (right - left) // steps
        draw.text((x, bottom + 8), str(step), fill=CAPTION_COLOR, font=font, anchor="ma")
    draw.text(((left + right) // 2, bottom + 28), "step", fill=CAPTION_COLOR, font=font, anchor="ma")
    points = [
        (left + step * (right - left) / steps, bottom + percent * (top - bottom) / 100)
        for step, percent in enumerate(percentages)
    ]
    draw.line(points, fill=BLUE, width=3)
    if steps <= MAX_DOTTED_STEPS:
        for x, y in points:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=BLUE)
    return frame


def overlay_heatmap(frame: Image.Image, heatmap: Float[Tensor, "h w"], signed: bool) -> Image.Image:
    """A map in its colors over a gray frame; the stronger it is, the less of the frame is seen."""
    upsampled = torch.nn.functional.interpolate(
        heatmap[None, None].float(), (frame.height, frame.width), mode="bilinear", align_corners=False
    )[0, 0]
    # The limit is the raw map's, so that a color means the same number in both.
    strength = normalize_heatmap(upsampled, signed, color_limit(heatmap, signed))
    opacity = strength.abs().clamp(0, 1).pow(0.7).mul(0.85).numpy()[..., None]
    gray = np.asarray(frame.convert("L").convert("RGB"), dtype=np.float32) * 0.75 + 40
    colors = np.asarray(apply_colormap(strength, signed), dtype=np.float32)
    return Image.fromarray(((1 - opacity) * gray + opacity * colors).clip(0, 255).astype(np.uint8))


def visible_grid_lines(panel: Panel, width: int) -> list[tuple[int, int]]:
    """The axis and the pixel of each line of a panel's grid; none where they would hide what they divide."""
    if panel.image is None:
        return []
    size, zoom = frame_size(panel.image, width), width / panel.image.shape[-1]
    visible = []
    for axis, lines in enumerate(panel.grid):
        spacing = zoom * (lines[-1] - lines[0]) / (len(lines) - 1) if len(lines) > 1 else float("inf")
        if spacing >= MIN_GRID_SPACING:
            visible += [(axis, round(zoom * line)) for line in lines if 0 < round(zoom * line) < size[1 - axis]]
    return visible


def draw_grid(frame: Image.Image, lines: Sequence[tuple[int, int]]) -> None:
    """Horizontal lines (axis 0) and vertical ones, half transparent."""
    for axis, position in lines:
        strip = (0, position, frame.width, position + 1) if axis == 0 else (position, 0, position + 1, frame.height)
        pixels = frame.crop(strip)
        frame.paste(Image.blend(pixels, Image.new("RGB", pixels.size, "white"), 0.45), strip[:2])


def draw_boxes(frame: Image.Image, panel: Panel, zoom: float) -> None:
    """A panel's boxes: a bright line between dark ones is visible on any background."""
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(TEXT_SIZE)
    corners = []
    for box in panel.boxes:
        left, top = zoom * box.left, zoom * box.top
        right = max(zoom * box.right - 1, left + MIN_BOX_SIDE)
        bottom = max(zoom * box.bottom - 1, top + MIN_BOX_SIDE)
        draw.rectangle((left, top, right, bottom), outline="black", width=4)
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=BOX_COLOR, width=2)
        corners.append((max(left, 0) + 6, max(top, 0) + 5))
    for box, (left, top) in reversed(list(zip(panel.boxes, corners, strict=True))):  # the first box's is never hidden
        label = shorten_text(box.label, font, frame.width - 8)
        if label:
            position = (min(left, frame.width - font.getlength(label) - 4), min(top, frame.height - 24))
            background = draw.textbbox(position, label, font=font)
            draw.rectangle((background[0] - 3, background[1] - 3, background[2] + 3, background[3] + 3), fill="black")
            draw.text(position, label, fill=BOX_COLOR, font=font)


def placeholder_frame(size: tuple[int, int]) -> Image.Image:
    """The frame of a map that is not finite."""
    frame = Image.new("RGB", size, "#eeeeee")
    middle = (size[0] // 2, size[1] // 2)
    font = ImageFont.load_default(16)
    ImageDraw.Draw(frame).text(middle, "no finite values", fill=WARNING_COLOR, font=font, anchor="mm")
    return frame


def is_finite_map(heatmap: Float[Tensor, "h w"]) -> bool:
    return bool(heatmap.isfinite().all())


def color_limit(heatmap: Float[Tensor, "h w"], signed: bool) -> float:
    """The number that has the last color: the 99.5th percentile, or the largest of a map of few cells."""
    magnitude = heatmap.abs() if signed else heatmap.clamp(min=0)
    largest = float(magnitude.max())
    if heatmap.numel() < MIN_QUANTILE_CELLS:
        return largest or 1.0
    return float(magnitude.flatten().double().quantile(COLOR_QUANTILE)) or largest or 1.0


def normalize_heatmap(heatmap: Float[Tensor, "h w"], signed: bool, limit: float) -> Float[Tensor, "h w"]:
    """A map divided by its limit: in [-1, 1] where it is signed, else in [0, 1]."""
    return (heatmap / limit).clamp(-1 if signed else 0, 1)


def apply_colormap(strength: Float[Tensor, "h w"], signed: bool) -> Image.Image:
    """Colors for a normalized map, interpolated between the stops of its colormap."""
    stops = DIVERGING_COLORMAP if signed else SEQUENTIAL_COLORMAP
    stop_colors = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops], dtype=np.float64)
    positions = ((strength.double() + 1) / 2 if signed else strength.double()).numpy() * (len(stops) - 1)
    channels = [np.interp(positions, np.arange(len(stops)), stop_colors[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def colorize_heatmap(heatmap: Float[Tensor, "h w"], signed: bool) -> Image.Image:
    return apply_colormap(normalize_heatmap(heatmap, signed, color_limit(heatmap, signed)), signed)


def draw_colorbar(canvas: Image.Image, heatmap: Float[Tensor, "h w"], signed: bool, top: int) -> None:
    """A bar of the colors, as wide as the canvas, with the numbers at its ends."""
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(TEXT_SIZE)
    limit = f"{color_limit(heatmap, signed):.3g}"
    ramp = torch.linspace(-1 if signed else 0, 1, canvas.width).expand(COLORBAR_HEIGHT, canvas.width)
    canvas.paste(apply_colormap(ramp, signed), (0, top))
    ticks_top = top + COLORBAR_HEIGHT + 4
    draw.text((0, ticks_top), f"-{limit}" if signed else "0", fill=TEXT_COLOR, font=font)
    draw.text((canvas.width, ticks_top), limit, fill=TEXT_COLOR, font=font, anchor="ra")
    if signed:
        draw.text((canvas.width // 2, ticks_top), "0", fill=TEXT_COLOR, font=font, anchor="ma")


def describe_constant(heatmap: Float[Tensor, "h w"]) -> str:
    """What the caption says of a map without differences, which shows as one color; empty for any other.

    >>> describe_constant(torch.zeros(2, 2)), describe_constant(torch.eye(2))
    ('constant map: every cell is 0', '')
    """
    return (
        f"constant map: every cell is {float(heatmap[0, 0]):.3g}" if map_invalid_reason(heatmap) == "constant" else ""
    )


def describe_color_limit(heatmap: Float[Tensor, "h w"], signed: bool) -> str:
    """What the number with the last color is, and what was cut off.

    >>> describe_color_limit(torch.eye(2), signed=True)
    'colors end at the largest value'
    """
    largest = float(heatmap.abs().max())
    if largest > color_limit(heatmap, signed) * 1.0001:
        return f"colors end at the 99.5th percentile; largest: {largest:.3g}"
    return "colors end at the largest value"


def shorten_text(text: str, font: Font, width: int) -> str:
    """A text in one line no wider than `width` pixels: what does not fit becomes an ellipsis."""
    text = escape_line(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text.rstrip()}..."


def wrap_text(text: str, font: Font, width: int) -> list[str]:
    """Lines no wider than `width` pixels; a line break in the text stays."""
    lines: list[str] = []
    for paragraph in printable_lines(text).splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def stack_vertically(images: Sequence[Image.Image]) -> Image.Image:
    """Images one below the other, on white."""
    canvas = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    y = 0
    for image in images:
        canvas.paste(image, (0, y))
        y += image.height
    return canvas
