"""Conclusions in plain English, written from the numbers alone: no sentence says more than they carry."""

import math
from collections.abc import Mapping, Sequence

from convolab.core.stats import ALPHA, Interval, mean_interval, wilson_interval
from convolab.core.text import join_with_and
from convolab.studies.metrics import Metric
from convolab.studies.outcomes import Arm, ContrastResult, describe_unfinished, pluralize
from convolab.studies.study import Section, Trial

INCREASE_WORDS = {"%": "higher", "nats": "higher", "epochs": "more", "s": "more"}
DECREASE_WORDS = {"%": "lower", "nats": "lower", "epochs": "fewer", "s": "less"}
DEFAULT_DECIMALS = {"%": 2, "nats": 4, "epochs": 0, "s": 1}  # of a single run's number


# ---- a contrast


def describe_contrast(result: ContrastResult, arm: Arm, baseline: Arm, tests: int) -> str:
    """What was seen of one contrast of `tests` in its section: what, how much, how sure, and when the curves part."""
    parts = [
        unfinished_sentences([arm, baseline]),
        describe_verdict(result, arm, baseline, tests),
        describe_censoring(result, arm, baseline),
    ]
    if result.verdict in ("better", "worse"):
        parts += [describe_curve_separation(result, arm, baseline)]
    return " ".join(part for part in parts if part)


def unfinished_sentences(arms: Sequence[Arm]) -> str:
    """What did not finish, divergence first."""
    return " ".join(
        f"{phrase}."
        for statuses in (["diverged"], ["failed", "stopped", "missing"])
        if (phrase := describe_unfinished(arms, statuses))
    )


def describe_verdict(result: ContrastResult, arm: Arm, baseline: Arm, tests: int) -> str:
    """The verdict and its numbers."""
    metric, difference = result.contrast.parsed_metric, result.paired_test and result.paired_test.difference
    if not result.seeds:
        return f"There is no seed with which both '{arm.name}' and '{baseline.name}' are finished, so nothing can be said of {metric_phrase(metric)}."
    if len(result.seeds) == 1:
        return f"{describe_single_seed(result)} One run decides nothing: another seed may turn it round, so give at least three."
    if result.verdict is None:
        return describe_undecided(result, arm, baseline)
    if result.verdict == "no difference seen":
        return describe_no_difference(result, tests)
    effect = (
        f" That is {abs(result.paired_test.hedges_g):.1f} times its own spread from seed to seed."
        if len(result.seeds) > 2
        else ""
    )
    return (
        f"'{arm.name}' is {result.verdict} than '{baseline.name}' in {metric_phrase(metric)}: {format_both_means(result)}, "
        f"{format_signed_difference(metric, difference)} (95 % interval {format_difference_interval(metric, difference)}; {format_significance(result, tests)}).{effect}"
    )


def describe_undecided(result: ContrastResult, arm: Arm, baseline: Arm) -> str:
    """Several seeds, and yet no verdict: a divergence, a level that no run reached, or no spread."""
    metric, arms = result.contrast.parsed_metric, f"'{arm.name}' and '{baseline.name}'"
    if arm.diverged or baseline.diverged:
        return f"No verdict is drawn between {arms}, because the runs that survive are no fair choice; in {metric_phrase(metric)} these come to {format_both_means(result)}."
    if all(missed == of for missed, of in count_unreached(result, arm, baseline).values()):
        return f"No run of {arms} reached {metric.target_phrase}, so there is nothing to compare."
    likeness = (
        "have exactly the same numbers"
        if result.arm_values == result.baseline_values
        else "differ by exactly the same with every seed"
    )
    return f"In {metric_phrase(metric)} {arms} {likeness} ({format_both_means(result)}): there is no spread to judge by, and no verdict."


