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

from convolab.core.files import whole_file
from convolab.inspection.result import Finding, Panel

SIDE, GAP, BAR = 300, 24, 12  # of a frame, between frames, of a legend's bar: pixels
INK, FAINT, ALARM, BRIGHT = "#1a1a1a", "#666666", "#B00020", "#ffd400"
LEAST = 4  # pixels of a frame that a box takes at least
FINEST = 5  # pixels between lines of a grid that are still drawn
SHARE = 0.995  # of a map's values that keep their colour apart; what is beyond has the last colour
HEAT = ("#000004", "#420a68", "#932667", "#dd513a", "#fca50a", "#fcffa4")  # dark to bright (matplotlib's inferno)
SIGNED = ("#003a5d", "#0072B2", "#8ec1df", "#f7f7f7", "#f0a977", "#D55E00", "#6e3000")  # against, nothing, for


def draw_finding(finding: Finding, heading: str = "") -> Image.Image:
    """A finding's rows of panels below its first words, and its warnings."""
    title, small = ImageFont.load_default(19), ImageFont.load_default(14)
    columns = max(len(row) for row in finding.rows)
    width = columns * (SIDE + GAP) + GAP
    lines = [line for words in finding.words[1:2] for line in wrapped(words, small, width - 2 * GAP)]
    alarms = [line for words in finding.warnings for line in wrapped(f"Beware: {words}", small, width - 2 * GAP)]
    heads = wrapped(f"{heading}{finding.words[0]}", title, width - 2 * GAP)
    top = GAP + 26 * len(heads) + 20 * (len(lines) + len(alarms)) + 8
    rows = [[drawn(panel) for panel in row] for row in finding.rows]
    heights = [max(frame.height for frame in row) for row in rows]
    canvas = Image.new("RGB", (width, top + sum(heights) + GAP // 2 * len(rows)), "white")
    pen = ImageDraw.Draw(canvas)
    y = GAP
    for line, font, ink, step in (
        *((h, title, INK, 26) for h in heads),
        *((text, small, FAINT, 20) for text in lines),
        *((text, small, ALARM, 20) for text in alarms),
    ):
        pen.text((GAP, y), line, fill=ink, font=font)
        y += step
    y = top
    for row, height in zip(rows, heights, strict=True):
        for column, frame in enumerate(row):
            canvas.paste(frame, (GAP + column * (SIDE + GAP), y))
        y += height + GAP // 2
    return canvas


def drawn(panel: Panel) -> Image.Image:
    """One panel: title, frame, legend, caption."""
    font, small = ImageFont.load_default(16), ImageFont.load_default(13)
    blank = panel.photo is None and panel.heat is None
    frame = None if blank else framed(panel)
    height = 0 if frame is None else frame.height
    head = 24 if panel.title else 0
    legend = 72 if panel.heat is not None and panel.unit and finite(panel.heat) else 0
    caption = wrapped(panel.caption, small, SIDE)
    canvas = Image.new("RGB", (SIDE, head + height + legend + 18 * len(caption) + 6), "white")
    pen = ImageDraw.Draw(canvas)
    if panel.title:
        pen.text((0, 0), panel.title, fill=INK, font=font)
    if frame is not None:
        canvas.paste(frame, (0, head))
    if legend:
        draw_legend(canvas, panel, head + height + 6)
    for number, line in enumerate(caption):
        pen.text((0, head + height + legend + 4 + 18 * number), line, fill=FAINT, font=small)
    return canvas


def framed(panel: Panel) -> Image.Image:
    """The picture of a panel, SIDE pixels wide: small pictures and raw maps with their pixels and cells visible."""
    shape = (panel.photo if panel.photo is not None else panel.heat).shape[-2:]
    size = (SIDE, max(1, round(SIDE * shape[0] / shape[1])))
    if panel.photo is None:
        if not finite(panel.heat):
            return nothing(size)
        return coloured(panel.heat, panel.signed).resize(size, Image.Resampling.NEAREST)
    enlarged = Image.Resampling.NEAREST if shape[1] * 2 < SIDE else Image.Resampling.LANCZOS
    photo = to_image(panel.photo).resize(size, enlarged)
    draw_boxes(photo, panel, SIDE / shape[1])
    if panel.heat is None or not finite(panel.heat):
        draw_grid(photo, panel, SIDE / shape[1])
        return photo
    stretched = torch.nn.functional.interpolate(
        panel.heat[None, None].float(), size[::-1], mode="bilinear", align_corners=False
    )[0, 0]
    # The scale is the raw map's, so that a colour means the same number in both.
    strength = relative(stretched, panel.signed, scale_of(panel.heat, panel.signed))
    share = strength.abs().clamp(0, 1).pow(0.7).mul(0.85).numpy()[..., None]
    grey = np.asarray(photo.convert("L").convert("RGB"), dtype=np.float32) * 0.75 + 40
    paint = np.asarray(painted(strength, panel.signed), dtype=np.float32)
    photo = Image.fromarray(((1 - share) * grey + share * paint).clip(0, 255).astype(np.uint8))
    draw_grid(photo, panel, SIDE / shape[1])
    return photo


def draw_grid(photo: Image.Image, panel: Panel, zoom: float) -> None:
    """A panel's lines, half transparent; none where they would hide what they divide."""
    for axis, lines in enumerate(panel.grid):
        apart = zoom * (lines[-1] - lines[0]) / (len(lines) - 1) if len(lines) > 1 else float("inf")
        if apart < FINEST:
            continue
        for line in lines:
            at = round(zoom * line)
            if not 0 < at < photo.size[1 - axis]:
                continue
            strip = (0, at, photo.width, at + 1) if axis == 0 else (at, 0, at + 1, photo.height)
            part = photo.crop(strip)
            photo.paste(Image.blend(part, Image.new("RGB", part.size, "white"), 0.45), strip[:2])


def draw_boxes(photo: Image.Image, panel: Panel, zoom: float) -> None:
    """A panel's boxes: a bright line between dark ones is seen on any ground."""
    pen, font = ImageDraw.Draw(photo), ImageFont.load_default(13)
    for box in panel.boxes:
        corners = [zoom * box.left, zoom * box.top, zoom * box.right - 1, zoom * box.bottom - 1]
        corners[2:] = [max(last, first + LEAST) for first, last in zip(corners[:2], corners[2:], strict=True)]
        pen.rectangle(corners, outline="black", width=4)
        pen.rectangle([corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1], outline=BRIGHT, width=2)
        if box.label:
            place = (max(corners[0], 0) + 6, max(corners[1], 0) + 5)
            pen.rectangle(pen.textbbox(place, box.label, font=font), fill="black")
            pen.text(place, box.label, fill=BRIGHT, font=font)


def nothing(size: tuple[int, int]) -> Image.Image:
    """The frame of a map that is not finite."""
    frame = Image.new("RGB", size, "#eeeeee")
    ImageDraw.Draw(frame).text(
        (size[0] // 2, size[1] // 2), "no finite values", fill=ALARM, font=ImageFont.load_default(16), anchor="mm"
    )
    return frame


def finite(heat: Float[Tensor, "h w"]) -> bool:
    return bool(heat.isfinite().all())


def scale_of(heat: Float[Tensor, "h w"], signed: bool) -> float:
    """The number that gets the last colour: the 99.5th percentile, or the largest of a map of few cells."""
    size = heat.abs() if signed else heat.clamp(min=0)
    top = float(size.flatten().double().quantile(SHARE)) if heat.numel() >= 1000 else float(size.max())
    return top or float(size.max()) or 1.0


def relative(heat: Float[Tensor, "h w"], signed: bool, scale: float) -> Float[Tensor, "h w"]:
    """A map over its scale: [-1, 1] where it is signed, else [0, 1]."""
    return (heat / scale).clamp(-1 if signed else 0, 1)


def painted(strength: Float[Tensor, "h w"], signed: bool) -> Image.Image:
    """Colours for strengths, between the stops of a scale."""
    stops = SIGNED if signed else HEAT
    colours = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops], dtype=np.float64)
    at = ((strength.double() + 1) / 2 if signed else strength.double()).numpy() * (len(stops) - 1)
    channels = [np.interp(at, range(len(stops)), colours[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def coloured(heat: Float[Tensor, "h w"], signed: bool) -> Image.Image:
    return painted(relative(heat, signed, scale_of(heat, signed)), signed)


def draw_legend(canvas: Image.Image, panel: Panel, top: int) -> None:
    """A bar of the colours with the numbers at its ends, what they are, and what was cut off."""
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    scale = scale_of(panel.heat, panel.signed)
    ramp = torch.linspace(-1 if panel.signed else 0, 1, SIDE).expand(BAR, SIDE)
    canvas.paste(painted(ramp, panel.signed), (0, top))
    low, high = f"{-scale:.3g}" if panel.signed else "0", f"{scale:.3g}"
    largest = float(panel.heat.abs().max())
    ends = "colours end at the largest value"
    if largest > scale * 1.0001:
        high += f" (largest {largest:.3g})"
        ends = "colours end at the 99.5th percentile"
    pen.text((0, top + BAR + 3), low, fill=INK, font=font)
    pen.text((SIDE, top + BAR + 3), high, fill=INK, font=font, anchor="ra")
    if panel.signed:
        pen.text((SIDE // 2, top + BAR + 3), "0", fill=INK, font=font, anchor="ma")
    pen.text((0, top + BAR + 19), panel.unit, fill=FAINT, font=font)
    pen.text((0, top + BAR + 36), ends, fill=FAINT, font=font)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
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


def to_image(picture: UInt8[Tensor, "c h w"]) -> Image.Image:
    """A picture as Pillow's, RGB."""
    return Image.fromarray(np.ascontiguousarray(picture.expand(3, -1, -1).permute(1, 2, 0).numpy()))


def below(picture: Image.Image, more: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other, on white."""
    parts = [picture, *more]
    canvas = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    y = 0
    for part in parts:
        canvas.paste(part, (0, y))
        y += part.height
    return canvas


def save_picture(image: Image.Image, path: Path) -> Path:
    with whole_file(path) as part:
        image.save(part)
    return path
