"""The figures of a study: those of each section, and those of the run that was tested."""

import textwrap

import altair as alt

from convolab.plots.study_curves import section_curves_chart
from convolab.plots.study_differences import differences_figures
from convolab.plots.study_figure import FIGURE_HEIGHT, FIGURE_WIDTH, StudyFigure
from convolab.plots.study_finals import final_values_chart
from convolab.plots.study_optimum import optimum_figures
from convolab.plots.study_scales import round_significant, swept_numeric_key, to_display_unit
from convolab.plots.style import BLUE, apply_chart_style, chart_data
from convolab.plots.training import (
    CONFUSION_CAPTION,
    confusion_matrix_cells,
    confusion_matrix_layers,
    confusion_matrix_side,
)
from convolab.studies.formatting import difference_unit
from convolab.studies.metrics import Metric
from convolab.studies.results import BestOnTest, ContrastResult, SectionResult

BAR_HEIGHT = 24  # pixels of a class in the chart of accuracies per class


def section_figures(result: SectionResult) -> list[StudyFigure]:
    """Every figure of a section that has something to show: what was found, a curve per quantity, final values."""
    candidates: list[StudyFigure | None] = [*differences_figures(result), *optimum_figures(result)]
    candidates += [section_curves_chart(result, quantity) for quantity in result.section.curves]
    if key := swept_numeric_key(result.section):
        with_optimum = {contrast.contrast.parsed_metric for contrast in result.contrast_results if contrast.optimum}
        metrics = [metric for metric in contrast_metrics(result) if metric not in with_optimum]
        candidates += [final_values_chart(result, [metric], key) for metric in metrics]
        if any("loss" in quantity for quantity in result.section.curves):
            candidates.append(final_values_chart(result, train_and_validation_metrics("loss"), key))
    elif len(result.arms) > 1:
        candidates.append(final_values_chart(result, train_and_validation_metrics("accuracy")))
    return [figure for figure in candidates if figure]


def contrast_chart(result: ContrastResult) -> alt.TopLevelMixin:
    """Both sides of a contrast seed by seed, a line for each seed; it has values. Those of an interaction are differences."""
    contrast, metric = result.contrast, result.contrast.parsed_metric
    names, title = [contrast.baseline, contrast.arm], f"{contrast.arm} against {contrast.baseline}"
    y_title = f"{metric.title} ({metric.unit})"
    if contrast.interaction:
        names = [" − ".join(contrast.interaction), f"{contrast.arm} − {contrast.baseline}"]
        title, y_title = contrast.label, f"difference in {metric.title} ({difference_unit(metric)})"
    rows = [
        {"arm": name, "seed": f"seed {seed}", "value": to_display_unit(metric, value)}
        for name, values in zip(names, (result.baseline_values, result.arm_values), strict=True)
        for seed, value in zip(result.seeds, values, strict=True)
    ]
    base = alt.Chart(chart_data(rows)).encode(
        x=alt.X("arm:N", sort=names, title=None, axis=alt.Axis(labelAngle=0, labelLimit=220)),
        y=alt.Y("value:Q", title=y_title, scale=alt.Scale(zero=False)),
        color=alt.Color("seed:N", title=None, legend=alt.Legend(symbolLimit=12)),
    )
    chart = alt.LayerChart(layer=[base.mark_line(), base.mark_circle(size=50, opacity=1)])
    subtitle = textwrap.wrap(result.comment, 95)
    return apply_chart_style(
        chart.properties(width=FIGURE_WIDTH, height=FIGURE_HEIGHT), textwrap.wrap(title, 60), subtitle
    )


def train_and_validation_metrics(quantity: str) -> list[Metric]:
    """The final values of `loss` or `accuracy` in training and in validation."""
    return [Metric("final", f"train_{quantity}"), Metric("final", f"validation_{quantity}")]


def contrast_metrics(result: SectionResult) -> list[Metric]:
    """The metrics of the section's contrasts, each once; without contrasts, the best validation accuracy."""
    metrics = dict.fromkeys(contrast.parsed_metric for contrast in result.section.contrasts)
    return list(metrics) or [Metric("best", "validation_accuracy")]


def best_on_test_figures(best: BestOnTest) -> list[StudyFigure]:
    """The confusion matrix of the tested run, and its accuracy per class."""
    return [confusion_figure(best), per_class_figure(best)]


def confusion_figure(best: BestOnTest) -> StudyFigure:
    """The confusion matrix on the test images."""
    classes = list(best.test_result.per_class)
    return StudyFigure(
        name="confusion",
        title=f"Confusion matrix of {best.trial_result.trial.recipe.model.name} on the test images",
        subtitle=CONFUSION_CAPTION,
        chart=confusion_matrix_layers(alt.NamedData("cells"), classes),
        tables={"cells": confusion_matrix_cells(best.test_result.confusion, classes)},
        height=confusion_matrix_side(len(classes)),
    )


def per_class_figure(best: BestOnTest) -> StudyFigure:
    """The accuracy per class as bars, the best class first; classes without a test image are left out."""
    per_class = {name: value for name, value in best.test_result.per_class.items() if value is not None}
    names = sorted(per_class, key=lambda name: -per_class[name])
    y = alt.Y("class:N", sort=names, title=None, axis=alt.Axis(labelLimit=120, ticks=False, domain=False))
    x = alt.X("accuracy:Q", title="test accuracy (%)", scale=alt.Scale(domain=[0, 100]))
    bar = alt.MarkDef(type="bar", color=BLUE, height=alt.RelativeBandSize(band=0.6))
    text = alt.MarkDef(type="text", align="left", dx=4)
    classes = alt.NamedData("classes")
    return StudyFigure(
        name="per_class",
        title="Accuracy per class",
        subtitle="percentage of each true class that is classified correctly",
        chart=alt.LayerChart(
            layer=[
                alt.Chart(classes, mark=bar).encode(y=y, x=x),
                alt.Chart(classes, mark=text).encode(y=y, x=x, text=alt.Text("accuracy:Q", format=".1f")),
            ]
        ),
        tables={"classes": [{"class": name, "accuracy": round_significant(100 * per_class[name])} for name in names]},
        height=max(100, BAR_HEIGHT * len(names)),
    )
