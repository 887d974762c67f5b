"""What a section found, in one figure: each contrast's difference with its interval, and the margin."""

import altair as alt

from convolab.plots.study_figure import StudyFigure, tooltip_fields
from convolab.plots.study_scales import to_display_unit
from convolab.plots.style import BLUE, GRAY, GREEN, ORANGE
from convolab.studies.metrics import Metric
from convolab.studies.narrative import format_margin
from convolab.studies.results import VERDICTS, ContrastResult, SectionResult
from convolab.studies.tables import TableRow

LINES = "split(datum.label, '\\n')"  # of a label
ROW_HEIGHT = 34  # pixels of a contrast
VERDICT_COLORS = dict(zip(VERDICTS, (GREEN, ORANGE, BLUE, GRAY), strict=True))
VERDICT_SHAPES = dict(zip(VERDICTS, ("triangle-up", "triangle-down", "square", "circle"), strict=True))


def differences_figures(result: SectionResult) -> list[StudyFigure]:
    """A forest plot for each metric that a contrast was tested in."""
    metrics = dict.fromkeys(contrast.contrast.parsed_metric for contrast in result.contrast_results)
    figures = [differences_chart(result, metric) for metric in metrics]
    return [figure for figure in figures if figure]


def differences_chart(result: SectionResult, metric: Metric) -> StudyFigure | None:
    """The differences of the contrasts in a metric, arm minus baseline; None where none was tested."""
    tested = [
        contrast
        for contrast in result.contrast_results
        if contrast.contrast.parsed_metric == metric and contrast.is_tested
    ]
    if not tested:
        return None
    rows = [difference_row(contrast, metric) for contrast in tested]
    labels = [str(row["contrast"]) for row in rows]
    margins = {contrast.margin for contrast in tested}
    band: list[TableRow] = [
        {"low": -edge, "high": edge}
        for edge in (to_display_unit(metric, margin) for margin in margins if margin and len(margins) == 1)
    ]
    unit = "percentage points" if metric.unit == "%" else metric.unit
    better = "higher" if metric.higher_is_better else "lower"
    y = alt.Y(
        "contrast:N", sort=labels, title=None, axis=alt.Axis(labelLimit=230, labelExpr=LINES, ticks=False, domain=False)
    )
    shown = list(dict.fromkeys(str(row["verdict"]) for row in rows))
    legend = alt.Legend(title=None, orient="top", values=shown)  # of both: theirs are drawn as one
    color_scale = alt.Scale(domain=list(VERDICT_COLORS), range=list(VERDICT_COLORS.values()))
    color = alt.Color("verdict:N", scale=color_scale, legend=legend)
    shape_scale = alt.Scale(domain=list(VERDICT_SHAPES), range=list(VERDICT_SHAPES.values()))
    shape = alt.Shape("verdict:N", scale=shape_scale, legend=legend)
    # At the end: in the middle of an axis that long labels leave little room it would be cut.
    axis = alt.Axis(titleAnchor="end")
    differences, x = alt.NamedData("differences"), alt.X("low:Q", title=f"difference ({unit})", axis=axis)
    layers: list[alt.Chart] = []
    if band:
        mark = alt.MarkDef(type="rect", color=GRAY, opacity=0.16)
        layers.append(alt.Chart(alt.NamedData("margin"), mark=mark).encode(x=x, x2="high:Q"))
    layers += [
        alt.Chart(alt.NamedData("zero"), mark=alt.MarkDef(type="rule", color=GRAY, strokeDash=[4, 3])).encode(
            x="low:Q"
        ),
        alt.Chart(differences, mark=alt.MarkDef(type="rule", strokeWidth=2)).encode(y=y, x=x, x2="high:Q", color=color),
        alt.Chart(differences, mark=alt.MarkDef(type="point", size=90, filled=True, opacity=1)).encode(
            y=y,
            x="mean:Q",
            color=color,
            shape=shape,
            tooltip=tooltip_fields("contrast", "mean", "low", "high", "verdict"),
        ),
    ]
    shaded = f"; shaded: within {format_margin(metric, next(iter(margins)) or 0.0)}" if band else ""
    return StudyFigure(
        name=f"difference_{str(metric).replace(':', '-').replace('.', '_')}",
        title=f"Difference in {'the ' if metric.threshold is None else ''}{metric.title}, arm minus baseline",
        subtitle=f"mark: mean over the seeds; bar: its 95 % interval{shaded}; {better} is better",
        chart=alt.LayerChart(layer=layers),
        tables={"differences": rows, "zero": [{"low": 0}], "margin": band},
        height=max(90, ROW_HEIGHT * len(rows)),
    )


def difference_row(result: ContrastResult, metric: Metric) -> TableRow:
    """A contrast's mark and bar, in the unit that is displayed."""
    assert result.paired_test is not None  # only tested ones are drawn
    difference = result.paired_test.difference
    values = {"mean": difference.mean, "low": difference.low, "high": difference.high}
    numbers = {name: to_display_unit(metric, value) for name, value in values.items()}
    label = result.contrast.label.replace(") − (", ")\n− (")  # an interaction's has two lines
    return {"contrast": label, "verdict": result.verdict, **numbers}
