"""A metric's values, differences and intervals as a person reads them, with as many decimals as they deserve."""

import math

from convolab.core.stats import Interval
from convolab.studies.metrics import Metric

INCREASE_WORDS = {"%": "higher", "nats": "higher", "score": "higher", "epochs": "more", "s": "more"}
DECREASE_WORDS = {"%": "lower", "nats": "lower", "score": "lower", "epochs": "fewer", "s": "less"}
DEFAULT_DECIMALS = {"%": 2, "nats": 4, "score": 4, "epochs": 0, "s": 1}  # of a single run's number
MAX_DECIMALS = {"%": 2, "nats": 7, "score": 7, "epochs": 1, "s": 3}  # of a mean


def metric_phrase(metric: Metric) -> str:
    """A metric as a sentence names it.

    >>> metric_phrase(Metric.parse("epochs_to_train_accuracy:0.5"))
    'the number of epochs to a training accuracy of 50 %'
    """
    if metric.kind == "epochs_to":
        return f"the number of {metric.title}"
    return f"the time to {metric.target_phrase}" if metric.kind == "seconds_to" else f"the {metric.title}"


def display_scale(metric: Metric) -> int:
    """What a value is multiplied with for display: fractions become %."""
    return 100 if metric.unit == "%" else 1


def interval_half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def choose_decimals(metric: Metric, *widths: float) -> int:
    """Decimals that show the smallest of some widths with two digits, within what makes sense for the unit."""
    positive_widths = [display_scale(metric) * width for width in widths if width > 0]
    if not positive_widths:
        return DEFAULT_DECIMALS[metric.unit]
    return min(max(1 - math.floor(math.log10(min(positive_widths))), 0), MAX_DECIMALS[metric.unit])


def format_metric_value(metric: Metric, value: float, decimals: int) -> str:
    """A value with its unit; that of a gap is a difference of accuracies."""
    if metric.quantity == "gap":
        return format_metric_difference(metric, value, decimals)
    return f"{format_decimal(display_scale(metric) * value, decimals)} {metric.unit}"


def format_metric_difference(metric: Metric, value: float, decimals: int) -> str:
    """A difference with its unit."""
    return with_unit(format_decimal(display_scale(metric) * value, decimals), metric)


def format_margin(metric: Metric, margin: float) -> str:
    """A margin with its unit.

    >>> format_margin(Metric.parse("final_gap"), 0.01), format_margin(Metric.parse("epochs_to_train_accuracy:0.9"), 1)
    ('1 percentage point', '1 epoch')
    """
    return with_unit(f"{display_scale(metric) * margin:.6g}", metric)


def difference_unit(metric: Metric) -> str:
    """What a difference is counted in: "percentage points" or the metric's unit."""
    return "percentage points" if metric.unit == "%" else metric.unit


def with_unit(number: str, metric: Metric) -> str:
    """A number of a difference with its unit, in the singular after a plain 1: "1 epoch", "1.0 percentage points", "1 s"."""
    unit = difference_unit(metric)
    is_one = number == "1" and len(unit) > 1
    return f"{number} {unit.removesuffix('s') if is_one else unit}"


def format_mean(metric: Metric, interval: Interval, decimals: int) -> str:
    """A mean with its interval, such as "80.2 % (77.8 to 82.6)"; of one run the number alone."""
    if interval.count == 1:
        return format_metric_value(metric, interval.mean, max(decimals, DEFAULT_DECIMALS[metric.unit]))
    low, high = (f"{display_scale(metric) * bound:.{decimals}f}" for bound in (interval.low, interval.high))
    return f"{format_metric_value(metric, interval.mean, decimals)} ({low} to {high})"


def format_signed_difference(metric: Metric, difference: Interval) -> str:
    """A difference in words: "3.1 percentage points higher"."""
    if difference.mean == 0:
        return "the same"
    words = INCREASE_WORDS if difference.mean > 0 else DECREASE_WORDS
    decimals = choose_decimals(metric, interval_half_width(difference))
    return f"{format_metric_difference(metric, abs(difference.mean), decimals)} {words[metric.unit]}"


def rounds_to_zero(metric: Metric, difference: Interval) -> bool:
    """Whether a mean difference is 0 in the decimals that its interval deserves."""
    decimals = choose_decimals(metric, interval_half_width(difference))
    return round(display_scale(metric) * difference.mean, decimals) == 0


def format_difference_interval(metric: Metric, difference: Interval) -> str:
    """The interval of a difference: "2.1 to 4.1", or "from 0.8 lower to 1.4 higher" where it contains 0.

    Where the difference rounds to 0, it is left out of sentences, so the unit stands here: "from 1.1 nats lower to 1.1 higher".
    """
    scale = display_scale(metric)
    decimals = choose_decimals(metric, interval_half_width(difference))
    low, high = sorted((scale * abs(difference.low), scale * abs(difference.high)))
    while low > 0 and float(f"{low:.{decimals}f}") == 0 and decimals < 6:  # a bound that is not 0 is not shown as 0
        decimals += 1
    if difference.low > 0 or difference.high < 0:
        return f"{low:.{decimals}f} to {high:.{decimals}f}"
    decrease = f"{-scale * difference.low:.{decimals}f}"
    if rounds_to_zero(metric, difference):
        decrease = with_unit(decrease, metric)
    return f"from {decrease} {DECREASE_WORDS[metric.unit]} to {scale * difference.high:.{decimals}f} {INCREASE_WORDS[metric.unit]}"


def format_decimal(value: float, decimals: int) -> str:
    """A number with so many decimals; in scientific notation where these would all be zeros.

    >>> format_decimal(0.1234, 2), format_decimal(0.000031, 4), format_decimal(0.0, 1)
    ('0.12', '3.1e-05', '0.0')
    """
    text = f"{value:.{decimals}f}"
    return f"{value:.1e}" if value != 0 and float(text) == 0 and abs(value) < 0.001 else text


def describe_step(difference: float, decimals: int, unit: str) -> str:
    """A difference with its direction; one that is not 0 is not shown as 0.

    >>> [describe_step(difference, 2, "points") for difference in (-1.5, 0, 0.001)]
    ['1.50 points lower', 'equal', 'less than 0.01 points higher']
    """
    if not difference:
        return "equal"
    amount = f"{abs(difference):.{decimals}f}"
    amount = amount if float(amount) else f"less than {10**-decimals:.{decimals}f}"
    return f"{amount} {unit} {'higher' if difference > 0 else 'lower'}"
