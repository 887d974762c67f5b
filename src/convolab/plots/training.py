"""Pictures: charts by altair (offline HTML, SVG, PNG from one chart), sheets of images by Pillow.

Nothing else in the laboratory normalises or colours; what is done to numbers here is said on the picture.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import vl_convert
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from convolab.core.files import atomic_write
from convolab.data.dataset import ImageDataset
from convolab.training.trainer import EpochMetrics

# Okabe & Ito's colours, told apart by colour-blind people too.
BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "#666666"
COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", GRAY)

CHART_STYLE = {
    "axis": {"gridColor": "#e5e5e5", "domainColor": "#999", "tickColor": "#999"},
    "view": {"stroke": None},
}  # of all charts

# Of which weights the training figures are, as the recipe's metrics.train has it.
TRAIN_METRICS_CAPTIONS = {
    "running": "training: mean over the epoch's batches, as augmented",
    "exact": "training: after the epoch, without augmentation",
}


def training_curves_chart(history: Sequence[EpochMetrics], title: str) -> alt.TopLevelMixin:
    """Loss and accuracy against epochs, training and validation, side by side; a dot marks the best validation accuracy."""
    rows = []
    for epoch in history:
        for part in ("train", "validation"):
            loss, accuracy = getattr(epoch, f"{part}_loss"), getattr(epoch, f"{part}_accuracy")
            if accuracy is not None:
                rows.append({"epoch": epoch.epoch, "part": part, "loss": loss, "accuracy": 100 * accuracy})
    table = pl.DataFrame(rows)
    splits = table["part"].unique(maintain_order=True).to_list()
    color = alt.Color(
        "part:N",
        title=None,
        scale=alt.Scale(domain=splits, range=[BLUE, ORANGE][: len(splits)]),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolSize=400, symbolStrokeWidth=2),
    )
    dash = alt.StrokeDash("part:N", title=None, scale=alt.Scale(domain=splits, range=[[1, 0], [6, 3]][: len(splits)]))
    ticks = sorted({round(1 + i * (len(history) - 1) / 9) for i in range(10)})
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=ticks, format="d", grid=False))
    base = alt.Chart(table).encode(x=x, color=color)
    log_loss = needs_log_scale(table["loss"])
    panels, best_caption = [], ""
    for quantity, unit in (("loss", "nats"), ("accuracy", "%")):
        scale = alt.Scale(type="log") if quantity == "loss" and log_loss else alt.Scale(zero=False)
        y = alt.Y(
            f"{quantity}:Q", title=f"{quantity} ({unit}{', log scale' if scale.type == 'log' else ''})", scale=scale
        )
        tooltip = ["part", "epoch", alt.Tooltip(f"{quantity}:Q", format=".4f" if quantity == "loss" else ".2f")]
        line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash)
        points = base.mark_circle(size=25 if len(history) <= 40 else 8, opacity=1).encode(y=y, tooltip=tooltip)
        panels.append((line + points).properties(width=330, height=240))
    best = max(
        (e for e in history if e.validation_accuracy is not None), key=lambda e: e.validation_accuracy, default=None
    )
    if best:
        mark = alt.Chart(pl.DataFrame({"epoch": [best.epoch], "accuracy": [100 * best.validation_accuracy]}))
        ring = mark.mark_point(size=140, color=ORANGE, strokeWidth=2).encode(x=x, y="accuracy:Q")
        panels[1] = (panels[1] + ring).properties(width=330, height=240)
        best_caption = f"; ring: best validation accuracy, {100 * best.validation_accuracy:.2f} % in epoch {best.epoch}"
    return apply_chart_style(
        alt.hconcat(*panels, spacing=40), title, TRAIN_METRICS_CAPTIONS[history[-1].train_metrics] + best_caption
    )


def needs_log_scale(values: Iterable[float]) -> bool:
    """Whether a log scale shows these values better: they span more than a factor of 20.

    >>> wants_log([0.3, 0.1, 0.003]), wants_log([0.1, 0.5, 0.9])
    (True, False)
    """
    values = list(values)
    return max(values) > 20 * max(min(values), 1e-9)


def confusion_matrix_chart(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> alt.TopLevelMixin:
    """A confusion matrix: a row a true class, shaded by its share of the row; counts are written in when they fit."""
    rows = []
    for true, counts in zip(classes, matrix, strict=True):
        total = sum(counts)
        rows += [
            {"true": true, "called": called, "count": n, "share": 100 * n / total if total else 0.0}
            for called, n in zip(classes, counts, strict=True)
        ]
    cell, show_counts = (40, True) if len(classes) <= 20 else (max(6, 600 // len(classes)), False)
    side, order = cell * len(classes), list(classes)
    label_angle = 0 if max(map(len, classes)) <= 3 else -40
    labels = alt.Axis(labelAngle=label_angle, labelLimit=120) if show_counts else alt.Axis(labels=False, ticks=False)
    base = alt.Chart(pl.DataFrame(rows)).encode(
        x=alt.X("called:N", sort=order, title="called by the network", axis=labels),
        y=alt.Y(
            "true:N",
            sort=order,
            title="true class",
            axis=alt.Axis(labelLimit=120) if show_counts else alt.Axis(labels=False, ticks=False),
        ),
    )
    # Opacity, not a blend from white: the ground shows through, whatever its colour.
    key = alt.Legend(orient="top", values=[25, 50, 75, 100])
    shade = alt.Opacity("share:Q", title="% of the row", scale=alt.Scale(domain=[0, 100], range=[0, 1]), legend=key)
    tooltip = ["true", "called", "count", alt.Tooltip("share:Q", format=".1f", title="% of the row")]
    chart = base.mark_rect(stroke="#eeeeee", fill=BLUE).encode(opacity=shade, tooltip=tooltip)
    if show_counts:
        text_color = alt.condition(alt.datum.share > 50, alt.value("white"), alt.value("black"))
        chart = chart + base.mark_text(fontSize=11).encode(
            text=alt.condition(alt.datum.count > 0, "count:Q", alt.value("")), color=text_color
        )
    return apply_chart_style(
        chart.properties(width=side, height=side),
        title,
        "a row is a true class; shade: share of the row, text: pictures",
    )


def overfit_one_batch_chart(accuracies: Sequence[float], title: str) -> alt.TopLevelMixin:
    """Accuracy on one batch against steps."""
    table = pl.DataFrame({"step": range(len(accuracies)), "accuracy": [100 * a for a in accuracies]})
    line = (
        alt.Chart(table)
        .mark_line(color=BLUE)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False)),
            y=alt.Y("accuracy:Q", title="accuracy on the batch (%)", scale=alt.Scale(domain=[0, 100])),
        )
    )
    return apply_chart_style(line.properties(width=480, height=240), title, "of the training pass, before the step")


def apply_chart_style(chart: alt.TopLevelMixin, title: str, subtitle: str | list[str]) -> alt.TopLevelMixin:
    """The one look of all charts."""
    chart = chart.properties(title=alt.TitleParams(**title_params(title, subtitle)), background="white", padding=14)
    chart.config = alt.Config(**CHART_STYLE)
    return chart


def title_params(title: str | list[str], subtitle: str | list[str]) -> dict[str, Any]:
    """A chart's title and subtitle, in lines where they are lists."""
    style = {"anchor": "start", "fontSize": 15, "subtitleColor": GRAY, "subtitleFontSize": 11, "offset": 12}
    return {"text": title, "subtitle": subtitle, **style}


