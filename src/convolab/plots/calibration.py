"""A reliability diagram: how often predictions of each probability are right."""

import altair as alt

from convolab.plots.style import BLUE, GRAY, apply_chart_style, chart_data
from convolab.training.calibration import Calibration


def reliability_chart(calibration: Calibration, title: str) -> alt.TopLevelMixin:
    """Accuracy against probability in bins, with 95 % intervals and the line of calibration; beside it the bins' sizes."""
    rows = [
        {
            "probability": 100 * part.confidence,
            "accuracy": 100 * part.accuracy,
            "low": 100 * part.interval[0],
            "high": 100 * part.interval[1],
            "images": part.count,
            "from": 100 * part.low,
            "to": 100 * part.high,
        }
        for part in calibration.bins
    ]
    percent = alt.Scale(domain=[0, 100])
    x = alt.X("probability:Q", title="probability of the predicted class (%)", scale=percent, axis=alt.Axis(grid=False))
    base = alt.Chart(chart_data(rows)).encode(x=x)
    tooltip = [alt.Tooltip(f"{name}:Q", format=".1f") for name in ("probability", "accuracy", "low", "high")]
    points = base.mark_circle(size=45, color=BLUE, opacity=1).encode(
        y=alt.Y("accuracy:Q", title="accuracy (%)", scale=percent), tooltip=[*tooltip, "images:Q"]
    )
    intervals = base.mark_rule(color=BLUE, strokeWidth=1.5).encode(y="low:Q", y2="high:Q")
    ends = chart_data([{"probability": end, "accuracy": end} for end in (0, 100)])
    diagonal = alt.Chart(ends).mark_line(color=GRAY, strokeDash=[5, 4], strokeWidth=1).encode(x=x, y="accuracy:Q")
    diagram = alt.LayerChart(layer=[diagonal, intervals, points])
    counts = (
        alt.Chart(chart_data(rows))
        .mark_bar(color=BLUE, stroke="white", strokeWidth=0.5)
        .encode(
            x=alt.X("from:Q", title="probability of the predicted class (%)", scale=percent, axis=alt.Axis(grid=False)),
            x2="to:Q",
            y=alt.Y("images:Q", title="images"),
            y2=alt.Y2(datum=0),
            tooltip=["images:Q", alt.Tooltip("from:Q", format=".1f"), alt.Tooltip("to:Q", format=".1f")],
        )
    )
    panels = [panel.properties(width=300, height=300) for panel in (diagram, counts)]
    return apply_chart_style(alt.hconcat(*panels, spacing=40), title, [calibration_line(calibration), READING])


READING = "dashed: calibrated; above it the network is too modest, below too sure; bars: 95 % intervals"


def calibration_line(calibration: Calibration) -> str:
    """A calibration in one line, with what it supports."""
    low, high = (100 * bound for bound in calibration.interval)
    verdict = "more than" if calibration.ece > calibration.chance_level else "no more than"
    return (
        f"probabilities differ from accuracy by {100 * calibration.ece:.2f} percentage points on average (calibration error, "
        f"ECE; 95 % interval {low:.2f} to {high:.2f}), {verdict} the {100 * calibration.chance_level:.2f} that chance gives "
        "a calibrated network"
    )
