"""Figures of the homework's notebooks: learning curves of several trainings, bars, and rows of images and maps."""

from collections.abc import Mapping, Sequence
from numbers import Real

import altair as alt
from PIL import Image

from convolab.core.errors import require, suggest
from convolab.inspection.result import Panel
from convolab.plots.figure import ChartFigure, ImageFigure
from convolab.plots.panels import FRAME_GAP, render_panel
from convolab.plots.style import BLUE, COLORS, GRAY, apply_chart_style, chart_data, needs_log_scale

EpochRows = Sequence[Mapping[str, float | int]]  # of one training, a dict for each epoch
CURVE_TITLES = {
    "train_loss": "training loss (nats)",
    "validation_loss": "validation loss (nats)",
    "train_accuracy": "training accuracy (%)",
    "validation_accuracy": "validation accuracy (%)",
    "learning_rate": "learning rate",
}
LINE_DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [4, 1], [10, 4], [1, 3])
PANEL_WIDTH, PANEL_HEIGHT = 420, 240
PANELS_PER_ROW = 2
BAR_HEIGHT = 20  # pixels for each bar
LABEL_WIDTH = 300  # pixels that a bar's name may take


def plot_curves(
    histories: Mapping[str, EpochRows] | Mapping[float, EpochRows],
    columns: Sequence[str] = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy"),
    title: str = "",
) -> ChartFigure:
    """Learning curves of several trainings, a panel for each quantity and a line for each training.

    Args:
        histories: by the name of a training, its epochs: dicts with "epoch" and the columns.
        columns: the quantities to draw, see `CURVE_TITLES`. A loss or rate has a log scale where it spans much.
        title: stands above the figure.

    Returns:
        A figure that draws itself in a notebook.

    Raises LabError for an unknown column, and where there is no epoch to draw, such as in a gap that is not filled in.

    >>> plot_curves({"a": [{"epoch": 1, "train_loss": 2.0}]}, ["train_loss"]).save  # doctest: +ELLIPSIS
    <bound method ...
    """
    for column in columns:
        require(column in CURVE_TITLES, f"there is no curve '{column}': {suggest(column, CURVE_TITLES)}")
    require_histories(histories, columns)
    named = {f"{name:g}" if isinstance(name, float) else str(name): epochs for name, epochs in histories.items()}
    panels = [curve_panel(named, column) for column in columns]
    rows = [alt.hconcat(*panels[i : i + PANELS_PER_ROW], spacing=36) for i in range(0, len(panels), PANELS_PER_ROW)]
    caption = "training: mean over the epoch, while the weights change; validation: after the epoch"
    return ChartFigure(apply_chart_style(alt.vconcat(*rows, spacing=24), title, caption))


def require_histories(histories: object, columns: Sequence[str]) -> None:
    """Raise LabError unless it is a dict of histories, each with the columns, and one of them has an epoch."""
    is_filled = isinstance(histories, Mapping) and len(histories) > 0
    require(is_filled, "there is no epoch to draw: fill in the cells above, which train a network")
    values = histories.items() if isinstance(histories, Mapping) else ()
    for name, epochs in values:
        is_history = isinstance(epochs, Sequence) and all(isinstance(epoch, Mapping) for epoch in epochs)
        require(is_history, f"there is no epoch of '{name}' to draw: fill in the cell that trains it")
        missing = {
            column for epoch in epochs for column in ("epoch", *columns) if not isinstance(epoch.get(column), Real)
        }
        require(not missing, f"an epoch of '{name}' has no number for {', '.join(sorted(missing))}: see fit in part 1")
    require(any(epochs for _, epochs in values), "there is no epoch to draw: train a network first")


