import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from support.histories import evaluation_record, history, study_of_arms, trial_results

from convolab.studies.analyze import analyze_study
from convolab.studies.best_on_test import describe_best_on_test
from convolab.studies.results import BestOnTest, SectionResult, TrialResult
from convolab.studies.study import Study
from convolab.training.history import EpochMetrics

Runs = Sequence[Sequence[EpochMetrics]]


def runs_ending_at(*ends: float, start: float = 0.5) -> Runs:
    """Runs of three epochs by their last validation accuracy."""
    return [history([start, (start + end) / 2, end]) for end in ends]


HIGH, LOW = runs_ending_at(0.801, 0.812, 0.793), runs_ending_at(0.70, 0.723, 0.691)


def analyze_section(arms: Mapping[str, Runs], contrasts: Sequence[tuple[str, ...]], **status: str) -> SectionResult:
    """A section analyzed from its arms' runs; `status` gives the status of single runs, as a0="diverged"."""
    study = study_of_arms(list(arms), contrasts, seeds=range(len(next(iter(arms.values())))))
    return analyze_study(
        study, trial_results(study, arms, {(key[0], int(key[1:])): value for key, value in status.items()})
    )[0]


def comment_on(a: Runs, b: Runs, metric: str = "best_validation_accuracy", **status: str) -> str:
    """The comment on "is a better than b?"."""
    return analyze_section({"a": a, "b": b}, [("a", "b", metric)], **status).contrast_results[0].comment


# ---- of a contrast


def test_the_comment_on_a_better_arm_has_both_means_the_difference_its_interval_and_p() -> None:
    comment = comment_on(HIGH, LOW)
    assert comment.startswith(
        "'a' instead of 'b' raises the best validation accuracy by 9.7 percentage points (7.9 to 11.5), "
        "from 70.5 % to 80.2 % on average over 3 seeds; p = 0.002."
    )


def test_the_comment_on_a_worse_arm_has_the_same_numbers_in_reverse() -> None:
    comment = comment_on(LOW, HIGH)
    assert comment.startswith(
        "'a' instead of 'b' lowers the best validation accuracy by 9.7 percentage points (7.9 to 11.5), "
        "from 80.2 % to 70.5 % on average over 3 seeds; p = 0.002."
    )


def test_a_lower_loss_is_better_and_is_in_nats() -> None:
    comment = comment_on(HIGH, LOW, "final_train_loss")
    assert comment.startswith(
        "'a' instead of 'b' lowers the final training loss by 0.097 nats (0.079 to 0.115), from 1.295"
    )


def test_a_smaller_gap_is_better_and_is_in_percentage_points() -> None:
    narrow = [history([0.5, 0.71], gap=gap) for gap in (0.01, 0.02, 0.015)]
    wide = [history([0.5, 0.71], gap=gap) for gap in (0.11, 0.13, 0.125)]
    comment = comment_on(narrow, wide, "final_gap")
    assert comment.startswith(
        "'a' instead of 'b' lowers the final generalization gap (training minus validation accuracy) by 10.7"
    )
    assert "The curves are apart from epoch" in comment


def test_fewer_epochs_and_less_time_are_described_as_such() -> None:
    soon, late = [history([0.1, 0.6, 0.6, 0.6, 0.61])] * 3, [history([0.1, 0.2, 0.3, 0.4, 0.6])] * 3
    epochs = comment_on(soon, late, "epochs_to_validation_accuracy:0.6")
    assert "lowers the number of epochs to a validation accuracy of 60 % by 3.0 epochs (2.0 to 4.0), from 5.0" in epochs
    seconds = comment_on(soon, late, "seconds_to_validation_accuracy:0.6")
    assert "lowers the time to a validation accuracy of 60 % by 6.0 s" in seconds


