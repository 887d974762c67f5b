"""Conclusions of a study from its trials: every contrast decided or not, and the run to test chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from convolab.core.errors import require
from convolab.core.sequential import Estimate
from convolab.core.stats import ALPHA, PairedTest, equivalence_p, holm, paired_t_test, pairs_to_decide, selection_bias
from convolab.core.text import pluralize
from convolab.studies import narrative
from convolab.studies.decide import Decision, Sample, decide_contrasts, seeds_by_arm
from convolab.studies.metrics import Metric
from convolab.studies.results import Arm, BestOnTest, ContrastResult, SectionResult, TrialResult, Verdict
from convolab.studies.study import Contrast, Margins, Section, Study, Trial
from convolab.training.history import EpochMetrics
from convolab.training.run_folder import EvaluationRecord

SELECTION_METRIC = Metric("best", "validation_accuracy")  # chooses the run to test

History = Sequence[EpochMetrics]


def analyze_study(
    study: Study, trial_results: Sequence[TrialResult], *, are_planned: bool = True, out_of_time: bool = False
) -> tuple[SectionResult, ...]:
    """Decide every contrast of every section from the results of its trials.

    A trial without a result is missing where all `are_planned`; else, as in a comparison of runs, it is no part of it.
    Where seeds are "until decided", `out_of_time` is why open contrasts are not.
    """
    known = {(r.trial.section, r.trial.arm, r.trial.seed): r for r in trial_results}
    results: dict[str, dict[str, list[TrialResult]]] = {}
    decisions = decide_sections(study, trial_results)
    for trial in planned_trials(study, decisions):
        result = known.get((trial.section, trial.arm, trial.seed))
        if result is None:
            if not are_planned:
                continue
            result = TrialResult(trial, "missing", ())
        results.setdefault(trial.section, {}).setdefault(trial.arm, []).append(result)
    sections = []
    for name, section in study.sections.items():
        arms = tuple(Arm(arm, tuple(of_arm)) for arm, of_arm in results[name].items())
        if name in decisions:
            contrast_results = describe_decisions(section, arms, study, decisions[name], study.looks(name), out_of_time)
        else:
            contrast_results = analyze_contrasts(section.contrasts, arms, study.margins)
        comment = narrative.describe_section(section, arms, contrast_results)
        sections.append(SectionResult(name, section, arms, contrast_results, comment))
    return tuple(sections)


def analyze_contrasts(
    contrasts: Sequence[Contrast], arms: Sequence[Arm], margins: Margins | None = None
) -> tuple[ContrastResult, ...]:
    """Decide contrasts that share one chance of 5 % to find a difference where there is none (Holm's correction).

    They share another 5 % to find two arms equivalent that are not. All of them count in the corrections, also those
    that cannot be decided: their number was fixed before the first run.
    """
    margins = margins or Margins()
    arms_by_name = {arm.name: arm for arm in arms}
    pairs = [(arms_by_name[contrast.arm], arms_by_name[contrast.baseline]) for contrast in contrasts]
    compared = [
        compare_arms(contrast, *pair, margins.of(contrast), len(contrasts))
        for contrast, pair in zip(contrasts, pairs, strict=True)
    ]
    tests = [None if result.reason else result.paired_test for result in compared]
    p_values = holm([1.0 if test is None else test.p for test in tests])
    p_equivalents = holm(
        [
            1.0 if test is None or result.margin is None else equivalence_p(test, result.margin)
            for test, result in zip(tests, compared, strict=True)
        ]
    )
    results = []
    for result, pair, p_adjusted, p_equivalent in zip(compared, pairs, p_values, p_equivalents, strict=True):
        decided = with_verdict(with_separation(result, *pair), p_adjusted, p_equivalent, len(contrasts))
        results.append(replace(decided, comment=narrative.describe_contrast(decided, *pair, len(contrasts))))
    return tuple(results)


def compare_arms(contrast: Contrast, arm: Arm, baseline: Arm, margin: float | None, num_tests: int) -> ContrastResult:
    """All of a contrast's result but its verdict and what curves say, as one of `num_tests`. Runs are paired by seed.

    Times to a threshold are compared up to the length of the shortest run that never reached it (restricted times,
    Royston & Parmar 2013, BMC Med. Res. Methodol. 13): nobody knows what would have come after that.
    """
    metric = contrast.parsed_metric
    values = arm.values(metric)
    baseline_values = baseline.values(metric)
    seeds = tuple(seed for seed in values if seed in baseline_values)
    histories = [side.history(seed) for seed in seeds for side in (arm, baseline)]
    censoring_time = metric.censoring_time(histories)
    arm_values = tuple(min(values[seed], censoring_time) for seed in seeds)
    censored_baseline_values = tuple(min(baseline_values[seed], censoring_time) for seed in seeds)
    test = paired_t_test(arm_values, censored_baseline_values, metric.quantization_step(histories), num_tests)
    reason = why_undecided(metric, arm, baseline, histories, test)
    return ContrastResult(
        contrast=contrast,
        seeds=seeds,
        arm_values=arm_values,
        baseline_values=censored_baseline_values,
        paired_test=test,
        margin=margin,
        p_adjusted=None,
        p_equivalent=None,
        verdict="undecided",
        reason=reason,
        seeds_needed=None,
        curves_separate_from_epoch=None,
        comment="",
    )


def with_separation(result: ContrastResult, arm: Arm, baseline: Arm) -> ContrastResult:
    """A contrast's result with the epoch from which its curves differ, if it could be tested."""
    if result.reason:
        return result
    history_pairs = [(arm.history(seed), baseline.history(seed)) for seed in result.seeds]
    return replace(
        result, curves_separate_from_epoch=find_separation_epoch(result.contrast.parsed_metric, history_pairs)
    )


def why_undecided(
    metric: Metric, arm: Arm, baseline: Arm, histories: Sequence[History], test: PairedTest | None
) -> str | None:
    """Why nothing can be decided, in one line, or None. `histories` are those of all paired runs."""
    unfinished = narrative.count_unfinished([arm, baseline])
    detail = f" ({unfinished})" if unfinished else ""
    if not histories:
        return f"no seed has finished runs of both arms{detail}"
    if arm.diverged or baseline.diverged:
        return f"{unfinished}, and the remaining runs are a biased sample"
    if len(histories) == 2:
        return f"a single seed decides nothing, because another may reverse the order: use at least three{detail}"
    if not any(metric.reached(history) for history in histories):
        return f"no run reached {metric.target_phrase}"
    return None if test else "the difference is identical for all seeds, so a paired t-test is not possible"


def with_verdict(result: ContrastResult, p_adjusted: float, p_equivalent: float, num_tests: int) -> ContrastResult:
    """A contrast's result with its verdict, from the p-values after the correction.

    A difference that is shown to be there and to lie within the margin is equivalent: it does not matter.
    """
    test = result.paired_test
    if result.reason or test is None:
        return result
    result = replace(result, p_adjusted=p_adjusted, p_equivalent=p_equivalent if result.margin else None)
    if result.margin and p_equivalent <= ALPHA:
        return replace(result, verdict="equivalent")
    if p_adjusted <= ALPHA:
        is_better = (test.difference.mean > 0) == result.contrast.parsed_metric.higher_is_better
        return replace(result, verdict="better" if is_better else "worse")
    needed = pairs_to_decide(test, result.margin, num_tests)
    many = (
        f"about {needed} seeds would probably decide it" if needed else "more than 1,000 seeds would probably be needed"
    )
    return replace(
        result, reason=f"{pluralize(len(result.seeds), 'seed')} leave it open, and {many}", seeds_needed=needed
    )


def find_separation_epoch(metric: Metric, history_pairs: Sequence[tuple[History, History]]) -> int | None:
    """The first epoch from which on the 95 % interval of the paired difference excludes 0 on one side, until the end.

    The end is that of the shortest run, and the curve is the metric's `Metric.curve`. Each epoch has its own interval.
    """
    quantization_step = metric.quantity_quantization_step(history for pair in history_pairs for history in pair)
    arm_curve, baseline_curve = (
        list(zip(*(metric.curve(pair[side]) for pair in history_pairs), strict=False)) for side in (0, 1)
    )  # [epochs][seeds]
    separation_epoch = None
    side = 0
    for epoch in range(min(len(arm_curve), len(baseline_curve)), 0, -1):
        test = paired_t_test(arm_curve[epoch - 1], baseline_curve[epoch - 1], quantization_step)
        current_side = int(test.difference.low > 0) - int(test.difference.high < 0) if test else 0
        if current_side == 0 or current_side == -side:
            break
        separation_epoch = epoch
        side = current_side
    return separation_epoch


# ---- seeds "until decided"


def decide_sections(study: Study, trial_results: Sequence[TrialResult]) -> dict[str, list[Decision]]:
    """What became of the contrasts of each section whose seeds are "until decided", by the runs up to its last look."""
    by_arm: dict[tuple[str, str], dict[int, TrialResult]] = {}
    for result in trial_results:
        by_arm.setdefault((result.trial.section, result.trial.arm), {})[result.trial.seed] = result
    decisions = {}
    for name, section in study.sections.items():
        if looks := study.looks(name):
            arms = {arm: by_arm.get((name, arm), {}) for arm in section.arm_overrides}
            decisions[name] = decide_section(section, study.margins, arms, looks)
    return decisions


def decide_section(
    section: Section, margins: Margins, arms: Mapping[str, Mapping[int, TrialResult]], looks: tuple[int, ...]
) -> list[Decision]:
    """The decisions of one section's contrasts, from the results of each arm by seed."""

    def sample(index: int, seeds: int) -> Sample:
        contrast = section.contrasts[index]
        arm, baseline = (
            Arm(name, tuple(arms[name][seed] for seed in range(seeds) if seed in arms[name]))
            for name in (contrast.arm, contrast.baseline)
        )
        statuses = [result.status for result in (*arm.results, *baseline.results)]
        if "diverged" in statuses or "failed" in statuses:
            return "lost"
        if statuses.count("finished") < 2 * seeds:
            return "missing"
        result = compare_arms(contrast, arm, baseline, margins.of(contrast), len(section.contrasts))
        test = result.paired_test
        if result.reason or test is None:
            return "untestable"
        return Estimate(test.difference.mean, test.standard_error, seeds)

    return decide_contrasts(sample, [margins.of(contrast) for contrast in section.contrasts], looks)


def planned_trials(study: Study, decisions: Mapping[str, Sequence[Decision]]) -> tuple[Trial, ...]:
    """Every trial of a study up to the present look of each section; with fixed seeds, all."""
    needed = {
        name: seeds_by_arm(
            list(study.sections[name].arm_overrides),
            [(contrast.arm, contrast.baseline) for contrast in study.sections[name].contrasts],
            of_section,
            study.looks(name)[0],
        )
        for name, of_section in decisions.items()
    }
    return tuple(
        trial
        for trial in study.possible_trials
        if trial.section not in needed or trial.seed < needed[trial.section][trial.arm]
    )


def describe_decisions(
    section: Section,
    arms: Sequence[Arm],
    study: Study,
    decisions: Sequence[Decision],
    looks: tuple[int, ...],
    out_of_time: bool,
) -> tuple[ContrastResult, ...]:
    """The results of a section's contrasts, each from the runs up to the look at which it stopped."""
    results = []
    num_tests = len(section.contrasts)
    for contrast, decision in zip(section.contrasts, decisions, strict=True):
        seeds = decision.seeds or looks[0]
        arm, baseline = (
            Arm(arm.name, tuple(r for r in arm.results if r.trial.seed < seeds))
            for name in (contrast.arm, contrast.baseline)
            for arm in arms
            if arm.name == name
        )
        result = compare_arms(contrast, arm, baseline, study.margins.of(contrast), num_tests)
        result = with_decision(with_separation(result, arm, baseline), decision, looks, num_tests)
        result = replace(result, out_of_time=out_of_time and decision.next_look is not None)
        if decision.outcome == "lost" and not (arm.diverged or baseline.diverged):
            result = replace(
                result, reason=f"{narrative.count_unfinished([arm, baseline])}, and it is tried again next time"
            )
        results.append(replace(result, comment=narrative.describe_contrast(result, arm, baseline, num_tests)))
    return tuple(results)


def with_decision(result: ContrastResult, decision: Decision, looks: tuple[int, ...], num_tests: int) -> ContrastResult:
    """A contrast's result with its verdict and its looks; the interval is the last look's."""
    test, tested = result.paired_test, bool(decision.looks) and decision.looks[-1].seeds == decision.seeds
    needed = pairs_to_decide(test, result.margin, num_tests) if test and tested else None
    paired_test = replace(test, difference=decision.looks[-1].difference) if test and tested else None
    result = replace(result, paired_test=paired_test, looks=tuple(decision.looks))
    many = f"about {needed}" if needed else "more than 1,000"
    seeds = pluralize(decision.seeds, "seed")
    goes_on = f"the same command goes on with {decision.next_look}"
    if decision.outcome in ("different", "equivalent"):
        return replace(result, verdict=decided_verdict(result, decision), reason=None)
    if decision.outcome == "futile":
        reason = f"{seeds} leave it open, and {looks[-1]} would probably leave it open too; {many} might decide it"
        return replace(result, reason=reason, seeds_needed=needed)
    if decision.outcome == "exhausted" and tested:
        reason = f"{seeds}, the most that were allowed, leave it open; {many} might decide it"
        return replace(result, reason=reason, seeds_needed=needed)
    if decision.outcome == "open":
        so_far = f"{seeds} leave it open so far" if decision.seeds else "the runs of the first look are not all there"
        return replace(result, reason=f"{so_far}, and {goes_on}")
    return result


def decided_verdict(result: ContrastResult, decision: Decision) -> Verdict:
    """The verdict of a decided contrast."""
    if decision.outcome == "equivalent":
        return "equivalent"
    is_better = (decision.looks[-1].difference.mean > 0) == result.contrast.parsed_metric.higher_is_better
    return "better" if is_better else "worse"


# ---- the best run on the test set


def select_best(trial_results: Sequence[TrialResult]) -> TrialResult | None:
    """The finished run of the best validation accuracy, the first of equals; None where no run has one."""
    return max(eligible_results(trial_results), key=lambda r: SELECTION_METRIC.compute(r.history), default=None)


def eligible_results(trial_results: Sequence[TrialResult]) -> list[TrialResult]:
    """The finished runs that have a validation accuracy, each once however many trials share it."""
    runs: dict[str, TrialResult] = {}
    for result in trial_results:
        if result.status == "finished" and result.history[0].validation_accuracy is not None:
            runs.setdefault(result.trial.recipe.key, result)
    return list(runs.values())


def make_best_on_test(
    trial_result: TrialResult,
    trial_results: Sequence[TrialResult],
    num_validation_images: int,
    test_result: EvaluationRecord,
) -> BestOnTest:
    """What the test of one finished run says, which `select_best` chose by its validation accuracy.

    Args:
        trial_result: the tested run's
        trial_results: those that it was chosen from
        num_validation_images: images that its validation accuracy was measured on
        test_result: what its `Run.test` gave

    Raises LabError if no result has a validation accuracy.
    """
    accuracies = [SELECTION_METRIC.compute(r.history) for r in eligible_results(trial_results)]
    require(accuracies, "no finished run has a validation accuracy, so there is no best run to evaluate")
    best = BestOnTest(
        trial_result=trial_result,
        num_candidates=len(accuracies),
        validation_accuracy=SELECTION_METRIC.compute(trial_result.history),
        num_validation_images=num_validation_images,
        selection_bias=selection_bias(accuracies, num_validation_images),
        test_result=test_result,
        comment="",
    )
    return replace(best, comment=narrative.describe_best_on_test(best))
