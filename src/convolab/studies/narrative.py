"""Conclusions in plain English, from the numbers alone: what was found, how much it is, and how sure it is."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from convolab.core.stats import Interval, mean_interval
from convolab.core.text import format_p_value, join_with_and, pluralize
from convolab.studies.formatting import (
    choose_decimals,
    format_difference_interval,
    format_margin,
    format_mean,
    format_metric_difference,
    format_metric_value,
    format_signed_difference,
    interval_half_width,
    metric_phrase,
    rounds_to_zero,
)
from convolab.studies.metrics import Metric
from convolab.studies.results import Arm, ContrastResult, with_common_seeds
from convolab.studies.section import Section

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


def describe_contrast(result: ContrastResult, arms: Sequence[Arm], num_tests: int) -> str:
    """A contrast's result, as one of `num_tests` in its section: what, how much, how sure, since when in training."""
    return join_sentences(
        [
            "" if not result.is_tested else describe_unfinished(arms),  # else the reason says it
            describe_difference(result, num_tests),
            describe_optimum(result),
            describe_looks(result),
            describe_censoring(result, arms),
            describe_curve_separation(result, *arms) if result.contrast.is_plain else "",
        ]
    )


def describe_difference(result: ContrastResult, num_tests: int) -> str:
    """The verdict with the difference, its interval, both means and the p-value; or why there is none."""
    test, metric = result.paired_test, result.contrast.parsed_metric
    undecided = "Undecided (time)" if result.out_of_time else "Undecided"
    if test is None or not result.is_tested:
        values = f" Seen: {format_both_values(result)}." if result.seeds and result.arm_values else ""
        subject = name_subject(result)
        return f"{undecided} whether {subject} changes {metric_phrase(metric)}: {result.reason}.{values}"
    correction = f", corrected for {num_tests} contrasts" if num_tests > 1 else ""
    p = result.p_equivalent if result.verdict == "equivalent" else result.p_adjusted
    sure = f"{format_p_value(p or 0.0)}{correction}"
    if result.looks:
        last = result.looks[-1]
        is_equivalent = result.verdict == "equivalent"
        p, level = (last.p_equivalent, last.level_equivalent) if is_equivalent else (last.p, last.level)
        sure = f"{format_p_value(p or 0.0)}, at most {level or 0.0:.2g} needed{correction}"
    sure = f"{format_both_values(result)}; {sure}"
    if result.verdict == "undecided":
        return f"{undecided}: {describe_change(result)}, {sure}. {capitalize(result.reason or '')}."
    return f"{capitalize(describe_change(result))}, {sure}."


def describe_looks(result: ContrastResult) -> str:
    """Where seeds are "until decided": after how many it was, and what that means for the interval."""
    if not result.looks or not result.is_tested:
        return ""
    done = "Decided" if result.verdict != "undecided" else "Looked at last"
    look = f"{done} after {pluralize(len(result.seeds), 'seed')}, at look {len(result.looks)}"
    return f"{look}: the interval is a repeated one, which allows for all looks."


def describe_change(result: ContrastResult) -> str:
    """What an arm does to the metric, and by how much: "Batch norm lowers the final training loss by 0.46 nats (...)"."""
    test, metric = result.paired_test, result.contrast.parsed_metric
    assert test is not None  # or there is nothing to describe
    interval = describe_interval(result)
    if result.contrast.interaction:
        return describe_interaction(result, interval)
    phrase, subject = metric_phrase(metric), name_subject(result)
    if result.verdict == "equivalent":
        margin = format_margin(metric, result.margin or 0.0)
        shift = format_signed_difference(metric, test.difference)
        return f"{subject} changes {phrase} by less than {margin}: {shift} ({interval})"
    verb = "raise" if test.difference.mean > 0 else "lower"
    verb = f"seems to {verb}" if result.verdict == "undecided" else f"{verb}s"
    if rounds_to_zero(metric, test.difference):
        return f"{subject} seems to leave {phrase} as it is ({interval})"
    decimals = choose_decimals(metric, interval_half_width(test.difference))
    amount = format_metric_difference(metric, abs(test.difference.mean), decimals)
    return f"{subject} {verb} {phrase} by {amount} ({interval})"


def describe_interval(result: ContrastResult) -> str:
    """A difference's interval, and where this contrast alone would be decided, why it is not: the others count too."""
    test, margin = result.paired_test, result.margin or 0.0
    assert test is not None  # or there is nothing to describe
    low, high = test.difference.low, test.difference.high
    interval = format_difference_interval(result.contrast.parsed_metric, test.difference)
    is_clear = low > 0 or high < 0 or max(-low, high) < margin
    return f"{interval}{', not corrected for the other contrasts' * (is_clear and result.verdict == 'undecided')}"


