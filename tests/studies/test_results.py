import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.histories import arm_of, evaluation_record, history, study_of_arms, trial_results
from support.synthetic_study import synthetic_result

from convolab.core.errors import LabError
from convolab.core.files import json_text
from convolab.core.stats import equivalence_p, paired_t_test
from convolab.studies.analyze import analyze_study
from convolab.studies.best_on_test import make_best_on_test, select_best
from convolab.studies.contrast import Contrast, Margins
from convolab.studies.coursework import coursework
from convolab.studies.results import ContrastResult, StudyResult, TrialResult, mean_curve, train_seconds
from convolab.studies.serialize import section_result_to_dict, study_result_to_dict
from convolab.studies.study import Study, Trial
from convolab.studies.tables import arms_table
from convolab.studies.trend import fit_optimum
from convolab.training.history import MAX_METRIC, EpochMetrics

Runs = Sequence[Sequence[EpochMetrics]]

HIGH = [history([0.5, 0.7, 0.80]), history([0.5, 0.7, 0.81]), history([0.5, 0.7, 0.79])]
LOW = [history([0.5, 0.6, 0.70]), history([0.5, 0.6, 0.72]), history([0.5, 0.6, 0.69])]


def analyze_contrast(a: Runs, b: Runs, metric: str = "best_validation_accuracy", **status: str) -> ContrastResult:
    """The result of the contrast "is a better than b?"; `status` gives the status of single runs, as a0="diverged"."""
    study = study_of_arms(contrasts=[("a", "b", metric)], seeds=range(max(len(a), len(b))))
    results = trial_results(study, {"a": a, "b": b}, {(key[0], int(key[1:])): value for key, value in status.items()})
    return analyze_study(study, results)[0].contrast_results[0]


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [("best_validation_accuracy", "better"), ("final_train_loss", "better"), ("final_validation_loss", "better")],
)
def test_more_accuracy_and_less_loss_are_better_and_the_reverse_is_worse(metric: str, verdict: str) -> None:
    assert analyze_contrast(HIGH, LOW, metric).verdict == "better"
    assert analyze_contrast(LOW, HIGH, metric).verdict == "worse"


def test_a_contrast_is_decided_by_the_paired_t_test_over_the_seeds() -> None:
    result = analyze_contrast(HIGH, LOW)
    theirs = stats.ttest_rel([0.80, 0.81, 0.79], [0.70, 0.72, 0.69])
    assert result.paired_test.p == result.p_adjusted == pytest.approx(theirs.pvalue)
    assert result.paired_test.difference.low == pytest.approx(theirs.confidence_interval().low)
    assert (result.seeds, result.arm_values, result.baseline_values) == (
        (0, 1, 2),
        (0.80, 0.81, 0.79),
        (0.70, 0.72, 0.69),
    )
    assert result.reason is None


def test_a_smaller_gap_and_reaching_the_threshold_sooner_are_better() -> None:
    narrow = [history([0.5, 0.7], gap=gap) for gap in (0.01, 0.02, 0.015)]
    wide = [history([0.5, 0.7], gap=gap) for gap in (0.11, 0.13, 0.12)]
    assert analyze_contrast(narrow, wide, "final_gap").verdict == "better"
    soon, late = [history([0.1, 0.6, 0.6, 0.6])] * 3, [history([0.1, 0.2, 0.3, 0.6])] * 3
    for metric in ("epochs_to_validation_accuracy:0.6", "seconds_to_validation_accuracy:0.6"):
        assert analyze_contrast(soon, late, metric).verdict == "better"
        assert analyze_contrast(late, soon, metric).verdict == "worse"


def test_runs_are_paired_by_seed_and_not_by_their_order() -> None:
    study = study_of_arms()
    results = trial_results(study, {"a": HIGH, "b": LOW})
    shuffled = [results[i] for i in (3, 2, 5, 0, 4, 1)]
    assert analyze_study(study, shuffled) == analyze_study(study, results)


def test_a_small_difference_within_the_noise_is_undecided() -> None:
    result = analyze_contrast(HIGH, [history([0.5, 0.7, value]) for value in (0.80, 0.79, 0.80)])
    assert result.verdict == "undecided"
    assert result.reason == f"3 seeds leave it open, and about {result.seeds_needed} seeds would probably decide it"
    assert result.curves_separate_from_epoch is None
    assert result.paired_test.minimum_detectable_effect > abs(result.paired_test.difference.mean)