def test_the_comment_on_an_open_contrast_has_the_interval_and_the_seeds_it_would_take() -> None:
    comment = comment_on(HIGH, runs_ending_at(0.803, 0.804, 0.796))
    assert comment.startswith(
        "Undecided: 'a' instead of 'b' seems to raise the best validation accuracy by 0.1 percentage points "
    )
    assert re.search(r"\(from \d\.\d lower to \d\.\d higher\), from 80\.1 % to 80\.2 % .*; p = 0\.\d+", comment)
    assert comment.endswith("3 seeds leave it open, and about 6 seeds would probably decide it.")
    assert not re.search("better|worse|apart", comment)


def test_the_comment_on_equivalent_arms_has_the_margin_and_the_difference() -> None:
    comment = comment_on(HIGH, runs_ending_at(0.8012, 0.8118, 0.7935))
    assert comment.startswith(
        "'a' instead of 'b' changes the best validation accuracy by less than 1 percentage point: 0.02 percentage points "
        "lower (from 0.10 lower to 0.07 higher), from 80.22 % to 80.20 % on average over 3 seeds; p < 0.001."
    )
    assert not re.search("better|worse|apart|Undecided", comment)


def test_a_contrast_that_would_take_very_many_seeds_says_so() -> None:
    noisy = [history([0.5, 0.5 + 0.3 * (-1) ** i]) for i in range(4)]
    comment = comment_on(noisy, runs_ending_at(0.5, 0.5, 0.5, 0.4995), "final_validation_accuracy")
    assert comment.endswith("4 seeds leave it open, and more than 1,000 seeds would probably be needed.")


def test_the_comment_names_what_an_arm_has_if_the_contrast_does() -> None:
    contrast = {"arm": "a", "baseline": "b", "subject": "batch norm"}
    arms = {"a": {}, "b": {"model.batch_norm": False}}
    study = Study.from_dict({"name": "s", "sections": {"norm": {"arms": arms, "contrasts": [contrast]}}})
    section = analyze_study(study, trial_results(study, {"a": HIGH, "b": LOW}))[0]
    assert section.contrast_results[0].comment.startswith("Batch norm raises the best validation accuracy by 9.7")
    assert section.comment == "Batch norm raises the best validation accuracy by 9.7 percentage points (7.9 to 11.5)."


def test_holms_correction_is_named_and_counts() -> None:
    small_gain = runs_ending_at(0.71, 0.73, 0.69)
    arms = {
        "a": runs_ending_at(0.75, 0.76, 0.74),
        "b": runs_ending_at(0.70, 0.70, 0.701),
        **{name: small_gain for name in "cdefg"},
    }
    comment = analyze_section(arms, [(name, "b") for name in "acdefg"]).contrast_results[0].comment
    assert comment.startswith("Undecided: 'a' instead of 'b' seems to raise")
    assert "corrected for 6 contrasts" in comment
    assert comment_on(arms["a"], arms["b"]).startswith("'a' instead of 'b' raises")


def test_an_undecided_contrast_whose_interval_alone_would_decide_it_says_why() -> None:
    fifth = {"b": runs_ending_at(0.70, 0.70, 0.701), **{name: runs_ending_at(0.71, 0.73, 0.69) for name in "cdef"}}
    contrasts = [(name, "b") for name in "acdef"]
    on_one_side = analyze_section({"a": runs_ending_at(0.75, 0.76, 0.74), **fifth}, contrasts)
    within_margin = analyze_section({"a": runs_ending_at(0.702, 0.704, 0.7), **fifth}, contrasts)
    shown = ["(2.4 to 7.6, not corrected", "(from 0.46 lower to 0.79 higher, not corrected"]
    for section, interval in zip((on_one_side, within_margin), shown, strict=True):
        result, *others = section.contrast_results
        assert result.verdict == "undecided"
        assert f"{interval} for the other contrasts)" in result.comment
        assert "for the other contrasts" not in "".join(other.comment for other in others)
        assert section.comment.count("for the other contrasts") == 1  # in the sentence on all five
    assert "not corrected" not in comment_on(runs_ending_at(0.75, 0.76, 0.74), fifth["b"])