def describe_interaction(result: ContrastResult, interval: str) -> str:
    """How two pairs' differences differ: "It lowers the loss by 0.8 nats more from 'a' to 'b' than from 'c' to 'd'"."""
    contrast, test = result.contrast, result.paired_test
    assert contrast.interaction  # or there is nothing to describe
    assert test is not None
    metric, subject = contrast.parsed_metric, name_subject(result)
    phrase, (arm, baseline) = metric_phrase(metric), contrast.interaction
    where = f"from '{contrast.baseline}' to '{contrast.arm}' than from '{baseline}' to '{arm}'"
    effect, other = (mean_interval(values).mean for values in (result.arm_values, result.baseline_values))
    if result.verdict == "equivalent":
        margin = format_margin(metric, result.margin or 0.0)
        shift = format_signed_difference(metric, test.difference)
        return f"the effect of {subject} on {phrase} differs by less than {margin}: it is {shift} ({interval}) {where}"
    seems = "seems to " if result.verdict == "undecided" else ""
    if effect * other > 0:
        verb = ("raise" if effect > 0 else "lower") + "s" * (not seems)
        more = "more" if abs(effect) > abs(other) else "less"
        decimals = choose_decimals(metric, interval_half_width(test.difference))
        amount = format_metric_difference(metric, abs(test.difference.mean), decimals)
        return f"{subject} {seems}{verb} {phrase} by {amount} {more} ({interval}) {where}"
    shift = format_signed_difference(metric, test.difference)
    return f"the effect of {subject} on {phrase} {seems + 'be' if seems else 'is'} {shift} ({interval}) {where}"


def describe_optimum(result: ContrastResult) -> str:
    """Of a trend: where the parabola through the best values has its optimum, and how well it fits."""
    trend, metric = result.contrast.trend, result.contrast.parsed_metric
    if not trend or not result.is_tested:
        return ""
    key, optimum = trend.rpartition(".")[2], result.optimum
    if optimum is None:
        return "The parabola through the best value and its neighbors has no optimum."
    misfit = format_metric_difference(metric, optimum.misfit, choose_decimals(metric, optimum.misfit))
    fit = f"the means are at most {misfit} off the parabola"
    if not optimum.is_parabola:
        fit += ", more than their spread explains, so this is rough"
    first, last = optimum.span
    if not optimum.is_inside:
        end = first if optimum.value < first else last
        return f"The optimum is at {key} = {end:.3g}, an end of the values that the parabola was fitted to, or beyond; {fit}."
    sure = "the runs do not say how sure" if optimum.is_parabola else "without an interval"
    if optimum.low is not None and optimum.high is not None:
        low = f"{optimum.low:.3g}" if optimum.low >= first else f"below {first:.3g}"
        high = f"{optimum.high:.3g}" if optimum.high <= last else f"above {last:.3g}"
        sure = f"95 % interval {low} to {high}"
    return f"The optimum of a parabola is at {key} = {optimum.value:.3g} ({sure}); {fit}."


def name_subject(result: ContrastResult) -> str:
    """What a contrast is about: its own subject, or the arm instead of its baseline."""
    contrast = result.contrast
    if contrast.trend:
        middle, ends = (", ".join(f"'{name}'" for _, name in side) for side in result.sides)
        arms = f" ({middle}) instead of its ends ({ends})" if middle else ""
        return f"{contrast.subject or 'taking the middle of the grid'}{arms}"
    return contrast.subject or f"'{contrast.arm}' instead of '{contrast.baseline}'"


def capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def describe_censoring(result: ContrastResult, arms: Sequence[Arm]) -> str:
    """For times to a threshold: how many runs never reached it, and what that does to the times."""
    metric = result.contrast.parsed_metric
    histories = [arm.history(seed) for arm in arms for seed in result.seeds]
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
    if result.verdict not in ("better", "worse") or max(len(curve) for pair in curves for curve in pair) == 1:
        return ""
    if result.curves_separate_from_epoch is None:
        return "Epoch by epoch, the curves are not surely apart at the end."
    last = min(len(curve) for pair in curves for curve in pair) - 1
    is_higher = sum(first[last] - second[last] for first, second in curves) > 0
    end = "better" if is_higher == metric.quantity_higher_is_better else "worse"
    reversal = "" if end == result.verdict else f", where '{arm.name}' is the {end} one"
    return f"The curves are apart from epoch {result.curves_separate_from_epoch} to the end{reversal}."