def test_a_difference_that_is_shown_to_lie_within_the_margin_is_equivalent_even_if_it_is_there() -> None:
    gains = [0.002, 0.0021, 0.0019]
    pairs = [(history([0.8 + gain + i / 10]), history([0.8 + i / 10])) for i, gain in enumerate(gains)]
    arms = {"a": [first for first, _ in pairs], "b": [second for _, second in pairs]}
    study = study_of_arms("ab", [("a", "b")])
    for margin, verdict in ((0.01, "equivalent"), (0.0015, "better")):
        with_margin = study.model_copy(update={"margins": Margins(accuracy=margin)})
        result = analyze_study(with_margin, trial_results(with_margin, arms))[0].contrast_results[0]
        assert (result.verdict, result.margin) == (verdict, margin)


def test_a_contrast_may_have_a_margin_of_its_own_and_times_have_none() -> None:
    margins = Margins(loss=0.5)
    contrast = Contrast(arm="a", baseline="b", metric="final_train_loss")
    assert margins.of(contrast) == 0.5
    assert margins.of(contrast.model_copy(update={"margin": 0.1})) == 0.1
    assert margins.of(Contrast(arm="a", baseline="b", metric="epochs_to_train_accuracy:0.5")) is None
    assert margins.of(Contrast(arm="a", baseline="b", metric="final_gap")) == 0.01


@pytest.mark.parametrize("margins", [{"accuracy": 0.0}, {"accuracy": 1.0}, {"loss": -1.0}, {"time": 1.0}])
def test_a_margin_that_makes_no_sense_is_refused(margins: dict[str, float]) -> None:
    with pytest.raises(LabError, match="margins"):
        Study.from_dict({"name": "s", "margins": margins, "sections": {"s": {"arms": {"a": {}}}}})
    contrast = {"arm": "a", "baseline": "b", "margin": 1.0}
    with pytest.raises(LabError, match=r"give a fraction, 0\.01 for one percentage point"):
        Study.from_dict(
            {"name": "s", "sections": {"s": {"arms": {"a": {}, "b": {"optimizer.lr": 1.0}}, "contrasts": [contrast]}}}
        )


def test_equivalence_is_corrected_for_the_number_of_contrasts_too() -> None:
    base = [0.70, 0.71, 0.72]
    close = [0.7040, 0.7145, 0.7185]
    test = paired_t_test(close, base)
    p = equivalence_p(test.difference.mean, test.standard_error, 3, 0.01)
    assert 0.05 / 3 < p < 0.05
    arms = {name: [history([value]) for value in values] for name, values in {"a": close, "b": base}.items()}
    alone = study_of_arms("ab", [("a", "b")])
    assert analyze_study(alone, trial_results(alone, arms))[0].contrast_results[0].verdict == "equivalent"
    arms |= {name: [history([value]) for value in (0.5, 0.8, 0.6)] for name in "cd"}
    three = study_of_arms("abcd", [(name, "b") for name in "acd"])
    first = analyze_study(three, trial_results(three, arms))[0].contrast_results[0]
    assert (first.verdict, first.p_equivalent) == ("undecided", pytest.approx(3 * p))


def test_holms_correction_can_make_a_contrast_not_significant_that_alone_would_be() -> None:
    baseline = [0.70, 0.70, 0.70]
    noise = [0.72, 0.73, 0.69]
    clear = [0.75, 0.76, 0.74]
    p = stats.ttest_rel(clear, baseline).pvalue
    assert 0.05 / 6 < p < 0.05
    arms = {name: [history([value]) for value in values] for name, values in {"a": clear, "b": baseline}.items()}
    alone = study_of_arms("ab", [("a", "b")])
    assert analyze_study(alone, trial_results(alone, arms))[0].contrast_results[0].verdict == "better"
    arms |= {name: [history([value]) for value in noise] for name in "cdefg"}
    all_arms = study_of_arms("abcdefg", [(name, "b") for name in "acdefg"])
    first = analyze_study(all_arms, trial_results(all_arms, arms))[0].contrast_results[0]
    assert first.verdict == "undecided"
    assert first.paired_test.p == pytest.approx(p)
    assert first.p_adjusted == pytest.approx(6 * p)