def describe_no_difference(result: ContrastResult, tests: int) -> str:
    metric, difference = result.contrast.parsed_metric, result.paired_test.difference
    text = (
        f"No difference seen between '{result.contrast.arm}' and '{result.contrast.baseline}' in {metric_phrase(metric)}: "
        f"{format_both_means(result)}, {format_signed_difference(metric, difference)} (95 % interval {format_difference_interval(metric, difference)}; {format_significance(result, tests)})."
    )
    if tests > 1 and result.paired_test.p <= ALPHA:
        text += f" Taken alone its interval excludes 0, but one of {tests} contrasts may do so by chance: after the correction it is not enough to say so."
    seeds_phrase = f"With {pluralize(len(result.seeds), 'seed')} that spread like these, "
    if metric.unit == "%" and result.paired_test.minimum_detectable_effect > 1:
        return f"{text} {seeds_phrase}hardly any difference would be seen: this says nothing but that more seeds are needed."
    detectable = format_metric_difference(
        metric,
        result.paired_test.minimum_detectable_effect,
        choose_decimals(metric, result.paired_test.minimum_detectable_effect),
    )
    return f"{text} {seeds_phrase}a true difference of {detectable} would be seen 4 times in 5; a smaller one may be there."


def describe_single_seed(result: ContrastResult) -> str:
    """Both numbers of the one seed."""
    metric, contrast = result.contrast.parsed_metric, result.contrast
    digits = DEFAULT_DECIMALS[metric.unit]
    first, second = (
        format_metric_value(metric, values[0], digits) for values in (result.arm_values, result.baseline_values)
    )
    return f"With the one seed {result.seeds[0]}, {metric_phrase(metric)} is {first} for '{contrast.arm}' and {second} for '{contrast.baseline}'."


def describe_censoring(result: ContrastResult, arm: Arm, baseline: Arm) -> str:
    """Of an `until` metric: how many runs never got there, and what they count."""
    metric, runs = result.contrast.parsed_metric, count_unreached(result, arm, baseline)
    unreached = {name: (missed, of) for name, (missed, of) in runs.items() if missed}
    if not unreached or (len(result.seeds) > 1 and result.verdict is None):
        return ""
    phrase = " and ".join(
        f"{missed} of {pluralize(of, 'run')} of '{name}'" if of > 1 else f"the run of '{name}'"
        for name, (missed, of) in unreached.items()
    )
    censoring_time = metric.censoring_time(side.history(seed) for side in (arm, baseline) for seed in result.seeds)
    return f"{phrase[0].upper()}{phrase[1:]} never got there: no run counts more than {format_metric_value(metric, censoring_time, DEFAULT_DECIMALS[metric.unit])}, and what came after is left out."


def count_unreached(result: ContrastResult, arm: Arm, baseline: Arm) -> dict[str, tuple[int, int]]:
    """By arm, how many runs never reached an `until` metric's level, and of how many."""
    reached = result.contrast.parsed_metric.reached
    return {
        side.name: (sum(not reached(side.history(seed)) for seed in result.seeds), len(result.seeds))
        for side in (arm, baseline)
    }


def describe_curve_separation(result: ContrastResult, arm: Arm, baseline: Arm) -> str:
    """When in training the curves part, and whether the end agrees with the verdict."""
    metric, separation_epoch = result.contrast.parsed_metric, result.curves_separate_from_epoch
    curve = "curves of the gap" if metric.quantity == "gap" else f"curves of {metric.quantity_title}"
    lengths = [len(side.history(seed)) for side in (arm, baseline) for seed in result.seeds]
    if max(lengths) == 1:
        return ""
    if separation_epoch is None:
        return f"Epoch by epoch the {curve} are not apart at the end."
    last_epoch_index = min(lengths) - 1
    final_difference = sum(
        metric.curve(arm.history(seed))[last_epoch_index] - metric.curve(baseline.history(seed))[last_epoch_index]
        for seed in result.seeds
    )
    final_verdict = "better" if (final_difference > 0) == metric.quantity_higher_is_better else "worse"
    when = (
        "from the first epoch to the end"
        if separation_epoch == 1
        else "at the end alone"
        if separation_epoch == last_epoch_index + 1
        else f"from epoch {separation_epoch} to the end"
    )
    reversal = "" if final_verdict == result.verdict else f", with '{arm.name}' the {final_verdict} one there"
    return f"Epoch by epoch the {curve} are apart {when}{reversal}."