def save_chart(
    chart: alt.TopLevelMixin | dict[str, Any], stem: Path, formats: Sequence[str] = ("html", "svg", "png")
) -> list[Path]:
    """Write a chart in each format; the HTML holds all it needs and opens without a network.

    A dict is a specification in Vega-Lite's own words, for svg and png.
    """
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    for path in paths:
        with atomic_write(path) as part:
            if isinstance(chart, dict):
                part.write_bytes(render_vega_lite(chart, path.suffix))
            else:
                options = (
                    {"inline": True} if path.suffix == ".html" else {"scale_factor": 2} if path.suffix == ".png" else {}
                )
                chart.save(part, **options)
    return paths


def render_vega_lite(spec: dict[str, Any], suffix: str) -> bytes:
    """The picture of a specification, as .svg or .png."""
    return vl_convert.vegalite_to_svg(spec).encode() if suffix == ".svg" else vl_convert.vegalite_to_png(spec, scale=2)


def contact_sheet(dataset: ImageDataset, per_class: int = 10, zoom: int | None = None) -> Image.Image:
    """The first pictures of each class, a row a class with its name, enlarged by whole pixels."""
    _, height, width = dataset.shape
    zoom = zoom or max(1, round(48 / max(height, width)))
    cell, gap, font = zoom * max(height, width), 4, ImageFont.load_default(14)
    left = 12 + max(math.ceil(font.getlength(name)) for name in dataset.classes)
    rows = len(dataset.classes)
    canvas = Image.new("RGB", (left + per_class * (cell + gap) + gap, rows * (cell + gap) + gap + 24), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text(
        (gap, 4),
        f"{dataset.name}: {len(dataset):,} pictures of {'x'.join(map(str, dataset.shape))}, {rows} classes",
        fill="black",
        font=font,
    )
    for row, name in enumerate(dataset.classes):
        top = 24 + gap + row * (cell + gap)
        draw.text((gap, top + cell // 2), name, fill="black", font=font, anchor="lm")
        members = (dataset.labels == row).nonzero().squeeze(1)[:per_class]
        images, _ = dataset.gather(members)
        for column, image in enumerate(images):
            canvas.paste(
                to_pil_image(image).resize((zoom * width, zoom * height), Image.Resampling.NEAREST),
                (left + column * (cell + gap), top),
            )
    return canvas


def to_pil_image(image: UInt8[Tensor, "c h w"]) -> Image.Image:
    """A picture as Pillow's, RGB."""
    return Image.fromarray(np.ascontiguousarray(image.expand(3, -1, -1).permute(1, 2, 0).numpy()))


def save_image(image: Image.Image, path: Path) -> None:
    with atomic_write(path) as part:
        image.save(part)
