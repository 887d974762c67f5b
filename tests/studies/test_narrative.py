import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from support.histories import history, outcomes, study

from convolab.core.stats import Interval
from convolab.studies.metrics import Metric
from convolab.studies.narrative import describe_best_on_test, format_difference_interval, format_p_value
from convolab.studies.outcomes import TrialResult
from convolab.studies.results import SectionResult, analyze_study
from convolab.studies.study import Study
from convolab.training.trainer import EpochMetrics

Runs = Sequence[Sequence[EpochMetrics]]


def curves(*ends: float, start: float = 0.5) -> Runs:
    """Runs of three epochs by their last validation accuracy."""
    return [history([start, (start + end) / 2, end]) for end in ends]


HIGH, LOW = curves(0.801, 0.812, 0.793), curves(0.70, 0.723, 0.691)


def section(arms: Mapping[str, Runs], contrasts: Sequence[tuple[str, ...]], **status: str) -> SectionResult:
    """A section concluded from its arms' runs; `status` is of runs by arm and seed, as a0="diverged"."""
    of = study(list(arms), contrasts, seeds=range(len(next(iter(arms.values())))))
    return analyze_study(of, outcomes(of, arms, {(key[0], int(key[1:])): value for key, value in status.items()}))[0]


def said(a: Runs, b: Runs, metric: str = "best_validation_accuracy", **status: str) -> str:
    """The comment on "is a better than b?"."""
    return section({"a": a, "b": b}, [("a", "b", metric)], **status).contrast_results[0].comment


# ---- of a contrast


def test_a_better_arm_is_told_with_both_means_the_difference_its_interval_and_p() -> None:
    comment = said(HIGH, LOW)
    assert comment.startswith(
        "'a' is better than 'b' in the best validation accuracy: 80.2 % against 70.5 % on average over 3 seeds, "
    )
    assert "9.7 %-points higher (95 % interval 7.9 to 11.5; p = 0.002)" in comment


def test_a_worse_arm_is_told_by_the_same_numbers_the_other_way_round() -> None:
    comment = said(LOW, HIGH)
    assert comment.startswith(
        "'a' is worse than 'b' in the best validation accuracy: 70.5 % against 80.2 % on average over 3 seeds, "
    )
    assert "9.7 %-points lower (95 % interval 7.9 to 11.5; p = 0.002)" in comment


def test_a_lower_loss_is_better_and_is_told_in_nats() -> None:
    comment = said(HIGH, LOW, "final_train_loss")
    assert comment.startswith("'a' is better than 'b' in the final training loss: 1.198 nats against 1.295 nats")
    assert "0.097 nats lower (95 % interval 0.079 to 0.115;" in comment


def test_a_smaller_gap_is_better_and_is_told_in_points() -> None:
    narrow = [history([0.5, 0.71], gap=gap) for gap in (0.01, 0.02, 0.015)]
    wide = [history([0.5, 0.71], gap=gap) for gap in (0.11, 0.13, 0.125)]
    comment = said(narrow, wide, "final_gap")
    assert comment.startswith(
        "'a' is better than 'b' in the final gap between training and validation accuracy: 1.5 %-points against 12.2"
    )
    assert "curves of the gap" in comment


def test_fewer_epochs_and_less_time_are_told_as_such() -> None:
    soon, late = [history([0.1, 0.6, 0.6, 0.6, 0.61])] * 3, [history([0.1, 0.2, 0.3, 0.4, 0.6])] * 3
    epochs = said(soon, late, "epochs_until_validation_accuracy:0.6")
    assert "in the number of epochs until a validation accuracy of 60 %: 2.0 epochs against 5.0 epochs" in epochs
    assert "3.0 epochs fewer" in epochs
    seconds = said(soon, late, "seconds_until_validation_accuracy:0.6")
    assert "in the time until a validation accuracy of 60 %: 4.0 s against 10.0 s" in seconds
    assert "6.0 s less" in seconds


