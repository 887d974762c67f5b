"""The charts of a study: what is drawn, on which scale, and what becomes of wide bands and of runs that diverge."""

from dataclasses import replace

import altair as alt
import polars as pl
import pytest
from support.made_up_study import made_up, thousand

from convolab.plots.studies import DIVERGED_MARK, final_values_chart, section_curves_chart, section_figures
from convolab.plots.style import arm_styles, axis_range, swept_numeric_key
from convolab.plots.training import COLORS
from convolab.studies.metrics import Metric
from convolab.studies.results import analyze_study, mean_curve
from convolab.studies.study import Section, Study

LOSS, ACCURACY = Metric("final", "train_loss"), Metric("final", "validation_accuracy")


def section(name):
    return next(section for section in made_up(False).sections if section.name == name)


def marks(figure):
    return [layer["mark"]["type"] for layer in figure.spec["layer"]]


def values(*numbers):
    return pl.Series(numbers)


def band(low, high):
    return pl.DataFrame({"low": [low], "high": [high]})


@pytest.mark.parametrize("name", ["batch-norm-sgd", "transforms", "lr-sgd", "overfit-one-batch"])
def test_every_figure_is_vega_lite_as_altair_knows_it(name) -> None:
    for figure in section_figures(section(name)):
        alt.LayerChart.from_dict(figure.to_vega_lite())


def test_a_section_shows_the_curves_it_asks_for_and_what_its_arms_end_at() -> None:
    assert [figure.name for figure in section_figures(section("transforms"))] == [
        *section("transforms").section.curves,
        "final_accuracy",
    ]
    assert [figure.name for figure in section_figures(section("lr-sgd"))] == [
        "train_loss",
        "validation_loss",
        "best_validation_accuracy",
        "final_loss",
    ]
    assert [figure.name for figure in section_figures(section("overfit-one-batch"))] == ["train_loss", "train_accuracy"]


def test_the_line_is_the_mean_the_band_its_interval_and_the_single_runs_are_all_there() -> None:
    result = section("batch-norm-sgd")
    figure = section_curves_chart(result, "train_loss")
    assert marks(figure) == ["area", "line", "line", "circle"]
    first = mean_curve(result.arms[0], "train_loss")[0][1]
    row = figure.tables["means"].row(0, named=True)
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((first.mean, first.low, first.high), rel=1e-4)
    assert len(figure.tables["runs"]) == 2 * 3 * 12
    assert "band: its 95 % t-interval; faint: single runs" in figure.subtitle


def test_one_run_has_neither_band_nor_faint_lines_and_the_chart_says_so() -> None:
    figure = section_curves_chart(section("overfit-one-batch"), "train_loss")
    assert marks(figure) == ["line", "circle"]
    assert "one run an arm" in figure.subtitle


def test_axes_have_units_and_a_log_scale_where_the_range_asks_for_it() -> None:
    narrow, wide, share = (
        figure.spec["layer"][0]["encoding"]["y"]
        for figure in (
            section_curves_chart(section("batch-norm-sgd"), "train_loss"),
            section_curves_chart(section("overfit-one-batch"), "train_loss"),
            section_curves_chart(section("overfit-one-batch"), "train_accuracy"),
        )
    )
    assert (narrow["title"], narrow["scale"]["type"]) == ("training loss (nats)", "linear")
    assert (wide["title"], wide["scale"]["type"]) == ("training loss (nats, log scale)", "log")
    assert (share["title"], share["scale"]["type"]) == ("training accuracy (%)", "linear")


def test_a_band_of_two_runs_cannot_push_the_curves_together() -> None:
    span = axis_range(values(1.0, 2.0), band(-30.0, 40.0), LOSS)
    assert (span.low, span.high, span.clips_intervals) == (0.75, 2.25, True)
    assert not axis_range(values(1.0, 2.0), band(0.9, 2.1), LOSS).clips_intervals
    log = axis_range(values(0.01, 1.0), band(-3.0, 5.0), LOSS)
    assert log.log
    assert 0.001 < log.low < 0.01
    assert 1 < log.high < 10
    assert log.to_channel("loss", "nats")["scale"][
        "clamp"
    ]  # what is below 0 has no logarithm, and would break the band


def test_an_axis_holds_equal_values_and_accuracies_stay_within_0_and_100() -> None:
    assert axis_range(values(0.5), band(0.5, 0.5), LOSS).low < 0.5 < axis_range(values(0.5), band(0.5, 0.5), LOSS).high
    span = axis_range(values(50.0, 100.0), band(40.0, 120.0), ACCURACY)
    assert span.high <= 101
    assert axis_range(values(0.0, 1.0), band(0.0, 1.0), LOSS).low < 0  # a loss of 0 is on the axis, and on a linear one
    assert (
        axis_range(values(0.0, 0.0), band(0.0, 0.0), LOSS).low < axis_range(values(0.0, 0.0), band(0.0, 0.0), LOSS).high
    )