def format_both_values(result: ContrastResult) -> str:
    """Both arms' values: "from 68.1 % to 71.2 % on average over 3 seeds"."""
    metric, test = result.contrast.parsed_metric, result.paired_test
    decimals = choose_decimals(metric, interval_half_width(test.difference) if test else 0.0)
    values = [format_average(metric, side, decimals) for side in (result.baseline_values, result.arm_values)]
    first, *others = result.seeds
    across = f"on average over {len(others) + 1} seeds" if others else f"with seed {first}"
    if result.contrast.interaction:
        effects = [format_effect(metric, side, decimals) for side in (result.arm_values, result.baseline_values)]
        return f"{effects[0]} against {effects[1]} {across}"
    return f"from {values[0]} to {values[1]} {across}"


def format_effect(metric: Metric, values: Sequence[float], decimals: int) -> str:
    """The mean of some differences, with its sign: "+1.8 percentage points"."""
    mean = mean_interval(values).mean
    return f"{'+' if mean > 0 else '−'}{format_metric_difference(metric, abs(mean), decimals)}"


def format_average(metric: Metric, values: Sequence[float], decimals: int) -> str:
    return format_metric_value(metric, mean_interval(values).mean, decimals)


# ---- a section


def describe_section(
    section: Section, arms: Sequence[Arm], results: Sequence[ContrastResult], written_arms: Collection[str] = ()
) -> str:
    """What a section came to: first what did not finish, then its verdicts, then, of a grid, its best arm."""
    if not any(arm.finished for arm in arms):
        return f"{count_unfinished(arms)}, so there is nothing to compare."
    sentences = [describe_unfinished(arms)]
    if max(len(arm.finished) for arm in arms) == 1:
        sentences.append("With one run per arm the curves show a single outcome, which decides nothing.")
    if added := [arm.name for arm in arms if arm.name not in (written_arms or section.arm_overrides)]:
        names = join_with_and([f"'{name}'" for name in added])
        sentences.append(f"The grid was widened by {names}, because its best arm stood at an end.")
    sentences += summarize_verdicts(results)
    if section.grid:
        sentences += describe_grid_best(section, arms, results)
    elif not any(result.is_tested for result in results):
        sentences.append(describe_arm_means(arms, is_asked=bool(results)))
    return join_sentences(sentences)


def summarize_verdicts(results: Sequence[ContrastResult]) -> list[str]:
    """A sentence for all contrasts with the same verdict, baseline and metric, those that go on apart from those that do
    not, equivalent ones by their margin; then how many could not be tested.
    """
    groups: dict[tuple[object, ...], list[ContrastResult]] = {}
    for result in sorted(results, key=lambda result: result.verdict == "undecided"):
        if result.is_tested:
            contrast = result.contrast
            alone = None if contrast.is_plain else contrast  # what compares more than two arms has its own sentence
            goes_on, within = result.next_look is not None, result.margin if result.verdict == "equivalent" else None
            key = (result.verdict, goes_on, contrast.baseline, contrast.metric, alone, within)
            groups.setdefault(key, []).append(result)
    sentences = [describe_group(group) for group in groups.values()]
    if reasons := [result.reason for result in results if not result.is_tested]:
        which = "The contrast" if len(results) == 1 else f"{len(reasons)} of {len(results)} contrasts"
        why = f": {reasons[0]}" if len(set(reasons)) == 1 else ""
        sentences.append(f"{which} could not be tested{why}.")
    return sentences


def describe_group(results: Sequence[ContrastResult]) -> str:
    """One sentence for contrasts of a group of `summarize_verdicts`."""
    first, is_single = results[0], len(results) == 1
    metric, baseline = first.contrast.parsed_metric, first.contrast.baseline
    price = ""
    if first.verdict == "undecided":
        seeds = [result.seeds_needed for result in results]
        needed = f"about {max(filter(None, seeds))}" if all(seeds) else "more than 1,000"
        price = f"; {needed} seeds would probably decide {'it' if is_single else 'all of them'}"
        if any(result.looks for result in results):
            looked = max(len(result.seeds) for result in results)
            price = f"; after {pluralize(looked, 'seed')} no more are trained, and {needed} might decide {'it' if is_single else 'all of them'}"
        if waited_for := [result.next_look for result in results if result.next_look]:
            price = f"; the same command goes on with {waited_for[0]} seeds"
        if any(result.out_of_time for result in results):
            price = " (time): the same command goes on"
    if is_single:
        change = describe_change(first)
        sentence = f"Undecided: {change}{price}." if price else f"{capitalize(change)}."
        return join_sentences([sentence, describe_optimum(first)])
    arms = join_with_and(
        [
            f"'{result.contrast.arm}' ({format_signed_difference(metric, test.difference)}, {describe_interval(result)})"
            for result in results
            if (test := result.paired_test)
        ]
    )
    relation = {
        "better": f"Better than '{baseline}'",
        "worse": f"Worse than '{baseline}'",
        "equivalent": f"Equivalent to '{baseline}' within {format_margin(metric, first.margin or 0.0)}",
        "undecided": f"Undecided against '{baseline}'",
    }[first.verdict]
    return f"{relation} in {metric_phrase(metric)}: {arms}{price}."