def test_no_difference_is_told_with_the_smallest_that_would_have_been_seen() -> None:
    comment = said(HIGH, curves(0.803, 0.804, 0.796))
    assert comment.startswith(
        "No difference seen between 'a' and 'b' in the best validation accuracy: 80.2 % against 80.1 %"
    )
    assert re.search(r"\(95 % interval from \d\.\d lower to \d\.\d higher; p = 0\.\d+\)", comment)
    smallest = re.search(
        r"a true difference of (\d\.\d) %-points would be seen 4 times in 5; a smaller one may be there", comment
    )
    assert float(smallest[1]) > 1
    assert "better" not in comment
    assert "worse" not in comment
    assert "apart" not in comment


def test_where_hardly_anything_could_be_seen_the_comment_says_just_that() -> None:
    comment = said(curves(0.2, 0.9), curves(0.6, 0.5))
    assert "hardly any difference would be seen" in comment
    assert "4 times in 5" not in comment


def test_what_holms_correction_took_back_is_said() -> None:
    noise = curves(0.71, 0.73, 0.69)
    arms = {"a": curves(0.75, 0.76, 0.74), "b": curves(0.70, 0.70, 0.701), **{name: noise for name in "cdefg"}}
    comment = section(arms, [(name, "b") for name in "acdefg"]).contrast_results[0].comment
    assert comment.startswith("No difference seen between 'a' and 'b'")
    assert "after Holm's correction for 6 contrasts" in comment
    assert "Taken alone its interval excludes 0, but one of 6 contrasts may do so by chance" in comment
    assert "Taken alone" not in section(arms, [("c", "b"), ("d", "b")]).contrast_results[0].comment


def test_one_seed_gives_both_numbers_and_says_that_one_run_decides_nothing() -> None:
    comment = said(HIGH[:1], LOW[:1])
    assert comment.startswith(
        "With the one seed 0, the best validation accuracy is 80.10 % for 'a' and 70.00 % for 'b'. One run decides nothing"
    )
    assert not re.search("better|worse|interval|higher|lower|p =", comment)


@pytest.mark.parametrize(
    ("status", "first"),
    [
        ({"a0": "diverged"}, "'a' diverged with 1 of 3 seeds."),
        ({"b0": "diverged", "b2": "diverged"}, "'b' diverged with 2 of 3 seeds."),
        (
            {"a0": "diverged", "b1": "diverged", "b2": "failed"},
            "'a' diverged with 1 of 3 seeds, 'b' diverged with 1 of 3 seeds. 'b' failed",
        ),
        ({f"a{i}": "diverged" for i in range(3)}, "'a' diverged with 3 of 3 seeds. There is no seed with which both"),
    ],
)
def test_divergence_is_said_first_and_no_verdict_follows(status: dict[str, str], first: str) -> None:
    comment = said(HIGH, LOW, **status)
    assert comment.startswith(first)
    assert not re.search("better|worse|higher|lower|p [=<]", comment)


def test_runs_that_failed_are_said_before_the_verdict_of_the_others() -> None:
    comment = said(HIGH, LOW, b1="failed")
    assert comment.startswith("'b' failed with 1 of 3 seeds. 'a' is better than 'b'")
    assert "on average over 2 seeds" in comment
    assert "from seed to seed" not in comment  # two seeds tell nothing of their spread


def test_runs_that_never_got_there_are_counted_out_loud() -> None:
    fast, slow = (
        [history([0.1, 0.6, 0.6, 0.6])] * 3,
        [history([0.1, 0.2, 0.3, 0.6])] + [history([0.1, 0.2, 0.3, 0.4])] * 2,
    )
    comment = said(fast, slow, "epochs_until_validation_accuracy:0.6")
    assert "2 of 3 runs of 'b' never got there: no run counts more than 4 epochs" in comment
    assert "never" not in said(fast, [history([0.1, 0.2, 0.3, 0.6])] * 3, "epochs_until_validation_accuracy:0.6")
    one = said(fast[:1], slow[1:2], "epochs_until_validation_accuracy:0.6")
    assert "The run of 'b' never got there" in one


def test_a_level_that_no_run_reached_is_said_without_numbers() -> None:
    comment = said(HIGH, LOW, "epochs_until_validation_accuracy:0.95")
    assert comment == "No run of 'a' and 'b' reached a validation accuracy of 95 %, so there is nothing to compare."