def test_one_seed_gives_both_numbers_and_no_verdict() -> None:
    comment = comment_on(HIGH[:1], LOW[:1])
    assert comment.startswith(
        "Undecided whether 'a' instead of 'b' changes the best validation accuracy: a single seed decides nothing"
    )
    assert comment.endswith("Seen: from 70.00 % to 80.10 % with seed 0.")
    assert not re.search("better|worse|interval|higher|lower|p =", comment)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"a0": "diverged"}, "'a' diverged in 1 of 3 runs, and the remaining"),
        ({"b0": "diverged", "b2": "diverged"}, "'b' diverged in 2 of 3 runs"),
        (
            {"a0": "diverged", "b1": "diverged", "b2": "failed"},
            "no seed has finished runs of both arms ('a' diverged in 1 of 3 runs, 'b' diverged in 1 of 3 runs, ",
        ),
        (
            {f"a{i}": "diverged" for i in range(3)},
            "no seed has finished runs of both arms ('a' diverged in 3 of 3 runs)",
        ),
    ],
)
def test_divergence_is_the_reason_that_there_is_no_verdict(status: dict[str, str], reason: str) -> None:
    comment = comment_on(HIGH, LOW, **status)
    assert comment.startswith(f"Undecided whether 'a' instead of 'b' changes the best validation accuracy: {reason}")
    assert not re.search("better|worse|higher|lower|p [=<]", comment)


def test_failed_runs_are_mentioned_before_the_verdict_of_the_others() -> None:
    comment = comment_on(HIGH, LOW, b1="failed")
    assert comment.startswith("'b' failed in 1 of 3 runs. 'a' instead of 'b' raises")
    assert "on average over 2 seeds" in comment


def test_runs_that_never_reached_the_threshold_are_counted() -> None:
    fast, slow = (
        [history([0.1, 0.6, 0.6, 0.6])] * 3,
        [history([0.1, 0.2, 0.3, 0.6])] + [history([0.1, 0.2, 0.3, 0.4])] * 2,
    )
    comment = comment_on(fast, slow, "epochs_to_validation_accuracy:0.6")
    assert "2 of 6 runs never reached the threshold: times are censored at 4 epochs for all runs." in comment
    assert "never" not in comment_on(fast, [history([0.1, 0.2, 0.3, 0.6])] * 3, "epochs_to_validation_accuracy:0.6")
    one = comment_on(fast[:1], slow[1:2], "epochs_to_validation_accuracy:0.6")
    assert "1 of 2 runs never reached the threshold" in one


def test_a_threshold_that_no_run_reached_leaves_no_verdict() -> None:
    comment = comment_on(HIGH, LOW, "epochs_to_validation_accuracy:0.95")
    assert comment.startswith(
        "Undecided whether 'a' instead of 'b' changes the number of epochs to a validation accuracy of 95 %: no run "
        "reached a validation accuracy of 95 %."
    )


def test_identical_losses_leave_no_verdict() -> None:
    comment = comment_on(HIGH, HIGH, "final_train_loss")
    assert comment.startswith("Undecided whether 'a' instead of 'b' changes the final training loss: ")
    assert "the difference is identical for all seeds" in comment


def test_the_comment_says_when_the_curves_separate_and_whether_the_order_is_reversed_at_the_end() -> None:
    assert "The curves are apart from epoch 2 to the end." in comment_on(HIGH, LOW)
    assert "from epoch 1 to the end" in comment_on(runs_ending_at(0.801, 0.812, 0.793, start=0.6), LOW)
    assert "Epoch by epoch, the curves are not surely apart at the end." in comment_on(
        [history([0.1, 0.8 + e, 0.5]) for e in (0, 0.01, 0.02)], [history([0.1, 0.6, 0.5])] * 3
    )
    crossed = [history([0.1, 0.6, 0.61, 0.65 + e]) for e in (0.001, 0.002, 0.003)]
    comment = comment_on(
        crossed, [history([0.1, 0.2, 0.3, 0.9 + e]) for e in (0.001, 0.0, 0.002)], "epochs_to_validation_accuracy:0.6"
    )
    assert comment.startswith("'a' instead of 'b' lowers the number of epochs")
    assert "from epoch 4 to the end, where 'a' is the worse one." in comment


