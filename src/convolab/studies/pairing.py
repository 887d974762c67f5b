"""The runs of a contrast paired by seed: its difference, and what else they say before there is a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from convolab.core.stats import paired_t_test
from convolab.studies import narrative
from convolab.studies.contrast import Contrast, relative_spread
from convolab.studies.metrics import Metric
from convolab.studies.results import Arm, ContrastResult
from convolab.studies.section import Section
from convolab.studies.trend import MIN_TREND_ARMS, fit_optimum
from convolab.training.history import EpochMetrics

EpochSequence = Sequence[EpochMetrics]


def involved_arms(contrast: Contrast, section: Section, arms: Mapping[str, Arm]) -> list[Arm]:
    """The arms that a contrast is about; of a trend those in rising order, but for those of which a run diverged."""
    if contrast.trend:
        named = [arms[name] for name in section.axis(contrast.trend)[0] if name in arms]
        return [arm for arm in named if not arm.diverged]
    return [arms[name] for name in contrast.named_arms]


def compare_arms(
    contrast: Contrast, section: Section, arms: Mapping[str, Arm], margin: float | None, num_tests: int
) -> ContrastResult:
    """All of a contrast's result but its verdict and what curves say, as one of `num_tests`. Runs are paired by seed.

    Times to a threshold are compared up to the length of the shortest run that never reached it (restricted times,
    Royston & Parmar 2013, BMC Med. Res. Methodol. 13): nobody knows what would have come after that.
    """
    metric, involved = contrast.parsed_metric, involved_arms(contrast, section, arms)
    finished = [[run.trial.seed for run in arm.finished] for arm in involved]
    seeds = tuple(seed for seed in next(iter(finished), []) if all(seed in of_arm for of_arm in finished))
    histories = [arm.history(seed) for seed in seeds for arm in involved]
    reason = why_undecided(contrast, involved, seeds, histories)
    arm_values: tuple[float, ...] = ()
    baseline_values: tuple[float, ...] = ()
    test, sides = None, ((), ())
    if not (contrast.trend and reason):
        positions = section.axis(contrast.trend)[0] if contrast.trend else {}
        sides = contrast.sides({arm.name: positions[arm.name] for arm in involved if arm.name in positions})
        values = censored_values(metric, involved, seeds)
        arm_values, baseline_values = (
            tuple(sum(weight * values[name][seed] for weight, name in side) for seed in seeds) for side in sides
        )
        # The step is that of a difference of two runs; weighted sums of more runs come in others.
        step = metric.quantization_step(histories) * relative_spread(sides)
        test = paired_t_test(arm_values, baseline_values, step, num_tests)
    if not reason and test is None:
        reason = "the difference is identical for all seeds, so a paired t-test is not possible"
    return ContrastResult(
        contrast=contrast,
        seeds=seeds,
        arm_values=arm_values,
        baseline_values=baseline_values,
        paired_test=test,
        margin=margin,
        reason=reason,
        sides=sides,
        involved=tuple(arm.name for arm in involved),
    )


def censored_values(metric: Metric, arms: Sequence[Arm], seeds: Sequence[int]) -> dict[str, dict[int, float]]:
    """The metric of each arm by seed, as all of them can be compared: times are restricted, see `compare_arms`."""
    limit = metric.censoring_time(arm.history(seed) for arm in arms for seed in seeds)
    return {
        arm.name: {seed: min(value, limit) for seed, value in arm.values(metric).items() if seed in seeds}
        for arm in arms
    }


def with_details(result: ContrastResult, section: Section, arms: Mapping[str, Arm]) -> ContrastResult:
    """A contrast's result, if it could be tested, with what more there is to say of it.

    Of a plain one, the epoch from which its curves differ; of a trend, the optimum.
    """
    contrast, involved = result.contrast, involved_arms(result.contrast, section, arms)
    if result.reason or contrast.interaction:
        return result
    metric = contrast.parsed_metric
    if contrast.trend:
        positions, is_log = section.axis(contrast.trend)
        by_arm = censored_values(metric, involved, result.seeds)
        values = np.array([[by_arm[arm.name][seed] for arm in involved] for seed in result.seeds])
        at = [positions[arm.name] for arm in involved]
        return replace(result, optimum=fit_optimum(at, values, is_log=is_log, higher_is_better=metric.higher_is_better))
    arm, baseline = involved
    history_pairs = [(arm.history(seed), baseline.history(seed)) for seed in result.seeds]
    return replace(result, curves_separate_from_epoch=find_separation_epoch(metric, history_pairs))


def why_undecided(
    contrast: Contrast, involved: Sequence[Arm], seeds: Sequence[int], histories: Sequence[EpochSequence]
) -> str | None:
    """Why nothing can be decided, in one line, or None. `histories` are those of all runs that are compared."""
    unfinished = narrative.count_unfinished(involved)
    detail = f" ({unfinished})" if unfinished else ""
    if contrast.trend and len(involved) < MIN_TREND_ARMS:
        return f"of {len(involved)} arms no run diverged, and a trend needs {MIN_TREND_ARMS}"
    if not seeds:
        which = "both" if contrast.is_plain else f"all {len({arm.name for arm in involved})}"
        return f"no seed has finished runs of {which} arms{detail}"
    if any(arm.diverged for arm in involved):
        return f"{unfinished}, and the remaining runs are a biased sample"
    if len(seeds) == 1:
        return f"a single seed decides nothing, because another may reverse the order: use at least three{detail}"
    metric = contrast.parsed_metric
    if not any(metric.reached(history) for history in histories):
        return f"no run reached {metric.target_phrase}"
    return None


def find_separation_epoch(metric: Metric, history_pairs: Sequence[tuple[EpochSequence, EpochSequence]]) -> int | None:
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
