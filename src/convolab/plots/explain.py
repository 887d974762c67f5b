"""Charts of a map's checks, by altair, in the one look of all charts."""

import io
from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl
from PIL import Image

from convolab.plots.training import BLUE, GRAY, ORANGE, apply_chart_style

GREEN, PINK, SKY, AMBER, BLACK = "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"
METHOD_COLORS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, BLACK)


def sanity_checks_chart(checks: Mapping[str, Mapping[str, Any]]) -> alt.TopLevelMixin:
    """Likeness under weights drawn anew, cascading and independent; deletion and insertion beside random orders.

    `checks` holds for each method what `Sanity.values` gives.
    """
    # How alike two maps as smooth as this one are by chance goes with its name: a coarse map's correlations mean little.
    checks = {f"{method} (by chance {check['randomisation']['chance']:.2f})": check for method, check in checks.items()}
    methods = list(checks)
    color = alt.Color(
        "map:N",
        title=None,
        scale=alt.Scale(domain=methods, range=METHOD_COLORS[: len(methods)]),
        legend=alt.Legend(orient="top"),
    )
    first = next(iter(checks.values()))
    stages = ["none", *first["randomisation"]["stages"]]
    found = [
        v
        for check in checks.values()
        for kind in ("cascading", "independent")
        for v in check["randomisation"][kind]
        if v is not None
    ]
    lowest = min(-0.25, *found) - 0.05
    panels = []
    for kind, title in (
        ("cascading", "drawn anew down to (cascading)"),
        ("independent", "drawn anew alone (independent)"),
    ):
        rows = [
            {"map": method, "stage": stage, "likeness": value}
            for method, check in checks.items()
            for stage, value in zip(stages, [1.0, *check["randomisation"][kind]], strict=True)
            if value is not None
        ]
        rows = [row for row in rows if kind == "cascading" or row["stage"] != "none"]
        x = alt.X("stage:N", sort=stages, title=title, axis=alt.Axis(labelAngle=-50, grid=False))
        y = alt.Y(
            "likeness:Q", title="rank correlation with the map", scale=alt.Scale(domain=[lowest, 1.1], nice=False)
        )
        lines = alt.Chart(pl.DataFrame(rows)).mark_line(point=True, strokeWidth=2).encode(x=x, y=y, color=color)
        controls = pl.DataFrame({"at": [1.0, 0.0], "name": ["edge detector: knows no weights, stays 1", "random map"]})
        rules = alt.Chart(controls).mark_rule(strokeDash=[4, 3], color=GRAY).encode(y="at:Q")
        texts = (
            alt.Chart(controls)
            .mark_text(align="left", dx=4, dy=-6, color=GRAY, fontSize=10)
            .encode(y="at:Q", text="name:N", x=alt.value(0))
        )
        panels.append((rules + texts + lines).properties(width=270, height=220))
    for kind in ("deletion", "insertion"):
        rows, random_order_rows = [], []  # of the maps, each with random maps as smooth; of single pixels at random
        for method, check in checks.items():
            curve = check[kind]
            steps = len(curve["probabilities"]) - 1
            for line, values in (("map", curve["probabilities"]), ("random maps as smooth", curve["smooth"])):
                rows += [
                    {"map": method, "line": line, "share": 100 * i / steps, "probability": 100 * p}
                    for i, p in enumerate(values)
                ]
        for i, value in enumerate(first[kind]["random"]):
            random_order_rows.append({"share": 100 * i / steps, "probability": 100 * value})
        x = alt.X("share:Q", title=f"% of the pixels ({kind}: {first[kind]['substrate']})", axis=alt.Axis(grid=False))
        y = alt.Y("probability:Q", title="probability of the class (%)", scale=alt.Scale(domainMin=0))
        dash = alt.StrokeDash(
            "line:N", scale=alt.Scale(domain=["map", "random maps as smooth"], range=[[1, 0], [2, 3]]), legend=None
        )
        lines = alt.Chart(pl.DataFrame(rows)).mark_line(strokeWidth=2).encode(x=x, y=y, color=color, strokeDash=dash)
        control = alt.Chart(pl.DataFrame(random_order_rows)).mark_line(strokeDash=[4, 3], color=GRAY).encode(x=x, y=y)
        panels.append((control + lines).properties(width=270, height=220))
    grid = alt.vconcat(alt.hconcat(*panels[:2], spacing=30), alt.hconcat(*panels[2:], spacing=30), spacing=20)
    caption_lines = [
        "above: rank correlation of each map with that of a network whose weights are drawn anew. A missing dot: it became constant",
        "below: dashed, single pixels in random order; dotted in a map's colour, random maps as smooth as it is",
    ]
    return apply_chart_style(grid, "Can these maps be trusted?", caption_lines)


def chart_to_pil_image(chart: alt.TopLevelMixin) -> Image.Image:
    """A chart as a picture."""
    content = io.BytesIO()
    chart.save(content, format="png", scale_factor=1.6)
    return Image.open(content).convert("RGB")