def test_one_epoch_makes_no_curve() -> None:
    assert "curves" not in comment_on([history([0.8 + e]) for e in (0.0, 0.01, 0.002)], [history([0.6])] * 3)


def test_runs_of_unequal_length_get_a_comment_like_others() -> None:
    comment = comment_on([run[: 2 + i % 2] for i, run in enumerate(HIGH)], LOW, "final_validation_accuracy")
    assert "nan" not in comment
    assert comment.count(".") > 2


@pytest.mark.parametrize("kind", ["better", "worse", "none", "one", "failed"])
def test_every_comment_is_a_few_complete_sentences(kind: str) -> None:
    runs = {
        "better": (HIGH, LOW),
        "worse": (LOW, HIGH),
        "none": (HIGH, HIGH),
        "one": (HIGH[:1], LOW[:1]),
        "failed": (HIGH, LOW),
    }[kind]
    comment = comment_on(*runs, **({"a0": "failed"} if kind == "failed" else {}))
    sentences = re.findall(r"[^.]+(?:\.\d+[^.]*)*\.", comment)
    assert 1 <= len(sentences) <= 4
    assert all(sentence.strip()[0] in "'ABCDEFGHIJKLMNOPQRSTUVWXYZ" for sentence in sentences)
    assert "  " not in comment
    assert "\n" not in comment


# ---- of a section


def test_a_section_summarizes_its_contrasts() -> None:
    comment = analyze_section({"a": HIGH, "b": LOW, "c": HIGH}, [("a", "b"), ("b", "c"), ("a", "c")]).comment
    assert "'a' instead of 'b' raises the best validation accuracy by 9.7 percentage points (7.9 to 11.5)." in comment
    assert "'b' instead of 'c' lowers" in comment
    assert "'a' instead of 'c' changes the best validation accuracy by less than 1 percentage point" in comment


def test_arms_with_the_same_verdict_and_baseline_share_a_sentence() -> None:
    arms = {"usual": LOW, "x": HIGH, "y": runs_ending_at(0.811, 0.822, 0.803), "z": LOW[::-1]}
    comment = analyze_section(arms, [(name, "usual") for name in "xyz"]).comment
    assert comment.startswith(
        "Better than 'usual' in the best validation accuracy: 'x' (9.7 percentage points higher, 7.9 to 11.5) and 'y' "
        "(10.7 percentage points higher, 8.9 to 12.5)."
    )
    assert comment.endswith(
        "Undecided: 'z' instead of 'usual' seems to leave the best validation accuracy as it is "
        "(from 2.2 percentage points lower to 2.2 higher); about 12 seeds would probably decide it."
    )
    alike = analyze_section(
        {"usual": LOW, "x": runs_ending_at(0.7001, 0.7231, 0.6909), "y": runs_ending_at(0.7002, 0.7229, 0.6911)},
        [("x", "usual"), ("y", "usual")],
    ).comment
    assert alike.startswith("Equivalent to 'usual' within 1 percentage point in the best validation accuracy: 'x' (")


def test_equivalent_arms_share_a_sentence_only_where_their_margins_are_the_same() -> None:
    arms = {"usual": LOW, "x": runs_ending_at(0.7001, 0.7231, 0.6909), "y": runs_ending_at(0.7002, 0.7229, 0.6911)}
    study = study_of_arms(list(arms), [("x", "usual"), ("y", "usual")])
    section = study.sections["section"]
    wide = section.contrasts[1].model_copy(update={"margin": 0.05})
    section = section.model_copy(update={"contrasts": (section.contrasts[0], wide)})
    study = study.model_copy(update={"sections": {"section": section}})
    (result,) = analyze_study(study, trial_results(study, arms))
    assert (
        "'x' instead of 'usual' changes the best validation accuracy by less than 1 percentage point" in result.comment
    )
    assert (
        "'y' instead of 'usual' changes the best validation accuracy by less than 5 percentage points" in result.comment
    )


