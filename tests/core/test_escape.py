"""Text from elsewhere, where it goes."""

import json
import pickle
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from convolab.core.errors import LabError
from convolab.core.escape import (
    ASCII_ERRORS,
    chart_spec,
    escape_line,
    file_name_part,
    html_text,
    printable_lines,
    script_json,
)

HOSTILE = "</script><!--<b>\x1b[31m\x00\r\n\u202e\ud800\ufffe'\"&\u2028|`$"


def test_a_line_is_one_line_that_a_terminal_only_shows() -> None:
    line = escape_line(HOSTILE)
    assert line.isprintable()
    assert escape_line(line) == line
    line.encode()


def test_usual_text_of_any_language_stays() -> None:
    for text in ("Größe 3 × 3 −1", "猫", "نمی\u200cخواهم", "👩\u200d🔬"):
        assert escape_line(text) == text


def test_text_of_several_lines_keeps_them() -> None:
    assert printable_lines("a\n\tb\x07") == "a\n\tb\\x07"


class Collector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))


def test_html_text_opens_no_tag_and_closes_no_attribute() -> None:
    collector = Collector()
    collector.feed(f'<p title="{html_text(HOSTILE)}">{html_text(HOSTILE)}</p>')
    assert collector.tags == [("p", {"title": printable_lines(HOSTILE)})]


def test_json_in_a_script_is_the_value_and_ends_no_script() -> None:
    text = script_json({HOSTILE: HOSTILE})
    assert json.loads(text) == {HOSTILE: HOSTILE}
    assert not set("<>&\n\u2028") & set(text)


def test_the_texts_of_a_chart_are_valid_xml() -> None:
    spec = chart_spec({"values": [{HOSTILE: HOSTILE, "n": 1}], "sort": (HOSTILE,)})
    ((name, _),) = [item for item in spec["values"][0].items() if item[0] != "n"]
    assert spec["sort"] == [name]
    ElementTree.fromstring(f"<svg>{html_text(name)}</svg>")


@pytest.mark.parametrize("name", [HOSTILE, "../../etc", "猫" * 200, "", ".", "a/b"])
def test_a_part_of_a_file_name_names_a_file_of_the_same_folder(name: str) -> None:
    part = file_name_part(name)
    assert part
    assert not set("/\\\0\n.") & set(part)
    assert len(part.encode()) <= 80


def test_an_error_is_one_line_whatever_its_names_hold() -> None:
    error = LabError(f"unknown class '{HOSTILE}'")
    assert str(error).isprintable()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_signs_that_ascii_lacks_are_written_in_ascii() -> None:
    assert "3 × 3 ≥ −1 ▲ é".encode("ascii", ASCII_ERRORS) == b"3 x 3 >= -1 ^ \\xe9"