def curve_panel(histories: Mapping[str, EpochRows], column: str) -> alt.LayerChart:
    """One quantity of all trainings against the epoch."""
    factor = 100 if column.endswith("accuracy") else 1
    rows = [
        {"training": name, "epoch": epoch["epoch"], "value": factor * epoch[column]}
        for name, epochs in histories.items()
        for epoch in epochs
    ]
    has_log_scale = factor == 1 and needs_log_scale(row["value"] for row in rows)
    names, longest = list(histories), max(map(len, histories.values()))
    legend = alt.Legend(orient="top", columns=5, symbolType="stroke", symbolSize=400, symbolStrokeWidth=2)
    colors, dashes = alt.Scale(domain=names, range=list(COLORS)), alt.Scale(domain=names, range=list(LINE_DASHES))
    color = alt.Color("training:N", title=None, legend=legend, scale=colors)
    dash = alt.StrokeDash("training:N", title=None, legend=legend, scale=dashes)
    ticks = sorted({round(1 + i * (longest - 1) / 9) for i in range(10)})
    title = CURVE_TITLES[column] + (", log scale" if has_log_scale else "")
    base = alt.Chart(chart_data(rows)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(values=ticks, format="d", grid=False)),
        y=alt.Y("value:Q", title=title, scale=alt.Scale(type="log") if has_log_scale else alt.Scale(zero=False)),
        color=color,
    )
    points = base.mark_circle(size=22, opacity=1)
    layers = alt.LayerChart(layer=[base.mark_line(strokeWidth=2).encode(strokeDash=dash), points])
    return layers.properties(width=PANEL_WIDTH, height=PANEL_HEIGHT)


def plot_bars(values: Mapping[str, float], label: str, title: str = "", highlight: str | None = None) -> ChartFigure:
    """Fractions as horizontal bars in percent, the largest first; one may be highlighted by a color.

    Raises LabError if there are none, or one of them is not a number.
    """
    require(values, "there is nothing to draw: train a network first")
    require_numbers(values)
    rows = [
        {"name": name, "value": 100 * value, "text": f"{100 * value:.1f} %", "in_color": highlight in (None, name)}
        for name, value in values.items()
    ]
    order = sorted(values, key=lambda name: -values[name])
    axis = alt.Axis(labelLimit=LABEL_WIDTH, title=None)
    scale = alt.Scale(domain=[0, 100])
    base = alt.Chart(chart_data(rows)).encode(
        y=alt.Y("name:N", sort=order, axis=axis), x=alt.X("value:Q", title=f"{label} (%)", scale=scale)
    )
    shade = alt.condition("datum.in_color", alt.value(BLUE), alt.value(GRAY))
    bars = base.mark_bar(height=12).encode(color=shade)
    texts = base.mark_text(align="left", dx=4, fontSize=11).encode(text="text:N")
    chart = alt.LayerChart(layer=[bars, texts]).properties(width=560, height=BAR_HEIGHT * len(rows))
    return ChartFigure(apply_chart_style(chart, title, f"in color: {highlight}" if highlight else ""))


def require_numbers(values: Mapping[str, object]) -> None:
    """Raise LabError for a value that is not a number."""
    for name, value in values.items():
        require(isinstance(value, Real), f"'{name}' has no number to draw: fill in the cell that gives it")


def show_panels(rows: Sequence[Sequence[Panel]]) -> ImageFigure:
    """Rows of images and maps, each with its title, colors and caption.

    Raises LabError if there is no panel, or one of them holds nothing.

    >>> import torch
    >>> show_panels([[Panel(title="noise", image=torch.zeros(3, 8, 8, dtype=torch.uint8))]]).image.size
    (348, 388)
    """
    require(any(rows), "there is no image to draw yet: fill in the cell above")
    for panel in (panel for row in rows for panel in row):
        is_empty = panel.image is None and panel.heatmap is None and not panel.curve
        require(not is_empty, f"there is no image or map '{panel.title}' to draw yet: fill in the cell above")
    frames = [[render_panel(panel) for panel in row] for row in rows if row]
    width = max(sum(frame.width + FRAME_GAP for frame in row) for row in frames) + FRAME_GAP
    heights = [max(frame.height for frame in row) + FRAME_GAP for row in frames]
    canvas = Image.new("RGB", (width, sum(heights) + FRAME_GAP), "white")
    y = FRAME_GAP
    for row, height in zip(frames, heights, strict=True):
        x = FRAME_GAP
        for frame in row:
            canvas.paste(frame, (x, y))
            x += frame.width + FRAME_GAP
        y += height
    return ImageFigure(canvas, "; ".join(panel.title for row in rows for panel in row))