def test_a_contrast_that_was_given_up_does_not_go_on_with_another_that_is_open() -> None:
    shifts = {"usual": [0.0] * 5, "given up": [0.2, -0.2, 0.2, -0.2, 0.0], "open": [-0.04, 0.0, -0.03, -0.03, 0.0]}
    arms = {arm: {"optimizer.weight_decay": i / 1000} for i, arm in enumerate(shifts)}
    contrasts = [{"arm": arm, "baseline": "usual", "metric": "final_train_loss"} for arm in ("given up", "open")]
    section = {"arms": arms, "contrasts": contrasts, "seeds": "until decided", "max_seeds": 8}
    study = Study.from_dict({"name": "s", "sections": {"section": section}})
    results = [
        TrialResult(trial, "finished", history([0.5], [1 + shifts[trial.arm][trial.seed]]))
        if trial.seed < 5
        else TrialResult(trial, "missing", ())
        for trial in study.possible_trials
    ]
    (result,) = analyze_study(study, results)
    assert [contrast.next_look for contrast in result.contrast_results] == [None, 6]
    _, given_up, goes_on = result.comment.split("Undecided: ")
    assert given_up.startswith("'given up' instead of 'usual'")
    assert "after 5 seeds no more are trained" in given_up
    assert goes_on.startswith("'open' instead of 'usual'")
    assert "the same command goes on with 6 seeds" in goes_on


def test_a_section_says_divergence_first_and_how_many_contrasts_could_not_be_decided() -> None:
    comment = analyze_section({"a": HIGH, "b": LOW, "c": HIGH}, [("a", "b"), ("c", "b")], c1="diverged").comment
    assert comment.startswith("'c' diverged in 1 of 3 runs. 'a' instead of 'b' raises")
    assert comment.endswith(
        "1 of 2 contrasts could not be tested: 'c' diverged in 1 of 3 runs, and the remaining runs are a biased sample."
    )


def test_a_section_of_one_run_per_arm_decides_nothing() -> None:
    comment = analyze_section({"a": HIGH[:1], "b": LOW[:1]}, [("a", "b")]).comment
    assert (
        comment == "With one run per arm the curves show a single outcome, which decides nothing. "
        "The contrast could not be tested: a single seed decides nothing, because another may reverse the order: use at "
        "least three. The best validation accuracy is 80.10 % for 'a' and 70.00 % for 'b'."
    )


def test_a_section_without_contrasts_lists_its_means_and_decides_nothing() -> None:
    comment = analyze_section({"a": HIGH, "b": LOW}, []).comment
    assert comment.startswith(
        "No contrast was specified, so nothing is tested: the best validation accuracy is 80.2 % (77.8 to 82.6) for 'a' "
        "and 70.5 %"
    )


def test_a_section_without_a_finished_run_says_how_each_ended() -> None:
    comment = analyze_section({"a": HIGH[:1], "b": LOW[:1]}, [("a", "b")], a0="diverged", b0="failed").comment
    assert comment == "'a' diverged in 1 of 1 run, 'b' failed in 1 of 1 run, so there is nothing to compare."