def test_a_run_that_diverges_ends_in_a_cross_inside_the_chart_and_does_not_stretch_it() -> None:
    figure = section_curves_chart(section("lr-sgd"), "train_loss")
    crosses, encoding = figure.tables["crosses"], figure.spec["layer"][-1]["encoding"]
    low, high = encoding["y"]["scale"]["domain"]
    assert crosses["epoch"].to_list() == [3, 2, 4, 6]
    assert crosses["place"].is_between(low, high).all()
    assert figure.tables["runs"]["value"].max() > 100  # where it went is kept
    assert high < 3
    assert figure.spec["layer"][-1]["mark"]["shape"] == DIVERGED_MARK["shape"]
    assert "cross: a run diverged" in figure.subtitle


def test_a_section_where_everything_diverged_in_its_first_epoch_has_no_curve_and_no_error() -> None:
    study = Study.parse({"name": "s", "seeds": [0], "sections": {"one": {"grid": {"optimizer.lr": [1.0, 2.0, 3.0]}}}})
    outcomes = [replace(made_up().sections[2].arms[0].results[0], trial=trial, history=()) for trial in study.trials]
    (result,) = analyze_study(study, outcomes)
    assert section_figures(result) == []


def test_a_grid_of_numbers_lies_along_an_axis_of_them_log_where_they_range() -> None:
    rates = next(f for f in section_figures(section("lr-sgd")) if f.name == "best_validation_accuracy")
    x = rates.spec["layer"][0]["encoding"]["x"]
    assert (x["title"], x["scale"]["type"], x["axis"]["values"]) == (
        "optimizer.lr (log scale)",
        "log",
        [0.001, 0.01, 0.1, 1.0, 3.0],
    )
    assert rates.tables["lost"].rows() == [("lr=3", 3.0, "3 of 3"), ("lr=1", 1.0, "1 of 3")]
    assert "lr=3 (3 of 3), lr=1 (1 of 3)" in rates.subtitle
    assert rates.tables["points"].filter(pl.col("arm") == "lr=1")["seed"].to_list() == [0, 2]


def test_only_one_key_of_numbers_makes_an_axis() -> None:
    assert swept_numeric_key(Section(grid={"schedule.gamma": (0.1, 0.5, 0.9)})) == "schedule.gamma"
    assert swept_numeric_key(Section(grid={"model.batch_norm": (True, False)})) is None
    assert swept_numeric_key(Section(grid={"optimizer.lr": (0.1, 0.2, 0.3), "training.epochs": (1, 2)})) is None
    assert swept_numeric_key(Section(grid={"schedule.name": ("step", "cosine", "constant")})) is None


def test_few_arms_have_colours_and_dashes_of_their_own_and_many_a_ramp() -> None:
    few = arm_styles(Section(arms={f"arm {i}": {} for i in range(len(COLORS))}))
    assert len({colour for colour, _ in few.values()}) == len({tuple(dash) for _, dash in few.values()}) == len(COLORS)
    many = arm_styles(Section(arms={f"arm {i}": {} for i in range(33)}))
    assert len({colour for colour, _ in many.values()}) == 33
    rates = arm_styles(Section(grid={"optimizer.lr": (0.1, 0.3, 0.2)}))
    assert (
        rates["lr=0.1"][0] == arm_styles(Section(grid={"optimizer.lr": (0.3, 0.1, 0.2)}))["lr=0.1"][0]
    )  # by size, not by place


def test_many_arms_are_drawn_without_single_runs_except_the_diverged_and_the_chart_says_so() -> None:
    result = thousand(1, 12, 3, 5).sections[0]
    figure = section_curves_chart(result, "train_loss")
    assert "so many arms are drawn without bands and single runs" in figure.subtitle
    assert figure.tables["runs"]["arm"].unique().to_list() == ["lr=0.3"]
    assert len(figure.tables["crosses"]) == 1


def test_an_arm_without_validation_pictures_ends_at_its_training_accuracy_alone() -> None:
    study = Study.parse(
        {
            "name": "s",
            "seeds": [0, 1],
            "sections": {"one": {"change": {"data.validation": 0.0}, "arms": {"a": {}, "b": {"optimizer.lr": 0.5}}}},
        }
    )
    source = section("overfit-one-batch").arms[0].results[0]
    (result,) = analyze_study(study, [replace(source, trial=trial) for trial in study.trials])
    figure = final_values_chart(result, [Metric("final", "train_accuracy"), ACCURACY])
    assert figure.tables["means"]["series"].unique().to_list() == ["training"]
    assert section_curves_chart(result, "validation_accuracy") is None