# ---- a section


def describe_section(section: Section, arms: Sequence[Arm], results: Sequence[ContrastResult]) -> str:
    """What a section came to: first what did not finish, then what was seen, then, of a grid, its best arm."""
    if not any(arm.finished for arm in arms):
        return (describe_unfinished(arms) or "No run is there") + ": there is nothing to compare."
    parts = [unfinished_sentences(arms)]
    if max(len(arm.finished) for arm in arms) == 1:
        parts.append("With one run an arm the curves show what happened once; one run decides nothing.")
    parts += [summarize_verdicts(results)] if results else []
    if section.grid:
        parts += describe_grid_best(section, arms, results)
    elif not results:
        preface = "No contrast was asked, so nothing is decided: " if len(arms) > 1 else ""
        text = f"{preface}{describe_arm_means(arms, default_metric(arms))}."
        parts.append(text[0].upper() + text[1:])
    return " ".join(part for part in parts if part)


def summarize_verdicts(results: Sequence[ContrastResult]) -> str:
    """The verdicts of a section in a few sentences: arms that fared alike against the same one share one."""
    decided: dict[tuple[str, str, Metric, tuple[int, ...]], list[ContrastResult]] = {}
    undistinguished: dict[tuple[str, str], list[str]] = {}
    for answer in results:
        contrast = answer.contrast
        if answer.verdict in ("better", "worse"):
            decided.setdefault((answer.verdict, contrast.baseline, contrast.parsed_metric, answer.seeds), []).append(
                answer
            )
        elif answer.verdict:
            undistinguished.setdefault((contrast.baseline, contrast.arm), []).append(
                metric_phrase(contrast.parsed_metric)
            )
    sentences = [describe_shared_verdict(alike) for alike in decided.values()]
    if undistinguished:
        sentences.append(f"No difference was seen between {'; '.join(group_undistinguished(undistinguished))}.")
    if count := sum(answer.verdict is None for answer in results):
        subject_phrase = "The contrast" if len(results) == 1 else f"{count} of {len(results)} contrasts"
        sentences.append(f"{subject_phrase} could not be decided.")
    return " ".join(sentences)


def describe_shared_verdict(results: Sequence[ContrastResult]) -> str:
    """One sentence for arms with the same verdict against the same arm, by the same metric and seeds."""
    first = results[0]
    against, metric = first.contrast.baseline, first.contrast.parsed_metric
    if len(results) == 1:
        return f"'{first.contrast.arm}' is {first.verdict} than '{against}' in {metric_phrase(metric)} ({format_both_means(first)}; {format_p_value(first.p_adjusted)})."
    digits = choose_decimals(metric, *(interval_half_width(answer.paired_test.difference) for answer in results))
    arms = join_with_and(
        [f"'{answer.contrast.arm}' ({format_mean(answer.arm_values, metric, digits)})" for answer in results]
    )
    p = format_p_value(max(answer.p_adjusted for answer in results))
    return (
        f"{arms} are {first.verdict} than '{against}' ({format_mean(first.baseline_values, metric, digits)}) in {metric_phrase(metric)}, "
        f"on average over {pluralize(len(first.seeds), 'seed')}; each has {p}{' or less' if '=' in p else ''}."
    )


