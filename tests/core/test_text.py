"""Numbers and lists as a person reads them."""

from convolab.core.text import format_duration


def test_a_duration_that_no_file_says_is_a_hyphen() -> None:
    assert format_duration(float("nan")) == format_duration(None) == "-"