def test_the_very_same_losses_are_said_to_be_the_same() -> None:
    comment = said(HIGH, HIGH, "final_train_loss")
    assert "'a' and 'b' have exactly the same numbers" in comment
    assert "no verdict" in comment


def test_when_the_curves_part_is_said_and_whether_they_end_the_other_way_round() -> None:
    assert "are apart from epoch 2 to the end" in said(HIGH, LOW)
    assert "are apart from the first epoch to the end" in said(curves(0.801, 0.812, 0.793, start=0.6), LOW)
    assert "are not apart at the end" in said(
        [history([0.1, 0.8 + e, 0.5]) for e in (0, 0.01, 0.02)], [history([0.1, 0.6, 0.5])] * 3
    )
    turned = [history([0.1, 0.6, 0.61, 0.65 + e]) for e in (0.001, 0.002, 0.003)]
    comment = said(
        turned, [history([0.1, 0.2, 0.3, 0.9 + e]) for e in (0.001, 0.0, 0.002)], "epochs_until_validation_accuracy:0.6"
    )
    assert comment.startswith("'a' is better than 'b'")
    assert "apart at the end alone, with 'a' the worse one there" in comment


def test_one_epoch_makes_no_curve() -> None:
    assert "curves" not in said([history([0.8 + e]) for e in (0.0, 0.01, 0.002)], [history([0.6])] * 3)


def test_runs_of_unequal_length_are_commented_as_others() -> None:
    comment = said([run[: 2 + i % 2] for i, run in enumerate(HIGH)], LOW, "final_validation_accuracy")
    assert "nan" not in comment
    assert comment.count(".") > 2


@pytest.mark.parametrize("kind", ["better", "worse", "none", "one", "lost"])
def test_every_comment_is_a_few_whole_sentences(kind: str) -> None:
    made = {
        "better": (HIGH, LOW),
        "worse": (LOW, HIGH),
        "none": (HIGH, HIGH),
        "one": (HIGH[:1], LOW[:1]),
        "lost": (HIGH, LOW),
    }[kind]
    comment = said(*made, **({"a0": "failed"} if kind == "lost" else {}))
    sentences = re.findall(r"[^.]+(?:\.\d+[^.]*)*\.", comment)
    assert 1 < len(sentences) <= 4
    assert all(sentence.strip()[0] in "'ABCDEFGHIJKLMNOPQRSTUVWXYZ" for sentence in sentences)
    assert "  " not in comment
    assert "\n" not in comment


# ---- of a section


def test_a_section_sums_up_its_contrasts_the_seen_and_the_unseen() -> None:
    comment = section({"a": HIGH, "b": LOW, "c": HIGH}, [("a", "b"), ("b", "c"), ("a", "c")]).comment
    assert (
        "'a' is better than 'b' in the best validation accuracy (80.2 % against 70.5 % on average over 3 seeds; p = 0.00"
        in comment
    )
    assert "'b' is worse than 'c'" in comment
    assert "No difference was seen between 'a' and 'c' in the best validation accuracy." in comment


def test_arms_that_fared_alike_against_one_share_a_sentence() -> None:
    arms = {"usual": LOW, "x": HIGH, "y": curves(0.811, 0.822, 0.803), "z": LOW[::-1]}
    comment = section(arms, [(name, "usual") for name in "xyz"]).comment
    assert comment.startswith(
        "'x' (80.2 %) and 'y' (81.2 %) are better than 'usual' (70.5 %) in the best validation accuracy, on average over 3 seeds; each has p"
    )
    assert comment.endswith("No difference was seen between 'z' and 'usual' in the best validation accuracy.")
    alike = section(
        {"usual": LOW, "x": LOW[::-1], "y": [LOW[1], LOW[2], LOW[0]]}, [("x", "usual"), ("y", "usual")]
    ).comment
    assert alike == "No difference was seen between 'usual' and each of 'x' and 'y' in the best validation accuracy."


def test_a_section_says_divergence_first_and_how_many_contrasts_stay_open() -> None:
    comment = section({"a": HIGH, "b": LOW, "c": HIGH}, [("a", "b"), ("c", "b")], c1="diverged").comment
    assert comment.startswith("'c' diverged with 1 of 3 seeds. 'a' is better")
    assert comment.endswith("1 of 2 contrasts could not be decided.")