def comment_on_grid(
    ends: Mapping[float, Sequence[float]],
    contrasts: Sequence[tuple[str, str]] = (),
    diverged: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> str:
    """The comment on a grid of learning rates, by their runs' best accuracies; of some arms the first run has no end."""
    contrast_dicts = [{"arm": arm, "baseline": baseline} for arm, baseline in contrasts]
    seeds = list(range(len(next(iter(ends.values())))))
    study = Study.from_dict(
        {
            "name": "rates",
            "seeds": seeds,
            "sections": {"lr": {"grid": {"optimizer.lr": list(ends)}, "contrasts": contrast_dicts}},
        }
    )
    results = [
        TrialResult(
            t,
            "finished" if t.seed else "diverged" if t.arm in diverged else "failed" if t.arm in failed else "finished",
            tuple(runs_ending_at(ends[t.recipe.optimizer.lr][t.seed])[0]),
        )
        for t in study.trials
    ]
    return analyze_study(study, results)[0].comment


RATES = {0.3: (0.61, 0.62, 0.601), 0.003: (0.55, 0.541, 0.56), 0.1: (0.80, 0.81, 0.822), 0.01: (0.80, 0.80, 0.811)}


def test_a_grid_names_its_best_arm_and_how_its_neighbors_compare_with_it() -> None:
    comment = comment_on_grid(RATES, [("lr=0.1", "lr=0.01"), ("lr=0.3", "lr=0.1")])
    assert "'lr=0.1' is best on average in the best validation accuracy: 81.1 % (78.3 to 83.8)." in comment
    assert ("Of its neighbors in the grid, 'lr=0.3' is worse and 'lr=0.01' is undecided.") in comment
    assert "edge" not in comment


def test_a_grid_says_which_neighbors_were_not_compared() -> None:
    comment = comment_on_grid(RATES)
    assert "It was not compared with its neighbors in the grid, 'lr=0.3' and 'lr=0.01'." in comment
    assert "worse" not in comment


def test_the_best_of_a_grid_says_over_which_seeds_where_the_arms_have_not_the_same() -> None:
    seeds = "over the 2 seeds that all"
    comment = comment_on_grid(RATES, failed=["lr=0.3"])
    assert f"'lr=0.1' is best on average in the best validation accuracy, {seeds} arms have: 81.6 % (74." in comment
    comment = comment_on_grid(RATES, failed=["lr=0.3"], diverged=["lr=0.003"])
    assert (
        f"Of the arms that did not diverge, 'lr=0.1' is best on average in the best validation accuracy, {seeds} of"
        in comment
    )
    assert "that all" not in comment_on_grid(RATES, diverged=["lr=0.003"])


def test_one_neighbor_in_a_grid_is_not_called_several() -> None:
    two = {rate: RATES[rate] for rate in (0.1, 0.01)}
    assert comment_on_grid(two).endswith("Its neighbor in the grid, 'lr=0.01', was not compared with it.")
    comment = comment_on_grid(two, [("lr=0.1", "lr=0.01")])
    assert comment.endswith("Its neighbor in the grid, 'lr=0.01', is undecided.")


def test_a_best_arm_at_the_edge_of_a_grid_is_described_as_such() -> None:
    assert "at the edge of the grid: better values may lie outside it." in comment_on_grid(
        {rate: values for rate, values in RATES.items() if rate < 0.3}
    )


def test_a_diverged_arm_is_not_the_best_of_its_grid() -> None:
    comment = comment_on_grid(RATES, diverged=["lr=0.1"])
    assert comment.startswith("'lr=0.1' diverged in 1 of 3 runs.")
    assert "Of the arms that did not diverge, 'lr=0.01' is best" in comment


def test_a_grid_of_one_run_per_arm_says_which_has_the_best_value_and_no_more() -> None:
    comment = comment_on_grid({rate: values[:1] for rate, values in RATES.items()})
    assert comment.startswith("With one run per arm")
    assert "has the best value" in comment
    assert "on average" not in comment


# ---- of the best run on the test set


def comment_on_test(correct: int, validation: float = 0.80, candidates: int = 12, bias: float = 0.02) -> str:
    trial = study_of_arms().trials[0]
    result = TrialResult(trial, "finished", ())
    return describe_best_on_test(BestOnTest(result, candidates, validation, 1000, bias, evaluation_record(correct), ""))


def test_the_comment_on_the_test_accuracy_has_its_interval_and_the_selection_bias() -> None:
    comment = comment_on_test(7800)
    assert (
        "the best of 12 runs in validation, classifies 78.00 % of 10,000 test images correctly "
        "(95 % interval 77.18 to 78.80 %)" in comment
    )
    assert (
        "80.00 % on 1,000 images; selecting the best of 12 is expected to inflate it by up to 2.00 percentage points"
        in comment
    )


@pytest.mark.parametrize(
    ("correct", "expected"),
    [
        (7800, "2.00 percentage points lower, within what selection bias and chance explain"),
        (
            7600,
            "4.00 percentage points lower, within what selection bias and chance explain",
        ),  # 2 of selection bias, 2 of ±2.6 by chance
        (7000, "10.00 percentage points lower, more than selection bias and chance explain"),
        (8100, "1.00 percentage points higher, within what selection bias and chance explain"),
        (8600, "6.00 percentage points higher, more than chance explains: the test images seem to be easier"),
    ],
)
def test_the_test_accuracy_is_compared_with_validation_accuracy_selection_bias_and_chance(
    correct: int, expected: str
) -> None:
    assert expected in comment_on_test(correct)


def test_a_single_run_has_no_selection_bias() -> None:
    comment = comment_on_test(7800, candidates=1, bias=0.0)
    assert "the only run in validation" in comment
    assert "inflate" not in comment
    assert "within what chance explains" in comment


# ---- of any runs


@pytest.mark.slow
@pytest.mark.parametrize(
    "metric",
    [None, "final_train_loss", "final_gap", "epochs_to_validation_accuracy:0.6", "seconds_to_train_loss:1.3"],
)
def test_no_comment_claims_more_than_its_verdict_whatever_the_runs(metric: str | None) -> None:
    rng = np.random.default_rng(7)
    for _ in range(12):
        seeds = int(rng.integers(1, 5))
        arms = {name: [random_run(rng, 0.1 * (name == "a")) for _ in range(seeds)] for name in "abc"}
        statuses = rng.choice(["finished", "finished", "finished", "finished", "diverged", "failed"], (3, seeds))
        status = {f"{name}{seed}": str(statuses[i, seed]) for i, name in enumerate("abc") for seed in range(seeds)}
        pairs = [("a", "b"), ("b", "c"), ("c", "a")]
        result = analyze_section(arms, [pair if metric is None else (*pair, metric) for pair in pairs], **status)
        for contrast_result in result.contrast_results:
            decided = contrast_result.verdict in ("better", "worse")
            assert (contrast_result.verdict == "undecided") == (contrast_result.reason is not None)
            assert bool(re.search(" (raises|lowers) ", contrast_result.comment)) == decided
            assert ("by less than" in contrast_result.comment) == (contrast_result.verdict == "equivalent")
            assert ("Undecided" in contrast_result.comment) == (contrast_result.verdict == "undecided")
            for arm in (contrast_result.contrast.arm, contrast_result.contrast.baseline):
                num_diverged = sum(status[f"{arm}{seed}"] == "diverged" for seed in range(seeds))
                assert (f"'{arm}' diverged in {num_diverged} of {seeds} run" in contrast_result.comment) == (
                    num_diverged > 0
                )
        for comment in (result.comment, *(contrast_result.comment for contrast_result in result.contrast_results)):
            assert comment
            assert not re.search(r"\b(nan|inf|None)\b|  |\.\.", comment)


def random_run(rng: np.random.Generator, gain: float) -> Sequence[EpochMetrics]:
    """One to five epochs on 50 images."""
    counts = rng.binomial(50, np.linspace(0.3, 0.6, int(rng.integers(1, 6))) + gain)
    return history((counts / 50).tolist(), gap=float(rng.normal(0, 0.01)), seconds=float(rng.uniform(1, 1.1)))
