"""When to stop adding pairs to a paired t-test: how small its p-value must be at each look, and intervals that allow for looking.

Who tests again after every few pairs finds a difference sooner or later, also where there is none. A group-sequential
design shares the 5 % out among the looks that were planned (Jennison & Turnbull 2000, Group Sequential Methods). The
levels here are exact for differences that are normal, however few they are; others err more or less often.
"""

from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple, cast

from convolab.core.errors import require
from convolab.core.stats import ALPHA, Interval, t_ppf

if TYPE_CHECKING:
    import numpy as np

# Numbers of pairs, at most a third more each.
PLANNED_LOOKS = (3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 80, 100)
FIRST_LOOK, MAX_PAIRS = PLANNED_LOOKS[0], PLANNED_LOOKS[-1]
SPENDING_POWER = 1.0  # see `spent_level`
NUM_CELLS = 400  # of the grid on which levels are computed: their error is below 1 %


class Estimate(NamedTuple):
    """The mean difference of some pairs, and what a t-test of it needs."""

    mean: float
    standard_error: float  # of the mean, above 0
    pairs: int


def planned_looks(max_pairs: int) -> tuple[int, ...]:
    """After how many pairs one looks, if there are at most `max_pairs`.

    Raises LabError below 3 and above 100 pairs.

    >>> planned_looks(10), planned_looks(7)
    ((3, 4, 5, 6, 8, 10), (3, 4, 5, 6, 7))
    """
    require(
        FIRST_LOOK <= max_pairs <= MAX_PAIRS,
        f"{max_pairs} pairs at most: the first look is at {FIRST_LOOK}, the last at {MAX_PAIRS} at the latest",
    )
    return (*(count for count in PLANNED_LOOKS if count < max_pairs), max_pairs)


def spent_level(fraction: float, alpha: float = ALPHA) -> float:
    """How much of the chance of a false positive is spent when a fraction of all pairs is there.

    The power family of spending functions (Kim & DeMets 1987, Biometrika 74; Lan & DeMets 1983, Biometrika 70).

    >>> spent_level(0.5)
    0.025
    """
    return alpha * fraction**SPENDING_POWER


@cache
def look_levels(looks: tuple[int, ...], alpha: float = ALPHA) -> tuple[float, ...]:
    """How small the two-sided p-value of the paired t-test must be at each look, if one stops at the first that is.

    So the chance to stop where there is no difference is `alpha`, over all looks together. The recursion over looks is
    that of Armitage, McPherson & Rowe 1969 (J. R. Stat. Soc. A 132), for the t statistic itself instead of its normal
    limit: see `step_matrix`.

    Args:
        looks: the numbers of pairs, 3 or more and rising.
        alpha: the level to share out.

    >>> [round(level, 4) for level in look_levels((3, 5, 10))]
    [0.015, 0.0122, 0.0287]
    """
    import numpy as np
    from scipy.optimize import brentq

    require(looks and looks[0] >= FIRST_LOOK, f"looks at {list(looks)} pairs: give {FIRST_LOOK} or more")
    edges = cell_edges()
    count, mass = FIRST_LOOK, np.diff(edges)  # the chance of each cell of |u|: that of three pairs is uniform
    levels: list[float] = []
    spent = 0.0
    for look in looks:
        while count < look - 1:
            mass, count = mass @ step_matrix(count), count + 1
        target = spent_level(look / looks[-1], alpha) - spent
        if look == FIRST_LOOK:
            bound = 1 - target
        else:
            bound = cast("float", brentq(partial(excess, mass, count, target), 0, 1, xtol=1e-12))
            mass, count = mass @ step_matrix(count), look
        levels.append(two_sided_level(bound, look))
        spent += target
        mass = mass * np.clip((bound - edges[:-1]) / np.diff(edges), 0, 1)  # who is beyond the bound has stopped
    return tuple(levels)


def excess(mass: "np.ndarray", count: int, target: float, bound: float) -> float:
    """By how much the chance that |u| is `bound` or more after another pair is above the target."""
    return float(mass @ exceedance(count, bound)) - target


def two_sided_level(bound: float, count: int) -> float:
    """The p-value of the t-test where |u| is at a bound: see `step_matrix`."""
    from scipy.special import betainc

    return float(betainc((count - 1) / 2, 0.5, 1 - bound**2))


def cell_edges() -> "np.ndarray":
    """The edges [cells + 1] of the grid of |u|, closest together near 1, where small levels are."""
    import numpy as np

    return 1 - np.linspace(1, 0, NUM_CELLS + 1) ** 2


@cache
def step_matrix(count: int) -> "np.ndarray":
    """The chances [cells, cells] that |u| goes from one cell to another when a pair is added to `count` pairs.

    u = sum / sqrt(count * sum of squares) of the differences is the t statistic in another scale: t = u sqrt((count - 1) /
    (1 - u^2)). Without a true difference the next u depends on the past through u alone: the new difference y, in units of
    the root of the sum of squares so far, is independent of all earlier u, because of normal values the direction is
    independent of the length; and y sqrt(count) has a t distribution of `count` degrees of freedom.
    """
    import numpy as np

    return -np.diff([exceedance(count, edge, is_table=True) for edge in cell_edges()], axis=0).T


def exceedance(count: int, bound: float, is_table: bool = False) -> "np.ndarray":
    """The chance, from each cell's middle, that |u| is `bound` or more after another pair than `count`.

    With y = tan(angle), the next u is sqrt(count u^2 + 1) sin(angle + phase) / sqrt(count + 1): see `step_matrix`.
    A table of the angle's distribution is six times as fast, and exact to 1e-5.
    """
    import numpy as np

    edges = cell_edges()
    u = (edges[:-1] + edges[1:]) / 2
    phase = np.arctan(np.sqrt(count) * u)
    height = bound * np.sqrt((count + 1) / (count * u**2 + 1))
    start = np.arcsin(np.clip(height, 0, 1))
    ends = np.stack([np.pi - start, start, -start]) - phase
    highest, high, low = np.interp(ends, *angle_table(count)) if is_table else angle_chance(count, ends)
    return np.where(height < 1, highest - high + low, 0.0)


def angle_chance(count: int, angles: "np.ndarray") -> "np.ndarray":
    """How often a new difference's angle, see `exceedance`, is below each of these."""
    import numpy as np
    from scipy.special import stdtr

    return stdtr(count, np.sqrt(count) * np.tan(np.clip(angles, -np.pi / 2, np.pi / 2)))


@cache
def angle_table(count: int) -> tuple["np.ndarray", "np.ndarray"]:
    """Angles, and `angle_chance` of each."""
    import numpy as np

    angles = np.linspace(-np.pi / 2, np.pi / 2, 4001)
    return angles, angle_chance(count, angles)


def repeated_interval(estimate: Estimate, level: float) -> Interval:
    """The interval of a mean difference that covers it at all looks together, with the level of the present look.

    Repeated confidence intervals (Jennison & Turnbull 1989, J. R. Stat. Soc. B 51): whenever one stops, and for whatever reason,
    95 of 100 intervals cover the true difference, if the level is that of `look_levels` for 5 %.

    >>> interval = repeated_interval(Estimate(0.02, 0.002, 5), look_levels((3, 5, 10))[1])
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.0113, 0.0287)
    """
    half_width = t_ppf(1 - level / 2, estimate.pairs - 1) * estimate.standard_error
    return Interval(estimate.mean, estimate.mean - half_width, estimate.mean + half_width, estimate.pairs)
