"""The transfer matrix as a chart."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from convolab.plots.style import METHOD_COLORS, apply_chart_style, chart_data

PANEL_TITLES = {"targeted": "classified as the target (%)", "untargeted": "prediction changed (%)"}


def transfer_matrix_chart(conditions: Mapping[str, Mapping[str, Any]]) -> alt.TopLevelMixin:
    """How many of the images of each condition fool each network, with Wilson's intervals.

    `conditions` is what `TransferMatrix.to_dict` gives.
    """
    titles = [
        f"{condition['title']}, L2 {condition['l2']:.2f}" if condition["l2"] else condition["title"]
        for condition in conditions.values()
    ]
    networks = list(conditions["clean"]["networks"])
    rows = [
        {
            "condition": title,
            "network": network,
            "success": success,
            **{key: 100 * metrics[success][key] for key in ("fraction", "low", "high")},
        }
        for title, (name, condition) in zip(titles, conditions.items(), strict=True)
        for network, metrics in condition["networks"].items()
        for success in PANEL_TITLES
        if not (success == "untargeted" and name == "clean")  # none by definition
    ]
    color = alt.Color(
        "network:N",
        title=None,
        scale=alt.Scale(domain=networks, range=METHOD_COLORS[: len(networks)]),
        legend=alt.Legend(orient="top"),
    )
    panels = []
    for index, (success, title) in enumerate(PANEL_TITLES.items()):
        axis = alt.Axis(labelLimit=320, title=None, labels=index == 0, ticks=False, grid=True, labelPadding=10)
        y = alt.Y("condition:N", scale=alt.Scale(domain=titles), axis=axis)
        x = alt.X("fraction:Q", title=title, scale=alt.Scale(domain=[0, 100]))
        panel_rows = chart_data(row for row in rows if row["success"] == success)
        base = alt.Chart(panel_rows).encode(y=y, yOffset=alt.YOffset("network:N", sort=networks), color=color)
        intervals = base.mark_rule(strokeWidth=2, opacity=0.6).encode(x=alt.X("low:Q", title=title), x2="high:Q")
        points = base.mark_point(filled=True, size=55, opacity=1).encode(x=x)
        panels.append((intervals + points).properties(width=300, height=alt.Step(16)))
    count = next(iter(conditions["clean"]["networks"].values()))["targeted"]["count"]
    return apply_chart_style(
        alt.hconcat(*panels, spacing=24),
        "Does it transfer?",
        f"of {count} images, each through the network's own preprocessing; lines: 95 % intervals (Wilson)",
    )
