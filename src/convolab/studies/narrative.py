"""Conclusions in plain English, written from the numbers alone: no sentence says more than they carry."""

import math
from collections.abc import Mapping, Sequence

from convolab.core.stats import LEVEL, Interval, mean_interval, wilson_interval
from convolab.studies.metrics import Metric
from convolab.studies.outcomes import Answer, Arm, mishaps, plural
from convolab.studies.study import Section, Trial

MORE = {"%": "higher", "nats": "higher", "epochs": "more", "s": "more"}
LESS = {"%": "lower", "nats": "lower", "epochs": "fewer", "s": "less"}
DIGITS = {"%": 2, "nats": 4, "epochs": 0, "s": 1}  # of a single run's number


# ---- a contrast


def on_contrast(answer: Answer, arm: Arm, against: Arm, tests: int) -> str:
    """What was seen of one contrast of `tests` in its section: what, how much, how sure, and when the curves part."""
    parts = [lost([arm, against]), finding(answer, arm, against, tests), censored(answer, arm, against)]
    if answer.verdict in ("better", "worse"):
        parts += [parting(answer, arm, against)]
    return " ".join(part for part in parts if part)


def lost(arms: Sequence[Arm]) -> str:
    """What did not finish, divergence first."""
    return " ".join(
        f"{said}." for kinds in (["diverged"], ["failed", "stopped", "missing"]) if (said := mishaps(arms, kinds))
    )


def finding(answer: Answer, arm: Arm, against: Arm, tests: int) -> str:
    """The verdict and its numbers."""
    metric, difference = answer.contrast.measure, answer.paired and answer.paired.difference
    if not answer.seeds:
        return f"There is no seed with which both '{arm.name}' and '{against.name}' are finished, so nothing can be said of {subject(metric)}."
    if len(answer.seeds) == 1:
        return f"{single(answer)} One run decides nothing: another seed may turn it round, so give at least three."
    if answer.verdict is None:
        return undecided(answer, arm, against)
    if answer.verdict == "no difference seen":
        return nothing_seen(answer, tests)
    effect = (
        f" That is {abs(answer.paired.effect):.1f} times its own spread from seed to seed."
        if len(answer.seeds) > 2
        else ""
    )
    return (
        f"'{arm.name}' is {answer.verdict} than '{against.name}' in {subject(metric)}: {means(answer)}, "
        f"{amount(metric, difference)} (95 % interval {span(metric, difference)}; {sure(answer, tests)}).{effect}"
    )


def undecided(answer: Answer, arm: Arm, against: Arm) -> str:
    """Several seeds, and yet no verdict: a divergence, a level that no run reached, or no spread."""
    metric, arms = answer.contrast.measure, f"'{arm.name}' and '{against.name}'"
    if arm.diverged or against.diverged:
        return f"No verdict is drawn between {arms}, because the runs that survive are no fair choice; in {subject(metric)} these come to {means(answer)}."
    if all(missed == of for missed, of in short_of(answer, arm, against).values()):
        return f"No run of {arms} reached {metric.aim}, so there is nothing to compare."
    kind = (
        "have exactly the same numbers"
        if answer.arm == answer.against
        else "differ by exactly the same with every seed"
    )
    return f"In {subject(metric)} {arms} {kind} ({means(answer)}): there is no spread to judge by, and no verdict."


def nothing_seen(answer: Answer, tests: int) -> str:
    metric, difference = answer.contrast.measure, answer.paired.difference
    said = (
        f"No difference seen between '{answer.contrast.arm}' and '{answer.contrast.against}' in {subject(metric)}: "
        f"{means(answer)}, {amount(metric, difference)} (95 % interval {span(metric, difference)}; {sure(answer, tests)})."
    )
    if tests > 1 and answer.paired.p <= LEVEL:
        said += f" Taken alone its interval excludes 0, but one of {tests} contrasts may do so by chance: after the correction it is not enough to say so."
    spread = f"With {plural(len(answer.seeds), 'seed')} that spread like these, "
    if metric.unit == "%" and answer.paired.smallest > 1:
        return f"{said} {spread}hardly any difference would be seen: this says nothing but that more seeds are needed."
    smallest = apart(metric, answer.paired.smallest, digits_for(metric, answer.paired.smallest))
    return f"{said} {spread}a true difference of {smallest} would be seen 4 times in 5; a smaller one may be there."