def group_undistinguished(pairs: Mapping[tuple[str, str], Sequence[str]]) -> list[str]:
    """Pairs (against, arm) and in what no difference was seen; arms of which the same is true stand together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for (against, arm), metrics_phrase in pairs.items():
        groups.setdefault((against, join_with_and(metrics_phrase)), []).append(f"'{arm}'")
    return [
        f"{arms[0]} and '{against}' in {what}"
        if len(arms) == 1
        else f"'{against}' and each of {join_with_and(arms)} in {what}"
        for (against, what), arms in groups.items()
    ]


def describe_grid_best(section: Section, arms: Sequence[Arm], results: Sequence[ContrastResult]) -> list[str]:
    """The arm that was best on average, and what the contrasts made say of its neighbours."""
    measures = [answer.contrast.parsed_metric for answer in results]
    metric = next((metric for metric in measures if metric.threshold is None), default_metric(arms))
    averages = {
        arm.name: mean_interval(list(arm.values(metric).values())) for arm in arms if arm.finished and not arm.diverged
    }
    if len(averages) < 2:
        return []
    best = (max if metric.higher_is_better else min)(averages, key=lambda name: averages[name].mean)
    digits = choose_decimals(metric, *(interval_half_width(interval) for interval in averages.values()))
    scope = "Of the arms that did not diverge, " if any(arm.diverged for arm in arms) else ""
    verb_phrase = "was best on average" if averages[best].count > 1 else "came out best"
    compared, not_compared = [], []
    for name in grid_neighbors(section, best):
        match = next(
            (
                a
                for a in results
                if {a.contrast.arm, a.contrast.baseline} == {best, name} and a.contrast.parsed_metric == metric
            ),
            None,
        )
        if match and match.verdict:
            compared.append(f"'{name}' {verdict_relative_to(name, match)}")
        elif name in averages:
            not_compared.append(f"'{name}' with {format_mean_with_interval(metric, averages[name], digits)}")
    return [
        f"{scope}'{best}' {verb_phrase} in {metric_phrase(metric)}: {format_mean_with_interval(metric, averages[best], digits)}.",
        f"Of its neighbours, {join_with_and(compared)}." if compared else "",
        f"Beside it {'lie' if len(not_compared) > 1 else 'lies'} {join_with_and(not_compared)}, and between them nothing was decided."
        if not_compared
        else "",
        "It stands at the edge of the values tried: better ones may lie beyond."
        if is_at_grid_edge(section, best)
        else "",
    ]


def verdict_relative_to(name: str, result: ContrastResult) -> str:
    """An answer's verdict as one of its two arms has it."""
    if result.verdict == "no difference seen":
        return "cannot be told apart from it"
    return "is better" if (result.verdict == "better") == (result.contrast.arm == name) else "is worse"


def grid_neighbors(section: Section, arm: str) -> list[str]:
    """The arms of a grid that differ from one by a single step of a single key."""
    positions = grid_positions(section)
    return [
        name
        for name, place in positions.items()
        if sum(abs(a - b) for a, b in zip(place, positions[arm], strict=True)) == 1
    ]


def is_at_grid_edge(section: Section, arm: str) -> bool:
    """Whether an arm has the smallest or the largest of the numbers that some key of the grid was given."""
    ends = [len(values) - 1 for values in section.grid.values()]
    numbers = [len(values) > 2 and all(type(v) in (int, float) for v in values) for values in section.grid.values()]
    return any(
        ordered and place in (0, end)
        for place, end, ordered in zip(grid_positions(section)[arm], ends, numbers, strict=True)
    )


def grid_positions(section: Section) -> Mapping[str, tuple[int, ...]]:
    """Each arm's place along every key of a grid: in order of size for numbers, else as written."""
    orders = [
        sorted(values) if all(type(v) in (int, float) for v in values) else list(values)
        for values in section.grid.values()
    ]
    return {
        name: tuple(order.index(changes[key]) for key, order in zip(section.grid, orders, strict=True))
        for name, changes in section.arm_overrides.items()
    }


def default_metric(arms: Sequence[Arm]) -> Metric:
    """What to judge arms by where no contrast says it."""
    has_validation = all(run.history[0].validation_accuracy is not None for arm in arms for run in arm.finished)
    return Metric("best", "validation_accuracy") if has_validation else Metric("final", "train_loss")


