"""Numbers and lists as a person reads them."""

import math
import re
from collections.abc import Sequence

NO_VALUE = "-"  # what a table shows where there is none


def format_duration(seconds: float | None) -> str:
    """Seconds in the units that fit; a hyphen for None, and for NaN, which is what a file does not say.

    >>> format_duration(12.34), format_duration(754.0), format_duration(11520.0), format_duration(None)
    ('12.3 s', '12 min 34 s', '3 h 12 min', '-')
    """
    if seconds is None or not math.isfinite(seconds):
        return NO_VALUE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, remaining = divmod(round(seconds), 60)
    return f"{minutes} min {remaining} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_percent(fraction: float | None) -> str:
    """A fraction as a percentage with two decimals; a hyphen for None.

    >>> format_percent(0.5), format_percent(None)
    ('50.00 %', '-')
    """
    return NO_VALUE if fraction is None else f"{100 * fraction:.2f} %"


def format_bytes(count: int) -> str:
    """Bytes in the unit that fits.

    >>> format_bytes(0), format_bytes(2000), format_bytes(1_605_632)
    ('0', '2.0 kB', '1.6 MB')
    """
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= divisor:
            return f"{count / divisor:.1f} {unit}"
    return f"{count} B" if count else "0"


def format_p_value(p: float) -> str:
    """A p-value that shows on which side of 0.05 it is.

    >>> format_p_value(0.0321), format_p_value(0.00002), format_p_value(0.0496), format_p_value(1.0)
    ('p = 0.032', 'p < 0.001', 'p = 0.0496', 'p = 1')
    """
    if p < 0.001:
        return "p < 0.001"
    if p == 1:
        return "p = 1"
    return f"p = {p:.4f}" if f"{p:.3f}" == "0.050" else f"p = {p:.3f}"


def format_p_cell(p: float) -> str:
    """A p-value in a column that is headed p.

    >>> format_p_cell(0.0321), format_p_cell(0.00002)
    ('0.032', '< 0.001')
    """
    return format_p_value(p).removeprefix("p ").removeprefix("= ")


def pluralize(count: int, noun: str) -> str:
    """A count and its noun.

    >>> pluralize(1, "seed"), pluralize(3, "seed"), pluralize(1200, "image")
    ('1 seed', '3 seeds', '1,200 images')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def join_with_and(items: Sequence[str]) -> str:
    """Items with commas, and "and" before the last one.

    >>> join_with_and(["a"]), join_with_and(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return ", ".join(items[:-1]) + (" and " if len(items) > 1 else "") + items[-1]


def truncate_list(items: Sequence[str], max_items: int = 4) -> str:
    """All items, or the first of them and how many more there are.

    >>> truncate_list(["a", "b"]), truncate_list(["a", "b", "c"], max_items=2), truncate_list([])
    ('a, b', 'a, b and 1 more', 'none')
    """
    if not items:
        return "none"
    more = len(items) - max_items
    return ", ".join(items[:max_items]) + (f" and {more} more" if more > 0 else "")


def is_number(text: str) -> bool:
    """Whether a cell holds a number, with or without its unit, or stands for a missing one.

    >>> [is_number(text) for text in ("1,024", "-0.5", "93.1 %", "3x3", "-", "lr=0.1", "64-dim layer")]
    [True, True, True, True, True, False, False]
    """
    return text in ("", NO_VALUE) or bool(re.fullmatch(r"[-+−]?\d[\d,.eE+-]*([x×]\d+)*( ?[%µkMGTKBspx]{1,3})?", text))
