"""The figures of the sections of a study and of its best run."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.histories import history, study_of_arms
from support.synthetic_study import CLASSES, synthetic_section, synthetic_study

from convolab.plots.studies import best_on_test_figures, section_figures
from convolab.plots.study_optimum import optimum_figures
from convolab.studies.analyze import analyze_study
from convolab.studies.results import TrialResult
from convolab.studies.study import Study

RATES = [0.003, 0.01, 0.03, 0.1, 0.3]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batch-norm-sgd", "transforms", "lr-sgd", "overfit-one-batch"])
def test_every_figure_with_its_tables_is_valid_vega_lite(name) -> None:
    for figure in section_figures(synthetic_section(name)):
        spec = figure.to_chart().to_dict()  # raises an error if it is not
        assert {layer["data"]["name"] for layer in spec["layer"] if "data" in layer} <= set(spec["datasets"])


@pytest.mark.slow
def test_a_section_shows_its_requested_curves_and_the_final_values_of_its_arms() -> None:
    transforms = synthetic_section("transforms")
    names = [figure.name for figure in section_figures(transforms)]
    assert [name for name in names if not name.startswith("difference_")] == [
        *transforms.section.curves,
        "final_accuracy",
    ]
    assert names[0].startswith("difference_")  # what was found comes first
    assert [figure.name for figure in section_figures(synthetic_section("lr-sgd"))] == [
        "difference_best_validation_accuracy",
        "train_loss",
        "validation_loss",
        "best_validation_accuracy",
        "final_loss",
    ]
    one_batch = section_figures(synthetic_section("overfit-one-batch"))
    assert [figure.name for figure in one_batch] == ["train_loss", "train_accuracy"]


@pytest.mark.slow
def test_the_differences_have_their_intervals_their_verdicts_and_the_margin() -> None:
    section = synthetic_section("lr-sgd")
    figure = next(figure for figure in section_figures(section) if figure.name.startswith("difference_"))
    tested = [result for result in section.contrast_results if result.is_tested]
    assert len(figure.tables["differences"]) == len(tested)
    for row, result in zip(figure.tables["differences"], tested, strict=True):
        assert row["verdict"] == result.verdict
        assert row["low"] == pytest.approx(100 * result.paired_test.difference.low, rel=1e-4)
    assert figure.tables["margin"] == [{"low": -1.0, "high": 1.0}]
    assert "shaded: within 1 percentage point; higher is better" in figure.subtitle


def test_a_section_in_which_all_runs_diverged_in_their_first_epoch_has_no_curve() -> None:
    study = Study.from_dict(
        {"name": "s", "seeds": [0], "sections": {"one": {"grid": {"optimizer.lr": [1.0, 2.0, 3.0]}}}}
    )
    diverged = synthetic_section("lr-sgd").arms[0].results[0]
    results = [replace(diverged, trial=trial, history=()) for trial in study.trials]
    (result,) = analyze_study(study, results)
    assert section_figures(result) == []


def optimum_means(metric: str, runs: Callable[[float, int], TrialResult]) -> dict[str, float]:
    """The means in the figure of the optimum of five learning rates, by arm; `runs` gives a result by rate and seed."""
    section = {"grid": {"optimizer.lr": RATES}, "contrasts": [{"trend": "optimizer.lr", "metric": metric}]}
    study = Study.from_dict({"name": "s", "sections": {"lr": section}})
    results = [replace(runs(trial.recipe.optimizer.lr, trial.seed), trial=trial) for trial in study.trials]
    (figure,) = optimum_figures(analyze_study(study, results)[0])
    return {str(row["arm"]): float(row["mean"]) for row in figure.tables["means"]}


def test_an_arm_amid_a_grid_of_which_a_run_diverged_is_left_out_of_the_figure_of_the_optimum() -> None:
    trial = study_of_arms().trials[0]

    def runs(rate: float, seed: int) -> TrialResult:
        loss = 0.5 + 0.02 * math.log(rate / 0.05) ** 2 + 0.002 * seed * (1 + rate)
        return TrialResult(trial, "diverged" if (rate, seed) == (0.03, 1) else "finished", history([0.5], [loss]))

    assert list(optimum_means("final_train_loss", runs)) == ["lr=0.003", "lr=0.01", "lr=0.1", "lr=0.3"]


def test_the_figure_of_an_optimum_by_epochs_to_a_threshold_has_the_times_that_are_compared() -> None:
    trial = study_of_arms().trials[0]
    epochs = {0.003: 12, 0.01: 5, 0.03: 2, 0.1: 3}

    def runs(rate: float, seed: int) -> TrialResult:
        ends_early = [0.1] * 7  # and never reaches the threshold
        accuracies = [*[0.1] * (epochs[rate] + seed - 1), 0.6] if rate in epochs else ends_early
        return TrialResult(trial, "finished", history(accuracies))

    expected = {"lr=0.003": 7, "lr=0.01": 6, "lr=0.03": 3, "lr=0.1": 4, "lr=0.3": 7}
    assert optimum_means("epochs_to_validation_accuracy:0.6", runs) == pytest.approx(expected)


def test_the_tested_run_has_its_confusion_matrix_and_its_accuracy_per_class() -> None:
    best = synthetic_study(False).best_on_test
    confusion, per_class = best_on_test_figures(best)
    assert len(confusion.tables["cells"]) == len(CLASSES) ** 2
    accuracies = [row["accuracy"] for row in per_class.tables["classes"]]
    expected = sorted(best.test_result.per_class.values(), reverse=True)
    assert accuracies == pytest.approx([100 * value for value in expected])