def describe_arm_means(arms: Sequence[Arm], metric: Metric) -> str:
    averages = {arm.name: mean_interval(list(arm.values(metric).values())) for arm in arms if arm.finished}
    digits = choose_decimals(metric, *(interval_half_width(interval) for interval in averages.values()))
    phrases = [
        f"{format_mean_with_interval(metric, interval, digits)} for '{name}'" for name, interval in averages.items()
    ]
    return f"{metric_phrase(metric)} is {join_with_and(phrases)}"


# ---- the test


def describe_best_on_test(
    trial: Trial,
    num_candidates: int,
    validation_accuracy: float,
    num_validation_images: int,
    selection_bias: float,
    correct: int,
    count: int,
) -> str:
    """What the test says of the run that was best of `candidates` in validation, and whether the two accuracies agree.

    They agree if what is left of their gap, after what the choice is expected to add, is within the 95 % that chance makes in
    two samples of pictures (with a success and a failure added to each, Agresti & Caffo 2000, Am. Stat. 54).
    """
    accuracy = correct / count
    low, high = wilson_interval(correct, count)
    text = (
        f"'{trial.arm}' of section '{trial.section}' with seed {trial.seed}, {'the best of ' + pluralize(num_candidates, 'run') if num_candidates > 1 else 'the only run'} "
        f"in validation, classifies {100 * accuracy:.2f} % of {count:,} test pictures correctly (95 % interval {100 * low:.2f} to {100 * high:.2f} %)."
    )
    validation_sentence = (
        f"Its validation accuracy is {100 * validation_accuracy:.2f} % of {pluralize(num_validation_images, 'picture')}"
    )
    if num_candidates > 1:
        validation_sentence += f"; picking the best of {num_candidates:,} is expected to flatter that by up to {100 * selection_bias:.2f} %-points"
    fractions = [
        (validation_accuracy * num_validation_images + 1) / (num_validation_images + 2),
        (correct + 1) / (count + 2),
    ]
    chance_margin = 1.96 * math.sqrt(
        sum(
            fraction * (1 - fraction) / (n + 2)
            for fraction, n in zip(fractions, (num_validation_images, count), strict=True)
        )
    )
    gap = validation_accuracy - accuracy  # positive: validation flattered
    if gap - selection_bias > chance_margin:
        judgement = "more than the choice of the run and chance make: the choice of the epoch flatters too, or the test pictures are harder"
    elif gap < -chance_margin:
        judgement = "more than chance makes: the test pictures seem to be easier"
    else:
        judgement = "no more than the choice and chance make" if num_candidates > 1 else "no more than chance makes"
    direction = "lower" if gap >= 0 else "higher"
    return f"{text} {validation_sentence}. The test accuracy is {100 * abs(gap):.2f} %-points {direction} than that, {judgement} (±{100 * chance_margin:.2f} by chance alone)."


# ---- numbers


def metric_phrase(metric: Metric) -> str:
    """A metric as a sentence names it."""
    return {
        "epochs_until": f"the number of {metric.title}",
        "seconds_until": f"the time until {metric.threshold and metric.target_phrase}",
    }.get(metric.kind, f"the {metric.title}")


def format_both_means(result: ContrastResult) -> str:
    """Both arms' means: "71.2 % against 68.1 % on average over 3 seeds"."""
    metric = result.contrast.parsed_metric
    digits = choose_decimals(metric, interval_half_width(result.paired_test.difference) if result.paired_test else 0.0)
    first, second = (format_mean(values, metric, digits) for values in (result.arm_values, result.baseline_values))
    return f"{first} against {second} on average over {pluralize(len(result.seeds), 'seed')}"


def format_mean(values: Sequence[float], metric: Metric, digits: int) -> str:
    return format_metric_value(metric, math.fsum(values) / len(values), digits)


