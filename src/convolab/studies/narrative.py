"""Conclusions in plain English, from the numbers alone: what was found, how much it is, and how sure it is."""

from collections.abc import Iterable, Mapping, Sequence

from convolab.core.stats import ALPHA, Interval, mean_interval
from convolab.core.text import format_p_value, join_with_and, pluralize
from convolab.studies.formatting import (
    choose_decimals,
    format_difference_interval,
    format_mean,
    format_metric_difference,
    format_metric_value,
    format_signed_difference,
    interval_half_width,
    metric_phrase,
)
from convolab.studies.metrics import Metric
from convolab.studies.results import Arm, BestOnTest, ContrastResult
from convolab.studies.study import Section

UNFINISHED_PHRASES = {
    "diverged": "diverged",
    "failed": "failed",
    "stopped": "was stopped",
    "missing": "is not trained yet",
}


def count_unfinished(arms: Sequence[Arm]) -> str:
    """The runs that are not finished, diverged ones first: "'a' diverged in 2 of 3 runs, 'b' failed in 1 of 3 runs"."""
    phrases = []
    for status, phrase in UNFINISHED_PHRASES.items():
        for arm in arms:
            if count := sum(result.status == status for result in arm.results):
                phrases.append(f"'{arm.name}' {phrase} in {count} of {pluralize(len(arm.results), 'run')}")
    return ", ".join(phrases)


def describe_unfinished(arms: Sequence[Arm]) -> str:
    """The same as a sentence; empty if all runs are finished."""
    return f"{counts}." if (counts := count_unfinished(arms)) else ""


def join_sentences(sentences: Iterable[str]) -> str:
    return " ".join(filter(None, sentences))


# ---- a contrast


def describe_contrast(result: ContrastResult, arm: Arm, baseline: Arm, num_tests: int) -> str:
    """A contrast's result, as one of `num_tests` in its section: the verdict with its numbers, then their limits."""
    if result.verdict is None:
        return join_sentences([describe_undecided(result), describe_censoring(result, arm, baseline)])
    return join_sentences(
        [
            describe_unfinished([arm, baseline]),
            describe_difference(result, num_tests),
            describe_censoring(result, arm, baseline),
            describe_curve_separation(result, arm, baseline),
        ]
    )


def describe_undecided(result: ContrastResult) -> str:
    """Why there is no verdict, and the numbers that there are."""
    contrast = result.contrast
    metric = metric_phrase(contrast.parsed_metric)
    values = f" The values are {format_both_values(result)}." if result.seeds else ""
    return f"No verdict between '{contrast.arm}' and '{contrast.baseline}' in {metric}: {result.reason}.{values}"


def describe_difference(result: ContrastResult, num_tests: int) -> str:
    """The verdict with both means, the difference, its interval and its p-value."""
    contrast, test = result.contrast, result.paired_test
    assert test is not None  # because there is a verdict
    assert result.p_adjusted is not None
    metric = contrast.parsed_metric
    correction = f" after Holm's correction for {num_tests} contrasts" if num_tests > 1 else ""
    numbers = (
        f"in {metric_phrase(metric)}: {format_both_values(result)}, "
        f"{format_signed_difference(metric, test.difference)} (95 % interval "
        f"{format_difference_interval(metric, test.difference)}; {format_p_value(result.p_adjusted)}{correction})."
    )
    if result.verdict != "no significant difference":
        effect = f" Effect size (Hedges' g): {test.hedges_g:.1f}." if len(result.seeds) > 2 else ""
        return f"'{contrast.arm}' is {result.verdict} than '{contrast.baseline}' {numbers}{effect}"
    text = f"No significant difference between '{contrast.arm}' and '{contrast.baseline}' {numbers}"
    if num_tests > 1 and test.p <= ALPHA:
        text += f" Alone it would be significant, but one of {num_tests} contrasts may be so by chance."
    smallest = test.minimum_detectable_effect
    seeds = pluralize(len(result.seeds), "seed")
    if metric.unit == "%" and smallest > 1:
        return f"{text} With {seeds} and this much variation hardly any difference could be detected: use more seeds."
    smallest_text = format_metric_difference(metric, smallest, choose_decimals(metric, smallest))
    return (
        f"{text} With {seeds} and this much variation a true difference of {smallest_text} would be detected with "
        "80 % power; a smaller one may exist."
    )


def describe_censoring(result: ContrastResult, arm: Arm, baseline: Arm) -> str:
    """For times to a threshold: how many runs never reached it, and what that does to the times."""
    metric = result.contrast.parsed_metric
    histories = [side.history(seed) for side in (arm, baseline) for seed in result.seeds]
    unreached = sum(not metric.reached(history) for history in histories)
    if not unreached:
        return ""
    limit = format_metric_value(metric, metric.censoring_time(histories), choose_decimals(metric))
    runs = pluralize(len(histories), "run")
    return f"{unreached} of {runs} never reached the threshold: times are censored at {limit} for all runs."


