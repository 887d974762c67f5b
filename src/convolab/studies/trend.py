"""How a metric depends on a number that was varied: are values in the middle better, and where is the optimum?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from convolab.core.stats import ALPHA, t_ppf

MIN_TREND_ARMS = 4  # a parabola goes through any three points
WeightedArms = tuple[tuple[float, str], ...]  # weights and the arms they belong to
MAX_EXPONENT = 700.0  # of e, for a number that is finite
REACH = 2  # values on each side of the best one that the parabola is fitted to


@dataclass(frozen=True)
class Optimum:
    """Where the parabola that is fitted to an arm's means has its optimum, on the axis of the key.

    Attributes:
        value: of the key; it may lie beyond the values that were trained.
        low: lower end of the 95 % interval of the value; None if the runs do not bound it.
        high: upper end.
        metric_value: of the parabola there.
        misfit: the largest distance of a fitted mean from the parabola.
        is_parabola: whether the means are as near a parabola as the spread over seeds lets one expect. If not, where the
            optimum lies is rough, and it has no interval.
        is_log: whether the axis is logarithmic.
        coefficients: of the parabola a + b x + c x^2, x on the axis.
        span: the smallest and the largest value that it was fitted to.
    """

    value: float
    low: float | None
    high: float | None
    metric_value: float
    misfit: float
    is_parabola: bool
    is_log: bool
    coefficients: tuple[float, float, float]
    span: tuple[float, float]

    @property
    def is_inside(self) -> bool:
        """Whether it lies between values that the parabola was fitted to."""
        return self.span[0] <= self.value <= self.span[1]


def axis_positions(values: Sequence[float]) -> tuple[list[float], bool]:
    """Where values stand on their axis, and whether that is logarithmic: it is, if all of them are above 0.

    >>> axis_positions([0.0, 0.5])
    ([0.0, 0.5], False)
    """
    is_log = min(values) > 0
    return [math.log(value) if is_log else float(value) for value in values], is_log


def middle_and_ends(positions: Mapping[str, float]) -> tuple[WeightedArms, WeightedArms]:
    """The weights of the quadratic contrast: two means of arms, of the middle of an axis and of its ends.

    The quadratic orthogonal polynomial over the positions, in its usual form for equal distances (Kirk 2013, Experimental
    Design, chapter 6): no straight line changes their difference.

    >>> middle_and_ends({"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0})
    (((0.5, 'b'), (0.5, 'c')), ((0.5, 'a'), (0.5, 'd')))
    """
    x = np.array(list(positions.values()))
    line = np.stack([np.ones_like(x), x - x.mean()], 1)
    square = (x - x.mean()) ** 2
    weights = square - line @ np.linalg.lstsq(line, square, rcond=None)[0]
    weights = weights / (np.abs(weights).sum() / 2)
    named = [(round(float(weight), 12), name) for weight, name in zip(weights, positions, strict=True)]
    middle = tuple((-weight, name) for weight, name in named if weight < 0)
    return middle, tuple((weight, name) for weight, name in named if weight > 0)


def fit_optimum(x: Sequence[float], values: np.ndarray, *, is_log: bool, higher_is_better: bool) -> Optimum | None:
    """The optimum of a parabola through the best mean and its neighbors, with Fieller's interval over the seeds.

    Each seed has a parabola of its own; the optimum -b / 2c is a ratio of their means, whose interval is Fieller's (1954,
    J. R. Stat. Soc. B 16). It takes the means to lie on a parabola, which is tested: see `Optimum.is_parabola`.

    Args:
        x: rising positions on the axis, at least `MIN_TREND_ARMS`.
        values: the metric [seeds, positions].
        is_log: whether positions are logarithms.
        higher_is_better: of the metric.

    Returns:
        the optimum, or None where the parabola through the means opens the other way.

    >>> x = [0.0, 1.0, 2.0, 3.0, 4.0]
    >>> values = np.array([[(p - 1.5 - seed / 10) ** 2 for p in x] for seed in (-1, 0, 1)])
    >>> optimum = fit_optimum(x, values, is_log=False, higher_is_better=False)
    >>> round(optimum.value, 2), round(optimum.low, 2), round(optimum.high, 2)
    (1.5, 1.25, 1.75)
    """
    means = values.mean(0)
    best = int(means.argmax() if higher_is_better else means.argmin())
    start = max(0, min(best - REACH, len(x) - MIN_TREND_ARMS))
    chosen = slice(start, max(best + REACH + 1, MIN_TREND_ARMS))
    points = np.array(x[chosen])
    center = float(points.mean())
    powers = np.stack([np.ones_like(points), points - center, (points - center) ** 2], 1)
    parabolas = np.linalg.lstsq(powers, values[:, chosen].T, rcond=None)[0]  # [3, seeds]
    a, b, c = (float(coefficient) for coefficient in parabolas.mean(1))
    if c == 0 or (c > 0) == higher_is_better:
        return None
    vertex = -b / (2 * c)
    to_value = bounded_exp if is_log else float
    rest = values[:, chosen] @ np.linalg.qr(powers, mode="complete")[0][:, 3:]  # what no parabola explains
    low, high = fieller_interval(parabolas[1], 2 * parabolas[2])
    if not (is_parabola := is_noise(rest)):
        low = high = None
    return Optimum(
        value=to_value(vertex + center),
        low=None if low is None else to_value(low + center),
        high=None if high is None else to_value(high + center),
        metric_value=a + b * vertex + c * vertex**2,
        misfit=float(np.abs(powers @ [a, b, c] - means[chosen]).max()),
        is_parabola=is_parabola,
        is_log=is_log,
        coefficients=(a - b * center + c * center**2, b - 2 * c * center, c),
        span=(to_value(points[0]), to_value(points[-1])),
    )


def bounded_exp(exponent: float) -> float:
    """The exponential of a number, which is finite and above 0 however large it is."""
    return math.exp(min(max(exponent, -MAX_EXPONENT), MAX_EXPONENT))


def is_noise(values: np.ndarray) -> bool:
    """Whether the means of some values [seeds, numbers] may all be 0, by Hotelling's test at 5 %; few seeds cannot tell."""
    from scipy.special import fdtrc

    seeds, numbers = values.shape
    if not numbers or seeds <= numbers:
        return True
    mean, covariance = values.mean(0), np.atleast_2d(np.cov(values.T))
    square = seeds * float(mean @ np.linalg.pinv(covariance) @ mean)
    return float(fdtrc(numbers, seeds - numbers, square * (seeds - numbers) / (numbers * (seeds - 1)))) > ALPHA


def fieller_interval(intercepts: np.ndarray, slopes: np.ndarray) -> tuple[float | None, float | None]:
    """The 95 % interval of the zero of a line, from pairs of its intercept and slope; no ends if the slope may be 0."""
    count = len(slopes)
    if count < 2:
        return None, None
    square = t_ppf(1 - ALPHA / 2, count - 1) ** 2 / count
    (var_a, cov), (_, var_b) = np.cov(intercepts, slopes)
    a, b = intercepts.mean(), slopes.mean()
    # All v of (a + b v)^2 <= square * variance of (a + b v): a quadratic inequality.
    lead, half, rest = b * b - square * var_b, a * b - square * cov, a * a - square * var_a
    if lead <= 0:
        return None, None
    root = math.sqrt(max(0.0, half * half - lead * rest))
    return float((-half - root) / lead), float((-half + root) / lead)