def single(answer: Answer) -> str:
    """Both numbers of the one seed."""
    metric, contrast = answer.contrast.measure, answer.contrast
    digits = DIGITS[metric.unit]
    first, second = (number(metric, values[0], digits) for values in (answer.arm, answer.against))
    return f"With the one seed {answer.seeds[0]}, {subject(metric)} is {first} for '{contrast.arm}' and {second} for '{contrast.against}'."


def censored(answer: Answer, arm: Arm, against: Arm) -> str:
    """Of an `until` metric: how many runs never got there, and what they count."""
    metric, runs = answer.contrast.measure, short_of(answer, arm, against)
    short = {name: (missed, of) for name, (missed, of) in runs.items() if missed}
    if not short or (len(answer.seeds) > 1 and answer.verdict is None):
        return ""
    said = " and ".join(
        f"{missed} of {plural(of, 'run')} of '{name}'" if of > 1 else f"the run of '{name}'"
        for name, (missed, of) in short.items()
    )
    end = metric.end(side.history(seed) for side in (arm, against) for seed in answer.seeds)
    return f"{said[0].upper()}{said[1:]} never got there: no run counts more than {number(metric, end, DIGITS[metric.unit])}, and what came after is left out."


def short_of(answer: Answer, arm: Arm, against: Arm) -> dict[str, tuple[int, int]]:
    """By arm, how many runs never reached an `until` metric's level, and of how many."""
    reached = answer.contrast.measure.reached
    return {
        side.name: (sum(not reached(side.history(seed)) for seed in answer.seeds), len(answer.seeds))
        for side in (arm, against)
    }


def parting(answer: Answer, arm: Arm, against: Arm) -> str:
    """When in training the curves part, and whether the end agrees with the verdict."""
    metric, since = answer.contrast.measure, answer.parts_from
    curve = "curves of the gap" if metric.quantity == "gap" else f"curves of {metric.words}"
    lengths = [len(side.history(seed)) for side in (arm, against) for seed in answer.seeds]
    if max(lengths) == 1:
        return ""
    if since is None:
        return f"Epoch by epoch the {curve} are not apart at the end."
    at = min(lengths) - 1
    lead = sum(metric.curve(arm.history(seed))[at] - metric.curve(against.history(seed))[at] for seed in answer.seeds)
    ahead = "better" if (lead > 0) == metric.rising else "worse"
    when = (
        "from the first epoch to the end"
        if since == 1
        else "at the end alone"
        if since == at + 1
        else f"from epoch {since} to the end"
    )
    turn = "" if ahead == answer.verdict else f", with '{arm.name}' the {ahead} one there"
    return f"Epoch by epoch the {curve} are apart {when}{turn}."


# ---- a section


def on_section(section: Section, arms: Sequence[Arm], answers: Sequence[Answer]) -> str:
    """What a section came to: first what did not finish, then what was seen, then, of a grid, its best arm."""
    if not any(arm.finished for arm in arms):
        return (mishaps(arms) or "No run is there") + ": there is nothing to compare."
    parts = [lost(arms)]
    if max(len(arm.finished) for arm in arms) == 1:
        parts.append("With one run an arm the curves show what happened once; one run decides nothing.")
    parts += [summary(answers)] if answers else []
    if section.grid:
        parts += best_of_grid(section, arms, answers)
    elif not answers:
        asked = "No contrast was asked, so nothing is decided: " if len(arms) > 1 else ""
        said = f"{asked}{every_mean(arms, usual_metric(arms))}."
        parts.append(said[0].upper() + said[1:])
    return " ".join(part for part in parts if part)


