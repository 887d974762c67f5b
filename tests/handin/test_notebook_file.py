"""Reading a notebook that may be anything."""

import json
import os
from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.handin.notebook_file import (
    MAX_CELLS,
    MAX_CODE_CHARS,
    one_line,
    parse_cell,
    printed_settings,
    read_notebook,
)


def refused(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(LabError) as caught:
        read_notebook(path, path.parent)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_what_is_no_json_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text("<html>\n\x1b[31m")
    assert "is not JSON" in refused(path)


@pytest.mark.parametrize("text", ["[]", "3", '{"cells": {}}', "{}"])
def test_json_that_is_no_notebook_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    assert "has no list of cells" in refused(path)


def test_json_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text("[" * 200_000)
    assert "nested too deeply" in refused(path)


def test_200_megabytes_are_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    assert "has 200 MB: at most 40 MB are read" in refused(path)


def test_too_many_cells_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": [{}] * (MAX_CELLS + 1)}))
    assert "at most 2,000 are read" in refused(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ipynb"
    secret.write_text('{"cells": []}')
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "a.ipynb"
    path.symlink_to(secret)
    assert "leads out of" in refused(path)
    (tmp_path / "work" / "b.ipynb").write_text('{"cells": []}')
    path.unlink()
    path.symlink_to("b.ipynb")
    assert read_notebook(path, tmp_path / "work") == []


def test_more_code_than_can_be_parsed_in_a_moment_is_refused_and_a_long_text_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    half = "1\n" * (MAX_CODE_CHARS // 4)
    cells = [{"cell_type": "code", "source": half}, {"cell_type": "code", "source": half}]
    cells += [{"cell_type": "markdown", "source": half}]
    path.write_text(json.dumps({"cells": cells}))
    assert len(read_notebook(path, tmp_path)) == 3
    cells[0]["source"] += "1"
    path.write_text(json.dumps({"cells": cells}))
    assert "has 1,000,001 characters of code: at most 1,000,000 are read" in refused(path)


def test_a_pipe_is_refused_and_does_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    os.mkfifo(path)
    assert "is not a regular file" in refused(path)


def test_a_loop_of_links_and_a_missing_file_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    assert "is missing" in refused(path)
    path.symlink_to(path)
    assert "is missing" in refused(path)


@pytest.mark.parametrize(
    "cell",
    [
        {},
        {"metadata": 3, "source": 5, "outputs": 7, "execution_count": "x"},
        {"metadata": {"name": ["a"]}, "outputs": [1, {"data": [2]}, {"output_type": "error", "evalue": {}}]},
        {"outputs": [{"output_type": "stream", "text": [1, "a"]}, {"data": {"text/html": 3, "text/markdown": None}}]},
    ],
)
def test_cells_of_wrong_types_count_as_empty(cell: dict[str, object]) -> None:
    read = parse_cell(cell)
    assert (read.execution_count, read.has_figure, read.markdown) == (None, False, "")


def test_html_in_an_output_is_a_figure_only_with_an_image_in_it() -> None:
    pages = ["<script>alert(1)</script>", "<img src='x'>", "<SVG></SVG>", "<p>text</p>"]
    cells = [parse_cell({"outputs": [{"data": {"text/html": page}}]}) for page in pages]
    assert [cell.has_figure for cell in cells] == [False, True, True, False]


def test_text_from_a_notebook_is_one_short_line_without_control_characters() -> None:
    line = one_line("\x1b]0;title\x07 a\nb\u202e" + "x" * 10_000)
    assert line.isprintable()
    assert len(line) == 160


def test_of_a_setting_that_is_printed_twice_the_first_counts() -> None:
    printed = {"output_type": "stream", "text": "data = digits\nfast = True\n\ndata = cifar10\nepochs = 3"}
    cell = parse_cell({"cell_type": "code", "metadata": {"name": "q2-settings"}, "outputs": [printed]})
    assert printed_settings([parse_cell({}), cell]) == {"data": "digits", "fast": "True"}
    assert printed_settings([parse_cell({})]) == {}
