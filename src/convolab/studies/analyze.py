"""Conclusions of a study from its trials: every contrast decided or not."""

from collections.abc import Sequence
from dataclasses import replace

from convolab.core.stats import ALPHA, detectable_noncentrality, equivalence_p, holm, pairs_to_decide
from convolab.core.text import join_with_and, pluralize
from convolab.studies import narrative
from convolab.studies.contrast import Margins
from convolab.studies.decide import Decision
from convolab.studies.pairing import compare_arms, involved_arms, with_details
from convolab.studies.planning import plan_study
from convolab.studies.results import Arm, ContrastResult, SectionResult, TrialResult, Verdict
from convolab.studies.section import Section
from convolab.studies.study import Study
from convolab.training.recipe import Recipe
from convolab.training.run_records import RunSummary


def analyze_study(
    study: Study, trial_results: Sequence[TrialResult], *, are_planned: bool = True, out_of_time: bool = False
) -> tuple[SectionResult, ...]:
    """Decide every contrast of every section from the results of its trials.

    A trial without a result is missing where all `are_planned`; else, as in a comparison of runs, it is no part of it.
    Where seeds are "until decided", `out_of_time` is why open contrasts are not.
    """
    known = {(r.trial.section, r.trial.arm, r.trial.seed): r for r in trial_results}
    results: dict[str, dict[str, list[TrialResult]]] = {}
    plan = plan_study(study, trial_results)
    for trial in plan.trials:
        result = known.get((trial.section, trial.arm, trial.seed))
        if result is None:
            if not are_planned:
                continue
            result = TrialResult(trial, "missing", ())
        results.setdefault(trial.section, {}).setdefault(trial.arm, []).append(result)
    sections = []
    for name, section in study.sections.items():
        arms = tuple(Arm(arm, tuple(of_arm)) for arm, of_arm in results[name].items())
        if decisions := plan.decisions.get(name):
            contrast_results = describe_decisions(section, arms, study, decisions, study.looks(name), out_of_time)
        else:
            contrast_results = analyze_contrasts(section, arms, study.margins)
        in_play = section.with_arms(plan.in_play[name])
        comment = narrative.describe_section(in_play, arms, contrast_results, section.written_arms)
        sections.append(SectionResult(name, in_play, arms, contrast_results, comment))
    return tuple(sections)


def analyze_contrasts(
    section: Section, arms: Sequence[Arm], margins: Margins | None = None
) -> tuple[ContrastResult, ...]:
    """Decide contrasts that share one chance of 5 % to find a difference where there is none (Holm's correction).

    They share another 5 % to find two arms equivalent that are not. All of them count in the corrections, also those
    that cannot be decided: their number was fixed before the first run. Those of arms that a grid did not get, because its
    best arm was not at its end, have no result.
    """
    margins = margins or Margins()
    by_name = {arm.name: arm for arm in arms}
    contrasts = [contrast for contrast in section.contrasts if all(name in by_name for name in contrast.named_arms)]
    num_tests = len(section.contrasts)
    compared = [compare_arms(contrast, section, by_name, margins.of(contrast), num_tests) for contrast in contrasts]
    tests = [None if result.reason else result.paired_test for result in compared]
    without_result = [1.0] * (num_tests - len(contrasts))
    p_values = holm([1.0 if test is None else test.p for test in tests] + without_result)
    p_equivalents = holm(
        [
            1.0
            if test is None or result.margin is None
            else equivalence_p(test.difference.mean, test.standard_error, test.difference.count, result.margin)
            for test, result in zip(tests, compared, strict=True)
        ]
        + without_result
    )
    results = []
    for result, p_adjusted, p_equivalent in zip(compared, p_values, p_equivalents, strict=False):
        decided = with_verdict(with_details(result, section, by_name), p_adjusted, p_equivalent, num_tests)
        involved = involved_arms(result.contrast, section, by_name)
        results.append(replace(decided, comment=narrative.describe_contrast(decided, involved, num_tests)))
    return tuple(results)


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


# ---- seeds "until decided"


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
        if decision.outcome == "absent":
            continue
        seeds = decision.seeds or looks[0]
        by_name = {arm.name: Arm(arm.name, tuple(r for r in arm.results if r.trial.seed < seeds)) for arm in arms}
        result = compare_arms(contrast, section, by_name, study.margins.of(contrast), num_tests)
        result = with_decision(with_details(result, section, by_name), decision, looks, num_tests)
        waits = decision.next_look is not None
        result = replace(result, out_of_time=out_of_time and waits, next_look=decision.next_look)
        involved = involved_arms(contrast, section, by_name)
        if decision.outcome == "lost" and not any(arm.diverged for arm in involved):
            result = replace(result, reason=f"{narrative.count_unfinished(involved)}, and it is tried again next time")
        results.append(replace(result, comment=narrative.describe_contrast(result, involved, num_tests)))
    return tuple(results)


def with_decision(result: ContrastResult, decision: Decision, looks: tuple[int, ...], num_tests: int) -> ContrastResult:
    """A contrast's result with its verdict and its looks; the interval is the last look's."""
    test, tested = result.paired_test, bool(decision.looks) and decision.looks[-1].seeds == decision.seeds
    needed = pairs_to_decide(test, result.margin, num_tests) if test and tested else None
    paired_test = None
    if test and tested:
        look = decision.looks[-1]
        shift = detectable_noncentrality(look.seeds - 1, look.level)
        effect = shift * test.standard_error
        paired_test = replace(test, difference=look.difference, minimum_detectable_effect=effect)
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


def note_other_images(sections: Sequence[SectionResult]) -> list[str]:
    """A line about each contrast of arms that hold out other images for validation, because their recipes differ in that."""
    notes = []
    for section in sections:
        by_name = {arm.name: arm for arm in section.arms}
        for result in section.contrast_results:
            arms = involved_arms(result.contrast, section.section, by_name)
            trials = {arm.name: next((r for r in arm.results if r.summary), None) for arm in arms}
            held_out = {
                name: choice
                for name, r in trials.items()
                if r and r.summary and (choice := held_out_choice(r.trial.recipe, r.summary))
            }
            if result.contrast.parsed_metric.needs_validation and len({*held_out.values()}) > 1:
                notes.append(
                    f"section '{section.name}': {join_with_and([repr(name) for name in held_out])} are measured on different "
                    "validation images, because their data.validation or data.limit differ: a part of the difference may be theirs"
                )
    return list(dict.fromkeys(notes))


def held_out_choice(recipe: Recipe, summary: RunSummary) -> tuple[float, int | None] | None:
    """What decides, besides its seed, which images a run holds out; None where the dataset has validation images of its own."""
    return None if "validation_sha256" in summary["data"] else (recipe.data.validation, recipe.data.limit)