def summary(answers: Sequence[Answer]) -> str:
    """The verdicts of a section in a few sentences: arms that fared alike against the same one share one."""
    seen: dict[tuple[str, str, Metric, tuple[int, ...]], list[Answer]] = {}
    unseen: dict[tuple[str, str], list[str]] = {}
    for answer in answers:
        contrast = answer.contrast
        if answer.verdict in ("better", "worse"):
            seen.setdefault((answer.verdict, contrast.against, contrast.measure, answer.seeds), []).append(answer)
        elif answer.verdict:
            unseen.setdefault((contrast.against, contrast.arm), []).append(subject(contrast.measure))
    said = [verdict(alike) for alike in seen.values()]
    if unseen:
        said.append(f"No difference was seen between {'; '.join(not_told_apart(unseen))}.")
    if count := sum(answer.verdict is None for answer in answers):
        whole = "The contrast" if len(answers) == 1 else f"{count} of {len(answers)} contrasts"
        said.append(f"{whole} could not be decided.")
    return " ".join(said)


def verdict(alike: Sequence[Answer]) -> str:
    """One sentence for arms with the same verdict against the same arm, by the same metric and seeds."""
    first = alike[0]
    against, metric = first.contrast.against, first.contrast.measure
    if len(alike) == 1:
        return f"'{first.contrast.arm}' is {first.verdict} than '{against}' in {subject(metric)} ({means(first)}; {p_value(first.adjusted)})."
    digits = digits_for(metric, *(half(answer.paired.difference) for answer in alike))
    arms = listed([f"'{answer.contrast.arm}' ({mean(answer.arm, metric, digits)})" for answer in alike])
    p = p_value(max(answer.adjusted for answer in alike))
    return (
        f"{arms} are {first.verdict} than '{against}' ({mean(first.against, metric, digits)}) in {subject(metric)}, "
        f"on average over {plural(len(first.seeds), 'seed')}; each has {p}{' or less' if '=' in p else ''}."
    )


def not_told_apart(pairs: Mapping[tuple[str, str], Sequence[str]]) -> list[str]:
    """Pairs (against, arm) and in what no difference was seen; arms of which the same is true stand together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for (against, arm), what in pairs.items():
        groups.setdefault((against, listed(what)), []).append(f"'{arm}'")
    return [
        f"{arms[0]} and '{against}' in {what}"
        if len(arms) == 1
        else f"'{against}' and each of {listed(arms)} in {what}"
        for (against, what), arms in groups.items()
    ]


def listed(items: Sequence[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return ", ".join(items[:-1]) + (" and " if len(items) > 1 else "") + items[-1]


def best_of_grid(section: Section, arms: Sequence[Arm], answers: Sequence[Answer]) -> list[str]:
    """The arm that was best on average, and what the contrasts made say of its neighbours."""
    measures = [answer.contrast.measure for answer in answers]
    metric = next((metric for metric in measures if metric.level is None), usual_metric(arms))
    averages = {
        arm.name: mean_interval(list(arm.values(metric).values())) for arm in arms if arm.finished and not arm.diverged
    }
    if len(averages) < 2:
        return []
    best = (max if metric.higher_is_better else min)(averages, key=lambda name: averages[name].mean)
    digits = digits_for(metric, *(half(interval) for interval in averages.values()))
    among = "Of the arms that did not diverge, " if any(arm.diverged for arm in arms) else ""
    how = "was best on average" if averages[best].count > 1 else "came out best"
    told, untold = [], []
    for name in neighbours(section, best):
        match = next(
            (
                a
                for a in answers
                if {a.contrast.arm, a.contrast.against} == {best, name} and a.contrast.measure == metric
            ),
            None,
        )
        if match and match.verdict:
            told.append(f"'{name}' {seen_from(name, match)}")
        elif name in averages:
            untold.append(f"'{name}' with {with_interval(metric, averages[name], digits)}")
    return [
        f"{among}'{best}' {how} in {subject(metric)}: {with_interval(metric, averages[best], digits)}.",
        f"Of its neighbours, {listed(told)}." if told else "",
        f"Beside it {'lie' if len(untold) > 1 else 'lies'} {listed(untold)}, and between them nothing was decided."
        if untold
        else "",
        "It stands at the edge of the values tried: better ones may lie beyond." if at_edge(section, best) else "",
    ]


def seen_from(name: str, answer: Answer) -> str:
    """An answer's verdict as one of its two arms has it."""
    if answer.verdict == "no difference seen":
        return "cannot be told apart from it"
    return "is better" if (answer.verdict == "better") == (answer.contrast.arm == name) else "is worse"


