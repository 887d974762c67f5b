"""Numbers and lists as a person reads them."""


def format_duration(seconds: float | None) -> str:
    """Seconds as a person reads them.

    >>> duration(12.34), duration(754.0), duration(11520.0), duration(None)
    ('12.3 s', '12 min 34 s', '3 h 12 min', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
