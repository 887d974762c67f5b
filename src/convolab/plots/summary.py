"""Pictures of what a network costs and sees: a bar a layer, from the input at the top to the output below."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from convolab.analysis.summary import Account, Layer
from convolab.plots.training import BLUE, GREY, ORANGE, styled

MOST_BARS = 60  # that a page can show
COUNTS = ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands"), (1.0, "number"))
BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes"))


def cost_of_layers(account: Account) -> alt.TopLevelMixin:
    """MACs, parameters, memory and receptive field against the layers, in the order they run.

    Only layers that cost anything have a bar; where they are too many, those of one block are added up.
    """
    rows, level = bars(account)
    order = [row["layer"] for row in rows]
    table = pl.DataFrame(rows)
    down = alt.Y("layer:N", sort=order, title=None, axis=alt.Axis(labelLimit=220, labelFontSize=10))
    height = alt.Step(max(9, min(16, 700 // max(len(rows), 1))))
    panels = []
    for number, (quantity, title, names, colour) in enumerate(
        [
            ("macs", "multiply-accumulates", COUNTS, BLUE),
            ("parameters", "parameters", COUNTS, ORANGE),
            ("kept", "kept for backward", BYTES, GREY),
        ]
    ):
        divisor, name = unit(table[quantity], names)
        scaled = table.with_columns((pl.col(quantity) / divisor).alias("value"))
        axis = down if number == 0 else alt.Y("layer:N", sort=order, title=None, axis=None)
        tooltip = ["layer", "output", alt.Tooltip(f"{quantity}:Q", format=",")]
        bar = (
            alt.Chart(scaled)
            .mark_bar(color=colour)
            .encode(x=alt.X("value:Q", title=f"{title} ({name})", axis=alt.Axis(tickCount=5)), y=axis, tooltip=tooltip)
        )
        panels.append(bar.properties(width=190, height=height))
    if any(row["field"] is not None for row in rows):
        panels.append(
            field_panel(rows, order, max(account.input[1:] or account.input)).properties(width=190, height=height)
        )
    said = f"{account.macs:,} MACs, {account.parameters:,} parameters, {account.backward_bytes / 1e6:,.1f} MB kept for backward, for {account.batch} x {'x'.join(map(str, account.input))}"
    chart = styled(alt.hconcat(*panels, spacing=14), f"What the layers of {account.network} cost and see", said)
    chart.title.subtitle = [said, level]  # two lines
    return chart


def field_panel(rows: Sequence[dict[str, Any]], order: Sequence[str], extent: int) -> alt.LayerChart:
    """The receptive field's larger side, and where it reaches the picture's."""
    table = pl.DataFrame([{"layer": row["layer"], "field": row["field"]} for row in rows if row["field"] is not None])
    across = alt.X("field:Q", title="receptive field (pixels)")
    down = alt.Y("layer:N", sort=list(order), title=None, axis=None, scale=alt.Scale(domain=list(order)))
    points = (
        alt.Chart(table)
        .mark_point(filled=True, size=28, color="black")
        .encode(x=across, y=down, tooltip=["layer", "field"])
    )
    border = alt.Chart(pl.DataFrame({"side": [extent]})).mark_rule(strokeDash=[4, 3], color=GREY).encode(x="side:Q")
    return border + points


def bars(account: Account) -> tuple[list[dict[str, Any]], str]:
    """A row a bar, and what to say of how layers were put together."""
    layers = [layer for layer in account.layers if layer.macs or layer.parameters or layer.backward_bytes]
    hidden = len(account.layers) - len(layers)
    for depth in range(12, 0, -1):
        groups: dict[str, list[Layer]] = {}
        for layer in layers:
            groups.setdefault(label(layer, depth), []).append(layer)
        if len(groups) <= MOST_BARS:
            break
    rows = [
        {
            "layer": name,
            "output": "x".join(map(str, members[-1].output[1:])),
            "macs": sum(layer.macs for layer in members),
            "parameters": sum(layer.parameters for layer in members),
            "kept": sum(layer.backward_bytes for layer in members),
            "field": next((max(layer.field.size) for layer in reversed(members) if layer.field), None),
        }
        for name, members in groups.items()
    ]
    grouped = (
        f"a bar is a block of layers ({len(layers)} with a cost, in {len(rows)} bars)"
        if len(rows) < len(layers)
        else "a bar is a layer"
    )
    return rows, f"{grouped}; {hidden} layers that cost nothing have none; dashes: the picture's side"


def label(layer: Layer, depth: int) -> str:
    path = ".".join(layer.name.split(".")[:depth])
    return path or layer.kind


def unit(values: pl.Series, names: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """What to divide by, and its name."""
    most = values.max() or 0
    return next(((many, name) for many, name in names if most >= many), names[-1])


def side_by_side(accounts: Sequence[Account]) -> alt.TopLevelMixin:
    """Parameters and MACs of a few layers on the same input, on a log scale, each bar with its figure."""
    names = [account.network for account in accounts]
    panels = []
    for quantity, colour in (("parameters", ORANGE), ("macs", BLUE)):
        figures = [getattr(account, quantity) for account in accounts]
        table = pl.DataFrame(
            {"layer": names, "figure": figures, "value": [max(figure, 1) for figure in figures]}
        )  # log 0 has no place
        base = alt.Chart(table).encode(
            y=alt.Y("layer:N", sort=names, title=None, axis=alt.Axis(labelLimit=360) if not panels else None)
        )
        title = "parameters (log scale)" if quantity == "parameters" else "multiply-accumulates (log scale)"
        across = alt.X(
            "value:Q", title=title, scale=alt.Scale(type="log", domainMin=1), axis=alt.Axis(tickCount=5, format="~s")
        )
        bar = base.mark_bar(color=colour).encode(x=across, x2=alt.X2Datum(1))
        text = base.mark_text(align="left", dx=4).encode(x=across, text=alt.Text("figure:Q", format=","))
        panels.append((bar + text).properties(width=260, height=alt.Step(34)))
    shapes = " and ".join(dict.fromkeys("x".join(map(str, account.input)) for account in accounts))
    return styled(alt.hconcat(*panels, spacing=30), "What the layers cost", f"for an input of {shapes}")