def neighbours(section: Section, arm: str) -> list[str]:
    """The arms of a grid that differ from one by a single step of a single key."""
    places = grid_places(section)
    return [
        name for name, place in places.items() if sum(abs(a - b) for a, b in zip(place, places[arm], strict=True)) == 1
    ]


def at_edge(section: Section, arm: str) -> bool:
    """Whether an arm has the smallest or the largest of the numbers that some key of the grid was given."""
    ends = [len(values) - 1 for values in section.grid.values()]
    numbers = [len(values) > 2 and all(type(v) in (int, float) for v in values) for values in section.grid.values()]
    return any(
        ordered and place in (0, end)
        for place, end, ordered in zip(grid_places(section)[arm], ends, numbers, strict=True)
    )


def grid_places(section: Section) -> Mapping[str, tuple[int, ...]]:
    """Each arm's place along every key of a grid: in order of size for numbers, else as written."""
    orders = [
        sorted(values) if all(type(v) in (int, float) for v in values) else list(values)
        for values in section.grid.values()
    ]
    return {
        name: tuple(order.index(changes[key]) for key, order in zip(section.grid, orders, strict=True))
        for name, changes in section.named_arms.items()
    }


def usual_metric(arms: Sequence[Arm]) -> Metric:
    """What to judge arms by where no contrast says it."""
    held_back = all(run.history[0].validation_accuracy is not None for arm in arms for run in arm.finished)
    return Metric("best", "validation_accuracy") if held_back else Metric("final", "train_loss")


def every_mean(arms: Sequence[Arm], metric: Metric) -> str:
    averages = {arm.name: mean_interval(list(arm.values(metric).values())) for arm in arms if arm.finished}
    digits = digits_for(metric, *(half(interval) for interval in averages.values()))
    each = [f"{with_interval(metric, interval, digits)} for '{name}'" for name, interval in averages.items()]
    return f"{subject(metric)} is {listed(each)}"


# ---- the test


def on_test(
    trial: Trial, candidates: int, validation: float, pictures: int, inflation: float, correct: int, count: int
) -> str:
    """What the test says of the run that was best of `candidates` in validation, and whether the two accuracies agree.

    They agree if what is left of their gap, after what the choice is expected to add, is within the 95 % that chance makes in
    two samples of pictures (with a success and a failure added to each, Agresti & Caffo 2000, Am. Stat. 54).
    """
    accuracy = correct / count
    low, high = wilson_interval(correct, count)
    said = (
        f"'{trial.arm}' of section '{trial.section}' with seed {trial.seed}, {'the best of ' + plural(candidates, 'run') if candidates > 1 else 'the only run'} "
        f"in validation, classifies {100 * accuracy:.2f} % of {count:,} test pictures correctly (95 % interval {100 * low:.2f} to {100 * high:.2f} %)."
    )
    chosen = f"Its validation accuracy is {100 * validation:.2f} % of {plural(pictures, 'picture')}"
    if candidates > 1:
        chosen += (
            f"; picking the best of {candidates:,} is expected to flatter that by up to {100 * inflation:.2f} %-points"
        )
    shares = [(validation * pictures + 1) / (pictures + 2), (correct + 1) / (count + 2)]
    chance = 1.96 * math.sqrt(
        sum(share * (1 - share) / (n + 2) for share, n in zip(shares, (pictures, count), strict=True))
    )
    gap = validation - accuracy  # positive: validation flattered
    if gap - inflation > chance:
        judged = "more than the choice of the run and chance make: the choice of the epoch flatters too, or the test pictures are harder"
    elif gap < -chance:
        judged = "more than chance makes: the test pictures seem to be easier"
    else:
        judged = "no more than the choice and chance make" if candidates > 1 else "no more than chance makes"
    side = "lower" if gap >= 0 else "higher"
    return f"{said} {chosen}. The test accuracy is {100 * abs(gap):.2f} %-points {side} than that, {judged} (±{100 * chance:.2f} by chance alone)."


# ---- numbers


def subject(metric: Metric) -> str:
    """A metric as a sentence names it."""
    return {
        "epochs_until": f"the number of {metric.title}",
        "seconds_until": f"the time until {metric.level and metric.aim}",
    }.get(metric.kind, f"the {metric.title}")