def test_a_section_of_one_run_an_arm_decides_nothing() -> None:
    comment = section({"a": HIGH[:1], "b": LOW[:1]}, [("a", "b")]).comment
    assert (
        comment
        == "With one run an arm the curves show what happened once; one run decides nothing. The contrast could not be decided."
    )


def test_a_section_without_contrasts_lists_its_means_and_decides_nothing() -> None:
    comment = section({"a": HIGH, "b": LOW}, []).comment
    assert comment.startswith(
        "No contrast was asked, so nothing is decided: the best validation accuracy is 80.2 % (77.8 to 82.6) for 'a' and 70.5 %"
    )


def test_a_section_without_a_finished_run_says_what_became_of_them() -> None:
    comment = section({"a": HIGH[:1], "b": LOW[:1]}, [("a", "b")], a0="diverged", b0="failed").comment
    assert comment == "'a' diverged with 1 of 1 seed, 'b' failed with 1 of 1 seed: there is nothing to compare."


def grid(
    ends: Mapping[float, Sequence[float]], contrasts: Sequence[tuple[str, str]] = (), diverged: Sequence[str] = ()
) -> str:
    """The comment on a grid of learning rates, by their runs' best accuracies."""
    asked = [{"arm": arm, "against": against} for arm, against in contrasts]
    seeds = list(range(len(next(iter(ends.values())))))
    of = Study.parse(
        {
            "name": "rates",
            "seeds": seeds,
            "sections": {"lr": {"grid": {"optimizer.lr": list(ends)}, "contrasts": asked}},
        }
    )
    made = [
        TrialResult(
            t,
            "diverged" if t.arm in diverged and t.seed == 0 else "finished",
            tuple(curves(ends[t.recipe.optimizer.lr][t.seed])[0]),
        )
        for t in of.trials
    ]
    return analyze_study(of, made)[0].comment


RATES = {0.3: (0.61, 0.62, 0.601), 0.003: (0.55, 0.541, 0.56), 0.1: (0.80, 0.81, 0.822), 0.01: (0.80, 0.80, 0.811)}


def test_a_grid_names_its_best_arm_and_what_the_contrasts_made_say_of_its_neighbours() -> None:
    comment = grid(RATES, [("lr=0.1", "lr=0.01"), ("lr=0.3", "lr=0.1")])
    assert "'lr=0.1' was best on average in the best validation accuracy: 81.1 % (78.3 to 83.8)." in comment
    assert "Of its neighbours, 'lr=0.3' is worse and 'lr=0.01' cannot be told apart from it." in comment
    assert "edge" not in comment


def test_a_grid_gives_but_the_means_of_neighbours_that_no_contrast_is_about() -> None:
    comment = grid(RATES)
    assert "Beside it lie 'lr=0.3' with 61.0 % (58.7 to 63.4) and 'lr=0.01' with 80.4 %" in comment
    assert "between them nothing was decided" in comment
    assert "worse" not in comment


def test_the_best_at_the_edge_of_a_grid_is_said_to_be_there() -> None:
    assert "at the edge of the values tried" in grid({rate: values for rate, values in RATES.items() if rate < 0.3})


def test_a_diverged_arm_is_not_the_best_of_its_grid() -> None:
    comment = grid(RATES, diverged=["lr=0.1"])
    assert comment.startswith("'lr=0.1' diverged with 1 of 3 seeds.")
    assert "Of the arms that did not diverge, 'lr=0.01' was best" in comment


def test_a_grid_of_one_run_an_arm_says_which_came_out_best_and_no_more() -> None:
    comment = grid({rate: values[:1] for rate, values in RATES.items()})
    assert comment.startswith("With one run an arm")
    assert "came out best" in comment
    assert "on average" not in comment


# ---- of the test


def of_test(correct: int, validation: float = 0.80, candidates: int = 12, inflation: float = 0.02) -> str:
    trial = study().trials[0]
    return describe_best_on_test(trial, candidates, validation, 1000, inflation, correct, 10_000)


