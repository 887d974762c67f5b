"""The final values of a section's arms."""

import re
from dataclasses import replace

import pytest
from support.synthetic_study import synthetic_section

from convolab.plots.studies import section_figures
from convolab.plots.study_figure import FIGURE_WIDTH
from convolab.plots.study_finals import final_values_chart
from convolab.plots.style import render_svg
from convolab.studies.analyze import analyze_study
from convolab.studies.metrics import Metric
from convolab.studies.results import TrialResult
from convolab.studies.study import Study
from convolab.training.history import EpochMetrics


@pytest.mark.slow
def test_a_numeric_grid_has_a_numeric_axis_with_a_log_scale_if_its_range_is_wide() -> None:
    figures = section_figures(synthetic_section("lr-sgd"))
    rates = next(figure for figure in figures if figure.name == "best_validation_accuracy")
    x = rates.chart.to_dict()["layer"][0]["encoding"]["x"]
    assert (x["title"], x["scale"]["type"]) == ("optimizer.lr (log scale)", "log")
    assert x["axis"]["values"] == [0.001, 0.01, 0.1, 1.0, 3.0]
    assert rates.tables["diverged"] == [
        {"arm": "lr=3", "position": 3.0, "diverged_runs": "3 of 3"},
        {"arm": "lr=1", "position": 1.0, "diverged_runs": "1 of 3"},
    ]
    assert "lr=3 (3 of 3), lr=1 (1 of 3)" in rates.subtitle
    assert [row["seed"] for row in rates.tables["points"] if row["arm"] == "lr=1"] == [0, 2]


@pytest.mark.slow
def test_arms_are_rows_in_the_order_of_the_study_file() -> None:
    figure = section_figures(synthetic_section("transforms"))[-1]
    y = figure.chart.to_dict()["layer"][0]["encoding"]["y"]
    assert y["sort"] == ["none", "crop + flip", "+ cutout", "+ color", "mixup"]


def test_an_arm_without_validation_images_has_its_final_training_accuracy_only() -> None:
    arms = {"overrides": {"data.validation": 0.0}, "arms": {"a": {}, "b": {"optimizer.lr": 0.5}}}
    study = Study.from_dict({"name": "s", "seeds": [0, 1], "sections": {"one": arms}})
    source = synthetic_section("overfit-one-batch").arms[0].results[0]
    (result,) = analyze_study(study, [replace(source, trial=trial) for trial in study.trials])
    metrics = [Metric("final", "train_accuracy"), Metric("final", "validation_accuracy")]
    figure = final_values_chart(result, metrics)
    assert {row["series"] for row in figure.tables["means"]} == {"training"}
    assert figure.title == "Final training accuracy"
    assert figure.name == "final_accuracy"
    layers = figure.chart.to_dict()["layer"]
    assert all(layer["encoding"]["color"]["legend"] is None for layer in layers)
    assert all("yOffset" not in layer["encoding"] for layer in layers)


@pytest.mark.slow
@pytest.mark.parametrize("is_grid", [False, True])
def test_an_interval_that_goes_on_beyond_the_axis_ends_in_an_arrow_and_no_other_does(is_grid: bool) -> None:
    section = (
        {"grid": {"optimizer.lr": [0.1, 0.2, 0.5]}} if is_grid else {"arms": {"a": {}, "b": {"optimizer.lr": 0.5}}}
    )
    study = Study.from_dict({"name": "s", "seeds": [0, 1], "sections": {"one": section}})
    accuracies = [0.6, 0.7, 0.65, 0.65, 0.65, 0.65]  # the first arm's interval is far wider than its seeds are apart
    results = [
        TrialResult(trial, "finished", (EpochMetrics(1, 1.0, accuracy, 1.0, accuracy),))
        for trial, accuracy in zip(study.trials, accuracies, strict=False)
    ]
    (result,) = analyze_study(study, results)
    figure = final_values_chart(result, [Metric("final", "validation_accuracy")], "optimizer.lr" if is_grid else None)
    assert "an arrow where it goes on beyond the axis" in figure.subtitle
    tips = re.findall(r'transform="translate\(([\d.]+),([\d.]+)\)" d="M0,0L[^"]*Z"', render_svg(figure.to_chart()))
    along, across = (1, 0) if is_grid else (0, 1)
    assert sorted(float(tip[along]) for tip in tips) == [0, figure.height if is_grid else FIGURE_WIDTH]
    assert len({tip[across] for tip in tips}) == 1  # both are of the first arm
