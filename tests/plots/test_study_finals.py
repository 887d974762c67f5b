"""The final values of a section's arms."""

from dataclasses import replace

import pytest
from support.synthetic_study import synthetic_section

from convolab.plots.studies import section_figures
from convolab.plots.study_finals import final_values_chart
from convolab.studies.analyze import analyze_study
from convolab.studies.metrics import Metric
from convolab.studies.study import Study


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
