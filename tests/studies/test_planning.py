"""Grids that widen where their best arm stands at an end, contrasts of more than two arms, and what is trained next."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from support.histories import history

from convolab.core.errors import LabError
from convolab.studies.analyze import analyze_study
from convolab.studies.planning import plan_study, widened_arms
from convolab.studies.results import SectionResult, TrialResult, TrialStatus
from convolab.studies.section import Section, further_values
from convolab.studies.serialize import section_result_to_dict
from convolab.studies.study import Study
from convolab.studies.trend import fit_optimum
from convolab.training.history import EpochMetrics

RATES = [0.3, 0.1, 0.03, 0.01]
AGAINST_USUAL = {"baseline": "lr=0.01", "metric": "final_train_loss"}


def grid_study(widen: int = 2, seeds: Any = (0, 1, 2), values: Sequence[float] = RATES, **more: Any) -> Study:
    section: dict[str, Any] = {"grid": {"optimizer.lr": list(values)}, "widen": widen}
    arms = Section.model_validate({**section, "widen": 0}).arm_overrides
    if widen:
        arms = Section.model_validate({**section, "contrasts": [{"arm": "lr=0.1", **AGAINST_USUAL}]}).arm_overrides
    contrasts = [{"arm": arm, **AGAINST_USUAL} for arm in arms if arm != "lr=0.01"]
    section["contrasts"] = [*contrasts, {"trend": "optimizer.lr", "metric": "final_train_loss"}]
    return Study.from_dict({"name": "rates", "seeds": seeds, "sections": {"lr": section}, **more})


def losses_of(final_loss: Callable[[float], float]) -> Callable[[float, int], tuple[EpochMetrics, ...]]:
    """Histories by the rate and the seed."""
    return lambda rate, seed: history([0.5, 0.6], [2.0, final_loss(rate) + 0.01 * (seed % 3) * (1 + rate)])


def trained(
    study: Study,
    make_history: Callable[[float, int], tuple[EpochMetrics, ...]],
    status: Callable[[float], TrialStatus] = lambda rate: "finished",
) -> list[TrialResult]:
    """What a study has when all that it plans is trained, as `execute_study` does it."""
    results: dict[str, TrialResult] = {}
    while True:
        trials = plan_study(study, list(results.values())).trials
        missing = [trial for trial in trials if trial.recipe.key not in results]
        if not missing:
            return list(results.values())
        for trial in missing:
            rate = trial.recipe.optimizer.lr
            results[trial.recipe.key] = TrialResult(trial, status(rate), make_history(rate, trial.seed))


def arms_of(results: list[TrialResult]) -> list[str]:
    return list(dict.fromkeys(result.trial.arm for result in results))


def analyze(study: Study, results: list[TrialResult]) -> SectionResult:
    return analyze_study(study, results)[0]


def test_the_next_values_of_a_grid_go_on_as_its_last_ones():
    assert further_values([1, 2, 4], 2) == [8, 16]
    assert further_values([0.001, 0.01, 0.1], 1) == [1.0]
    assert further_values([0.5, 0.2, 0.1], 3) == [0.04, 0.02, 0.008]
    assert further_values([-1.0, 0.0, 1.0], 1) == [2.0]


@pytest.mark.slow
def test_a_grid_widens_where_its_best_arm_stands_at_an_end_and_no_further_than_needed():
    assert arms_of(trained(grid_study(), losses_of(lambda rate: abs(rate - 0.1)))) == [
        "lr=0.3", "lr=0.1", "lr=0.03", "lr=0.01",
    ]  # fmt: skip
    once = trained(grid_study(), losses_of(lambda rate: abs(rate - 0.9)))
    assert arms_of(once) == ["lr=0.3", "lr=0.1", "lr=0.03", "lr=0.01", "lr=1", "lr=3"]
    # 1 is best, and it is an end until 3 is trained too.
    assert arms_of(trained(grid_study(widen=1), losses_of(lambda rate: abs(rate - 0.9))))[-1] == "lr=1"
    down = trained(grid_study(), losses_of(lambda rate: rate))
    assert arms_of(down)[4:] == ["lr=0.003", "lr=0.001"]


def test_a_grid_that_need_not_widen_leaves_out_the_contrasts_of_further_arms_but_counts_them():
    study = grid_study()
    result = analyze(study, trained(study, losses_of(lambda rate: abs(rate - 0.1))))
    assert [arm.name for arm in result.arms] == ["lr=0.3", "lr=0.1", "lr=0.03", "lr=0.01"]
    assert [r.contrast.arm for r in result.contrast_results] == ["lr=0.3", "lr=0.1", "lr=0.03", "middle of lr"]
    assert "corrected for 8 contrasts" in result.contrast_results[0].comment
    assert "edge of the grid" not in result.comment


def test_a_grid_that_may_widen_no_more_says_that_better_values_may_lie_outside():
    study = grid_study(widen=1)
    result = analyze(study, trained(study, losses_of(lambda rate: -rate)))
    assert "'lr=1' is best on average" in result.comment
    assert "It is at the edge of the grid" in result.comment


def test_what_comes_next_waits_until_every_arm_is_there():
    study = grid_study()
    all_runs = trained(study, losses_of(lambda rate: abs(rate - 0.9)))
    first = [result for result in all_runs if result.trial.arm not in ("lr=1", "lr=3")]
    assert "lr=1" not in plan_study(study, first[:-1]).in_play["lr"]
    assert "lr=1" in plan_study(study, first).in_play["lr"]
    assert "lr=3" not in plan_study(study, first).in_play["lr"]


def test_a_failed_run_takes_no_arm_back_when_it_is_tried_again():
    study = grid_study()
    losses = losses_of(lambda rate: abs(rate - 0.3))
    failed = trained(study, losses, lambda rate: "failed" if rate == 0.3 else "finished")
    tried_again = trained(study, losses)
    assert set(arms_of(failed)) <= set(arms_of(tried_again))


@pytest.mark.parametrize(
    ("best", "added"),
    [((0.3, 0.1), []), ((0.03, 0.01), []), ((0.3, 0.01), ["lr=1", "lr=0.003"]), ((0.3, 0.1, 0.03, 0.01), [])],
)
def test_a_tie_with_an_arm_inside_the_grid_widens_nothing_and_one_of_both_ends_both(
    best: tuple[float, ...], added: list[str]
):
    study = grid_study(widen=1)
    results = trained(study, lambda rate, seed: history([0.5], [0.1 if rate in best else 0.2]))
    assert arms_of(results)[4:] == added


def test_an_arm_without_validation_images_in_a_grid_is_no_error():
    values = [0.0, 0.1, 0.2]
    section = {
        "grid": {"data.validation": values},
        "contrasts": [{"arm": "validation=0.1", "baseline": "validation=0.2"}],
    }
    study = Study.from_dict({"name": "x", "sections": {"s": section}})
    results = []
    for trial in study.trials:
        epochs = history([0.5, 0.6 + 0.01 * trial.seed * len(trial.arm) % 3])
        if trial.arm == "validation=0":
            epochs = tuple(replace(epoch, validation_loss=None, validation_accuracy=None) for epoch in epochs)
        results.append(TrialResult(trial, "finished", epochs))
    assert "is best on average" in analyze(study, results).comment


def test_an_interaction_that_shares_an_arm_has_the_floor_of_its_own_weights():
    arms = {name: {"optimizer.weight_decay": i / 1000} for i, name in enumerate("abc")}
    contrast = {"arm": "a", "baseline": "b", "interaction": ["b", "c"], "metric": "epochs_to_train_accuracy:0.5"}
    study = Study.from_dict({"name": "x", "sections": {"s": {"arms": arms, "contrasts": [contrast]}}})
    results = [TrialResult(trial, "finished", history([0.1, 0.6])) for trial in study.trials]
    (result,) = analyze(study, results).contrast_results
    assert result.paired_test is not None
    # a - 2 b + c of whole epochs: the floor of its standard deviation is sqrt((1 + 4 + 1) / 12).
    assert result.paired_test.standard_error == pytest.approx(math.sqrt(6 / 12 / 3))


def test_an_arm_of_which_a_run_diverged_is_not_the_best_and_takes_no_part_in_a_trend():
    study = grid_study(values=[1.0, *RATES])
    runs = trained(
        study, losses_of(lambda rate: abs(rate - 0.05)), lambda rate: "diverged" if rate == 1 else "finished"
    )
    assert arms_of(runs) == ["lr=1", "lr=0.3", "lr=0.1", "lr=0.03", "lr=0.01"]
    trend = analyze(study, runs).contrast_results[-1]
    assert trend.is_tested
    assert trend.optimum is not None
    assert trend.optimum.span[1] == pytest.approx(0.3)


@pytest.mark.slow
def test_until_decided_a_grid_widens_at_the_first_look_and_more_seeds_take_no_arm_back():
    study = grid_study(seeds="until decided", max_seeds=6)
    noise = {seed: 0.3 * ((seed * 7) % 5) for seed in range(6)}

    def runs(rate: float, seed: int) -> tuple[EpochMetrics, ...]:
        # The first three seeds are best at 1, all later ones at 0.1.
        best = 1.0 if seed < 3 else 0.1
        return history([0.5, 0.6], [2.0, abs(rate - best) + noise[seed] * rate])

    results = trained(study, runs)
    assert set(arms_of(results)) >= {"lr=1", "lr=3"}
    counts = {arm: sum(result.trial.arm == arm for result in results) for arm in arms_of(results)}
    assert min(counts.values()) >= 3
    assert plan_study(study, results).in_play == plan_study(study, results[::-1]).in_play


def test_a_trend_says_whether_the_middle_is_better_and_where_the_optimum_is():
    study = grid_study(widen=0)

    def runs(rate: float, seed: int) -> tuple[EpochMetrics, ...]:
        loss = 0.5 + 0.02 * math.log(rate / 0.06) ** 2 + 0.002 * seed * (1 + rate)
        return history([0.5, 0.6], [2.0, loss])

    trend = analyze(study, trained(study, runs)).contrast_results[-1]
    assert trend.verdict == "better"
    assert trend.comment.startswith(
        "Taking the middle of the grid ('lr=0.03', 'lr=0.1') instead of its ends ('lr=0.01', 'lr=0.3') lowers the final "
    ), trend.comment
    assert "The optimum of a parabola is at lr = 0.0" in trend.comment
    assert "95 % interval" in trend.comment
    assert trend.optimum is not None
    assert 0.03 < trend.optimum.value < 0.1


def test_an_optimum_beyond_the_fitted_values_is_not_called_an_end_of_those_that_were_trained():
    losses = dict(zip([0.0001, 0.001, 0.01, 0.1, 1.0, 10.0], [2.0, 2.0, 1.0, 1.01, 1.01, 1.5], strict=True))
    section = {"grid": {"optimizer.lr": list(losses)}, "contrasts": [{"trend": "optimizer.lr", **LOSS}]}
    study = Study.from_dict({"name": "rates", "sections": {"lr": section}})
    (trend,) = analyze(study, trained(study, losses_of(losses.__getitem__))).contrast_results
    assert "at lr = 1, an end of the values that the parabola was fitted to, or beyond" in trend.comment, trend.comment


def test_the_optimum_of_times_to_a_threshold_is_that_of_the_times_that_are_compared():
    rates, metric = [0.003, 0.01, 0.03, 0.1, 0.3], "epochs_to_validation_accuracy:0.6"
    section = {"grid": {"optimizer.lr": rates}, "contrasts": [{"trend": "optimizer.lr", "metric": metric}]}
    study = Study.from_dict({"name": "rates", "sections": {"lr": section}})
    epochs = {0.003: 12, 0.01: 5, 0.03: 2, 0.1: 3}

    def runs(rate: float, seed: int) -> tuple[EpochMetrics, ...]:
        if rate not in epochs:
            return history([0.1] * 7)  # it never reaches the threshold, and was stopped early
        return history([*[0.1] * (epochs[rate] + seed - 1), 0.6])

    (trend,) = analyze(study, trained(study, runs)).contrast_results
    compared = np.array([[7, 5 + seed, 2 + seed, 3 + seed, 7] for seed in range(3)], dtype=float)
    expected = fit_optimum(list(map(math.log, rates)), compared, is_log=True, higher_is_better=False)
    assert trend.optimum is not None
    assert expected is not None
    assert trend.optimum.coefficients == pytest.approx(expected.coefficients)


def test_a_trend_of_too_few_arms_without_a_divergence_is_undecided():
    study = grid_study(widen=0)
    runs = trained(study, losses_of(lambda rate: rate), lambda rate: "diverged" if rate == 0.3 else "finished")
    trend = analyze(study, runs).contrast_results[-1]
    assert trend.verdict == "undecided"
    assert trend.reason == "of 3 arms no run diverged, and a trend needs 4"


LOSS = {"metric": "final_train_loss"}
MOMENTUM = {"arm": "momentum=0.8", "baseline": "momentum=0.9"}
INTERACTION = {
    "arm": "deep, with", "baseline": "deep", "interaction": ["with", "without"], "metric": "final_train_loss",
    "subject": "adding residual connections",
}  # fmt: skip


def interaction_study(contrast: dict[str, Any]) -> Study:
    arms = {
        name: {"optimizer.weight_decay": i / 1000} for i, name in enumerate(["deep, with", "deep", "with", "without"])
    }
    return Study.from_dict({"name": "depth", "sections": {"depth": {"arms": arms, "contrasts": [contrast]}}})


def interaction_result(effects: dict[str, float], status: dict[str, TrialStatus] | None = None) -> SectionResult:
    study = interaction_study(INTERACTION)
    results = [
        TrialResult(
            trial,
            (status or {}).get(trial.arm, "finished"),
            history([0.5], [effects[trial.arm] + 0.003 * (crc32(f"{trial.arm}{trial.seed}".encode()) % 3)]),
        )
        for trial in study.trials
    ]
    return analyze(study, results)


def test_an_interaction_is_the_difference_of_two_differences_seed_by_seed():
    effects = {"deep, with": 0.5, "deep": 0.9, "with": 0.7, "without": 0.6}
    (result,) = interaction_result(effects).contrast_results
    assert result.paired_test is not None
    assert result.paired_test.difference.mean == pytest.approx(-0.5, abs=0.01)
    assert result.verdict == "better"
    assert result.comment.startswith("The effect of adding residual connections on the final training loss is 0.49"), (
        result.comment
    )
    assert "lower (" in result.comment
    assert "from 'deep' to 'deep, with' than from 'without' to 'with', −0.4" in result.comment
    assert result.contrast.label == "(deep, with − deep) − (with − without)"
    values = section_result_to_dict(interaction_result(effects))
    assert values["contrasts"][0]["verdict"] == "better"
    assert values["contrasts"][0]["interaction"] == ("with", "without")


def test_an_interaction_of_effects_of_one_sign_says_more_or_less():
    more = {"deep, with": 0.2, "deep": 0.9, "with": 0.5, "without": 0.6}
    (result,) = interaction_result(more).contrast_results
    assert result.comment.startswith("Adding residual connections lowers the final training loss by 0.5980 nats more (")
    less = {"deep, with": 0.85, "deep": 0.9, "with": 0.2, "without": 0.6}
    (result,) = interaction_result(less).contrast_results
    assert result.verdict == "worse"
    assert "nats less (" in result.comment


@pytest.mark.slow
def test_a_widened_grid_says_so_and_compares_means_of_the_same_seeds():
    study = grid_study()
    result = analyze(study, trained(study, losses_of(lambda rate: abs(rate - 0.9))))
    assert "The grid was widened by 'lr=3' and 'lr=1', because its best arm stood at an end." in result.comment
    more = grid_study(seeds="until decided", max_seeds=6)
    runs = trained(more, losses_of(lambda rate: abs(rate - 0.1)))
    # Later seeds of one arm alone, and far better, do not make it the best.
    extra = [trial for trial in more.possible_trials if trial.arm == "lr=0.3" and trial.seed > 2]
    known = {(result.trial.arm, result.trial.seed) for result in runs}
    runs += [TrialResult(t, "finished", history([0.5], [-9.0])) for t in extra if (t.arm, t.seed) not in known]
    assert "'lr=0.1' is best on average" in analyze(more, runs).comment


@pytest.mark.slow
def test_a_trend_on_a_grid_that_widened_errs_in_fewer_than_5_of_100_studies_where_nothing_has_an_effect():
    trend = {"trend": "optimizer.lr", "metric": "final_train_loss"}
    section = {"grid": {"optimizer.lr": RATES}, "widen": 2, "contrasts": [trend]}
    study = Study.from_dict({"name": "rates", "seeds": [0, 1, 2], "sections": {"lr": section}})
    empty = [TrialResult(trial, "finished", ()) for trial in study.possible_trials]
    rng, verdicts = np.random.default_rng(0), Counter[str]()
    while verdicts.total() < 600:
        # Apart by more than the margin, within which nothing would be called different.
        losses = rng.normal(0.7, 0.1, len(empty)) + rng.normal(0, 0.2, 3)[[r.trial.seed for r in empty]]
        results = [replace(r, history=history([0.5], [loss])) for r, loss in zip(empty, losses.tolist(), strict=True)]
        by_arm: dict[str, dict[int, TrialResult]] = {}
        for result in results:
            by_arm.setdefault(result.trial.arm, {})[result.trial.seed] = result
        arms = widened_arms(study.sections["lr"], by_arm, (0, 1, 2))
        if len(arms) > len(RATES):
            [found] = analyze(study, [result for result in results if result.trial.arm in arms]).contrast_results
            verdicts[found.verdict] += 1
    false = verdicts["better"] + verdicts["worse"]
    assert 0 < false < 0.05 * 600
    assert verdicts["better"] > 0.8 * false  # the middle was found better


def test_an_interaction_with_a_diverged_arm_of_either_pair_is_undecided():
    effects = {"deep, with": 0.5, "deep": 0.9, "with": 0.7, "without": 0.6}
    (result,) = interaction_result(effects, {"without": "diverged"}).contrast_results
    assert result.verdict == "undecided"
    assert "'without' diverged in 3 of 3 runs" in (result.reason or "")


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        ({"arm": "with", "baseline": "without", "interaction": ["with", "without"]}, "compares a difference with itself"),
        ({"arm": "with", "baseline": "without", "interaction": ["deep", "deep"]}, "compares a difference with itself"),
        ({"arm": "with", "baseline": "without", "interaction": ["deep", "depp"]}, "'depp' is not an arm of the section: did you mean 'deep'"),
        ({"trend": "optimizer.lr"}, "a trend needs a grid of 4 or more numbers of optimizer.lr alone"),
        ({"trend": "optimizer.lr", "arm": "with"}, "leave out arm"),
        ({"trend": "optimizer.lr", "interaction": ["deep", "with"]}, "is a trend or an interaction"),
    ],
)  # fmt: skip
def test_a_wrong_contrast_is_one_line(contrast: dict[str, Any], message: str):
    with pytest.raises(LabError) as error:
        interaction_study(contrast)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"grid": {"optimizer.lr": [0.1, 0.01]}, "widen": 1}, "widen = 1: only a grid of three or more numbers"),
        ({"grid": {"optimizer.lr": [0.1, 0.03, 0.01], "model.name": ["a"]}, "widen": 1}, "widen = 1: only a grid"),
        ({"grid": {"optimizer.lr": [0.1, 0.03, 0.01]}, "widen": 1}, "widen = 1: add a contrast"),
        ({"grid": {"optimizer.lr": [0.1, 0.03, 0.01]}, "widen": 9}, "widen = 9"),
        ({"arms": {"a": {}}, "widen": 1}, "widen = 1: only a grid"),
        ({"grid": {"optimizer.lr": [0.1, 0.03, 0.01]}, "widen": True}, "widen = True"),
        (
            {"grid": {"optimizer.lr": [0.1, 0.03, 0.01]}, "widen": 1, "contrasts": [{"trend": "optimizer.lr", **LOSS}]},
            "a trend needs a grid of 4 or more numbers",
        ),
        (
            {"grid": {"optimizer.momentum": [0.5, 0.8, 0.9]}, "widen": 1, "contrasts": [{**MOMENTUM, **LOSS}]},
            "which `widen` adds",
        ),
        ({"grid": {"optimizer.lr": [10**400, 2, 3, 4]}, "widen": 1}, "a grid has a number beyond"),
    ],
)
def test_a_grid_that_cannot_widen_is_refused_in_one_line(section: dict[str, Any], message: str):
    with pytest.raises(LabError) as error:
        Study.from_dict({"name": "x", "sections": {"s": section}})
    assert message in str(error.value)


def test_a_study_with_a_trend_and_a_widening_grid_is_written_and_read_again_equal(tmp_path):
    study = grid_study()
    study.write(tmp_path / "study.toml")
    assert Study.read(tmp_path / "study.toml") == study
