"""The transfer matrix as a chart, by altair, in the one look of all charts."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from convolab.plots.explain import METHOD_COLORS
from convolab.plots.training import apply_chart_style

PANEL_TITLES = {"targeted": "taken for the target (%)", "untargeted": "taken for another class than the clean one (%)"}


def transfer_matrix_chart(kinds: Mapping[str, Mapping[str, Any]]) -> alt.TopLevelMixin:
    """How many of each kind of pictures fool each network, with Wilson's intervals; `kinds` is what `Matrix.values` gives."""
    titles = [f"{kind['title']}, L2 {kind['l2']:.2f}" if kind["l2"] else kind["title"] for kind in kinds.values()]
    networks = list(next(iter(kinds.values()))["networks"])
    rows = [
        {
            "kind": title,
            "network": network,
            "success": success,
            **{k: 100 * cell[success][k] for k in ("share", "low", "high")},
        }
        for title, kind in zip(titles, kinds.values(), strict=True)
        for network, cell in kind["networks"].items()
        for success in PANEL_TITLES
        if not (success == "untargeted" and kind is kinds["clean"])  # none by definition
    ]
    color = alt.Color(
        "network:N",
        title=None,
        scale=alt.Scale(domain=networks, range=METHOD_COLORS[: len(networks)]),
        legend=alt.Legend(orient="top"),
    )
    panels = []
    for number, (success, title) in enumerate(PANEL_TITLES.items()):
        panel_table = pl.DataFrame([row for row in rows if row["success"] == success])
        axis = alt.Axis(labelLimit=320, title=None, labels=number == 0, ticks=False, grid=True, labelPadding=10)
        y, offset = alt.Y("kind:N", scale=alt.Scale(domain=titles), axis=axis), alt.YOffset("network:N", sort=networks)
        x = alt.X("share:Q", title=title, scale=alt.Scale(domain=[0, 100]))
        base = alt.Chart(panel_table).encode(y=y, yOffset=offset, color=color)
        lines = base.mark_rule(strokeWidth=2, opacity=0.6).encode(x=alt.X("low:Q", title=title), x2="high:Q")
        panels.append(
            (lines + base.mark_point(filled=True, size=55, opacity=1).encode(x=x)).properties(
                width=300, height=alt.Step(16)
            )
        )
    count = next(iter(kinds["clean"]["networks"].values()))["targeted"]["count"]
    return apply_chart_style(
        alt.hconcat(*panels, spacing=24),
        "Does it transfer?",
        f"of {count} pictures, each through the network's own preprocessing; lines: 95 % intervals (Wilson)",
    )
