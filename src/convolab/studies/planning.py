"""What a study trains by what its runs say so far: the arms that grids got by widening, and the seeds of open contrasts.

A pure function of the runs, so killing a study and going on, or training it elsewhere, changes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convolab.core.sequential import Estimate
from convolab.studies.contrast import Margins
from convolab.studies.decide import Decision, Sample, decide_contrasts, seeds_by_arm
from convolab.studies.pairing import compare_arms
from convolab.studies.results import Arm, TrialResult
from convolab.studies.section import Section
from convolab.studies.study import Study, Trial

RunsByArm = Mapping[str, Mapping[int, TrialResult]]  # of a section: by arm, then by seed


@dataclass(frozen=True)
class StudyPlan:
    """What is to be trained by now.

    Attributes:
        in_play: the arms of each section: those that are written, and those that its grid got by widening.
        decisions: of the contrasts of each section whose seeds are "until decided", by the runs up to its last look.
        trials: of the arms in play, up to the present look of each section; with fixed seeds, all.
    """

    in_play: dict[str, frozenset[str]]
    decisions: dict[str, list[Decision]]
    trials: tuple[Trial, ...]


def plan_study(study: Study, trial_results: Sequence[TrialResult]) -> StudyPlan:
    """The plan by the runs so far."""
    runs: dict[str, dict[str, dict[int, TrialResult]]] = {name: {} for name in study.sections}
    for result in trial_results:
        trial = result.trial
        runs[trial.section].setdefault(trial.arm, {})[trial.seed] = result
    in_play, decisions = {}, {}
    needed: dict[str, dict[str, int]] = {}
    for name, section in study.sections.items():
        in_play[name] = widened_arms(section, runs[name], study.first_seeds(name))
        if looks := study.looks(name):
            arms = {arm: runs[name].get(arm, {}) for arm in section.arm_overrides if arm in in_play[name]}
            decisions[name] = decide_section(section, study.margins, arms, looks)
            involved = [contrast.named_arms or tuple(arms) for contrast in section.contrasts]
            needed[name] = seeds_by_arm(list(section.arm_overrides), involved, decisions[name], looks[0])
    trials = tuple(
        trial
        for trial in study.possible_trials
        if trial.arm in in_play[trial.section]
        and (trial.section not in needed or trial.seed < needed[trial.section][trial.arm])
    )
    return StudyPlan(in_play, decisions, trials)


def widened_arms(section: Section, results: RunsByArm, seeds: Sequence[int]) -> frozenset[str]:
    """The arms of a section, with the next one of its grid wherever the best stands at an end, again and again.

    The best is that of the mean over `seeds`, which every arm has: so more seeds, later, take no arm back. Arms of which a
    run diverged are not the best; where a run failed, it is not known which is, until it is tried again.
    """
    metric = section.ranking_metric
    if not section.widen or metric is None:
        return section.written_arms
    names = sorted(section.arm_overrides, key=section.grid_positions.__getitem__)
    first, last = (sign * min(sign * names.index(arm) for arm in section.written_arms) for sign in (1, -1))
    while True:
        means: dict[int, float] = {}
        for index in range(first, last + 1):
            runs = [results.get(names[index], {}).get(seed) for seed in seeds]
            if not all(run and run.is_complete for run in runs):
                return frozenset(names[first : last + 1])  # what comes next is not known yet
            histories = [run.history for run in runs if run and run.status == "finished"]
            if len(histories) == len(seeds):
                means[index] = sum(map(metric.compute, histories)) / len(histories)
        best = (max if metric.higher_is_better else min)(means.values(), default=math.nan)
        best_arms = {index for index, mean in means.items() if mean == best}
        grown = (max(0, first - (first in best_arms)), min(len(names) - 1, last + (last in best_arms)))
        if not best_arms <= {first, last} or grown == (first, last):
            return frozenset(names[first : last + 1])
        first, last = grown


def decide_section(section: Section, margins: Margins, results: RunsByArm, looks: tuple[int, ...]) -> list[Decision]:
    """The decisions of one section's contrasts, from the results of each arm in play by seed."""

    def sample(index: int, seeds: int) -> Sample:
        contrast = section.contrasts[index]
        if not all(name in results for name in contrast.named_arms):
            return "absent"
        names = contrast.named_arms or tuple(results)
        arms = {
            name: Arm(name, tuple(results[name][seed] for seed in range(seeds) if seed in results[name]))
            for name in names
        }
        statuses = [result.status for arm in arms.values() for result in arm.results]
        if "failed" in statuses or ("diverged" in statuses and not contrast.trend):
            return "lost"
        if sum(status in ("finished", "diverged") for status in statuses) < len(names) * seeds:
            return "missing"
        result = compare_arms(contrast, section, arms, margins.of(contrast), len(section.contrasts))
        test = result.paired_test
        if result.reason or test is None:
            return "untestable"
        return Estimate(test.difference.mean, test.standard_error, seeds)

    return decide_contrasts(sample, [margins.of(contrast) for contrast in section.contrasts], looks)