def test_one_seed_decides_nothing_and_gives_both_numbers() -> None:
    result = analyze_contrast(HIGH[:1], LOW[:1])
    assert (result.verdict, result.paired_test, result.p_adjusted, result.curves_separate_from_epoch) == (
        "undecided",
        None,
        None,
        None,
    )
    assert (result.arm_values, result.baseline_values) == ((0.80,), (0.70,))
    assert result.reason.startswith("a single seed decides nothing")


@pytest.mark.parametrize("status", [{"a1": "failed"}, {"b1": "missing"}, {"a1": "stopped", "b1": "failed"}])
def test_an_unfinished_run_leaves_the_other_seeds_to_decide(status: dict[str, str]) -> None:
    result = analyze_contrast(HIGH, LOW, **status)
    assert (result.seeds, result.arm_values) == ((0, 2), (0.80, 0.79))
    assert result.paired_test.difference.count == 2
    assert result.reason is None


def test_without_a_seed_that_both_arms_have_there_is_no_verdict() -> None:
    result = analyze_contrast(HIGH[:2], LOW[:2], a0="failed", b1="missing")
    assert (result.verdict, result.paired_test, result.seeds) == ("undecided", None, ())
    assert "no seed has finished runs of both arms" in result.reason
    assert "'a' failed in 1 of 2 runs" in result.reason


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"a0": "diverged"}, "'a' diverged in 1 of 3 runs"),
        ({f"b{i}": "diverged" for i in range(2)}, "'b' diverged in 2 of 3 runs"),
    ],
)
def test_divergence_leaves_no_verdict_and_is_the_reason(status: dict[str, str], message: str) -> None:
    result = analyze_contrast(HIGH, LOW, **status)
    assert (result.verdict, result.p_adjusted, result.curves_separate_from_epoch) == ("undecided", None, None)
    assert result.reason.startswith(message)
    assert set(result.seeds) == {0, 1, 2} - {int(key[1:]) for key in status}


def test_a_trial_without_a_result_is_missing() -> None:
    study = study_of_arms()
    section = analyze_study(
        study, [result for result in trial_results(study, {"a": HIGH, "b": LOW}) if result.trial.seed != 2]
    )[0]
    assert [result.status for result in section.arms[0].results] == ["finished", "finished", "missing"]
    assert section.contrast_results[0].seeds == (0, 1)


def test_an_undecided_contrast_still_counts_in_the_correction() -> None:
    study = study_of_arms("abc", [("a", "b"), ("c", "b")])
    results = trial_results(study, {"a": HIGH, "b": LOW, "c": HIGH}, {("c", 0): "diverged"})
    first, second = analyze_study(study, results)[0].contrast_results
    assert first.p_adjusted == pytest.approx(2 * first.paired_test.p)
    assert second.p_adjusted is None


def test_each_section_is_corrected_on_its_own() -> None:
    study = study_of_arms()
    both = Study.from_dict(
        {"name": "both", "sections": {name: study.sections["section"].model_dump() for name in ("one", "two")}}
    )
    section_results = [
        replace(result, trial=replace(result.trial, section=name))
        for name in ("one", "two")
        for result in trial_results(study, {"a": HIGH, "b": LOW})
    ]
    results = analyze_study(both, section_results)
    assert [result.name for result in results] == ["one", "two"]
    assert all(result.contrast_results[0].p_adjusted == result.contrast_results[0].paired_test.p for result in results)


def test_runs_that_never_reached_the_threshold_count_no_more_than_the_shortest_of_them() -> None:
    metric = "epochs_to_validation_accuracy:0.6"
    reached = [history([0.1] * 7 + [0.6] + [0.7] * 4)] * 3  # after 8 epochs
    stopped_early = [history([0.1] * 5), history([0.1] * 9), history([0.1] * 9)]  # early stopping
    result = analyze_contrast(stopped_early, reached, metric)
    assert (
        result.arm_values == result.baseline_values == (5, 5, 5)
    )  # else the run that stopped first would be the fastest
    assert result.verdict == "undecided"
    trained_on = [history([0.1] * 12)] * 3
    assert analyze_contrast(trained_on, reached, metric).verdict == "worse"
    assert analyze_contrast(trained_on, reached, metric).arm_values == (12, 12, 12)


