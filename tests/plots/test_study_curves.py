"""Learning curves of a section: means, bands, single runs and divergences."""

from dataclasses import replace

import pytest
from support.synthetic_study import study_of_1000_runs, synthetic_section

from convolab.plots.study_curves import section_curves_chart, train_metrics_caption
from convolab.plots.study_figure import DIVERGED_MARK
from convolab.studies.analyze import analyze_study
from convolab.studies.results import mean_curve
from convolab.studies.study import Study


def layers(figure):
    return figure.chart.to_dict()["layer"]


def marks(figure):
    return [layer["mark"]["type"] for layer in layers(figure)]


@pytest.mark.slow
def test_a_chart_has_the_mean_as_a_line_its_interval_as_a_band_and_all_single_runs() -> None:
    result = synthetic_section("batch-norm-sgd")
    figure = section_curves_chart(result, "train_loss")
    assert marks(figure) == ["area", "line", "line", "circle"]
    first = mean_curve(result.arms[0], "train_loss")[0][1]
    row = figure.tables["means"][0]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((first.mean, first.low, first.high), rel=1e-4)
    assert len(figure.tables["runs"]) == 2 * 3 * 12
    assert "band: its 95 % t-interval; faint: single runs" in figure.subtitle


def test_one_run_per_arm_has_no_band_and_no_faint_lines_and_the_subtitle_says_so() -> None:
    figure = section_curves_chart(synthetic_section("overfit-one-batch"), "train_loss")
    assert marks(figure) == ["line", "circle"]
    assert "one run per arm" in figure.subtitle


@pytest.mark.parametrize(
    ("augment", "expected"),
    [
        ([[], []], ""),
        ([["flip"], ["flip"]], ", with augmentation"),
        ([[], ["flip"]], ", with augmentation where the arm has one"),
    ],
)
def test_the_caption_speaks_of_augmentation_only_where_there_is_one(augment, expected) -> None:
    arms = {f"lr={lr}": {"data.augment": names, "optimizer.lr": lr} for lr, names in enumerate(augment, 1)}
    study = Study.from_dict({"name": "s", "seeds": [0], "sections": {"one": {"arms": arms}}})
    source = synthetic_section("overfit-one-batch").arms[0].results[0]
    (result,) = analyze_study(study, [replace(source, trial=trial) for trial in study.trials])
    assert train_metrics_caption(result) == f"training: running mean over the epoch{expected}"


@pytest.mark.slow
def test_axes_have_units_and_a_log_scale_if_the_range_is_wide() -> None:
    narrow, wide, fraction = (
        layers(section_curves_chart(synthetic_section(name), quantity))[0]["encoding"]["y"]
        for name, quantity in (
            ("batch-norm-sgd", "train_loss"),
            ("overfit-one-batch", "train_loss"),
            ("overfit-one-batch", "train_accuracy"),
        )
    )
    assert (narrow["title"], narrow["scale"]["type"]) == ("training loss (nats)", "linear")
    assert (wide["title"], wide["scale"]["type"]) == ("training loss (nats, log scale)", "log")
    assert (fraction["title"], fraction["scale"]["type"]) == ("training accuracy (%)", "linear")


@pytest.mark.slow
def test_a_run_that_diverges_ends_in_a_cross_inside_the_chart_and_does_not_change_its_range() -> None:
    figure = section_curves_chart(synthetic_section("lr-sgd"), "train_loss")
    crosses = figure.tables["divergences"]
    low, high = layers(figure)[-1]["encoding"]["y"]["scale"]["domain"]
    assert [row["epoch"] for row in crosses] == [3, 2, 4, 6]
    assert all(low <= row["position"] <= high for row in crosses)
    assert max(row["value"] for row in figure.tables["runs"]) > 100  # the curve itself is kept
    assert high < 3
    assert layers(figure)[-1]["mark"] == DIVERGED_MARK.to_dict()
    assert "cross: diverged run" in figure.subtitle


@pytest.mark.slow
def test_many_arms_are_plotted_without_single_runs_except_the_diverged_ones() -> None:
    figure = section_curves_chart(study_of_1000_runs(1, 12, 3, 5).sections[0], "train_loss")
    assert "with this many arms, bands and single runs are omitted" in figure.subtitle
    assert {row["arm"] for row in figure.tables["runs"]} == {"lr=0.3"}
    assert len(figure.tables["divergences"]) == 1


def test_a_section_without_validation_images_has_no_validation_curve() -> None:
    arms = {"overrides": {"data.validation": 0.0}, "arms": {"a": {}, "b": {"optimizer.lr": 0.5}}}
    study = Study.from_dict({"name": "s", "seeds": [0, 1], "sections": {"one": arms}})
    source = synthetic_section("overfit-one-batch").arms[0].results[0]
    (result,) = analyze_study(study, [replace(source, trial=trial) for trial in study.trials])
    assert section_curves_chart(result, "validation_accuracy") is None
