"""A section's contrasts look by look: which are decided, after how many seeds, and which arms need more.

A pure function of what the runs up to each planned look say, so killing a study and going on, or training it elsewhere,
changes no verdict.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from convolab.core.sequential import Estimate, look_levels, repeated_interval
from convolab.core.stats import ALPHA, Interval, equivalence_p, t_ppf, two_sided_p

FIRST_FUTILITY_LOOK = 5  # seeds: fewer say too little of the spread to give up
MIN_CHANCE = 0.1  # of a verdict by the last look, below which more seeds are not worth their time
MAX_EXACT_SHARES = 12  # see `share_level`

# What runs say at a look: an estimate; or that some are still to come, that they cannot be tested (all differences are
# the same, say), or that they never will be, because a run diverged; or that an arm is none yet, as a grid may get it by
# widening.
Sample = Estimate | Literal["missing", "untestable", "lost", "absent"]
ContrastState = Literal["different", "equivalent", "futile", "exhausted", "untestable", "lost", "absent", "open"]


@dataclass(frozen=True)
class Look:
    """What one contrast's runs showed at one look."""

    seeds: int
    difference: Interval  # the repeated 95 % interval: it holds however often one looks
    p: float  # two-sided, of the paired t-test
    level: float  # what p had to be at most
    p_equivalent: float | None  # of the two one-sided t-tests; None without a margin
    level_equivalent: float | None
    outcome: ContrastState  # "open": the next look was still to come


@dataclass
class Decision:
    """What became of one contrast."""

    outcome: ContrastState = "open"
    looks: list[Look] = field(default_factory=list)
    seeds: int = 0  # that were looked at
    next_look: int | None = None  # seeds that it still waits for, if it is open


def decide_contrasts(
    sample: Callable[[int, int], Sample], margins: Sequence[float | None], looks: tuple[int, ...]
) -> list[Decision]:
    """Decide contrasts that share 5 % for a difference where there is none, and 5 % for a false equivalence.

    At each look every open contrast is tested at its share of the level, first for equivalence. Where one is decided, its
    share passes on to the others of the same question, which are tested again at the same look: Holm's method in its
    group-sequential form (Maurer & Bretz 2013, Stat. Biopharm. Res. 5). From five seeds on a contrast is given up if more
    seeds would probably not decide it; that can only lower the errors.

    Args:
        sample: what the first seeds say of a contrast: `sample(contrast, seeds)`.
        margins: of each contrast, the largest difference that does not matter; None: no difference is too small.
        looks: the planned numbers of seeds, see `planned_looks`.

    >>> seen = {3: Estimate(0.05, 0.01, 3), 4: Estimate(0.05, 0.004, 4)}
    >>> (decision,) = decide_contrasts(lambda contrast, seeds: seen[seeds], [None], (3, 4, 5, 6))
    >>> decision.outcome, decision.seeds
    ('different', 4)
    """
    decisions = [Decision() for _ in margins]
    for index, seeds in enumerate(looks):
        samples = {i: sample(i, seeds) for i, decision in enumerate(decisions) if decision.outcome == "open"}
        for i, seen in samples.items():
            if seen == "lost":
                decisions[i].outcome, decisions[i].seeds = "lost", seeds
            elif seen == "absent":
                decisions[i].outcome = "absent"
        waiting = [i for i, decision in enumerate(decisions) if decision.outcome == "open"]
        if any(samples[i] == "missing" for i in waiting):
            for i in waiting:
                decisions[i].next_look = seeds
            break
        estimates = {i: seen for i in waiting if isinstance(seen := samples[i], Estimate)}
        for i in waiting:
            decisions[i].seeds = seeds
            if i not in estimates and seeds >= FIRST_FUTILITY_LOOK:
                decisions[i].outcome = "untestable"
            elif i not in estimates and seeds == looks[-1]:
                decisions[i].outcome = "exhausted"
        judge_look(decisions, estimates, margins, looks, index)
    return decisions


