"""Findings as pictures, by Pillow: rows of photos, maps and maps laid over photos.

Only here are a map's numbers made colours; which number has which colour is written below it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from convolab.core.files import atomic_write
from convolab.inspection.result import Finding, Panel

FRAME_WIDTH, FRAME_GAP, COLORBAR_HEIGHT = 300, 24, 12  # of a frame, between frames, of a legend's bar: pixels
TEXT_COLOR, CAPTION_COLOR, WARNING_COLOR, BOX_COLOR = "#1a1a1a", "#666666", "#B00020", "#ffd400"
MIN_BOX_SIDE = 4  # pixels of a frame that a box takes at least
MIN_GRID_SPACING = 5  # pixels between lines of a grid that are still drawn
COLOR_QUANTILE = 0.995  # of a map's values that keep their colour apart; what is beyond has the last colour
SEQUENTIAL_COLORMAP = (
    "#000004",
    "#420a68",
    "#932667",
    "#dd513a",
    "#fca50a",
    "#fcffa4",
)  # dark to bright (matplotlib's inferno)
DIVERGING_COLORMAP = (
    "#003a5d",
    "#0072B2",
    "#8ec1df",
    "#f7f7f7",
    "#f0a977",
    "#D55E00",
    "#6e3000",
)  # against, nothing, for


def render_finding(finding: Finding, heading: str = "") -> Image.Image:
    """A finding's rows of panels below its first words, and its warnings."""
    title, small = ImageFont.load_default(19), ImageFont.load_default(14)
    columns = max(len(row) for row in finding.panels)
    width = columns * (FRAME_WIDTH + FRAME_GAP) + FRAME_GAP
    lines = [line for words in finding.summary[1:2] for line in wrap_text(words, small, width - 2 * FRAME_GAP)]
    warning_lines = [
        line for words in finding.warnings for line in wrap_text(f"Beware: {words}", small, width - 2 * FRAME_GAP)
    ]
    title_lines = wrap_text(f"{heading}{finding.summary[0]}", title, width - 2 * FRAME_GAP)
    top = FRAME_GAP + 26 * len(title_lines) + 20 * (len(lines) + len(warning_lines)) + 8
    rows = [[render_panel(panel) for panel in row] for row in finding.panels]
    heights = [max(frame.height for frame in row) for row in rows]
    canvas = Image.new("RGB", (width, top + sum(heights) + FRAME_GAP // 2 * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    y = FRAME_GAP
    for line, font, ink, step in (
        *((h, title, TEXT_COLOR, 26) for h in title_lines),
        *((text, small, CAPTION_COLOR, 20) for text in lines),
        *((text, small, WARNING_COLOR, 20) for text in warning_lines),
    ):
        pen.text((FRAME_GAP, y), line, fill=ink, font=font)
        y += step
    y = top
    for row, height in zip(rows, heights, strict=True):
        for column, frame in enumerate(row):
            canvas.paste(frame, (FRAME_GAP + column * (FRAME_WIDTH + FRAME_GAP), y))
        y += height + FRAME_GAP // 2
    return canvas


def render_panel(panel: Panel) -> Image.Image:
    """One panel: title, frame, legend, caption."""
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    is_text_only = panel.image is None and panel.heatmap is None
    frame = None if is_text_only else render_frame(panel)
    height = 0 if frame is None else frame.height
    title_height = 24 if panel.title else 0
    legend = 72 if panel.heatmap is not None and panel.colorbar_label and is_finite_map(panel.heatmap) else 0
    caption = wrap_text(panel.caption, small, FRAME_WIDTH)
    canvas = Image.new("RGB", (FRAME_WIDTH, title_height + height + legend + 18 * len(caption) + 6), "white")
    pen = ImageDraw.Draw(canvas)
    if panel.title:
        pen.text((0, 0), panel.title, fill=TEXT_COLOR, font=font)
    if frame is not None:
        canvas.paste(frame, (0, title_height))
    if legend:
        draw_colorbar(canvas, panel, title_height + height + 6)
    for number, line in enumerate(caption):
        pen.text((0, title_height + height + legend + 4 + 18 * number), line, fill=CAPTION_COLOR, font=small)
    return canvas


def render_frame(panel: Panel) -> Image.Image:
    """The picture of a panel, SIDE pixels wide: small pictures and raw maps with their pixels and cells visible."""
    shape = (panel.image if panel.image is not None else panel.heatmap).shape[-2:]
    size = (FRAME_WIDTH, max(1, round(FRAME_WIDTH * shape[0] / shape[1])))
    if panel.image is None:
        if not is_finite_map(panel.heatmap):
            return placeholder_frame(size)
        return colorize_heatmap(panel.heatmap, panel.signed).resize(size, Image.Resampling.NEAREST)
    resampling = Image.Resampling.NEAREST if shape[1] * 2 < FRAME_WIDTH else Image.Resampling.LANCZOS
    photo = panel_to_pil_image(panel.image).resize(size, resampling)
    draw_boxes(photo, panel, FRAME_WIDTH / shape[1])
    if panel.heatmap is None or not is_finite_map(panel.heatmap):
        draw_grid(photo, panel, FRAME_WIDTH / shape[1])
        return photo
    upsampled = torch.nn.functional.interpolate(
        panel.heatmap[None, None].float(), size[::-1], mode="bilinear", align_corners=False
    )[0, 0]
    # The scale is the raw map's, so that a colour means the same number in both.
    strength = normalize_heatmap(upsampled, panel.signed, color_limit(panel.heatmap, panel.signed))
    opacity = strength.abs().clamp(0, 1).pow(0.7).mul(0.85).numpy()[..., None]
    gray = np.asarray(photo.convert("L").convert("RGB"), dtype=np.float32) * 0.75 + 40
    overlay = np.asarray(apply_colormap(strength, panel.signed), dtype=np.float32)
    photo = Image.fromarray(((1 - opacity) * gray + opacity * overlay).clip(0, 255).astype(np.uint8))
    draw_grid(photo, panel, FRAME_WIDTH / shape[1])
    return photo


def draw_grid(photo: Image.Image, panel: Panel, zoom: float) -> None:
    """A panel's lines, half transparent; none where they would hide what they divide."""
    for axis, lines in enumerate(panel.grid):
        spacing = zoom * (lines[-1] - lines[0]) / (len(lines) - 1) if len(lines) > 1 else float("inf")
        if spacing < MIN_GRID_SPACING:
            continue
        for line in lines:
            position = round(zoom * line)
            if not 0 < position < photo.size[1 - axis]:
                continue
            strip = (0, position, photo.width, position + 1) if axis == 0 else (position, 0, position + 1, photo.height)
            part = photo.crop(strip)
            photo.paste(Image.blend(part, Image.new("RGB", part.size, "white"), 0.45), strip[:2])


def draw_boxes(photo: Image.Image, panel: Panel, zoom: float) -> None:
    """A panel's boxes: a bright line between dark ones is seen on any ground."""
    pen, font = ImageDraw.Draw(photo), ImageFont.load_default(13)
    for box in panel.boxes:
        corners = [zoom * box.left, zoom * box.top, zoom * box.right - 1, zoom * box.bottom - 1]
        corners[2:] = [max(last, first + MIN_BOX_SIDE) for first, last in zip(corners[:2], corners[2:], strict=True)]
        pen.rectangle(corners, outline="black", width=4)
        pen.rectangle([corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1], outline=BOX_COLOR, width=2)
        if box.label:
            label_position = (max(corners[0], 0) + 6, max(corners[1], 0) + 5)
            pen.rectangle(pen.textbbox(label_position, box.label, font=font), fill="black")
            pen.text(label_position, box.label, fill=BOX_COLOR, font=font)


def placeholder_frame(size: tuple[int, int]) -> Image.Image:
    """The frame of a map that is not finite."""
    frame = Image.new("RGB", size, "#eeeeee")
    ImageDraw.Draw(frame).text(
        (size[0] // 2, size[1] // 2),
        "no finite values",
        fill=WARNING_COLOR,
        font=ImageFont.load_default(16),
        anchor="mm",
    )
    return frame


def is_finite_map(heat: Float[Tensor, "h w"]) -> bool:
    return bool(heat.isfinite().all())


def color_limit(heat: Float[Tensor, "h w"], signed: bool) -> float:
    """The number that gets the last colour: the 99.5th percentile, or the largest of a map of few cells."""
    magnitude = heat.abs() if signed else heat.clamp(min=0)
    top = (
        float(magnitude.flatten().double().quantile(COLOR_QUANTILE)) if heat.numel() >= 1000 else float(magnitude.max())
    )
    return top or float(magnitude.max()) or 1.0


def normalize_heatmap(heat: Float[Tensor, "h w"], signed: bool, scale: float) -> Float[Tensor, "h w"]:
    """A map over its scale: [-1, 1] where it is signed, else [0, 1]."""
    return (heat / scale).clamp(-1 if signed else 0, 1)


def apply_colormap(strength: Float[Tensor, "h w"], signed: bool) -> Image.Image:
    """Colours for strengths, between the stops of a scale."""
    stops = DIVERGING_COLORMAP if signed else SEQUENTIAL_COLORMAP
    stop_colors = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops], dtype=np.float64)
    positions = ((strength.double() + 1) / 2 if signed else strength.double()).numpy() * (len(stops) - 1)
    channels = [np.interp(positions, range(len(stops)), stop_colors[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def colorize_heatmap(heat: Float[Tensor, "h w"], signed: bool) -> Image.Image:
    return apply_colormap(normalize_heatmap(heat, signed, color_limit(heat, signed)), signed)


def draw_colorbar(canvas: Image.Image, panel: Panel, top: int) -> None:
    """A bar of the colours with the numbers at its ends, what they are, and what was cut off."""
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    scale = color_limit(panel.heatmap, panel.signed)
    ramp = torch.linspace(-1 if panel.signed else 0, 1, FRAME_WIDTH).expand(COLORBAR_HEIGHT, FRAME_WIDTH)
    canvas.paste(apply_colormap(ramp, panel.signed), (0, top))
    low, high = f"{-scale:.3g}" if panel.signed else "0", f"{scale:.3g}"
    largest = float(panel.heatmap.abs().max())
    limit_note = "colours end at the largest value"
    if largest > scale * 1.0001:
        high += f" (largest {largest:.3g})"
        limit_note = "colours end at the 99.5th percentile"
    pen.text((0, top + COLORBAR_HEIGHT + 3), low, fill=TEXT_COLOR, font=font)
    pen.text((FRAME_WIDTH, top + COLORBAR_HEIGHT + 3), high, fill=TEXT_COLOR, font=font, anchor="ra")
    if panel.signed:
        pen.text((FRAME_WIDTH // 2, top + COLORBAR_HEIGHT + 3), "0", fill=TEXT_COLOR, font=font, anchor="ma")
    pen.text((0, top + COLORBAR_HEIGHT + 19), panel.colorbar_label, fill=CAPTION_COLOR, font=font)
    pen.text((0, top + COLORBAR_HEIGHT + 36), limit_note, fill=CAPTION_COLOR, font=font)


def wrap_text(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines no wider than `width` pixels; a line break in the text stays."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def panel_to_pil_image(picture: UInt8[Tensor, "c h w"]) -> Image.Image:
    """A picture as Pillow's, RGB."""
    return Image.fromarray(np.ascontiguousarray(picture.expand(3, -1, -1).permute(1, 2, 0).numpy()))


def stack_vertically(first: Image.Image, others: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other, on white."""
    parts = [first, *others]
    canvas = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    y = 0
    for part in parts:
        canvas.paste(part, (0, y))
        y += part.height
    return canvas


def save_panel_image(image: Image.Image, path: Path) -> Path:
    with atomic_write(path) as part:
        image.save(part)
    return path