def test_a_threshold_that_no_run_reached_decides_nothing() -> None:
    result = analyze_contrast(HIGH, LOW, "epochs_to_validation_accuracy:0.95")
    assert result.verdict == "undecided"
    assert result.reason == "no run reached a validation accuracy of 95 %"


def test_identical_losses_leave_nothing_to_test() -> None:
    result = analyze_contrast(HIGH, HIGH, "final_train_loss")
    assert (result.verdict, result.paired_test) == ("undecided", None)
    assert result.reason == "the difference is identical for all seeds, so a paired t-test is not possible"


def test_the_largest_losses_that_a_file_can_hold_are_compared_without_an_overflow() -> None:
    large = [history([0.5], [loss]) for loss in (MAX_METRIC, -MAX_METRIC, 0.5 * MAX_METRIC)]
    result = analyze_contrast(large, LOW, "final_train_loss")
    assert result.verdict == "undecided"
    assert math.isfinite(result.paired_test.difference.high)
    values = np.array([[1.0, -0.5, -1.0, 0.9], [0.8, -1.0, -0.4, 1.0], [0.9, -1.0, -1.0, 1.0]])
    small, huge = (
        fit_optimum([0.0, 1.0, 2.0, 3.0], scale * values, is_log=False, higher_is_better=False)
        for scale in (1.0, MAX_METRIC)
    )
    assert (huge.low, huge.value, huge.high) == pytest.approx((small.low, small.value, small.high))


def test_ties_of_accuracies_are_equivalent() -> None:
    result = analyze_contrast(HIGH, HIGH)
    assert result.verdict == "equivalent"
    assert (result.paired_test.p, result.paired_test.difference.mean) == (1, 0)


# ---- when the curves separate


def runs_around(mean: Sequence[float], std: float = 0.002) -> Runs:
    """Three runs around a curve, whose differences from it have a known standard deviation."""
    return [history([value + shift * std for value in mean]) for shift in (-1, 0, 1)]


@pytest.mark.parametrize(
    "metric", ["best_validation_accuracy", "final_validation_accuracy", "epochs_to_validation_accuracy:0.55"]
)
def test_curves_separate_at_the_first_epoch_after_which_they_stay_so(metric: str) -> None:
    base = [history([0.3, 0.4, 0.5, 0.6, 0.65])] * 3
    assert analyze_contrast(runs_around([0.3, 0.4, 0.55, 0.66, 0.72]), base, metric).curves_separate_from_epoch == 3
    assert analyze_contrast(runs_around([0.35, 0.46, 0.55, 0.66, 0.72]), base, metric).curves_separate_from_epoch == 1
    assert (
        analyze_contrast(runs_around([0.35, 0.4, 0.55, 0.66, 0.72]), base, metric).curves_separate_from_epoch == 3
    )  # apart, together again, apart
    assert (
        analyze_contrast(runs_around([0.35, 0.46, 0.55, 0.66, 0.65]), base, metric).curves_separate_from_epoch is None
    )  # together at the end
    assert (
        analyze_contrast(runs_around([0.25, 0.36, 0.55, 0.66, 0.72]), base, metric).curves_separate_from_epoch == 3
    )  # on the other side before


def test_the_curves_of_losses_and_of_gaps_separate_by_their_own_numbers() -> None:
    higher = [history([0.5] * 3, losses=[1.0, 0.8, 0.6])] * 3
    lower = [history([0.5] * 3, losses=[1.0 + e, 0.7 + e, 0.5 + e]) for e in (-0.002, 0.0, 0.002)]
    assert analyze_contrast(lower, higher, "final_train_loss").curves_separate_from_epoch == 2
    assert analyze_contrast(lower, higher, "final_validation_loss").curves_separate_from_epoch == 2
    gaps = [history([0.501, 0.6, 0.7], gap=0.1 + e) for e in (-0.002, 0.0, 0.002)]
    assert analyze_contrast(gaps, [history([0.501, 0.6, 0.7])] * 3, "final_gap").curves_separate_from_epoch == 1