def judge_look(
    decisions: Sequence[Decision],
    estimates: dict[int, Estimate],
    margins: Sequence[float | None],
    looks: tuple[int, ...],
    index: int,
) -> None:
    """Test the open contrasts at one look, and write down what came out."""
    outcomes: list[ContrastState] = [decision.outcome for decision in decisions]
    p_values = {i: two_sided_p(e.mean / e.standard_error, e.pairs - 1) for i, e in estimates.items()}
    close = {i: equivalence_p(*e, margin) for i, e in estimates.items() if (margin := margins[i]) is not None}
    with_margin = sum(margin is not None for margin in margins)

    def levels() -> tuple[float, ...]:
        return look_levels(looks, share_level(len(margins) - outcomes.count("different")))

    def equivalence_levels() -> tuple[float, ...]:
        return one_sided_levels(looks, share_level(with_margin - outcomes.count("equivalent")))

    while found := [i for i, p in close.items() if outcomes[i] == "open" and p <= equivalence_levels()[index]]:
        for i in found:
            outcomes[i] = "equivalent"
    while found := [i for i, p in p_values.items() if outcomes[i] == "open" and p <= levels()[index]]:
        for i in found:
            outcomes[i] = "different"
    may_give_up = FIRST_FUTILITY_LOOK <= looks[index] < looks[-1]
    for i, estimate in estimates.items():
        margin, last_levels = margins[i], (levels()[-1], equivalence_levels()[-1])
        if outcomes[i] == "open" and (
            looks[index] == looks[-1]
            or (may_give_up and chance(estimate, margin, looks[-1], *last_levels) < MIN_CHANCE)
        ):
            outcomes[i] = "futile" if may_give_up else "exhausted"
        decisions[i].outcome = outcomes[i]
        decisions[i].looks.append(
            Look(
                seeds=looks[index],
                difference=repeated_interval(estimate, look_levels(looks)[index]),
                p=p_values[i],
                level=levels()[index],
                p_equivalent=close.get(i),
                level_equivalent=None if margin is None else equivalence_levels()[index],
                outcome=outcomes[i],
            )
        )


def share_level(remaining: int) -> float:
    """The share of 5 % that each of some remaining contrasts gets.

    Beyond 12 it is that of the next higher of 16, 24, 32, 48, ...: each share has levels of its own, which take a while
    to compute.

    >>> share_level(1), share_level(10), share_level(13) == 0.05 / 16, share_level(100) == 0.05 / 128
    (0.05, 0.005, True, True)
    """
    if remaining <= MAX_EXACT_SHARES:
        return ALPHA / max(1, remaining)
    power = 2 ** math.ceil(math.log2(remaining))
    return ALPHA / (power * 3 // 4 if remaining <= power * 3 // 4 else power)


def one_sided_levels(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """As `look_levels`, for a one-sided test: it uses one of two equal tails."""
    return tuple(level / 2 for level in look_levels(looks, 2 * alpha))


def chance(estimate: Estimate, margin: float | None, last: int, level: float, level_equivalent: float) -> float:
    """How probable a verdict at the last look is, if the difference and its spread are as estimated.

    The mean at the end is that of the seeds so far and of normal ones to come, around the same mean (conditional power
    under the current trend, Lan & Wittes 1988, Biometrics 44).

    >>> seen = Estimate(0.01, 0.01, 5)
    >>> round(chance(seen, None, 20, 0.02, 0.02), 2), round(chance(seen, 0.05, 20, 0.02, 0.02), 2)
    (0.27, 1.0)
    """
    root = math.sqrt(last / estimate.pairs) / estimate.standard_error  # 1 / the standard error at the end
    spread = math.sqrt(1 - estimate.pairs / last)  # of the mean at the end, in such units
    mean, critical = abs(estimate.mean) * root, t_ppf(1 - level / 2, last - 1)
    total = normal_cdf((mean - critical) / spread) + normal_cdf((-mean - critical) / spread)
    if margin is not None:
        reach = margin * root - t_ppf(1 - level_equivalent, last - 1)
        total += max(0.0, normal_cdf((reach - mean) / spread) - normal_cdf((-reach - mean) / spread))
    return min(1.0, total)


def normal_cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


def seeds_by_arm(
    arms: Sequence[str], contrasts: Sequence[tuple[str, ...]], decisions: Sequence[Decision], first_look: int
) -> dict[str, int]:
    """How many seeds each arm needs by now: those of the first look, and what its open contrasts wait for.

    >>> decisions = [Decision("different", [], 3), Decision("open", [], 3, next_look=4)]
    >>> seeds_by_arm(["a", "b", "c"], [("b", "a"), ("c", "a")], decisions, 3)
    {'a': 4, 'b': 3, 'c': 4}
    """
    needed = dict.fromkeys(arms, first_look)
    for involved, decision in zip(contrasts, decisions, strict=True):
        for arm in involved:
            needed[arm] = max(needed[arm], decision.seeds, decision.next_look or 0)
    return needed