def test_the_test_comes_with_its_interval_and_what_the_choice_flatters() -> None:
    comment = of_test(7800)
    assert (
        "the best of 12 runs in validation, classifies 78.00 % of 10,000 test pictures correctly (95 % interval 77.18 to 78.80 %)"
        in comment
    )
    assert (
        "80.00 % of 1,000 pictures; picking the best of 12 is expected to flatter that by up to 2.00 %-points"
        in comment
    )


@pytest.mark.parametrize(
    ("correct", "judged"),
    [
        (7800, "2.00 %-points lower than that, no more than the choice and chance make"),
        (
            7600,
            "4.00 %-points lower than that, no more than the choice and chance make",
        ),  # 2 of the choice, 2 of ±2.6 by chance
        (7000, "10.00 %-points lower than that, more than the choice of the run and chance make"),
        (8100, "1.00 %-points higher than that, no more than the choice and chance make"),
        (8600, "6.00 %-points higher than that, more than chance makes: the test pictures seem to be easier"),
    ],
)
def test_the_test_is_set_against_the_validation_the_choice_and_chance(correct: int, judged: str) -> None:
    assert judged in of_test(correct)


def test_a_single_run_was_not_chosen() -> None:
    comment = of_test(7800, candidates=1, inflation=0.0)
    assert "the only run in validation" in comment
    assert "flatter" not in comment
    assert "no more than chance makes" in comment


# ---- numbers


def test_p_values_show_on_which_side_of_5_percent_they_are() -> None:
    assert format_p_value(0.04996) == "p = 0.0500"
    assert format_p_value(0.0504) == "p = 0.0504"
    assert format_p_value(0.0009) == "p < 0.001"


def test_a_bound_that_is_not_0_does_not_read_so() -> None:
    metric = Metric.parse("best_validation_accuracy")
    assert format_difference_interval(metric, Interval(0.02, 0.00004, 0.04, 3)) == "0.004 to 4.000"
    assert format_difference_interval(metric, Interval(-0.01, -0.03, 0.01, 3)) == "from 3.0 lower to 1.0 higher"


# ---- of anything


@pytest.mark.parametrize(
    "metric",
    [None, "final_train_loss", "final_gap", "epochs_until_validation_accuracy:0.6", "seconds_until_train_loss:1.3"],
)
def test_no_comment_claims_more_than_its_verdict_whatever_the_runs(metric: str | None) -> None:
    chance = np.random.default_rng(7)
    for _ in range(12):
        seeds = int(chance.integers(1, 5))
        arms = {name: [random_run(chance, 0.1 * (name == "a")) for _ in range(seeds)] for name in "abc"}
        fates = chance.choice(["finished", "finished", "finished", "finished", "diverged", "failed"], (3, seeds))
        status = {f"{name}{seed}": str(fates[i, seed]) for i, name in enumerate("abc") for seed in range(seeds)}
        pairs = [("a", "b"), ("b", "c"), ("c", "a")]
        result = section(arms, [pair if metric is None else (*pair, metric) for pair in pairs], **status)
        for answer in result.contrast_results:
            assert (answer.verdict is None) == (answer.reason is not None) == (answer.p_adjusted is None)
            assert ("is better than" in answer.comment) == (answer.verdict == "better")
            assert ("is worse than" in answer.comment) == (answer.verdict == "worse")
            assert ("No difference seen" in answer.comment) == (answer.verdict == "no difference seen")
            for arm in (answer.contrast.arm, answer.contrast.baseline):
                lost = sum(status[f"{arm}{seed}"] == "diverged" for seed in range(seeds))
                assert (f"'{arm}' diverged with {lost} of {seeds} seed" in answer.comment) == (lost > 0)
        for comment in (result.comment, *(answer.comment for answer in result.contrast_results)):
            assert comment
            assert not re.search(r"\b(nan|inf|None)\b|  |\.\.", comment)


def random_run(chance: np.random.Generator, lift: float) -> Sequence[EpochMetrics]:
    """One to five epochs on 50 pictures."""
    counts = chance.binomial(50, np.linspace(0.3, 0.6, int(chance.integers(1, 6))) + lift)
    return history((counts / 50).tolist(), gap=float(chance.normal(0, 0.01)), seconds=float(chance.uniform(1, 1.1)))
