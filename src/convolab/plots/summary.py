"""Charts of what a network's layers cost: a bar per layer, from the input at the top to the output below."""

from collections.abc import Sequence
from typing import TypedDict

import altair as alt

from convolab.analysis.summary import LayerSummary, ModelSummary
from convolab.plots.style import BLUE, GRAY, ORANGE, apply_chart_style, chart_data

MAX_BARS = 60  # that fit on a page
COUNT_UNITS = ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands"), (1.0, "number"))
BYTE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))


class Bar(TypedDict):
    """One bar: a layer, or a block of them."""

    layer: str
    output: str
    macs: int
    parameters: int
    saved: int  # bytes for the backward pass
    field: int | None  # the larger side of the receptive field, in pixels


def layer_costs_chart(summary: ModelSummary) -> alt.TopLevelMixin:
    """MACs, parameters, memory and receptive field of each layer, in the order they run.

    Only layers that cost anything have a bar; where there are too many, those of one block are added up.
    """
    bars, caption = layer_bars(summary)
    order = [bar["layer"] for bar in bars]
    height = alt.Step(max(9, min(16, 700 // max(len(bars), 1))))
    panels: list[alt.Chart | alt.LayerChart | alt.FacetChart] = [
        cost_panel(bars, "macs", "multiply-accumulates", COUNT_UNITS, BLUE, has_labels=True),
        cost_panel(bars, "parameters", "parameters", COUNT_UNITS, ORANGE),
        cost_panel(bars, "saved", "saved for backward", BYTE_UNITS, GRAY),
    ]
    if any(bar["field"] is not None for bar in bars):
        panels.append(receptive_field_panel(bars, order, max(summary.input_shape[1:] or summary.input_shape)))
    shape = "x".join(map(str, summary.input_shape))
    totals = (
        f"{summary.macs:,} MACs, {summary.num_parameters:,} parameters, "
        f"{summary.saved_for_backward_bytes / 1e6:,.1f} MB saved for backward, for {summary.batch_size} x {shape}"
    )
    row = alt.hconcat(*(panel.properties(width=190, height=height) for panel in panels), spacing=14)
    return apply_chart_style(row, f"Cost and receptive field of the layers of {summary.network}", [totals, caption])


def cost_panel(
    bars: Sequence[Bar],
    quantity: str,
    title: str,
    units: Sequence[tuple[float, str]],
    color: str,
    has_labels: bool = False,
) -> alt.Chart:
    """One quantity of every bar, in the unit that fits the largest."""
    values = [float(bar[quantity]) for bar in bars]
    divisor, unit = display_unit(values, units)
    axis = alt.Axis(labelLimit=220, labelFontSize=10) if has_labels else None
    rows = [bar | {"value": value / divisor} for bar, value in zip(bars, values, strict=True)]
    return (
        alt.Chart(chart_data(rows))
        .mark_bar(color=color)
        .encode(
            x=alt.X("value:Q", title=f"{title} ({unit})", axis=alt.Axis(tickCount=5)),
            y=alt.Y("layer:N", sort=[bar["layer"] for bar in bars], title=None, axis=axis),
            tooltip=["layer:N", "output:N", alt.Tooltip(f"{quantity}:Q", format=",")],
        )
    )


def receptive_field_panel(
    bars: Sequence[Bar], order: Sequence[str], image_side: int
) -> alt.LayerChart | alt.FacetChart:
    """The larger side of the receptive field, and a line where it reaches the image's."""
    rows = [{"layer": bar["layer"], "field": bar["field"]} for bar in bars if bar["field"] is not None]
    x = alt.X("field:Q", title="receptive field (pixels)")
    y = alt.Y("layer:N", sort=list(order), title=None, axis=None, scale=alt.Scale(domain=list(order)))
    points = alt.Chart(chart_data(rows)).mark_point(filled=True, size=28, color="black")
    border = alt.Chart(chart_data([{"side": image_side}])).mark_rule(strokeDash=[4, 3], color=GRAY)
    return alt.layer(border.encode(x="side:Q"), points.encode(x=x, y=y, tooltip=["layer:N", "field:Q"]))


def layer_bars(summary: ModelSummary) -> tuple[list[Bar], str]:
    """The bars, and a caption on how layers were put together."""
    layers = [layer for layer in summary.layers if layer.macs or layer.num_parameters or layer.saved_for_backward_bytes]
    num_hidden = len(summary.layers) - len(layers)
    groups = group_by_block(layers, 1)
    for depth in range(12, 1, -1):
        finer = group_by_block(layers, depth)
        if len(finer) <= MAX_BARS:
            groups = finer
            break
    bars = [block_bar(name, members) for name, members in groups.items()]
    grouping = "a bar is a layer"
    if len(bars) < len(layers):
        grouping = f"a bar is a block of layers ({len(layers)} with a cost, in {len(bars)} bars)"
    return bars, f"{grouping}; {num_hidden} layers that cost nothing have none; dashes: the side of the image"


def group_by_block(layers: Sequence[LayerSummary], depth: int) -> dict[str, list[LayerSummary]]:
    """The layers by the first `depth` parts of their names."""
    groups: dict[str, list[LayerSummary]] = {}
    for layer in layers:
        groups.setdefault(".".join(layer.name.split(".")[:depth]) or layer.kind, []).append(layer)
    return groups


def block_bar(name: str, members: Sequence[LayerSummary]) -> Bar:
    fields = [layer.receptive_field for layer in members if layer.receptive_field is not None]
    return {
        "layer": name,
        "output": "x".join(map(str, members[-1].output_shape[1:])),
        "macs": sum(layer.macs for layer in members),
        "parameters": sum(layer.num_parameters for layer in members),
        "saved": sum(layer.saved_for_backward_bytes for layer in members),
        "field": max(fields[-1].size) if fields else None,
    }


def display_unit(values: Sequence[float], units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit that the largest value reaches: its divisor and its name."""
    largest = max(values, default=0.0)
    return next(((divisor, name) for divisor, name in units if largest >= divisor), units[-1])


def layer_comparison_chart(summaries: Sequence[ModelSummary]) -> alt.TopLevelMixin:
    """Parameters and MACs of a few layers for the same input, on a log scale, each bar with its number."""
    panels = [
        comparison_panel(summaries, [summary.num_parameters for summary in summaries], "parameters", ORANGE, True),
        comparison_panel(summaries, [summary.macs for summary in summaries], "multiply-accumulates", BLUE),
    ]
    shapes = " and ".join(dict.fromkeys("x".join(map(str, summary.input_shape)) for summary in summaries))
    return apply_chart_style(alt.hconcat(*panels, spacing=30), "Cost of the layers", f"for an input of {shapes}")


def comparison_panel(
    summaries: Sequence[ModelSummary], values: Sequence[int], title: str, color: str, has_labels: bool = False
) -> alt.LayerChart | alt.FacetChart:
    names = [summary.network for summary in summaries]
    rows = [  # a log scale has no place for 0
        {"layer": name, "number": number, "value": max(number, 1)} for name, number in zip(names, values, strict=True)
    ]
    base = alt.Chart(chart_data(rows)).encode(
        y=alt.Y("layer:N", sort=names, title=None, axis=alt.Axis(labelLimit=360) if has_labels else None)
    )
    x = alt.X(
        "value:Q",
        title=f"{title} (log scale)",
        scale=alt.Scale(type="log", domainMin=1),
        axis=alt.Axis(tickCount=5, format="~s"),
    )
    bar = base.mark_bar(color=color).encode(x=x, x2=alt.X2Datum(1))
    text = base.mark_text(align="left", dx=4).encode(x=x, text=alt.Text("number:Q", format=","))
    return alt.layer(bar, text).properties(width=260, height=alt.Step(34))