def test_runs_of_unequal_length_are_compared_as_far_as_the_shortest_goes() -> None:
    runs = runs_around([0.35, 0.46, 0.55, 0.66, 0.72])
    base = [history([0.3, 0.4, 0.5]), history([0.3, 0.4, 0.5, 0.6]), history([0.3, 0.4, 0.5])]
    result = analyze_contrast(runs, base, "final_validation_accuracy")
    assert result.curves_separate_from_epoch == 1
    assert result.baseline_values == (0.5, 0.6, 0.5)


# ---- mean curves


def test_a_mean_curve_has_every_epoch_that_all_finished_runs_have() -> None:
    study = study_of_arms()
    runs = [history([0.3, 0.5, 0.6]), history([0.4, 0.5]), history([0.9])]
    results = arm_of("a", trial_results(study, {"a": runs, "b": LOW}, {("a", 2): "diverged"}))
    curve = mean_curve(results, "validation_accuracy")
    assert [epoch for epoch, _ in curve] == [1, 2]
    assert curve[0][1].mean == pytest.approx(0.35)
    low, high = stats.t.interval(0.95, 1, 0.35, stats.sem([0.3, 0.4]))
    assert low < 0  # which no accuracy is
    assert (curve[0][1].low, curve[0][1].high) == pytest.approx((0, high))
    assert [interval.mean for _, interval in mean_curve(results, "train_loss")] == pytest.approx([1.65, 1.5])


def test_a_mean_curve_of_one_run_has_no_width_and_of_none_no_points() -> None:
    study = study_of_arms(seeds=[0])
    results = trial_results(study, {"a": HIGH[:1], "b": LOW[:1]}, {("b", 0): "failed"})
    assert all(
        interval.low == interval.mean == interval.high for _, interval in mean_curve(arm_of("a", results), "train_loss")
    )
    assert mean_curve(arm_of("b", results), "train_loss") == []
    without_validation = [
        replace(
            result, history=tuple(replace(e, validation_loss=None, validation_accuracy=None) for e in result.history)
        )
        for result in results
    ]
    assert mean_curve(arm_of("a", without_validation), "validation_loss") == []
    assert len(mean_curve(arm_of("a", without_validation), "train_accuracy")) == 3


# ---- the best run on the test set


RECORD = evaluation_record(7800)


def results_of_six_runs(**status: str) -> list[TrialResult]:
    return trial_results(
        study_of_arms(), {"a": HIGH, "b": LOW}, {(key[0], int(key[1:])): value for key, value in status.items()}
    )


def test_the_best_run_is_the_finished_one_with_the_highest_validation_accuracy() -> None:
    assert (select_best(results_of_six_runs()).trial.arm, select_best(results_of_six_runs()).trial.seed) == ("a", 1)
    assert select_best(results_of_six_runs(a1="diverged")).trial.seed == 0
    assert select_best(results_of_six_runs(**{f"{name}{seed}": "failed" for name in "ab" for seed in range(3)})) is None


def test_trials_that_share_a_run_are_one_candidate() -> None:
    doubled = results_of_six_runs() + [
        replace(result, trial=replace(result.trial, section="again")) for result in results_of_six_runs()
    ]
    best = make_best_on_test(select_best(doubled), doubled, 1000, RECORD)
    assert best.num_candidates == 6
    assert best == make_best_on_test(select_best(results_of_six_runs()), results_of_six_runs(), 1000, RECORD)


def test_choosing_from_more_runs_has_more_selection_bias_and_from_one_run_none() -> None:
    rng = np.random.default_rng(0)
    study = study_of_arms(seeds=range(20))
    runs = [history([float(value)]) for value in rng.normal(0.7, 0.01, 40)]
    results = trial_results(study, {"a": runs[:20], "b": runs[20:]})
    best = select_best(results)
    biases = [
        make_best_on_test(
            best, [best, *(result for result in results[:count] if result is not best)], 1000, RECORD
        ).selection_bias
        for count in (0, 3, 39)
    ]
    assert biases[0] == 0
    assert 0 < biases[1] < biases[2]


def test_without_a_validated_run_there_is_nothing_to_test() -> None:
    with pytest.raises(LabError, match="no best run to evaluate"):
        make_best_on_test(results_of_six_runs()[0], [], 1000, RECORD)


