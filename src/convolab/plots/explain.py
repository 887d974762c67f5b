"""Charts of a map's sanity checks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import altair as alt

from convolab.plots.style import GRAY, METHOD_COLORS, apply_chart_style, chart_data

PanelChart = alt.LayerChart | alt.FacetChart
Checks = Mapping[str, Mapping[str, Any]]  # by method's label, what `SanityResult.to_dict` gives
PANEL_SIZE = {"width": 270, "height": 220}
NOT_RANDOMIZED = "none"
NULL_MAPS = "phase-randomized maps"
REFERENCES = [
    {"correlation": 1.0, "name": "edge detector: knows no weights"},
    {"correlation": 0.0, "name": "random map"},
]


def sanity_checks_chart(checks: Checks) -> alt.TopLevelMixin:
    """Rank correlations under weight randomization, and deletion and insertion beside their controls.

    `checks` holds for each method what `SanityResult.to_dict` gives.
    """
    # The null percentile is part of the map's name: of a coarse map, high correlations mean little.
    checks = {
        f"{method} (19 random maps are below {check['randomization']['null_95th_percentile']:.2f})": check
        for method, check in checks.items()
    }
    color = alt.Color(
        "map:N",
        title=None,
        scale=alt.Scale(domain=list(checks), range=METHOD_COLORS[: len(checks)]),
        legend=alt.Legend(orient="top", labelLimit=0, columns=2),
    )
    randomization = [randomization_panel(checks, kind, color) for kind in ("cascading", "independent")]
    perturbation = [perturbation_panel(checks, kind, color) for kind in ("deletion", "insertion")]
    grid = alt.vconcat(alt.hconcat(*randomization, spacing=30), alt.hconcat(*perturbation, spacing=30), spacing=20)
    subtitle = [
        "above: rank correlation of each map with that of randomized weights; no dot: the map became constant",
        f"below: dashed, single pixels in random order; dotted in a map's color, {NULL_MAPS} (random, same spectrum)",
    ]
    return apply_chart_style(grid, "Can these maps be trusted?", subtitle)


def randomization_panel(checks: Checks, kind: Literal["cascading", "independent"], color: alt.Color) -> PanelChart:
    """The maps' rank correlations as groups of layers are randomized."""
    tests = [check["randomization"] for check in checks.values()]
    groups = [NOT_RANDOMIZED, *tests[0]["layer_groups"]]
    values = [
        value for test in tests for name in ("cascading", "independent") for value in test[name] if value is not None
    ]
    lowest = min(-0.25, *values) - 0.05
    title = "randomized down to (cascading)" if kind == "cascading" else "randomized alone (independent)"
    x = alt.X("group:N", sort=groups, title=title, axis=alt.Axis(labelAngle=-50, grid=False))
    y_scale = alt.Scale(domain=[lowest, 1.1], nice=False)
    y = alt.Y("correlation:Q", title="rank correlation with the map", scale=y_scale)
    rows = chart_data(correlation_rows(checks, kind, groups))
    lines = alt.Chart(rows).mark_line(point=True, strokeWidth=2).encode(x=x, y=y, color=color)
    references = alt.Chart(chart_data(REFERENCES)).encode(y="correlation:Q")
    rules = references.mark_rule(strokeDash=[4, 3], color=GRAY)
    labels = references.mark_text(align="left", dx=4, dy=-6, color=GRAY, fontSize=10)
    return (rules + labels.encode(text="name:N", x=alt.value(0)) + lines).properties(**PANEL_SIZE)


def correlation_rows(checks: Checks, kind: str, groups: Sequence[str]) -> Iterator[dict[str, str | float]]:
    for label, check in checks.items():
        for group, value in zip(groups, [1.0, *check["randomization"][kind]], strict=True):
            if value is not None and (kind == "cascading" or group != NOT_RANDOMIZED):
                yield {"map": label, "group": group, "correlation": value}


def perturbation_panel(checks: Checks, kind: Literal["deletion", "insertion"], color: alt.Color) -> PanelChart:
    """The class's probability as pixels are deleted or inserted, in the maps' orders and in the controls'."""
    curves = {label: check[kind] for label, check in checks.items()}
    first = next(iter(curves.values()))  # random orders and baseline are the same for all maps
    rows = []
    for label, curve in curves.items():
        rows += curve_rows(curve["probabilities"], map=label, order="map")
        rows += curve_rows(curve["phase_randomized_probabilities"], map=label, order=NULL_MAPS)
    x = alt.X("fraction:Q", title=f"% of the pixels ({kind}: {first['baseline']})", axis=alt.Axis(grid=False))
    y = alt.Y("probability:Q", title="probability of the class (%)", scale=alt.Scale(domainMin=0))
    dash_scale = alt.Scale(domain=["map", NULL_MAPS], range=[[1, 0], [2, 3]])
    dash = alt.StrokeDash("order:N", scale=dash_scale, legend=None)
    lines = alt.Chart(chart_data(rows)).mark_line(strokeWidth=2).encode(x=x, y=y, color=color, strokeDash=dash)
    random_order = chart_data(curve_rows(first["random_order_probabilities"]))
    control = alt.Chart(random_order).mark_line(strokeDash=[4, 3], color=GRAY).encode(x=x, y=y)
    return (control + lines).properties(**PANEL_SIZE)


def curve_rows(probabilities: Sequence[float], **labels: str) -> list[dict[str, str | float]]:
    """A curve's points, both axes in %."""
    steps = len(probabilities) - 1
    return [{**labels, "fraction": 100 * i / steps, "probability": 100 * p} for i, p in enumerate(probabilities)]
