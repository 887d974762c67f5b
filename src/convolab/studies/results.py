"""What a study came to: its runs gathered into arms, its contrasts answered, its best run tested."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from convolab.core.errors import require
from convolab.core.stats import ALPHA, Interval, PairedTest, holm, mean_interval, paired_t_test, selection_bias
from convolab.studies import narrative
from convolab.studies.metrics import Metric
from convolab.studies.outcomes import Arm, ContrastResult, TrialResult, Verdict, describe_unfinished
from convolab.studies.study import Contrast, Section, Study
from convolab.training.trainer import EpochMetrics

SELECTION_METRIC = Metric("best", "validation_accuracy")  # by which the run to test is chosen


@dataclass(frozen=True)
class SectionResult:
    """A section with its arms in the order written, its answers and its comment."""

    name: str
    section: Section
    arms: tuple[Arm, ...]
    contrast_results: tuple[ContrastResult, ...]
    comment: str


@dataclass(frozen=True)
class BestOnTest:
    """The run of the best validation accuracy among all finished ones, tested once."""

    trial_result: TrialResult
    num_candidates: int  # runs it was chosen among
    validation_accuracy: float
    num_validation_images: int  # pictures
    selection_bias: (
        float  # by how much choosing the best of so many is expected to flatter the validation accuracy, a fraction
    )
    test_result: dict[str, Any]  # what Run.test gives: accuracy, interval, correct, count, per_class, confusion
    comment: str


@dataclass(frozen=True)
class StudyResult:
    """All that a report shows."""

    study: Study
    sections: tuple[SectionResult, ...]
    best_on_test: BestOnTest | None
    notes: tuple[str, ...] = ()  # what went wrong: trials that failed or are missing, each in one line

    @property
    def trial_results(self) -> dict[str, TrialResult]:
        """One outcome a run, by recipe key: trials that share a run count once."""
        return {o.trial.recipe.key: o for section in self.sections for arm in section.arms for o in arm.results}


def mean_curve(arm: Arm, quantity: str) -> list[tuple[int, Interval]]:
    """An arm's mean over its runs at each epoch that all its finished runs have, with the t-interval (no width for one run).

    Gives (epoch, interval) pairs; none where no run is finished, or the runs held no validation pictures back.
    """
    metric = Metric("final", quantity)
    histories = [outcome.history for outcome in arm.finished]
    if not histories or (
        metric.needs_validation and any(history[0].validation_accuracy is None for history in histories)
    ):
        return []
    epochs = zip(*(metric.curve(history) for history in histories), strict=False)  # as far as the shortest goes
    return [(i + 1, mean_interval(values)) for i, values in enumerate(epochs)]


def analyze_study(study: Study, trial_results: Sequence[TrialResult]) -> tuple[SectionResult, ...]:
    """Answer every contrast of every section from the outcomes of its trials; a trial without an outcome is missing."""
    results_by_trial = {(o.trial.section, o.trial.arm, o.trial.seed): o for o in trial_results}
    results_by_section: dict[str, dict[str, list[TrialResult]]] = {}
    for trial in study.trials:
        outcome = results_by_trial.get((trial.section, trial.arm, trial.seed)) or TrialResult(trial, "missing", ())
        results_by_section.setdefault(trial.section, {}).setdefault(trial.arm, []).append(outcome)
    results = []
    for name, section in study.sections.items():
        arms = tuple(Arm(arm, tuple(outcomes)) for arm, outcomes in results_by_section[name].items())
        answers = analyze_contrasts(section.contrasts, arms)
        results.append(SectionResult(name, section, arms, answers, narrative.describe_section(section, arms, answers)))
    return tuple(results)


def analyze_contrast(contrast: Contrast, arm: Arm, baseline: Arm) -> ContrastResult:
    """Answer one contrast that stands alone."""
    return analyze_contrasts([contrast], [arm, baseline])[0]


def analyze_contrasts(contrasts: Sequence[Contrast], arms: Sequence[Arm]) -> tuple[ContrastResult, ...]:
    """Answer contrasts that share one chance of 5 % to see a difference where there is none (Holm's correction).

    All of them count in the correction, those that nothing can be decided about too: it was fixed before the first run.
    """
    arms_by_name = {arm.name: arm for arm in arms}
    pairs = [(arms_by_name[contrast.arm], arms_by_name[contrast.baseline]) for contrast in contrasts]
    compared = [compare_arms(contrast, *pair, len(contrasts)) for contrast, pair in zip(contrasts, pairs, strict=True)]
    adjusted = holm([1.0 if answer.reason else answer.paired_test.p for answer in compared])
    decided = [with_verdict(answer, p) for answer, p in zip(compared, adjusted, strict=True)]
    return tuple(
        replace(answer, comment=narrative.describe_contrast(answer, *pair, len(contrasts)))
        for answer, pair in zip(decided, pairs, strict=True)
    )


def compare_arms(contrast: Contrast, arm: Arm, baseline: Arm, tests: int) -> ContrastResult:
    """All of an answer but its verdict, as one of `tests` comparisons. Runs are paired by seed.

    Of an `until` metric, times are compared up to the length of the shortest run that never reached the level (restricted
    times, Royston & Parmar 2013, BMC Med. Res. Methodol. 13): what would have come after that nobody saw.
    """
    metric = contrast.parsed_metric
    values, baseline_values = arm.values(metric), baseline.values(metric)
    seeds = tuple(seed for seed in values if seed in baseline_values)
    history_pairs = [(arm.history(seed), baseline.history(seed)) for seed in seeds]
    histories = [history for pair in history_pairs for history in pair]
    censoring_time = metric.censoring_time(histories)
    arm_values, baseline_values_censored = (
        tuple(min(values_by_seed[seed], censoring_time) for seed in seeds)
        for values_by_seed in (values, baseline_values)
    )
    comparison = paired_t_test(arm_values, baseline_values_censored, metric.quantization_step(histories), tests)
    reason = why_undecided(metric, arm, baseline, seeds, comparison)
    return ContrastResult(
        contrast=contrast,
        seeds=seeds,
        arm_values=arm_values,
        baseline_values=baseline_values_censored,
        paired_test=comparison,
        p_adjusted=None,
        verdict=None,
        reason=reason,
        curves_separate_from_epoch=None if reason else find_separation_epoch(metric, history_pairs),
        comment="",
    )


def why_undecided(
    metric: Metric, arm: Arm, baseline: Arm, seeds: Sequence[int], comparison: PairedTest | None
) -> str | None:
    """Why nothing can be said of a contrast, if so, in one line."""
    if arm.diverged or baseline.diverged:
        return describe_unfinished([arm, baseline], ["diverged"]) + ": the runs that survive are no fair choice"
    if len(seeds) < 2:
        unfinished = describe_unfinished([arm, baseline])
        reason = (
            "one run decides nothing: give several seeds"
            if seeds
            else "there is no seed with which both arms are finished"
        )
        return f"{reason} ({unfinished})" if unfinished else reason
    if not any(
        metric.reached(run.history) for side in (arm, baseline) for run in side.finished if run.trial.seed in seeds
    ):
        return f"no run reached {metric.target_phrase}"
    return None if comparison else "the differences are the same with every seed: there is no spread to judge them by"


def with_verdict(answer: ContrastResult, p_adjusted: float) -> ContrastResult:
    """An answer with its verdict, from the p-value after the correction."""
    if answer.reason:
        return answer
    is_better = (answer.paired_test.difference.mean > 0) == answer.contrast.parsed_metric.higher_is_better
    verdict: Verdict = "no difference seen" if p_adjusted > ALPHA else "better" if is_better else "worse"
    return replace(answer, p_adjusted=p_adjusted, verdict=verdict)


def find_separation_epoch(
    metric: Metric, history_pairs: Sequence[tuple[Sequence[EpochMetrics], Sequence[EpochMetrics]]]
) -> int | None:
    """The first epoch from which on the 95 % interval of the paired difference lies on one side of 0, until the end.

    The end is that of the shortest run, and the curve the metric's `Metric.curve`. Each epoch's interval stands for itself.
    """
    histories = [history for pair in history_pairs for history in pair]
    quantization_step, separation_epoch, side = metric.quantity_quantization_step(histories), None, 0
    curves = [
        zip(*(metric.curve(pair[i]) for pair in history_pairs), strict=False) for i in (0, 1)
    ]  # epoch by epoch, a value a seed
    epochs = list(zip(*curves, strict=False))
    for epoch in range(len(epochs), 0, -1):
        comparison = paired_t_test(*epochs[epoch - 1], quantization_step)
        current_side = (
            0 if comparison is None else int(comparison.difference.low > 0) - int(comparison.difference.high < 0)
        )
        if current_side == 0 or current_side == -side:
            break
        separation_epoch, side = epoch, current_side
    return separation_epoch


def make_best_on_test(
    trial_result: TrialResult,
    trial_results: Sequence[TrialResult],
    num_validation_images: int,
    test_result: dict[str, Any],
) -> BestOnTest:
    """What the test of one finished run says, which was chosen among `outcomes` by its validation accuracy.

    `record` is what its `Run.test` gave; `validation_count` the pictures it was chosen on. See `best_of` for the choice.
    Raises LabError if no outcome has a validation accuracy.
    """
    accuracies = [SELECTION_METRIC.compute(o.history) for o in eligible_results(trial_results)]
    require(accuracies, "no run is finished that held validation pictures back: there is no best to test")
    best = BestOnTest(
        trial_result=trial_result,
        num_candidates=len(accuracies),
        validation_accuracy=SELECTION_METRIC.compute(trial_result.history),
        num_validation_images=num_validation_images,
        selection_bias=selection_bias(accuracies, num_validation_images),
        test_result=test_result,
        comment="",
    )
    return replace(
        best,
        comment=narrative.describe_best_on_test(
            trial_result.trial,
            best.num_candidates,
            best.validation_accuracy,
            num_validation_images,
            best.selection_bias,
            test_result["correct"],
            test_result["count"],
        ),
    )


def select_best(trial_results: Sequence[TrialResult]) -> TrialResult | None:
    """The finished run of the best validation accuracy, the first of equals; None where no run has one."""
    return max(
        eligible_results(trial_results), key=lambda outcome: SELECTION_METRIC.compute(outcome.history), default=None
    )


def eligible_results(trial_results: Sequence[TrialResult]) -> list[TrialResult]:
    """The finished runs that have a validation accuracy, each once however many trials share it."""
    runs: dict[str, TrialResult] = {}
    for outcome in trial_results:
        if outcome.status == "finished" and outcome.history[0].validation_accuracy is not None:
            runs.setdefault(outcome.trial.recipe.key, outcome)
    return list(runs.values())
