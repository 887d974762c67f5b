"""Pictures of what a network costs and sees: a bar a layer, from the input at the top to the output below."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from convolab.analysis.summary import LayerSummary, ModelSummary
from convolab.plots.training import BLUE, GRAY, ORANGE, apply_chart_style

MAX_BARS = 60  # that a page can show
COUNT_UNITS = ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands"), (1.0, "number"))
BYTE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))


def layer_costs_chart(summary: ModelSummary) -> alt.TopLevelMixin:
    """MACs, parameters, memory and receptive field against the layers, in the order they run.

    Only layers that cost anything have a bar; where they are too many, those of one block are added up.
    """
    rows, level = layer_bars(summary)
    order = [row["layer"] for row in rows]
    table = pl.DataFrame(rows)
    layer_axis = alt.Y("layer:N", sort=order, title=None, axis=alt.Axis(labelLimit=220, labelFontSize=10))
    height = alt.Step(max(9, min(16, 700 // max(len(rows), 1))))
    panels = []
    for number, (quantity, title, names, colour) in enumerate(
        [
            ("macs", "multiply-accumulates", COUNT_UNITS, BLUE),
            ("parameters", "parameters", COUNT_UNITS, ORANGE),
            ("kept", "kept for backward", BYTE_UNITS, GRAY),
        ]
    ):
        divisor, name = display_unit(table[quantity], names)
        scaled = table.with_columns((pl.col(quantity) / divisor).alias("value"))
        axis = layer_axis if number == 0 else alt.Y("layer:N", sort=order, title=None, axis=None)
        tooltip = ["layer", "output", alt.Tooltip(f"{quantity}:Q", format=",")]
        bar = (
            alt.Chart(scaled)
            .mark_bar(color=colour)
            .encode(x=alt.X("value:Q", title=f"{title} ({name})", axis=alt.Axis(tickCount=5)), y=axis, tooltip=tooltip)
        )
        panels.append(bar.properties(width=190, height=height))
    if any(row["field"] is not None for row in rows):
        panels.append(
            receptive_field_chart(rows, order, max(summary.input_shape[1:] or summary.input_shape)).properties(
                width=190, height=height
            )
        )
    totals_line = f"{summary.macs:,} MACs, {summary.num_parameters:,} parameters, {summary.saved_for_backward_bytes / 1e6:,.1f} MB kept for backward, for {summary.batch_size} x {'x'.join(map(str, summary.input_shape))}"
    chart = apply_chart_style(
        alt.hconcat(*panels, spacing=14), f"What the layers of {summary.network} cost and see", totals_line
    )
    chart.title.subtitle = [totals_line, level]  # two lines
    return chart


def receptive_field_chart(rows: Sequence[dict[str, Any]], order: Sequence[str], image_side: int) -> alt.LayerChart:
    """The receptive field's larger side, and where it reaches the picture's."""
    table = pl.DataFrame([{"layer": row["layer"], "field": row["field"]} for row in rows if row["field"] is not None])
    x = alt.X("field:Q", title="receptive field (pixels)")
    y = alt.Y("layer:N", sort=list(order), title=None, axis=None, scale=alt.Scale(domain=list(order)))
    points = (
        alt.Chart(table).mark_point(filled=True, size=28, color="black").encode(x=x, y=y, tooltip=["layer", "field"])
    )
    border = alt.Chart(pl.DataFrame({"side": [image_side]})).mark_rule(strokeDash=[4, 3], color=GRAY).encode(x="side:Q")
    return border + points


def layer_bars(summary: ModelSummary) -> tuple[list[dict[str, Any]], str]:
    """A row a bar, and what to say of how layers were put together."""
    layers = [layer for layer in summary.layers if layer.macs or layer.num_parameters or layer.saved_for_backward_bytes]
    hidden = len(summary.layers) - len(layers)
    for depth in range(12, 0, -1):
        groups: dict[str, list[LayerSummary]] = {}
        for layer in layers:
            groups.setdefault(block_name(layer, depth), []).append(layer)
        if len(groups) <= MAX_BARS:
            break
    rows = [
        {
            "layer": name,
            "output": "x".join(map(str, members[-1].output_shape[1:])),
            "macs": sum(layer.macs for layer in members),
            "parameters": sum(layer.num_parameters for layer in members),
            "kept": sum(layer.saved_for_backward_bytes for layer in members),
            "field": next(
                (max(layer.receptive_field.size) for layer in reversed(members) if layer.receptive_field), None
            ),
        }
        for name, members in groups.items()
    ]
    grouped = (
        f"a bar is a block of layers ({len(layers)} with a cost, in {len(rows)} bars)"
        if len(rows) < len(layers)
        else "a bar is a layer"
    )
    return rows, f"{grouped}; {hidden} layers that cost nothing have none; dashes: the picture's side"


def block_name(layer: LayerSummary, depth: int) -> str:
    path = ".".join(layer.name.split(".")[:depth])
    return path or layer.kind


def display_unit(values: pl.Series, names: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """What to divide by, and its name."""
    largest = values.max() or 0
    return next(((divisor, name) for divisor, name in names if largest >= divisor), names[-1])


def layer_comparison_chart(summaries: Sequence[ModelSummary]) -> alt.TopLevelMixin:
    """Parameters and MACs of a few layers on the same input, on a log scale, each bar with its figure."""
    names = [account.network for account in summaries]
    panels = []
    for quantity, colour in (("parameters", ORANGE), ("macs", BLUE)):
        figures = [getattr(account, quantity) for account in summaries]
        table = pl.DataFrame(
            {"layer": names, "figure": figures, "value": [max(figure, 1) for figure in figures]}
        )  # log 0 has no place
        base = alt.Chart(table).encode(
            y=alt.Y("layer:N", sort=names, title=None, axis=alt.Axis(labelLimit=360) if not panels else None)
        )
        title = "parameters (log scale)" if quantity == "parameters" else "multiply-accumulates (log scale)"
        x = alt.X(
            "value:Q", title=title, scale=alt.Scale(type="log", domainMin=1), axis=alt.Axis(tickCount=5, format="~s")
        )
        bar = base.mark_bar(color=colour).encode(x=x, x2=alt.X2Datum(1))
        text = base.mark_text(align="left", dx=4).encode(x=x, text=alt.Text("figure:Q", format=","))
        panels.append((bar + text).properties(width=260, height=alt.Step(34)))
    shapes = " and ".join(dict.fromkeys("x".join(map(str, account.input_shape)) for account in summaries))
    return apply_chart_style(alt.hconcat(*panels, spacing=30), "What the layers cost", f"for an input of {shapes}")