def format_signed_difference(metric: Metric, difference: Interval) -> str:
    """A difference in words: "3.1 %-points higher"."""
    if difference.mean == 0:
        return "the same"
    word = INCREASE_WORDS if difference.mean > 0 else DECREASE_WORDS
    return f"{format_metric_difference(metric, abs(difference.mean), choose_decimals(metric, interval_half_width(difference)))} {word[metric.unit]}"


def format_difference_interval(metric: Metric, difference: Interval) -> str:
    """An interval of a difference: "2.1 to 4.1", or "from 0.8 lower to 1.4 higher" where it holds 0."""
    scale, digits = display_scale(metric), choose_decimals(metric, interval_half_width(difference))
    low, high = sorted((abs(difference.low), abs(difference.high)))
    while (
        low > 0 and float(f"{scale * low:.{digits}f}") == 0 and digits < 6
    ):  # a bound that is not 0 should not read so
        digits += 1
    if difference.low > 0 or difference.high < 0:
        return f"{scale * low:.{digits}f} to {scale * high:.{digits}f}"
    down, up = -scale * difference.low, scale * difference.high
    return f"from {down:.{digits}f} {DECREASE_WORDS[metric.unit]} to {up:.{digits}f} {INCREASE_WORDS[metric.unit]}"


def format_significance(result: ContrastResult, tests: int) -> str:
    if tests == 1:
        return format_p_value(result.p_adjusted)
    return f"{format_p_value(result.p_adjusted)} after Holm's correction for {tests} contrasts"


def format_p_value(p: float) -> str:
    """
    >>> p_value(0.0321), p_value(0.00002), p_value(0.0496), p_value(1.0)
    ('p = 0.032', 'p < 0.001', 'p = 0.0496', 'p = 1')
    """
    if p < 0.001:
        return "p < 0.001"
    text = f"{p:.4f}" if f"{p:.3f}" == "0.050" else f"{p:.3f}"  # which side of 0.05 it is on must be seen
    return f"p = {text.rstrip('0').rstrip('.') if p == 1 else text}"


def format_mean_with_interval(metric: Metric, interval: Interval, digits: int) -> str:
    """A mean with its interval; of one run the number alone."""
    if interval.count == 1:
        return format_metric_value(metric, interval.mean, max(digits, DEFAULT_DECIMALS[metric.unit]))
    scale = display_scale(metric)
    return f"{format_metric_value(metric, interval.mean, digits)} ({scale * interval.low:.{digits}f} to {scale * interval.high:.{digits}f})"


def interval_half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def format_metric_value(metric: Metric, value: float, digits: int) -> str:
    """A value with its unit: a gap's is points, as a difference's."""
    return (
        format_metric_difference(metric, value, digits)
        if metric.quantity == "gap"
        else f"{format_decimal(display_scale(metric) * value, digits)} {metric.unit}"
    )


def format_metric_difference(metric: Metric, value: float, digits: int) -> str:
    """A difference with its unit."""
    return (
        f"{format_decimal(display_scale(metric) * value, digits)} {'%-points' if metric.unit == '%' else metric.unit}"
    )


def format_decimal(value: float, digits: int) -> str:
    """So many decimals, unless nothing were left of a small number but zeros.

    >>> fixed(0.1234, 2), fixed(0.000031, 4), fixed(0.0, 1)
    ('0.12', '3.1e-05', '0.0')
    """
    text = f"{value:.{digits}f}"
    return f"{value:.1e}" if value != 0 and float(text) == 0 and abs(value) < 0.001 else text


def display_scale(metric: Metric) -> int:
    return 100 if metric.unit == "%" else 1


def choose_decimals(metric: Metric, *widths: float) -> int:
    """Decimals that show the smallest of some widths with two figures, within what makes sense for the unit."""
    wide = [display_scale(metric) * width for width in widths if width > 0]
    if not wide:
        return DEFAULT_DECIMALS[metric.unit]
    max_decimals = {"%": 2, "nats": 7, "epochs": 1, "s": 3}[metric.unit]
    return min(max(1 - math.floor(math.log10(min(wide))), 0), max_decimals)