def means(answer: Answer) -> str:
    """Both arms' means: "71.2 % against 68.1 % on average over 3 seeds"."""
    metric = answer.contrast.measure
    digits = digits_for(metric, half(answer.paired.difference) if answer.paired else 0.0)
    first, second = (mean(values, metric, digits) for values in (answer.arm, answer.against))
    return f"{first} against {second} on average over {plural(len(answer.seeds), 'seed')}"


def mean(values: Sequence[float], metric: Metric, digits: int) -> str:
    return number(metric, math.fsum(values) / len(values), digits)


def amount(metric: Metric, difference: Interval) -> str:
    """A difference in words: "3.1 %-points higher"."""
    if difference.mean == 0:
        return "the same"
    word = MORE if difference.mean > 0 else LESS
    return f"{apart(metric, abs(difference.mean), digits_for(metric, half(difference)))} {word[metric.unit]}"


def span(metric: Metric, difference: Interval) -> str:
    """An interval of a difference: "2.1 to 4.1", or "from 0.8 lower to 1.4 higher" where it holds 0."""
    scale, digits = scale_of(metric), digits_for(metric, half(difference))
    low, high = sorted((abs(difference.low), abs(difference.high)))
    while (
        low > 0 and float(f"{scale * low:.{digits}f}") == 0 and digits < 6
    ):  # a bound that is not 0 should not read so
        digits += 1
    if difference.low > 0 or difference.high < 0:
        return f"{scale * low:.{digits}f} to {scale * high:.{digits}f}"
    down, up = -scale * difference.low, scale * difference.high
    return f"from {down:.{digits}f} {LESS[metric.unit]} to {up:.{digits}f} {MORE[metric.unit]}"


def sure(answer: Answer, tests: int) -> str:
    if tests == 1:
        return p_value(answer.adjusted)
    return f"{p_value(answer.adjusted)} after Holm's correction for {tests} contrasts"


def p_value(p: float) -> str:
    """
    >>> p_value(0.0321), p_value(0.00002), p_value(0.0496), p_value(1.0)
    ('p = 0.032', 'p < 0.001', 'p = 0.0496', 'p = 1')
    """
    if p < 0.001:
        return "p < 0.001"
    text = f"{p:.4f}" if f"{p:.3f}" == "0.050" else f"{p:.3f}"  # which side of 0.05 it is on must be seen
    return f"p = {text.rstrip('0').rstrip('.') if p == 1 else text}"


def with_interval(metric: Metric, interval: Interval, digits: int) -> str:
    """A mean with its interval; of one run the number alone."""
    if interval.count == 1:
        return number(metric, interval.mean, max(digits, DIGITS[metric.unit]))
    scale = scale_of(metric)
    return f"{number(metric, interval.mean, digits)} ({scale * interval.low:.{digits}f} to {scale * interval.high:.{digits}f})"


def half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def number(metric: Metric, value: float, digits: int) -> str:
    """A value with its unit: a gap's is points, as a difference's."""
    return (
        apart(metric, value, digits)
        if metric.quantity == "gap"
        else f"{fixed(scale_of(metric) * value, digits)} {metric.unit}"
    )


def apart(metric: Metric, value: float, digits: int) -> str:
    """A difference with its unit."""
    return f"{fixed(scale_of(metric) * value, digits)} {'%-points' if metric.unit == '%' else metric.unit}"


def fixed(value: float, digits: int) -> str:
    """So many decimals, unless nothing were left of a small number but zeros.

    >>> fixed(0.1234, 2), fixed(0.000031, 4), fixed(0.0, 1)
    ('0.12', '3.1e-05', '0.0')
    """
    text = f"{value:.{digits}f}"
    return f"{value:.1e}" if value != 0 and float(text) == 0 and abs(value) < 0.001 else text


def scale_of(metric: Metric) -> int:
    return 100 if metric.unit == "%" else 1


def digits_for(metric: Metric, *widths: float) -> int:
    """Decimals that show the smallest of some widths with two figures, within what makes sense for the unit."""
    wide = [scale_of(metric) * width for width in widths if width > 0]
    if not wide:
        return DIGITS[metric.unit]
    most = {"%": 2, "nats": 7, "epochs": 1, "s": 3}[metric.unit]
    return min(max(1 - math.floor(math.log10(min(wide))), 0), most)