def test_a_run_whose_file_does_not_say_how_long_it_took_has_no_time() -> None:
    study = study_of_arms()
    runs = [tuple(replace(epoch, train_seconds=math.nan) for epoch in run) for run in HIGH]
    results = trial_results(study, {"a": runs, "b": LOW})
    assert train_seconds(results) is None
    assert train_seconds(results[3:]) is not None
    values = study_result_to_dict(StudyResult(study, analyze_study(study, results), None))
    assert json.loads(json_text(values))["train_seconds"] is None


def test_results_have_the_intervals_of_the_tables_and_none_goes_beyond_what_an_accuracy_can_be() -> None:
    study = study_of_arms()
    runs = [history([accuracy]) for accuracy in (0.9, 1.0, 1.0)]
    (section,) = analyze_study(study, trial_results(study, {"a": runs, "b": LOW}))
    saved = section_result_to_dict(section)["arms"]["a"]["metrics"]["best_validation_accuracy"]
    row = arms_table(section)[0]
    assert saved["high"] == row["best_validation_accuracy high"] == 1.0
    assert saved["low"] == row["best_validation_accuracy low"]


def test_an_arm_without_validation_images_is_saved_without_the_metrics_that_need_them(tmp_path) -> None:
    contrasts = [{"arm": "a", "baseline": "b", "metric": metric} for metric in ("final_gap", "final_train_loss")]
    arms = {"a": {}, "b": {"optimizer.lr": 0.2}, "all images": {"data.validation": 0.0}}
    study = Study.from_dict({"name": "s", "sections": {"section": {"arms": arms, "contrasts": contrasts}}})
    unvalidated = [tuple(replace(e, validation_loss=None, validation_accuracy=None) for e in run) for run in LOW]
    results = trial_results(study, {"a": HIGH, "b": LOW, "all images": unvalidated})
    StudyResult(study, analyze_study(study, results), None).save(tmp_path / "results.json")
    saved = json.loads((tmp_path / "results.json").read_text())["sections"]["section"]["arms"]
    assert list(saved["all images"]["metrics"]) == ["final_train_loss"]
    assert list(saved["a"]["metrics"]) == ["final_gap", "final_train_loss"]


@pytest.mark.slow
def test_a_study_that_is_stopped_between_two_looks_does_not_say_that_no_more_is_trained() -> None:
    study = coursework(sections=["batch-norm-adam"])
    losses = {"with": (1.0, 1.3, 0.9), "without": (1.2, 1.1, 1.25)}
    results = [
        synthetic_result(trial, losses[trial.arm][trial.seed])
        if trial.seed < 3
        else TrialResult(trial, "missing", (), None)
        for trial in study.possible_trials
    ]
    (section,) = analyze_study(study, results)
    assert [result.next_look for result in section.contrast_results] == [4, 4]
    assert section.comment.count("the same command goes on with 4 seeds") == 2
    assert "no more are trained" not in section.comment


@pytest.mark.slow
@pytest.mark.parametrize("draw", range(12))
def test_a_study_that_is_stopped_anywhere_is_described(draw: int) -> None:
    """Whichever runs are missing, stopped or diverged: a grid of which one arm alone was trained ended in a traceback."""
    study = coursework(sections=["lr-sgd", "batch-norm-sgd", "residual"])
    rng = np.random.default_rng(draw)
    share_done = rng.choice([0.05, 0.3, 0.9])

    def result_of(trial: Trial) -> TrialResult:
        if rng.random() > share_done:
            return TrialResult(trial, "missing", (), None)
        diverged_after = int(rng.integers(2, 4)) if rng.random() < 0.1 else None
        result = synthetic_result(trial, float(rng.uniform(0.3, 2)), 0.3, diverged_after)
        is_stopped = rng.random() < 0.15
        return (
            replace(result, status="stopped", history=result.history[: int(rng.integers(3))]) if is_stopped else result
        )

    results = [result_of(trial) for trial in study.possible_trials]
    sections = analyze_study(study, results, out_of_time=bool(rng.random() < 0.3))
    assert all(section.comment for section in sections)
    assert study_result_to_dict(StudyResult(study, sections, None, ()))["sections"].keys() == study.sections.keys()