def describe_curve_separation(result: ContrastResult, arm: Arm, baseline: Arm) -> str:
    """For a decided contrast: from which epoch on the curves differ, and whether their end contradicts the verdict."""
    metric = result.contrast.parsed_metric
    curves = [(metric.curve(arm.history(seed)), metric.curve(baseline.history(seed))) for seed in result.seeds]
    if result.verdict == "no significant difference" or max(len(curve) for pair in curves for curve in pair) == 1:
        return ""
    subject = f"The curves of the {metric.quantity_title.partition(' (')[0]} are"
    if result.curves_separate_from_epoch is None:
        return f"{subject} not separated at the end."
    last = min(len(curve) for pair in curves for curve in pair) - 1
    is_higher = sum(first[last] - second[last] for first, second in curves) > 0
    end = "better" if is_higher == metric.quantity_higher_is_better else "worse"
    reversal = "" if end == result.verdict else f", where '{arm.name}' is the {end} one"
    since = f"from epoch {result.curves_separate_from_epoch} to the end{reversal}"
    return f"{subject} separated (the 95 % interval of each epoch excludes 0) {since}."


def format_both_values(result: ContrastResult) -> str:
    """Both arms' values: "71.2 % versus 68.1 % on average over 3 seeds"."""
    metric, test = result.contrast.parsed_metric, result.paired_test
    decimals = choose_decimals(metric, interval_half_width(test.difference) if test else 0.0)
    arm = format_average(metric, result.arm_values, decimals)
    baseline = format_average(metric, result.baseline_values, decimals)
    first, *others = result.seeds
    return f"{arm} versus {baseline} " + (
        f"on average over {len(others) + 1} seeds" if others else f"with seed {first}"
    )


def format_average(metric: Metric, values: Sequence[float], decimals: int) -> str:
    return format_metric_value(metric, mean_interval(values).mean, decimals)


# ---- a section


def describe_section(section: Section, arms: Sequence[Arm], results: Sequence[ContrastResult]) -> str:
    """What a section came to: first what did not finish, then its verdicts, then, of a grid, its best arm."""
    if not any(arm.finished for arm in arms):
        return f"{count_unfinished(arms)}, so there is nothing to compare."
    sentences = [describe_unfinished(arms)]
    if max(len(arm.finished) for arm in arms) == 1:
        sentences.append("With one run per arm the curves show a single outcome, which decides nothing.")
    sentences += summarize_verdicts(results)
    if section.grid:
        sentences += describe_grid_best(section, arms, results)
    elif not results:
        sentences.append(describe_arm_means(arms))
    return join_sentences(sentences)


def summarize_verdicts(results: Sequence[ContrastResult]) -> list[str]:
    """A sentence for all arms that share a verdict, a baseline and a metric; then those without a difference."""
    decided: dict[tuple[object, ...], list[ContrastResult]] = {}
    similar: dict[tuple[str, Metric], list[str]] = {}  # baseline and metric -> arms
    for result in results:
        key = (result.contrast.baseline, result.contrast.parsed_metric)
        if result.verdict == "no significant difference":
            similar.setdefault(key, []).append(f"'{result.contrast.arm}'")
        elif result.verdict:
            decided.setdefault((result.verdict, *key, result.seeds), []).append(result)
    sentences = [describe_shared_verdict(group) for group in decided.values()]
    metrics_by_pair: dict[str, list[str]] = {}
    for (baseline, metric), arms in similar.items():
        pair = f"{arms[0]} and '{baseline}'" if len(arms) == 1 else f"'{baseline}' and each of {join_with_and(arms)}"
        metrics_by_pair.setdefault(pair, []).append(metric_phrase(metric))
    for pair, metrics in metrics_by_pair.items():
        sentences.append(f"There is no significant difference between {pair} in {join_with_and(metrics)}.")
    if undecided := sum(result.verdict is None for result in results):
        sentences.append(f"{undecided} of {pluralize(len(results), 'contrast')} could not be decided.")
    return sentences


def describe_shared_verdict(results: Sequence[ContrastResult]) -> str:
    """One sentence for decided contrasts with the same verdict, baseline, metric and seeds."""
    first, is_single = results[0], len(results) == 1
    metric = first.contrast.parsed_metric
    differences = [result.paired_test.difference for result in results if result.paired_test]
    decimals = choose_decimals(metric, *map(interval_half_width, differences))
    arms = join_with_and([f"'{r.contrast.arm}' ({format_average(metric, r.arm_values, decimals)})" for r in results])
    p = format_p_value(max(result.p_adjusted or 0.0 for result in results))
    return (
        f"{arms} {'is' if is_single else 'are'} {first.verdict} than '{first.contrast.baseline}' "
        f"({format_average(metric, first.baseline_values, decimals)}) in {metric_phrase(metric)}, on average over "
        f"{len(first.seeds)} seeds ({p if is_single else 'each with ' + p.replace('=', '<=')})."
    )