def describe_grid_best(section: Section, arms: Sequence[Arm], results: Sequence[ContrastResult]) -> list[str]:
    """The arm that is best on average, and how its neighbors in the grid compare with it."""
    metric = section.ranking_metric or default_metric(arms)
    usable = [arm for arm in arms if arm.finished and not arm.diverged]
    measured = [arm for arm in usable if all(metric.is_measured(run.history) for run in arm.finished)]
    means = mean_intervals(with_common_seeds(measured), metric)
    if len(means) < 2:
        return []
    best = (max if metric.higher_is_better else min)(means, key=lambda name: means[name].mean)
    decimals = choose_decimals(metric, *map(interval_half_width, means.values()))
    scope = "Of the arms that did not diverge, " if any(arm.diverged for arm in arms) else ""
    count, phrase = means[best].count, metric_phrase(metric)
    verb = "is best on average" if count > 1 else "has the best value"
    if any(len(arm.finished) > count for arm in measured):  # the table of arms has the means over all their seeds
        who = "all of them" if scope else "all arms"
        phrase += f", over the {pluralize(count, 'seed')} that {who} have"
    compared = {}
    for result in results:
        contrast = result.contrast
        if contrast.is_plain and best in (contrast.arm, contrast.baseline) and contrast.parsed_metric == metric:
            other = contrast.baseline if contrast.arm == best else contrast.arm
            is_better = (result.verdict == "better") == (other == contrast.arm)
            compared[other] = "is better" if is_better else "is worse"
            if result.verdict in ("equivalent", "undecided"):
                compared[other] = f"is {result.verdict}"
    names = [name for name in section.grid_neighbors(best) if name in means]
    if len(names) == 1:
        (name,) = names
        neighbors = f"Its neighbor in the grid, '{name}', {compared.get(name, 'was not compared with it')}."
    elif compared.keys() & set(names):
        of_each = [f"'{name}' {compared.get(name, 'was not compared with it')}" for name in names]
        neighbors = f"Of its neighbors in the grid, {join_with_and(of_each)}."
    elif names:
        quoted = join_with_and([f"'{name}'" for name in names])
        neighbors = f"It was not compared with its neighbors in the grid, {quoted}."
    else:  # none of them is trained yet
        neighbors = ""
    return [
        f"{scope}'{best}' {verb} in {phrase}: {format_mean(metric, means[best], decimals)}.",
        neighbors,
        "It is at the edge of the grid: better values may lie outside it."
        if section.is_at_grid_edge(best) and set(compared.values()) != {"is equivalent"}
        else "",
    ]


def describe_arm_means(arms: Sequence[Arm], is_asked: bool = False) -> str:
    """For a section without contrasts, or of which none could be tested: every arm's mean."""
    metric = default_metric(arms)
    means = mean_intervals(arms, metric)
    decimals = choose_decimals(metric, *map(interval_half_width, means.values()))
    values = join_with_and([f"{format_mean(metric, mean, decimals)} for '{name}'" for name, mean in means.items()])
    no_contrast = len(arms) > 1 and not is_asked
    preface = "No contrast was specified, so nothing is tested: the" if no_contrast else "The"
    return f"{preface}{metric_phrase(metric).removeprefix('the')} is {values}."


def default_metric(arms: Sequence[Arm]) -> Metric:
    """What to judge arms by where no contrast says it."""
    has_validation = all(run.history[0].validation_accuracy is not None for arm in arms for run in arm.finished)
    return Metric("best", "validation_accuracy") if has_validation else Metric("final", "train_loss")


def mean_intervals(arms: Sequence[Arm], metric: Metric) -> Mapping[str, Interval]:
    """The mean over each arm's finished runs, for the arms that have any."""
    return {arm.name: metric.possible(mean_interval(list(arm.values(metric).values()))) for arm in arms if arm.finished}