def describe_grid_best(section: Section, arms: Sequence[Arm], results: Sequence[ContrastResult]) -> list[str]:
    """The arm that is best on average, and how its neighbors in the grid compare with it."""
    metrics = [result.contrast.parsed_metric for result in results]
    metric = next((metric for metric in metrics if metric.threshold is None), default_metric(arms))
    means = mean_intervals([arm for arm in arms if not arm.diverged], metric)
    if len(means) < 2:
        return []
    best = (max if metric.higher_is_better else min)(means, key=lambda name: means[name].mean)
    decimals = choose_decimals(metric, *map(interval_half_width, means.values()))
    scope = "Of the arms that did not diverge, " if any(arm.diverged for arm in arms) else ""
    verb = "is best on average" if means[best].count > 1 else "has the best value"
    compared = {}
    for result in results:
        contrast = result.contrast
        if result.verdict and best in (contrast.arm, contrast.baseline) and contrast.parsed_metric == metric:
            other = contrast.baseline if contrast.arm == best else contrast.arm
            is_better = (result.verdict == "better") == (other == contrast.arm)
            compared[other] = "is better" if is_better else "is worse"
            if result.verdict == "no significant difference":
                compared[other] = "does not differ significantly from it"
    neighbors = [
        f"'{name}' {compared.get(name, 'was not compared with it conclusively')}"
        for name in section.grid_neighbors(best)
        if name in means
    ]
    return [
        f"{scope}'{best}' {verb} in {metric_phrase(metric)}: {format_mean(metric, means[best], decimals)}.",
        f"Of its neighbors in the grid, {join_with_and(neighbors)}." if neighbors else "",
        "It is at the edge of the grid: better values may lie outside it." if section.is_at_grid_edge(best) else "",
    ]


def describe_arm_means(arms: Sequence[Arm]) -> str:
    """For a section without contrasts: every arm's mean."""
    metric = default_metric(arms)
    means = mean_intervals(arms, metric)
    decimals = choose_decimals(metric, *map(interval_half_width, means.values()))
    values = join_with_and([f"{format_mean(metric, mean, decimals)} for '{name}'" for name, mean in means.items()])
    preface = "No contrast was specified, so nothing is tested: the" if len(arms) > 1 else "The"
    return f"{preface}{metric_phrase(metric).removeprefix('the')} is {values}."


def default_metric(arms: Sequence[Arm]) -> Metric:
    """What to judge arms by where no contrast says it."""
    has_validation = all(run.history[0].validation_accuracy is not None for arm in arms for run in arm.finished)
    return Metric("best", "validation_accuracy") if has_validation else Metric("final", "train_loss")


def mean_intervals(arms: Sequence[Arm], metric: Metric) -> Mapping[str, Interval]:
    """The mean over each arm's finished runs, for the arms that have any."""
    return {arm.name: mean_interval(list(arm.values(metric).values())) for arm in arms if arm.finished}


# ---- the best run on the test set


def describe_best_on_test(best: BestOnTest) -> str:
    """What the test says of the chosen run, and whether its test accuracy agrees with its validation accuracy.

    They agree if their difference, after the expected selection bias, is within what chance explains.
    """
    trial, test, several = best.trial_result.trial, best.test_result, best.num_candidates > 1
    low, high = test.interval
    chosen = f"the best of {best.num_candidates:,} runs" if several else "the only run"
    bias = (
        f"; selecting the best of {best.num_candidates:,} is expected to inflate it by up to "
        f"{100 * best.selection_bias:.2f} percentage points"
    )
    gap = best.validation_accuracy - test.correct / test.count  # positive: the validation accuracy is higher
    if gap - best.selection_bias > best.chance_margin:
        judgment = (
            "more than selection bias and chance explain: selecting the best epoch inflates it too, "
            "or the test images are harder"
        )
    elif gap < -best.chance_margin:
        judgment = "more than chance explains: the test images seem to be easier"
    else:
        judgment = f"within what {'selection bias and chance explain' if several else 'chance explains'}"
    return (
        f"'{trial.arm}' of section '{trial.section}' with seed {trial.seed}, {chosen} in validation, classifies "
        f"{100 * test.correct / test.count:.2f} % of {test.count:,} test images correctly "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f} %). "
        f"Its validation accuracy is {100 * best.validation_accuracy:.2f} % on "
        f"{pluralize(best.num_validation_images, 'image')}{bias if several else ''}. "
        f"The test accuracy is {100 * abs(gap):.2f} percentage points {'lower' if gap >= 0 else 'higher'}, {judgment} "
        f"(±{100 * best.chance_margin:.2f} by chance alone)."
    )
